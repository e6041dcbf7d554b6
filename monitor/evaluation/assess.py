"""Scores and labels → figures, and the alerts behind them: ranking, events found, false alarms, delay.

In: a `Series` and what a method scored. Out: `Figures`, and `Alarms` with their `Course`. The law: alerts come from
the river's own `decide`, with the threshold at 1.0 as live; the labels are looked at only here, after every choice has
been made.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from monitor.evaluation.compare import AlertSpan, Event, compare, meetings
from monitor.evaluation.metrics import RangeF1, auc_pr, auc_roc, period, range_f1, ranges, vus_pr
from monitor.stream.alerting import AlertPolicy, Decider
from monitor.types import AlertState, Scores, Windows

if TYPE_CHECKING:
    from collections.abc import Iterable

    from monitor.evaluation.series import Series
    from monitor.types import AlertChange, Bool, Float32, Int32, Int64

WEEK_S = 7 * 86_400
ROWS_AT_ONCE = 1024
"""Stretches without an anomaly cost the decision nothing."""


@dataclass(frozen=True, slots=True)
class Figures:
    """What a method is worth on a series. None = the series has nothing to measure it by."""

    vus_pr: float | None
    auc_pr: float | None
    auc_roc: float | None
    range_f1: float | None
    range_precision: float | None
    range_recall: float | None
    rows: int
    """Behind the training rows."""
    unscored: int
    """Rows without a score; they rank lowest."""
    buffer: int
    """Of `vus_pr`, rows."""


@dataclass(frozen=True, slots=True)
class Alarms:
    """What a policy makes of the scores."""

    alerts: int
    events: int | None
    """None = there are no labels."""
    events_found: int | None
    false_alarms: int | None
    """Alerts that share no moment with a labelled event."""
    weeks: float
    """Scored time outside events."""
    false_alarms_per_week: float | None
    alarmed_share: float | None
    """Of the scored normal time, while an alert was open: one that never closes finds every event."""
    delay_s: float | None
    """Median over the events found: from an event's first moment until its first alert fired."""


@dataclass(frozen=True, slots=True)
class Mark:
    """An alert or an event as rows [first, beyond), and whether the two sides met."""

    first: int
    beyond: int
    is_met: bool


@dataclass(frozen=True, slots=True)
class Course:
    """Where alerts and events lie; rows count from the first behind the training rows."""

    alerts: tuple[Mark, ...]
    events: tuple[Mark, ...]


def figures(series: Series, score: Float32) -> Figures:
    """Judge scores [R] as a ranking, and the threshold by ranges."""
    label = series.rest
    buffer = period(series.data.values[:, 0])
    unscored = np.isnan(score)
    n_rows, n_unscored = len(score), int(unscored.sum())
    if label is None or not label.any() or label.all():
        return Figures(None, None, None, None, None, None, n_rows, n_unscored, buffer)
    ranked = np.nan_to_num(np.where(unscored, 0, score).astype(np.float64))
    cut: RangeF1 = range_f1(label, (ranked >= 1).astype(np.int8))
    return Figures(
        vus_pr=vus_pr(label, ranked, buffer),
        auc_pr=auc_pr(label, ranked),
        auc_roc=auc_roc(label, ranked),
        range_f1=cut.f1,
        range_precision=cut.precision,
        range_recall=cut.recall,
        rows=n_rows,
        unscored=n_unscored,
        buffer=buffer,
    )


def alarms(series: Series, score: Float32, policy: AlertPolicy) -> tuple[Alarms, Course]:
    """Judge scores [R] as the alerts that a policy makes of them."""
    step_us = max(1, round(series.data.interval_s * 1e6))
    label = series.rest
    spans = alert_spans(series.name, score, step_us, policy)
    events = None if label is None else [
        Event(series.name, first * step_us, beyond * step_us) for first, beyond in ranges(label).tolist()
    ]
    compared = compare(events, spans)
    normal: Bool = ~np.isnan(score) if label is None else ~np.isnan(score) & (label == 0)
    n_normal = int(normal.sum())
    weeks = n_normal * series.data.interval_s / WEEK_S
    course = _course(spans, events or [], step_us, len(score))
    alarmed = np.zeros(len(score), dtype=bool)
    for mark in course.alerts:
        alarmed[mark.first : mark.beyond] = True
    is_known = compared.outside is not None and weeks > 0
    found = Alarms(
        alerts=compared.alerts,
        events=compared.events,
        events_found=compared.found,
        false_alarms=compared.outside,
        weeks=weeks,
        false_alarms_per_week=(compared.outside or 0) / weeks if is_known else None,
        alarmed_share=float((alarmed & normal).sum() / n_normal) if n_normal else None,
        delay_s=compared.delay_s,
    )
    return found, course


def alert_spans(asset: str, score: Float32, step_us: int, policy: AlertPolicy) -> list[AlertSpan]:
    """Return the alerts of one asset's scores [R] at stride 1; the window of row r ends at (r + 1) · step."""
    decider, opened = Decider("evaluate", policy), OpenAlerts()
    for start in range(0, len(score), ROWS_AT_ONCE):
        part = score[start : start + ROWS_AT_ONCE]
        end_us = (np.arange(start, start + len(part), dtype=np.int64) + 1) * step_us
        opened.take(decider.decide(bare_scores(part, np.zeros(len(part), np.int32)), end_us))
    return [span._replace(asset=asset) for span in opened.spans(("",))]


def bare_scores(score: Float32, asset: Int32) -> Scores:
    """Return scores [N] as the decision takes them, without the windows they came from."""
    n = len(score)
    nothing: Int64 = np.zeros(n, dtype=np.int64)
    empty: Float32 = np.empty((n, 0, 0), dtype=np.float32)
    return Scores(Windows("evaluate", asset, nothing, empty, np.ones(n, np.int32), nothing, nothing), score,
                  ("",) * n, {})  # fmt: skip


class OpenAlerts:
    """Alert changes in order → when each alert opened, fired and closed."""

    def __init__(self) -> None:
        self._lives: dict[tuple[int, int], tuple[int, int | None]] = {}

    def take(self, changes: Iterable[AlertChange]) -> None:
        """Take in what changed."""
        for change in changes:
            name = (change.asset, change.opened_us)
            fired_us, _ = self._lives.get(name, (change.at_us, None))
            self._lives[name] = (fired_us, change.at_us if change.state is AlertState.CLOSED else None)

    def spans(self, assets: tuple[str, ...]) -> list[AlertSpan]:
        """Return the alerts so far in order of firing. `assets`: their names by number."""
        return [
            AlertSpan(assets[asset], opened_us, fired_us, closed_us)
            for (asset, opened_us), (fired_us, closed_us) in self._lives.items()
        ]


def _course(spans: list[AlertSpan], events: list[Event], step_us: int, n_rows: int) -> Course:
    def row(us: int | None) -> int:
        return n_rows if us is None else us // step_us

    met = list(meetings(events, spans))
    found, inside = {event for event, _ in met}, {span for _, span in met}
    return Course(
        tuple(Mark(row(span.opened_us) - 1, row(span.closed_us), span in inside) for span in spans),
        tuple(Mark(row(event.from_us), row(event.to_us), event in found) for event in events),
    )
