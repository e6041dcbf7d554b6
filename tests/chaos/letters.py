"""I6: what people had to be told, against what arrived at the other end of the webhook. Rows and arrivals in, problems
out.

The one law: what must be told follows from the alerts that are stored, whose every step the oracle has judged; nothing
of the outbox is believed. A letter may arrive twice only where the sender cannot have known of the first time: the
lease changed hands, or its holder was killed or stood still, while the letter was in its hands.
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
CRITICAL = 3.0
"""Of an alert's peak."""
TRY_S = 6.0
"""A try takes five seconds at most; and a moment until its outcome is written down."""
SLEEP_S = 30.0
"""Who stood still before a try may make it when he wakes, although another has the lease since. No fault is longer."""
ORDER = ("firing", "critical", "closed")
"""Steps that people are told of; each alert's in this order."""

ALERTS = """
    SELECT asset.fleet, asset.name, alert.opened_us, alert.closed_us, alert.peak_score, t.peak_score AS fired_with
    FROM alert JOIN asset ON asset.id = alert.asset_id
    JOIN alert_transition t ON t.alert_id = alert.id AND t.seq = 1
"""
DATA_ALERTS = """
    SELECT kind, topic, partition, from_offset, closed_us FROM alert WHERE class = 'data'
"""
OUTBOX = "SELECT dedup_key, attempts, delivered_us FROM outbox"
HOLDERS = "SELECT at, epoch, holder FROM nemesis_lease ORDER BY id"


@dataclass
class Account:
    """What became of the letters of a run."""

    told: int = 0
    """Letters that arrived."""
    failed: int = 0
    """Tries that the receiver refused or left unanswered."""
    twice: int = 0
    """Arrivals that were answered well, of letters that had been before."""
    problems: list[str] = field(default_factory=list)


def must_be_told(alerts: Iterable[Sequence[Any]]) -> set[str]:
    """Return the key of every letter that these alerts (rows of ALERTS) call for."""
    keys = set()
    for fleet, asset, opened_us, closed_us, peak, peak_at_first in alerts:
        alert = f"{CHANNEL}:{fleet}/{asset}:{opened_us}"
        keys.add(f"{alert}:firing")
        if peak_at_first < CRITICAL <= peak:
            keys.add(f"{alert}:critical")
        if closed_us is not None:
            keys.add(f"{alert}:closed")
    return keys


def must_be_told_of_data(alerts: Iterable[Sequence[Any]]) -> set[str]:
    """The same for rows of DATA_ALERTS."""
    return {
        f"{CHANNEL}:data:{kind}/{topic}/{number}:{offset}:{step}"
        for kind, topic, number, offset, closed_us in alerts
        for step in (("firing",) if closed_us is None else ("firing", "closed"))
    }


def is_all_sent(fetch: Callable[[str], Sequence[Any]]) -> bool:
    """Whether the engine thinks that nothing is left to send."""
    return all(delivered_us is not None for _, _, delivered_us in fetch(OUTBOX))


def account(
    fetch: Callable[[str], Sequence[Any]], arrivals: Sequence[Arrival], faults: Iterable[tuple[float, int]]
) -> Account:
    """Judge them. `faults`: (time, pid) of each kill and each standstill of a daemon."""
    expected = must_be_told(fetch(ALERTS)) | must_be_told_of_data(fetch(DATA_ALERTS))
    stored = {key: (attempts, delivered_us) for key, attempts, delivered_us in fetch(OUTBOX)}
    tries = Counter(arrival.key for arrival in arrivals)
    heard: dict[str, list[float]] = defaultdict(list)
    for arrival in arrivals:
        if arrival.answer == "heard":
            heard[arrival.key].append(arrival.at)
    found = Account(len(heard), sum(arrival.answer != "heard" for arrival in arrivals))
    found.twice = sum(map(len, heard.values())) - len(heard)

    for key in sorted(expected - heard.keys()):
        what = "is marked delivered" if stored.get(key, (0, None))[1] is not None else f"outbox: {stored.get(key)}"
        found.problems.append(f"I6: {key} never arrived; {what}")
    found.problems += [f"I6: {key} arrived, of no alert that is stored" for key in sorted(tries.keys() - expected)]
    found.problems += [f"I6: {key} waits, of no alert that is stored" for key in sorted(stored.keys() - expected)]
    for key, n in tries.items():
        if key in stored and n > stored[key][0]:
            found.problems.append(f"I6: {key} came {n} times and {stored[key][0]} tries were counted")
    hands = Hands(fetch(HOLDERS), faults)
    for key, times in heard.items():
        for first, again in pairwise(times):
            if not hands.may_repeat(first, again):
                found.problems.append(f"I6: {key} arrived at {first:.2f} and again at {again:.2f}, for no reason")
    found.problems += _out_of_order(heard)
    found.problems += _wrong_bodies(arrivals)
    return found


class Hands:
    """Who held the outbox's lease when, and what befell them."""

    def __init__(self, holders: Iterable[Sequence[Any]], faults: Iterable[tuple[float, int]]) -> None:
        self._holders = [(at, epoch, int(holder.split(":")[1])) for at, epoch, holder in holders]
        self._faults = list(faults)

    def may_repeat(self, first: float, again: float) -> bool:
        """Whether who sent it again cannot have known of the first time."""
        before, after = self._held(first), self._held(again)
        if before is None or before != after:
            return True
        return any(
            first - (TRY_S if pid == before[1] else SLEEP_S) <= at <= again
            for at, pid in self._faults
            if (struck := self._held(at)) is not None and struck[1] == pid
        )

    def _held(self, at: float) -> tuple[int, int] | None:
        """(epoch, pid) of the holder at that time."""
        place = bisect_right(self._holders, at, key=lambda row: row[0])
        return self._holders[place - 1][1:] if place else None


def _out_of_order(heard: dict[str, list[float]]) -> list[str]:
    first: dict[str, dict[str, float]] = defaultdict(dict)
    for key, times in heard.items():
        alert, _, step = key.rpartition(":")
        first[alert][step] = times[0]
    return [
        f"I6: letters of {alert} arrived out of order: {steps}"
        for alert, steps in first.items()
        if (times := [steps[step] for step in ORDER if step in steps]) != sorted(times)
    ]


def _wrong_bodies(arrivals: Iterable[Arrival]) -> list[str]:
    bodies: dict[str, set[bytes]] = defaultdict(set)
    for arrival in arrivals:
        bodies[arrival.key].add(arrival.body)
    found = [f"I6: {key} arrived with {len(each)} bodies" for key, each in bodies.items() if len(each) > 1]
    for key, (body, *_) in bodies.items():
        said = json.loads(body)
        if (said["key"], said["step"]) != (key, key.rpartition(":")[2]):
            found.append(f"I6: {key} arrived with the body {said}")
    return found
