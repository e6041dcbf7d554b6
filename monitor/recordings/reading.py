"""Chunks of columns → a recording: the role of each column, and the values of its cells.

Input: an opened file. Output: a `Recording`, or BadRecording with file, column and row. Invariant: a column is a sensor
if its cells are numbers or blank. It is left out, and listed in `left_out`, if none of its cells is a number. One bad
cell among numbers is an error. Only a number too large for float32 is counted and taken as missing: a dead gauge of an
oil well reports -1.2e42.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import numpy as np

from monitor.decode.formatting import quote, short_list
from monitor.decode.timestamps import parse_column_us
from monitor.errors import BadRecording, NotFound
from monitor.printable import MAX_NAME, name_problem, normal_name
from monitor.recordings.formats import open_file
from monitor.recordings.recording import Recording, stem

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from monitor.recordings.formats import Cells, OpenFile
    from monitor.types import Float32, Int32, Int64

TIME_COLUMNS: Final = ("timestamp", "ts", "datetime", "eventtime", "timestamputc", "datetimeutc", "time", "date")
ASSET_COLUMNS: Final = (
    *("asset", "assetid", "assetname", "machine", "machineid", "turbine", "turbineid", "turbinename"),
    *("windturbinename", "device", "deviceid", "equipment", "equipmentid", "well", "wellid"),
)
"""Compared without case, blanks, hyphens and underscores. The first name that a file has is used."""
BLANK: Final = frozenset(("", "nan", "na", "n/a", "null", "none", "-"))
_NUMBER: Final = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)(e[-+]?\d+)?", re.ASCII | re.IGNORECASE)
_YES, _NO = frozenset(("1", "true", "yes")), frozenset(("0", "false", "no"))


def read_recording(
    path: Path, *, asset: str | None = None, timestamp: str | None = None, label: str = "label"
) -> Recording:
    """Read a file. `asset`, `timestamp`, `label`: names of columns that have none of the usual names.

    Raises NotFound, and BadRecording with the file, the column, the row and the fix.
    """
    if not path.is_file():
        raise NotFound(f"{path}: there is no such file")
    try:
        file = open_file(path)
        roles = _find_roles(file, {"timestamp": timestamp, "asset": asset, "label": label})
        return _Builder(stem(path), roles).build(file.chunks)
    except BadRecording as problem:
        raise BadRecording(f"{path}: {problem.detail}") from problem


# ---------------------------------------------------------------- the roles of the columns


@dataclass(frozen=True, slots=True)
class _Roles:
    """Names of columns."""

    time: str
    asset: str | None
    label: str | None
    sensors: tuple[str, ...]
    """Columns that may be sensors."""


def _find_roles(file: OpenFile, wanted: Mapping[str, str | None]) -> _Roles:
    """Return the role of each column. `wanted`: option → the column's name, None = by its usual names."""
    names, known = file.names, short_list(tuple(file.names), 20)
    for option, name in wanted.items():
        if name is not None and name not in names and name != "label":
            raise BadRecording(f"there is no column {quote(name)} ({option}); there are {known}")
    declared = file.time_columns[0] if len(file.time_columns) == 1 else None
    time = wanted["timestamp"] or _first_of(TIME_COLUMNS, names) or declared
    if time is None:
        raise BadRecording(
            f"no column is called timestamp, ts, time, date or datetime, but {known}; say which one it is (timestamp)"
        )
    asset = wanted["asset"] or _first_of(ASSET_COLUMNS, [name for name in names if name != time])
    label = wanted["label"] if wanted["label"] in names else None
    # pandas writes its row numbers under an empty name, or as "Unnamed: 0" when it wrote them before
    sensors = (n for n in names if n and n not in (time, asset, label) and not re.fullmatch(r"Unnamed: \d+", n))
    return _Roles(time, asset, label, tuple(sensors))


def _first_of(usual: Sequence[str], names: Sequence[str]) -> str | None:
    """Return the column with the first of the usual names that a column has."""
    plain = {re.sub(r"[ _-]", "", name).casefold(): name for name in reversed(names)}
    return next((plain[name] for name in usual if name in plain), None)


# ---------------------------------------------------------------- chunks of columns → a recording


@dataclass(slots=True)
class _Candidate:
    """A column that may be a sensor."""

    parts: list[Float32] = field(default_factory=list)
    n_numbers: int = 0
    bad: tuple[int, str] | None = None
    """Row and text of the first cell that is not a number."""


