"""Recordings through the river: learn from the head of each and replay the rest, or let the registry's versions decide.

In: files, and how much of each is healthy. Out: a `Replayed`. The law: labels are held against the alerts when all is
decided, and reach nothing before.
"""

from __future__ import annotations

import asyncio
import re
from contextlib import closing
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from monitor.errors import BadRecording, NotFound
from monitor.evaluation.compare import compare
from monitor.evaluation.recordings import Feed, context, joined, split
from monitor.recordings import read_meta, read_recording
from monitor.replay.flow import Course, scratch
from monitor.replay.topic import FileReplayed, Replayed, both_scorers, conclude, run_course
from monitor.replay.versions import has_versions, learn, registered, take_version
from monitor.store.results import LAST_US
from monitor.stream.score import DetectorScorer

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from monitor.clock import Clock
    from monitor.config import Config, FleetConfig
    from monitor.evaluation.compare import AlertSpan
    from monitor.evaluation.recordings import Split
    from monitor.recordings import Recording
    from monitor.replay.flow import Audience
    from monitor.replay.topic import Manner

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
                await run_course(course, store, scorer, manner, audience, clock, out, twin)
        await asyncio.to_thread(conclude, store, out, begins, LAST_US)
    out.diff = twin.difference() if twin else None
    for name, (path, parts, version, fit_s) in learnt.items():
        other = [alert.span for alert in twin.ledgers[1].alerts[name].values()] if twin else None
        out.files.append(_file(path, parts, version, fit_s, out.spans.get(name, []), other))
    return out


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


def _file(
    path: Path, parts: Split, version: str, fit_s: float, alerts: list[AlertSpan], other: list[AlertSpan] | None
) -> FileReplayed:
    return FileReplayed(
        set=read_meta(path).set,
        name=parts.rest.name,
        version=version,
        train_rows=len(parts.head),
        fit_s=round(fit_s, 2),
        compared=compare(parts.events, alerts),
        other=None if other is None else compare(parts.events, other),
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
    first_us = min(int(recording.ts_us.min()) for recording in recordings) - 1
    async with scratch(manner.into) as (store, _), both_scorers(config, twin, after_us=first_us) as scorer:
        # Homes are the feed's own: in a file no asset has a Kafka partition.
        await registered(config, store, scorer, manner.decider, homes=False, after_us=first_us)
        for feed in feeds.values():
            batches = feed.batches(block=manner.block)
            course = Course(config, batches, feed.partitions, n_readings=feed.n_readings)
            await run_course(course, store, scorer, manner, audience, clock, out, twin)
        await asyncio.to_thread(conclude, store, out, {}, LAST_US)
    out.diff = twin.difference() if twin else None
    return out
