"""Alerts against labelled events: which were found, which were missed, which alerts nobody had labelled. And alerts
against those of another decider over the same time: which of them speak of the same episode.

The law: strict. An event is found when an alert was open during it; an alert that shares no moment with an event is
outside, also when it opens just after one.
"""

from __future__ import annotations

import statistics
from bisect import bisect_right
from collections import defaultdict
from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING, NamedTuple, Protocol, TypeVar

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence


_NEVER = 2**63


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


class Open(Protocol):
    """Whatever is open on an asset for a time."""

    @property
    def asset(self) -> str:
        """Its name."""
    @property
    def opened_us(self) -> int:
        """Since when."""
    @property
    def closed_us(self) -> int | None:
        """Until when; None = still."""


T = TypeVar("T", bound=Open)


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
    fired_us: dict[Event, int] = {}
    inside = set()
    for event, alert in meetings(events, alerts):
        fired_us[event] = min(alert.fired_us, fired_us.get(event, alert.fired_us))
        inside.add(alert)
    return Compared(
        alerts=len(alerts),
        events=len(events),
        found=len(fired_us),
        outside=len(set(alerts) - inside),
        delay_s=_median(max(0, first_us - event.from_us) / 1e6 for event, first_us in fired_us.items()),
    )


def together(parts: Sequence[Compared]) -> Compared:
    """Add up; the delay is the median of the parts'."""
    labelled = [part for part in parts if part.events is not None]
    if not labelled:
        return Compared(sum(part.alerts for part in parts))
    return Compared(
        alerts=sum(part.alerts for part in parts),
        events=sum(part.events or 0 for part in labelled),
        found=sum(part.found or 0 for part in labelled),
        outside=sum(part.outside or 0 for part in labelled),
        delay_s=_median(part.delay_s for part in labelled if part.delay_s is not None),
    )


def _median(delays: Iterable[float]) -> float | None:
    known = list(delays)
    return statistics.median(known) if known else None


def meetings(events: Iterable[Event], alerts: Iterable[AlertSpan]) -> Iterator[tuple[Event, AlertSpan]]:
    """Yield each event with each alert that was open during it. Costs a sort and what is found: the alerts of one asset
    do not overlap.
    """
    by_asset: dict[str, list[AlertSpan]] = defaultdict(list)
    for alert in sorted(alerts, key=lambda alert: alert.opened_us):
        by_asset[alert.asset].append(alert)
    opened = {asset: [alert.opened_us for alert in mine] for asset, mine in by_asset.items()}
    # How long any so far stays open: it rises, whatever the alerts, so a search may begin with it.
    until = {
        asset: list(accumulate((_NEVER if alert.closed_us is None else alert.closed_us for alert in mine), max))
        for asset, mine in by_asset.items()
    }
    for event in events:
        mine = by_asset.get(event.asset, [])
        first = bisect_right(until.get(event.asset, []), event.from_us)
        beyond = bisect_right(opened.get(event.asset, []), event.to_us)
        yield from ((event, alert) for alert in mine[first:beyond] if meets(event, alert))


def meets(event: Event, alert: AlertSpan) -> bool:
    """Say whether an alert was open at a moment of an event."""
    # `opened_us` is the end of a window: its last moment lies just before.
    ends_later = alert.closed_us is None or alert.closed_us > event.from_us
    return event.asset == alert.asset and alert.opened_us - 1 < event.to_us and ends_later


def episodes(before: Iterable[T], after: Iterable[T]) -> Iterator[tuple[list[T], list[T]]]:
    """Put together what two deciders said of the same time: on each asset, alerts that were open at one moment are one
    episode, and so are those that a third one links. Each alert is in exactly one; those of a decider alone in it met
    none of the other's. By asset, then in order of opening.
    """
    sided = [(alert, 0) for alert in before] + [(alert, 1) for alert in after]
    sided.sort(key=lambda each: (each[0].asset, each[0].opened_us))
    asset, until_us = None, 0
    sides: tuple[list[T], list[T]] = ([], [])
    for alert, side in sided:
        if alert.asset != asset or alert.opened_us > until_us:
            if any(sides):
                yield sides
            sides, asset, until_us = ([], []), alert.asset, alert.opened_us
        sides[side].append(alert)
        until_us = max(until_us, _NEVER if alert.closed_us is None else alert.closed_us)
    if any(sides):
        yield sides
