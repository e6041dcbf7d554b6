"""Who decides now and who comes next: the models of a running daemon.

Enters: retrainings that operators ask for (rows), schedules, and the absence of a first model. Leaves: new versions,
published, activated at a boundary of event time between two batches, so that no window is lost or scored by half a
change. The law: whatever goes wrong here, the present champion goes on deciding.
"""

from __future__ import annotations

from contextlib import nullcontext, suppress
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TypeVar

from monitor import logs
from monitor.clock import from_us
from monitor.errors import CheckpointDamaged, Conflict, Fenced, MonitorError, NotEnoughData, StoreUnavailable
from monitor.registry import Registry
from monitor.store import alerts, assets, jobs, scores
from monitor.stream.score import FOREVER_AGO_US, Activation
from monitor.training.retrain import Order, retrain

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence
    from contextlib import AbstractAsyncContextManager
    from datetime import datetime

    from monitor.clock import Clock
    from monitor.config import Config, FleetConfig
    from monitor.models.detector import Detector
    from monitor.store.engine import AsyncStore
    from monitor.stream.score import DetectorScorer
    from monitor.training.retrain import Trained
    from monitor.types import JobView

log = logs.get("training")
T = TypeVar("T")

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
        self._unreadable: set[str] = set()
        """Fleets whose champion's checkpoint could not be loaded."""
        self.river: River | None = None
        """None while no window is being scored."""

    async def load(self) -> None:
        """Take up what earlier runs left: activations, and trainings that died with their daemon."""
        await self._bury_dead_jobs()
        for fleet in self._config.fleets:
            paths = {each.version: Path(each.path) for each in await self._registry.list(fleet.name)}
            activation = None
            for active in await self._registry.activations(fleet.name):
                activation = Activation(active.from_window_end_us, active.version, paths[active.version])
                self._scorer.activate(fleet.name, activation)
            if activation is not None:
                await self._try(fleet, activation)
            champion = await self._registry.champion(fleet.name)
            if champion is not None:
                log.info("champion", fleet=fleet.name, version=champion.version, trained_at=champion.trained_at)
            if fleet.retrain.every is not None and champion is not None:
                self._due_at[fleet.name] = champion.trained_at + fleet.retrain.every

    async def _try(self, fleet: FleetConfig, newest: Activation) -> None:
        """Load what decides now; what cannot be read, as after an upgrade to another format, is as good as none."""
        try:
            detector = await self._scorer.load(newest.path)
        except CheckpointDamaged as error:
            self._unreadable.add(fleet.name)
            log.warning(
                "champion_unreadable",
                fleet=fleet.name,
                version=newest.version,
                error=error.detail or str(error),
                doing="training a new one before the first record; what this one decided stays as it is",
            )
        else:
            self._scorer.activate(fleet.name, newest, detector)

    def _has_champion(self, fleet: FleetConfig) -> bool:
        return self._scorer.has_champion(fleet.name) and fleet.name not in self._unreadable

    async def train_first(self) -> None:
        """Before the first record is scored: train the fleets that have no model, if the topics hold enough."""
        for fleet in self._config.fleets:
            if not self._has_champion(fleet):
                await self._train(fleet)

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
                await self._train(fleet)

    async def _bury_dead_jobs(self) -> None:
        """One training runs at a time, here: whatever else is called running under our name has died."""
        await self._store.run(jobs.fail_stale, self._owner, self._clock.now_us())

    # ------------------------------------------------------------------ one training

    async def _train(self, fleet: FleetConfig) -> None:
        try:
            await self._store.run(jobs.request, fleet.name, AUTOMATIC, self._clock.now_us())
        except Conflict:
            # Asked for in this very moment, or left behind by a daemon that died; if by a living one, wait for it.
            await self._bury_dead_jobs()
            self._due_at[fleet.name] = self._now() + FIRST_RETRY / 12
        job = await self._store.run(jobs.take, self._owner, self._clock.now_us())
        if job is not None:
            await self._carry_out(job)

    async def _carry_out(self, job: JobView) -> None:
        fleet = next((fleet for fleet in self._config.fleets if fleet.name == job.fleet), None)
        if fleet is None:
            await self._surely(jobs.fail, job.id, f"the running daemon's configuration has no fleet {job.fleet}")
            return
        log.info("training", fleet=fleet.name, job=job.id, asked_by=job.requested_by)
        try:
            trained = await retrain(await self._order(fleet), lambda share, text: self._progress(job, share, text))
            await self._activate(fleet, trained)
        except MonitorError as error:
            why = error.detail or str(error)
            await self._surely(jobs.fail, job.id, why)
            self._put_off(fleet)
            self._tell_why_not(fleet, error)
        except BaseException:
            with suppress(MonitorError):  # the signal to stop must not turn into something a loop survives
                await self._store.run(jobs.fail, job.id, "the daemon stopped", self._clock.now_us())
            raise
        else:
            await self._surely(jobs.finish, job.id, trained.version)
            self._failures.pop(fleet.name, None)
            self._due_at.pop(fleet.name, None)
            if fleet.retrain.every is not None:
                self._due_at[fleet.name] = self._now() + fleet.retrain.every

    def _tell_why_not(self, fleet: FleetConfig, error: MonitorError) -> None:
        hopeful = isinstance(error, NotEnoughData) or error.retriable
        (log.info if hopeful else log.warning)(
            "not_trained",
            fleet=fleet.name,
            why=error.detail or str(error),
            again_at=self._due_at[fleet.name],
            until_then="the champion stays" if self._has_champion(fleet) else "windows stay unscored",
        )

    async def _surely(self, end: Callable[..., None], job_id: int, word: str) -> None:
        """End a job, however long the database is away: one that is called running for ever blocks all others."""
        with suppress(Fenced):  # it was given up for dead
            await self._until_known(self._store.run, end, job_id, word, self._clock.now_us())

    async def _until_known(self, work: Callable[..., Awaitable[T]], /, *args: object) -> T:
        """Do what is safe to repeat until the database says that it is done."""
        while True:
            try:
                return await work(*args)
            except StoreUnavailable as error:
                log.debug("database_away", error=error.detail)
                await self._clock.sleep(LOOK_EVERY_S)

    async def _order(self, fleet: FleetConfig) -> Order:
        learnt = (await self._store.read(assets.fleets)).get(fleet.name)
        return Order(
            config=str(self._config.path),
            fleet=fleet.name,
            sensors=fleet.sensors or learnt,
            alerts=await self._store.read(alerts.intervals, fleet.name),
        )

    async def _progress(self, job: JobView, share: float, text: str) -> None:
        log.info("training_progress", fleet=job.fleet, done=f"{share:.0%}", step=text)
        with suppress(StoreUnavailable):  # the next one will do
            await self._store.run(jobs.progress, job.id, share, text)

    def _put_off(self, fleet: FleetConfig) -> None:
        failures = self._failures[fleet.name] = self._failures.get(fleet.name, 0) + 1
        self._due_at[fleet.name] = self._now() + min(LAST_RETRY, FIRST_RETRY * 2 ** min(failures - 1, 10))

    async def _activate(self, fleet: FleetConfig, trained: Trained) -> None:
        """Load and try the new version, then let it decide what comes after all that was decided."""
        path = Path(trained.path)
        detector = await self._scorer.load(path)
        if detector.version != trained.version:
            raise CheckpointDamaged(f"{path} holds {detector.version}, not {trained.version}")
        known = await self._until_known(self._store.run, assets.learn, fleet.name, trained.sensors)
        self._check_it_fits(fleet, detector, fleet.sensors or known)
        publish = partial(
            self._registry.publish,
            version=trained.version,
            fleet=fleet.name,
            path=path,
            trained_us=self._clock.now_us(),
            card=trained.card,
            metrics=trained.card["metrics"],
        )
        await self._until_known(publish)
        async with self.river.between_batches() if self.river is not None else nullcontext():
            # Every window that was decided is in the database now, and none is on its way.
            decided_us = await self._until_known(self._store.read, scores.newest_end_us, fleet.name)
            boundary_us = FOREVER_AGO_US if decided_us is None else decided_us
            held = await self._until_known(self._registry.activate, fleet.name, trained.version, boundary_us)
            self._scorer.activate(fleet.name, Activation(held.from_window_end_us, trained.version, path), detector)
            self._unreadable.discard(fleet.name)
        since = "the beginning" if decided_us is None else from_us(held.from_window_end_us)
        log.info("champion_changed", fleet=fleet.name, version=trained.version, decides_windows_after=since)

    def _check_it_fits(self, fleet: FleetConfig, detector: Detector, sensors: Sequence[str]) -> None:
        """The training process reads the configuration anew; a version for other windows would score none of ours."""
        card = detector.card
        if card.length != fleet.length or tuple(card.sensors) != tuple(sensors):
            raise MonitorError(
                f"{detector.version} was trained on {card.length} cells of {', '.join(card.sensors)}, but this daemon "
                f"watches {fleet.length} cells of {', '.join(sensors)}: the configuration changed, restart the daemon"
            )

    def _now(self) -> datetime:
        return from_us(self._clock.now_us())
