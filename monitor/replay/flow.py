"""The river over a log that is there already, into a scratch database: live tables are never touched.

Enters a `ReplayInput`: configuration, records, the stretch of event time that is asked about. What it leads to leaves
through the scratch database. The law: the same pipeline, decoder, windows, scorer and transactions as live; only the
source and the database are others, so what live gave, this gives.

About a stretch (from_us, to_us], by the ends of windows:

- readings before it are fed as far back as a window that ends in it reaches, plus lateness; older ones cannot change
  it, because they never raise the watermark above a reading that is kept;
- readings after it are fed too: they decide which readings were late, and when incomplete windows closed;
- windows outside are not scored, but for a run-up from which the alerts' state of mind at `from_us` follows. (Only an
  alert that had been open for longer than the run-up is beyond it.)
"""

from __future__ import annotations

import asyncio
from collections import deque
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import numpy as np

from monitor.decode import Decoder, FleetSchema
from monitor.errors import Conflict
from monitor.kafka.memory import MemorySource
from monitor.store.engine import AsyncStore
from monitor.store.results import FIRST_US, LAST_US
from monitor.store.url import parse
from monitor.stream.pipeline import Pipeline
from monitor.stream.shard import alert_policy
from monitor.types import Counters

if TYPE_CHECKING:
    from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Mapping, Sequence

    from monitor.clock import Clock
    from monitor.config import Config, FleetConfig
    from monitor.replay.side_by_side import SideBySide
    from monitor.store.assets import KnownAsset
    from monitor.store.commit import Commit, Saved
    from monitor.store.offsets import HomePartition
    from monitor.stream.outcome import Step
    from monitor.stream.score import Scorer
    from monitor.stream.shard import PartitionState
    from monitor.types import AlertChange, Int64, Partition, Readings, RecordBatch, Scores, Windows

RUN_UP = 4
"""Times the alerts' memory: windows scored before the stretch, so that its first verdicts meet the right history."""
NEVER = 1 << 62
"""An offset behind every other."""
TICK_S = 0.02
"""Records that are due within so long go together."""


@dataclass(frozen=True, slots=True)
class ReplayInput:
    """One run of the river."""

    config: Config
    batches: Iterable[RecordBatch] | AsyncIterable[RecordBatch]
    partitions: Sequence[Partition]
    from_us: int = FIRST_US
    to_us: int = LAST_US
    n_readings: int | None = None
    """For the progress; None = unknown."""
    memory: int = 0
    """Windows that somebody beside the fleets' own alert policies looks back over."""
    homes: Mapping[tuple[str, str], HomePartition] | None = None
    """By fleet and asset: those that live knew, and since when. No others count; None = all do."""


@dataclass(frozen=True, slots=True)
class ReplayObserver:
    """Callbacks for progress and alert transitions."""

    on_progress: Callable[[float | None, str], None] = lambda _share, _text: None
    """A share 0..1 (None = unknown) and a sentence."""
    on_alert: Callable[[AlertChange, str], None] = lambda _change, _asset: None
    """A transition, and the asset's name."""


class ScratchStore(AsyncStore):
    """A database of the replay's own, which tells when a step is saved."""

    on_saved: Callable[[Commit], None] | None = None

    async def save(self, commit: Commit) -> Saved:
        """Save, then tell."""
        saved = await super().save(commit)
        if self.on_saved is not None:
            self.on_saved(commit)
        return saved


@asynccontextmanager
async def scratch(into: str | None) -> AsyncIterator[tuple[ScratchStore, Path]]:
    """Open a new database, and name a folder for checkpoints: a temporary one, or beside the file `into` names.

    Raises Conflict when the file is there already: two replays in one database would answer for each other.
    """
    async with AsyncExitStack() as stack:
        if into is None:
            folder = Path(stack.enter_context(TemporaryDirectory(prefix="monitor-replay-")))
            url = f"sqlite:///{folder / 'replay.db'}"
        else:
            path = parse(into).path
            if path is None:
                raise Conflict("a replay is kept in a SQLite file; write --into sqlite:///replay.db")
            if path.exists():
                raise Conflict(f"{path} is there already; name a file that is not")
            folder, url = path.with_name(f"{path.stem}-checkpoints"), into
        yield await stack.enter_async_context(ScratchStore(url, owner=True)), folder


