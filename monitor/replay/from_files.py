"""`monitor replay` over recordings: train on the head of each and replay the rest, or use the registered versions.

Input: recordings, and the length of their healthy heads. Output: a `ReplayResult`.
Invariant: labels are compared with the alerts after all decisions. Nothing else reads them.
"""

from __future__ import annotations

import asyncio
import re
from contextlib import closing
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from monitor.errors import BadRecording, NotFound
from monitor.evaluation.compare import compare_with_labels
from monitor.recordings import read_meta, read_recording
from monitor.replay.flow import ReplayInput, scratch
from monitor.replay.recording_feed import RecordingFeed, concatenated, last_readings, split_recording
from monitor.replay.run import FileResult, ReplayRun, open_scorers
from monitor.replay.versions import (
    RegistryCopy,
    activate_version,
    copy_live_registry,
    has_versions,
    train_on_head,
)
from monitor.store.results import LAST_US
from monitor.stream.score import DetectorScorer

if TYPE_CHECKING:
    from collections.abc import Container, Sequence
    from pathlib import Path

    from monitor.clock import Clock
    from monitor.config import Config, FleetConfig
    from monitor.recordings import Recording
    from monitor.replay.flow import ReplayObserver
    from monitor.replay.recording_feed import RecordingSplit
    from monitor.replay.run import ReplayOptions, ReplayResult
    from monitor.replay.versions import ReplayVersion
    from monitor.store.engine import AsyncStore

ALL_TIME = timedelta(days=36_500)
"""Training history of a recording: its whole head."""
MIN_WINDOWS = 100
"""Smallest training set of the labelled recordings."""


@dataclass(frozen=True, slots=True)
class TrainingHead:
    """Length of the healthy head of each file. Without either field: `train_rows` in `meta.json` beside the file."""

    rows: int | None = None
    until_us: int | None = None

    @property
    def is_given(self) -> bool:
        """True if the operator gave the length."""
        return self.rows is not None or self.until_us is not None


@dataclass(frozen=True, slots=True)
class Columns:
    """Column names of a file. None = recognized by common names."""

    asset: str | None = None
    timestamp: str | None = None
    label: str = "label"


@dataclass(frozen=True, slots=True)
class RecordingFiles:
    """Files to replay, and how to read them."""

    paths: Sequence[Path]
    head: TrainingHead = field(default_factory=TrainingHead)
    columns: Columns = field(default_factory=Columns)


async def replay_files(
    files: RecordingFiles,
    config: Config | None,
    *,
    options: ReplayOptions,
    observer: ReplayObserver,
    clock: Clock,
) -> ReplayResult:
    """Replay recordings.

    Where the configured database has versions, they decide, unless the operator gave a training head. Otherwise a model
    is trained on the head of each file and decides the rest of it.

    Raises BadRecording, NotFound, NotEnoughData, TrainingDiverged, CheckpointDamaged.
    """
    names = files.columns
    recordings = [
        (path, read_recording(path, asset=names.asset, timestamp=names.timestamp, label=names.label))
        for path in files.paths
    ]
    run = ReplayRun(options, observer, clock, options.side_by_side())
    if config and not files.head.is_given and (options.deciding_version or await has_versions(config)):
        await _replay_with_registry([recording for _, recording in recordings], config, run)
    else:
        await _replay_with_own_models(recordings, files.head, config, run)
    return run.result


# ---------------------------------------------------------------- a model per file


@dataclass(frozen=True, slots=True)
class _TrainedFile:
    """A file, and the model trained on its head."""

    path: Path
    config: Config
    fleet: FleetConfig
    split: RecordingSplit
    version: ReplayVersion
    fit_s: float


async def _replay_with_own_models(
    recordings: Sequence[tuple[Path, Recording]], head: TrainingHead, config: Config | None, run: ReplayRun
) -> None:
    """Train on the head of each file and replay the rest of it. Each file is a fleet of its own."""
    _refuse_versions(run)
    trained: dict[str, _TrainedFile] = {}
    async with scratch(run.options.into) as (store, checkpoints):
        for path, recording in recordings:
            own, fleet = config_for_recording(recording, path, config, taken=trained)
            split = _split(path, recording, head, fleet)
            started_s = run.clock.monotonic_s()
            on_progress = run.observer.on_progress
            version = await asyncio.to_thread(train_on_head, own, fleet, split.head, checkpoints, on_progress)
            fit_s = run.clock.monotonic_s() - started_s
            trained[fleet.name] = _TrainedFile(path, own, fleet, split, version, fit_s)
            await _replay_rest(trained[fleet.name], run, store)
        begins = {name: each.version.decides_after_us for name, each in trained.items()}
        await run.read_results(store, begins, LAST_US)
    run.result.files += [_file_result(each, run) for each in trained.values()]


