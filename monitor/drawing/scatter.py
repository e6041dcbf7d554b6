"""A map of points: the latents of windows in two dimensions.

Input: positions, a shade of each, marks. Output: SVG text. Invariant: a marked point differs in shape, not only in
colour.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from monitor.drawing.svg import text

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import ArrayLike

SIZE, MARGIN, LEGEND = 560, 40, 44
MOST_POINTS = 6000
"""Points that are drawn, evenly spaced. More hide one another. Marked ones are all drawn, up to as many."""
EARLY, LATE, MARK = (43, 108, 176), (221, 145, 40), (200, 40, 40)


def scatter(
    x: ArrayLike,
    y: ArrayLike,
    shade: ArrayLike,
    marked: ArrayLike,
    *,
    title: str,
    desc: str,
    axes: tuple[str, str],
    ends: tuple[str, str],
    mark_name: str,
) -> str:
    """Return a map. `shade`: 0..1 of each point, from blue to orange. `ends`: the legend of its ends.

    `marked`: points drawn as crosses, with the legend `mark_name`.
    """
    x, y, shade = (np.asarray(each, dtype=np.float64) for each in (x, y, shade))
    marked = np.asarray(marked, dtype=bool)
    left, top = (_placed(each) for each in (x, -y))
    body = [_point(left[n], top[n], shade[n]) for n in _some(np.flatnonzero(~marked))]
    body += [_cross(left[n], top[n]) for n in _some(np.flatnonzero(marked))]
    width, height = SIZE, SIZE + LEGEND
    frame = f'<rect x="0.5" y="0.5" width="{width - 1}" height="{SIZE - 1}" fill="none" stroke="#888"/>'
    legend = (
        f'<text x="{width / 2}" y="{SIZE - 10}" text-anchor="middle" fill="#888">{text(axes[0])}</text>'
        f'<text x="16" y="{SIZE / 2}" text-anchor="middle" fill="#888" transform="rotate(-90 16 {SIZE / 2})">'
        f"{text(axes[1])}</text>"
        f'<circle cx="12" cy="{SIZE + 20}" r="5" fill="{_colour(0.0)}"/>'
        f'<text x="24" y="{SIZE + 25}" fill="#888">{text(ends[0])}</text>'
        f'<circle cx="212" cy="{SIZE + 20}" r="5" fill="{_colour(1.0)}"/>'
        f'<text x="224" y="{SIZE + 25}" fill="#888">{text(ends[1])}</text>'
        f'{_cross(412, SIZE + 20)}<text x="424" y="{SIZE + 25}" fill="#888">{text(mark_name)}</text>'
    )
    return (
        f'<svg class="drawing scatter" role="img" width="{width}" height="{height}" viewBox="0 0 {width} {height}" '
        f'font-family="system-ui,sans-serif" font-size="13" xmlns="http://www.w3.org/2000/svg">'
        f"<title>{text(title)}</title><desc>{text(desc)}</desc>{frame}{''.join(body)}{legend}</svg>"
    )


def _placed(values: np.ndarray[tuple[int, ...], np.dtype[np.float64]]) -> list[float]:
    """Return positions in pixels. The outer half percent at each end is drawn at the edge."""
    if not len(values):
        return []
    low, high = np.quantile(values, [0.005, 0.995])
    share = np.clip((values - low) / max(high - low, 1e-12), 0, 1)
    placed: list[float] = (MARGIN + share * (SIZE - 2 * MARGIN)).round(1).tolist()
    return placed


def _some(rows: Sequence[int] | np.ndarray[tuple[int, ...], np.dtype[np.int64]]) -> list[int]:
    step = max(1, -(-len(rows) // MOST_POINTS))
    return [int(row) for row in rows[::step]]


def _point(x: float, y: float, shade: float) -> str:
    return f'<circle cx="{x:g}" cy="{y:g}" r="2" fill="{_colour(shade)}" fill-opacity="0.6"/>'


def _cross(x: float, y: float) -> str:
    red, green, blue = MARK
    return (
        f'<path d="M{x - 4:g} {y - 4:g}l8 8m0-8l-8 8" stroke="#{red:02x}{green:02x}{blue:02x}" stroke-width="1.5" '
        'fill="none"/>'
    )


def _colour(shade: float) -> str:
    parts = [round(a + (b - a) * min(1.0, max(0.0, shade))) for a, b in zip(EARLY, LATE, strict=True)]
    return "#" + "".join(f"{each:02x}" for each in parts)