async def flow(
    replay: ReplayInput,
    store: ScratchStore,
    scorer: Scorer,
    observer: ReplayObserver,
    clock: Clock,
    *,
    speed: float | None = None,
    side_by_side: SideBySide | None = None,
) -> Counters:
    """Let the records flow to their end; return what became of them. `speed`: event time passes so many times as fast
    as the clock; None = as fast as it goes. `side_by_side`: two sides decide, and the database is the first one's.
    """
    batches = replay.batches if speed is None else paced(replay.batches, speed, clock, event_times(replay.config))
    source = MemorySource(batches, replay.partitions)
    within: Scorer = _StretchScorer(replay, scorer)
    if side_by_side is not None:
        within = side_by_side.paired_scorer(
            within, side_by_side.second_scorer and _StretchScorer(replay, side_by_side.second_scorer)
        )
    pipeline = _StretchPipeline(replay, source, store, within, owner="replay", clock=clock, side_by_side=side_by_side)
    reporter = _ProgressReporter(replay, pipeline, observer)
    store.on_saved = reporter.saved
    try:
        await pipeline.run()
    finally:
        store.on_saved = None
    total = Counters()
    for state in pipeline.partitions.values():
        total.add(state.counters)
    return total


# ---------------------------------------------------------------- a stretch of event time


def needed_cell(fleet: FleetConfig, from_us: int, memory: int = 0) -> int:
    """The first cell that a window ending after `from_us`, or the run-up before it, may depend on."""
    if from_us == FIRST_US:
        return -(1 << 60)
    first_end = scored_from_us(fleet, from_us, memory) // fleet.interval_us
    # Windows that begin before the first cell we keep look incomplete and hold up the complete ones behind them until
    # they close: `lateness` cells more, and they are gone by the time the first window we want is complete.
    return first_end - fleet.length - fleet.lateness_cells - 1


def scored_from_us(fleet: FleetConfig, from_us: int, memory: int = 0) -> int:
    """Windows that end after this are scored. `memory`: see `ReplayInput`."""
    if from_us == FIRST_US:
        return FIRST_US
    return from_us - RUN_UP * max(alert_policy(fleet.alerts).memory, memory) * fleet.stride * fleet.interval_us


class _StretchPipeline(Pipeline):
    """Leaves out readings that are too old to matter, and stops where nothing can matter any more."""

    def __init__(
        self,
        replay: ReplayInput,
        source: MemorySource,
        store: AsyncStore,
        scorer: Scorer,
        *,
        owner: str,
        clock: Clock,
        side_by_side: SideBySide | None,
    ) -> None:
        super().__init__(replay.config, source, store, scorer, owner=owner, clock=clock)
        self._needed = {
            fleet.name: needed_cell(fleet, replay.from_us, replay.memory) for fleet in replay.config.fleets
        }
        self._to_us = replay.to_us
        self._side_by_side = side_by_side
        self._homes = replay.homes
        self.limits_assets = replay.homes is None
        self._since: dict[tuple[Partition, str], Int64] = {}

    async def _advance(self, state: PartitionState, batch: RecordBatch) -> None:
        if not self._is_over(state):
            await super()._advance(state, batch)

    def _is_over(self, state: PartitionState) -> bool:
        """Whether every window of the stretch is closed: the watermarks are behind its end."""
        lanes = state.lanes.values()
        return len(lanes) == len(self.schemas) and all(
            (lane.windower.max_cell - lane.config.lateness_cells) * lane.config.interval_us >= self._to_us
            for lane in lanes
        )

    def _add_lane(
        self, state: PartitionState, schema: FleetSchema, known: list[KnownAsset], max_cell: int
    ) -> None:
        super()._add_lane(state, schema, known, max_cell)
        if self._side_by_side is not None:
            self._side_by_side.attach(state.lanes[schema.name])

    def _decode(self, state: PartitionState, batch: RecordBatch, step: Step) -> list[Readings]:
        decoded = super()._decode(state, batch, step)
        recent = [readings.rows(readings.cell >= self._needed[readings.fleet]) for readings in decoded]
        return recent if self._homes is None else [self._that_live_took(state, readings) for readings in recent]

    def _judge_quarantine(self, step: Step) -> deque[tuple[int, int]]:
        """What live has accounted for is not judged again: its share of bad records was borne, or overruled."""
        return super()._judge_quarantine(step) if self._homes is None else deque()

    def _that_live_took(self, state: PartitionState, readings: Readings) -> Readings:
        """Leave out what live refused before it came to any window: assets it had no room for, or not yet."""
        names = self._lane(state, readings.fleet).assets.names
        since = self._since.get((state.partition, readings.fleet), np.empty(0, dtype=np.int64))
        if len(since) < len(names):
            new = [(self._homes or {}).get((readings.fleet, name)) for name in names[len(since) :]]
            # One that lives in another partition comes through, and is refused as live refused it.
            offsets = [NEVER if home is None else home.since * (home.partition == state.partition) for home in new]
            since = self._since[state.partition, readings.fleet] = np.append(since, np.array(offsets, dtype=np.int64))
        return readings.rows(readings.offset >= since[readings.asset])


