"""What a file holds, what stands beside it, and how it becomes records.

The law: a recording that goes through `as_records` and the decoder comes out as it was, reading by reading.
"""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from monitor.decode import block_msgpack
from monitor.errors import BadRecording
from monitor.types import Partition, RecordBatch

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    from monitor.types import Float32, Int32, Int64

_MAX_BLOCK_BYTES: Final = 128 * 1024
"""Half of the decoder's default limit for a record."""
_RECORDS_PER_BATCH: Final = 256
_META: Final = 'it must be an object like {"sampling_interval_s": 60, "series": {"NAME": {"train_rows": 4000}}}'


@dataclass(frozen=True, slots=True)
class Recording:
    """What a file holds: N readings of C sensors, in the file's order."""

    name: str
    """The file's name without its endings."""
    sensors: tuple[str, ...]
    ts_us: Int64
    """[N]"""
    values: Float32
    """[N, C]; NaN = missing."""
    assets: tuple[str, ...]
    """Names, in order of appearance; the file's name where it names none."""
    asset: Int32
    """[N], index into `assets`."""
    label: NDArray[np.int8] | None
    """[N], 1 = fault; None = the file has no labels."""
    left_out: tuple[str, ...] = ()
    """Columns without a single number."""
    n_too_large: int = 0
    """Cells taken as missing because float32 cannot hold them."""

    def __len__(self) -> int:
        return len(self.ts_us)

    @property
    def interval_us(self) -> int:
        """The usual step from one reading of an asset to its next: the median. 0 = there is none."""
        order = np.lexsort((self.ts_us, self.asset))
        steps = np.diff(self.ts_us[order])[np.diff(self.asset[order]) == 0]
        steps = steps[steps > 0]
        return int(np.median(steps)) if len(steps) else 0

    def per_asset(self) -> list[Recording]:
        """One recording for each asset, as if each had a file of its own."""
        return [self.rows(np.flatnonzero(self.asset == i), (name,)) for i, name in enumerate(self.assets)]

    def rows(self, rows: Int64 | slice, assets: tuple[str, ...] | None = None) -> Recording:
        """A part of it. `assets`: of one name, that of the only asset left."""
        asset = self.asset[rows]
        return Recording(
            self.name,
            self.sensors,
            self.ts_us[rows],
            self.values[rows],
            assets or self.assets,
            np.zeros_like(asset) if assets else asset,
            None if self.label is None else self.label[rows],
            self.left_out,
            self.n_too_large,
        )


@dataclass(frozen=True, slots=True)
class Meta:
    """What `meta.json` beside a file says of it."""

    set: str
    """The file's folder."""
    train_rows: int | None = None
    """How many leading rows are normal and may be learnt from."""
    interval_s: float | None = None


def read_meta(path: Path) -> Meta:
    """What `meta.json` says; a file without one has a set and nothing else. Raises BadRecording."""
    # The folder the file was named in: what a link points to may lie in a store of all recordings.
    beside, folder = path.parent / "meta.json", path.parent.resolve().name
    if not beside.is_file():
        return Meta(folder)
    try:
        said = _object(json.loads(beside.read_bytes()), "it")
        series = _object(_object(said.get("series", {}), "series").get(stem(path), {}), stem(path))
        rows = _number(series, "train_rows")
        step = _number(series, "median_step_s") or _number(said, "sampling_interval_s")
    except (ValueError, OSError) as problem:
        raise BadRecording(f"{beside}: {problem}; {_META}") from problem
    if rows is not None and not rows.is_integer():
        raise BadRecording(f"{beside}: train_rows is {rows:g}, not a whole number")
    if step is not None and step <= 0:
        raise BadRecording(f"{beside}: the interval is {step:g}; write the seconds from one row to the next, above 0")
    return Meta(folder, None if rows is None else int(rows), step)


def _object(value: Any, name: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError(f"{name} is {json.dumps(value)[:40]}, not an object")  # noqa: TRY004 - the file's fault
    return value


def _number(said: dict[str, Any], name: str) -> float | None:
    """What stands there as a finite number; None = nothing does."""
    if (value := said.get(name)) is None:
        return None
    try:
        number = float(value)
    except (ValueError, TypeError, OverflowError):
        number = math.nan
    if isinstance(value, bool) or not math.isfinite(number):
        raise ValueError(f"{name} is {json.dumps(value)[:40]}, not a finite number")
    return number


def as_records(recording: Recording, *, block: int = 256, partition: Partition | None = None) -> Iterator[RecordBatch]:
    """The recording as blocks of MessagePack, ordered by time, in batches as a Kafka partition would give them.

    One asset: up to `block` readings to a record. Several: one reading to a record, since they share the partition's
    watermark, and a block of one asset would make all others late. (`per_asset` and a partition each is faster.)
    Readings without a single value are gaps, and are not sent.
    """
    partition = partition or Partition(recording.name, 0)
    order = np.argsort(recording.ts_us, kind="stable")
    order = order[np.isfinite(recording.values[order]).any(axis=1)]
    fitting = max(_MAX_BLOCK_BYTES // (4 * len(recording.sensors)), 1)
    step = 1 if len(recording.assets) > 1 else max(min(block, fitting), 1)
    starts = range(0, len(order), step)
    for first in range(0, len(starts), _RECORDS_PER_BATCH):
        groups = [order[at : at + step] for at in starts[first : first + _RECORDS_PER_BATCH]]
        names = [recording.assets[recording.asset[rows[0]]] for rows in groups]
        yield RecordBatch(
            partition,
            np.arange(first, first + len(groups), dtype=np.int64),
            np.array([max(int(recording.ts_us[rows[-1]]), -1) for rows in groups], np.int64),
            [name.encode() for name in names],
            [
                block_msgpack(name, recording.ts_us[rows], recording.values[rows], recording.sensors)
                for name, rows in zip(names, groups, strict=True)
            ],
        )


def stem(path: Path) -> str:
    """The file's name without its endings."""
    return re.sub(r"(\.csv|\.parquet|\.pq)?(\.gz)?$", "", path.name, flags=re.IGNORECASE) or path.name
