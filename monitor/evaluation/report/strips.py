"""A series on the page: its sensors, the scores of each method with the line at 1.0, events, alerts and misses.

In: what was finished of one series. Out: HTML. The law: what a colour says a shape says too, and every mark explains
itself when it is pointed at.
"""

from __future__ import annotations

from datetime import timedelta
from html import escape
from typing import TYPE_CHECKING

from monitor.evaluation.report.picture import HEIGHT, LINE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from monitor.evaluation.assess import Mark
    from monitor.evaluation.evaluate import Finished
    from monitor.evaluation.report.picture import Picture

MOST_MARKS = 400
"""Of a strip; a method that rings more often than that is a carpet anyway."""
_STEPS_S = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10800, 21600, 43200)
_DAYS = (1, 2, 5, 7, 14, 28, 56, 91, 182, 365, 730, 1825, 3650)


def section(anchor: str, title: tuple[str, str], finished: Sequence[Finished]) -> str:
    """Return a series as a section of the page. `title`: its set and its name."""
    first = finished[0]
    head = f"<h2><small>{escape(title[0])}</small> {escape(title[1])}</h2>"
    doubts = dict.fromkeys(warning for one in finished for warning in one.warnings)
    drawn = next((one for one in finished if one.picture is not None), None)
    failed = "".join(
        f'<p class="error"><b>{escape(one.method)}</b> {escape(one.error)}</p>' for one in finished if one.error
    )
    failed += "".join(f'<p class="facts">{escape(doubt)}</p>' for doubt in doubts)
    if drawn is None or drawn.picture is None:
        return f'<section id="{anchor}">{head}{failed}</section>'
    picture = drawn.picture
    found = {
        one.method: {mark.first for mark in one.course.events if mark.is_met} for one in finished if one.course
    }
    events = [_event(mark, picture, found) for mark in (drawn.course.events if drawn.course else ())]
    learnt = f'<div class="train" style="width:{_percent(picture.train_rows, picture)}" title="Learnt from"></div>'
    rows = [
        f'<div class="row"><div class="name">{escape(strip.name)}<span>{strip.low:.4g} … {strip.high:.4g}</span></div>'
        f'<div class="plot">{_svg("sensor", strip.path, picture.n_columns)}</div></div>'
        for strip in picture.sensors
    ]
    rows += [_scores(one) for one in finished if one.picture is not None]
    chart = f'<div class="behind">{learnt}{"".join(events)}</div>{"".join(rows)}{_axis(picture)}'
    facts = f'<p class="facts">{escape(_facts(first, picture))}</p>'
    return f'<section id="{anchor}">{head}{facts}{failed}<div class="chart">{chart}</div></section>'


def _facts(first: Finished, picture: Picture) -> str:
    shown = len(picture.sensors)
    sensors = f"{picture.n_sensors} sensors" if picture.n_sensors > 1 else "one sensor"
    if shown < picture.n_sensors:
        sensors += f", the {shown} that move most are shown"
    length = span(picture.n_rows * picture.interval_s)
    return (
        f"{picture.n_rows:,} rows, one each {span(picture.interval_s)}, {length} in all; {sensors}; "
        f"learnt from the first {picture.train_rows:,} rows"
        + ("; without labels" if first.alarms and first.alarms.events is None else "")
    )


def _scores(one: Finished) -> str:
    picture, figures, alarms, course = one.picture, one.figures, one.alarms, one.course
    if picture is None or figures is None or alarms is None or course is None:
        return ""
    ranking = "" if figures.vus_pr is None else f"<span>VUS-PR <b>{figures.vus_pr:.3f}</b></span>"
    words = f"{alarms.alerts} alerts" if alarms.false_alarms is None else f"{alarms.false_alarms:,} false"
    if alarms.events:
        words = f"{alarms.events_found} of {alarms.events} found · {words}"
    alarmed = ""
    if alarms.alarmed_share is not None:
        alarmed = f"<span>{float(f'{100 * alarms.alarmed_share:.2g}'):g} % of normal time alarmed</span>"
    kind = "unknown" if alarms.events is None else ""
    marks = [
        _mark(kind or ("found" if mark.is_met else "false"), mark, picture)
        for mark in sorted(course.alerts, key=lambda mark: mark.first - mark.beyond)[:MOST_MARKS]
    ]
    marks += [_mark("missed", mark, picture) for mark in course.events if not mark.is_met]
    return (
        f'<div class="row score"><div class="name">{escape(one.method)}{ranking}<span>{words}</span>{alarmed}</div>'
        f'<div class="plot">{_svg("score", picture.score, picture.n_columns)}'
        f'<div class="marks">{"".join(marks)}</div></div></div>'
    )


def _svg(kind: str, path: str, n_columns: int) -> str:
    line = f'<path class="line" d="M0 {LINE}H{n_columns}"/>' if kind == "score" else ""
    return (
        f'<svg class="{kind}" viewBox="0 0 {n_columns} {HEIGHT}" preserveAspectRatio="none" aria-hidden="true">'
        f'{line}<path d="{path}"/></svg>'
    )


def _event(mark: Mark, picture: Picture, found: dict[str, set[int]]) -> str:
    by = [method for method, firsts in found.items() if mark.first in firsts]
    said = f"found by {', '.join(by)}" if by else "found by nobody"
    title = escape(f"Event {_when(mark, picture)}; {said}")
    return f'<i class="event" style="{_place(mark, picture)}" title="{title}"></i>'


_WORDS = {
    "found": "Alert that met an event",
    "false": "False alarm",
    "missed": "Missed event",
    "unknown": "Alert (the recording has no labels)",
}


def _mark(kind: str, mark: Mark, picture: Picture) -> str:
    title = escape(f"{_WORDS[kind]} {_when(mark, picture)}")
    return f'<i class="{kind}" style="{_place(mark, picture)}" title="{title}"></i>'


def _place(mark: Mark, picture: Picture) -> str:
    left = mark.first + picture.train_rows
    return f"left:{_percent(left, picture)};width:{_percent(mark.beyond - mark.first, picture)}"


def _percent(rows: int, picture: Picture) -> str:
    return f"{100 * rows / picture.n_rows:.4g}%"


def _when(mark: Mark, picture: Picture) -> str:
    begin = (mark.first + picture.train_rows) * picture.interval_s
    return f"at {span(begin)}, for {span((mark.beyond - mark.first) * picture.interval_s)}"


def _axis(picture: Picture) -> str:
    whole_s = picture.n_rows * picture.interval_s
    steps = (*_STEPS_S, *(day * 86_400 for day in _DAYS))
    step = next((step for step in steps if whole_s / step <= 8), steps[-1])
    n_ticks = min(8, int(whole_s // step))
    ticks = "".join(
        f'<i style="left:{100 * k * step / whole_s:.4g}%">{span(k * step) if k else "0"}</i>'
        for k in range(n_ticks + 1)
        if k * step / whole_s < 0.93
    )
    return f'<div class="row axis"><div class="name"></div><div class="plot">{ticks}</div></div>'


def span(seconds: float) -> str:
    """Write a duration in its two largest units: "3 h 20 min"."""
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
