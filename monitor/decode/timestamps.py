"""Event times as producers write them → integer microseconds since 1970 UTC.

Input: an ISO 8601 text (naive = UTC), a number, or MessagePack's timestamp type. Output: microseconds within the years
1 to 9999. Invariant: `parse_us` defines the result, and `parse_column_us` gives the same for a whole column, some
twenty times faster.

The size of a number tells its unit. It is seconds below 1e11, then milliseconds, from 1e14 microseconds and from 1e17
nanoseconds. Seconds are understood until the year 5138.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from monitor.types import Bool, Int64

MIN_US: Final = -62_135_596_800_000_000
"""Start of the year 1."""
MAX_US: Final = 253_402_300_799_999_999
"""End of the year 9999."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_SECONDS_BELOW, _MILLISECONDS_BELOW, _MICROSECONDS_BELOW = 10**11, 10**14, 10**17
_OUTSIDE = "lies outside the years 1 to 9999"
_ISO_LAYOUT = re.compile(
    r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(?P<fraction>\.\d{1,6})?(?P<zone>Z|[+-]\d\d:\d\d)?", re.ASCII
)
_DAYS_IN_MONTH = np.array([0, 31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31], dtype=np.int64)


def parse_us(value: object) -> int:
    """Return the microseconds since 1970 of one time.

    Raises ValueError. Its message completes the sentence "this value …" and says how to write a time.
    """
    if type(value) is int:
        us = _int_us(value)
    elif type(value) is float:
        us = _float_us(value)
    elif isinstance(value, str):
        us = _text_us(value)
    elif isinstance(value, datetime):  # MessagePack's own timestamp type
        us = _datetime_us(value)
    else:
        raise ValueError("is not a time; send seconds since 1970 or an ISO 8601 text")
    if not MIN_US <= us <= MAX_US:
        raise ValueError(_OUTSIDE)
    return us


def _int_us(value: int) -> int:
    size = abs(value)
    if size < _SECONDS_BELOW:
        return value * 1_000_000
    if size < _MILLISECONDS_BELOW:
        return value * 1_000
    if size < _MICROSECONDS_BELOW:
        return value
    return (value + 500) // 1_000


def _float_us(value: float) -> int:
    size = abs(value)
    if not size < 1e300:
        raise ValueError("is not a finite number")
    if size < _SECONDS_BELOW:
        return round(value * 1e6)
    if size < _MILLISECONDS_BELOW:
        return round(value * 1e3)
    if size < _MICROSECONDS_BELOW:
        return round(value)
    return round(value / 1e3)


def _text_us(value: str) -> int:
    try:
        return _datetime_us(datetime.fromisoformat(value))
    except ValueError:
        raise ValueError(
            "is not an ISO 8601 time; write it like 2015-07-27T10:30:00Z, or send seconds since 1970"
        ) from None


def _datetime_us(value: datetime) -> int:
    return ((value if value.tzinfo else value.replace(tzinfo=UTC)) - _EPOCH) // _MICROSECOND


def iso_text(us: int) -> str:
    """Return the time as ISO 8601 in UTC, with as many decimals as it needs."""
    text = (_EPOCH + timedelta(microseconds=us)).isoformat().removesuffix("+00:00")
    return (text.rstrip("0") if "." in text else text) + "Z"


# ---------------------------------------------------------------- whole columns


def parse_column_us(values: Sequence[object]) -> tuple[Int64, Bool]:
    """Return the microseconds [N] of a column of times, and whether each is a valid time [N].

    An invalid time is 0.
    """
    n = len(values)
    types = set(map(type, values))
    if types == {float}:
        return _in_range(*_float_column(np.fromiter(values, np.float64, n)))
    if types == {int}:
        try:
            return _in_range(_int_column(np.fromiter(values, np.int64, n)), np.ones(n, np.bool_))
        except OverflowError:  # some number needs more than 64 bits
            return _one_by_one(values)
    if types == {str}:
        return _text_column(values)  # type: ignore[arg-type]  # the line above has checked every element
    return _one_by_one(values)


def _one_by_one(values: Sequence[object]) -> tuple[Int64, Bool]:
    us, is_valid = np.zeros(len(values), np.int64), np.ones(len(values), np.bool_)
    for i, value in enumerate(values):
        try:
            us[i] = parse_us(value)
        except ValueError:
            is_valid[i] = False
    return us, is_valid


def _in_range(us: Int64, is_valid: Bool) -> tuple[Int64, Bool]:
    is_valid = is_valid & (us >= MIN_US) & (us <= MAX_US)
    return np.where(is_valid, us, 0), is_valid


