"""Alerts against labelled events: which were found, which were missed, which alerts nobody had labelled.

The law: strict. An event is found when an alert was open during it; an alert that shares no moment with an event is
outside, also when it opens just after one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence


class Event(NamedTuple):
    """A stretch that somebody labelled a fault: [from_us, to_us)."""

    asset: str
    from_us: int
    to_us: int


class AlertSpan(NamedTuple):
    """An alert's time."""

    asset: str
    opened_us: int
    """End of its first anomalous window."""
    fired_us: int
    """End of the window that confirmed it: nobody heard of it before."""
    closed_us: int | None
    """None = still open."""


@dataclass(frozen=True, slots=True)
class Compared:
    """What the labels say of the alerts."""

    alerts: int
    events: int | None = None
    """None = there are no labels."""
    found: int | None = None
    outside: int | None = None
    """Alerts that share no moment with a labelled event."""
    delay_s: float | None = None
    """Median over the events found: from an event's first moment until its first alert fired."""


def compare(events: Sequence[Event] | None, alerts: Sequence[AlertSpan]) -> Compared:
    """Hold alerts against labelled events; None = nobody labelled anything."""
    if events is None:
        return Compared(len(alerts))
    met = {event: [alert for alert in alerts if meets(event, alert)] for event in events}
    delays = sorted(
        max(0, min(alert.fired_us for alert in found) - event.from_us) / 1e6 for event, found in met.items() if found
    )
    inside = {alert for found in met.values() for alert in found}
    return Compared(
        alerts=len(alerts),
        events=len(events),
        found=len(delays),
        outside=len(set(alerts) - inside),
        delay_s=delays[len(delays) // 2] if delays else None,
    )


def together(parts: Sequence[Compared]) -> Compared:
    """Add up; the delay is the median of the parts'."""
    labelled = [part for part in parts if part.events is not None]
    if not labelled:
        return Compared(sum(part.alerts for part in parts))
    delays = sorted(part.delay_s for part in labelled if part.delay_s is not None)
    return Compared(
        alerts=sum(part.alerts for part in parts),
        events=sum(part.events or 0 for part in labelled),
        found=sum(part.found or 0 for part in labelled),
        outside=sum(part.outside or 0 for part in labelled),
        delay_s=delays[len(delays) // 2] if delays else None,
    )


def meets(event: Event, alert: AlertSpan) -> bool:
    """Say whether an alert was open at a moment of an event."""
    # `opened_us` is the end of a window: its last moment lies just before.
    ends_later = alert.closed_us is None or alert.closed_us > event.from_us
    return event.asset == alert.asset and alert.opened_us - 1 < event.to_us and ends_later
