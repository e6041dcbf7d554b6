"""`monitor replay`: the same river over what lies in Kafka, and what it found. Files: see `replay_files`.

In: how much of the log, and who decides. Out: `Replayed`. The law: equal records, configuration and versions give an
equal digest, live or replayed.
"""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from operator import itemgetter
from typing import TYPE_CHECKING, Any

from monitor.clock import to_us as as_us
from monitor.evaluation.compare import AlertSpan, Compared
from monitor.replay import digest
from monitor.replay.flow import Course, flow, needed_cell, scored_from_us, scratch
from monitor.replay.offsets import reach, said
from monitor.replay.side_by_side import Twin
from monitor.replay.versions import deciders, lend, registered, reigning
from monitor.store import results
from monitor.store.reader import open_reader
from monitor.store.results import FIRST_US, LAST_US
from monitor.stream.score import DetectorScorer
from monitor.types import AlertState, Verdict

if TYPE_CHECKING:
    from collections.abc import AsyncIterable, AsyncIterator, Sequence

    from monitor.clock import Clock
    from monitor.config import Config
    from monitor.replay.diff import Difference, Side
    from monitor.replay.flow import Audience, ScratchStore
    from monitor.replay.offsets import Said
    from monitor.store.queries import Reader
    from monitor.store.results import LifeFact
    from monitor.types import RecordBatch


@dataclass(frozen=True, slots=True)
class FileReplayed:
    """What came of one file."""

    set: str
    """The file's folder."""
    name: str
    version: str
    train_rows: int
    fit_s: float
    compared: Compared
    other: Compared | None = None
    """What the labels say of the second side's alerts; None = there is one side."""


@dataclass(slots=True)
class Replayed:
    """What a replay led to, within its stretch of event time."""

    readings: int = 0
    windows: int = 0
    scored: int = 0
    quarantined: int = 0
    """Records that could not be used, late ones too."""
    digest: str = ""
    alerts: list[dict[str, Any]] = field(default_factory=list)
    """As `monitor alerts list --json` has them, the first one first."""
    spans: dict[str, list[AlertSpan]] = field(default_factory=dict)
    """By fleet, when the alerts opened, fired and closed."""
    files: list[FileReplayed] = field(default_factory=list)
    diff: Difference | None = None
    """What the second side would have done otherwise, where two were asked for; the rest is the first side's."""
    offsets: str | None = None
    """How much of Kafka was read: `live` or `all`; None = files."""
    missing: int = 0
    """Offsets that live consumed and Kafka no longer has."""
    live: Said | None = None
    """What live made of the same records, where that is to be the same …"""
    equals_live: bool | None = None
    """… and whether it is."""
    wall_s: float = 0.0
    """The river's time, without learning."""


@dataclass(frozen=True, slots=True)
class Manner:
    """How to replay, whatever the records."""

    version: str | None = None
    """This version decides its fleet; None = those that decided live."""
    into: str | None = None
    """URL of a new SQLite file for the results; None = they are forgotten."""
    speed: float | None = None
    """Event time against the clock; None = as fast as it goes."""
    sides: tuple[Side, Side] | None = None
    """Hold the second against the first, which decides instead of `version`."""

    @property
    def decider(self) -> str | None:
        """The version that decides; None = those that decided live."""
        return self.sides[0].version if self.sides else self.version

    def twin(self, from_us: int = FIRST_US) -> Twin | None:
        """Return the two sides, with nothing said yet."""
        return Twin(*self.sides, from_us) if self.sides else None

    def memory(self, config: Config) -> int:
        """How many windows back a side looks whose policy is not the configured one."""
        return Twin(*self.sides).memory(config) if self.sides else 0

    @property
    def is_as_live(self) -> bool:
        """Whether everything is decided as it was live, so that the results are to be the same."""
        return self.decider is None and not (self.sides and str(self.sides[0].change))

    @property
    def block(self) -> int:
        """Readings in a record: at a pace each comes by itself."""
        return 256 if self.speed is None else 1


# ---------------------------------------------------------------- a Kafka range


async def replay_range(
    config: Config,
    topics: Sequence[str],
    from_us: int,
    to_us: int,
    *,
    offsets: str | None = None,
    manner: Manner,
    audience: Audience,
    clock: Clock,
) -> Replayed:
    """Replay what lies in the topics: windows that end in (from_us, to_us], decided as they were live. `offsets`: how
    much is read, see `reach`. Raises NotFound.
    """
    audience.on_progress(None, "looking up what live has consumed, and what came of it")
    found = await reach(config, topics, from_us, to_us, offsets=offsets, asks_live=manner.is_as_live)
    batches = recent(found, config, from_us, manner.memory(config))
    course = Course(config, batches, found.partitions, from_us, to_us, homes=found.homes)
    out = await replay_course(course, manner=manner, audience=audience, clock=clock, live=found.live)
    out.offsets, out.missing = found.kind, found.missing()
    return out


