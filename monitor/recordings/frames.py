"""Tables in memory as recordings: NumPy arrays, and frames of pandas, polars, Arrow and their kin.

Input: an array, or a frame: anything with named columns. Output: a `Recording`, row by row as in the table.
Invariant: no frame library is imported or needed. A column that is neither time, asset nor numbers is an error.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from monitor.decode.formatting import quote, short_list
from monitor.decode.timestamps import parse_column_us
from monitor.errors import BadArgument
from monitor.recordings.names import ASSET_COLUMNS, TIME_COLUMNS, first_of
from monitor.recordings.recording import Recording

if TYPE_CHECKING:
    from collections.abc import Sequence

    from monitor.types import Float32, Int32, Int64

    Column = np.ndarray[Any, np.dtype[Any]]

NAME = "frame"
"""Name of the recording, and of its asset where no column names any."""
_MISSING = ("NoneType", "NAType", "NaTType")
"""Types of the objects that mean "missing" in a column of objects."""


@dataclass(frozen=True, slots=True)
class FrameColumns:
    """Roles of a frame's columns. None = recognised by their usual names and types."""

    time: str | None = None
    asset: str | None = None
    sensors: tuple[str, ...] | None = None
    """None = every other column."""


def read_frame(frame: object, columns: FrameColumns, interval_us: int | None) -> Recording:
    """Return the readings of a frame [rows]. `interval_us`: time between two rows, for a table without times.

    Raises BadArgument, which names the argument, the column and the fix.
    """
    named = _named_columns(frame, columns)
    if not named or not len(next(iter(named.values()))):
        raise BadArgument("the frame is empty: give at least one row and one column of numbers")
    n = len(next(iter(named.values())))
    time = columns.time or _time_column(named)
    asset = columns.asset or first_of(ASSET_COLUMNS, [name for name in named if name != time])
    for role, name in (("time", time), ("asset", asset), *(("sensors", each) for each in columns.sensors or ())):
        if name is not None and name not in named:
            raise BadArgument(f"{role}={quote(name)} is no column of the frame; it has {short_list(tuple(named), 20)}")
    if odd := next((name for name, column in named.items() if len(column) != n), None):
        raise BadArgument(f"column {quote(odd)} has {len(named[odd]):,} rows, and {quote(next(iter(named)))} has {n:,}")
    sensors = columns.sensors or tuple(name for name in named if name not in (time, asset))
    if not sensors:
        raise BadArgument(f"the frame has no column of numbers beside {short_list(tuple(named), 20)}")
    if time is not None:
        ts_us = _times(time, named[time])
    elif interval_us is not None:
        ts_us = np.arange(n, dtype=np.int64) * interval_us
    else:
        raise BadArgument('the frame has no times: name their column (time="…"), or give interval="10m" between rows')
    assets, number = _assets(named[asset]) if asset else ((NAME,), np.zeros(n, np.int32))
    notes: list[str] = []
    values = np.stack([_numbers(name, named[name], notes) for name in sensors], axis=1)
    return Recording(NAME, sensors, ts_us, values, assets, number, label=None, notes=tuple(notes))


# ---------------------------------------------------------------- a table → columns by name


def _named_columns(frame: object, columns: FrameColumns) -> dict[str, Column]:
    """Return the columns of a table, and the index of a pandas frame if it holds the times."""
    if isinstance(frame, np.ndarray | list | tuple):
        return _array_columns(np.asarray(frame), columns.sensors)
    table: Any = frame
    if hasattr(table, "to_frame") and not hasattr(table, "columns"):  # one column of pandas or polars
        table = table.to_frame()
    elif not hasattr(table, "columns") and not hasattr(table, "keys"):
        table = _arrow_table(table)
    if hasattr(table, "column_names"):  # of an Arrow table, whose `columns` are the columns themselves
        names = list(table.column_names)
    else:
        names = list(table.columns if hasattr(table, "columns") else table.keys())
    if twice := sorted({str(name) for name in names if names.count(name) > 1}):
        raise BadArgument(f"the frame has two columns {quote(twice[0])}; rename one of them")
    found = {str(name): _as_array(table[name]) for name in names}
    index = getattr(table, "index", None)
    if index is not None and not callable(index):
        name = str(getattr(index, "name", None) or "index")
        if name not in found and (name == columns.time or _as_array(index).dtype.kind == "M"):
            found = {name: _as_array(index), **found}
    return found


