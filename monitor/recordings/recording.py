"""A recording in memory, the metadata beside its file, and its readings as Kafka records.

Input: a recording, or the path of its file. Output: batches of records, or `Meta`. Invariant: a recording that goes
through `as_records` and the decoder comes out unchanged, reading by reading.
"""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from monitor.decode import block_msgpack
from monitor.decode.formatting import short_list
from monitor.errors import BadRecording
from monitor.printable import MAX_NAME, name_problem, normal_name
from monitor.types import Partition, RecordBatch

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    from monitor.types import Float32, Int32, Int64

_MAX_BLOCK_BYTES: Final = 128 * 1024
"""Half of the decoder's default limit for a record."""
_RECORDS_PER_BATCH: Final = 256
_META_FORM: Final = 'it must be an object like {"sampling_interval_s": 60, "series": {"NAME": {"train_rows": 4000}}}'


@dataclass(frozen=True, slots=True)
class Recording:
    """N readings of C sensors, in the file's order."""

    name: str
    """The file's name without its endings."""
    sensors: tuple[str, ...]
    ts_us: Int64
    """[N]"""
    values: Float32
    """[N, C], NaN = missing."""
    assets: tuple[str, ...]
    """Names, in order of appearance. The file's name where it has no column of assets."""
    asset: Int32
    """[N], index into `assets`."""
    label: NDArray[np.int8] | None
    """[N], 1 = fault. None = the file has no labels."""
    left_out: tuple[str, ...] = ()
    """Columns without a single number."""
    n_too_large: int = 0
    """Cells taken as missing because float32 cannot hold them."""
    notes: tuple[str, ...] = ()
    """Everything that was recognised, changed or left out, for the operator."""

    @property
    def asset_of_file(self) -> str:
        """Name of the asset of a file that names none."""
        return asset_of_file(self.name)

    @property
    def losses(self) -> tuple[str, ...]:
        """Sentences on columns that are left out, and on cells that are taken as missing."""
        said = []
        if self.left_out:
            said.append(f"left out, since they hold no numbers: {short_list(self.left_out, 20)}")
        if self.n_too_large:
            cells = "cell is" if self.n_too_large == 1 else "cells are"
            said.append(f"{self.n_too_large:,} {cells} too large for float32 and taken as missing")
        return tuple(said)

    def __len__(self) -> int:
        return len(self.ts_us)

    @property
    def interval_us(self) -> int:
        """Median time from one reading of an asset to its next. 0 = there is no such step."""
        order = np.lexsort((self.ts_us, self.asset))
        steps = np.diff(self.ts_us[order])[np.diff(self.asset[order]) == 0]
        steps = steps[steps > 0]
        return int(np.median(steps)) if len(steps) else 0

    def per_asset(self) -> list[Recording]:
        """Return one recording for each asset, as if each had a file of its own."""
        return [self.rows(np.flatnonzero(self.asset == i), (name,)) for i, name in enumerate(self.assets)]

    def rows(self, rows: Int64 | slice, assets: tuple[str, ...] | None = None) -> Recording:
        """Return the readings at these rows. `assets`: the name of the only asset left, if one is left."""
        asset = self.asset[rows]
        return replace(
            self,
            ts_us=self.ts_us[rows],
            values=self.values[rows],
            assets=assets or self.assets,
            asset=np.zeros_like(asset) if assets else asset,
            label=None if self.label is None else self.label[rows],
        )

    def with_notes(self, notes: Iterable[str]) -> Recording:
        """Return the recording with further notes, each once."""
        return replace(self, notes=tuple(dict.fromkeys((*self.notes, *notes))))

    def with_left_out(self, names: tuple[str, ...], n_too_large: int) -> Recording:
        """Return the recording with other facts about its file."""
        return replace(self, left_out=names, n_too_large=n_too_large)

    def with_values(self, values: Float32) -> Recording:
        """Return the recording with other values of the same rows."""
        return replace(self, values=values)

    def with_rows(self, ts_us: Int64, values: Float32, asset: Int32, label: NDArray[np.int8] | None) -> Recording:
        """Return the recording with other rows."""
        return replace(self, ts_us=ts_us, values=values, asset=asset, label=label)

    def with_missing(self, codes: Iterable[float]) -> Recording:
        """Return the recording with these values taken as missing, and a note for each that occurs."""
        values, notes = self.values, []
        for code in codes:
            is_code = values == np.float32(code)
            if n := int(is_code.sum()):
                names = tuple(np.array(self.sensors, object)[is_code.any(axis=0)])
                notes.append(f"{n:,} × {code:g} means missing ({short_list(names)})")
                values = np.where(is_code, np.float32(np.nan), values)
        return replace(self, values=values).with_notes(notes)


