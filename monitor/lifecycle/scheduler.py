"""The scheduler of the training process: it runs the jobs that operators request, that are due, or that a fleet without
a model needs, one at a time.

Input: jobs (rows of the database), and the settings of each fleet. Output: versions, trained in a process of their own,
that decide, wait for a decision, or are rejected.
Invariant: a job that fails changes nothing. Of several daemons only the holder of the lease `training` runs jobs. Each
transaction that starts a job, takes up a stale one or publishes a version checks the lease's fencing token. The state
is in the database, so a daemon that is killed at any point is continued by the next one.

    a round     a requested job, or else the first one that is due (`due.py`, `promotion.py`)
    a job       carried out by `job_runner.py`: order (`orders.py`), process (`training_process.py`), decision
                (`promotion.py`), publication
"""

from __future__ import annotations

import asyncio
import math
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING

from monitor import logs, metrics
from monitor.clock import from_us
from monitor.errors import Fenced, MonitorError, NotEnoughData, StoreUnavailable
from monitor.lifecycle import promotion
from monitor.lifecycle.champions import WindowChanged, until_answered
from monitor.lifecycle.drift_watch import DriftWatch
from monitor.lifecycle.drill_results import next_drill
from monitor.lifecycle.due import DriftFound, Due, TrainingFacts, next_training
from monitor.lifecycle.job_runner import JobRunner
from monitor.lifecycle.recalibration import Recalibration
from monitor.lifecycle.training_process import run_training_process
from monitor.store import assets, challengers, jobs, registry, versions
from monitor.timing import DEFAULT_TIMING
from monitor.types import ModelCheckKind, ModelState

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from datetime import datetime

    from monitor.clock import Clock
    from monitor.config import Config, FleetConfig
    from monitor.lifecycle.champions import Champions
    from monitor.lifecycle.job_runner import FencingToken, Training
    from monitor.store.engine import AsyncStore
    from monitor.store.lease_renewal import Lease
    from monitor.store.outbox import Channel
    from monitor.timing import Timing
    from monitor.types import JobView, VersionInfo

log = logs.get("training")

LEASE = "training"
REQUESTED_BY_DAEMON = "the daemon"
"""`requested_by` of a job that no operator requested."""


