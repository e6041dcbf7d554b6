"""Application of the times on which alerts and people have a say to the windows of a training.

Input: all windows of a fleet, and the judged times of its assets. Output: the windows that remain, marked, and the
times of those that were left out.
Invariant: pure, and no wall clock: the age of an alert counts to the newest window, so the same data give the same
version.

    fault, ignore, shelved, maintenance   windows that overlap it are neither trained on nor held out
    open, unlabelled                      windows that overlap it are held out, and not trained on. If it is an event
                                          (`events`), they do not move the threshold either
    accepted                              windows that end in it are trained on, and never trimmed
    normal                                nothing is done, and the receipt tells

A window that overlaps several follows the first of this list, but that an acceptance is stronger than an unlabelled
alert.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from monitor.models.spec import UsedTime
from monitor.training.events import ALERTED, JOIN_SPANS, events, single_events

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from monitor.models.spec import TrainingSet
    from monitor.types import Int32, Int64, JudgedTime

    Judged = Mapping[str, Sequence[JudgedTime]]
    """Asset → times on which an alert or a person has a say, without overlap."""

SKIPPED = ("fault", "ignore", "shelved", "maintenance")
ACCEPTED = ("accepted", "new_normal")
LABELLED_NORMAL = "labelled_normal"


def judge(
    windows: TrainingSet, judged: Judged, *, span_us: int, step_us: int, new_normal_us: int | None
) -> TrainingSet:
    """Return the windows that may be used, marked by what alerts and people say.

    `span_us`: length of a window. `step_us`: between two windows. `new_normal_us`: alerts of one event without a label
    that last longer are taken as the new normal. None = never.
    """
    times: list[JudgedTime] = []
    n = len(windows)
    alerted, accepted, gone = (np.full(n, -1, dtype=np.int32) for _ in range(3))
    normal = np.full(n, -1, dtype=np.int32)
    event = np.zeros(n, dtype=bool)
    newest_us = int(windows.end_us.max()) if n else 0
    for number, name in enumerate(windows.assets):
        rows = np.flatnonzero(windows.asset == number)
        rows = rows[np.argsort(windows.end_us[rows], kind="stable")]  # an asset may have changed its partition
        ends_us = windows.end_us[rows]
        here = _with_new_normal(judged.get(name, ()), newest_us, span_us, new_normal_us)
        for one in single_events(here, newest_us, span_us):
            first, beyond = np.searchsorted(ends_us, (one.from_us, one.to_us + span_us), "right")
            event[rows[first:beyond]] = True
            alerted[rows[first:beyond]] = len(times) + here.index(one.first)
        for each in here:
            first, last = np.searchsorted(ends_us, (each.from_us, each.to_us), "right")
            beyond = np.searchsorted(ends_us, each.to_us + span_us, "left")
            if each.reason in ACCEPTED:
                accepted[rows[first:last]] = len(times)
            else:
                marked = gone if each.reason in SKIPPED else alerted if each.reason in ALERTED else normal
                marked[rows[first : max(first, beyond)]] = len(times)
            times.append(each)
    kept = gone < 0
    cause = np.where(accepted >= 0, accepted, np.where(alerted >= 0, alerted, normal))
    skipped = _times(windows, np.flatnonzero(~kept), gone, times, step_us)
    if kept.all():
        values, asset, end_us = windows.values, windows.asset, windows.end_us  # 240 MB that need no copy
    else:
        values, asset, end_us = windows.values[kept], windows.asset[kept], windows.end_us[kept]
    return replace(
        windows,
        values=values,
        asset=asset,
        end_us=end_us,
        alerted=((alerted >= 0) & (accepted < 0))[kept],
        accepted=(accepted >= 0)[kept],
        event=(event & (accepted < 0))[kept],
        n_labelled=int((~kept).sum()),
        judged=tuple(times),
        cause=cause[kept],
        skipped=(*windows.skipped, *skipped),
    )


def without_continued(judged: Judged, span_us: int) -> dict[str, list[JudgedTime]]:
    """Return the judged times without the alerts by which an accepted time goes on.

    The champion goes on alarming after a change that was accepted, until another version decides. These alerts say
    nothing about that version, which is compared on exactly this time. `span_us`: length of a window.
    """
    found: dict[str, list[JudgedTime]] = {}
    for asset, times in judged.items():
        since_us: int | None = None
        found[asset] = kept = []
        for each in sorted(times, key=lambda each: each.from_us):
            goes_on = since_us is not None and each.from_us - since_us <= JOIN_SPANS * span_us
            if each.reason == "accepted" or (goes_on and each.reason in ALERTED):
                since_us = each.to_us
            if each.reason not in ALERTED or not goes_on:
                kept.append(each)
    return found


def _with_new_normal(
    times: Sequence[JudgedTime], newest_us: int, span_us: int, new_normal_us: int | None
) -> list[JudgedTime]:
    """Return the times, with unlabelled alerts that last so long as the new normal.

    Alerts of one event count as one. Scores near the threshold break an alert again and again, and a machine that
    nobody answers for would alarm for good.
    """
    lasting = [
        event
        for event in events(times, newest_us, span_us)
        if new_normal_us is not None and event.to_us - event.first.begin_us > new_normal_us
    ]
    found = []
    for each in times:
        if each.reason == "normal":
            found.append(each._replace(reason=LABELLED_NORMAL))
        elif each.reason in ALERTED and any(one.from_us <= each.from_us < one.to_us for one in lasting):
            found.append(each._replace(reason="new_normal"))
        else:
            found.append(each)
    return found


def _times(
    windows: TrainingSet, rows: Int64, cause: Int32, judged: Sequence[JudgedTime], step_us: int
) -> list[UsedTime]:
    """Return the times of these windows, which were left out for the judged time that `cause` names."""
    found: list[UsedTime] = []
    for row in rows.tolist():
        why, end_us = judged[cause[row]], int(windows.end_us[row])
        name = str(windows.asset_name(int(windows.asset[row])))
        last = found[-1] if found else None
        if last is not None and (last.asset, last.source, last.id, last.reason) == (
            name, why.source, why.id, why.reason
        ) and end_us - last.to_us <= step_us:  # fmt: skip
            found[-1] = last._replace(to_us=end_us, n_windows=last.n_windows + 1)
        else:
            found.append(UsedTime(name, end_us - step_us, end_us, "left_out", why.reason, why.source, why.id, 1))
    return found
