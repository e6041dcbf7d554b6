"""`monitor replay`: the same river over old records, and what it found.

    replay_files   recordings: learn from the head of each, replay the rest; or let the registry's versions decide
    replay_range   what lies in Kafka now, over a stretch of event time, with the versions that decided live

Out: `Replayed`. The law: equal records, configuration and versions give an equal digest, live or replayed.
"""

from __future__ import annotations

import asyncio
import re
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from operator import itemgetter
from typing import TYPE_CHECKING, Any

from monitor.clock import to_us as as_us
from monitor.errors import BadRecording, NotFound
from monitor.evaluation import digest
from monitor.evaluation.compare import AlertSpan, Compared, compare
from monitor.evaluation.flow import Course, flow, needed_cell, scratch
from monitor.evaluation.reach import reach, said
from monitor.evaluation.recordings import Feed, Split, context, joined, split
from monitor.evaluation.twin import Twin
from monitor.evaluation.versions import deciders, has_versions, learn, lend, registered, take_version
from monitor.store import results
from monitor.store.reader import open_reader
from monitor.store.results import FIRST_US, LAST_US
from monitor.stream.files import read_meta, read_recording
from monitor.stream.score import DetectorScorer
from monitor.types import AlertState, Verdict

if TYPE_CHECKING:
    from collections.abc import AsyncIterable, AsyncIterator, Sequence
    from pathlib import Path

    from monitor.clock import Clock
    from monitor.config import Config, FleetConfig
    from monitor.evaluation.diff import Difference, Side
    from monitor.evaluation.flow import Audience, ScratchStore
    from monitor.evaluation.reach import Said
    from monitor.store.queries import Reader
    from monitor.store.results import LifeFact
    from monitor.stream.files import Recording
    from monitor.types import RecordBatch

ALL_TIME = timedelta(days=36_500)
"""A file's head is learnt from as a whole."""
MIN_WINDOWS = 100
"""What the smallest labelled recordings have."""


@dataclass(frozen=True, slots=True)
class Learning:
    """How much of each file is healthy and may be learnt from. Neither: what `meta.json` beside it says."""

    rows: int | None = None
    until_us: int | None = None

    @property
    def is_asked(self) -> bool:
        """Whether the operator said how much."""
        return self.rows is not None or self.until_us is not None


@dataclass(frozen=True, slots=True)
class Columns:
    """Names of a file's columns, where they cannot be told by their names."""

    asset: str | None = None
    timestamp: str | None = None
    label: str = "label"


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


# ---------------------------------------------------------------- files


@dataclass(frozen=True, slots=True)
class Manner:
    """How to replay, whatever the records."""

    version: str | None = None
    """This version decides everything; None = those that decided live."""
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


async def replay_files(
    paths: Sequence[Path],
    config: Config | None,
    *,
    learning: Learning,
    columns: Columns,
    manner: Manner,
    audience: Audience,
    clock: Clock,
) -> Replayed:
    """Replay recordings. Where the configuration's database has versions they decide, unless told how much to learn
    from; else each file gets a model of its own, learnt from its head, and its rest is replayed.
    """
    read = [
        (path, read_recording(path, asset=columns.asset, timestamp=columns.timestamp, label=columns.label))
        for path in paths
    ]
    if config is not None and not learning.is_asked and (manner.decider or await has_versions(config)):
        return await _with_registry([recording for _, recording in read], config, manner, audience, clock)
    out, twin = Replayed(), manner.twin()
    if twin is not None and twin.is_of_versions:
        named = next(side.version for side in twin.sides if side.version is not None)
        raise NotFound(
            f"version {named}: each of these files is decided by what is learnt from its own head. Compare alert "
            'parameters ("confirm=5 of 8"), or give a configuration with a registry, and no --train-rows'
        )
    begins: dict[str, int] = {}
    learnt: dict[str, tuple[Path, Split, str, float]] = {}
    async with scratch(manner.into) as (store, checkpoints):
        for path, recording in read:
            own, fleet = own_config(recording, path, config, taken=learnt.keys())
            parts = _split(path, recording, learning, fleet)
            started_s = clock.monotonic_s()
            taught = await asyncio.to_thread(learn, own, fleet, parts, checkpoints, audience.on_progress)
            fit_s = clock.monotonic_s() - started_s
            learnt[fleet.name] = (path, parts, taught.version, fit_s)
            begins[fleet.name] = taught.decides_after_us
            feed = Feed(recording.name)
            feed.add(joined(context(parts.head, fleet.length), parts.rest))
            course = Course(own, feed.batches(block=manner.block), feed.partitions, n_readings=feed.n_readings)
            with closing(DetectorScorer(own.device)) as scorer:
                await take_version(store, scorer, taught, fleet.name)
                await _run(course, store, scorer, manner, audience, clock, out, twin)
        await asyncio.to_thread(_conclude, store, out, begins, LAST_US)
    out.diff = twin.difference() if twin else None
    for name, (path, parts, version, fit_s) in learnt.items():
        out.files.append(_file(path, parts, version, fit_s, out.spans.get(name, [])))
    return out


async def _run(
    course: Course,
    store: ScratchStore,
    scorer: DetectorScorer,
    manner: Manner,
    audience: Audience,
    clock: Clock,
    out: Replayed,
    twin: Twin | None,
) -> None:
    started_s = clock.monotonic_s()
    counters = await flow(course, store, scorer, audience, clock, speed=manner.speed, twin=twin)
    out.wall_s += clock.monotonic_s() - started_s
    out.readings += counters.readings
    out.quarantined += counters.quarantined + counters.late