async def replay_course(
    course: Course, *, manner: Manner, audience: Audience, clock: Clock, live: Said | None = None
) -> Replayed:
    """Replay a log of the configured topics, with what the configured database knows: versions, sensors, homes.
    `live`: what to compare the results with.
    """
    out, twin = Replayed(), manner.twin(course.from_us)
    course = replace(course, memory=manner.memory(course.config))
    after_us = min(scored_from_us(fleet, course.from_us, course.memory) for fleet in course.config.fleets)
    stretch = {"after_us": after_us, "to_us": course.to_us}
    async with scratch(manner.into) as (store, _), both_scorers(course.config, twin, **stretch) as scorer:
        await registered(course.config, store, scorer, manner.decider, homes=True, **stretch)
        await run_course(course, store, scorer, manner, audience, clock, out, twin)
        begins = {fleet.name: course.from_us for fleet in course.config.fleets}
        await asyncio.to_thread(conclude, store, out, begins, course.to_us)
        if live is not None:
            out.live = live
            # Where the two differ, live may only have pruned each fleet's oldest windows.
            out.equals_live = out.digest == live.digest or await asyncio.to_thread(_is_as_live, store, course, live)
    out.diff = twin.difference() if twin else None
    return out


def _is_as_live(store: ScratchStore, course: Course, live: Said) -> bool:
    with open_reader(store.address.url) as reader:
        here = said(reader, course.config, course.from_us, course.to_us, set(course.homes or ()), live.first_us)
    return here.digest == live.digest


async def recent(
    history: AsyncIterable[RecordBatch], config: Config, from_us: int, memory: int = 0
) -> AsyncIterator[RecordBatch]:
    """Leave out records written too early to hold a reading that matters, without opening them.

    A reading's event time is ahead of its record's Kafka timestamp by `max_skew` at most, or it is quarantined.
    `memory`: see `Course`.
    """
    skew_us = config.kafka.max_skew // timedelta(microseconds=1)
    needed_us = min(needed_cell(fleet, from_us, memory) * fleet.interval_us for fleet in config.fleets) - skew_us
    async for batch in history:
        # Timestamps are the producers' and need not rise; only a leading run is left out.
        old = (batch.timestamps_us >= 0) & (batch.timestamps_us < needed_us)
        first = len(batch) if old.all() else int(old.argmin())
        if first < len(batch):
            yield batch.rows(slice(first, None))


# ---------------------------------------------------------------- the steps, for files too


async def run_course(
    course: Course,
    store: ScratchStore,
    scorer: DetectorScorer,
    manner: Manner,
    audience: Audience,
    clock: Clock,
    out: Replayed,
    twin: Twin | None,
) -> None:
    """Let one log flow, and count what became of it."""
    started_s = clock.monotonic_s()
    counters = await flow(course, store, scorer, audience, clock, speed=manner.speed, twin=twin)
    out.wall_s += clock.monotonic_s() - started_s
    out.readings += counters.readings
    out.quarantined += counters.quarantined + counters.late


@asynccontextmanager
async def both_scorers(
    config: Config, twin: Twin | None, *, after_us: int = FIRST_US, to_us: int = LAST_US
) -> AsyncIterator[DetectorScorer]:
    """Open a scorer for the replay, and one for its twin in the fleets where other versions decide the windows that end
    in (after_us, to_us].
    """
    with closing(DetectorScorer(config.device)) as scorer, closing(DetectorScorer(config.device)) as other:
        if twin is not None and twin.is_of_versions:
            before, after = [await deciders(config, side.version) for side in twin.sides]
            reigns = {fleet: [reigning(side[fleet], after_us, to_us) for side in (before, after)] for fleet in after}
            others = {fleet: theirs for fleet, (ours, theirs) in reigns.items() if ours != theirs}
            for fleet, versions in others.items():
                for version in versions:
                    await lend(other, version, fleet)
            twin.lend(other, frozenset(others))
        yield scorer


def conclude(store: ScratchStore, out: Replayed, begins: dict[str, int], to_us: int) -> None:
    """Read the results back from the database, as anybody would. `begins`: by fleet, where its stretch begins."""
    with open_reader(store.address.url) as reader:
        windows, scored, word = conclusions(reader, begins, to_us)
        out.windows, out.scored, out.digest = windows, scored, word
        lives: dict[tuple[str, str, int], list[LifeFact]] = {}
        for life in results.alert_lives(reader, to_us=to_us):
            if life.opened_us > begins.get(life.fleet, FIRST_US):
                lives.setdefault((life.fleet, life.asset, life.opened_us), []).append(life)
        for (fleet, asset, opened_us), steps in lives.items():
            closed_us = next((step.at_us for step in steps if step.state == AlertState.CLOSED), None)
            out.spans.setdefault(fleet, []).append(AlertSpan(asset, opened_us, steps[0].at_us, closed_us))
        rows = [row for row in reader.alerts() if (row["fleet"], row["asset"], _us(row["opened_at"])) in lives]
        out.alerts = sorted(rows, key=itemgetter("opened_at", "fleet", "asset"))


def conclusions(reader: Reader, begins: dict[str, int], to_us: int) -> tuple[int, int, str]:
    """Return how many windows there are, how many of them are scored, and the digest."""
    n_windows = n_scored = 0

    def counted() -> Any:
        nonlocal n_windows, n_scored
        for fact in results.windows(reader, to_us=to_us):
            if fact.end_us > begins.get(fact.fleet, FIRST_US):
                n_windows += 1
                n_scored += fact.verdict != Verdict.UNSCORED
                yield fact

    lives = (
        life for life in results.alert_lives(reader, to_us=to_us) if life.opened_us > begins.get(life.fleet, FIRST_US)
    )
    word = digest.digest(counted(), lives)
    return n_windows, n_scored, word


def _us(moment: str) -> int:
    return as_us(datetime.fromisoformat(moment))
