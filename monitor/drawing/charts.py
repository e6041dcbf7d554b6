"""Drawings of curves: a sensor with its expected band, scores against the threshold, a curve of choices.

Input: times in µs since 1970 and values, NaN where there is none. Output: SVG text.
"""

from __future__ import annotations

from datetime import UTC, tzinfo
from typing import TYPE_CHECKING

import numpy as np

from monitor.drawing import svg
from monitor.drawing.scales import THRESHOLD_SHARE, score_position, short_number, time_ticks, value_ticks

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import ArrayLike, NDArray

    Float64 = NDArray[np.float64]
    Bool = NDArray[np.bool_]

WIDTH = 1000.0
"""Horizontal coordinates of a plot. It is stretched to its place."""
GAP = 2.5
"""A line is interrupted between two points this many times as far apart as most are."""
PAD = 5.0
"""Distance of the highest and lowest value from the edges of a plot, in pixels."""


def sensor_chart(
    times_us: ArrayLike,
    values: ArrayLike,
    *,
    title: str,
    desc: str,
    expected: ArrayLike | None = None,
    low: ArrayLike | None = None,
    high: ArrayLike | None = None,
    since_us: int | None = None,
    until_us: int | None = None,
    zone: tzinfo = UTC,
    edges_us: Sequence[int] = (),
    height: float = 76,
    with_axis: bool = False,
) -> str:
    """Draw a sensor's values over time, with the values that were expected and the band around them.

    Values outside the band are drawn thick and in another colour. `edges_us`: times with a vertical line, such as the
    beginning of an alert.
    """
    times, y = _array(times_us), _array(values)
    since, until = _range(times, since_us, until_us)
    x, gap = _x(times, since, until), _gap(times, since, until)
    lines = {"expected": expected, "low": low, "high": high}
    found = {name: _array(line) for name, line in lines.items() if line is not None}
    bottom, top = _extent([y, *found.values()])
    place = _placer(bottom, top, height)
    parts = []
    if "low" in found and "high" in found:
        lower, upper = found["low"], found["high"]
        banded = np.isfinite(lower) & np.isfinite(upper)
        parts.append(f'<path class="band" d="{svg.area(x, place(lower), place(upper), banded, gap)}"/>')
    if "expected" in found:
        line = svg.polyline(x, place(found["expected"]), np.isfinite(found["expected"]), gap)
        parts.append(f'<path class="expected" d="{line}"/>')
    known = np.isfinite(y)
    parts.append(f'<path class="line" d="{svg.polyline(x, place(y), known, gap)}"/>')
    if "low" in found and "high" in found:
        outside = known & ((y < found["low"]) | (y > found["high"]))
        # Its neighbours belong to the thick line, or a single value would be a dot.
        near = known & (outside | np.append(outside[1:], False) | np.append(False, outside[:-1]))
        parts.append(f'<path class="line hot" d="{svg.polyline(x, place(y), near, gap)}"/>' if outside.any() else "")
    grid, labels = "", ""
    for tick in value_ticks(bottom, top, 2):
        at = float(place(np.array(tick)))
        grid += f'<line class="grid" x1="0" x2="100%" y1="{at:.1f}" y2="{at:.1f}"/>'
        labels += f'<text class="value" x="2" y="{min(height - 1, max(10, at + 3.5)):.1f}">{short_number(tick)}</text>'
    body = grid + _edges(edges_us, since, until, height) + svg.plot(height, "".join(parts)) + labels
    return _with_axis("sensor-chart", body, since, until, zone, height, with_axis, title, desc)


def score_chart(
    times_us: ArrayLike,
    scores: ArrayLike,
    *,
    title: str,
    desc: str,
    since_us: int | None = None,
    until_us: int | None = None,
    zone: tzinfo = UTC,
    edges_us: Sequence[int] = (),
    spans: Sequence[tuple[int, int, str]] = (),
    height: float = 110,
    with_axis: bool = True,
) -> str:
    """Draw anomaly scores over time: linear up to the threshold 1.0, logarithmic above it.

    `spans`: alerts as (from, to, kind), marked below the threshold. `kind`: a CSS class such as `fault`.
    """
    times, score = _array(times_us), _array(scores)
    since, until = _range(times, since_us, until_us)
    known = np.isfinite(score)
    peak = float(score[known].max()) if known.any() else 1.0
    decades = max(0.5, np.ceil(np.log10(max(peak, 1.0)) * 2) / 2)
    y = height - PAD - (height - 2 * PAD) * score_position(np.where(known, score, 0.0), decades=decades)
    threshold_y = height - PAD - (height - 2 * PAD) * THRESHOLD_SHARE
    x, y, known = _thinned(_x(times, since, until), y, known)
    gap = WIDTH * GAP / max(1, len(x)) if len(x) > svg.COLUMNS else _gap(times, since, until)
    line = svg.polyline(x, y, known, gap)
    under = svg.area(x, np.full(len(y), height), y, known, gap)
    hot = f'<path class="fill hot" d="{under}"/><path class="line hot" d="{line}"/>' if peak >= 1 else ""
    body = _score_grid(threshold_y, decades) + _edges(edges_us, since, until, height)
    body += svg.plot(height, hot, bottom=threshold_y) if hot else ""
    body += svg.plot(height, f'<path class="line calm" d="{line}"/>', top=threshold_y)
    body += f'<line class="threshold" x1="0" x2="100%" y1="{threshold_y:.1f}" y2="{threshold_y:.1f}"/>'
    for begin, end, kind in spans:
        left, right = (min(1.0, max(0.0, (at - since) / max(1, until - since))) for at in (begin, end))
        width = max(0.003, right - left)
        body += (
            f'<rect class="mark {svg.text(kind)}" x="{svg.percent(left)}" width="{svg.percent(width)}" '
            f'y="{height - 5:g}" height="5" rx="1.5"/>'
        )
    body += f'<text class="value" x="2" y="{threshold_y - 4:.1f}">threshold</text>'
    return _with_axis("score-chart", body, since, until, zone, height, with_axis, title, desc)


