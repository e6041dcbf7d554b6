"""A labelled recording as evaluation sees it: rows on a grid, the healthy head to learn from, the rest to judge.

Enters a file, and what `meta.json` beside it or the operator says of its head. Leaves a `Series` for each asset. The
law: row number × interval is the time, in the file's order (a recording put together of two has two clocks), and the
labels are a field apart, that nobody who learns or scores is handed.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from monitor.decode.formatting import quote, short_list
from monitor.errors import BadRecording
from monitor.recordings import read_meta, read_recording

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from monitor.recordings import Meta, Recording
    from monitor.types import Float32

LABEL = "label"
"""The column of labels where nobody says another."""
LIKE_LABELS = frozenset((LABEL, "anomaly", "isanomaly", "changepoint", "attack", "fault"))
"""Columns that other people's labels stand in; compared without case, blanks, hyphens and underscores."""
LONGEST_S = 3e12
"""A hundred thousand years: row × interval in microseconds stays far inside 64 bits."""


@dataclass(frozen=True, slots=True)
class Unlabelled:
    """A recording as a method sees it: all of it but the labels. N rows of C sensors."""

    sensors: tuple[str, ...]
    values: Float32
    """[N, C]; NaN = missing."""
    train_rows: int
    """Healthy leading rows: all that may be learnt from."""
    interval_s: float

    @property
    def digest(self) -> str:
        """The content's identity: what a score can depend on, and no label."""
        sha = hashlib.sha256(repr((self.sensors, self.values.shape, self.train_rows, self.interval_s)).encode())
        sha.update(np.ascontiguousarray(self.values).tobytes())
        return sha.hexdigest()


@dataclass(frozen=True, slots=True)
class Series:
    """One asset's recording."""

    set: str
    """The file's folder."""
    name: str
    """The file's name without its endings; with several assets, the asset behind a slash."""
    data: Unlabelled
    label: NDArray[np.int8] | None
    """[N], 1 = fault; None = nobody labelled it."""
    path: str = ""
    """The file, as it was given."""
    warnings: tuple[str, ...] = ()
    """What an operator should know before believing the figures; each names the file."""

    @property
    def rest(self) -> NDArray[np.int8] | None:
        """The labels behind the training rows."""
        return None if self.label is None else self.label[self.data.train_rows :]


@dataclass(frozen=True, slots=True)
class Refused:
    """One asset's recording that cannot be evaluated; the file's others can."""

    set: str
    name: str
    error: BadRecording
    """Why, naming the file and the fix."""


@dataclass(frozen=True, slots=True)
class Reading:
    """How to read a file; None = what can be told from it, or from `meta.json` beside it."""

    train_rows: int | None = None
    asset: str | None = None
    timestamp: str | None = None
    label: str = LABEL


def read_series(path: Path, how: Reading) -> list[Series | Refused]:
    """Read a file, a series for each asset in it. Raises BadRecording and NotFound, naming the file and the fix."""
    recording = read_recording(path, asset=how.asset, timestamp=how.timestamp, label=how.label)
    if how.label != LABEL and LABEL in recording.sensors:
        recording = _without_label(path, recording)
    meta = read_meta(path)
    said = tuple(_doubts(path, recording, how))
    parts: Sequence[Recording] = recording.per_asset() if len(recording.assets) > 1 else [recording]
    found: list[Series | Refused] = []
    for part in parts:
        name = recording.name if len(parts) == 1 else f"{recording.name}/{part.assets[0]}"
        try:
            found.append(_series(path, meta, part, how, name, said))
        except BadRecording as problem:
            found.append(Refused(meta.set, name, problem))
    return found


def _without_label(path: Path, recording: Recording) -> Recording:
    """Leave out the usual label column where another was named: neither is a sensor."""
    kept = [place for place, name in enumerate(recording.sensors) if name != LABEL]
    if not kept:
        raise BadRecording(f"{path}: no column beside {quote(LABEL)} holds numbers")
    return replace(
        recording, sensors=tuple(recording.sensors[place] for place in kept), values=recording.values[:, kept]
    )


def _doubts(path: Path, recording: Recording, how: Reading) -> Iterator[str]:
    """Say what is odd about a file as a whole."""
    if recording.label is None:
        columns = short_list((*recording.sensors, *recording.left_out), 20)
        yield f"{path} has no column {quote(how.label)}; its columns are {columns}; use --label-column"
    for name in recording.sensors:
        if re.sub(r"[ _-]", "", name).casefold() in LIKE_LABELS:
            yield (
                f"{path}: the column {quote(name)} is called like a label and is learnt from as a sensor; "
                "use --label-column, or take it out of the file"
            )
    if recording.left_out:
        yield f"{path}: left out, since they hold no numbers: {short_list(recording.left_out, 20)}"
    if recording.n_too_large:
        cells = "cell is" if recording.n_too_large == 1 else "cells are"
        yield f"{path}: {recording.n_too_large:,} {cells} too large for float32 and taken as missing"


def _series(
    path: Path, meta: Meta, recording: Recording, how: Reading, name: str, said: tuple[str, ...]
) -> Series:
    rows, said_by = (meta.train_rows, "meta.json") if how.train_rows is None else (how.train_rows, "--train-rows")
    if rows is None:
        raise BadRecording(
            f"{path}: nobody says how many leading rows are healthy and may be learnt from; "
            f'use --train-rows N, or write {{"series": {{"{recording.name}": {{"train_rows": N}}}}}} '
            "into meta.json beside it"
        )
    if len(recording) == 1:
        raise BadRecording(f"{path}: {name} has one row; it takes one to learn from and one to score at least")
    if not 0 < rows < len(recording):
        raise BadRecording(
            f"{path}: train_rows is {rows:,} ({said_by}), but {name} has {len(recording):,} rows; "
            f"use 1 to {len(recording) - 1:,}, so that something is left to score"
        )
    interval_s = meta.interval_s or recording.interval_us / 1e6
    if not interval_s > 0:
        raise BadRecording(
            f"{path}: no two readings of {name} are at different times, so there is no interval; "
            "write sampling_interval_s into meta.json beside it"
        )
    if interval_s * len(recording) > LONGEST_S or interval_s < 1e-6:
        raise BadRecording(
            f"{path}: {len(recording):,} rows, one each {interval_s:g} s, are no recording of a plant; "
            "correct sampling_interval_s in meta.json beside it, or the times"
        )
    data = Unlabelled(recording.sensors, recording.values, rows, interval_s)
    place = str(path) if name == recording.name else f"{path}, {recording.assets[0]}"
    return Series(
        meta.set, name, data, recording.label, str(path), (*said, *_doubts_of(place, recording, rows))
    )


def _doubts_of(place: str, recording: Recording, train_rows: int) -> Iterator[str]:
    """Say what is odd about one asset's rows."""
    n_faults = 0 if recording.label is None else int(np.count_nonzero(recording.label[:train_rows]))
    if n_faults:
        yield f"{place}: {n_faults:,} of the {train_rows:,} training rows are labelled faults"
    n_back = int(np.count_nonzero(np.diff(recording.ts_us) < 0))
    if n_back:
        times = "once" if n_back == 1 else f"{n_back:,} times"
        yield f"{place}: time runs backwards {times}; rows are taken in the file's order"
