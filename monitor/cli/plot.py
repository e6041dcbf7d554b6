"""A plot of anomaly scores over time in Braille characters.

Input: times, scores (None = unscored) and a width. Output: styled lines.
Invariants: a column is as high as the highest score of its time, so no peak is lost. The threshold 1.0 is always shown.
"""

from __future__ import annotations

import math
from itertools import groupby
from typing import TYPE_CHECKING, Any

from monitor.cli import output, terminal
from monitor.cli.terminal import Styled, echo

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

# The dots of a Braille character from the bottom up, left column and right column.
_LEFT = (0, 0x40, 0x44, 0x46, 0x47)
_RIGHT = (0, 0x80, 0xA0, 0xB0, 0xB8)
_BLANK = 0x2800
_LABEL_WIDTH = 6
_TICKS = (0, 0.5, 2, 5, 10, 20, 50, 100, 1e3, 1e4, 1e6)
_THRESHOLD = "╌"


def echo_plot(windows: Sequence[Mapping[str, Any]], *, local: bool, rows: int = 10) -> None:
    """Print a plot of stored scores, at the width of the terminal."""
    times = [output.in_zone(window["end"], local=local) for window in windows]
    for line in plot(times, [window["score"] for window in windows], width=terminal.columns(), rows=rows):
        echo(*line)


def plot(
    times: Sequence[datetime], scores: Sequence[float | None], *, width: int = 80, rows: int = 10
) -> list[list[Styled]]:
    """Draw scores over time: green below the threshold, red above it, nothing for unscored windows."""
    n = max(8, width - _LABEL_WIDTH - 3)
    columns = _columns(times, scores, 2 * n)
    top = _height(max([1.6, *(score for score in columns if score is not None)]))
    dots = [0 if score is None else max(1, round(_height(score) / top * rows * 4)) for score in columns]
    threshold_row = rows - math.ceil(rows * 4 / top / 4)
    labels = _labels(rows, top, threshold_row)
    lines = []
    for row in range(rows):
        axis = f"{labels.get(row, ''):>{_LABEL_WIDTH}} {'┤' if row in labels else '│'}"
        parts = [Styled(axis, "bold" if row == threshold_row else "dim")]
        floor = (rows - 1 - row) * 4
        cells = []
        for x in range(0, 2 * n, 2):
            left, right = (min(4, max(0, dots[x + side] - floor)) for side in (0, 1))
            is_high = row <= threshold_row and max(columns[x] or 0, columns[x + 1] or 0) >= 1
            if left or right:
                cells.append(("red" if is_high else "green", chr(_BLANK | _LEFT[left] | _RIGHT[right])))
            else:
                cells.append(("yellow", _THRESHOLD) if row == threshold_row else ("", " "))
        for style, run in groupby(cells, key=lambda cell: cell[0]):
            parts.append(Styled("".join(character for _, character in run), style))
        lines.append(parts)
    lines.append([Styled(f"{'':{_LABEL_WIDTH}} └{'─' * n}", "dim")])
    first, last = (f"{time:%Y-%m-%d %H:%M}" for time in (times[0], times[-1]))
    gap = n - len(first) - len(last)
    lines.append([Styled(f"{'':{_LABEL_WIDTH + 2}}{first}{' ' * gap + last if gap > 0 else ''}", "dim")])
    return lines


def _height(score: float) -> float:
    """Return the height of a score. Above the threshold it is logarithmic, or a peak of 300 would flatten the rest."""
    return max(score, 0.0) if score <= 1 else 1 + 0.5 * math.log(score)


def _columns(times: Sequence[datetime], scores: Sequence[float | None], n: int) -> list[float | None]:
    """Return the highest score in each of `n` equal spans of time. Spans between two scores are interpolated."""
    span = (times[-1] - times[0]).total_seconds() or 1.0
    columns: list[float | None] = [None] * n
    before: tuple[int, float] | None = None
    for time, score in zip(times, scores, strict=True):
        if score is None:
            before = None
            continue
        x = min(n - 1, int((time - times[0]).total_seconds() / span * n))
        columns[x] = max(columns[x] or 0.0, score)
        if before is not None:
            x0, y0 = before
            for between in range(x0 + 1, x):
                columns[between] = y0 + (score - y0) * (between - x0) / (x - x0)
        before = (x, score)
    return columns


def _labels(rows: int, top: float, threshold_row: int) -> dict[int, str]:
    labels = {threshold_row: "1.0"}
    for tick in _TICKS:
        row = min(rows - 1, rows - math.ceil(_height(tick) / top * rows))
        if row >= 0 and not labels.keys() & {row - 1, row, row + 1}:
            labels[row] = f"{tick:g}"
    return labels
