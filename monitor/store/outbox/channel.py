"""A recipient of notifications, and the alerts it wants.

Input: an alert's facts. Output: whether its notification is written. Invariant: pure, and a function of event time but
for the age of a change.
"""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Protocol

from monitor.types import AlertClass, DataAlertChange, Severity

if TYPE_CHECKING:
    from collections.abc import Sequence

    from monitor.types import AlertChange


class Schedule(Protocol):
    """Times of a week."""

    def contains(self, at_us: int) -> bool:
        """Return whether a moment lies in them."""
        ...


@dataclass(frozen=True, slots=True)
class Channel:
    """A recipient of notifications, and the changes it wants."""

    name: str
    min_severity: Severity = Severity.WARNING
    fleets: Sequence[str] = ("*",)
    """Names or globs."""
    max_age_us: int | None = None
    """Longest delay from an event to its processing. A later change, as in a catch-up over old records, is not sent.
    None = every change is sent.
    """
    first_started_us: int = 0
    """First start of a daemon on this database. Alerts that opened earlier in event time are history, found by the
    first start: they are stored and not sent, unless every change is.
    """
    classes: Sequence[str] = tuple(AlertClass)
    schedule: Schedule | None = None
    """Only alerts that open or change in these times. None = always."""
    by_incident: bool = False
    """For people: one notification when an incident opens, when it becomes critical, and when all of it is over.
    False: for machines, each alert has its own."""

    def wants(self, change: AlertChange | DataAlertChange) -> bool:
        """Return True if class, severity, fleet and schedule match."""
        alert_class = change.alert_class if isinstance(change, DataAlertChange) else AlertClass.PROCESS
        return self.covers(alert_class, change.fleet, change.severity, (change.opened_us, change.at_us))

    def covers(self, alert_class: str, fleet: str | None, severity: str, times_us: Sequence[int] = ()) -> bool:
        """The same from the stored facts. An alert of a whole partition has no fleet, and matches every channel's."""
        is_severe = self.min_severity is Severity.WARNING or severity == Severity.CRITICAL
        is_fleet = fleet is None or any(fnmatchcase(fleet, each) for each in self.fleets)
        is_time = self.schedule is None or not times_us or any(map(self.schedule.contains, times_us))
        return alert_class in self.classes and is_severe and is_fleet and is_time

    def is_recent(self, change: AlertChange | DataAlertChange, at_us: int) -> bool:
        """Return True if the change, processed at `at_us`, is recent enough to be sent."""
        if self.max_age_us is None:
            return True
        return change.opened_us >= self.first_started_us and at_us - change.at_us <= self.max_age_us
