"""Parts of every drawing: the frame with title and description, paths of bounded length, escaped text.

Input: numbers and text. Output: SVG text. Invariants: text from outside is escaped and printable. No element has a
style attribute, which the console's content security policy forbids. No element has an id, so drawings stand side by
side on a page.
"""

from __future__ import annotations

import html
import re
from functools import cache
from importlib.resources import files
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from monitor.printable import escape_unprintable

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from monitor.drawing.scales import Tick

    Float64 = NDArray[np.float64]

COLUMNS = 600
"""Columns of a path. More could not be distinguished on a screen."""
AXIS_HEIGHT = 20
"""Height of the time axis below a plot, in pixels."""


def text(value: str) -> str:
    """Return text from outside as text of a document."""
    return html.escape(escape_unprintable(value))


def frame(kind: str, height: float, body: str, *, title: str, desc: str, label: str = "img") -> str:
    """Return the drawing. `kind`: a CSS class. `height`: in pixels. The width is that of its place.

    `label`: the ARIA role; "group" where parts of the drawing are links.
    """
    return (
        f'<svg class="drawing {kind}" role="{label}" width="100%" height="{height:g}" '
        f'xmlns="http://www.w3.org/2000/svg"><title>{text(title)}</title><desc>{text(desc)}</desc>{body}</svg>'
    )


def plot(height: float, body: str, *, n_columns: float = 1000, top: float = 0, bottom: float | None = None) -> str:
    """Return a part whose horizontal coordinates 0..n_columns fill the width. Its vertical ones are pixels.

    `top` and `bottom` cut it: parts of the same curve above and below a line may then have other colours.
    """
    end = height if bottom is None else bottom
    return (
        f'<svg y="{top:g}" width="100%" height="{end - top:g}" viewBox="0 {top:g} {n_columns:g} {end - top:g}" '
        f'preserveAspectRatio="none" aria-hidden="true">{body}</svg>'
    )


def percent(share: float) -> str:
    """Return a horizontal position."""
    return f"{100 * share:.4g}%"


def time_axis(ticks: list[Tick], since_us: int, until_us: int, height: float) -> str:
    """Return a rule for each tick over the height, and its label below."""
    span = max(1, until_us - since_us)
    parts = []
    for tick in ticks:
        share = (tick.at_us - since_us) / span
        anchor = ' text-anchor="start"' if share < 0.03 else ' text-anchor="end"' if share > 0.97 else ""
        x, major = percent(share), " major" if tick.is_major else ""
        parts.append(f'<line class="grid{major}" x1="{x}" x2="{x}" y1="0" y2="{height:g}"/>')
        parts.append(f'<text class="tick{major}" x="{x}" y="{height + 14:g}"{anchor}>{text(tick.label)}</text>')
    return "".join(parts)


def envelope(y: Float64, n_columns: int) -> str:
    """Return a line through the smallest and the largest y of each column, so that no peak is lost.

    Columns without values interrupt it.
    """
    starts = np.arange(n_columns) * len(y) // n_columns
    lows = np.fmin.reduceat(y, starts).round(1)
    highs = np.fmax.reduceat(y, starts).round(1)
    parts: list[str] = []
    last: float | None = None
    for x, (low, high) in enumerate(zip(lows.tolist(), highs.tolist(), strict=True)):
        if low != low:
            last = None
            continue
        first, then = (low, high) if last is None or abs(last - low) <= abs(last - high) else (high, low)
        parts.append(f"{'M' if last is None else 'L'}{x} {first:g}" + (f"V{then:g}" if then != first else ""))
        if last is None and then == first:
            parts.append("h.5")  # a single column is a dot, and SVG draws no line of length 0
        last = then
    return "".join(parts)


def runs(x: Float64, known: NDArray[np.bool_], gap: float) -> list[slice]:
    """Return the stretches of known points that lie no further apart than `gap`."""
    if not len(x):
        return []
    breaks = np.flatnonzero((np.diff(x) > gap) | (known[1:] != known[:-1])) + 1
    edges = [0, *breaks.tolist(), len(x)]
    return [slice(a, b) for a, b in pairwise(edges) if known[a]]


def polyline(x: Float64, y: Float64, known: NDArray[np.bool_], gap: float) -> str:
    """Return a line through the points. Unknown points and gaps interrupt it."""
    parts = []
    for run in runs(x, known, gap):
        points = zip(x[run].tolist(), y[run].tolist(), strict=True)
        parts.append("M" + "L".join(f"{a:.1f} {b:.1f}" for a, b in points))
        if run.stop - run.start == 1:
            parts.append("h1")
    return "".join(parts)


def area(x: Float64, low: Float64, high: Float64, known: NDArray[np.bool_], gap: float) -> str:
    """Return the area between two lines."""
    parts = []
    for run in runs(x, known, gap):
        up = [f"{a:.1f} {b:.1f}" for a, b in zip(x[run].tolist(), high[run].tolist(), strict=True)]
        down = [f"{a:.1f} {b:.1f}" for a, b in zip(x[run].tolist(), low[run].tolist(), strict=True)]
        parts.append("M" + "L".join([*up, *reversed(down)]) + "Z")
    return "".join(parts)


@cache
def stylesheet() -> str:
    """Return the rules of all drawings. A page includes them once."""
    return files(__package__).joinpath("drawing.css").read_text("utf-8")


def standalone(drawing: str, width: int, *, theme: str = "light") -> str:
    """Return a drawing that needs no page: with its rules, and of a fixed width in pixels.

    `theme`: light or dark, for readers that know no media queries, or auto.
    """
    rules = stylesheet()
    if theme != "auto":
        rules = re.sub(r"light-dark\(([^,()]+),\s*([^,()]+)\)", r"\1" if theme == "light" else r"\2", rules)
    else:
        rules = f":root{{color-scheme:light dark}}{rules}"
    font = "text{font-family:system-ui,'Segoe UI',Roboto,Helvetica,Arial,sans-serif}"
    head, body = drawing.split(">", 1)
    return f'{head.replace("100%", str(width), 1)}><style>{rules}{font}</style>{body}'
