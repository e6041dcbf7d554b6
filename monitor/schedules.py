"""Recurring times: cron expressions with durations and time zones.

Input: a cron expression and moments in µs. Output: the occurrences, as [start, end) in µs. Invariant: a change to or
from summer time neither skips nor repeats an occurrence at a fixed time of day.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple
from zoneinfo import ZoneInfo

from monitor.clock import from_us, to_us

if TYPE_CHECKING:
    from collections.abc import Iterator

MINUTE_US = 60_000_000
MAX_DURATION_US = 31 * 24 * 60 * MINUTE_US
N_COMPARED = 50
"""Occurrences of which the distance is compared with the duration."""


class Recurrence(NamedTuple):
    """Occurrences that begin by a cron expression of five fields, and last equally long."""

    cron: str
    duration_us: int
    timezone: str = "UTC"

    def problem(self) -> str | None:
        """Return the reason why it cannot be used, or None."""
        from cronsim import CronSim, CronSimError

        try:
            zone = ZoneInfo(self.timezone)
        except (ValueError, OSError, KeyError):  # a name that is no file, or leads out of the folder
            return f'"{self.timezone}" is no time zone; write UTC or Europe/Berlin'
        if not MINUTE_US <= self.duration_us <= MAX_DURATION_US:
            return "its occurrences must last from 1m to 31d"
        if len(self.cron.split()) != 5:
            return f'"{self.cron}" is no cron expression of five fields; write "0 6 * * mon" for Mondays at six'
        try:
            starts = CronSim(self.cron, datetime(2024, 1, 1, tzinfo=zone))
            first = [start for start, _ in zip(starts, range(N_COMPARED), strict=False)]
        except (CronSimError, ValueError, OverflowError):
            return f'"{self.cron}" is no cron expression; write "0 6 * * mon" for Mondays at six'
        if not first:
            return f'"{self.cron}" never occurs'
        gaps = [to_us(later) - to_us(sooner) for sooner, later in pairwise(first)]
        if gaps and min(gaps) < self.duration_us:
            return f'"{self.cron}" occurs again before an occurrence is over; shorten its duration'
        return None

    def at(self, at_us: int) -> tuple[int, int] | None:
        """Return the occurrence in progress at a moment, or None."""
        start_us = self._last_start_us(at_us)
        return (start_us, start_us + self.duration_us) if start_us is not None and at_us < start_us + self.duration_us \
            else None

    def between(self, from_us: int, to_us_: int) -> Iterator[tuple[int, int]]:
        """Yield the occurrences that overlap [from_us, to_us_), in order."""
        from cronsim import CronSim

        first = self.at(from_us)
        if first is not None:
            yield first
        for start in CronSim(self.cron, from_us_in(from_us - 1, self.timezone)):
            start_us = to_us(start)
            if start_us >= to_us_:
                return
            if first is None or start_us > first[0]:
                yield start_us, start_us + self.duration_us

    def next(self, after_us: int) -> tuple[int, int] | None:
        """Return the first occurrence that begins after a moment. None = there is none within 50 years."""
        from cronsim import CronSim

        start = next(CronSim(self.cron, from_us_in(after_us, self.timezone)), None)
        return None if start is None else (to_us(start), to_us(start) + self.duration_us)

    def _last_start_us(self, at_us: int) -> int | None:
        """Return the last start at or before a moment."""
        from cronsim import CronSim

        # CronSim leaves the given second out.
        starts = CronSim(self.cron, from_us_in(at_us, self.timezone) + timedelta(seconds=1), reverse=True)
        for start in starts:
            if to_us(start) <= at_us:
                return to_us(start)
        return None


def from_us_in(us: int, timezone: str) -> datetime:
    """Convert µs since 1970 to a datetime of a time zone."""
    return from_us(us).astimezone(ZoneInfo(timezone))