class _StretchScorer:
    """Scores the windows of the stretch and of its run-up; the others stay unscored."""

    def __init__(self, replay: ReplayInput, scorer: Scorer) -> None:
        self._scorer = scorer
        self._scored_from = {
            each.name: scored_from_us(each, replay.from_us, replay.memory) for each in replay.config.fleets
        }
        self._to_us = replay.to_us

    async def score(self, windows: Windows, end_us: Int64, sensors: Sequence[str]) -> Scores:
        wanted = (end_us > self._scored_from[windows.fleet]) & (end_us <= self._to_us)
        if wanted.all():
            return await self._scorer.score(windows, end_us, sensors)
        rows = np.flatnonzero(wanted)
        some = replace(
            windows,
            asset=windows.asset[rows],
            start=windows.start[rows],
            values=windows.values[rows],
            n_present=windows.n_present[rows],
            first_offset=windows.first_offset[rows],
            last_offset=windows.last_offset[rows],
        )
        scored = await self._scorer.score(some, end_us[rows], sensors)
        score = np.full(len(windows), np.nan, dtype=np.float32)
        score[rows] = scored.score
        version: list[str | None] = [None] * len(windows)
        for row, name in zip(rows.tolist(), scored.version, strict=True):
            version[row] = name
        contributions = {int(rows[row]): of_row for row, of_row in scored.contributions.items()}
        return replace(scored, windows=windows, score=score, version=version, contributions=contributions)


@dataclass(slots=True)
class _ProgressReporter:
    """Reports each saved commit to the observer."""

    replay: ReplayInput
    pipeline: Pipeline
    observer: ReplayObserver
    _readings: dict[Partition, int] = field(default_factory=dict)

    def saved(self, commit: Commit) -> None:
        for rows in commit.fleets:
            if rows.alerts:
                names = self.pipeline.partitions[commit.partition].lanes[rows.fleet].assets.names
                for change in rows.alerts:
                    if change.is_transition and change.opened_us > self.replay.from_us:
                        self.observer.on_alert(change, names[change.asset])
        self._readings[commit.partition] = commit.counters.readings
        done, total = sum(self._readings.values()), self.replay.n_readings
        share = min(1.0, done / total) if total else None
        self.observer.on_progress(share, f"{done:,} readings")


# ---------------------------------------------------------------- at the pace of event time


async def paced(
    batches: Iterable[RecordBatch] | AsyncIterable[RecordBatch],
    speed: float,
    clock: Clock,
    times_of: Callable[[RecordBatch], Int64],
) -> AsyncIterator[RecordBatch]:
    """Hand records on when their event time has come, `speed` times as fast as `clock` goes; never out of order.

    `times_of`: [N], event time of each record; what is older than something before it goes at once.
    """
    began_s = clock.monotonic_s()
    began_us: int | None = None
    reached_us = FIRST_US
    async for batch in _as_async(batches):
        times = np.maximum(np.maximum.accumulate(times_of(batch)), reached_us)
        reached_us = int(times[-1])
        began_us = int(times[0]) if began_us is None else began_us
        due_s = began_s + (times - began_us) / 1e6 / speed
        at = 0
        while at < len(batch):
            wait_s = float(due_s[at]) - clock.monotonic_s()
            if wait_s > 0:
                await clock.sleep(wait_s)
            ready = int(np.searchsorted(due_s, clock.monotonic_s() + TICK_S, side="right"))
            ready = max(ready, at + 1)
            yield batch.rows(slice(at, ready))
            at = ready


def event_times(config: Config) -> Callable[[RecordBatch], Int64]:
    """Return a function from records to their event times; a record that cannot be read has that of the one before."""
    schemas = [
        FleetSchema(fleet.name, fleet.interval_us, fleet.topics, fleet.assets, fleet.sensors) for fleet in config.fleets
    ]
    intervals = {fleet.name: fleet.interval_us for fleet in config.fleets}
    decoder = Decoder(schemas, max_record_bytes=config.kafka.max_record_bytes)

    def times_of(batch: RecordBatch) -> Int64:
        times = np.full(len(batch), FIRST_US, dtype=np.int64)
        for readings in decoder.decode(batch).readings:
            row = np.searchsorted(batch.offsets, readings.offset)
            np.maximum.at(times, row, readings.cell * intervals[readings.fleet])
        known = times[times > FIRST_US]
        if len(known):
            times[: int(np.argmax(times > FIRST_US))] = known[0]
        return np.maximum.accumulate(times)

    return times_of


async def _as_async(batches: Iterable[RecordBatch] | AsyncIterable[RecordBatch]) -> AsyncIterator[RecordBatch]:
    if hasattr(batches, "__aiter__"):
        async for batch in batches:
            yield batch
    else:
        for batch in batches:
            yield batch
            await asyncio.sleep(0)
