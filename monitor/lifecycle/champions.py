"""Who decides now: the versions of every fleet in a running daemon.

Enters: what the database says of versions and their boundaries, a version that was trained here. Leaves: a scorer that
decides as the database says. Several daemons need not meet for that: each looks for activations, and a save made under
a former one is refused (`store/versions.py`). The law: whatever goes wrong here, the present champion goes on deciding.
A checkpoint whose files are not there, as in a shared folder that is not mounted or does not show them yet, is waited
for: who holds a partition must not change its results. At the start it is done without where that was decided: a
retraining was asked for, or the files are a former champion's, and the present one's are there. So is, always, what is
damaged or of another format: waiting would not mend it.
"""

from __future__ import annotations

from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TypeVar

from monitor import logs, metrics
from monitor.clock import from_us
from monitor.errors import CheckpointDamaged, CheckpointUnavailable, MonitorError, StoreUnavailable
from monitor.store import assets, versions
from monitor.store.versions import FOREVER_AGO_US
from monitor.stream.score import Activation, waiting_for

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence
    from contextlib import AbstractAsyncContextManager

    from monitor.clock import Clock
    from monitor.config import Config, FleetConfig
    from monitor.lifecycle.training_process import Trained
    from monitor.models.detector import Detector
    from monitor.store.engine import AsyncStore
    from monitor.stream.score import DetectorScorer

log = logs.get("champions")
T = TypeVar("T")

LOOK_EVERY_S = 2.0
"""How soon another daemon's activation is noticed. A save that comes before that is refused and scored again."""
ASK_AGAIN_S = 0.5
READ_AGAIN_S = 30.0
"""How often a checkpoint that could not be read is tried again."""


class River(Protocol):
    """What the models need of the running pipeline."""

    def between_batches(self) -> AbstractAsyncContextManager[None]:
        """Hold it between two batches."""


