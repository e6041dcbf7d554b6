"""Drawings of marks: swim lanes, bars of hours, contributions, states, sparklines.

Input: scores by column of time (None = unscored or no data), shares, states. Output: SVG text.
"""

from __future__ import annotations

from datetime import UTC, tzinfo
from itertools import groupby
from typing import TYPE_CHECKING, NamedTuple

from monitor.drawing import svg
from monitor.drawing.scales import time_ticks

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence


class Level(NamedTuple):
    """A range of scores in a swim lane."""

    least: float
    name: str
    height: float
    """Share of the lane's height."""


LEVELS = (
    Level(0.0, "normal", 0.22),
    Level(0.6, "near the threshold", 0.4),
    Level(1.0, "above the threshold", 0.62),
    Level(2.0, "over 2×", 0.8),
    Level(5.0, "over 5×", 1.0),
)
"""Levels by their least score. Height and lightness both rise with them."""
THRESHOLD_LEVEL = 3
"""Number of the first level above the threshold."""
MAX_LINKS = 8
"""Links in one lane."""


def level_of(score: float | None) -> int:
    """Return the number 1..5 of a score's level. 0 = no score."""
    return 0 if score is None else max(1, sum(score >= level.least for level in LEVELS))


def lane(
    scores: Sequence[float | None],
    *,
    title: str,
    desc: str,
    height: float = 22,
    link: Callable[[int, int], str] | None = None,
    name: Callable[[int, int], str] | None = None,
) -> str:
    """Draw one asset's worst score by column: the worse, the higher and darker.

    `link`, `name`: address and accessible name of a stretch of columns [a, b) above the threshold.
    """
    n = max(1, len(scores))
    levels = [level_of(score) for score in scores]
    linked = _stretches(levels) if link is not None else []
    inside = {k for begin, end in linked for k in range(begin, end)}
    body = _columns(levels, [k for k in range(len(levels)) if k not in inside], height)
    for begin, end in linked:
        label = svg.text(name(begin, end)) if name else ""
        address = svg.text(link(begin, end)) if link else ""
        body += f'<a href="{address}" aria-label="{label}">{_columns(levels, range(begin, end), height)}</a>'
    body = (
        f'<svg width="100%" height="{height:g}" viewBox="0 0 {n} {height:g}" preserveAspectRatio="none">'
        f'<path class="ground" d="M0 {height - 1:g}h{n}v1H0z"/>{body}</svg>'
    )
    return svg.frame("lane", height, body, title=title, desc=desc, label="group" if linked else "img")


def _stretches(levels: Sequence[int]) -> list[tuple[int, int]]:
    """Return the stretches above the threshold, at most `MAX_LINKS`, the newest. Two that nearly touch are one."""
    found: list[tuple[int, int]] = []
    for k, level in enumerate(levels):
        if level < THRESHOLD_LEVEL:
            continue
        if found and k - found[-1][1] <= 1:
            found[-1] = (found[-1][0], k + 1)
        else:
            found.append((k, k + 1))
    return found[-MAX_LINKS:]


def _columns(levels: Sequence[int], columns: Sequence[int], height: float) -> str:
    """Draw columns as one path for each level, equal neighbours as one rectangle."""
    paths: dict[int, str] = {}
    # Neighbours differ from their place in the list by the same number.
    for (level, _), group in groupby(enumerate(columns), key=lambda pair: (levels[pair[1]], pair[1] - pair[0])):
        stretch = [k for _, k in group]
        if level:
            size = round(LEVELS[level - 1].height * height, 1)
            wide = len(stretch) - (0.12 if level >= THRESHOLD_LEVEL else 0)
            shape = f"M{stretch[0]} {height - size:g}h{wide:g}v{size:g}h-{wide:g}z"
            paths[level] = paths.get(level, "") + shape
    return "".join(f'<path class="l{level}" d="{d}"/>' for level, d in paths.items())


def time_axis(since_us: int, until_us: int, *, zone: tzinfo = UTC, n: int = 7, title: str = "Time axis") -> str:
    """Draw the axis above or below lanes."""
    axis = svg.time_axis(time_ticks(since_us, until_us, zone, n), since_us, until_us, 4)
    return svg.frame("axis", 4 + svg.AXIS_HEIGHT, axis, title=title, desc="")