def _float_column(values: np.ndarray[tuple[int], np.dtype[np.float64]]) -> tuple[Int64, Bool]:
    size = np.abs(values)
    is_valid = size < 1e21  # beyond: NaN, infinity, or far outside the years 1 to 9999 in any unit
    if is_valid.all() and size.max(initial=0) < _SECONDS_BELOW:
        return np.rint(values * 1e6).astype(np.int64), is_valid
    values = np.where(is_valid, values, 0.0)
    scaled = [values * 1e6, values * 1e3, values]
    units = [size < _SECONDS_BELOW, size < _MILLISECONDS_BELOW, size < _MICROSECONDS_BELOW]
    return np.rint(np.select(units, scaled, values / 1e3)).astype(np.int64), is_valid


def _int_column(values: Int64) -> Int64:
    def is_below(limit: int) -> Bool:
        return (values > -limit) & (values < limit)  # not abs(): -2^63 has none

    if is_below(_SECONDS_BELOW).all():
        return values * 1_000_000
    units = [is_below(_SECONDS_BELOW), is_below(_MILLISECONDS_BELOW), is_below(_MICROSECONDS_BELOW)]
    from_nanoseconds = values // 1_000 + (values % 1_000 >= 500)  # not values + 500: it could overflow
    return np.select(units, [values * 1_000_000, values * 1_000, values], from_nanoseconds)


def _text_column(values: Sequence[str]) -> tuple[Int64, Bool]:
    """Parse texts of one common layout together, any others one by one."""
    layout = _ISO_LAYOUT.fullmatch(values[0])
    digits = _digits_of(values) if layout is not None else None
    if layout is None or digits is None:
        return _one_by_one(values)
    n_fraction = len(layout["fraction"] or ".") - 1
    zone = layout["zone"] or "Z"
    widths = [4, 2, 2, 2, 2, 2, n_fraction, *([2, 2] if zone != "Z" else [])]
    year, month, day, hour, minute, second, fraction, *offset = _numbers_of(digits, widths)

    leap = (year % 4 == 0) & ((year % 100 != 0) | (year % 400 == 0))
    last_day = _DAYS_IN_MONTH[np.clip(month, 0, 12)] + (leap & (month == 2))
    is_valid = (year >= 1) & (month >= 1) & (month <= 12) & (day >= 1) & (day <= last_day)
    is_valid &= (hour < 24) & (minute < 60) & (second < 60)
    us = ((_days_since_1970(year, month, day) * 24 + hour) * 60 + minute) * 60 + second
    us = us * 1_000_000 + fraction * 10 ** (6 - n_fraction)
    if offset:
        hours, minutes = offset
        is_valid &= (hours < 24) & (minutes < 60)
        offset_us = (hours * 60 + minutes) * 60_000_000
        us += offset_us if zone.startswith("-") else -offset_us
    return _in_range(us, is_valid)


def _digits_of(values: Sequence[str]) -> np.ndarray[tuple[int, int], np.dtype[np.uint8]] | None:
    """Return the digits of the texts (N, n_digits). None = they are not all laid out like the first."""
    joined = "".join(values)
    if set(map(len, values)) != {len(values[0])} or not joined.isascii():
        return None
    characters = np.frombuffer(joined.encode(), np.uint8).reshape(len(values), -1)  # (N, length)
    is_digit = np.array([c.isdigit() for c in values[0]])
    digits = characters[:, is_digit] - np.uint8(ord("0"))  # a character below "0" wraps round to above 9
    is_alike = (characters[:, ~is_digit] == characters[0, ~is_digit]).all() and (digits <= 9).all()
    return digits if is_alike else None


def _numbers_of(digits: np.ndarray[tuple[int, int], np.dtype[np.uint8]], widths: Sequence[int]) -> Int64:
    """Return the numbers (n_fields, N) that the digits (N, n_digits) form, `widths` digits for each field."""
    weights = np.zeros((sum(widths), len(widths)), np.float32)  # float32 holds six digits exactly
    start = 0
    for field, width in enumerate(widths):
        weights[start : start + width, field] = 10.0 ** np.arange(width - 1, -1, -1)
        start += width
    return (digits.astype(np.float32) @ weights).astype(np.int64).T


def _days_since_1970(year: Int64, month: Int64, day: Int64) -> Int64:
    """Count days in the proleptic Gregorian calendar.

    The year is shifted to begin in March, so that the leap day comes last. From H. Hinnant, "chrono-compatible
    low-level date algorithms", days_from_civil.
    """
    year = year - (month <= 2)
    day_of_year = (153 * np.where(month > 2, month - 3, month + 9) + 2) // 5 + day - 1
    return year * 365 + year // 4 - year // 100 + year // 400 + day_of_year - 719_468
