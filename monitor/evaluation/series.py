"""A labelled recording for evaluation: rows on a grid, a healthy head for training, the rest for assessment.

Input: a file, and the length of its head from `meta.json` beside it or from the operator. Output: a `Series` for each
asset.
Invariants: the time of a row is its number in the file × the interval, because a recording joined from two has times of
two clocks. Labels are a separate field that is passed to no code that trains or scores.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from monitor.decode.formatting import quote, short_list
from monitor.errors import BadRecording
from monitor.recordings import FileOptions, account, read_files, read_meta, read_recording

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from monitor.recordings import Meta, Recording
    from monitor.types import Float32

LABEL = "label"
"""Default name of the label column."""
LIKE_LABELS = frozenset((LABEL, "anomaly", "isanomaly", "changepoint", "attack", "fault"))
"""Common names of label columns, compared without case, blanks, hyphens and underscores."""
LONGEST_S = 3e12
"""A hundred thousand years, so that row × interval in microseconds stays far inside 64 bits."""


@dataclass(frozen=True, slots=True)
class UnlabelledSeries:
    """A recording without its labels: the input of a method. N rows of C sensors."""

    sensors: tuple[str, ...]
    values: Float32
    """[N, C], NaN = missing."""
    train_rows: int
    """Healthy leading rows, the only ones used for training."""
    interval_s: float

    @property
    def digest(self) -> str:
        """Hash of everything a score can depend on. Labels are no part of it."""
        sha = hashlib.sha256(repr((self.sensors, self.values.shape, self.train_rows, self.interval_s)).encode())
        sha.update(np.ascontiguousarray(self.values).tobytes())
        return sha.hexdigest()


@dataclass(frozen=True, slots=True)
class Series:
    """One asset's recording."""

    set: str
    """The file's folder."""
    name: str
    """The file's name without its endings. With several assets, followed by a slash and the asset."""
    data: UnlabelledSeries
    label: NDArray[np.int8] | None
    """[N], 1 = fault. None = the recording has no labels."""
    path: str = ""
    """The file, as it was given."""
    warnings: tuple[str, ...] = ()
    """Doubts about the file that affect the figures. Each names the file."""
    notes: tuple[str, ...] = ()
    """What was recognised, changed or left out while the file was read."""

    @property
    def test_labels(self) -> NDArray[np.int8] | None:
        """Labels of the rows behind the training rows."""
        return None if self.label is None else self.label[self.data.train_rows :]


@dataclass(frozen=True, slots=True)
class RejectedSeries:
    """One asset's recording that cannot be evaluated. Other assets of the file may be."""

    set: str
    name: str
    error: BadRecording
    """The reason, naming the file and the fix."""


@dataclass(frozen=True, slots=True)
class ReadOptions(FileOptions):
    """Options for reading a file. None = taken from the file, or from `meta.json` beside it."""

    train_rows: int | None = None
    continued_in: tuple[Path, ...] = ()
    """Files that continue the file: all of them are one recording."""


def read_series(path: Path, options: ReadOptions) -> list[Series | RejectedSeries]:
    """Read a file into one series for each asset in it. Raises BadRecording, NotFound, naming the file and the fix."""
    if options.continued_in:
        [(path, recording)] = read_files((path, *options.continued_in), options, join=True)
    else:
        recording = read_recording(path, options)
    if options.label != LABEL and LABEL in recording.sensors:
        recording = _without_label(path, recording)
    meta = read_meta(path)
    warnings = tuple(_file_warnings(path, recording, options))
    parts: Sequence[Recording] = recording.per_asset() if len(recording.assets) > 1 else [recording]
    found: list[Series | RejectedSeries] = []
    for part in parts:
        name = recording.name if len(parts) == 1 else f"{recording.name}/{part.assets[0]}"
        try:
            data = _check(path, meta, part, options, name)
            part, data = _prepare(part, data, options)  # the same asset on its grid
        except BadRecording as problem:
            found.append(RejectedSeries(meta.set, name, problem))
            continue
        place = str(path) if name == part.name else f"{path}, {part.assets[0]}"
        doubts = (*warnings, *_asset_warnings(place, part, data.train_rows))
        notes = (*part.notes, *account.sensor_notes(_head(part, data)))
        found.append(Series(meta.set, name, data, part.label, str(path), doubts, notes))
    return found


