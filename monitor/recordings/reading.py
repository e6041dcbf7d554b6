"""Chunks of columns → a recording: which column is what, and what its cells say.

The law: a column is a sensor if its cells are numbers or blank; it is left out (and listed in `left_out`) if none of
them is a number; one bad cell among numbers is an error that names file, column and row. Only a number too large for
float32 (a dead oil-well gauge reports -1.2e42) is taken as missing, and counted.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import numpy as np

from monitor.decode.formatting import quote, short_list
from monitor.decode.schema import ASSET_NAME
from monitor.decode.timestamps import parse_column_us
from monitor.errors import BadRecording, NotFound
from monitor.recordings.formats import open_table
from monitor.recordings.recording import Recording, stem

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from monitor.recordings.formats import Cells
    from monitor.types import Float32, Int32, Int64

TIME_COLUMNS: Final = ("timestamp", "ts", "datetime", "eventtime", "timestamputc", "datetimeutc", "time", "date")
ASSET_COLUMNS: Final = (
    *("asset", "assetid", "assetname", "machine", "machineid", "turbine", "turbineid", "turbinename"),
    *("windturbinename", "device", "deviceid", "equipment", "equipmentid", "well", "wellid"),
)
"""Compared without case, blanks, hyphens and underscores; the first that a file has is taken."""
BLANK: Final = frozenset(("", "nan", "na", "n/a", "null", "none", "-"))
_NUMBER: Final = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)(e[-+]?\d+)?", re.ASCII | re.IGNORECASE)
_YES, _NO = frozenset(("1", "true", "yes")), frozenset(("0", "false", "no"))


def read_recording(
    path: Path, *, asset: str | None = None, timestamp: str | None = None, label: str = "label"
) -> Recording:
    """Read a file. `asset`, `timestamp`, `label`: names of columns, where they cannot be told by their names.

    Raises NotFound, and BadRecording with the file, the column, the row and what to do.
    """
    if not path.is_file():
        raise NotFound(f"{path}: there is no such file")
    try:
        table = open_table(path)
        roles = _Roles.of(table.names, table.times, asset, timestamp, label)
        return _Builder(stem(path), roles).build(table.chunks)
    except BadRecording as problem:
        raise BadRecording(f"{path}: {problem.detail}") from problem


# ---------------------------------------------------------------- which column is what


@dataclass(frozen=True, slots=True)
class _Roles:
    time: str
    asset: str | None
    label: str | None
    others: tuple[str, ...]

    @classmethod
    def of(
        cls, names: Sequence[str], typed_times: Sequence[str], asset: str | None, timestamp: str | None, label: str
    ) -> _Roles:
        for option, wanted in (("timestamp", timestamp), ("asset", asset), ("label", label)):
            if wanted is not None and wanted not in names and wanted != "label":
                raise BadRecording(
                    f"there is no column {quote(wanted)} ({option}); there are {short_list(tuple(names), 20)}"
                )
        time = timestamp or _by_name(names, TIME_COLUMNS) or (typed_times[0] if len(typed_times) == 1 else None)
        if time is None:
            raise BadRecording(
                f"no column is called timestamp, ts, time, date or datetime, but {short_list(tuple(names), 20)}; "
                "say which one it is (timestamp)"
            )
        named = asset or _by_name([name for name in names if name != time], ASSET_COLUMNS)
        labels = label if label in names else None
        # pandas writes its row numbers under an empty name, or as "Unnamed: 0" when it wrote them before
        others = (n for n in names if n and n not in (time, named, labels) and not re.fullmatch(r"Unnamed: \d+", n))
        return cls(time, named, labels, tuple(others))


def _by_name(names: Sequence[str], known: Sequence[str]) -> str | None:
    plain = {re.sub(r"[ _-]", "", name).casefold(): name for name in reversed(names)}
    return next((plain[name] for name in known if name in plain), None)


# ---------------------------------------------------------------- chunks of columns → a recording


@dataclass(slots=True)
class _Sensor:
    """A column that may turn out to be a sensor."""

    parts: list[Float32] = field(default_factory=list)
    n_numbers: int = 0
    bad: tuple[int, str] | None = None
    """Row and text of the first cell that is no number."""


class _Builder:
    """Collects chunks; memory is that of the numbers, not of the texts."""

    def __init__(self, name: str, roles: _Roles) -> None:
        self._name = name
        self._roles = roles
        self._row = 2  # as a spreadsheet counts: the header is row 1
        self._times: list[Int64] = []
        self._assets: dict[str, int] = {}
        self._asset: list[Int32] = []
        self._n_too_large = 0
        self._label: list[NDArray[np.int8]] = []
        self._sensors = {name: _Sensor() for name in roles.others}

    def build(self, chunks: Iterator[Mapping[str, Cells]]) -> Recording:
        for chunk in chunks:
            self._add(chunk)
        if not self._times:
            raise BadRecording("there is a header, but no row")
        for name, sensor in self._sensors.items():
            if sensor.bad and sensor.n_numbers:
                row, text = sensor.bad
                raise BadRecording(
                    f"column {quote(name)}, row {row}: {quote(text)} is not a finite number; "
                    "leave the cell blank where the value is missing"
                )
        names = tuple(name for name, sensor in self._sensors.items() if sensor.bad is None)
        if not names:
            raise BadRecording(f"no column beside {quote(self._roles.time)} holds numbers")
        ts_us = np.concatenate(self._times)
        return Recording(
            self._name,
            names,
            ts_us,
            np.stack([np.concatenate(self._sensors[name].parts) for name in names], axis=1),
            tuple(self._assets) if self._roles.asset else (re.sub(r"[^A-Za-z0-9_.:/ -]", "_", self._name)[:128],),
            np.concatenate(self._asset) if self._roles.asset else np.zeros(len(ts_us), np.int32),
            np.concatenate(self._label) if self._roles.label else None,
            tuple(name for name in self._sensors if name not in names),
            self._n_too_large,
        )

    def _add(self, chunk: Mapping[str, Cells]) -> None:
        roles = self._roles
        self._times.append(self._read_times(chunk[roles.time]))
        if roles.asset:
            texts = _texts(chunk[roles.asset])
            numbers = [self._assets.setdefault(text, len(self._assets)) for text in texts]
            self._asset.append(np.array(numbers, np.int32))
            for text in set(texts):
                if ASSET_NAME.fullmatch(text) is None:
                    problem = "names no asset: 1 to 128 letters, digits, blanks or any of _ . : / -"
                    raise self._bad_cell(roles.asset, texts.index(text), text, problem)
        if roles.label:
            self._label.append(self._read_labels(roles.label, _texts(chunk[roles.label])))
        for name, sensor in self._sensors.items():
            self._read_numbers(sensor, chunk[name])
        self._row += len(self._times[-1])

    def _read_times(self, cells: Cells) -> Int64:
        if isinstance(cells, np.ndarray) and cells.dtype.kind == "M":
            us, ok = cells.astype("datetime64[us]").astype(np.int64), ~np.isnat(cells)
        else:
            written = cells.tolist() if isinstance(cells, np.ndarray) else _numbers_if_any(_texts(cells))
            us, ok = parse_column_us(written)
        if not ok.all():
            at = int(np.argmin(ok))
            raise self._bad_cell(
                self._roles.time, at, str(cells[at]), "is no time; write 2015-07-27T10:30:00Z or seconds"
            )
        return us

    def _read_labels(self, column: str, texts: list[str]) -> NDArray[np.int8]:
        labels = np.zeros(len(texts), np.int8)
        for at, text in enumerate(texts):
            plain = text.casefold().removesuffix(".0")
            if plain in _YES:
                labels[at] = 1
            elif plain not in _NO and plain not in BLANK:
                raise self._bad_cell(column, at, text, "is no label; write 1 for a fault, 0 for normal")
        return labels

    def _read_numbers(self, sensor: _Sensor, cells: Cells) -> None:
        n = len(cells)
        if isinstance(cells, np.ndarray):
            numbers = cells if cells.dtype.kind == "f" else np.full(n, np.nan)
            bad = np.flatnonzero(np.isinf(numbers)) if cells.dtype.kind == "f" else np.arange(n)
        else:
            try:
                numbers = np.fromiter(map(float, cells), np.float64, n)  # type: ignore[arg-type]  # None: see below
            except (ValueError, TypeError):
                numbers = np.array([_number(text) for text in _texts(cells)], np.float64)
            bad = np.flatnonzero(np.isinf(numbers))
        with np.errstate(over="ignore"):
            column = numbers.astype(np.float32)
        too_large = np.isinf(column) & np.isfinite(numbers)
        column[too_large] = np.nan
        self._n_too_large += int(too_large.sum())
        sensor.n_numbers += int(np.isfinite(column).sum())
        if len(bad) and sensor.bad is None:
            sensor.bad = (self._row + int(bad[0]), str(cells[int(bad[0])]))
        sensor.parts.append(column)

    def _bad_cell(self, column: str, at: int, text: str, problem: str) -> BadRecording:
        return BadRecording(f"column {quote(column)}, row {self._row + at}: {quote(text)} {problem}")


def _texts(cells: Cells) -> list[str]:
    if isinstance(cells, np.ndarray):
        return [
            "" if cell != cell else str(int(cell)) if float(cell).is_integer() else str(cell) for cell in cells.tolist()
        ]
    return ["" if cell is None else cell.strip() for cell in cells]


def _number(text: str) -> float:
    """The cell's number; NaN if it is blank, infinity if it is none."""
    if text.casefold() in BLANK:
        return np.nan
    try:
        return float(text)
    except ValueError:
        return np.inf


def _numbers_if_any(texts: list[str]) -> Sequence[object]:
    """Times written as numbers, as numbers; the rest as it is."""
    for number in (int, float):
        try:
            return list(map(number, texts))
        except ValueError:
            continue
    return [float(text) if _NUMBER.fullmatch(text) else text for text in texts]
