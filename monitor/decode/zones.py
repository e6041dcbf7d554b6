"""Local times of a time zone → UTC, on both sides of a clock change.

Input: microseconds since 1970 as the clock on the wall shows them. Output: microseconds since 1970 UTC.
Invariants: one time and a whole column give the same. A time in the hour that a clock change repeats is the first of
its two instants, until `repeated_in_order` moves it by the order of a file. A time in the hour that a clock change
skips is invalid.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from datetime import UTC, datetime, timedelta, tzinfo
from datetime import timezone as fixed_zone
from functools import lru_cache
from typing import TYPE_CHECKING, Final
from zoneinfo import ZoneInfo

import numpy as np

if TYPE_CHECKING:
    from monitor.types import Bool, Int32, Int64

_FIXED = re.compile(r"([+-])(\d\d):?(\d\d)")
_WEEK_S: Final = 7 * 86_400
"""Step of the search for clock changes. The two closest ones of a zone lie four weeks apart (Morocco, Egypt)."""
_FIRST_S, _LAST_S = 0, 4_133_980_800
"""1970 to 2101. Times outside have the offset of the nearest end."""


class Zone:
    """A time zone with its clock changes. Make it with `zone_of`."""

    def __init__(self, name: str, zone: tzinfo) -> None:
        self.name = name
        changes_s, offsets_s = _clock_changes(zone)
        self._change_us: Int64 = np.array(changes_s, np.int64) * 1_000_000
        self._offset_us: Int64 = np.array(offsets_s, np.int64) * 1_000_000  # before the first change, then after each
        before, after = self._offset_us[:-1], self._offset_us[1:]
        self._until_us = self._change_us + np.maximum(before, after)
        """Local time from which on the offset after a change holds."""
        self._skipped_from_us = np.where(after > before, self._change_us + before, np.iinfo(np.int64).max)
        self._lists = self._until_us.tolist(), self._offset_us.tolist(), self._skipped_from_us.tolist()

    def utc_us(self, local_us: int) -> int:
        """Return the instant of a local time. Raises ValueError for a time that a clock change skips."""
        until_us, offset_us, skipped_from_us = self._lists
        at = bisect_right(until_us, local_us)
        if at < len(until_us) and local_us >= skipped_from_us[at]:
            raise ValueError(
                f"is skipped by a clock change of {self.name}; send UTC, or set timezone to the zone of the clock that "
                'wrote it ("Etc/GMT-1" is one hour ahead of UTC all year)'
            )
        return int(local_us - offset_us[at])

    def utc_column_us(self, local_us: Int64) -> tuple[Int64, Bool]:
        """Return the instants [N] of local times [N], and whether each exists."""
        at = np.searchsorted(self._until_us, local_us, side="right")
        skipped_from_us = np.append(self._skipped_from_us, np.iinfo(np.int64).max)[at]
        return local_us - self._offset_us[at], local_us < skipped_from_us

    def repeated_in_order(self, us: Int64, asset: Int32) -> tuple[Int64, int]:
        """Move the second pass of each repeated hour behind the first, by the order of an asset's rows.

        `us` [N]: instants as `utc_column_us` returns them. `asset` [N]: index of each row's asset. Returns the
        instants, and how many were moved.
        """
        us, n_moved = us.copy(), 0
        repeats_us = self._offset_us[:-1] - self._offset_us[1:]
        for change_us, repeats_us_ in zip(self._change_us.tolist(), repeats_us.tolist(), strict=True):
            if repeats_us_ <= 0 or not ((us >= change_us - repeats_us_) & (us < change_us)).any():
                continue
            for number in np.unique(asset):
                rows = np.flatnonzero(asset == number)
                steps = np.diff(us[rows])
                if len(steps) and np.median(steps) < 0:  # the newest first
                    rows, steps = rows[::-1], -steps[::-1]
                interval_us = int(np.median(steps[steps > 0])) if (steps > 0).any() else repeats_us_
                inside = np.flatnonzero((us[rows] >= change_us - repeats_us_) & (us[rows] < change_us))
                falls = np.flatnonzero(-np.diff(us[rows[inside]]) >= repeats_us_ // 2 - interval_us)
                falls = falls[np.diff(us[rows[inside]])[falls] <= 0]
                if len(falls):
                    second = rows[inside[falls[0] + 1 :]]
                    us[second] += repeats_us_
                    n_moved += len(second)
        return us, n_moved


@lru_cache(maxsize=64)
def zone_of(name: str) -> Zone | None:
    """Return a zone by its name, or by a fixed offset like "+01:00". None = UTC. Raises ValueError."""
    if name in ("UTC", "Z", "Etc/UTC"):
        return None
    if fixed := _FIXED.fullmatch(name):
        offset = timedelta(hours=int(fixed[2]), minutes=int(fixed[3]))
        return Zone(name, fixed_zone(-offset if fixed[1] == "-" else offset))
    try:
        return Zone(name, ZoneInfo(name))
    except (KeyError, ValueError, OSError):
        raise ValueError(
            f'"{name}" is not a time zone; write a name like Europe/Berlin, an offset like +01:00, or UTC'
        ) from None


def _clock_changes(zone: tzinfo) -> tuple[list[int], list[int]]:
    """Return the instants of a zone's clock changes [K], and its offsets in seconds before and after them [K + 1]."""

    def offset_s(at_s: int) -> int:
        offset = datetime.fromtimestamp(at_s, UTC).astimezone(zone).utcoffset()
        return int(offset.total_seconds()) if offset else 0

    changes: list[int] = []
    offsets = [offset_s(_FIRST_S)]
    for low in range(_FIRST_S, _LAST_S, _WEEK_S):
        high = low + _WEEK_S
        if (after := offset_s(high)) == offsets[-1]:
            continue
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (low, middle) if offset_s(middle) == after else (middle, high)
        changes.append(high)
        offsets.append(after)
    return changes, offsets
