"""A labelled recording as evaluation sees it: rows on a grid, the healthy head to learn from, the rest to judge.

Enters a file, and what `meta.json` beside it or the operator says of its head. Leaves a `Series` for each asset. The
law: row number × interval is the time, in the file's order (a recording put together of two has two clocks), and the
labels are a field apart, that nobody who learns or scores is handed.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from monitor.errors import BadRecording
from monitor.stream.files import read_meta, read_recording

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from monitor.stream.files import Meta, Recording
    from monitor.types import Float32


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

    @property
    def rest(self) -> NDArray[np.int8] | None:
        """The labels behind the training rows."""
        return None if self.label is None else self.label[self.data.train_rows :]


@dataclass(frozen=True, slots=True)
class Reading:
    """How to read a file; None = what can be told from it, or from `meta.json` beside it."""

    train_rows: int | None = None
    asset: str | None = None
    timestamp: str | None = None
    label: str = "label"


def read_series(path: Path, how: Reading) -> list[Series]:
    """Read a file, a series for each asset in it. Raises BadRecording and NotFound, naming the file and the fix."""
    recording = read_recording(path, asset=how.asset, timestamp=how.timestamp, label=how.label)
    meta = read_meta(path)
    parts: Sequence[Recording] = recording.per_asset() if len(recording.assets) > 1 else [recording]
    return [_series(path, meta, part, how, is_alone=len(parts) == 1) for part in parts]


def _series(path: Path, meta: Meta, recording: Recording, how: Reading, *, is_alone: bool) -> Series:
    name = recording.name if is_alone else f"{recording.name}/{recording.assets[0]}"
    rows, said_by = (meta.train_rows, "meta.json") if how.train_rows is None else (how.train_rows, "--train-rows")
    if rows is None:
        raise BadRecording(
            f"{path}: nobody says how many leading rows are healthy and may be learnt from; "
            f'use --train-rows N, or write {{"series": {{"{recording.name}": {{"train_rows": N}}}}}} '
            "into meta.json beside it"
        )
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
    return Series(meta.set, name, Unlabelled(recording.sensors, recording.values, rows, interval_s), recording.label)