def _refuse_versions(run: ReplayRun) -> None:
    """Raise NotFound where a side names a version: without a registry there is none."""
    if run.side_by_side is not None and run.side_by_side.needs_versions:
        named = next(side.version for side in run.side_by_side.sides if side.version is not None)
        raise NotFound(
            f"version {named}: each of these files is decided by what is learnt from its own head. Compare alert "
            'parameters ("confirm=5 of 8"), or give a configuration with a registry, and no --train-rows'
        )


async def _replay_rest(trained: _TrainedFile, run: ReplayRun, store: AsyncStore) -> None:
    split = trained.split
    feed = RecordingFeed(split.rest.name)
    feed.add(concatenated(last_readings(split.head, trained.fleet.length), split.rest))
    batches = feed.batches(block=run.options.block)
    replay_input = ReplayInput(trained.config, batches, feed.partitions, n_readings=feed.n_readings)
    with closing(DetectorScorer(trained.config.device)) as scorer:
        await activate_version(store, scorer, trained.version, trained.fleet.name)
        await run.process(replay_input, store, scorer)


def config_for_recording(
    recording: Recording, path: Path, config: Config | None, *, taken: Container[str] = ()
) -> tuple[Config, FleetConfig]:
    """Return a configuration with this recording as its only fleet.

    Its settings come from the operator's fleet that takes the recording's first asset, or are the defaults. Without
    such a fleet, interval and sensors come from the file. `taken`: fleet names that are already in use.
    """
    from monitor.config import parse

    meta = read_meta(path)
    base = next((fleet for fleet in config.fleets if fleet.matches(recording.assets[0])), None) if config else None
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
        inherited = ("window", "stride", "lateness", "max_gap", "model", "alerts")
        fleet |= {key: getattr(base, key) for key in inherited} | {"sensors": base.sensors or recording.sensors}
    made = parse(
        {
            # The keys are required, but no broker is contacted: the records come from memory.
            "kafka": {"bootstrap": "localhost:9092", "topics": [recording.name], "group": "replay"},
            "device": config.device if config else "auto",
            "fleet": [fleet],
        }
    )
    return made, made.fleets[0]


def _split(path: Path, recording: Recording, head: TrainingHead, fleet: FleetConfig) -> RecordingSplit:
    rows = head.rows
    if not head.is_given:
        rows = read_meta(path).train_rows
        if rows is None:
            raise BadRecording(
                f"{path}: nothing says how much of it is healthy; add --train-rows N or --train-until TIME, or put "
                f'a meta.json beside it: {{"series": {{"{recording.name}": {{"train_rows": N}}}}}}'
            )
    split = split_recording(recording, rows=rows, until_us=head.until_us, interval_us=fleet.interval_us)
    if not len(split.rest):
        raise BadRecording(f"{path}: all of its {len(recording)} rows are to be learnt from; nothing is left to replay")
    return split


def _file_result(trained: _TrainedFile, run: ReplayRun) -> FileResult:
    name, split, other = trained.fleet.name, trained.split, None
    if run.side_by_side is not None:
        alerts = run.side_by_side.results[1].alerts[name].values()
        other = compare_with_labels(split.events, [alert.span for alert in alerts])
    return FileResult(
        set=read_meta(trained.path).set,
        name=split.rest.name,
        version=trained.version.version,
        train_rows=len(split.head),
        fit_s=round(trained.fit_s, 2),
        compared=compare_with_labels(split.events, run.result.spans.get(name, [])),
        other=other,
    )


# ---------------------------------------------------------------- the registered versions


async def _replay_with_registry(recordings: Sequence[Recording], config: Config, run: ReplayRun) -> None:
    """Replay recordings through the operator's fleets, as if they had come from the first topic of each fleet."""
    feeds: dict[str, RecordingFeed] = {}
    for recording in recordings:
        fleet = next((each for each in config.fleets if each.matches(recording.assets[0])), None)
        if fleet is None:
            globs = ", ".join(name for each in config.fleets for name in each.assets)
            raise BadRecording(f"{recording.name}: no fleet takes asset {recording.assets[0]} (assets = {globs})")
        topic = config.topics_of(fleet)[0]
        feeds.setdefault(topic, RecordingFeed(topic)).add(replace(recording, label=None))
    first_us = min(int(recording.ts_us.min()) for recording in recordings) - 1
    async with (
        scratch(run.options.into) as (store, _),
        open_scorers(config, run.side_by_side, after_us=first_us) as scorer,
    ):
        # The feed assigns its own partitions: an asset in a file has no Kafka partition.
        registry = RegistryCopy(run.options.deciding_version, has_partitions=False, after_us=first_us)
        await copy_live_registry(config, store, scorer, registry)
        for feed in feeds.values():
            batches = feed.batches(block=run.options.block)
            replay_input = ReplayInput(config, batches, feed.partitions, n_readings=feed.n_readings)
            await run.process(replay_input, store, scorer)
        await run.read_results(store, {}, LAST_US)
