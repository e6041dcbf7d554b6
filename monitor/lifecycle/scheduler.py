"""The retraining scheduler: it runs the retrainings that operators request, that are due, or that a fleet without a
model needs.

Input: jobs (rows of the database) and the schedule of each fleet. Output: versions, trained in a process of their own,
published and activated.
Invariant: a training that fails changes nothing. Of several daemons only the holder of the lease `training` trains.
Each transaction that starts a job, takes up a stale one or activates a version checks the lease's fencing token.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING

from monitor import logs, metrics
from monitor.clock import from_us
from monitor.errors import Fenced, MonitorError, NotEnoughData, StoreUnavailable
from monitor.lifecycle.champions import WindowChanged, until_answered
from monitor.lifecycle.recalibration import Recalibration
from monitor.lifecycle.training_process import TrainingOrder, run_training_process
from monitor.retry import backoff_s
from monitor.store import assets, jobs, training_times, versions
from monitor.store.confirmed_faults import confirmed_faults
from monitor.timing import DEFAULT_TIMING

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from datetime import datetime

    from monitor.clock import Clock
    from monitor.config import Config, FleetConfig
    from monitor.lifecycle.champions import Champions
    from monitor.lifecycle.training_process import Trained
    from monitor.store.engine import AsyncStore
    from monitor.store.lease_renewal import Lease
    from monitor.timing import Timing
    from monitor.types import JobView

    Training = Callable[[TrainingOrder, Callable[[float, str], Awaitable[None]]], Awaitable[Trained]]

log = logs.get("training")

FencingToken = tuple[str, int] | None
"""Name and epoch of the lease under which a job was started. None = there is no other daemon."""

LEASE = "training"
REQUESTED_BY_SCHEDULE = "the daemon"
"""`requested_by` of a job that no operator requested."""
SENSORS_CHANGED = "the daemon: the sensors changed"
"""`requested_by` of a job for a champion that was trained on other sensors than the fleet has."""


class RetrainScheduler:
    """Trains the versions of all fleets, one training at a time."""

    def __init__(
        self,
        config: Config,
        store: AsyncStore,
        champions: Champions,
        clock: Clock,
        owner: str,
        lease: Lease | None = None,
        *,
        timing: Timing = DEFAULT_TIMING,
        train: Training = run_training_process,
    ) -> None:
        """`lease`: the one named `LEASE`; None = there is no other daemon. `train`: the training process."""
        self._config = config
        self._store = store
        self._champions = champions
        self._clock = clock
        self._owner = owner
        self._lease = lease
        self._timing = timing
        self._train = train
        self._retry_at: dict[str, datetime] = {}
        """By fleet, the time of the next attempt after a failed training."""
        self._n_failures: dict[str, int] = {}
        """By fleet, failed trainings in a row."""
        self.missing: dict[str, str] = {}
        """By fleet without a model, the data that its first training lacked, in words."""
        self._recalibration = Recalibration(config, champions, store, clock)
        self._up_to_date: set[str] = set()
        """Fleets trained by this process: their champion has the present sensors."""

    async def take_up_stale_jobs(self) -> bool:
        """Queue the jobs of daemons that died again, if this daemon trains. Return whether it does."""
        if await self._acquire_lease():
            with suppress(Fenced):
                await self._store.run(jobs.take_up_stale, self._clock.now_us(), lease=self._fencing_token())
                return True
        return False

    async def is_retraining_requested(self, fleet: FleetConfig) -> bool:
        """Return whether a retraining of the fleet is requested, and this daemon will run it."""
        # Read the job before acquiring the lease. A daemon that waits for a checkpoint must not keep the other daemons,
        # which may have it, from training.
        job = await self._store.read(jobs.active, fleet.name)
        if job is None or job.reason != "operator" or not await self.take_up_stale_jobs():
            return False
        return await self._store.read(jobs.active, fleet.name) is not None  # unless it was given up now

    async def derive_thresholds(self) -> None:
        """Derive versions where budget, alert policy or sensor settings were changed, if this daemon trains.

        Called before the first record is scored. Without the lease the loop does it, once this daemon has it.
        """
        if await self._acquire_lease():
            with suppress(Fenced):
                await self._recalibration.run(self._fencing_token())

    async def train_first_models(self) -> None:
        """Train the fleets without a model, if the topics hold enough. Called before the first record is scored."""
        for fleet in self._config.fleets:
            if not self._champions.has_champion(fleet) and not await self._train_as_leader(fleet):
                await self._wait_for_other_daemon(fleet)

    async def loop(self) -> None:
        """Run the retrainings that are requested or due, until cancelled."""
        while True:
            await self._clock.sleep(self._timing.jobs_every_s)
            if self._lease is not None and self._lease.epoch is None:
                self._retry_at.clear()  # another daemon trains now, and schedules its own retries
                continue
            token = self._fencing_token()
            try:
                await self._recalibration.run(token)
                await self._run_next(token)
            except Fenced as error:  # the daemon, or the database, was suspended; a renewal finds the new holder
                log.debug("lease_lost", detail=error.detail)
                if self._lease is not None and token is not None:
                    self._lease.mark_lost(token[1])
            except MonitorError as error:
                log.warning("training_loop", error=str(error), doing="trying again")
                await self._clock.sleep(self._timing.jobs_error_wait_s)

    async def _run_next(self, token: FencingToken) -> None:
        job = await self._store.run(jobs.start_next, self._owner, self._clock.now_us(), lease=token)
        if job is not None:
            await self._run_job(job, token)
            return
        for fleet in self._config.fleets:
            due_at = await self._due_at(fleet)
            if due_at is not None and due_at <= self._now():
                is_changed = await self._has_other_sensors(fleet)
                await self._train_fleet(fleet, token, SENSORS_CHANGED if is_changed else REQUESTED_BY_SCHEDULE)

    async def _due_at(self, fleet: FleetConfig) -> datetime | None:
        """Return the time of the fleet's next training. Another daemon's successes count, its failures do not."""
        if (retry_at := self._retry_at.get(fleet.name)) is not None:
            return retry_at
        if not self._champions.has_champion(fleet) or await self._has_other_sensors(fleet):
            return self._now()
        champion = await self._store.read(versions.champion, fleet.name)
        if fleet.retrain.every is None or champion is None:
            return None
        return champion.trained_at + fleet.retrain.every

    async def _has_other_sensors(self, fleet: FleetConfig) -> bool:
        """Return whether the champion was trained on other sensors than the fleet has now.

        The champion goes on with the sensors that both know, and a retraining learns the others. Once for each start
        of the daemon: daemons with different lists must not retrain in turn.
        """
        learnt_from = self._champions.sensors_of(fleet)
        if learnt_from is None or fleet.name in self._up_to_date:
            return False
        sensors = fleet.sensors or (await self._store.read(assets.fleets)).get(fleet.name)
        return sensors is not None and set(sensors) != set(learnt_from)

    # ------------------------------------------------------------------ several daemons

    async def _acquire_lease(self) -> bool:
        return self._lease is None or await self._lease.acquire()

    def _fencing_token(self) -> FencingToken:
        return None if self._lease is None else self._lease.fencing_token

    async def _train_as_leader(self, fleet: FleetConfig) -> bool:
        """Train the fleet. Return False if another daemon trains, or took over while this one was suspended."""
        if await self._acquire_lease():
            with suppress(Fenced):
                await self._train_fleet(fleet, self._fencing_token())
                return True
        return False

    async def _wait_for_other_daemon(self, fleet: FleetConfig) -> None:
        """Wait until another daemon has trained the fleet's first model, or gives up."""
        log.info("waiting_for_training", fleet=fleet.name, why="another daemon trains the first model")
        wait_until_s = self._clock.monotonic_s() + self._timing.first_training_grace_s
        while not self._champions.has_champion(fleet):
            await self._champions.refresh()
            if await self._train_as_leader(fleet):  # the other daemon died
                return
            if await self._store.read(jobs.active, fleet.name) is not None:
                wait_until_s = self._clock.monotonic_s() + self._timing.first_training_grace_s
            elif self._clock.monotonic_s() > wait_until_s:
                return
            await self._clock.sleep(self._timing.jobs_every_s)

    # ------------------------------------------------------------------ one training

    async def _train_fleet(
        self, fleet: FleetConfig, token: FencingToken, requested_by: str = REQUESTED_BY_SCHEDULE
    ) -> None:
        now_us = self._clock.now_us()
        call = (fleet.name, requested_by, self._owner, now_us)
        job = await self._store.run(jobs.start_for_fleet, *call, lease=token)
        if job is not None:
            await self._run_job(job, token)

    async def _run_job(self, job: JobView, token: FencingToken) -> None:
        """Train, and activate the version. `token`: the one that the job was started with."""
        fleet = next((fleet for fleet in self._config.fleets if fleet.name == job.fleet), None)
        if fleet is None:
            await self._end_job(jobs.fail, job.id, f"the running daemon's configuration has no fleet {job.fleet}")
            return
        log.info("training", fleet=fleet.name, job=job.id, asked_by=job.requested_by)
        try:
            version = await self._train_and_activate(fleet, job, token)
        except MonitorError as error:
            await self._end_job(jobs.fail, job.id, error.detail or str(error))
            self._schedule_retry(fleet)
            self._log_failure(fleet, error)
            metrics.trainings.labels("failed").inc()
        except WindowChanged as change:
            await self._end_job(jobs.finish, job.id, change.version)
            metrics.trainings.labels("done").inc()
            raise
        except BaseException:
            # Stopping must neither be swallowed here nor wait for a database that hangs.
            with suppress(MonitorError, TimeoutError):
                async with asyncio.timeout(self._timing.job_end_limit_s):
                    why = "its daemon stopped, and the next one starts it again"
                    await self._store.run(jobs.release, job.id, why, owner=self._owner)
            raise
        else:
            await self._end_job(jobs.finish, job.id, version)
            self._up_to_date.add(fleet.name)
            self._n_failures.pop(fleet.name, None)
            self.missing.pop(fleet.name, None)
            self._retry_at.pop(fleet.name, None)
            metrics.trainings.labels("done").inc()

    async def _train_and_activate(self, fleet: FleetConfig, job: JobView, token: FencingToken) -> str:
        with metrics.trainings_running.track_inprogress():
            trained = await self._train(await self._order(fleet, job), partial(self._report_progress, job))
        if found := trained.card.get("inputs"):
            log.info("inputs_recognised", fleet=fleet.name, version=trained.version, found=found)
        for warning in (trained.card.get("receipt") or {}).get("warnings", ()):
            log.warning("training_data", fleet=fleet.name, version=trained.version, found=warning)
        # A lease that ran out during the training, and that no other daemon took, is valid again after this.
        await until_answered(self._acquire_lease, self._clock, self._timing)
        await self._champions.activate(fleet, trained, token)
        return trained.version

    async def _order(self, fleet: FleetConfig, job: JobView) -> TrainingOrder:
        stored = (await self._store.read(assets.fleets)).get(fleet.name)
        champion = await self._store.read(versions.champion, fleet.name)
        return TrainingOrder(
            config=str(self._config.path),
            fleet=fleet.name,
            sensors=fleet.sensors or stored,
            judged=await self._store.read(training_times.judged_times, fleet.name),
            faulty_sensors=await self._store.read(training_times.sensor_times, fleet.name),
            known=await self._store.read(assets.names_by_partition, fleet.name),
            length=fleet.length if fleet.window is None and self._champions.has_champion(fleet) else None,
            kind=job.kind,
            champion=None if champion is None or not self._champions.has_champion(fleet) else champion.path,
            faults=await self._store.read(confirmed_faults, fleet.name, fleet.retrain.remember_faults),
            detail=job.detail or {},
        )

    async def _report_progress(self, job: JobView, share: float, text: str) -> None:
        log.info("training_progress", fleet=job.fleet, done=f"{share:.0%}", step=text)
        with suppress(StoreUnavailable):  # the next report replaces it
            await self._store.run(jobs.set_progress, job.id, share, text, owner=self._owner)

    async def _end_job(self, end: Callable[..., None], job_id: int, outcome: str) -> None:
        """End a job, however long the database is unavailable. A job that stays `running` would block all others."""
        with suppress(Fenced):  # it was failed as stale
            work = partial(self._store.run, end, job_id, outcome, self._clock.now_us(), owner=self._owner)
            await until_answered(work, self._clock, self._timing)

    def _schedule_retry(self, fleet: FleetConfig) -> None:
        n_failures = self._n_failures[fleet.name] = self._n_failures.get(fleet.name, 0) + 1
        first_s, longest_s = self._timing.training_retry_first_s, self._timing.training_retry_longest_s
        wait = timedelta(seconds=backoff_s(n_failures, first_s=first_s, longest_s=longest_s))
        self._retry_at[fleet.name] = self._now() + wait

    def _log_failure(self, fleet: FleetConfig, error: MonitorError) -> None:
        if isinstance(error, NotEnoughData) and not self._champions.has_champion(fleet):
            self.missing[fleet.name] = error.detail
        ends_by_itself = isinstance(error, NotEnoughData) or error.retriable
        (log.info if ends_by_itself else log.warning)(
            "not_trained",
            fleet=fleet.name,
            why=error.detail or str(error),
            again_at=self._retry_at[fleet.name],
            until_then="the champion stays" if self._champions.has_champion(fleet) else "windows stay unscored",
        )

    def _now(self) -> datetime:
        return from_us(self._clock.now_us())
