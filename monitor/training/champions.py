"""Who decides now and who comes next: the models of a running daemon.

Enters: retrainings that operators ask for (rows), schedules, and the absence of a first model. Leaves: new versions,
published, activated at a boundary of event time between two batches, so that no window is lost or scored by half a
change. The law: whatever goes wrong here, the present champion goes on deciding.
"""

from __future__ import annotations

from contextlib import nullcontext, suppress
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from monitor import logs
from monitor.clock import from_us
from monitor.errors import CheckpointDamaged, Conflict, MonitorError, NotEnoughData, StoreUnavailable
from monitor.registry import Registry
from monitor.store import alerts, assets, jobs, scores
from monitor.stream.score import FOREVER_AGO_US, Activation
from monitor.training.retrain import Order, retrain

if TYPE_CHECKING:
    from contextlib import AbstractAsyncContextManager
    from datetime import datetime

    from monitor.clock import Clock
    from monitor.config import Config, FleetConfig
    from monitor.store.engine import AsyncStore
    from monitor.stream.score import DetectorScorer
    from monitor.training.retrain import Trained
    from monitor.types import JobView

log = logs.get("training")

LOOK_EVERY_S = 0.5
"""How soon a retraining that was asked for is taken up."""
FIRST_RETRY = timedelta(minutes=1)
"""A fleet without a model, or whose retraining failed, is tried again after this; then after twice as long, …"""
LAST_RETRY = timedelta(hours=1)
AUTOMATIC = "the daemon"
"""Who asked, when nobody did."""


class River(Protocol):
    """What the models need of the running pipeline."""

    def between_batches(self) -> AbstractAsyncContextManager[None]:
        """Hold it between two batches."""


