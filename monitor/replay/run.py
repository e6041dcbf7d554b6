"""One replay from any source: its options, its steps and its result.

Input: a `ReplayInput` for each log, and the scorers of the versions that decide. Output: a `ReplayResult`.
Invariant: the result is read back from the scratch database, through the same queries that the commands use.
"""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass, field
from datetime import datetime
from operator import itemgetter
from typing import TYPE_CHECKING, Any

from monitor.clock import to_us as as_us
from monitor.evaluation.compare import AlertSpan, LabelComparison
from monitor.replay import digest
from monitor.replay.flow import flow
from monitor.replay.side_by_side import SideBySide
from monitor.replay.versions import load_for_side, versions_by_fleet, versions_in_range
from monitor.store import results
from monitor.store.reader import open_reader
from monitor.store.results import FIRST_US, LAST_US
from monitor.stream.score import DetectorScorer, Scorer
from monitor.types import AlertState, Verdict

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Mapping

    from monitor.clock import Clock
    from monitor.config import Config
    from monitor.replay.diff import Difference, Side
    from monitor.replay.flow import ReplayInput, ReplayObserver
    from monitor.replay.offsets import RunSummary
    from monitor.store.engine import AsyncStore
    from monitor.store.queries import Reader
    from monitor.store.results import TransitionRow, WindowRow


@dataclass(frozen=True, slots=True)
class ReplayOptions:
    """Options of a replay that do not depend on its source."""

    version: str | None = None
    """This version decides its fleet. None = the versions that decided live."""
    into: str | None = None
    """URL of a new SQLite file for the results. None = a temporary database."""
    speed: float | None = None
    """Event time per clock time. None = full speed."""
    sides: tuple[Side, Side] | None = None
    """Compare the second side with the first. The first one's version then takes the place of `version`."""

    @property
    def deciding_version(self) -> str | None:
        """The version that decides. None = the versions that decided live."""
        return self.sides[0].version if self.sides else self.version

    def side_by_side(self, from_us: int = FIRST_US) -> SideBySide | None:
        """Return the two sides without results, or None where one side is asked for."""
        return SideBySide(*self.sides, from_us) if self.sides else None

    def memory(self, config: Config) -> int:
        """Return the number of windows that the sides' alert policies look back over. 0 = no sides."""
        return SideBySide(*self.sides).memory(config) if self.sides else 0

    @property
    def decides_as_live(self) -> bool:
        """True if versions and alert parameters are as in the live run, so that its results are expected."""
        return self.deciding_version is None and not (self.sides and str(self.sides[0].change))

    @property
    def block(self) -> int:
        """Readings in a record. At a given speed each reading is a record of its own."""
        return 256 if self.speed is None else 1


@dataclass(frozen=True, slots=True)
class FileResult:
    """Result of one replayed file."""

    set: str
    """The file's folder."""
    name: str
    version: str
    train_rows: int
    fit_s: float
    compared: LabelComparison
    other: LabelComparison | None = None
    """The second side's alerts against the labels. None = there is one side."""
    notes: tuple[str, ...] = ()
    """What was recognised, changed or left out while the file was read."""


@dataclass(slots=True)
class ReplayResult:
    """Result of a replay within its range of event time."""

    readings: int = 0
    windows: int = 0
    scored: int = 0
    quarantined: int = 0
    """Unusable records, late ones included."""
    digest: str = ""
    alerts: list[dict[str, Any]] = field(default_factory=list)
    """Rows as in `monitor alerts list --json`, in order of opening."""
    spans: dict[str, list[AlertSpan]] = field(default_factory=dict)
    """Times of the alerts, by fleet."""
    files: list[FileResult] = field(default_factory=list)
    diff: Difference | None = None
    """The second side against the first. All other fields describe the first side. None = there is one side."""
    offsets: str | None = None
    """Offsets of Kafka that were read: `live` or `all`. None = files."""
    missing: int = 0
    """Offsets that the live run consumed and Kafka no longer holds."""
    live: RunSummary | None = None
    """Results of the live run, if this replay is expected to give the same. Else None."""
    unreadable: list[dict[str, Any]] = field(default_factory=list)
    """Versions that decided live and cannot be loaded. Their windows are unscored here, and are not compared."""
    equals_live: bool | None = None
    """True if the replay gave the same results as the live run. None = there is nothing to compare."""
    weeks: float = 0.0
    """Replayed time of all assets, from files."""
    allowed: float = 0.0
    """False alarms that the budget allows in it."""
    wall_s: float = 0.0
    """Time spent in the pipeline, without training."""


