"""Who comes next: retrainings that operators ask for, that are due, or that the absence of a first model asks for.

Enters: jobs (rows), schedules. Leaves: versions, trained in a process of their own, published and activated. Of several
daemons the one that holds the lease `training` trains; each transaction that takes a job, buries one or activates a
version asserts it. The law: a training that fails changes nothing.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from datetime import timedelta
from typing import TYPE_CHECKING

from monitor import logs, metrics
from monitor.clock import from_us
from monitor.errors import Fenced, MonitorError, NotEnoughData, StoreUnavailable
from monitor.lifecycle.training_process import Order, retrain
from monitor.store import alerts, assets, jobs, versions

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from monitor.clock import Clock
    from monitor.config import Config, FleetConfig
    from monitor.lifecycle.champions import Champions
    from monitor.store.engine import AsyncStore
    from monitor.store.lease import Lease
    from monitor.types import JobView

log = logs.get("training")

Under = tuple[str, int] | None
"""Name and epoch of the lease that a piece of work was begun under; None = there is no other daemon."""

LEASE = "training"
LOOK_EVERY_S = 0.5
"""How soon a retraining that was asked for is taken up."""
FIRST_RETRY = timedelta(minutes=1)
"""A fleet without a model, or whose retraining failed, is tried again after this; then after twice as long, …"""
LAST_RETRY = timedelta(hours=1)
AUTOMATIC = "the daemon"
"""Who asked, when nobody did."""
LAST_WORD_S = 0.5
"""For the job of a training that we leave; what nobody hears is found out at the next start."""
GRACE_S = 3.0
"""At the start: for another daemon, which trains, to say that it does."""


class Trainer:
    """Makes the versions of every fleet, one training at a time."""

    def __init__(
        self,
        config: Config,
        store: AsyncStore,
        champions: Champions,
        clock: Clock,
        owner: str,
        lease: Lease | None = None,
    ) -> None:
        """`lease`: None = there is no other daemon."""
        self._config = config
        self._store = store
        self._champions = champions
        self._clock = clock
        self._owner = owner
        self._lease = lease
        self._retry_at: dict[str, datetime] = {}
        self._failures: dict[str, int] = {}

    async def begin(self) -> bool:
        """Bury trainings that died with their daemon, if it is us who trains; return whether it is."""
        if await self._is_mine():
            with suppress(Fenced):
                await self._store.run(jobs.fail_stale, self._clock.now_us(), lease=self._under())
                return True
        return False

    async def is_asked(self, fleet: FleetConfig) -> bool:
        """Return whether somebody waits for a new model of the fleet, and it is us who will train it."""
        if await self._store.read(jobs.active, fleet.name) is None or not await self.begin():
            return False  # we take no lease for nothing: who cannot read a champion should not be the one to train
        return await self._store.read(jobs.active, fleet.name) is not None

    async def train_first(self) -> None:
        """Before the first record is scored: train the fleets that have no model, if the topics hold enough."""
        for fleet in self._config.fleets:
            if not self._champions.has_champion(fleet) and not await self._train_if_mine(fleet):
                await self._wait_for_another(fleet)

    async def loop(self) -> None:
        """Take up retrainings until cancelled."""
        while True:
            await self._clock.sleep(LOOK_EVERY_S)
            if self._lease is not None and self._lease.epoch is None:
                self._retry_at.clear()  # that is for whoever trains now to know
                continue
            under = self._under()
            try:
                await self._look(under)
            except Fenced as error:  # we were asleep, or the database was: whose it is now, the lease finds out
                log.debug("lease_lost", detail=error.detail)
                if self._lease is not None and under is not None:
                    self._lease.lost(under[1])
            except MonitorError as error:
                log.warning("training_loop", error=str(error), doing="trying again")
                await self._clock.sleep(FIRST_RETRY.total_seconds() / 12)

    async def _look(self, under: Under) -> None:
        job = await self._store.run(jobs.take, self._owner, self._clock.now_us(), lease=under)
        if job is not None:
            await self._carry_out(job, under)
            return
        for fleet in self._config.fleets:
            due_at = await self._due_at(fleet)
            if due_at is not None and due_at <= self._now():
                await self._train(fleet, under)

    async def _due_at(self, fleet: FleetConfig) -> datetime | None:
        """When the fleet is trained next; what another daemon trained counts, and what it failed at does not."""
        if (retry_at := self._retry_at.get(fleet.name)) is not None:
            return retry_at
        if not self._champions.has_champion(fleet):
            return self._now()
        champion = await self._store.read(versions.champion, fleet.name)
        if fleet.retrain.every is None or champion is None:
            return None
        return champion.trained_at + fleet.retrain.every

    # ------------------------------------------------------------------ with other daemons

    async def _is_mine(self) -> bool:
        return self._lease is None or await self._lease.look()

    def _under(self) -> Under:
        return None if self._lease is None else self._lease.under

    async def _train_if_mine(self, fleet: FleetConfig) -> bool:
        """Train the fleet; False = another daemon trains, or has come to do so while we were asleep."""
        if await self._is_mine():
            with suppress(Fenced):
                await self._train(fleet, self._under())
                return True
        return False

    async def _wait_for_another(self, fleet: FleetConfig) -> None:
        """Another daemon trains: no window is scored before its model is there, or it gives up."""
        log.info("waiting_for_training", fleet=fleet.name, why="another daemon trains the first model")
        patient_until_s = self._clock.monotonic_s() + GRACE_S
        while not self._champions.has_champion(fleet):
            await self._champions.refresh()
            if await self._train_if_mine(fleet):  # it died
                return
            if await self._store.read(jobs.active, fleet.name) is not None:
                patient_until_s = self._clock.monotonic_s() + GRACE_S
            elif self._clock.monotonic_s() > patient_until_s:
                return
            await self._clock.sleep(LOOK_EVERY_S)

    # ------------------------------------------------------------------ one training

    async def _train(self, fleet: FleetConfig, under: Under) -> None:
        now_us = self._clock.now_us()
        job = await self._store.run(jobs.take_for, fleet.name, AUTOMATIC, self._owner, now_us, lease=under)
        if job is not None:
            await self._carry_out(job, under)

    async def _carry_out(self, job: JobView, under: Under) -> None:
        """`under`: under which the job was taken, and its version is activated or not."""
        fleet = next((fleet for fleet in self._config.fleets if fleet.name == job.fleet), None)
        if fleet is None:
            await self._surely(jobs.fail, job.id, f"the running daemon's configuration has no fleet {job.fleet}")
            return
        log.info("training", fleet=fleet.name, job=job.id, asked_by=job.requested_by)
        try:
            with metrics.trainings_running.track_inprogress():
                trained = await retrain(await self._order(fleet), lambda share, text: self._progress(job, share, text))
            await self._champions.until_known(self._is_mine)  # it may just have run out, and be nobody's
            await self._champions.activate(fleet, trained, under)
        except MonitorError as error:
            why = error.detail or str(error)
            await self._surely(jobs.fail, job.id, why)
            self._put_off(fleet)
            self._tell_why_not(fleet, error)
            metrics.trainings.labels("failed").inc()
        except BaseException:
            # The signal to stop must not turn into something a loop survives, nor wait for a database that hangs.
            with suppress(MonitorError, TimeoutError):
                async with asyncio.timeout(LAST_WORD_S):
                    await self._store.run(jobs.fail, job.id, "the daemon stopped", self._clock.now_us())
            raise
        else:
            await self._surely(jobs.finish, job.id, trained.version)
            self._failures.pop(fleet.name, None)
            self._retry_at.pop(fleet.name, None)
            metrics.trainings.labels("done").inc()

    def _tell_why_not(self, fleet: FleetConfig, error: MonitorError) -> None:
        hopeful = isinstance(error, NotEnoughData) or error.retriable
        (log.info if hopeful else log.warning)(
            "not_trained",
            fleet=fleet.name,
            why=error.detail or str(error),
            again_at=self._retry_at[fleet.name],
            until_then="the champion stays" if self._champions.has_champion(fleet) else "windows stay unscored",
        )

    async def _surely(self, end: Callable[..., None], job_id: int, word: str) -> None:
        """End a job, however long the database is away: one that is called running for ever blocks all others."""
        with suppress(Fenced):  # it was given up for dead
            await self._champions.until_known(self._store.run, end, job_id, word, self._clock.now_us())

    async def _order(self, fleet: FleetConfig) -> Order:
        learnt = (await self._store.read(assets.fleets)).get(fleet.name)
        return Order(
            config=str(self._config.path),
            fleet=fleet.name,
            sensors=fleet.sensors or learnt,
            alerts=await self._store.read(alerts.intervals, fleet.name),
            known=await self._store.read(assets.names, fleet.name),
        )

    async def _progress(self, job: JobView, share: float, text: str) -> None:
        log.info("training_progress", fleet=job.fleet, done=f"{share:.0%}", step=text)
        with suppress(StoreUnavailable):  # the next one will do
            await self._store.run(jobs.progress, job.id, share, text)

    def _put_off(self, fleet: FleetConfig) -> None:
        failures = self._failures[fleet.name] = self._failures.get(fleet.name, 0) + 1
        self._retry_at[fleet.name] = self._now() + min(LAST_RETRY, FIRST_RETRY * 2 ** min(failures - 1, 10))

    def _now(self) -> datetime:
        return from_us(self._clock.now_us())
