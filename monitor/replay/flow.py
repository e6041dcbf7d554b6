"""The pipeline over a log that exists already, into a scratch database: live tables are never touched.

Input: a `ReplayInput` with configuration, records and a stretch of event time. Output: results in the scratch database.
Invariant: pipeline, decoder, windows, scorer and transactions are those of live, so the results are, too. Only the
source and the database differ.

A stretch (from_us, to_us] selects windows by their ends:

- readings before it are used as far back as a window that ends in it reaches, plus lateness. Older ones cannot change
  it, because they never raise their asset's watermark above a reading that is used.
- readings after it are used, too. They decide which readings were late, and when incomplete windows closed. A partition
  ends once every asset has passed the stretch: each that live knew, or else each that has sent a reading so far.
- windows outside are not scored, except a run-up that determines the state of the alerts at `from_us`. Only an alert
  that had been open for longer than the run-up is missed.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import numpy as np

from monitor.errors import Conflict
from monitor.kafka.memory import MemorySource, iterate
from monitor.store import identity
from monitor.store.engine import AsyncStore
from monitor.store.results import FIRST_US, LAST_US
from monitor.store.url import parse
from monitor.stream.alerting import AlertPolicy
from monitor.stream.hooks import PipelineHooks
from monitor.stream.partition import make_decoder, schemas_of
from monitor.stream.pipeline import Pipeline
from monitor.stream.sensor_health import NOT_TESTED
from monitor.stream.window import NEVER as NEVER_CELL
from monitor.types import Counters

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence

    from monitor.clock import Clock
    from monitor.config import Config, FleetConfig
    from monitor.decode import AssetIndex
    from monitor.replay.side_by_side import SideBySide
    from monitor.store.commit import Commit
    from monitor.store.offsets import HomePartition
    from monitor.stream.alerting import Decider
    from monitor.stream.partition import PartitionState
    from monitor.stream.score import Scorer
    from monitor.stream.shard import Shard
    from monitor.types import AlertChange, Int64, Partition, Readings, RecordBatch, Scores, Windows

RUN_UP = 4
"""Windows scored before the stretch, as a multiple of the alerts' memory: its first verdicts need the right history."""
NEVER = 1 << 62
"""An offset behind all others."""
TICK_S = 0.02
"""Records that are due within this time are handed out together."""


@dataclass(frozen=True, slots=True)
class ReplayInput:
    """One run of the pipeline."""

    config: Config
    batches: Iterable[RecordBatch] | AsyncIterable[RecordBatch]
    partitions: Sequence[Partition]
    from_us: int = FIRST_US
    to_us: int = LAST_US
    n_readings: int | None = None
    """Total for the progress. None = unknown."""
    memory: int = 0
    """Windows that another alert policy than the fleets' own looks back over."""
    homes: Mapping[tuple[str, str], HomePartition] | None = None
    """By fleet and asset, the registration in the live database. Other assets are left out. None = all count."""


@dataclass(frozen=True, slots=True)
class ReplayObserver:
    """Callbacks for progress and alert transitions."""

    on_progress: Callable[[float | None, str], None] = lambda _share, _text: None
    """A share 0..1 (None = unknown) and a sentence."""
    on_alert: Callable[[AlertChange, str], None] = lambda _change, _asset: None
    """A transition, and the asset's name."""
    on_notes: Callable[[str, Sequence[str]], None] = lambda _name, _notes: None
    """A recording's name, and what was recognised or left out while it was read."""


