"""I6: the notifications that the stored alerts require, compared with the requests that the receiver got.

Input: rows and arrivals. Output: problems. Invariant: the required notifications follow from the stored alerts, which
the oracle has verified. The outbox is not trusted. A notification may arrive twice only if the sender could not know of
the first arrival: the lease changed hands, or its holder was killed or suspended, between the two.
"""

from __future__ import annotations

import json
from bisect import bisect_right
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from tests.chaos.receiver import Arrival

CHANNEL = "duty"
ATTEMPT_S = 6.0
"""An attempt takes at most five seconds, and its outcome is stored a moment later."""
SUSPENDED_S = 30.0
"""A process suspended before an attempt makes it afterwards, when another holds the lease. No fault lasts longer."""
ORDER = ("firing", "critical", "closed")
"""Steps with a notification, in the order within an alert."""

ALERTS = """
    SELECT asset.fleet, asset.name, alert.opened_us, alert.closed_us, alert.severity, t.severity AS fired_as
    FROM alert JOIN asset ON asset.id = alert.asset_id
    JOIN alert_transition t ON t.alert_id = alert.id AND t.seq = 1
"""
DATA_ALERTS = """
    SELECT kind, topic, partition, from_offset, subject, closed_us FROM alert WHERE class = 'data'
"""
OUTBOX = "SELECT dedup_key, attempts, delivered_us FROM outbox"
HOLDERS = "SELECT at, epoch, holder FROM chaos_lease ORDER BY id"


@dataclass
class NotificationReport:
    """Delivery of the notifications of a run."""

    delivered: int = 0
    """Notifications that were accepted."""
    failed: int = 0
    """Requests that the receiver refused or left unanswered."""
    repeated: int = 0
    """Accepted requests whose notification had been accepted before."""
    problems: list[str] = field(default_factory=list)


def expected_notifications(alerts: Iterable[Sequence[Any]]) -> set[str]:
    """Return the key of every notification that these alerts (rows of ALERTS) require."""
    keys = set()
    for fleet, asset, opened_us, closed_us, severity, fired_as in alerts:
        alert = f"{CHANNEL}:{fleet}/{asset}:{opened_us}"
        keys.add(f"{alert}:firing")
        if (fired_as, severity) == ("warning", "critical"):
            keys.add(f"{alert}:critical")
        if closed_us is not None:
            keys.add(f"{alert}:closed")
    return keys


def expected_data_notifications(alerts: Iterable[Sequence[Any]]) -> set[str]:
    """The same for rows of DATA_ALERTS."""
    return {
        f"{CHANNEL}:data:{kind}/{topic}/{number}:{offset}{f':{subject}' if subject else ''}:{step}"
        for kind, topic, number, offset, subject, closed_us in alerts
        for step in (("firing",) if closed_us is None else ("firing", "closed"))
    }


def is_all_sent(fetch: Callable[[str], Sequence[Any]]) -> bool:
    """Return True if the outbox has nothing left to send."""
    return all(delivered_us is not None for _, _, delivered_us in fetch(OUTBOX))


def audit(
    fetch: Callable[[str], Sequence[Any]], arrivals: Sequence[Arrival], faults: Iterable[tuple[float, int]]
) -> NotificationReport:
    """Compare them. `faults`: (time, pid) of each kill and each suspension of a daemon."""
    expected = expected_notifications(fetch(ALERTS)) | expected_data_notifications(fetch(DATA_ALERTS))
    stored = {key: (attempts, delivered_us) for key, attempts, delivered_us in fetch(OUTBOX)}
    attempts = Counter(arrival.key for arrival in arrivals)
    accepted: dict[str, list[float]] = defaultdict(list)
    for arrival in arrivals:
        if arrival.answer == "accepted":
            accepted[arrival.key].append(arrival.at)
    found = NotificationReport(len(accepted), sum(arrival.answer != "accepted" for arrival in arrivals))
    found.repeated = sum(map(len, accepted.values())) - len(accepted)

    for key in sorted(expected - accepted.keys()):
        what = "is marked delivered" if stored.get(key, (0, None))[1] is not None else f"outbox: {stored.get(key)}"
        found.problems.append(f"I6: {key} never arrived; {what}")
    found.problems += [f"I6: {key} arrived, of no alert that is stored" for key in sorted(attempts.keys() - expected)]
    found.problems += [f"I6: {key} waits, of no alert that is stored" for key in sorted(stored.keys() - expected)]
    for key, n in attempts.items():
        if key in stored and n > stored[key][0]:
            found.problems.append(f"I6: {key} came {n} times and {stored[key][0]} attempts were counted")
    holders = LeaseHolders(fetch(HOLDERS), faults)
    for key, times in accepted.items():
        for first, again in pairwise(times):
            if not holders.may_repeat(first, again):
                found.problems.append(f"I6: {key} arrived at {first:.2f} and again at {again:.2f}, for no reason")
    found.problems += _out_of_order(accepted)
    found.problems += _wrong_bodies(arrivals)
    return found


class LeaseHolders:
    """The holders of the outbox's lease over time, and their faults."""

    def __init__(self, holders: Iterable[Sequence[Any]], faults: Iterable[tuple[float, int]]) -> None:
        self._holders = [(at, epoch, int(holder.split(":")[1])) for at, epoch, holder in holders]
        self._faults = list(faults)

    def may_repeat(self, first: float, again: float) -> bool:
        """Return True if the sender of the second request could not know of the first."""
        before, after = self._held(first), self._held(again)
        if before is None or before != after:
            return True
        return any(
            first - (ATTEMPT_S if pid == before[1] else SUSPENDED_S) <= at <= again
            for at, pid in self._faults
            if (struck := self._held(at)) is not None and struck[1] == pid
        )

    def _held(self, at: float) -> tuple[int, int] | None:
        """(epoch, pid) of the holder at that time."""
        place = bisect_right(self._holders, at, key=lambda row: row[0])
        return self._holders[place - 1][1:] if place else None


def _out_of_order(accepted: dict[str, list[float]]) -> list[str]:
    first: dict[str, dict[str, float]] = defaultdict(dict)
    for key, times in accepted.items():
        alert, _, step = key.rpartition(":")
        first[alert][step] = times[0]
    return [
        f"I6: notifications of {alert} arrived out of order: {steps}"
        for alert, steps in first.items()
        if (times := [steps[step] for step in ORDER if step in steps]) != sorted(times)
    ]


def _wrong_bodies(arrivals: Iterable[Arrival]) -> list[str]:
    bodies: dict[str, set[bytes]] = defaultdict(set)
    for arrival in arrivals:
        bodies[arrival.key].add(arrival.body)
    found = [f"I6: {key} arrived with {len(each)} bodies" for key, each in bodies.items() if len(each) > 1]
    for key, (body, *_) in bodies.items():
        sent = json.loads(body)
        if (sent["key"], sent["step"]) != (key, key.rpartition(":")[2]):
            found.append(f"I6: {key} arrived with the body {sent}")
    return found
