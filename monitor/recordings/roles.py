"""The role of each column of a file: time, asset, label, sensor.

Input: the names of the columns, and some cells of each. Output: `Roles`. Invariant: a role that was not named by the
operator or found by a usual name is told.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from monitor.decode.formatting import quote, short_list
from monitor.errors import BadRecording
from monitor.recordings.layout import kind_of
from monitor.recordings.names import (
    ASSET_COLUMNS,
    CLOCK_COLUMNS,
    SENSOR_COLUMNS,
    TIME_COLUMNS,
    VALUE_COLUMNS,
    first_of,
    plain_name,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from monitor.recordings.formats import OpenFile
    from monitor.recordings.options import FileOptions


@dataclass(frozen=True, slots=True)
class Roles:
    """Names of columns."""

    time: tuple[str, ...]
    """One column, or a column of dates, one of clock times, and perhaps one of AM and PM, whose texts are joined.
    Empty = rows are a fixed step apart."""
    asset: str | None
    label: str | None
    sensor: str | None
    """Long format: the column that names the sensor. None = each sensor has a column."""
    sensors: tuple[str, ...]
    """Columns that may be sensors. Long format: the column of the values."""
    others: tuple[str, ...] = ()
    """Long format: columns that are not used."""
    notes: list[str] = field(default_factory=list)


def find_roles(file: OpenFile, options: FileOptions, interval_s: float | None) -> Roles:
    """Return the role of each column. `interval_s`: step of the rows of a file without times. Raises BadRecording."""
    _check_names(file.names, options)
    notes: list[str] = []
    time = _time_columns(file, options, interval_s, notes)
    if (half := _half_beside(file, time)) is not None:
        time = (*time, half)
        notes.append(f"column {quote(half)} holds the half of the day (AM, PM) of its times")
    rest = [name for name in file.names if name not in time]
    label = options.label if options.label in rest else None
    rest = [name for name in rest if name != label]
    sensor, value = _long_columns(file, rest, options, notes)
    asset = options.asset or first_of(ASSET_COLUMNS, [name for name in rest if name not in (sensor, value)])
    if options.asset is None and asset is not None and asset == first_of(ASSET_COLUMNS, rest):
        notes.append(f"column {quote(asset)} names the assets")
    # pandas writes its row numbers under an empty name, or as "Unnamed: 0" when it wrote them before
    rest = [name for name in rest if name and name != asset and not re.fullmatch(r"Unnamed: \d+", name)]
    if sensor is not None and value is not None:
        others = tuple(name for name in rest if name not in (sensor, value))
        return Roles(time, asset, label, sensor, (value,), others, notes)
    return Roles(time, asset, label, None, tuple(rest), (), notes)


def _check_names(names: Sequence[str], options: FileOptions) -> None:
    wanted = {
        "--asset-column": options.asset,
        "--label-column": None if options.label == "label" else options.label,
        "--sensor-column": options.sensor,
        "--value-column": options.value,
    }
    if options.timestamp is not None and options.timestamp not in names:
        wanted |= {"--time-column": options.timestamp}
        parts = options.timestamp.split("+")
        if len(parts) > 1 and all(part in names for part in parts):
            del wanted["--time-column"]
    for option, name in wanted.items():
        if name is not None and name not in names:
            raise BadRecording(f"there is no column {quote(name)} ({option}); there are {short_list(tuple(names), 20)}")


# ---------------------------------------------------------------- the time


def _time_columns(
    file: OpenFile, options: FileOptions, interval_s: float | None, notes: list[str]
) -> tuple[str, ...]:
    names, named = file.names, options.timestamp
    if named is not None:
        return (named,) if named in names else tuple(named.split("+"))
    declared = file.time_columns[0] if len(file.time_columns) == 1 else None
    time = first_of(TIME_COLUMNS, names) or declared
    found = [name for name, cells in file.sample.items() if _share(cells, "t") > 0.9 and not _are_clocks(cells)]
    is_in_doubt = time is not None and options.time_format == "auto" and not _may_be_times(file.sample.get(time, ()))
    if is_in_doubt and (found or interval_s is not None):
        time = None
    if time is not None and _are_clocks(file.sample.get(time, ())):  # the dates stand in another column
        dates = [name for name in names if name != time and _clock_beside(file, name) == time]
        time = first_of(TIME_COLUMNS, dates) or (dates[0] if len(dates) == 1 else time)
    if time is not None:
        clock = _clock_beside(file, time)
        if clock is not None:
            notes.append(f"its times are the columns {quote(time)} and {quote(clock)} together")
            return time, clock
        return (time,)
    if len(found) == 1:
        clock = _clock_beside(file, found[0])
        notes.append(f"its times are in column {quote(found[0])}" + (f" and {quote(clock)}" if clock else ""))
        return (found[0], clock) if clock else (found[0],)
    if interval_s is not None:
        return ()
    known = short_list(tuple(name for name in names if name), 20)
    if found:
        raise BadRecording(f"several columns hold times: {short_list(tuple(found))}; say which one: --time-column NAME")
    raise BadRecording(
        f"no column is called timestamp, ts, time, date or datetime, but {known}; say which one it is with "
        "--time-column NAME, or give the time from one row to the next with --interval 10s"
    )


def _clock_beside(file: OpenFile, dates: str) -> str | None:
    """Return the column of clock times that belongs to a column of dates without clock times."""
    cells = [text for text in file.sample.get(dates, ()) if kind_of(text) != "b"]
    if not cells or any(":" in text or (kind_of(text) == "n" and len(text) != 8) for text in cells):
        return None
    clocks = [name for name, texts in file.sample.items() if name != dates and _are_clocks(texts)]
    usual = [name for name in clocks if plain_name(name) in CLOCK_COLUMNS]
    found = usual or clocks
    return found[0] if len(found) == 1 else None


def _half_beside(file: OpenFile, time: Sequence[str]) -> str | None:
    """Return the column of AM and PM that belongs to columns of times without them."""
    if not time or not any(re.search(r":\d\d\s*$", text) for text in file.sample.get(time[-1], ())):
        return None
    for name, cells in file.sample.items():
        filled = [text for text in cells if text]
        if name not in time and filled and all(re.fullmatch(r"[ap]\.?m\.?", text, re.IGNORECASE) for text in filled):
            return name
    return None


def _are_clocks(cells: Sequence[str]) -> bool:
    filled = [text for text in cells if kind_of(text) != "b"]
    form = r"\d{1,2}:\d\d(:\d\d([.,]\d+)?)?( ?[AaPp][Mm])?"
    return bool(filled) and all(re.fullmatch(form, text) for text in filled)


def _may_be_times(cells: Sequence[str]) -> bool:
    return _share(cells, "tn") > 0.5 or not any(cells)


def _share(cells: Sequence[str], kinds: str) -> float:
    filled = [kind for kind in map(kind_of, cells) if kind != "b"]
    return sum(kind in kinds for kind in filled) / len(filled) if filled else 0.0


# ---------------------------------------------------------------- long format


def _long_columns(
    file: OpenFile, names: Sequence[str], options: FileOptions, notes: list[str]
) -> tuple[str | None, str | None]:
    """Return the column that names the sensor of each row, and that of its value. None = one column per sensor."""
    free = [name for name in names if name not in (options.asset, options.sensor)]
    value, sensor = options.value or first_of(VALUE_COLUMNS, free), options.sensor
    if sensor is None and (value is None or (options.asset is not None and options.value is None)):
        return None, None
    if sensor is None:
        texts = [name for name in names if name not in (value, options.asset) and _repeats(file.sample.get(name, ()))]
        sensor = first_of(SENSOR_COLUMNS, texts)
        numbers = [name for name in names if name != sensor and _share(file.sample.get(name, ()), "n") > 0.5]
        others = [name for name in numbers if name != value and plain_name(name) not in _BOOKKEEPING]
        if sensor is None or (others and options.value is None):
            return None, None
    if value is None:
        numbers = [name for name in names if name != sensor and _share(file.sample.get(name, ()), "n") > 0.5]
        if len(numbers) != 1:
            raise BadRecording(
                f"say which column holds the values of {quote(sensor)}: --value-column NAME (there are "
                f"{short_list(tuple(name for name in names if name != sensor), 20)})"
            )
        value = numbers[0]
    notes.append(f"long format: column {quote(sensor)} names the sensor of each row, {quote(value)} holds its value")
    return sensor, value


_BOOKKEEPING = frozenset(
    ("table", "id", "entryid", "rowid", "quality", "qualitycode", "validity", "intquality", "result")
)
"""Columns of numbers that stand beside the value in long format."""


def _repeats(cells: Sequence[str]) -> bool:
    """Return whether the cells are texts. Whether they repeat shows only in the whole file."""
    return _share(cells, "x") > 0.9
