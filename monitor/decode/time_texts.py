"""Dates written as text, in the orders that people use → microseconds since 1970.

Input: a text like "27.07.2015 10:30:00,5", "Jul 27, 2015 10:30 AM" or "20150727103000". Output: microseconds, and
whether the text carries its own zone. Invariant: a column of one layout with fixed widths is read at once, and gives
the same as its single texts.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from itertools import accumulate
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from monitor.types import Bool, Int64

EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_ZERO = np.zeros(1, np.int64)
_MONTHS: Final = {
    name: number
    for number, names in enumerate(
        ("jan", "feb", "mar mär mrz", "apr", "may mai", "jun", "jul", "aug", "sep", "oct okt", "nov", "dec dez"), 1
    )
    for name in names.split()
}
_ZONE = r"(?P<zone>[Zz]|UTC|GMT|(?P<sign>[+-])(?P<zh>\d\d)(?::?(?P<zm>\d\d))?)"
_CLOCK = (
    r"(?:(?:[T_]|,?\s+|:)(?P<H>\d{1,2}):(?P<M>\d\d)(?::(?P<S>\d\d)(?:[.,](?P<f>\d{1,9}))?)?"
    rf"(?:\s*(?P<half>[AaPp])\.?[Mm]\.?)?(?:\s*{_ZONE})?)?"
)
_WEEKDAY = r"(?:[A-Za-z]{2,9}\.?,?\s+)?"
_YEAR_FIRST = rf"(?P<Y>\d{{4}})(?P<s>[-/.])(?P<m>\d{{1,2}})(?P=s)(?P<d>\d{{1,2}}){_CLOCK}"
_NAME = r"(?P<name>[A-Za-zÄä]{3,9})\.?"
_DAY_MONTH_NAME = rf"{_WEEKDAY}(?P<d>\d{{1,2}})\.?[-/\s]?{_NAME}[-/\s,]*(?P<Y>\d{{4}}|\d\d){_CLOCK}"
_MONTH_NAME_DAY = rf"{_WEEKDAY}{_NAME}[-/\s](?P<d>\d{{1,2}}),?[-/\s]+(?P<Y>\d{{4}}){_CLOCK}"
_DAY_FIRST = rf"(?P<d>\d{{1,2}})(?P<s>[-/. ])(?P<m>\d{{1,2}})(?P=s)(?P<Y>\d{{4}}|\d\d){_CLOCK}"
_MONTH_FIRST = rf"(?P<m>\d{{1,2}})(?P<s>[-/. ])(?P<d>\d{{1,2}})(?P=s)(?P<Y>\d{{4}}|\d\d){_CLOCK}"
_COMPACT = r"(?P<Y>\d{4})(?P<m>\d\d)(?P<d>\d\d)(?:(?P<H>\d\d)(?:(?P<M>\d\d)(?P<S>\d\d)?)?)?"

CLEAR: Final = tuple(re.compile(form, re.ASCII) for form in (_YEAR_FIRST, _DAY_MONTH_NAME, _MONTH_NAME_DAY))
"""Layouts that can be read in one way only."""
DAY_FIRST: Final = (re.compile(_DAY_FIRST, re.ASCII), *CLEAR)
MONTH_FIRST: Final = (re.compile(_MONTH_FIRST, re.ASCII), *CLEAR)
COMPACT: Final = (re.compile(_COMPACT, re.ASCII),)


class Instant(NamedTuple):
    """A time, and whether its text says its distance from UTC."""

    us: int
    has_zone: bool


def read_text(text: str, layouts: Sequence[re.Pattern[str]]) -> Instant | None:
    """Read a text by the first layout that it has. None = it has none, or names no time of the calendar."""
    match = next((found for layout in layouts if (found := layout.fullmatch(text))), None)
    if match is None:
        return None
    fields: dict[str, str | None] = match.groupdict()

    def number(name: str) -> int:
        return int(fields.get(name) or 0)

    year, hour = number("Y"), number("H")
    if len(fields["Y"] or "") == 2:  # as POSIX reads two digits
        year += 1900 if year >= 69 else 2000
    if half := fields.get("half"):
        if not 1 <= hour <= 12:
            return None
        hour = hour % 12 + (12 if half in "Pp" else 0)
    month = number("m") or _MONTHS.get((fields.get("name") or "")[:3].casefold(), 0)
    fraction_us = int((fields.get("f") or "")[:6].ljust(6, "0"))
    if number("zh") > 23 or number("zm") > 59:
        return None
    try:
        written = datetime(year, month, number("d"), hour, number("M"), number("S"), fraction_us, UTC)
    except ValueError:
        return None
    offset = timedelta(hours=number("zh"), minutes=number("zm"))
    us = (written - EPOCH) // timedelta(microseconds=1) - (offset // timedelta(microseconds=1)) * (
        -1 if fields.get("sign") == "-" else 1
    )
    return Instant(us, bool(fields.get("zone")))


def read_column(
    values: Sequence[str], layouts: Sequence[re.Pattern[str]]
) -> tuple[Int64, Bool, bool] | None:
    """Read texts that are laid out alike. Returns microseconds [N], validity [N], and whether they carry a zone.

    None = the texts differ in length or in a character that is no digit, or name months or halves of a day.
    """
    match = next((found for layout in layouts if (found := layout.fullmatch(values[0]))), None)
    if match is None:
        return None
    fields = match.groupdict()
    two = [name for name in ("m", "d", "H", "M", "S") if fields.get(name)]
    if fields.get("half") or "m" not in two or len(fields["Y"]) != 4 or any(len(fields[name]) != 2 for name in two):
        return None
    digits = _digits_of(values)
    if digits is None:
        return None
    widths = {"Y": 4, **dict.fromkeys(two, 2)}
    if fraction := fields.get("f"):
        widths["f"] = min(len(fraction), 6)
    widths |= {name: 2 for name in ("zh", "zm") if fields.get(name)}
    place = list(accumulate(map(str.isdigit, values[0]), initial=0))  # of a character among the digits
    number = _numbers_of(digits, {name: (place[match.start(name)], width) for name, width in widths.items()})
    us, is_valid = _from_calendar(*(number.get(name, _ZERO) for name in ("Y", "m", "d", "H", "M", "S")))
    if fraction:
        us = us + number["f"] * 10 ** (6 - widths["f"])
    if "zh" in number:
        hours, minutes = number["zh"], number.get("zm", _ZERO)
        is_valid &= (hours < 24) & (minutes < 60)
        offset_us = (hours * 60 + minutes) * 60_000_000
        us = us + (offset_us if fields["sign"] == "-" else -offset_us)
    return us, is_valid, bool(fields.get("zone"))


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


def _numbers_of(
    digits: np.ndarray[tuple[int, int], np.dtype[np.uint8]], places: Mapping[str, tuple[int, int]]
) -> dict[str, Int64]:
    """Return the number of each field [N] that the digits (N, n_digits) form. `places`: first digit and width."""
    weights = np.zeros((digits.shape[1], len(places)), np.float32)  # float32 holds six digits exactly
    for field, (first, width) in enumerate(places.values()):
        weights[first : first + width, field] = 10.0 ** np.arange(width - 1, -1, -1)
    numbers = (digits.astype(np.float32) @ weights).astype(np.int64).T
    return dict(zip(places, numbers, strict=True))


def _from_calendar(
    year: Int64, month: Int64, day: Int64, hour: Int64, minute: Int64, second: Int64
) -> tuple[Int64, Bool]:
    """Return microseconds since 1970 [N], and whether each is a time of the calendar [N]."""
    leap = (year % 4 == 0) & ((year % 100 != 0) | (year % 400 == 0))
    last_day = _DAYS_IN_MONTH[np.clip(month, 0, 12)] + (leap & (month == 2))
    is_valid = (year >= 1) & (month >= 1) & (month <= 12) & (day >= 1) & (day <= last_day)
    is_valid &= (hour < 24) & (minute < 60) & (second < 60)
    seconds = ((_days_since_1970(year, month, day) * 24 + hour) * 60 + minute) * 60 + second
    return seconds * 1_000_000, is_valid


_DAYS_IN_MONTH = np.array([0, 31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31], dtype=np.int64)


def _days_since_1970(year: Int64, month: Int64, day: Int64) -> Int64:
    """Count days in the proleptic Gregorian calendar.

    The year is shifted to begin in March, so that the leap day comes last. From H. Hinnant, "chrono-compatible
    low-level date algorithms", days_from_civil.
    """
    year = year - (month <= 2)
    day_of_year = (153 * np.where(month > 2, month - 3, month + 9) + 2) // 5 + day - 1
    return year * 365 + year // 4 - year // 100 + year // 400 + day_of_year - 719_468