def own_config(
    recording: Recording, path: Path, config: Config | None, *, taken: Any = ()
) -> tuple[Config, FleetConfig]:
    """Make a configuration for one recording: a fleet of its own, with the settings of the operator's fleet that takes
    its first asset, or with the defaults; interval and sensors from the file where nobody says.
    """
    from monitor.config import parse

    meta = read_meta(path)
    base = next((fleet for fleet in config.fleets if fleet.takes(recording.assets[0])), None) if config else None
    interval_us = base.interval_us if base else int((meta.interval_s or 0) * 1e6) or recording.interval_us
    if not interval_us:
        raise BadRecording(f"{path}: no asset has two readings at different times, so there is no interval")
    name = re.sub(r"[^a-z0-9_-]+", "-", recording.name.lower())[:56].strip("-") or "file"
    if name in taken:
        name = next(f"{name}-{n}" for n in range(2, 10_000) if f"{name}-{n}" not in taken)
    fleet: dict[str, Any] = {
        "name": name,
        "interval": timedelta(microseconds=interval_us),
        "sensors": recording.sensors,
        "retrain": {"every": "never", "history": ALL_TIME, "min_windows": MIN_WINDOWS},
    }
    if base is not None:
        kept = ("window", "stride", "lateness", "max_gap", "model", "alerts")
        fleet |= {key: getattr(base, key) for key in kept} | {"sensors": base.sensors or recording.sensors}
    made = parse(
        {
            # No broker is asked: a recording goes by way of memory.
            "kafka": {"bootstrap": "localhost:9092", "topics": [recording.name], "group": "replay"},
            "device": config.device if config else "auto",
            "fleet": [fleet],
        }
    )
    return made, made.fleets[0]


def _split(path: Path, recording: Recording, learning: Learning, fleet: FleetConfig) -> Split:
    rows = learning.rows
    if not learning.is_asked:
        rows = read_meta(path).train_rows
        if rows is None:
            raise BadRecording(
                f"{path}: nothing says how much of it is healthy; add --train-rows N or --train-until TIME, or put "
                f'a meta.json beside it: {{"series": {{"{recording.name}": {{"train_rows": N}}}}}}'
            )
    parts = split(recording, rows=rows, until_us=learning.until_us, interval_us=fleet.interval_us)
    if not len(parts.rest):
        raise BadRecording(f"{path}: all of its {len(recording)} rows are to be learnt from; nothing is left to replay")
    return parts


def _file(path: Path, parts: Split, version: str, fit_s: float, alerts: list[AlertSpan]) -> FileReplayed:
    return FileReplayed(
        set=read_meta(path).set,
        name=parts.rest.name,
        version=version,
        train_rows=len(parts.head),
        fit_s=round(fit_s, 2),
        compared=compare(parts.events, alerts),
    )


async def _with_registry(
    recordings: Sequence[Recording], config: Config, manner: Manner, audience: Audience, clock: Clock
) -> Replayed:
    """Let recordings flow through the operator's fleets, as if they had come from the fleets' first topics."""
    feeds: dict[str, Feed] = {}
    for recording in recordings:
        fleet = next((each for each in config.fleets if each.takes(recording.assets[0])), None)
        if fleet is None:
            globs = ", ".join(name for each in config.fleets for name in each.assets)
            raise BadRecording(f"{recording.name}: no fleet takes asset {recording.assets[0]} (assets = {globs})")
        topic = config.topics_of(fleet)[0]
        feeds.setdefault(topic, Feed(topic)).add(replace(recording, label=None))
    out, twin = Replayed(), manner.twin()
    async with scratch(manner.into) as (store, _), _both_scorers(config, twin) as scorer:
        # Homes are the feed's own: in a file no asset has a Kafka partition.
        await registered(config, store, scorer, manner.decider, homes=False)
        for feed in feeds.values():
            batches = feed.batches(block=manner.block)
            course = Course(config, batches, feed.partitions, n_readings=feed.n_readings)
            await _run(course, store, scorer, manner, audience, clock, out, twin)
        await asyncio.to_thread(_conclude, store, out, {}, LAST_US)
    out.diff = twin.difference() if twin else None
    return out


@asynccontextmanager
async def _both_scorers(config: Config, twin: Twin | None) -> AsyncIterator[DetectorScorer]:
    """Open a scorer for the replay, and one for its twin where other versions decide there."""
    with closing(DetectorScorer(config.device)) as scorer, closing(DetectorScorer(config.device)) as other:
        if twin is not None and twin.is_of_versions:
            before, after = [await deciders(config, side.version) for side in twin.sides]
            others = {fleet: versions for fleet, versions in after.items() if versions != before[fleet]}
            for fleet, versions in others.items():
                for version in versions:
                    await lend(other, version, fleet)
            twin.lend(other, frozenset(others))
        yield scorer


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
    async with scratch(manner.into) as (store, _), _both_scorers(course.config, twin) as scorer:
        await registered(course.config, store, scorer, manner.decider, homes=True)
        await _run(course, store, scorer, manner, audience, clock, out, twin)
        begins = {fleet.name: course.from_us for fleet in course.config.fleets}
        await asyncio.to_thread(_conclude, store, out, begins, course.to_us)
        if live is not None:
            out.live = live
            out.equals_live = await asyncio.to_thread(_is_as_live, store, course, live)
    out.diff = twin.difference() if twin else None
    return out


def _is_as_live(store: ScratchStore, course: Course, live: Said) -> bool:
    with open_reader(store.address.url) as reader:
        # Live may have pruned its oldest windows; its alerts it keeps.
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


# ---------------------------------------------------------------- what came of it


def _conclude(store: ScratchStore, out: Replayed, begins: dict[str, int], to_us: int) -> None:
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