def _prepare(part: Recording, data: UnlabelledSeries, options: ReadOptions) -> tuple[Recording, UnlabelledSeries]:
    """Take the missing-value codes of the head as missing, and hold values where that was asked for."""
    if options.finds_missing:
        part = account.without_codes(part, account.find_missing_codes(_head(part, data)))
    train_rows = data.train_rows
    if options.hold_s is not None:
        order = np.argsort(part.ts_us, kind="stable")
        until_us = int(part.ts_us[order][train_rows])
        part = account.hold_values(part, round(data.interval_s * 1e6), round(options.hold_s * 1e6))
        train_rows = int(np.searchsorted(part.ts_us, until_us))
    return part, replace(data, values=part.values, train_rows=train_rows)


def _head(part: Recording, data: UnlabelledSeries) -> Recording:
    return part.rows(slice(0, data.train_rows))


def _without_label(path: Path, recording: Recording) -> Recording:
    """Leave out the column "label" where another label column was named: it is no sensor."""
    kept = [number for number, name in enumerate(recording.sensors) if name != LABEL]
    if not kept:
        raise BadRecording(f"{path}: no column beside {quote(LABEL)} holds numbers")
    return replace(
        recording, sensors=tuple(recording.sensors[number] for number in kept), values=recording.values[:, kept]
    )


def _file_warnings(path: Path, recording: Recording, options: ReadOptions) -> Iterator[str]:
    """Yield warnings about a file as a whole."""
    if recording.label is None:
        columns = short_list((*recording.sensors, *recording.left_out), 20)
        yield f"{path} has no column {quote(options.label)}; its columns are {columns}; use --label-column"
    for name in recording.sensors:
        if re.sub(r"[ _-]", "", name).casefold() in LIKE_LABELS:
            yield (
                f"{path}: the column {quote(name)} is called like a label and is learnt from as a sensor; "
                "use --label-column, or take it out of the file"
            )
    for sentence in recording.losses:
        yield f"{path}: {sentence}"


def _check(path: Path, meta: Meta, recording: Recording, options: ReadOptions, name: str) -> UnlabelledSeries:
    """Check the training rows and the interval of one asset's recording. Raises BadRecording."""
    rows, source = meta.train_rows, "meta.json"
    if options.train_rows is not None:
        rows, source = options.train_rows, "--train-rows"
    if rows is None:
        raise BadRecording(
            f"{path}: nothing says how many leading rows are healthy and may be learnt from; "
            f'use --train-rows N, or write {{"series": {{"{recording.name}": {{"train_rows": N}}}}}} '
            "into meta.json beside it"
        )
    if len(recording) == 1:
        raise BadRecording(f"{path}: {name} has one row; it takes one to learn from and one to score at least")
    if not 0 < rows < len(recording):
        raise BadRecording(
            f"{path}: train_rows is {rows:,} ({source}), but {name} has {len(recording):,} rows; "
            f"use 1 to {len(recording) - 1:,}, so that something is left to score"
        )
    interval_s = options.interval_s or meta.interval_s or recording.interval_us / 1e6
    if not interval_s > 0:
        raise BadRecording(
            f"{path}: no two readings of {name} are at different times, so there is no interval; "
            "use --interval 10s, or write sampling_interval_s into meta.json beside it"
        )
    if interval_s * len(recording) > LONGEST_S or interval_s < 1e-6:
        raise BadRecording(
            f"{path}: {len(recording):,} rows, one each {interval_s:g} s, are no recording of a plant; "
            "correct sampling_interval_s in meta.json beside it, or the times"
        )
    return UnlabelledSeries(recording.sensors, recording.values, rows, interval_s)


def _asset_warnings(place: str, recording: Recording, train_rows: int) -> Iterator[str]:
    """Yield warnings about one asset's rows."""
    n_faults = 0 if recording.label is None else int(np.count_nonzero(recording.label[:train_rows]))
    if n_faults:
        yield f"{place}: {n_faults:,} of the {train_rows:,} training rows are labelled faults"
    n_back = int(np.count_nonzero(np.diff(recording.ts_us) < 0))
    if n_back:
        times = "once" if n_back == 1 else f"{n_back:,} times"
        yield f"{place}: time runs backwards {times}; rows are taken in the file's order"
