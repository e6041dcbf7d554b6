"""A series of scores as a picture of characters.

Enters: times, scores (None = unscored) and the room there is. Leaves: lines of rich text.
Law: a peak is never lost: a column shows the highest and the lowest score of its time, and the line at 1.0 is always there.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from rich.text import Text

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

# Braille: the eight dots of a character, by [row][column].
_DOT = ((0x01, 0x08), (0x02, 0x10), (0x04, 0x20), (0x40, 0x80))
_BLANK = 0x2800
_LABEL_WIDTH = 6
_TICKS = (0.0, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 1e3, 1e4, 1e6)


def height_of(score: float) -> float:
    """Bend the axis above the threshold, so that a peak of 300 does not press 1.0 to the floor."""
    return max(score, 0.0) if score <= 1 else 1 + 0.5 * math.log(score)


def plot(
    times: Sequence[datetime],
    scores: Sequence[float | None],
    *,
    width: int = 80,
    rows: int = 10,
    stamp: str = "%Y-%m-%d %H:%M",
) -> list[Text]:
    """Draw scores over time: normal ones in green, those above the threshold in red, the threshold as a line."""
    n = max(8, width - _LABEL_WIDTH - 3)
    columns = _columns(times, scores, n * 2)
    finite = [high for _, high in filter(None, columns)]
    top = max(height_of(max(finite, default=1.0)), height_of(1.4))
    scale = (rows * 4 - 1) / top
    grid = [[0] * n for _ in range(rows)]
    for x, column in enumerate(columns):
        if column is None:
            continue
        low, high = (round(height_of(value) * scale) for value in column)
        for y in range(low, high + 1):
            row, dot = divmod(rows * 4 - 1 - y, 4)
            grid[row][x // 2] |= _DOT[dot][x % 2]
    line = (rows * 4 - 1 - round(height_of(1.0) * scale)) // 4
    labels = _labels(rows, scale, line)
    lines = []
    for row, cells in enumerate(grid):
        text = Text(f"{labels.get(row, ''):>{_LABEL_WIDTH}} ", style="bold" if row == line else "dim")
        text.append("┤" if row in labels else "│", style="dim")
        for cell in cells:
            if cell:
                text.append(chr(_BLANK + cell), style="red" if row <= line else "green")
            else:
                text.append("╌" if row == line else " ", style="yellow")
        lines.append(text)
    lines.append(Text(" " * (_LABEL_WIDTH + 1) + "╰" + "─" * n, style="dim"))
    first, last = (f"{moment:{stamp}}" for moment in (times[0], times[-1]))
    gap = n - len(first) - len(last)
    lines.append(Text(" " * (_LABEL_WIDTH + 2) + first + (" " * gap + last if gap > 0 else ""), style="dim"))
    return lines


def _columns(times: Sequence[datetime], scores: Sequence[float | None], n: int) -> list[tuple[float, float] | None]:
    """Sort the scores into n columns of equal time: (lowest, highest), None where nothing was scored."""
    start = times[0]
    span = (times[-1] - start).total_seconds() or 1.0
    columns: list[tuple[float, float] | None] = [None] * n
    before: tuple[int, float] | None = None
    for moment, score in zip(times, scores, strict=True):
        if score is None:
            before = None
            continue
        x = min(n - 1, int((moment - start).total_seconds() / span * n))
        low, high = columns[x] or (score, score)
        columns[x] = (min(low, score), max(high, score))
        if before is not None:  # join neighbours, so that a sparse series is still a line
            x0, y0 = before
            for between in range(x0 + 1, x):
                at = y0 + (score - y0) * (between - x0) / (x - x0)
                columns[between] = (at, at)
        before = (x, score)
    return columns


def _labels(rows: int, scale: float, line: int) -> dict[int, str]:
    labels = {line: "1.0"}
    for tick in _TICKS:
        row = (rows * 4 - 1 - round(height_of(tick) * scale)) // 4
        if 0 <= row < rows and not any(near in labels for near in (row - 1, row, row + 1)):
            labels[row] = f"{tick:g}"
    return labels