@asynccontextmanager
async def scratch(into: str | None) -> AsyncIterator[tuple[AsyncStore, Path]]:
    """Open a new database, and return it with a folder for checkpoints. `into`: None = temporary ones.

    Raises Conflict if the file exists: the results of two replays would mix.
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
        yield await stack.enter_async_context(AsyncStore(url, owner=True)), folder


async def flow(
    replay: ReplayInput,
    store: AsyncStore,
    scorer: Scorer,
    observer: ReplayObserver,
    clock: Clock,
    *,
    speed: float | None = None,
    side_by_side: SideBySide | None = None,
) -> Counters:
    """Process the records to their end, and count them by fate.

    `speed`: event time passes so many times as fast as the clock. None = without waiting. `side_by_side`: two sides
    decide, and the results in the database are those of the first one.
    """
    batches = replay.batches if speed is None else paced(replay.batches, speed, clock, event_times(replay.config))
    source = MemorySource(batches, replay.partitions)
    within: Scorer = _StretchScorer(replay, scorer)
    if side_by_side is not None:
        within = side_by_side.paired_scorer(
            within, side_by_side.second_scorer and _StretchScorer(replay, side_by_side.second_scorer)
        )
    hooks = _StretchHooks(replay, observer, side_by_side)
    config = replay.config.with_default_group((await store.read(identity.read)).default_group)
    pipeline = Pipeline(config, source, store, within, owner="replay", clock=clock, hooks=hooks)
    try:
        await pipeline.run()
    finally:
        await source.close()  # the run may end before its records do
    total = Counters()
    for state in pipeline.partitions.values():
        total.add(state.counters)
    return total


# ---------------------------------------------------------------- a stretch of event time


def needed_cell(fleet: FleetConfig, from_us: int, memory: int = 0) -> int:
    """Return the first cell on which a window that ends after `from_us`, or its run-up, may depend."""
    if from_us == FIRST_US:
        return -(1 << 60)
    first_end = scored_from_us(fleet, from_us, memory) // fleet.interval_us
    # Windows that begin before the first cell are incomplete here, and delay the complete ones behind them until they
    # close. With `lateness` more cells they have closed before the first window of the stretch is complete.
    return first_end - fleet.length - fleet.lateness_cells - 1


def scored_from_us(fleet: FleetConfig, from_us: int, memory: int = 0) -> int:
    """Return the event time after which windows are scored, by their ends. `memory`: see `ReplayInput`."""
    if from_us == FIRST_US:
        return FIRST_US
    return from_us - RUN_UP * max(AlertPolicy.of(fleet.alerts).memory, memory) * fleet.stride * fleet.interval_us


class _StretchHooks(PipelineHooks):
    """Leaves out readings before the stretch, and the rest of a partition behind it. Reports each commit."""

    def __init__(self, replay: ReplayInput, observer: ReplayObserver, side_by_side: SideBySide | None) -> None:
        self._replay = replay
        self._observer = observer
        self._side_by_side = side_by_side
        self._needed = {
            fleet.name: needed_cell(fleet, replay.from_us, replay.memory) for fleet in replay.config.fleets
        }
        self._n_readings: dict[Partition, int] = {}
        self._n_homes = Counter((home.partition, fleet) for (fleet, _), home in (replay.homes or {}).items())
        # Records that live has accounted for are not judged again.
        self.enforces_limits = replay.homes is None

    def select(self, state: PartitionState, readings: Readings) -> Readings:
        """Leave out readings that no window of the stretch needs, and those that live refused before any window."""
        readings = readings.rows(readings.cell >= self._needed[readings.fleet])
        homes = self._replay.homes
        if homes is None or not len(readings):
            return readings
        index = next(n for n, schema in enumerate(state.decoder.fleets) if schema.name == readings.fleet)
        names = state.decoder.assets[index].names
        numbers, row_of = np.unique(readings.asset, return_inverse=True)
        found = [homes.get((readings.fleet, names[number])) for number in numbers.tolist()]
        # An asset of another partition passes, and is refused as live refused it.
        since = [NEVER if home is None else home.since * (home.partition == state.partition) for home in found]
        return readings.rows(readings.offset >= np.array(since, dtype=np.int64)[row_of])

    def make_decider(self, fleet: FleetConfig, assets: AssetIndex) -> Decider:
        """Let both sides decide where two are compared."""
        if self._side_by_side is not None:
            return self._side_by_side.make_decider(fleet, assets)
        return super().make_decider(fleet, assets)

    def on_commit(self, state: PartitionState, commit: Commit, batch: RecordBatch) -> bool:  # noqa: ARG002
        """Report alerts and progress. Later records do not matter once all windows of the stretch are closed."""
        for rows in commit.fleets:
            names = state.shards[rows.fleet].assets.names
            for change in rows.alerts:
                if change.is_transition and change.opened_us > self._replay.from_us:
                    self._observer.on_alert(change, names[change.asset])
        self._n_readings[commit.partition] = commit.counters.readings
        done, total = sum(self._n_readings.values()), self._replay.n_readings
        share = min(1.0, done / total) if total else None
        self._observer.on_progress(share, f"{done:,} readings")
        shards = state.shards.values()
        return len(shards) < len(self._replay.config.fleets) or any(self._is_open(state, each) for each in shards)

    def _is_open(self, state: PartitionState, shard: Shard) -> bool:
        """Return whether an asset may still finish a window of the stretch. A stretch without an end takes all."""
        if self._replay.to_us == LAST_US:
            return True  # the records in quarantine count, too, before the first asset and without any
        newest = shard.windower.newest[shard.windower.newest > NEVER_CELL]
        is_behind = (newest - shard.config.lateness_cells) * shard.interval_us < self._replay.to_us
        n_awaited = 1 if self._replay.homes is None else self._n_homes[state.partition, shard.config.name]
        return bool(is_behind.any()) or len(newest) < n_awaited


class _StretchScorer:
    """Scores the windows of the stretch and of its run-up. The others stay unscored."""

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
        findings = np.full((len(windows), windows.values.shape[2]), NOT_TESTED, dtype=np.uint8)
        if scored.findings is not None:
            findings[rows] = scored.findings
        contributions = {int(rows[row]): of_row for row, of_row in scored.contributions.items()}
        return replace(
            scored, windows=windows, score=score, version=version, contributions=contributions, findings=findings
        )


# ---------------------------------------------------------------- at the pace of event time


async def paced(
    batches: Iterable[RecordBatch] | AsyncIterable[RecordBatch],
    speed: float,
    clock: Clock,
    times_of: Callable[[RecordBatch], Int64],
) -> AsyncIterator[RecordBatch]:
    """Yield records in order when their event time has come, `speed` times as fast as `clock`.

    `times_of`: [N], event time of each record. A record older than one before it is yielded at once.
    """
    began_s = clock.monotonic_s()
    began_us: int | None = None
    reached_us = FIRST_US
    async with iterate(_as_async(batches)) as records:
        async for batch in records:
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
    """Return a function from records to their event times. An unreadable record has that of the one before."""
    intervals = {fleet.name: fleet.interval_us for fleet in config.fleets}
    decoder = make_decoder(config, schemas_of(config, is_limited=False))

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
    if isinstance(batches, AsyncIterable):
        async with iterate(batches) as records:
            async for batch in records:
                yield batch
    else:
        for batch in batches:
            yield batch
            await asyncio.sleep(0)
