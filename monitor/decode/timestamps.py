"""Event times as producers write them → integer microseconds since 1970 UTC.

Input: a text, a number, or MessagePack's timestamp type. Output: microseconds within the years 1 to 9999. Invariants:
`parse_us` defines the result, and `parse_column_us` gives the same for a whole column, some twenty times faster. A
result is a function of the value alone: what can be read in two ways is refused, with the `time_format` that decides.

The size of a number tells its unit. It is seconds below 1e11, then milliseconds, from 1e14 microseconds and from 1e17
nanoseconds. Seconds are understood until the year 5138. A whole number of 12 or 14 digits that is a date of the years
1970 to 2100 is that date (as milliseconds it would be 1976, or after 2590). One of 8 or 10 digits is refused: it could
be a day of 1970, or seconds after 2032.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

import numpy as np

from monitor.decode.time_texts import CLEAR, COMPACT, DAY_FIRST, EPOCH, MONTH_FIRST, read_column, read_text
from monitor.decode.zones import zone_of

if TYPE_CHECKING:
    import re
    from collections.abc import Callable, Sequence

    from monitor.decode.zones import Zone
    from monitor.types import Bool, Int64

    Column = tuple[Int64, Bool]
    """Microseconds [N], and whether each is a time. An invalid one is 0."""

MIN_US: Final = -62_135_596_800_000_000
"""Start of the year 1."""
MAX_US: Final = 253_402_300_799_999_999
"""End of the year 9999."""
FORMATS: Final = ("auto", "iso", "s", "ms", "us", "ns", "day-first", "month-first", "excel", "compact")

_MICROSECOND = timedelta(microseconds=1)
_SECONDS_BELOW, _MILLISECONDS_BELOW, _MICROSECONDS_BELOW = 10**11, 10**14, 10**17
_OUTSIDE = "lies outside the years 1 to 9999"
_NO_TIME = "is not an ISO 8601 time; write it like 2015-07-27T10:30:00Z, or send seconds since 1970"
_COMPACT_RANGES: Final = (
    (19700101, 21001231), (1970010100, 2100123123), (197001010000, 210012312359), (19700101000000, 21001231235959)
)  # fmt: skip
"""Dates of 8, 10, 12 and 14 digits as numbers. Between them lie the seconds of today, and the milliseconds."""
_LONGEST_TEXT: Final = 64
_EXCEL_DAY_OF_1970: Final = 25_569
_DAY_US: Final = 86_400_000_000


def parse_us(value: object, zone: Zone | None = None) -> int:
    """Return the microseconds since 1970 of one time. `zone`: the zone of local times. None = UTC.

    Raises ValueError. Its message completes the sentence "this value …" and says how to write a time, or which
    `time_format` reads it.
    """
    if type(value) is int:
        us = _int_us(value, zone)
    elif type(value) is float:
        us = _float_us(value, zone)
    elif isinstance(value, str):
        us = _text_us(value, zone)
    elif isinstance(value, datetime):  # MessagePack's own timestamp type
        us = _datetime_us(value, zone)
    else:
        raise ValueError("is not a time; send seconds since 1970 or an ISO 8601 text")
    return _checked(us)


def _checked(us: int) -> int:
    if not MIN_US <= us <= MAX_US:
        raise ValueError(_OUTSIDE)
    return us


def format_of(value: object) -> str:
    """Return the name of the format by which `parse_us` reads a time: iso, s, ms, us, ns or compact."""
    if isinstance(value, str) and (number := _number_of(value)) is not None:
        value = number
    if not isinstance(value, (int, float)):
        return "iso"
    if _is_compact(value):
        return "compact"
    size = abs(value)
    limits = {"s": _SECONDS_BELOW, "ms": _MILLISECONDS_BELOW, "us": _MICROSECONDS_BELOW}
    return next((name for name, limit in limits.items() if size < limit), "ns")


def _int_us(value: int, zone: Zone | None = None) -> int:
    if value >= 19700101 and _is_compact(value):
        return _compact_number_us(value, zone)
    size = abs(value)
    if size < _SECONDS_BELOW:
        return value * 1_000_000
    if size < _MILLISECONDS_BELOW:
        return value * 1_000
    if size < _MICROSECONDS_BELOW:
        return value
    return (value + 500) // 1_000


def _float_us(value: float, zone: Zone | None = None) -> int:
    size = abs(value)
    if not size < 1e300:
        raise ValueError("is not a finite number")
    if value >= 19700101 and _is_compact(value):
        return _compact_number_us(int(value), zone)
    if size < _SECONDS_BELOW:
        return round(value * 1e6)
    if size < _MILLISECONDS_BELOW:
        return round(value * 1e3)
    if size < _MICROSECONDS_BELOW:
        return round(value)
    return round(value / 1e3)


def _is_compact(value: float) -> bool:
    """Return whether a number is a date of the years 1970 to 2100: YYYYMMDD, perhaps with hours, minutes, seconds."""
    in_range = any(low <= value <= high for low, high in _COMPACT_RANGES)
    return in_range and value == int(value) and read_text(str(int(value)), COMPACT) is not None


def _compact_number_us(value: int, zone: Zone | None) -> int:
    if value > _COMPACT_RANGES[1][1]:
        return _local_us(str(value), COMPACT, zone)
    raise ValueError(
        'can be a date or seconds since 1970; set time_format = "compact" for a date like 20150727 or 2015072710, or '
        'time_format = "s"'
    )


def _text_us(value: str, zone: Zone | None = None) -> int:
    text = value.strip()
    if len(text) > _LONGEST_TEXT:
        raise ValueError(_NO_TIME)
    if (number := _number_of(text)) is not None:
        if len(text) == 8 and _is_compact(number):  # ISO 8601 has it as a day
            return _local_us(text, COMPACT, zone)
        if abs(number) < 10**8:
            raise ValueError('is too short for a time; set time_format = "s" if it is seconds since 1970')
        return _int_us(number, zone) if type(number) is int else _float_us(number, zone)
    try:
        written = datetime.fromisoformat(text)
    except ValueError:
        return _local_us(text, CLEAR, zone)
    return _datetime_us(written, zone)


def _number_of(text: str) -> int | float | None:
    """Return the number that a text is, also with a decimal comma. None = it is no number of plain digits."""
    plain = text[1:] if text[:1] in ("-", "+") else text
    if not plain.isascii() or not plain[:1].isdigit() or len(plain) > _LONGEST_TEXT:
        return None
    if plain.isdigit():
        return int(text)
    whole, _, decimals = plain.replace(",", ".").partition(".")
    return float(text.replace(",", ".")) if whole.isdigit() and decimals.isdigit() else None


def _local_us(text: str, layouts: Sequence[re.Pattern[str]], zone: Zone | None) -> int:
    """Read a text by the layouts. Raises ValueError."""
    found = read_text(text, layouts)
    if found is None:
        if layouts is CLEAR and text[2:3] == "-" and not text[6:10].isdigit():
            raise ValueError("has a year of two digits at an unknown place; write it like 2015-07-27T10:30:00Z")
        is_day, is_month = (layouts is CLEAR and read_text(text, each) is not None for each in (DAY_FIRST, MONTH_FIRST))
        if is_day and is_month:
            raise ValueError(
                'has day and month in an unknown order; set time_format = "day-first" (27.07.2015) or '
                '"month-first" (07/27/2015)'
            )
        if is_day or is_month:
            name, like = ("day-first", "27.07.2015") if is_day else ("month-first", "07/27/2015")
            raise ValueError(f'is written like {like}; set time_format = "{name}"')
        raise ValueError(_NO_TIME)
    return found.us if found.has_zone or zone is None else zone.utc_us(found.us)


def _datetime_us(value: datetime, zone: Zone | None = None) -> int:
    if value.tzinfo is not None:
        return (value - EPOCH) // _MICROSECOND
    us = (value.replace(tzinfo=UTC) - EPOCH) // _MICROSECOND
    return us if zone is None else zone.utc_us(us)


def iso_text(us: int) -> str:
    """Return the time as ISO 8601 in UTC, with as many decimals as it needs."""
    text = (EPOCH + timedelta(microseconds=us)).isoformat().removesuffix("+00:00")
    return (text.rstrip("0") if "." in text else text) + "Z"


# ---------------------------------------------------------------- whole columns


def parse_column_us(values: Sequence[object], zone: Zone | None = None) -> Column:
    """Return the microseconds [N] of a column of times, and whether each is a valid time [N].

    An invalid time is 0. `zone`: the zone of local times. None = UTC.
    """
    n = len(values)
    types = set(map(type, values))
    if types == {float}:
        return _float_column(np.fromiter(values, np.float64, n), zone)
    if types == {int}:
        try:
            return _int_column(np.fromiter(values, np.int64, n), zone)
        except OverflowError:  # some number needs more than 64 bits
            return _one_by_one(values, lambda value: parse_us(value, zone))
    if types == {str}:
        return _text_column(values, CLEAR, zone, lambda value: parse_us(value, zone))  # type: ignore[arg-type]
    return _one_by_one(values, lambda value: parse_us(value, zone))


def _one_by_one(values: Sequence[object], parse: Callable[[object], int]) -> Column:
    us, is_valid = np.zeros(len(values), np.int64), np.ones(len(values), np.bool_)
    for i, value in enumerate(values):
        try:
            us[i] = parse(value)
        except ValueError:
            is_valid[i] = False
    return us, is_valid


def _in_range(us: Int64, is_valid: Bool) -> Column:
    is_valid = is_valid & (us >= MIN_US) & (us <= MAX_US)
    return np.where(is_valid, us, 0), is_valid


Numbers = np.ndarray[tuple[int], np.dtype[np.float64]]


def _float_column(values: Numbers, zone: Zone | None) -> Column:
    size = np.abs(values)
    is_valid = size < 1e21  # beyond: NaN, infinity, or far outside the years 1 to 9999 in any unit
    may_be_dates = _may_be_compact(values)
    if is_valid.all() and not may_be_dates and size.max(initial=0) < _SECONDS_BELOW:
        return _in_range(np.rint(values * 1e6).astype(np.int64), is_valid)
    values = np.where(is_valid, values, 0.0)
    scaled = [values * 1e6, values * 1e3, values]
    units = [size < _SECONDS_BELOW, size < _MILLISECONDS_BELOW, size < _MICROSECONDS_BELOW]
    us = np.rint(np.select(units, scaled, values / 1e3)).astype(np.int64)
    return _with_dates(values, us, is_valid, zone) if may_be_dates else _in_range(us, is_valid)


def _int_column(values: Int64, zone: Zone | None) -> Column:
    is_valid = np.ones(len(values), np.bool_)

    def is_below(limit: int) -> Bool:
        return (values > -limit) & (values < limit)  # not abs(): -2^63 has none

    may_be_dates = _may_be_compact(values)
    if is_below(_SECONDS_BELOW).all() and not may_be_dates:
        return _in_range(values * 1_000_000, is_valid)
    units = [is_below(_SECONDS_BELOW), is_below(_MILLISECONDS_BELOW), is_below(_MICROSECONDS_BELOW)]
    from_nanoseconds = values // 1_000 + (values % 1_000 >= 500)  # not values + 500: it could overflow
    us = np.select(units, [values * 1_000_000, values * 1_000, values], from_nanoseconds)
    return _with_dates(values, us, is_valid, zone) if may_be_dates else _in_range(us, is_valid)


def _may_be_compact(values: Int64 | Numbers) -> bool:
    """Return whether the values reach into a range of dates written as numbers."""
    if not len(values):
        return False
    least, most = values.min(), values.max()
    return any(least <= high and most >= low for low, high in _COMPACT_RANGES) or least != least


def _with_dates(values: Int64 | Numbers, us: Int64, is_valid: Bool, zone: Zone | None) -> Column:
    """Replace the results of the numbers in a range of dates by those of `parse_us`."""
    us, is_valid = _in_range(us, is_valid)
    in_range = np.any([(values >= low) & (values <= high) for low, high in _COMPACT_RANGES], axis=0)
    rows = np.flatnonzero(in_range)
    us[rows], is_valid[rows] = _one_by_one(values[rows].tolist(), lambda value: parse_us(value, zone))
    return us, is_valid


def _text_column(
    values: Sequence[str], layouts: Sequence[re.Pattern[str]], zone: Zone | None, parse: Callable[[object], int]
) -> Column:
    """Parse texts of one common layout together, any others one by one."""
    found = read_column(values, layouts)
    if found is None:
        return _one_by_one(values, parse)
    us, is_valid, has_zone = found
    if zone is not None and not has_zone:
        us, exists = zone.utc_column_us(us)
        is_valid &= exists
    return _in_range(us, is_valid)


# ---------------------------------------------------------------- named formats


class TimeParser:
    """Parses times of one format and zone. The default reads what can be read in one way only."""

    def __init__(self, time_format: str = "auto", timezone: str = "UTC") -> None:
        """Raise ValueError for an unknown format or zone, with the fix.

        `time_format`: auto; iso; s, ms, us or ns since 1970; day-first; month-first; excel (days since 1900); compact
        (20150727, with hours, minutes and seconds); or a pattern of strptime. `timezone`: the zone of local times.
        """
        if time_format not in FORMATS and not _is_pattern(time_format):
            raise ValueError(
                f'"{time_format}" is no format of times; write {", ".join(FORMATS)}, or a pattern like '
                "%d.%m.%Y %H:%M:%S"
            )
        self.time_format, self.timezone = time_format, timezone
        self.zone = zone_of(timezone)

    def parse_us(self, value: object) -> int:
        """Return the microseconds since 1970 of one time. Raises ValueError, which completes "this value …"."""
        if self.time_format == "auto":
            return parse_us(value, self.zone)
        if isinstance(value, datetime):
            return _checked(_datetime_us(value, self.zone))
        return _checked(self._named_us(value))

    def _named_us(self, value: object) -> int:
        form = self.time_format
        if form in _FACTORS:
            return _scaled_us(value, form)
        if form == "excel":
            return self._excel_us(value)
        text = str(value).strip() if type(value) in (int, float, str) else ""
        if form == "compact":
            found = read_text(text.removesuffix(".0"), COMPACT)
            if found is None:
                raise ValueError("is not a date like 20150727, 2015072710 or 20150727103000 (time_format)")
            return found.us if self.zone is None else self.zone.utc_us(found.us)
        if not isinstance(value, str):
            raise ValueError(f'is no text; time_format = "{form}" reads texts')  # noqa: TRY004  # an error in a record
        if form == "iso":
            if _number_of(text) is not None and len(text) != 8:
                raise ValueError('is a number; time_format = "iso" reads texts like 2015-07-27T10:30:00Z')
            return _text_us(text, self.zone)
        if form in _ORDERS:
            found = read_text(text, _ORDERS[form][0])
            if found is None:
                raise ValueError(f"is not a time like {_ORDERS[form][1]} (time_format)")
            return found.us if found.has_zone or self.zone is None else self.zone.utc_us(found.us)
        try:
            written = datetime.strptime(text, form)  # noqa: DTZ007  # the parser's zone applies where the text has none
        except ValueError:
            raise ValueError(f'is not a time like {_EXAMPLE.strftime(form)} (time_format = "{form}")') from None
        return _datetime_us(written, self.zone)

    def _excel_us(self, value: object) -> int:
        days = _number_of(value.strip()) if isinstance(value, str) else value
        if type(days) not in (int, float) or not -1e7 < days < 1e7:  # type: ignore[operator]
            raise ValueError('is not a number of days since 1900 like 42212.4375 (time_format = "excel")')
        ms = round((days - _EXCEL_DAY_OF_1970) * 86_400_000)  # type: ignore[operator]
        return ms * 1_000 if self.zone is None else self.zone.utc_us(ms * 1_000)

    def parse_column_us(self, values: Sequence[object]) -> Column:
        """Return the microseconds [N] of a column of times, and whether each is a valid time [N].

        Gives for each value the same as `parse_us`. An invalid time is 0.
        """
        if self.time_format == "auto":
            return parse_column_us(values, self.zone)
        layouts = _LAYOUTS.get(self.time_format)
        if layouts and set(map(type, values)) == {str}:
            return _text_column(values, layouts, self.zone, self.parse_us)  # type: ignore[arg-type]
        if self.time_format in _FACTORS and (found := _scaled_column(values, _FACTORS[self.time_format])) is not None:
            return found
        if self.time_format == "compact" and set(map(type, values)) == {int}:
            return _text_column(list(map(str, values)), COMPACT, self.zone, self.parse_us)
        return _one_by_one(values, self.parse_us)


_FACTORS: Final = {"s": 1e6, "ms": 1e3, "us": 1.0, "ns": 1e-3}
_ORDERS: Final = {"day-first": (DAY_FIRST, "27.07.2015 10:30:00"), "month-first": (MONTH_FIRST, "07/27/2015 10:30:00")}
_LAYOUTS: Final = {"iso": CLEAR, "compact": COMPACT, "day-first": DAY_FIRST, "month-first": MONTH_FIRST}
_EXAMPLE: Final = datetime(2015, 7, 27, 10, 30, tzinfo=UTC)


def _scaled_us(value: object, unit: str) -> int:
    number = _number_of(value.strip()) if isinstance(value, str) else value
    if type(number) is int:
        return (number + 500) // 1_000 if unit == "ns" else number * int(_FACTORS[unit])
    if type(number) is float and abs(number) < 1e300:
        return round(number / 1e3) if unit == "ns" else round(number * _FACTORS[unit])
    raise ValueError(f'is not a number of {unit} since 1970 (time_format = "{unit}")')


def _scaled_column(values: Sequence[object], factor: float) -> Column | None:
    """Return a column of numbers at once. None = it holds something else, or numbers that could overflow."""
    types = set(map(type, values))
    if types == {float}:
        numbers = np.fromiter(values, np.float64, len(values))
        if np.abs(numbers).max() * factor < 1e18:  # NaN is not
            return _in_range(np.rint(numbers * factor if factor >= 1 else numbers / 1e3).astype(np.int64), _all(values))
    if types == {int} and factor >= 1 and max(map(abs, values)) * factor < 1e18:  # type: ignore[arg-type]
        return _in_range(np.fromiter(values, np.int64, len(values)) * int(factor), _all(values))
    return None


def _all(values: Sequence[object]) -> Bool:
    return np.ones(len(values), np.bool_)


def _is_pattern(time_format: str) -> bool:
    if "%" not in time_format:
        return False
    try:
        datetime.strptime(_EXAMPLE.strftime(time_format), time_format)  # noqa: DTZ007  # only to try the pattern
    except (ValueError, IndexError):
        return False
    return True
