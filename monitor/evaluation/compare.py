"""Alerts against labelled events, and alerts of two deciders against each other.

Input: events and the times of alerts. Output: a `LabelComparison`, or episodes.
Invariant: an event is found only if an alert was open during it. An alert that shares no moment with an event is
outside all events, even if it opens just after one. There is no tolerance.
"""

from __future__ import annotations

import statistics
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING, NamedTuple, Protocol, TypeVar

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_STILL_OPEN = 2**63


class Event(NamedTuple):
    """A labelled fault: [from_us, to_us)."""

    asset: str
    from_us: int
    to_us: int


class AlertSpan(NamedTuple):
    """Opening, firing and closing time of an alert."""

    asset: str
    opened_us: int
    """End of its first anomalous window."""
    fired_us: int
    """End of the window that confirmed it, which is when notifications are sent."""
    closed_us: int | None
    """None = still open."""


class AlertLike(Protocol):
    """The attributes of an alert by which alerts are grouped."""

    @property
    def asset(self) -> str:
        """Name of the asset."""
    @property
    def opened_us(self) -> int:
        """Opening time."""
    @property
    def closed_us(self) -> int | None:
        """Closing time. None = still open."""


T = TypeVar("T", bound=AlertLike)


@dataclass(frozen=True, slots=True)
class LabelComparison:
    """Number of alerts, and how they compare with the labelled events."""

    alerts: int
    events: int | None = None
    """None = there are no labels."""
    found: int | None = None
    outside: int | None = None
    """Alerts that share no moment with a labelled event."""
    delay_s: float | None = None
    """Median over the found events of the time from an event's first moment until its first alert fired."""
    alarmed_share: float | None = None
    """Share of the time without an event in which an alert was open. None = the compared time is not known."""
    always_open: int | None = None
    """Alerts that were open for most of that time. They are outside all events and find none."""


ALWAYS_OPEN = 0.5
"""Share of the time without an event, above which an open alert says nothing about the events that it meets."""

Periods = Mapping[str, tuple[int, int]]
"""Compared time [from, to) of each asset."""


def compare_with_labels(
    events: Sequence[Event] | None, alerts: Sequence[AlertSpan], periods: Periods | None = None
) -> LabelComparison:
    """Compare alerts with labelled events. `events` is None where the recording has no labels."""
    normal_us, alarmed_us = _normal_time(events or (), alerts, periods or {})
    total_us = sum(normal_us.values())
    share = sum(alarmed_us.values()) / total_us if total_us else None
    if events is None:
        return LabelComparison(len(alerts), alarmed_share=share)
    always = find_always_open(events, alerts, periods or {})
    fired_us: dict[Event, int] = {}
    inside = set()
    for event, alert in overlapping_pairs(events, [alert for alert in alerts if alert not in always]):
        fired_us[event] = min(alert.fired_us, fired_us.get(event, alert.fired_us))
        inside.add(alert)
    return LabelComparison(
        alerts=len(alerts),
        events=len(events),
        found=len(fired_us),
        outside=len(set(alerts) - inside),
        delay_s=_median(max(0, first_us - event.from_us) / 1e6 for event, first_us in fired_us.items()),
        alarmed_share=share,
        always_open=len(always) if total_us else None,
    )


def find_always_open(events: Sequence[Event], alerts: Sequence[AlertSpan], periods: Periods) -> set[AlertSpan]:
    """Return the alerts that were open for most of the time without an event."""
    normal_us, alarmed_us = _normal_time(events, alerts, periods)
    return {alert for alert, us in alarmed_us.items() if us > ALWAYS_OPEN * normal_us[alert.asset]}


def _normal_time(
    events: Sequence[Event], alerts: Sequence[AlertSpan], periods: Periods
) -> tuple[dict[str, int], dict[AlertSpan, int]]:
    """Return the time without an event of each asset, and of it the time in which each alert was open."""
    normal, alarmed = {}, {}
    for asset, (from_us, to_us) in periods.items():
        mine = sorted((event.from_us, event.to_us) for event in events if event.asset == asset)
        normal[asset] = _outside(mine, from_us, to_us)
        for alert in alerts:
            if alert.asset == asset:
                closed_us = to_us if alert.closed_us is None else min(alert.closed_us, to_us)
                alarmed[alert] = _outside(mine, max(alert.opened_us, from_us), closed_us)
    return normal, alarmed


def _outside(events: Sequence[tuple[int, int]], from_us: int, to_us: int) -> int:
    """Return the time of [from, to) that lies in none of the sorted events."""
    covered = 0
    for first, end in events:
        covered += max(0, min(end, to_us) - max(first, from_us))
    return max(0, to_us - from_us - covered)


def combine(parts: Sequence[LabelComparison]) -> LabelComparison:
    """Add up the counts. The delay is the median of the parts' delays."""
    labelled = [part for part in parts if part.events is not None]
    if not labelled:
        return LabelComparison(sum(part.alerts for part in parts))
    shares = [part.alarmed_share for part in labelled if part.alarmed_share is not None]
    return LabelComparison(
        alarmed_share=statistics.fmean(shares) if shares else None,
        always_open=sum(part.always_open or 0 for part in labelled) if shares else None,
        alerts=sum(part.alerts for part in parts),
        events=sum(part.events or 0 for part in labelled),
        found=sum(part.found or 0 for part in labelled),
        outside=sum(part.outside or 0 for part in labelled),
        delay_s=_median(part.delay_s for part in labelled if part.delay_s is not None),
    )


def _median(delays: Iterable[float]) -> float | None:
    known = list(delays)
    return statistics.median(known) if known else None


def overlapping_pairs(events: Iterable[Event], alerts: Iterable[AlertSpan]) -> Iterator[tuple[Event, AlertSpan]]:
    """Yield each event with each alert that was open during it.

    Costs one sort plus the pairs found, since the alerts of one asset do not overlap.
    """
    by_asset: dict[str, list[AlertSpan]] = defaultdict(list)
    for alert in sorted(alerts, key=lambda alert: alert.opened_us):
        by_asset[alert.asset].append(alert)
    opened = {asset: [alert.opened_us for alert in ours] for asset, ours in by_asset.items()}
    # The running maximum of the closing times is sorted, unlike these times, so it can be searched by bisection.
    until = {
        asset: list(accumulate((_STILL_OPEN if alert.closed_us is None else alert.closed_us for alert in ours), max))
        for asset, ours in by_asset.items()
    }
    for event in events:
        ours = by_asset.get(event.asset, [])
        first = bisect_right(until.get(event.asset, []), event.from_us)
        end = bisect_right(opened.get(event.asset, []), event.to_us)
        yield from ((event, alert) for alert in ours[first:end] if is_overlapping(event, alert))


def is_overlapping(event: Event, alert: AlertSpan) -> bool:
    """Return whether the alert was open at a moment of the event."""
    # `opened_us` is the end of a window, and a window's last moment lies just before its end.
    ends_later = alert.closed_us is None or alert.closed_us > event.from_us
    return event.asset == alert.asset and alert.opened_us - 1 < event.to_us and ends_later


def group_episodes(before: Iterable[T], after: Iterable[T]) -> Iterator[tuple[list[T], list[T]]]:
    """Group the alerts of two deciders into episodes, by asset and then in order of opening.

    Alerts of one asset that were open at the same moment belong to one episode, and so do two alerts that a third one
    links. Each alert is in exactly one episode. If all alerts of an episode come from one decider, the other decider
    had none open during it.
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
        until_us = max(until_us, _STILL_OPEN if alert.closed_us is None else alert.closed_us)
    if any(sides):
        yield sides