@dataclass(frozen=True, slots=True)
class Meta:
    """The metadata of a recording: its set, and its entry in `meta.json`."""

    set: str
    """The file's folder."""
    train_rows: int | None = None
    """Leading rows that are normal, and may be used for training."""
    interval_s: float | None = None


def read_meta(path: Path) -> Meta:
    """Read the entry of a file in `meta.json` beside it. A file without one has only a set. Raises BadRecording."""
    # The folder of the path as given: a link may point into a store of all recordings.
    file, folder = path.parent / "meta.json", path.parent.resolve().name
    if not file.is_file():
        return Meta(folder)
    try:
        whole = _object(json.loads(file.read_bytes()), "it")
        series = _object(_object(whole.get("series", {}), "series").get(stem(path), {}), stem(path))
        rows = _finite(series, "train_rows")
        step = _finite(series, "median_step_s") or _finite(whole, "sampling_interval_s")
    except (ValueError, OSError) as problem:
        raise BadRecording(f"{file}: {problem}; {_META_FORM}") from problem
    except RecursionError as problem:
        raise BadRecording(f"{file}: it is nested too deep; {_META_FORM}") from problem
    if rows is not None and not rows.is_integer():
        raise BadRecording(f"{file}: train_rows is {rows:g}, not a whole number")
    if step is not None and step <= 0:
        raise BadRecording(f"{file}: the interval is {step:g}; write the seconds from one row to the next, above 0")
    return Meta(folder, None if rows is None else int(rows), step)


def _object(value: Any, name: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError(f"{name} is {json.dumps(value)[:40]}, not an object")  # noqa: TRY004  # an error in the file
    return value


def _finite(fields: dict[str, Any], name: str) -> float | None:
    """Return the finite number of a field. None = the field is missing or null. Raises ValueError."""
    if (value := fields.get(name)) is None:
        return None
    try:
        number = float(value)
    except (ValueError, TypeError, OverflowError):
        number = math.nan
    if isinstance(value, bool) or not math.isfinite(number):
        raise ValueError(f"{name} is {json.dumps(value)[:40]}, not a finite number")
    return number


def as_records(recording: Recording, *, block: int = 256, partition: Partition | None = None) -> Iterator[RecordBatch]:
    """Yield the recording as MessagePack blocks, ordered by time, in batches like those of a Kafka partition.

    One asset: up to `block` readings in a record. Several assets: one reading in a record, in the order of time, as
    they would send. (`per_asset` and a partition for each is faster.) Readings without a single value are gaps, and are
    left out.
    """
    partition = partition or Partition(recording.name, 0)
    order = np.argsort(recording.ts_us, kind="stable")
    order = order[np.isfinite(recording.values[order]).any(axis=1)]
    max_readings = max(_MAX_BLOCK_BYTES // (4 * len(recording.sensors)), 1)
    step = 1 if len(recording.assets) > 1 else max(min(block, max_readings), 1)
    starts = range(0, len(order), step)
    for first in range(0, len(starts), _RECORDS_PER_BATCH):
        records = [order[start : start + step] for start in starts[first : first + _RECORDS_PER_BATCH]]
        yield _batch(recording, partition, first, records)


def _batch(recording: Recording, partition: Partition, first_offset: int, records: list[Int64]) -> RecordBatch:
    """Return a batch of records, each with the readings at its rows."""
    names = [recording.assets[recording.asset[rows[0]]] for rows in records]
    return RecordBatch(
        partition,
        np.arange(first_offset, first_offset + len(records), dtype=np.int64),
        np.array([max(int(recording.ts_us[rows[-1]]), -1) for rows in records], np.int64),
        [name.encode() for name in names],
        [
            block_msgpack(name, recording.ts_us[rows], recording.values[rows], recording.sensors)
            for name, rows in zip(names, records, strict=True)
        ],
    )


def asset_of_file(name: str) -> str:
    """Return the name of a file that names no asset, as the name of its asset."""
    name = "".join(sign if sign.isprintable() else "_" for sign in normal_name(name)).strip()[:MAX_NAME].strip()
    return name if name_problem(name) is None else "recording"


def stem(path: Path) -> str:
    """Return the file's name without its endings."""
    endings = r"(\.(csv|parquet|pq|txt|tsv|tab|dat|log|asc|lvm|prn))?(\.gz)?$"
    return re.sub(endings, "", path.name, flags=re.IGNORECASE) or path.name
