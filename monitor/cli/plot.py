"""A series of scores as a picture of characters.

Enters: times, scores (None = unscored) and the room there is. Leaves: lines of ink.
Law: no peak is lost: a column is as high as the highest score of its time. The line at 1.0 is always there.
"""

from __future__ import annotations

import math
from itertools import groupby
from typing import TYPE_CHECKING

from monitor.cli.terminal import Styled

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

# Braille: a character's dots from the bottom up, left column and right.
_LEFT = (0, 0x40, 0x44, 0x46, 0x47)
_RIGHT = (0, 0x80, 0xA0, 0xB0, 0xB8)
_BLANK = 0x2800
_LABELS = 6
_TICKS = (0, 0.5, 2, 5, 10, 20, 50, 100, 1e3, 1e4, 1e6)
_THRESHOLD = "╌"


def height_of(score: float) -> float:
    """Bend the axis above the threshold, so that a peak of 300 does not press 1.0 to the floor."""
    return max(score, 0.0) if score <= 1 else 1 + 0.5 * math.log(score)


def plot(
    times: Sequence[datetime], scores: Sequence[float | None], *, width: int = 80, rows: int = 10
) -> list[list[Styled]]:
    """Draw scores over time: normal in green, above the threshold in red, nothing where nothing was scored."""
    n = max(8, width - _LABELS - 3)
    columns = _columns(times, scores, 2 * n)
    top = height_of(max([1.6, *(score for score in columns if score is not None)]))
    dots = [0 if score is None else max(1, round(height_of(score) / top * rows * 4)) for score in columns]
    line = rows - math.ceil(rows * 4 / top / 4)
    labels = _labels(rows, top, line)
    lines = []
    for row in range(rows):
        axis = f"{labels.get(row, ''):>{_LABELS}} {'┤' if row in labels else '│'}"
        inks = [Styled(axis, "bold" if row == line else "dim")]
        floor = (rows - 1 - row) * 4
        cells = []
        for x in range(0, 2 * n, 2):
            left, right = (min(4, max(0, dots[x + side] - floor)) for side in (0, 1))
            is_high = row <= line and max(columns[x] or 0, columns[x + 1] or 0) >= 1
            if left or right:
                cells.append(("red" if is_high else "green", chr(_BLANK | _LEFT[left] | _RIGHT[right])))
            else:
                cells.append(("yellow", _THRESHOLD) if row == line else ("", " "))
        for style, run in groupby(cells, key=lambda cell: cell[0]):
            inks.append(Styled("".join(character for _, character in run), style))
        lines.append(inks)
    lines.append([Styled(f"{'':{_LABELS}} └{'─' * n}", "dim")])
    first, last = (f"{moment:%Y-%m-%d %H:%M}" for moment in (times[0], times[-1]))
    gap = n - len(first) - len(last)
    lines.append([Styled(f"{'':{_LABELS + 2}}{first}{' ' * gap + last if gap > 0 else ''}", "dim")])
    return lines


def _columns(times: Sequence[datetime], scores: Sequence[float | None], n: int) -> list[float | None]:
    """Sort the scores into n columns of equal time and keep the highest of each; join neighbours."""
    span = (times[-1] - times[0]).total_seconds() or 1.0
    columns: list[float | None] = [None] * n
    before: tuple[int, float] | None = None
    for moment, score in zip(times, scores, strict=True):
        if score is None:
            before = None
            continue
        x = min(n - 1, int((moment - times[0]).total_seconds() / span * n))
        columns[x] = max(columns[x] or 0.0, score)
        if before is not None:
            x0, y0 = before
            for between in range(x0 + 1, x):
                columns[between] = y0 + (score - y0) * (between - x0) / (x - x0)
        before = (x, score)
    return columns


def _labels(rows: int, top: float, line: int) -> dict[int, str]:
    labels = {line: "1.0"}
    for tick in _TICKS:
        row = min(rows - 1, rows - math.ceil(height_of(tick) / top * rows))
        if row >= 0 and not labels.keys() & {row - 1, row, row + 1}:
            labels[row] = f"{tick:g}"
    return labels
