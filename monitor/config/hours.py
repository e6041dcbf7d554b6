"""Times of a week: "22:00-06:00", "Mon-Fri 06:00-18:00", "Sat,Sun 00:00-24:00".

Input: their notation, and a time zone. Output: whether a moment lies in them. Invariant: days and hours are those of
the zone's clock on the wall, also when daylight saving begins or ends. A time that passes midnight belongs to the day
on which it begins.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

from monitor.clock import from_us

if TYPE_CHECKING:
    from collections.abc import Sequence

_DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_SPAN = re.compile(r"(?:([A-Za-z ,-]+?)\s+)?(\d{1,2}):(\d\d)\s*[-–]\s*(\d{1,2}):(\d\d)")
_HELP = 'is not a time of the day; write "22:00-06:00" or "Mon-Fri 06:00-18:00"'


@dataclass(frozen=True, slots=True)
class Span:
    """One time of some days."""

    days: frozenset[int]
    """On which it begins, 0 = Monday."""
    start_min: int
    """Since midnight."""
    end_min: int
    """Since midnight; not after the start = on the next day."""

    @classmethod
    def parse(cls, text: str) -> Span:
        """Parse one time."""
        match = _SPAN.fullmatch(text.strip())
        if match is None:
            raise ValueError(f'"{text}" {_HELP}')
        days, *numbers = match.groups()
        h1, m1, h2, m2 = map(int, numbers)
        start, end = 60 * h1 + m1, 60 * h2 + m2
        if m1 > 59 or m2 > 59 or start >= 1440 or end > 1440:
            raise ValueError(f'"{text}" {_HELP}')
        return cls(_parse_days(days) if days else frozenset(range(7)), start, end)

    def contains(self, day: int, minute: int) -> bool:
        """Return whether it contains a minute of a day."""
        if self.start_min < self.end_min:
            return day in self.days and self.start_min <= minute < self.end_min
        return (day in self.days and minute >= self.start_min) or (
            (day - 1) % 7 in self.days and minute < self.end_min
        )


@dataclass(frozen=True, slots=True)
class Hours:
    """Times of a week in one time zone."""

    spans: tuple[Span, ...]
    zone: ZoneInfo

    @classmethod
    def parse(cls, texts: Sequence[str], timezone: str) -> Hours:
        """Parse them. Raises ValueError with a sentence that names a valid notation."""
        return cls(tuple(map(Span.parse, texts)), ZoneInfo(timezone))

    def contains(self, at_us: int) -> bool:
        """Return whether a moment, µs since 1970, lies in one of them."""
        local = from_us(at_us).astimezone(self.zone)
        minute = 60 * local.hour + local.minute
        return any(span.contains(local.weekday(), minute) for span in self.spans)


def _parse_days(text: str) -> frozenset[int]:
    found: set[int] = set()
    for part in text.replace(" ", "").split(","):
        first, _, last = part.lower().partition("-")
        if first[:3] not in _DAYS or (last and last[:3] not in _DAYS):
            raise ValueError(f'"{part}" is no day of the week; write "Mon", "Mon-Fri" or "Sat,Sun"')
        begin, end = _DAYS.index(first[:3]), _DAYS.index((last or first)[:3])
        found.update((begin + n) % 7 for n in range((end - begin) % 7 + 1))
    return frozenset(found)