def curve(
    points: Sequence[tuple[str, float]], chosen: int, *, title: str, desc: str, height: float = 150, unit: str = ""
) -> str:
    """Draw a value for each of a few choices in a row, with the chosen one marked. The axis is logarithmic above 1."""
    if not points:
        return ""
    values = np.array([value for _, value in points], np.float64)
    heights = np.log10(1 + values) / max(0.3, float(np.log10(1 + values.max())))
    y = height - 14 - (height - 34) * heights
    x = (np.arange(len(points)) + 0.5) / len(points)
    line = svg.polyline(x * WIDTH, y, np.full(len(x), True), WIDTH)
    body = f'<line class="grid major" x1="0" x2="100%" y1="{height - 14:g}" y2="{height - 14:g}"/>'
    body += svg.plot(height, f'<path class="line calm" d="{line}"/>')
    for n, (name, value) in enumerate(points):
        is_chosen = " chosen" if n == chosen else ""
        at, radius = svg.percent(float(x[n])), 6 if is_chosen else 4
        body += (
            f'<g data-choice="{n}"><circle class="dot{is_chosen}" cx="{at}" cy="{y[n]:.1f}" r="{radius}"/>'
            f'<text class="major" x="{at}" y="{y[n] - 10:.1f}">{short_number(value)}{svg.text(unit)}</text>'
            f'<text x="{at}" y="{height + 2:g}">{svg.text(name)}</text></g>'
        )
    return svg.frame("curve", height + 8, body, title=title, desc=desc)


def _with_axis(
    kind: str, body: str, since: int, until: int, zone: tzinfo, height: float, with_axis: bool, title: str, desc: str
) -> str:
    axis = svg.time_axis(time_ticks(since, until, zone), since, until, height) if until > since else ""
    total = height + (svg.AXIS_HEIGHT if with_axis else 0)
    return svg.frame(kind, total, (axis if with_axis else _without_labels(axis)) + body, title=title, desc=desc)


def _without_labels(axis: str) -> str:
    return "".join(part for part in axis.replace("/>", "/>\n").splitlines() if part.startswith("<line"))


def _array(values: ArrayLike) -> Float64:
    return np.asarray(values, np.float64)


def _range(times: Float64, since_us: int | None, until_us: int | None) -> tuple[int, int]:
    first, last = (int(times[0]), int(times[-1])) if len(times) else (0, 0)
    return (first if since_us is None else since_us), (last if until_us is None else until_us)


def _x(times: Float64, since: int, until: int) -> Float64:
    return (times - since) * (WIDTH / max(1, until - since))


def _gap(times: Float64, since: int, until: int) -> float:
    """Return the distance beyond which a line is interrupted."""
    steps = np.diff(times)
    usual = float(np.quantile(steps, 0.9)) if len(steps) else 0.0
    return max(1.0, GAP * usual * WIDTH / max(1, until - since))


def _extent(lines: Sequence[Float64]) -> tuple[float, float]:
    known = np.concatenate([line[np.isfinite(line)] for line in lines])
    if not len(known):
        return 0.0, 1.0
    low, high = float(known.min()), float(known.max())
    if high - low <= 1e-9 * max(abs(low), abs(high), 1e-9):
        room = abs(low) * 0.05 or 1.0
        return low - room, high + room
    return low, high


def _placer(low: float, high: float, height: float) -> Callable[[Float64], Float64]:
    def place(values: Float64) -> Float64:
        return height - PAD - (height - 2 * PAD) * (values - low) / (high - low)

    return place


def _edges(edges_us: Sequence[int], since: int, until: int, height: float) -> str:
    return "".join(
        f'<line class="edge" x1="{svg.percent((at - since) / max(1, until - since))}" '
        f'x2="{svg.percent((at - since) / max(1, until - since))}" y1="0" y2="{height:g}"/>'
        for at in edges_us
        if since <= at <= until
    )


def _score_grid(threshold_y: float, decades: float) -> str:
    parts, free = [], threshold_y - 12  # the label of the threshold is there
    for value in (2, 5, 10, 20, 50, 100, 1000, 10_000):
        share = np.log10(value) / decades
        y = threshold_y - (threshold_y - PAD) * share
        if share <= 1 and y <= free:
            free = y - 14
            parts.append(f'<line class="grid" x1="0" x2="100%" y1="{y:.1f}" y2="{y:.1f}"/>')
            parts.append(f'<text class="value" x="2" y="{max(9.0, y - 3):.1f}">{value:,}×</text>')
    return "".join(parts)


def _thinned(x: Float64, y: Float64, known: Bool) -> tuple[Float64, Float64, Bool]:
    """Return at most two points for each column: the highest and the lowest."""
    if len(x) <= 2 * svg.COLUMNS:
        return x, y, known
    starts = np.arange(svg.COLUMNS) * len(x) // svg.COLUMNS
    filled = np.where(known, y, np.nan)
    lows, highs = np.fmin.reduceat(filled, starts), np.fmax.reduceat(filled, starts)
    wide_y = np.column_stack((highs, lows)).ravel()
    wide_x = np.repeat(x[starts], 2)
    is_known = np.isfinite(wide_y)
    return wide_x, np.where(is_known, wide_y, 0.0), is_known