def lanes(
    rows: Mapping[str, Sequence[float | None]],
    since_us: int,
    until_us: int,
    *,
    title: str,
    desc: str,
    zone: tzinfo = UTC,
    names: str = "17%",
) -> str:
    """Draw the lanes of a few assets as one picture with their names, for reports and messages."""
    parts, pitch = [], 26
    total = pitch * len(rows)
    for n, (asset, scores) in enumerate(rows.items()):
        columns = max(1, len(scores))
        levels = [level_of(score) for score in scores]
        parts.append(f'<text x="0" y="{n * pitch + 16}" text-anchor="start">{svg.text(asset)}</text>')
        parts.append(
            f'<svg x="{names}" y="{n * pitch}" width="{100 - float(names.rstrip("%")):g}%" height="22" '
            f'viewBox="0 0 {columns} 22" preserveAspectRatio="none">{_columns(levels, range(len(levels)), 22)}</svg>'
        )
    axis = svg.time_axis(time_ticks(since_us, until_us, zone), since_us, until_us, total)
    parts.append(f'<svg x="{names}" width="{100 - float(names.rstrip("%")):g}%" overflow="visible">{axis}</svg>')
    return svg.frame("lanes", total + svg.AXIS_HEIGHT, "".join(parts), title=title, desc=desc)


def contributions(share: float, onset: float | None = None, *, title: str, kind: str = "") -> str:
    """Draw a sensor's share at the peak as a bar, and that at the onset as a thinner one below.

    `kind`: "calm" for a share that is no cause of alarm.
    """
    body = '<rect class="ground" width="100%" height="14" rx="2"/>'
    high = 14 if onset is None else 8
    body += f'<rect class="share {kind}" width="{svg.percent(min(1.0, max(0.0, share)))}" height="{high}" rx="2"/>'
    if onset is not None:
        body += f'<rect class="share onset" y="9" width="{svg.percent(min(1.0, max(0.0, onset)))}" height="5" rx="2"/>'
    return svg.frame("contribution", 14, body, title=title, desc="")


def state_strip(
    states: Sequence[tuple[str, int, int]],
    since_us: int,
    until_us: int,
    *,
    title: str,
    desc: str,
    zone: tzinfo = UTC,
    marks: Sequence[tuple[int, str]] = (),
) -> str:
    """Draw the states of an alert over time. `states`: (state, from, to). `marks`: acts with their times."""
    span, height = max(1, until_us - since_us), 22
    parts = []
    for state, begin, end in states:
        left, right = ((at - since_us) / span for at in (begin, end))
        parts.append(
            f'<rect class="{svg.text(state)}" x="{svg.percent(left)}" width="{svg.percent(max(0.002, right - left))}" '
            f'height="{height}" rx="2"/>'
        )
        if right - left > 0.16:
            tone = "on dark" if state == "closed" else "on"
            parts.append(f'<text class="{tone}" x="{svg.percent(left + 0.008)}" y="15">{svg.text(state)}</text>')
    for at_us, name in marks:
        if since_us <= at_us <= until_us:
            x = svg.percent((at_us - since_us) / span)
            dot = f'<circle class="dot" cx="{x}" cy="{height / 2:g}" r="5"/>'
            parts.append(f"<g><title>{svg.text(name)}</title>{dot}</g>")
    axis = svg.time_axis(time_ticks(since_us, until_us, zone), since_us, until_us, height)
    return svg.frame("strip", height + svg.AXIS_HEIGHT, axis + "".join(parts), title=title, desc=desc)


def sparkline(values: Sequence[float | None], *, title: str, desc: str = "", height: float = 36) -> str:
    """Draw numbers as bars from zero, such as records an hour. None = unknown."""
    n, most = max(1, len(values)), max((value for value in values if value is not None), default=0.0) or 1.0
    bars = "".join(
        f'<rect class="l2" x="{k + 0.1:g}" width="0.8" y="{height - height * value / most:.1f}" '
        f'height="{max(0.8, height * value / most):.1f}"/>'
        for k, value in enumerate(values)
        if value is not None
    )
    body = (
        f'<svg width="100%" height="{height:g}" viewBox="0 0 {n} {height:g}" preserveAspectRatio="none">'
        f'<rect class="ground" y="{height - 1:g}" width="{n}" height="1"/>{bars}</svg>'
    )
    return svg.frame("sparkline", height, body, title=title, desc=desc)
