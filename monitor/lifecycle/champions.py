"""The model versions of all fleets in a running daemon.

Input: the versions and activations in the database, and versions that this daemon trained. Output: a scorer that uses
the versions that the database names.
Invariant: whatever fails here, the present champion stays.

Several daemons agree without communicating: each looks for new activations, and a commit with scores of a former one is
refused (`store/versions.py`).

The daemon waits for a checkpoint without files. Its shared folder may not be mounted yet, or not show the files yet,
and the results of a partition must not depend on the daemon that owns it. Two kinds of missing checkpoints are skipped
at the start: the champion once a retraining is requested, and former champions while the champion's files are there.
A damaged checkpoint, or one of another format, is always skipped, because waiting would not repair it.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from monitor import logs, metrics
from monitor.clock import from_us
from monitor.errors import CheckpointDamaged, CheckpointUnavailable, MonitorError, StoreUnavailable
from monitor.retry import OutageObserver, retry_transient
from monitor.store import assets, registry, versions
from monitor.store.acts import MONITOR
from monitor.store.versions import FOREVER_AGO_US
from monitor.stream.score import ActiveVersion, BatchGate, misfit, waiting_for
from monitor.timing import DEFAULT_TIMING
from monitor.types import ModelEvent

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from monitor.clock import Clock
    from monitor.config import Config, FleetConfig
    from monitor.lifecycle.training_process import Trained
    from monitor.models.detector import TrainedModel
    from monitor.store.engine import AsyncStore
    from monitor.store.registry import Verdict
    from monitor.stream.score import DetectorScorer
    from monitor.timing import Timing

log = logs.get("champions")
T = TypeVar("T")


class WindowChanged(Exception):
    """The champion of a fleet with `window = "auto"` has windows of another length than the running pipeline"""

    def __init__(self, fleet: str, length: int, version: str) -> None:
        super().__init__(f"{version} of {fleet} has windows of {length} cells")
        self.fleet = fleet
        self.length = length
        self.version = version


class Champions:
    """The versions of all fleets that the scorer uses, kept equal to the database's."""

    def __init__(
        self,
        config: Config,
        store: AsyncStore,
        scorer: DetectorScorer,
        clock: Clock,
        *,
        gate: BatchGate | None = None,
        timing: Timing = DEFAULT_TIMING,
    ) -> None:
        """`gate`: the pipeline's. None = no pipeline scores windows by these versions."""
        self._config = config
        self._store = store
        self._scorer = scorer
        self._clock = clock
        self._timing = timing
        self._unreadable: dict[str, str] = {}
        """By fleet, a champion that is skipped because its checkpoint could not be loaded."""
        self._followed: dict[str, str] = {}
        """By fleet, the champion that the database named last."""
        self._gate = gate or BatchGate()

    async def load(self, is_retraining: Callable[[FleetConfig], Awaitable[bool]] | None = None) -> None:
        """Load the versions of earlier runs. Called at the start.

        `is_retraining`: returns whether this daemon is about to retrain the fleet, so that a missing champion can be
        skipped. Raises StoreUnavailable, and CheckpointUnavailable where a champion's files are missing: call again.
        """
        for fleet in await self._outdated_fleets():
            try:
                await self._follow(fleet, at_start=True)
            except CheckpointUnavailable:
                if is_retraining is None or not await is_retraining(fleet):
                    raise
                await self._follow(fleet, at_start=True, skip_champion=True)
        for fleet in self._config.fleets:
            champion = await self._store.read(versions.champion, fleet.name)
            if champion is not None:
                log.info("champion", fleet=fleet.name, version=champion.version, trained_at=champion.trained_at)

    async def refresh(self) -> None:
        """Load the versions that were activated since the last call. Raises StoreUnavailable, CheckpointUnavailable."""
        for fleet in await self._outdated_fleets():
            former = self._followed.get(fleet.name)
            await self._follow(fleet)
            champion = self._followed.get(fleet.name)
            if champion is not None and champion != former:
                log.info(
                    "champion_followed",
                    fleet=fleet.name,
                    version=champion,
                    former=former,
                    why="an operator or another daemon moved it; monitor models list has the reason",
                )

    async def loop(self) -> None:
        """Load the versions that other daemons activate, until cancelled."""
        tried_at_s = self._clock.monotonic_s()
        while True:
            await self._clock.sleep(self._timing.activations_every_s)
            try:
                if self._unreadable and self._clock.monotonic_s() - tried_at_s >= self._timing.champion_reload_every_s:
                    tried_at_s = self._clock.monotonic_s()
                    await self._reload_unreadable()
                if await self._outdated_fleets():
                    async with self._gate.exclusive():
                        await self.refresh()
            except MonitorError as error:
                log.debug("champions_unknown", error=str(error))

    def has_champion(self, fleet: FleetConfig) -> bool:
        """Return whether the fleet has a champion that could be loaded."""
        return self._scorer.has_champion(fleet.name) and fleet.name not in self._unreadable

    def sensors_of(self, fleet: FleetConfig) -> tuple[str, ...] | None:
        """Return the sensors that the champion was trained on. None = no champion is loaded."""
        champion = self._scorer.champion(fleet.name)
        return None if champion is None else champion.sensors

    def detector_of(self, fleet: FleetConfig) -> TrainedModel | None:
        """Return the champion. None = there is none, or it could not be loaded."""
        return None if fleet.name in self._unreadable else self._scorer.champion(fleet.name)

    async def activate(
        self,
        fleet: FleetConfig,
        trained: Trained,
        lease: tuple[str, int] | None,
        *,
        verdict: Verdict | None = None,
        event: ModelEvent = ModelEvent.PROMOTED,
    ) -> None:
        """Load a new version and check it. Then publish it, and make it the champion for windows not decided yet.

        `lease`: the fencing token of the training, a lease's name and epoch. None = there is no other daemon.
        `verdict`: the gate's. None = it was not judged. `event`: `derived` for another threshold of the champion.
        Raises CheckpointDamaged, CheckpointUnavailable, Conflict for a version that was rolled back, Fenced when
        another daemon has the lease, and MonitorError when it was trained for another configuration. Raises
        WindowChanged once it is published.
        """
        path = Path(trained.path)
        detector = await self._scorer.load(path, trained.version)
        register = partial(self._store.run, assets.extend_sensors, fleet.name, trained.sensors)
        known = await until_answered(register, self._clock, self._timing)
        _check_fits(fleet.with_length(detector.card.length), detector, fleet.sensors or known)
        now_us = self._clock.now_us()  # one time for all tries: the registry knows the repeated ones by it
        publish = partial(
            self._store.run,
            registry.publish_and_promote,
            actor=MONITOR,
            at_us=now_us,
            verdict=verdict,
            event=event,
            version=trained.version,
            fleet=fleet.name,
            path=str(path),
            trained_us=now_us if trained.trained_us is None else trained.trained_us,
            card=trained.card,
            metrics=trained.card["metrics"],
            lease=lease,
        )
        async with self._gate.exclusive():
            # Every window that this daemon has decided is committed now, and no other window is being scored.
            active = await until_answered(publish, self._clock, self._timing)
            self._scorer.keep(detector)
            await until_answered(partial(self._follow, fleet), self._clock, self._timing)
        is_first = active.from_window_end_us == FOREVER_AGO_US
        since = "the beginning" if is_first else from_us(active.from_window_end_us)
        log.info("champion_changed", fleet=fleet.name, version=trained.version, decides_windows_after=since)

    # ------------------------------------------------------------------ activations in the database

    async def _outdated_fleets(self) -> list[FleetConfig]:
        """Return the fleets with activations in the database that the scorer does not know."""
        seqs = await self._store.read(versions.activation_seqs)
        return [fleet for fleet in self._config.fleets if self._scorer.seq_of(fleet.name) != seqs.get(fleet.name, 0)]

    async def _follow(self, fleet: FleetConfig, *, at_start: bool = False, skip_champion: bool = False) -> None:
        """Make the scorer use the fleet's activations, with the champion loaded, so that no window waits for it.

        `at_start`: skip former champions without files. `skip_champion`: skip the champion, too. Raises
        CheckpointUnavailable where files are missing, or WindowChanged, and leaves the scorer unchanged. Then it scores
        by the former activations, and a commit of these scores is refused.
        """
        found = await self._store.read(versions.activation_history, fleet.name)
        activations = [ActiveVersion(from_us, version, Path(path)) for from_us, version, path in found.activations]
        if activations:
            await self._load_champion(fleet, activations[-1], at_start=at_start, skip=skip_champion)
            self._check_length(fleet, activations[-1].version)
        for version in found.pruned:
            self._scorer.leave_out(version, CheckpointDamaged(f"the checkpoint of {version} was pruned"))
        if at_start:
            for version in await self._scorer.skip_missing(activations):
                if version != activations[-1].version:
                    why = "windows that are still its own stay unscored until the checkpoint is back"
                    log.warning("past_champion_missing", fleet=fleet.name, version=version, doing=why)
        if (champion := await self._store.read(versions.champion, fleet.name)) is not None:
            metrics.champion_trained_timestamp_seconds.labels(fleet.name).set(champion.trained_at.timestamp())
        self._scorer.follow(fleet.name, found.seq, activations)
        if activations:
            self._followed[fleet.name] = activations[-1].version
        self._gate.may_have_new_sensors = True

    async def _load_champion(self, fleet: FleetConfig, champion: ActiveVersion, *, at_start: bool, skip: bool) -> None:
        """Load the champion. An unreadable one (damaged, or of another program version's format) counts as none."""
        try:
            if not self._scorer.holds(champion.version):
                self._scorer.keep(await self._scorer.load(champion.path, champion.version))
        except (CheckpointDamaged, CheckpointUnavailable) as error:
            skip |= self._unreadable.get(fleet.name) == champion.version
            if isinstance(error, CheckpointUnavailable) and not skip:
                remedy = waiting_for(champion.version, fleet.name, at_start=at_start)
                raise CheckpointUnavailable(error.detail, remedy) from error
            self._unreadable[fleet.name] = champion.version
            log.warning(
                "champion_unreadable",
                fleet=fleet.name,
                version=champion.version,
                error=error.detail or str(error),
                doing="training a new one before the first record; what this one decided stays as it is"
                if not self._gate.is_running
                else "windows stay unscored: all daemons need the same checkpoints folder",
            )
        else:
            self._unreadable.pop(fleet.name, None)

    def _check_length(self, fleet: FleetConfig, version: str) -> None:
        """Raise WindowChanged where the champion chose another length than the pipeline has."""
        detector = self._scorer.detector(version)
        if fleet.window is None and detector is not None and detector.card.length != fleet.length:
            raise WindowChanged(fleet.name, detector.card.length, version)

    async def _reload_unreadable(self) -> None:
        """Try the skipped champions again: their folder may have been mounted or filled since."""
        for fleet in self._config.fleets:
            if fleet.name in self._unreadable:
                async with self._gate.exclusive():
                    await self._follow(fleet)


async def until_answered(work: Callable[[], Awaitable[T]], clock: Clock, timing: Timing) -> T:
    """Repeat a call that is safe to repeat until the database has answered it."""
    pause = partial(clock.sleep, timing.activation_retry_s)
    return await retry_transient(work, pause=pause, errors=(StoreUnavailable,), observer=_DatabaseOutage())


class _DatabaseOutage(OutageObserver):
    def failed(self, error: MonitorError, n_failures: int) -> None:  # noqa: ARG002  (the base class's signature)
        log.debug("database_away", error=error.detail)


def _check_fits(fleet: FleetConfig, detector: TrainedModel, sensors: Sequence[str]) -> None:
    """Raise MonitorError for a version that would score no window of this daemon.

    The training process reads the configuration anew, and it may have changed since the daemon started.
    """
    if reason := misfit(detector, fleet.length, sensors):
        raise MonitorError(f"{detector.version} {reason}: the configuration changed, restart the daemon")