class RetrainScheduler:
    """Runs the jobs of all fleets, one at a time."""

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
        channels: Sequence[Channel] = (),
    ) -> None:
        """`lease`: the one named `LEASE`; None = there is no other daemon. `train`: the training process.

        `channels`: notified of the alert of a bad drill.
        """
        self._config = config
        self._store = store
        self._champions = champions
        self._clock = clock
        self._owner = owner
        self._lease = lease
        self._timing = timing
        self._started_at = from_us(clock.now_us())
        self.missing: dict[str, str] = {}
        """By fleet without a model, the data that its first training lacked, in words."""
        self._recalibration = Recalibration(config, champions, store, clock)
        self._drift = DriftWatch(champions, store, clock)
        self._jobs = JobRunner(
            config, store, champions, self._drift, clock, owner, lease, timing=timing, train=train, channels=channels
        )
        self._up_to_date: set[str] = set()
        """Fleets trained by this process: the present sensors were learnt, whatever became of the version."""
        self._look_at_s = -math.inf
        """Time of the next look for due jobs, by the monotonic clock."""

    async def take_up_stale_jobs(self) -> bool:
        """Queue the jobs of daemons that died again, if this daemon trains. Return whether it does."""
        if await self._acquire_lease():
            with suppress(Fenced):
                await self._store.run(jobs.take_up_stale, self._clock.now_us(), lease=self._fencing_token())
                return True
        return False

    async def is_retraining_requested(self, fleet: FleetConfig) -> bool:
        """Return whether an operator requested a retraining of the fleet, and this daemon will run it."""
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
        """Run the jobs that are requested or due, until cancelled."""
        while True:
            await self._clock.sleep(self._timing.jobs_every_s)
            if self._lease is not None and self._lease.epoch is None:
                continue  # another daemon trains
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
        """Run the oldest requested job, or else the first one that is due."""
        job = await self._store.run(jobs.start_next, self._owner, self._clock.now_us(), lease=token)
        if job is None and self._clock.monotonic_s() >= self._look_at_s:
            self._look_at_s = self._clock.monotonic_s() + self._timing.due_every_s
            job = await self._start_due(token)
        if job is not None:
            self._look_at_s = -math.inf
            await self._run_job(job, token)

    # ------------------------------------------------------------------ due jobs

    async def _start_due(self, token: FencingToken) -> JobView | None:
        """Start the first job that is due. None = none is."""
        for fleet in self._config.fleets:
            await self._drift.look(fleet)
            training = await self._next_training(fleet)
            if training is not None and training.at <= self._now():
                return await self._start(fleet, jobs.RETRAIN, training, token)
            comparison = await self._next_comparison(fleet)
            if comparison is not None and comparison.at <= self._now():
                return await self._start(fleet, jobs.JUDGE, comparison, token)
            drill = await self._next_drill(fleet)
            if drill is not None and drill.at <= self._now():
                return await self._start(fleet, jobs.DRILL, drill, token)
        return None

    async def _start(self, fleet: FleetConfig, kind: str, due: Due, token: FencingToken) -> JobView | None:
        log.info("job_due", fleet=fleet.name, kind=kind, reason=due.reason, why=due.why)
        call = (fleet.name, REQUESTED_BY_DAEMON, self._owner, self._clock.now_us())
        detail = {"why": due.why}
        start = partial(jobs.start_for_fleet, lease=token, reason=due.reason, kind=kind, detail=detail)
        return await self._store.run(start, *call)

    async def _next_training(self, fleet: FleetConfig) -> Due | None:
        champion = await self._store.read(versions.champion, fleet.name)
        facts = TrainingFacts(
            now=self._now(),
            has_champion=self._champions.has_champion(fleet),
            champion_trained_at=None if champion is None else champion.trained_at,
            has_other_sensors=await self._has_other_sensors(fleet),
            ended=await self._store.read(jobs.ended, fleet.name),
            drift=None if champion is None else await self._drift_of(champion),
            shadow_until=await self._shadow_until(fleet),
        )
        return next_training(fleet.retrain, facts, self._timing)

    async def _next_comparison(self, fleet: FleetConfig) -> Due | None:
        challenger = await self._store.read(challengers.waiting, fleet.name)
        metrics.challenger_present.labels(fleet.name).set(0 if challenger is None else 1)
        if challenger is None or challenger.state != ModelState.SHADOW:
            return None
        ended = await self._store.read(jobs.ended, fleet.name, jobs.JUDGE, 1)
        return promotion.next_comparison(fleet.retrain.promote, challenger, next(iter(ended), None))

    async def _next_drill(self, fleet: FleetConfig) -> Due | None:
        if not self._champions.has_champion(fleet):
            return None
        ended = await self._store.read(jobs.ended, fleet.name, jobs.DRILL, 1)
        at = next_drill(fleet.drill, next(iter(ended), None), self._started_at)
        return None if at is None else Due(at, "schedule", f"by cron {fleet.drill.cron} ({fleet.drill.timezone})")

    async def _shadow_until(self, fleet: FleetConfig) -> datetime | None:
        challenger = await self._store.read(challengers.waiting, fleet.name)
        if challenger is None or challenger.state != ModelState.SHADOW:
            return None
        return promotion.shadow_until(fleet.retrain.promote, challenger)

    async def _drift_of(self, champion: VersionInfo) -> DriftFound | None:
        """Return the drift of scores or of readings that the last tests of the champion found."""
        for kind in (ModelCheckKind.DRIFT, ModelCheckKind.INPUT_DRIFT):
            found = await self._store.read(registry.latest_check, kind, champion.fleet)
            if found is not None and found.problem is not None and found.version == champion.version:
                return DriftFound(found.at, str(found.result.get("reason", "drift")), found.problem)
        return None

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
                await self._train_first(fleet, self._fencing_token())
                return True
        return False

    async def _train_first(self, fleet: FleetConfig, token: FencingToken) -> None:
        """Run the fleet's requested training, or a new one."""
        first = Due(self._now(), "first", "the fleet has no model")
        if (job := await self._start(fleet, jobs.RETRAIN, first, token)) is not None:
            await self._run_job(job, token)

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

    # ------------------------------------------------------------------ one job

    async def _run_job(self, job: JobView, token: FencingToken) -> None:
        """Carry out a job, and store its end. `token`: the one that the job was started with."""
        fleet = next((fleet for fleet in self._config.fleets if fleet.name == job.fleet), None)
        if fleet is None:
            await self._end_job(jobs.fail, job.id, f"the running daemon's configuration has no fleet {job.fleet}")
            return
        log.info("training", fleet=fleet.name, job=job.id, kind=job.kind, asked_by=job.requested_by, reason=job.reason)
        try:
            outcome = await self._jobs.carry_out(fleet, job, token)
        except Fenced as error:
            # The new holder of the lease has taken the job up, or takes it up now.
            log.info("not_trained", fleet=fleet.name, why=error.detail, again_at=None, until_then="another one trains")
            await self._release(job)
            raise
        except MonitorError as error:
            await self._end_job(jobs.fail, job.id, error.detail or str(error))
            await self._log_failure(fleet, job, error)
            self._count(job, "failed")
        except WindowChanged as change:
            await self._end_job(jobs.finish, job.id, change.version)
            self._count(job, "done")
            raise
        except BaseException:
            # Stopping must neither be swallowed here nor wait for a database that hangs.
            with suppress(TimeoutError):
                async with asyncio.timeout(self._timing.job_end_limit_s):
                    await self._release(job)
            raise
        else:
            await self._end_job(jobs.finish, job.id, outcome.version, outcome.why)
            if job.kind == jobs.RETRAIN:
                self._up_to_date.add(fleet.name)
                self.missing.pop(fleet.name, None)
            self._count(job, "done")
        finally:
            metrics.training_progress_ratio.labels(fleet.name).set(0)
            metrics.training_eta_seconds.labels(fleet.name).set(0)

    # ------------------------------------------------------------------ the end of a job

    async def _end_job(self, end: Callable[..., None], job_id: int, *outcome: str | None) -> None:
        """End a job, however long the database is unavailable. A job that stays `running` would block all others."""
        first, *more = outcome
        with suppress(Fenced):  # another daemon has taken it up
            call = (job_id, first, self._clock.now_us(), *more)
            work = partial(self._store.run, end, *call, owner=self._owner)
            await until_answered(work, self._clock, self._timing)

    async def _release(self, job: JobView) -> None:
        """Queue the job again for another daemon. One that is dead or slow takes it up later as a stale one."""
        with suppress(MonitorError):
            why = "its daemon stopped, and the next one starts it again"
            await self._store.run(jobs.release, job.id, why, owner=self._owner)

    def _count(self, job: JobView, outcome: str) -> None:
        if job.kind == jobs.RETRAIN:
            metrics.trainings.labels(outcome).inc()

    async def _log_failure(self, fleet: FleetConfig, job: JobView, error: MonitorError) -> None:
        has_champion = self._champions.has_champion(fleet)
        why = error.detail or str(error)
        if job.kind != jobs.RETRAIN:
            log.warning("job_failed", fleet=fleet.name, kind=job.kind, why=why)
            return
        if isinstance(error, NotEnoughData) and not has_champion:
            self.missing[fleet.name] = error.detail
        ends_by_itself = isinstance(error, NotEnoughData) or error.retriable
        try:
            due = await self._next_training(fleet)
        except StoreUnavailable:
            due = None
        (log.info if ends_by_itself else log.warning)(
            "not_trained",
            fleet=fleet.name,
            why=why,
            again_at=None if due is None else due.at,
            until_then="the champion stays" if has_champion else "windows stay unscored",
        )

    def _now(self) -> datetime:
        return from_us(self._clock.now_us())
