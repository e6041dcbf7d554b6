"""The interval of a sampling grid, from the time between readings.

Input: a `Spacing`, measured on readings. Output: durations that people choose. Invariant: nearly every cell of the grid
gets a reading, and as few readings as possible share a cell.
"""

from __future__ import annotations

from datetime import timedelta
from typing import NamedTuple

from monitor.config.values import format_duration

ROUND_S = (
    *(0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.25, 0.5, 1, 2, 5, 10, 15, 20, 30),
    *(60, 120, 300, 600, 900, 1200, 1800, 3600, 7200, 10800, 14400, 21600, 43200, 86400),
)
"""Durations that people choose."""
NEAR = 0.1
"""Relative distance within which a spacing is taken for a round one."""
TOO_LONG = 1.4
"""Ratio of the fitting interval to the configured one from which windows have too many holes."""
REGULAR = 2.5
"""Ratio between a usual and a long or short spacing up to which readings count as regular."""


class Spacing(NamedTuple):
    """Time between two readings of the same sensor and asset, in seconds."""

    usual_s: float
    """The median."""
    short_s: float
    """A tenth is shorter."""
    long_s: float
    """A tenth is longer."""

    @property
    def is_regular(self) -> bool:
        """Whether nearly all readings come at one interval. False for data that are sent on change."""
        usual_s = max(self.usual_s, ROUND_S[0])
        return self.long_s <= REGULAR * usual_s and self.short_s >= usual_s / REGULAR

    @property
    def words(self) -> str:
        """The spacing in a sentence."""
        if self.is_regular:
            return f"readings are {spoken(self.usual_s)} apart"
        return f"readings are {spoken(self.short_s)} to {spoken(self.long_s)} apart"

    def leaves_holes_in(self, interval: timedelta) -> bool:
        """Return whether so many cells of a grid stay empty that hardly a window is full."""
        return interval_for(self) > TOO_LONG * interval


def interval_for(spacing: Spacing) -> timedelta:
    """Return the interval of a grid that nearly every reading fills, and nearly every cell has a reading of."""
    if spacing.is_regular:
        near = min(ROUND_S, key=lambda each: abs(each - spacing.usual_s))
        seconds = near if abs(near - spacing.usual_s) <= NEAR * near else spacing.usual_s
        return timedelta(milliseconds=max(1, round(seconds * 1000)))
    return round_up(spacing.long_s)


def round_up(seconds: float) -> timedelta:
    """Return the next duration that people choose."""
    return timedelta(seconds=next((each for each in ROUND_S if each >= seconds * (1 - NEAR / 2)), ROUND_S[-1]))


def spoken(seconds: float) -> str:
    """Format a measured duration: two significant units, no fractions of a second above ten."""
    exact = timedelta(milliseconds=round(seconds * 1000))
    if seconds >= 86_400:
        exact = timedelta(hours=round(seconds / 3600))
    elif seconds >= 600:
        exact = timedelta(minutes=round(seconds / 60))
    elif seconds >= 10:
        exact = timedelta(seconds=round(seconds))
    return format_duration(exact)