@dataclass(slots=True)
class ReplayRun:
    """A replay in progress."""

    options: ReplayOptions
    observer: ReplayObserver
    clock: Clock
    side_by_side: SideBySide | None
    result: ReplayResult = field(default_factory=ReplayResult)

    async def process(self, replay_input: ReplayInput, store: AsyncStore, scorer: Scorer) -> None:
        """Run the pipeline over one log and add its counters to the result."""
        started_s = self.clock.monotonic_s()
        counters = await flow(
            replay_input,
            store,
            scorer,
            self.observer,
            self.clock,
            speed=self.options.speed,
            side_by_side=self.side_by_side,
        )
        self.result.wall_s += self.clock.monotonic_s() - started_s
        self.result.readings += counters.readings
        self.result.quarantined += counters.quarantined + counters.late

    async def read_results(self, store: AsyncStore, begins: Mapping[str, int], to_us: int) -> None:
        """Read windows, alerts and digest from the database. `begins`: event time at which each fleet's range begins.

        A fleet that is not in `begins` is read from its first window on.
        """
        await asyncio.to_thread(_read_results, store, self.result, begins, to_us)
        self.result.diff = self.side_by_side.difference() if self.side_by_side else None


@asynccontextmanager
async def open_scorers(
    config: Config, side_by_side: SideBySide | None, *, after_us: int = FIRST_US, to_us: int = LAST_US
) -> AsyncIterator[DetectorScorer]:
    """Open the replay's scorer, and a second one for the fleets in which the second side has other versions.

    Only versions that decide windows ending in (after_us, to_us] are loaded into the second one.
    """
    with (
        closing(DetectorScorer(config.device, fleets=config.fleets)) as scorer,
        closing(DetectorScorer(config.device, fleets=config.fleets)) as second,
    ):
        if side_by_side is not None and side_by_side.needs_versions:
            before, after = [await versions_by_fleet(config, side.version) for side in side_by_side.sides]
            rescored = set()
            for fleet in after:
                ours, theirs = (versions_in_range(side[fleet], after_us, to_us) for side in (before, after))
                if ours != theirs:
                    rescored.add(fleet)
                    for version in theirs:
                        await load_for_side(second, version, fleet)
            side_by_side.score_second_with(second, frozenset(rescored))
        yield scorer


# ---------------------------------------------------------------- results


def _read_results(store: AsyncStore, result: ReplayResult, begins: Mapping[str, int], to_us: int) -> None:
    with open_reader(store.address.url) as reader:
        transitions = [
            each
            for each in results.alert_transitions(reader, to_us=to_us)
            if each.opened_us > begins.get(each.fleet, FIRST_US)
        ]
        _count_windows(reader, result, transitions, begins, to_us)
        alerts: dict[tuple[str, str, int], list[TransitionRow]] = {}
        for each in transitions:
            alerts.setdefault((each.fleet, each.asset, each.opened_us), []).append(each)
        for (fleet, asset, opened_us), steps in alerts.items():
            closed_us = next((step.at_us for step in steps if step.state == AlertState.CLOSED), None)
            result.spans.setdefault(fleet, []).append(AlertSpan(asset, opened_us, steps[0].at_us, closed_us))
        rows = [row for row in reader.alerts() if (row["fleet"], row["asset"], _us(row["opened_at"])) in alerts]
        result.alerts = sorted(rows, key=itemgetter("opened_at", "fleet", "asset"))


def _count_windows(
    reader: Reader, result: ReplayResult, transitions: list[TransitionRow], begins: Mapping[str, int], to_us: int
) -> None:
    """Set the number of windows, of scored windows, and the digest. The windows are read once."""

    def counted() -> Iterator[WindowRow]:
        for window in results.windows(reader, to_us=to_us):
            if window.end_us > begins.get(window.fleet, FIRST_US):
                result.windows += 1
                result.scored += window.verdict != Verdict.UNSCORED
                yield window

    result.digest = digest.digest(counted(), transitions)


def _us(moment: str) -> int:
    return as_us(datetime.fromisoformat(moment))
