"""One series on the page: its sensors, the scores of each method with the threshold at 1.0, events and alerts.

Input: the results of one series. Output: HTML.
Invariants: colour is never the only difference between two marks. Each mark has a tooltip.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from monitor.drawing import text as escape
from monitor.evaluation.plots import HEIGHT, THRESHOLD_Y

if TYPE_CHECKING:
    from collections.abc import Sequence

    from monitor.evaluation.assess import RowSpan
    from monitor.evaluation.plots import SeriesPlot
    from monitor.evaluation.results import MethodResult

MAX_MARKS = 400
"""Alerts drawn in one plot, the longest first. More could not be distinguished."""
_STEPS_S = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10800, 21600, 43200)
_DAYS = (1, 2, 5, 7, 14, 28, 56, 91, 182, 365, 730, 1825, 3650)


def section(anchor: str, title: tuple[str, str], results: Sequence[MethodResult]) -> str:
    """Return a series as a section of the page. `title`: set and name."""
    head = f"<h2><small>{escape(title[0])}</small> {escape(title[1])}</h2>"
    notes = _notes(results)
    drawn = next((one for one in results if one.plot is not None), None)
    if drawn is None or drawn.plot is None:
        return f'<section id="{anchor}">{head}{notes}</section>'
    facts = f'<p class="facts">{escape(_facts(results[0], drawn.plot))}</p>'
    return f'<section id="{anchor}">{head}{facts}{notes}<div class="chart">{_chart(drawn, results)}</div></section>'


def _notes(results: Sequence[MethodResult]) -> str:
    """Return the errors and warnings of a series."""
    errors = "".join(
        f'<p class="error"><b>{escape(one.method)}</b> {escape(one.error)}</p>' for one in results if one.error
    )
    warnings = dict.fromkeys(warning for one in results for warning in one.warnings)
    return errors + "".join(f'<p class="facts">{escape(warning)}</p>' for warning in warnings)


def _facts(first: MethodResult, plot: SeriesPlot) -> str:
    shown = len(plot.sensors)
    sensors = f"{plot.n_sensors} sensors" if plot.n_sensors > 1 else "one sensor"
    if shown < plot.n_sensors:
        sensors += f", the {shown} that move most are shown"
    length = duration_text(plot.n_rows * plot.interval_s)
    return (
        f"{plot.n_rows:,} rows, one each {duration_text(plot.interval_s)}, {length} in all; {sensors}; "
        f"learnt from the first {plot.train_rows:,} rows"
        + ("; without labels" if first.alerts and first.alerts.events is None else "")
    )


def _chart(drawn: MethodResult, results: Sequence[MethodResult]) -> str:
    """Return training rows and events behind a row for each sensor and each method, and the time axis."""
    plot = drawn.plot
    if plot is None:
        return ""
    found = {
        one.method: {event.first for event in one.timeline.events if event.is_matched}
        for one in results
        if one.timeline
    }
    events = [_event(event, plot, found) for event in (drawn.timeline.events if drawn.timeline else ())]
    training = f'<div class="train" style="width:{_percent(plot.train_rows, plot)}" title="Learnt from"></div>'
    rows = [
        f'<div class="row"><div class="name">{escape(each.name)}<span>{each.low:.4g} … {each.high:.4g}</span></div>'
        f'<div class="plot">{_svg("sensor", each.path, plot.n_columns)}</div></div>'
        for each in plot.sensors
    ]
    rows += [_scores(one) for one in results if one.plot is not None]
    return f'<div class="behind">{training}{"".join(events)}</div>{"".join(rows)}{_axis(plot)}'


def _scores(one: MethodResult) -> str:
    plot, ranking, alerts, timeline = one.plot, one.ranking, one.alerts, one.timeline
    if plot is None or ranking is None or alerts is None or timeline is None:
        return ""
    vus_pr = "" if ranking.vus_pr is None else f"<span>VUS-PR <b>{ranking.vus_pr:.3f}</b></span>"
    counts = f"{alerts.alerts} alerts" if alerts.false_alarms is None else f"{alerts.false_alarms:,} false"
    if alerts.events:
        counts = f"{alerts.events_found} of {alerts.events} found · {counts}"
    alarmed = ""
    if alerts.alarmed_share is not None:
        alarmed = f"<span>{float(f'{100 * alerts.alarmed_share:.2g}'):g} % of normal time alarmed</span>"
    has_labels = alerts.events is not None
    marks = [
        _outcome_mark(("found" if alert.is_matched else "false") if has_labels else "unknown", alert, plot)
        for alert in sorted(timeline.alerts, key=lambda alert: alert.first - alert.end)[:MAX_MARKS]
    ]
    marks += [_outcome_mark("missed", event, plot) for event in timeline.events if not event.is_matched]
    return (
        f'<div class="row score"><div class="name">{escape(one.method)}{vus_pr}<span>{counts}</span>{alarmed}</div>'
        f'<div class="plot">{_svg("score", plot.score, plot.n_columns)}'
        f'<div class="marks">{"".join(marks)}</div></div></div>'
    )


def _svg(kind: str, path: str, n_columns: int) -> str:
    line = f'<path class="line" d="M0 {THRESHOLD_Y}H{n_columns}"/>' if kind == "score" else ""
    return (
        f'<svg class="{kind}" viewBox="0 0 {n_columns} {HEIGHT}" preserveAspectRatio="none" aria-hidden="true">'
        f'{line}<path d="{path}"/></svg>'
    )


def _event(event: RowSpan, plot: SeriesPlot, found: dict[str, set[int]]) -> str:
    """Draw an event. `found`: by method, the first rows of the events that it found."""
    by = [method for method, firsts in found.items() if event.first in firsts]
    methods = f"found by {', '.join(by)}" if by else "found by no method"
    title = escape(f"Event {_when(event, plot)}; {methods}")
    return f'<i class="event" style="{_position(event, plot)}" title="{title}"></i>'


_TITLES = {
    "found": "Alert that met an event",
    "false": "False alarm",
    "missed": "Missed event",
    "unknown": "Alert (the recording has no labels)",
}


def _outcome_mark(kind: str, rows: RowSpan, plot: SeriesPlot) -> str:
    title = escape(f"{_TITLES[kind]} {_when(rows, plot)}")
    return f'<i class="{kind}" style="{_position(rows, plot)}" title="{title}"></i>'


def _position(rows: RowSpan, plot: SeriesPlot) -> str:
    left = rows.first + plot.train_rows
    return f"left:{_percent(left, plot)};width:{_percent(rows.end - rows.first, plot)}"


def _percent(n_rows: int, plot: SeriesPlot) -> str:
    return f"{100 * n_rows / plot.n_rows:.4g}%"


def _when(rows: RowSpan, plot: SeriesPlot) -> str:
    begin_s = (rows.first + plot.train_rows) * plot.interval_s
    return f"at {duration_text(begin_s)}, for {duration_text((rows.end - rows.first) * plot.interval_s)}"


def _axis(plot: SeriesPlot) -> str:
    whole_s = plot.n_rows * plot.interval_s
    steps = (*_STEPS_S, *(day * 86_400 for day in _DAYS))
    step = next((step for step in steps if whole_s / step <= 8), steps[-1])
    n_ticks = min(8, int(whole_s // step))
    ticks = "".join(
        f'<i style="left:{100 * k * step / whole_s:.4g}%">{duration_text(k * step) if k else "0"}</i>'
        for k in range(n_ticks + 1)
        if k * step / whole_s < 0.93
    )
    return f'<div class="row axis"><div class="name"></div><div class="plot">{ticks}</div></div>'


def duration_text(seconds: float) -> str:
    """Return a duration in its two largest units: "3 h 20 min"."""
    if seconds < 1:
        return f"{seconds * 1000:g} ms"
    left = round(timedelta(seconds=seconds).total_seconds())
    parts = []
    for name, size in (("d", 86_400), ("h", 3600), ("min", 60), ("s", 1)):
        n, left = divmod(left, size)
        if n:
            parts.append(f"{n:,} {name}")
        if len(parts) == 2 or (parts and not n):
            break
    return " ".join(parts) or "0 s"
