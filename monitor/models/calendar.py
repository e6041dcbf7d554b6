"""Threshold by hour of the day and kind of day: work day, Saturday, and Sunday with the holidays.

Input: event times of the ends of windows. Output: the factor of each window's threshold.
Invariant: a function of the event time and the card alone, without the clock of this machine. Hours are those of the
zone's clock on the wall, also when daylight saving begins or ends.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

import numpy as np

if TYPE_CHECKING:
    from monitor.types import Float32, Int64

KINDS = ("work day", "Saturday", "Sunday")
"""A holiday is a Sunday."""
N_HOURS = 24
MAX_FACTOR = 2.0
"""Most that a threshold is above or below that of the mean hour."""
_HOUR_US = 3_600_000_000
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Days:
    """A time zone with its holidays."""

    timezone: str = "UTC"
    holidays: tuple[str, ...] = ()
    """ISO 8601 dates in that zone."""

    def cells(self, end_us: Int64) -> Int64:
        """Return the cell [N], kind of day × 24 + hour, in which each window ends."""
        # No zone has changed its offset within a quarter of an hour.
        quarters, place = np.unique((end_us - 1) // (_HOUR_US // 4), return_inverse=True)
        known: Int64 = np.array([_cell(self.timezone, self.holidays, each) for each in quarters.tolist()], np.int64)
        return known[place] if len(known) else np.zeros(0, np.int64)


@lru_cache(maxsize=65_536)
def _cell(timezone: str, holidays: tuple[str, ...], quarter: int) -> int:
    local = (_EPOCH + timedelta(minutes=15 * quarter)).astimezone(ZoneInfo(timezone))
    weekday = 6 if local.date().isoformat() in holidays else local.weekday()
    return max(0, weekday - 4) * N_HOURS + local.hour


@dataclass(frozen=True, slots=True)
class Calendar:
    """Factors of the threshold, by kind of day and hour."""

    days: Days
    factors: tuple[float, ...]
    """[3 × 24], of each cell."""
    gain: float = 0.0
    """Share of the variance of log scores in later held-out time that the hours explain."""

    def of(self, end_us: Int64) -> Float32:
        """Return the factor [N] of the threshold of windows that end at these event times."""
        found: Float32 = np.array(self.factors, np.float32)[self.days.cells(end_us)]
        return found

    def to_json(self) -> dict[str, Any]:
        """Return the card's entry. The texts in `says` are for people, and ready to print."""
        return {
            "timezone": self.days.timezone,
            "holidays": list(self.days.holidays),
            "factors": {
                kind: list(self.factors[n * N_HOURS : (n + 1) * N_HOURS]) for n, kind in enumerate(KINDS)
            },
            "gain": self.gain,
            "says": self.says(),
        }

    def says(self) -> list[str]:
        """Describe the calendar in sentences."""
        high, low = int(np.argmax(self.factors)), int(np.argmin(self.factors))
        thresholds = (
            f"Thresholds follow hour and day in {self.days.timezone}: highest on {_name(high)} "
            f"(× {self.factors[high]:.2f}), lowest on {_name(low)} (× {self.factors[low]:.2f})."
        )
        gain = f"Hours explain {self.gain:.0%} of the variance of later scores."
        return [thresholds, gain, f"{len(self.days.holidays)} holidays count as Sundays."]

    @classmethod
    def from_json(cls, entry: dict[str, Any]) -> Calendar:
        """Read the card's entry. Raises KeyError, TypeError, ValueError or AttributeError for a malformed one."""
        factors = tuple(float(each) for kind in KINDS for each in entry["factors"][kind])
        if len(factors) != len(KINDS) * N_HOURS or not all(0 < each < math.inf for each in factors):
            raise ValueError(f"calendar: {len(factors)} factors")
        timezone, holidays = str(entry["timezone"]), tuple(entry["holidays"])
        ZoneInfo(timezone)
        for each in holidays:
            date.fromisoformat(each)
        return cls(Days(timezone, holidays), factors, float(entry["gain"]))


def _name(cell: int) -> str:
    return f"{KINDS[cell // N_HOURS]}s at {cell % N_HOURS:02}:00"
