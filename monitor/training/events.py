"""Distinction of the alerts without a label: false alarms, and events.

Input: the judged times of an asset. Output: the events among them.
Invariant: a function of the alerts' times alone. No label and no score is used.

Nobody has said what these alerts were. A false alarm must count when the threshold is placed: without it the threshold
would follow the windows that never alarmed, and each retraining would alarm more than the last. A fault of days must
not count: a tenth of the held-out windows above the threshold lift it above the fault itself, and the retrained version
would no longer find it. The two differ in their duration. A false alarm is an unusual moment, which the windows that
contain it keep in sight for their length. An event goes on. Events that come back again and again count as false
alarms, too: a mis-fit version raises them, and would raise more after each training.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable

    from monitor.types import JudgedTime

ALERTED = ("open", "unlabelled")
"""Reasons of alerts without a label."""
EVENT_SPANS = 1.5
"""Lengths of a window that the alerts of an event last for, together. Measured on 20 clean simulated machines of ten
kinds, retrained weekly for six weeks with the PCA (`tests/quality/machines.py`, seeds 0 and 1): 15 false alarms, which
lasted for .12 to .50 lengths."""
JOIN_SPANS = 2.0
"""Lengths of a window between two alerts of one event. A fault whose scores are near the threshold alarms again and
again, and its windows in between are no healthy ones."""

RECURRING = 3
"""Events of an asset in one history from which on they move the threshold like false alarms. A machine that starts once
a week, and whose runs alarm, had them all taken as events: its threshold fell from 15 to .27 in two weeks, and each run
alarmed for good (simulated `rare starts`, seed 7010, PCA, a first threshold .7 times as high)."""


class Event(NamedTuple):
    """Alerts of one asset that were no false alarms, as one time (from_us, to_us]."""

    from_us: int
    to_us: int
    alert_us: int
    """Time in alerts."""
    first: JudgedTime
    """The first of the alerts."""


def events(times: Iterable[JudgedTime], newest_us: int, span_us: int) -> list[Event]:
    """Return the events among the judged times of an asset. `span_us`: length of a window.

    An event begins a length before its first alert, since the fault was there before it was found.
    """
    found: list[Event] = []
    for each in sorted((each for each in times if each.reason in ALERTED), key=lambda each: each.from_us):
        end_us = min(each.to_us, newest_us)
        lasted_us = max(0, end_us - each.from_us)
        last = found[-1] if found else None
        if last is not None and each.from_us - last.to_us <= JOIN_SPANS * span_us:
            found[-1] = last._replace(to_us=max(last.to_us, end_us), alert_us=last.alert_us + lasted_us)
        else:
            found.append(Event(each.from_us, end_us, lasted_us, each))
    return [
        each._replace(from_us=each.from_us - span_us) for each in found if each.alert_us >= EVENT_SPANS * span_us
    ]


def single_events(times: Iterable[JudgedTime], newest_us: int, span_us: int) -> list[Event]:
    """Return the events, or none if they recur: then they may be a state of the machine, and a label must tell."""
    found = events(times, newest_us, span_us)
    return found if len(found) < RECURRING else []
