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

from monitor.decode.formatting import short_list
from monitor.errors import BadRecording, NotFound
from monitor.evaluation.compare import compare_with_labels
from monitor.recordings import FileOptions, account, read_meta
from monitor.replay.flow import ReplayInput, scratch
from monitor.replay.recording_feed import RecordingFeed, concatenated, last_readings, split_recording
from monitor.replay.run import FileResult, ReplayRun, open_scorers
from monitor.replay.versions import (
    RegistryCopy,
    activate_version,
    copy_live_registry,
    has_versions,
    train_on_head,
    unreadable_versions,
    with_deciding_lengths,
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
    from monitor.types import Int64, Scores, Windows

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
class RecordingFiles:
    """Recordings to replay, each with the path of its file."""

    recordings: Sequence[tuple[Path, Recording]]
    head: TrainingHead = field(default_factory=TrainingHead)
    options: FileOptions = field(default_factory=FileOptions)
    """The options by which they were read."""


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
    run = ReplayRun(options, observer, clock, options.side_by_side())
    if config and not files.head.is_given and (options.deciding_version or await has_versions(config)):
        config = await with_deciding_lengths(config, options.deciding_version)
        await _replay_with_registry(files, config, run)
    else:
        await _replay_with_own_models(files, config, run)
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
    notes: tuple[str, ...]


async def _replay_with_own_models(files: RecordingFiles, config: Config | None, run: ReplayRun) -> None:
    """Train on the head of each file and replay the rest of it. Each file is a fleet of its own."""
    _refuse_versions(run)
    trained: dict[str, _TrainedFile] = {}
    async with scratch(run.options.into) as (store, checkpoints):
        for path, recording in files.recordings:
            own, fleet, source, used = config_for_recording(
                recording, path, config, taken=trained, options=files.options
            )
            split, notes = _split(path, recording, files, fleet, source)
            notes = (*notes, *used)
            run.observer.on_notes(recording.name, notes)
            started_s = run.clock.monotonic_s()
            on_progress = run.observer.on_progress
            version = await asyncio.to_thread(train_on_head, own, fleet, split.head, checkpoints, on_progress)
            own = own.with_lengths({fleet.name: version.length or fleet.length})
            fleet = own.fleets[0]
            run.observer.on_notes(recording.name, version.notes)
            fit_s = run.clock.monotonic_s() - started_s
            trained[fleet.name] = _TrainedFile(path, own, fleet, split, version, fit_s, notes)
            await _replay_rest(trained[fleet.name], run, store)
        begins = {name: each.version.decides_after_us for name, each in trained.items()}
        await run.read_results(store, begins, LAST_US)
    run.result.files += [_file_result(each, run) for each in trained.values()]
    for each in trained.values():
        _add_budget(run, each.split.rest, each.fleet)


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
    feed = RecordingFeed(trained.fleet.name)  # not the recording's name, which two files can have
    feed.add(concatenated(last_readings(split.head, trained.fleet.length), split.rest))
    batches = feed.batches(block=run.options.block)
    replay_input = ReplayInput(trained.config, batches, feed.partitions, n_readings=feed.n_readings)
    with closing(DetectorScorer(trained.config.device, fleets=trained.config.fleets)) as scorer:
        await activate_version(store, scorer, trained.version, trained.fleet.name)
        quiet = _QuietRunUp(scorer, trained.version.decides_after_us)
        await run.process(replay_input, store, scorer if run.side_by_side is not None else quiet)


class _QuietRunUp:
    """A scorer that names no reason for windows before its model decides: they complete the first one that counts."""

    def __init__(self, scorer: DetectorScorer, decides_after_us: int) -> None:
        self._scorer = scorer
        self._decides_after_us = decides_after_us

    async def score(self, windows: Windows, end_us: Int64, sensors: Sequence[str]) -> Scores:
        scored = await self._scorer.score(windows, end_us, sensors)
        return replace(scored, unscored_reason=None) if (end_us <= self._decides_after_us).any() else scored


def config_for_recording(
    recording: Recording,
    path: Path,
    config: Config | None,
    *,
    taken: Container[str] = (),
    options: FileOptions | None = None,
) -> tuple[Config, FleetConfig, str, list[str]]:
    """Return a configuration with this recording as its only fleet, the fleet, the origin of its interval, and notes.

    Its settings come from the operator's fleet that takes the recording's first asset and has one of its sensors, or
    are the defaults. Without such a fleet, interval and sensors come from the file. `taken`: fleet names in use.
    """
    from monitor.config import parse

    meta = read_meta(path)
    fleets = [each for each in config.fleets if each.matches(recording.assets[0])] if config else []
    base = next((each for each in fleets if not each.sensors or set(each.sensors) & set(recording.sensors)), None)
    notes = []
    if fleets and base is None:
        notes.append(f"fleet {fleets[0].name} of the configuration is not used: {_lacking(fleets[0], recording)}")
    given_s = options.interval_s if options is not None else None
    sources = (
        (round((given_s or 0) * 1e6), "--interval"),
        (base.interval_us if base else 0, f"fleet {base.name}" if base else ""),
        (int((meta.interval_s or 0) * 1e6), "meta.json"),
        (recording.interval_us, "the median step; --interval sets another"),
    )
    interval_us, source = next(((us, name) for us, name in sources if us), (0, ""))
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
        inherited = ("window", "stride", "lateness", "model", "alerts")
        listed = base.sensors or ()
        known = tuple(name for name in listed if name in recording.sensors)
        fleet |= {key: getattr(base, key) for key in inherited} | {"sensors": known or recording.sensors}
        fleet["sensor"] = {name: each for name, each in base.sensor.items() if name in fleet["sensors"]}
        if base.window is not None or "max_gap" in base.model_fields_set:
            same = interval_us == base.interval_us
            fleet["max_gap"] = base.max_gap if same else base.max_gap_cells * fleet["interval"]
        lacking = f", but {_lacking(base, recording)}" if len(known) < len(listed) else ""
        notes.append(f"window, model and alerts are those of fleet {base.name} of the configuration{lacking}")
    made = parse(
        {
            # The keys are required, but no broker is contacted: the records come from memory.
            "kafka": {"bootstrap": "localhost:9092", "topics": [name], "group": "replay"},
            "device": config.device if config else "auto",
            "fleet": [fleet],
        }
    )
    return made, made.fleets[0], source, notes


def _lacking(fleet: FleetConfig, recording: Recording) -> str:
    missing = tuple(name for name in fleet.sensors or () if name not in recording.sensors)
    return f"the file lacks {short_list(missing)}, which it lists"


def _split(
    path: Path, recording: Recording, files: RecordingFiles, fleet: FleetConfig, source: str
) -> tuple[RecordingSplit, tuple[str, ...]]:
    """Return the recording, cut and without missing-value codes, and what to tell of it."""
    head, options = files.head, files.options
    rows = head.rows
    if not head.is_given:
        rows = read_meta(path).train_rows
        if rows is None:
            raise BadRecording(
                f"{path}: nothing says how much of it is healthy; add --train-rows N or --train-until TIME, or put "
                f'a meta.json beside it: {{"series": {{"{recording.name}": {{"train_rows": N}}}}}}'
            )
    cut = split_recording(recording, rows=rows, until_us=head.until_us, interval_us=fleet.interval_us)
    if not len(cut.rest):
        raise BadRecording(f"{path}: all of its {len(recording)} rows are to be learnt from; nothing is left to replay")
    if options.finds_missing:
        recording = account.without_codes(recording, account.find_missing_codes(cut.head))
    if options.hold_s is not None:
        recording = account.hold_values(recording, fleet.interval_us, round(options.hold_s * 1e6))
    grid = (account.span_note(recording), *account.grid_notes(recording, fleet.interval_us, source))
    split = split_recording(recording, rows=None, until_us=cut.from_us, interval_us=fleet.interval_us)
    return split, (*recording.notes, *recording.losses, *account.sensor_notes(split.head), *grid)


def _file_result(trained: _TrainedFile, run: ReplayRun) -> FileResult:
    name, split, other = trained.fleet.name, trained.split, None
    if run.side_by_side is not None:
        alerts = run.side_by_side.results[1].alerts[name].values()
        other = compare_with_labels(split.events, [alert.span for alert in alerts], _periods(split.rest, trained.fleet))
    return FileResult(
        set=read_meta(trained.path).set,
        name=split.rest.name,
        version=trained.version.version,
        train_rows=len(split.head),
        fit_s=round(trained.fit_s, 2),
        compared=compare_with_labels(split.events, run.result.spans.get(name, []), _periods(split.rest, trained.fleet)),
        other=other,
        notes=trained.notes,
    )


def _periods(rest: Recording, fleet: FleetConfig) -> dict[str, tuple[int, int]]:
    """Return the time that is replayed of each asset."""
    found = {}
    for number, name in enumerate(rest.assets):
        ts_us = rest.ts_us[rest.asset == number]
        if len(ts_us):
            found[name] = int(ts_us.min()), int(ts_us.max()) + fleet.interval_us
    return found


def _add_budget(run: ReplayRun, rest: Recording, fleet: FleetConfig) -> None:
    """Add the replayed time of a recording's assets, and the false alarms that the budget allows in it."""
    replayed = timedelta(microseconds=account.count_cells(rest, fleet.interval_us) * fleet.interval_us)
    run.result.weeks += replayed / timedelta(weeks=1)
    run.result.allowed += fleet.alerts.budget.within(replayed)


# ---------------------------------------------------------------- the registered versions


async def _replay_with_registry(files: RecordingFiles, config: Config, run: ReplayRun) -> None:
    """Replay recordings through the operator's fleets, as if they had come from the first topic of each fleet."""
    feeds: dict[str, RecordingFeed] = {}
    recordings = [recording for _, recording in files.recordings]
    for recording in recordings:
        fleet = next((each for each in config.fleets if each.matches(recording.assets[0])), None)
        if fleet is None:
            globs = ", ".join(name for each in config.fleets for name in each.assets)
            raise BadRecording(f"{recording.name}: no fleet takes asset {recording.assets[0]} (assets = {globs})")
        unused = "; --interval is not used" if files.options.interval_s is not None else ""
        if files.options.hold_s is not None:
            recording = account.hold_values(recording, fleet.interval_us, round(files.options.hold_s * 1e6))
        grid = account.grid_notes(recording, fleet.interval_us, f"fleet {fleet.name}{unused}")
        span = account.span_note(recording)
        run.observer.on_notes(recording.name, (*recording.notes, *recording.losses, span, *grid))
        _add_budget(run, recording, fleet)
        topic = config.topics_of(fleet)[0]
        feeds.setdefault(topic, RecordingFeed(topic)).add(replace(recording, label=None))
    first_us = min(int(recording.ts_us.min()) for recording in recordings) - 1
    async with (
        scratch(run.options.into) as (store, _),
        open_scorers(config, run.side_by_side, after_us=first_us) as scorer,
    ):
        # The feed assigns its own partitions: an asset in a file has no Kafka partition.
        unreadable = await unreadable_versions(config) if run.options.deciding_version is None else []
        registry = RegistryCopy(
            run.options.deciding_version, has_partitions=False, after_us=first_us, unreadable=unreadable
        )
        await copy_live_registry(config, store, scorer, registry)
        for feed in feeds.values():
            batches = feed.batches(block=run.options.block)
            replay_input = ReplayInput(config, batches, feed.partitions, n_readings=feed.n_readings)
            await run.process(replay_input, store, scorer)
        await run.read_results(store, {}, LAST_US)
