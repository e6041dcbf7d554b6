"""Scores and labels → ranking metrics, and alert metrics with the alerts behind them.

Input: a `Series` and the scores of a method. Output: `RankingMetrics`, and `AlertMetrics` with their `Timeline`.
Invariant: alerts come from the pipeline's own `Decider`, with the threshold at 1.0 as live. Labels are read only here,
after all choices have been made.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from monitor.budget import WEEK_S
from monitor.evaluation.compare import AlertSpan, Event, compare_with_labels, find_always_open, overlapping_pairs
from monitor.evaluation.metrics import RangeF1, auc_pr, auc_roc, period, range_f1, ranges, vus_pr
from monitor.stream.alerting import AlertPolicy, Decider
from monitor.types import AlertState, Scores, Windows

if TYPE_CHECKING:
    from collections.abc import Iterable

    from monitor.evaluation.series import Series
    from monitor.types import AlertChange, Bool, Float32, Int32, Int64

ROWS_AT_ONCE = 1024
"""Rows per call of the decider, which skips a chunk without an anomaly."""


@dataclass(frozen=True, slots=True)
class RankingMetrics:
    """Quality of a method's scores as a ranking of rows. None = the series has no event, or nothing else."""

    vus_pr: float | None
    auc_pr: float | None
    auc_roc: float | None
    range_f1: float | None
    range_precision: float | None
    range_recall: float | None
    rows: int
    """Rows behind the training rows."""
    unscored: int
    """Rows without a score. They rank lowest."""
    buffer: int
    """Buffer of `vus_pr` in rows."""


@dataclass(frozen=True, slots=True)
class AlertMetrics:
    """Quality of the alerts that a policy raises by the scores."""

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
    """Share of the scored normal time with an open alert."""
    delay_s: float | None
    """Median over the found events of the time from an event's first moment until its first alert fired."""
    always_open: int | None = None
    """Alerts that were open for most of the normal time. They count as false alarms and find no event."""


@dataclass(frozen=True, slots=True)
class RowSpan:
    """An alert or an event as rows [first, end)."""

    first: int
    end: int
    is_matched: bool
    """True if the alert overlaps an event, or the event an alert."""


@dataclass(frozen=True, slots=True)
class Timeline:
    """Alerts and events by rows, counted from the first row behind the training rows."""

    alerts: tuple[RowSpan, ...]
    events: tuple[RowSpan, ...]


def assess_ranking(series: Series, score: Float32) -> RankingMetrics:
    """Measure scores [R] as a ranking, and those of at least 1.0 as ranges of rows."""
    label = series.test_labels
    buffer = period(series.data.values[:, 0])
    unscored = np.isnan(score)
    n_rows, n_unscored = len(score), int(unscored.sum())
    if label is None or not label.any() or label.all():
        return RankingMetrics(None, None, None, None, None, None, n_rows, n_unscored, buffer)
    ranked = np.nan_to_num(np.where(unscored, 0, score).astype(np.float64))
    at_threshold: RangeF1 = range_f1(label, (ranked >= 1).astype(np.int8))
    return RankingMetrics(
        vus_pr=vus_pr(label, ranked, buffer),
        auc_pr=auc_pr(label, ranked),
        auc_roc=auc_roc(label, ranked),
        range_f1=at_threshold.f1,
        range_precision=at_threshold.precision,
        range_recall=at_threshold.recall,
        rows=n_rows,
        unscored=n_unscored,
        buffer=buffer,
    )


def assess_alerts(series: Series, score: Float32, policy: AlertPolicy) -> tuple[AlertMetrics, Timeline]:
    """Measure the alerts that a policy raises by scores [R]."""
    step_us = max(1, round(series.data.interval_s * 1e6))
    label = series.test_labels
    spans = alert_spans(series.name, score, step_us, policy)
    events = None if label is None else [
        Event(series.name, first * step_us, end * step_us) for first, end in ranges(label).tolist()
    ]
    period = {series.name: (0, len(score) * step_us)}
    compared = compare_with_labels(events, spans, period)
    normal: Bool = ~np.isnan(score) if label is None else ~np.isnan(score) & (label == 0)
    n_normal = int(normal.sum())
    weeks = n_normal * series.data.interval_s / WEEK_S
    always = find_always_open(events or [], spans, period)
    timeline = _timeline(spans, always, events or [], step_us, len(score))
    alarmed = np.zeros(len(score), dtype=bool)
    for alert in timeline.alerts:
        alarmed[alert.first : alert.end] = True
    is_known = compared.outside is not None and weeks > 0
    metrics = AlertMetrics(
        alerts=compared.alerts,
        events=compared.events,
        events_found=compared.found,
        false_alarms=compared.outside,
        weeks=weeks,
        false_alarms_per_week=(compared.outside or 0) / weeks if is_known else None,
        alarmed_share=float((alarmed & normal).sum() / n_normal) if n_normal else None,
        delay_s=compared.delay_s,
        always_open=compared.always_open,
    )
    return metrics, timeline


def alert_spans(asset: str, score: Float32, step_us: int, policy: AlertPolicy) -> list[AlertSpan]:
    """Return the alerts of one asset's scores [R] at stride 1. The window of row r ends at (r + 1) · step."""
    decider, alerts = Decider("evaluate", policy), AlertTracker()
    for start in range(0, len(score), ROWS_AT_ONCE):
        part = score[start : start + ROWS_AT_ONCE]
        end_us = (np.arange(start, start + len(part), dtype=np.int64) + 1) * step_us
        alerts.update(decider.decide(bare_scores(part, np.zeros(len(part), np.int32)), end_us))
    return [span._replace(asset=asset) for span in alerts.spans(("",))]


def bare_scores(score: Float32, asset: Int32) -> Scores:
    """Wrap scores [N] for the decider, without the windows they belong to."""
    n = len(score)
    zeros: Int64 = np.zeros(n, dtype=np.int64)
    empty: Float32 = np.empty((n, 0, 0), dtype=np.float32)
    return Scores(Windows("evaluate", asset, zeros, empty, np.ones(n, np.int32), zeros, zeros), score,
                  ("",) * n, {})  # fmt: skip


class AlertTracker:
    """Times of alerts, collected from their changes in order."""

    def __init__(self) -> None:
        self._times: dict[tuple[int, int], tuple[int, int | None]] = {}

    def update(self, changes: Iterable[AlertChange]) -> None:
        """Add the next changes."""
        for change in changes:
            key = (change.asset, change.opened_us)
            fired_us, _ = self._times.get(key, (change.at_us, None))
            self._times[key] = (fired_us, change.at_us if change.state is AlertState.CLOSED else None)

    def spans(self, assets: tuple[str, ...]) -> list[AlertSpan]:
        """Return the alerts so far in order of firing. `assets`: names by asset index."""
        return [
            AlertSpan(assets[asset], opened_us, fired_us, closed_us)
            for (asset, opened_us), (fired_us, closed_us) in self._times.items()
        ]


def _timeline(
    spans: list[AlertSpan], always: set[AlertSpan], events: list[Event], step_us: int, n_rows: int
) -> Timeline:
    def row(us: int | None) -> int:
        return n_rows if us is None else us // step_us

    pairs = list(overlapping_pairs(events, [span for span in spans if span not in always]))
    found, inside = {event for event, _ in pairs}, {span for _, span in pairs}
    return Timeline(
        tuple(RowSpan(row(span.opened_us) - 1, row(span.closed_us), span in inside) for span in spans),
        tuple(RowSpan(row(event.from_us), row(event.to_us), event in found) for event in events),
    )