def _array_columns(array: Column, sensors: Sequence[str] | None) -> dict[str, Column]:
    values = array[:, None] if array.ndim == 1 else array
    if values.ndim != 2:
        raise BadArgument(f"the array has the shape {array.shape}; give [rows, sensors]")
    names = sensors or tuple(f"x{number}" for number in range(values.shape[1]))
    if len(names) != values.shape[1]:
        raise BadArgument(f"sensors names {len(names)} columns, and the array has {values.shape[1]}")
    return {name: values[:, number] for number, name in enumerate(names)}


def _arrow_table(frame: object) -> Any:
    """Read any other table, through Arrow's protocol or the dataframe interchange."""
    is_stream = hasattr(frame, "__arrow_c_stream__")
    if not is_stream and not hasattr(frame, "__dataframe__"):
        kinds = "a NumPy array [rows, sensors], a pandas or polars frame, an Arrow table, or a dict of columns"
        raise BadArgument(f"frame is of the type {type(frame).__name__}; give {kinds}")
    try:
        import pyarrow as pa
        import pyarrow.interchange as interchange
    except ImportError:
        raise BadArgument(
            f"a {type(frame).__name__} is read through Arrow: install pyarrow (extra `files`), or give a NumPy array"
        ) from None
    return pa.table(frame) if is_stream else interchange.from_dataframe(frame)


def _as_array(column: Any) -> Column:
    """Return a column as NumPy array. Times with a zone become UTC."""
    if "datetime" in str(getattr(column, "dtype", "")).lower() or "timestamp" in str(getattr(column, "type", "")):
        return np.asarray(column, dtype="datetime64[us]")
    return np.asarray(column.to_numpy() if hasattr(column, "to_numpy") else column)


# ---------------------------------------------------------------- the roles


def _time_column(named: dict[str, Column]) -> str | None:
    typed = [name for name, column in named.items() if column.dtype.kind == "M"]
    if len(typed) == 1:
        return typed[0]
    return first_of(TIME_COLUMNS, typed or list(named))


# ---------------------------------------------------------------- columns → times, assets, numbers


def _times(name: str, column: Column) -> Int64:
    if column.dtype.kind == "M":
        us, is_valid = column.astype("datetime64[us]").astype(np.int64), ~np.isnat(column)
    else:
        us, is_valid = parse_column_us(column.tolist())
    if not is_valid.all():
        row = int(np.argmin(is_valid))
        raise BadArgument(
            f"time={quote(name)}, row {row}: {quote(str(column[row]))} is no time; give datetimes, ISO 8601 texts or "
            "seconds since 1970, and leave out rows without a time"
        )
    return us


def _assets(column: Column) -> tuple[tuple[str, ...], Int32]:
    names, number = np.unique([str(name) for name in column.tolist()], return_inverse=True)
    return tuple(names.tolist()), number.astype(np.int32)


def _numbers(name: str, column: Column, notes: list[str]) -> Float32:
    """Return a column as float32, NaN where it is missing or too large for float32. `notes`: told of such values."""
    cells = column
    if column.dtype.kind == "O":
        written = [np.nan if type(cell).__name__ in _MISSING else cell for cell in column.tolist()]
        if not any(isinstance(cell, str) for cell in written):
            with suppress(TypeError, ValueError):
                cells = np.array(written, np.float64)
    if cells.dtype.kind not in "biuf":
        example = next((str(cell) for cell in column.tolist()), "")
        if _is_number(example):
            raise BadArgument(
                f"column {quote(name)} holds numbers as texts ({quote(example)}): convert them (pandas: pd.to_numeric)"
            )
        raise BadArgument(
            f"column {quote(name)} holds no numbers ({quote(example)}): list the columns to use (sensors=[…]), or say "
            f"that it names the machine (asset={quote(name)}) or the time (time={quote(name)})"
        )
    with np.errstate(over="ignore"):
        numbers = cells.astype(np.float32)
    is_infinite = np.isinf(numbers)
    numbers[is_infinite] = np.nan
    if n_infinite := int(is_infinite.sum()):
        notes.append(f"column {quote(name)}: {n_infinite:,} × infinite or too large for float32 is taken as missing")
    if np.isnan(numbers).all():
        notes.append(f"column {quote(name)} has no reading")
    return numbers


def _is_number(text: str) -> bool:
    try:
        return bool(np.isfinite(float(text)))
    except ValueError:
        return False
