"""Alerts and times as operators name them: by fleet, asset and sensor, with `*` and `?`, and by maintenance window.

Input: the facts of an alert. Output: whether a shelf or a maintenance window is about it. Pure. Invariant: a name
matches itself, whatever characters it has. Nothing slow is imported here, because every read command imports this.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

from monitor.printable import normal_name
from monitor.schedules import Recurrence

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from monitor.types import Contribution

FAR_US = 1 << 62
"""After all times."""


class Subject(NamedTuple):
    """The subject of an alert."""

    alert_id: int
    fleet: str | None
    """None = all fleets in a partition."""
    asset: str | None
    """None = no single asset."""
    sensors: tuple[str, ...]
    """Sensors that are blamed most: at the onset and at the peak."""
    peak_score: float | None
    """None = it is about no scores."""
    opened_us: int


def matches(pattern: str | None, name: str | None) -> bool:
    """Return True if a name matches a pattern. No pattern matches everything, and no name only that."""
    if pattern is None:
        return True
    return name is not None and (pattern == name or _compiled(pattern).fullmatch(name) is not None)


@lru_cache(maxsize=256)
def _compiled(pattern: str) -> re.Pattern[str]:
    parts = {"*": ".*", "?": "."}
    return re.compile("".join(parts.get(sign) or re.escape(sign) for sign in pattern), re.DOTALL)


def blamed(*contributions: Iterable[Contribution]) -> tuple[str, ...]:
    """Return the sensor with the largest share of each list of contributions."""
    worst = (max(each, key=lambda one: one.share, default=None) for each in contributions)
    return tuple(dict.fromkeys(one.name for one in worst if one is not None))


def blamed_of_rows(rows: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    """Return the same from the column `sensors` of an alert."""
    if not rows:
        return ()
    onset = [row for row in rows if row.get("onset")]
    names = [max(onset, key=lambda row: row["onset"]["share"])["name"]] if onset else []
    return tuple(dict.fromkeys([*names, max(rows, key=lambda row: row["share"])["name"]]))


class Target(NamedTuple):
    """Alerts to shelve: one, or those that match all that is given."""

    alert_id: int | None = None
    fleet: str | None = None
    asset: str | None = None
    sensor: str | None = None

    def normal(self) -> Target:
        """Return it with the names in Unicode's composed form, as they are stored."""
        asset, sensor = (None if name is None else normal_name(name) for name in (self.asset, self.sensor))
        return self._replace(asset=asset, sensor=sensor)

    def covers(self, subject: Subject) -> bool:
        """Return True if the alert is meant."""
        if self.alert_id is not None:
            return self.alert_id == subject.alert_id
        return (
            matches(self.fleet, subject.fleet)
            and matches(self.asset, subject.asset)
            and (self.sensor is None or any(matches(self.sensor, name) for name in subject.sensors))
        )


class Window(NamedTuple):
    """A maintenance window, once or recurring."""

    fleet: str
    asset: str
    from_us: int
    to_us: int | None
    cron: str | None = None
    duration_us: int | None = None
    timezone: str = "UTC"

    def covers(self, fleet: str | None, asset: str | None) -> bool:
        """Return True if it is about an asset. An alert about a whole fleet or partition needs `*`."""
        is_all = (fleet is not None or self.fleet == "*") and (asset is not None or self.asset == "*")
        return is_all and (fleet is None or matches(self.fleet, fleet)) and (
            asset is None or matches(self.asset, asset)
        )

    def at(self, at_us: int) -> tuple[int, int] | None:
        """Return the [start, end) of the time in maintenance that contains a moment, or None."""
        end_us = FAR_US if self.to_us is None else self.to_us
        if not self.from_us <= at_us < end_us:
            return None
        if self.cron is None:
            return self.from_us, end_us
        found = self.recurrence.at(at_us)
        return None if found is None else (max(found[0], self.from_us), min(found[1], end_us))

    def between(self, from_us: int, to_us: int) -> Iterator[tuple[int, int]]:
        """Yield the times [start, end) in maintenance that overlap [from_us, to_us)."""
        first_us, last_us = max(from_us, self.from_us), to_us if self.to_us is None else min(to_us, self.to_us)
        if first_us >= last_us:
            return
        if self.cron is None:
            yield first_us, last_us
            return
        for start_us, end_us in self.recurrence.between(first_us, last_us):
            yield max(start_us, first_us), min(end_us, last_us)

    def next(self, after_us: int) -> tuple[int, int] | None:
        """Return the next time [start, end) in maintenance after a moment, or None."""
        start_us = max(after_us, self.from_us - 1)
        if self.cron is None:
            return (self.from_us, self.to_us or FAR_US) if after_us < self.from_us else None
        found = self.at(start_us + 1) or self.recurrence.next(start_us)
        return None if found is None or found[0] >= (self.to_us or FAR_US) else found

    @property
    def recurrence(self) -> Recurrence:
        """Its occurrences."""
        return Recurrence(self.cron or "", self.duration_us or 0, self.timezone)