class Champions:
    """The versions of every fleet, as the database says."""

    def __init__(self, config: Config, store: AsyncStore, scorer: DetectorScorer, clock: Clock) -> None:
        self._config = config
        self._store = store
        self._scorer = scorer
        self._clock = clock
        self._unreadable: dict[str, str] = {}
        """By fleet, the champion whose checkpoint could not be loaded, and that is done without."""
        self.river: River | None = None
        """None while no window is being scored."""

    async def load(self, is_asked: Callable[[FleetConfig], Awaitable[bool]] | None = None) -> None:
        """Take up what earlier runs left. `is_asked`: whether a new model of the fleet is to be trained here, now.

        Raises StoreUnavailable, and CheckpointUnavailable where a champion's files are not there: ask again.
        """
        for fleet in await self._behind():
            try:
                await self._follow(fleet, at_start=True)
            except CheckpointUnavailable:
                if is_asked is None or not await is_asked(fleet):
                    raise
                await self._follow(fleet, at_start=True, is_forgone=True)
        for fleet in self._config.fleets:
            champion = await self._store.read(versions.champion, fleet.name)
            if champion is not None:
                log.info("champion", fleet=fleet.name, version=champion.version, trained_at=champion.trained_at)

    async def refresh(self) -> None:
        """Follow the activations that the scorer does not know yet. Raises StoreUnavailable, CheckpointUnavailable."""
        for fleet in await self._behind():
            await self._follow(fleet)

    async def loop(self) -> None:
        """Follow what other daemons activate, until cancelled."""
        tried_at_s = self._clock.monotonic_s()
        while True:
            await self._clock.sleep(LOOK_EVERY_S)
            try:
                if self._unreadable and self._clock.monotonic_s() - tried_at_s >= READ_AGAIN_S:
                    tried_at_s = self._clock.monotonic_s()
                    await self._read_again()
                if await self._behind():
                    async with self._between_batches():
                        await self.refresh()
            except MonitorError as error:
                log.debug("champions_unknown", error=str(error))

    def has_champion(self, fleet: FleetConfig) -> bool:
        """Whether the fleet has a version that can be read."""
        return self._scorer.has_champion(fleet.name) and fleet.name not in self._unreadable

    async def activate(self, fleet: FleetConfig, trained: Trained, lease: tuple[str, int] | None) -> None:
        """Load and try a new version, then let it decide what comes after all that was decided.

        `lease`: name and epoch under which it was trained; None = there is no other daemon.
        Raises CheckpointDamaged, CheckpointUnavailable, Fenced when the lease is another daemon's by now, MonitorError
        when it does not fit.
        """
        path = Path(trained.path)
        detector = await self._scorer.load(path)
        if detector.version != trained.version:
            raise CheckpointDamaged(f"{path} holds {detector.version}, not {trained.version}")
        known = await self.until_known(self._store.run, assets.learn, fleet.name, trained.sensors)
        self._check_it_fits(fleet, detector, fleet.sensors or known)
        succeed = partial(
            self._store.run,
            versions.succeed,
            version=trained.version,
            fleet=fleet.name,
            path=str(path),
            trained_us=self._clock.now_us(),
            card=trained.card,
            metrics=trained.card["metrics"],
            lease=lease,
        )
        async with self._between_batches():
            # Every window that was decided here is in the database now, and none is on its way.
            held = await self.until_known(succeed)
            self._scorer.keep(detector)
            await self.until_known(self._follow, fleet)
        is_first = held.from_window_end_us == FOREVER_AGO_US
        since = "the beginning" if is_first else from_us(held.from_window_end_us)
        log.info("champion_changed", fleet=fleet.name, version=trained.version, decides_windows_after=since)

    async def until_known(self, work: Callable[..., Awaitable[T]], /, *args: object) -> T:
        """Do what is safe to repeat until the database says that it is done."""
        while True:
            try:
                return await work(*args)
            except StoreUnavailable as error:
                log.debug("database_away", error=error.detail)
                await self._clock.sleep(ASK_AGAIN_S)

    # ------------------------------------------------------------------ inside

    def _between_batches(self) -> AbstractAsyncContextManager[None]:
        return self.river.between_batches() if self.river is not None else nullcontext()

    async def _read_again(self) -> None:
        """Try what could not be read: a shared folder may have been mounted, or filled, since."""
        for fleet in self._config.fleets:
            if fleet.name in self._unreadable:
                async with self._between_batches():
                    await self._follow(fleet)

    async def _behind(self) -> list[FleetConfig]:
        """Fleets with an activation that the scorer does not know."""
        seqs = await self._store.read(versions.seqs)
        return [fleet for fleet in self._config.fleets if self._scorer.seq_of(fleet.name) != seqs.get(fleet.name, 0)]

    async def _follow(self, fleet: FleetConfig, *, at_start: bool = False, is_forgone: bool = False) -> None:
        """Let the scorer decide as the database says; load the newest, so that no window waits for it.

        `at_start`: do without former champions that are not there; `is_forgone`: without the newest, too. Else raises
        CheckpointUnavailable: what was followed so far still is.
        """
        found = await self._store.read(versions.champions, fleet.name)
        activations = [Activation(from_us, version, Path(path)) for from_us, version, path in found.activations]
        if activations:
            await self._try(fleet, activations[-1], at_start=at_start, is_forgone=is_forgone)
        if at_start:
            for version in await self._scorer.forgo(activations):
                if version != activations[-1].version:
                    why = "windows that are still its own stay unscored until the checkpoint is back"
                    log.warning("past_champion_missing", fleet=fleet.name, version=version, doing=why)
        if (champion := await self._store.read(versions.champion, fleet.name)) is not None:
            metrics.champion_trained_timestamp_seconds.labels(fleet.name).set(champion.trained_at.timestamp())
        self._scorer.follow(fleet.name, found.seq, activations)

    async def _try(self, fleet: FleetConfig, newest: Activation, *, at_start: bool, is_forgone: bool) -> None:
        """Load what decides now; what cannot be read, as after an upgrade to another format, is as good as none."""
        try:
            if not self._scorer.holds(newest.version):
                self._scorer.keep(await self._scorer.load(newest.path))
        except (CheckpointDamaged, CheckpointUnavailable) as error:
            is_forgone |= self._unreadable.get(fleet.name) == newest.version
            if isinstance(error, CheckpointUnavailable) and not is_forgone:
                what = waiting_for(newest.version, fleet.name, at_start=at_start)
                raise CheckpointUnavailable(error.detail, what) from error
            self._unreadable[fleet.name] = newest.version
            log.warning(
                "champion_unreadable",
                fleet=fleet.name,
                version=newest.version,
                error=error.detail or str(error),
                doing="training a new one before the first record; what this one decided stays as it is"
                if self.river is None
                else "windows stay unscored: all daemons need the same checkpoints folder",
            )
        else:
            self._unreadable.pop(fleet.name, None)

    def _check_it_fits(self, fleet: FleetConfig, detector: Detector, sensors: Sequence[str]) -> None:
        """The training process reads the configuration anew; a version for other windows would score none of ours."""
        card = detector.card
        if card.length != fleet.length or tuple(card.sensors) != tuple(sensors):
            raise MonitorError(
                f"{detector.version} was trained on {card.length} cells of {', '.join(card.sensors)}, but this daemon "
                f"watches {fleet.length} cells of {', '.join(sensors)}: the configuration changed, restart the daemon"
            )