class _Builder:
    """Builds a recording from chunks. The memory is that of the numbers, not of the texts."""

    def __init__(self, name: str, roles: _Roles) -> None:
        self._name = name
        self._roles = roles
        self._row = 2  # as a spreadsheet counts: the header is row 1
        self._times: list[Int64] = []
        self._assets: dict[str, int] = {}
        self._asset: list[Int32] = []
        self._n_too_large = 0
        self._label: list[NDArray[np.int8]] = []
        self._candidates = {name: _Candidate() for name in roles.sensors}

    def build(self, chunks: Iterator[Mapping[str, Cells]]) -> Recording:
        for chunk in chunks:
            self._add(chunk)
        if not self._times:
            raise BadRecording("there is a header, but no row")
        names = self._sensors()
        ts_us = np.concatenate(self._times)
        assets: tuple[str, ...] = tuple(self._assets)
        if not self._roles.asset:
            assets, self._asset = (_asset_of_file(self._name),), [np.zeros(len(ts_us), np.int32)]
        return Recording(
            self._name,
            names,
            ts_us,
            np.stack([np.concatenate(self._candidates[name].parts) for name in names], axis=1),
            assets,
            np.concatenate(self._asset),
            np.concatenate(self._label) if self._roles.label else None,
            tuple(name for name in self._candidates if name not in names),
            self._n_too_large,
        )

    def _sensors(self) -> tuple[str, ...]:
        """Return the names of the columns that are sensors."""
        for name, candidate in self._candidates.items():
            if candidate.bad and candidate.n_numbers:
                row, text = candidate.bad
                raise BadRecording(
                    f"column {quote(name)}, row {row}: {quote(text)} is not a finite number; "
                    "leave the cell blank where the value is missing"
                )
        names = tuple(name for name, candidate in self._candidates.items() if candidate.bad is None)
        if not names:
            raise BadRecording(f"no column beside {quote(self._roles.time)} holds numbers")
        return names

    def _add(self, chunk: Mapping[str, Cells]) -> None:
        roles = self._roles
        self._times.append(self._read_times(chunk[roles.time]))
        if roles.asset:
            self._asset.append(self._read_assets(roles.asset, _texts(chunk[roles.asset])))
        if roles.label:
            self._label.append(self._read_labels(roles.label, _texts(chunk[roles.label])))
        for name, candidate in self._candidates.items():
            self._read_numbers(candidate, chunk[name])
        self._row += len(self._times[-1])

    def _read_times(self, cells: Cells) -> Int64:
        if isinstance(cells, np.ndarray) and cells.dtype.kind == "M":
            us, is_valid = cells.astype("datetime64[us]").astype(np.int64), ~np.isnat(cells)
        else:
            written = cells.tolist() if isinstance(cells, np.ndarray) else _numbers_where_possible(_texts(cells))
            us, is_valid = parse_column_us(written)
        if not is_valid.all():
            at = int(np.argmin(is_valid))
            problem = "is no time; write 2015-07-27T10:30:00Z or seconds"
            raise self._bad_cell(self._roles.time, at, str(cells[at]), problem)
        return us

    def _read_assets(self, column: str, texts: list[str]) -> Int32:
        for text in set(texts):
            if (problem := name_problem(normal_name(text))) is not None:
                raise self._bad_cell(column, texts.index(text), text, f"names no asset: it {problem}")
        return np.array([self._assets.setdefault(normal_name(text), len(self._assets)) for text in texts], np.int32)

    def _read_labels(self, column: str, texts: list[str]) -> NDArray[np.int8]:
        labels = np.zeros(len(texts), np.int8)
        for at, text in enumerate(texts):
            plain = text.casefold().removesuffix(".0")
            if plain in _YES:
                labels[at] = 1
            elif plain not in _NO and plain not in BLANK:
                raise self._bad_cell(column, at, text, "is no label; write 1 for a fault, 0 for normal")
        return labels

    def _read_numbers(self, candidate: _Candidate, cells: Cells) -> None:
        n = len(cells)
        if isinstance(cells, np.ndarray):
            numbers = cells if cells.dtype.kind == "f" else np.full(n, np.nan)
            bad = np.flatnonzero(np.isinf(numbers)) if cells.dtype.kind == "f" else np.arange(n)
        else:
            try:
                numbers = np.fromiter(map(float, cells), np.float64, n)  # type: ignore[arg-type]  # None: see below
            except (ValueError, TypeError):
                numbers = np.array([_parse_number(text) for text in _texts(cells)], np.float64)
            bad = np.flatnonzero(np.isinf(numbers))
        with np.errstate(over="ignore"):
            column = numbers.astype(np.float32)
        too_large = np.isinf(column) & np.isfinite(numbers)
        column[too_large] = np.nan
        self._n_too_large += int(too_large.sum())
        candidate.n_numbers += int(np.isfinite(column).sum())
        if len(bad) and candidate.bad is None:
            candidate.bad = (self._row + int(bad[0]), str(cells[int(bad[0])]))
        candidate.parts.append(column)

    def _bad_cell(self, column: str, at: int, text: str, problem: str) -> BadRecording:
        return BadRecording(f"column {quote(column)}, row {self._row + at}: {quote(text)} {problem}")


def _asset_of_file(name: str) -> str:
    """Return the name of a file that names no asset, as the name of its asset."""
    name = "".join(sign if sign.isprintable() else "_" for sign in normal_name(name)).strip()[:MAX_NAME].strip()
    return name if name_problem(name) is None else "recording"


def _texts(cells: Cells) -> list[str]:
    if isinstance(cells, np.ndarray):
        return [_text_of_number(cell) for cell in cells.tolist()]
    return ["" if cell is None else cell.strip() for cell in cells]


def _text_of_number(number: float) -> str:
    if number != number:
        return ""
    return str(int(number)) if float(number).is_integer() else str(number)


def _parse_number(text: str) -> float:
    """Return the cell's number: NaN where it is blank, infinity where it is not a number."""
    if text.casefold() in BLANK:
        return np.nan
    try:
        return float(text)
    except ValueError:
        return np.inf


def _numbers_where_possible(texts: list[str]) -> Sequence[object]:
    """Turn the times that are written as numbers into numbers, and leave the others as they are."""
    for number in (int, float):
        try:
            return list(map(number, texts))
        except ValueError:
            continue
    return [float(text) if _NUMBER.fullmatch(text) else text for text in texts]