class Champions:
    """The versions of every fleet: loads them, and makes the next ones, one training at a time."""

    def __init__(self, config: Config, store: AsyncStore, scorer: DetectorScorer, clock: Clock, owner: str) -> None:
        self._config = config
        self._store = store
        self._registry = Registry(store)
        self._scorer = scorer
        self._clock = clock
        self._owner = owner
        self._due_at: dict[str, datetime] = {}
        self._failures: dict[str, int] = {}
        self.river: River | None = None
        """None while no window is being scored."""

    async def load(self) -> None:
        """Take up what earlier runs left: activations, and trainings that died with their daemon."""
        await self._store.run(jobs.fail_stale, self._owner, self._clock.now_us())
        for fleet in self._config.fleets:
            paths = {each.version: Path(each.path) for each in await self._registry.list(fleet.name)}
            for active in await self._registry.activations(fleet.name):
                path = paths[active.version]
                self._scorer.activate(fleet.name, Activation(active.from_window_end_us, active.version, path))
            champion = await self._registry.champion(fleet.name)
            if champion is not None:
                log.info("champion", fleet=fleet.name, version=champion.version, trained_at=champion.trained_at)
            if fleet.retrain.every is not None and champion is not None:
                self._due_at[fleet.name] = champion.trained_at + fleet.retrain.every

    async def train_first(self) -> None:
        """Before the first record is scored: train the fleets that have no model, if the topics hold enough."""
        for fleet in self._config.fleets:
            if not self._scorer.has_champion(fleet.name):
                await self._train(fleet, AUTOMATIC)

    async def loop(self) -> None:
        """Take up retrainings until cancelled."""
        while True:
            await self._clock.sleep(LOOK_EVERY_S)
            try:
                await self._look()
            except MonitorError as error:
                log.warning("training_loop", error=str(error), doing="trying again")
                await self._clock.sleep(FIRST_RETRY.total_seconds() / 12)

    async def _look(self) -> None:
        job = await self._store.run(jobs.take, self._owner, self._clock.now_us())
        if job is not None:
            await self._carry_out(job)
            return
        now = self._now()
        for fleet in self._config.fleets:
            due_at = self._due_at.get(fleet.name)
            if due_at is not None and due_at <= now:
                await self._train(fleet, AUTOMATIC)

    # ------------------------------------------------------------------ one training

    async def _train(self, fleet: FleetConfig, by: str) -> None:
        with suppress(Conflict):  # somebody asked in this very moment: that one will do
            await self._store.run(jobs.request, fleet.name, by, self._clock.now_us())
        job = await self._store.run(jobs.take, self._owner, self._clock.now_us())
        if job is not None:
            await self._carry_out(job)

    async def _carry_out(self, job: JobView) -> None:
        fleet = next((fleet for fleet in self._config.fleets if fleet.name == job.fleet), None)
        if fleet is None:
            await self._fail(job, f"fleet {job.fleet} is not in the configuration of the running daemon")
            return
        log.info("training", fleet=fleet.name, job=job.id, asked_by=job.requested_by)
        try:
            trained = await retrain(await self._order(fleet), lambda share, text: self._progress(job, share, text))
            await self._activate(fleet, trained)
        except StoreUnavailable:
            raise
        except MonitorError as error:
            await self._fail(job, error.detail or str(error))
            self._put_off(fleet)
            hopeful = isinstance(error, NotEnoughData) or error.retriable
            (log.info if hopeful else log.warning)(
                "not_trained",
                fleet=fleet.name,
                why=error.detail or str(error),
                again_at=self._due_at[fleet.name],
                until_then="the champion stays" if self._scorer.has_champion(fleet.name) else "windows stay unscored",
            )
        except BaseException:
            await self._fail(job, "the daemon stopped")
            raise
        else:
            await self._store.run(jobs.finish, job.id, trained.version, self._clock.now_us())
            self._failures.pop(fleet.name, None)
            self._due_at.pop(fleet.name, None)
            if fleet.retrain.every is not None:
                self._due_at[fleet.name] = self._now() + fleet.retrain.every

    async def _order(self, fleet: FleetConfig) -> Order:
        learnt = (await self._store.read(assets.fleets)).get(fleet.name)
        return Order(
            config=str(self._config.path),
            fleet=fleet.name,
            sensors=fleet.sensors or learnt,
            exclude=await self._store.read(alerts.intervals, fleet.name),
        )

    async def _progress(self, job: JobView, share: float, text: str) -> None:
        log.info("training_progress", fleet=job.fleet, done=f"{share:.0%}", step=text)
        await self._store.run(jobs.progress, job.id, share, text)

    async def _fail(self, job: JobView, why: str) -> None:
        await self._store.run(jobs.fail, job.id, why, self._clock.now_us())

    def _put_off(self, fleet: FleetConfig) -> None:
        failures = self._failures[fleet.name] = self._failures.get(fleet.name, 0) + 1
        self._due_at[fleet.name] = self._now() + min(LAST_RETRY, FIRST_RETRY * 2 ** min(failures - 1, 10))

    async def _activate(self, fleet: FleetConfig, trained: Trained) -> None:
        """Load and try the new version, then let it decide what comes after all that was decided."""
        path = Path(trained.path)
        detector = await self._scorer.load(path)
        if detector.version != trained.version:
            raise CheckpointDamaged(f"{path} holds {detector.version}, not {trained.version}")
        await self._store.run(assets.learn, fleet.name, trained.sensors)
        await self._registry.publish(
            version=trained.version,
            fleet=fleet.name,
            path=path,
            trained_us=self._clock.now_us(),
            card=trained.card,
            metrics=trained.card["metrics"],
        )
        async with self.river.between_batches() if self.river is not None else nullcontext():
            # Every window that was decided is in the database now, and none is on its way.
            decided_us = await self._store.read(scores.newest_end_us, fleet.name)
            boundary_us = FOREVER_AGO_US if decided_us is None else decided_us
            held = await self._registry.activate(fleet.name, trained.version, boundary_us)
            self._scorer.activate(fleet.name, Activation(held.from_window_end_us, trained.version, path), detector)
        since = "the beginning" if decided_us is None else from_us(held.from_window_end_us)
        log.info("champion_changed", fleet=fleet.name, version=trained.version, decides_windows_after=since)

    def _now(self) -> datetime:
        return from_us(self._clock.now_us())
