"""A series and its scores → SVG paths of a few hundred points.

The law: a point for each column of pixels, from the least to the greatest value of the rows in it, so that no peak is
lost and a recording of a hundred thousand rows weighs as little as one of a thousand.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from monitor.evaluation.metrics import filled

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from monitor.evaluation.series import Series
    from monitor.types import Float32

    Float64 = NDArray[np.float64]

COLUMNS = 600
MOST_SENSORS = 8
HEIGHT = 60
"""Units of a strip, in its own coordinates; the page stretches them."""
LINE = 28
"""Where 1.0 lies in a strip of scores, from the top: the same in every strip, so that they compare at a glance."""
FLOOR, TOP = 58, 2
DECADES = 2
"""Above the line the axis is logarithmic and ends at a hundred times the threshold."""


@dataclass(frozen=True, slots=True)
class Strip:
    """A sensor's course."""

    name: str
    path: str
    low: float
    high: float
    """What the strip's lower and upper edge stand for, in the sensor's own unit."""


@dataclass(frozen=True, slots=True)
class Picture:
    """What the page draws of a series and one method."""

    n_rows: int
    train_rows: int
    interval_s: float
    n_sensors: int
    n_columns: int
    sensors: tuple[Strip, ...]
    """Those that move most behind the training rows, in the recording's order."""
    score: str
    """Path of the scores; it begins where the training rows end."""


def picture(series: Series, score: Float32) -> Picture:
    """Draw a series and the scores [R] of its rows behind the training rows."""
    data = series.data
    n_rows, n_sensors = data.values.shape
    n_columns = min(COLUMNS, n_rows)
    whole = np.concatenate((np.full(data.train_rows, np.nan, np.float32), score))
    return Picture(
        n_rows=n_rows,
        train_rows=data.train_rows,
        interval_s=data.interval_s,
        n_sensors=n_sensors,
        n_columns=n_columns,
        sensors=tuple(
            _strip(data.sensors[c], data.values[:, c], n_columns) for c in _restless(data.values, data.train_rows)
        ),
        score=_path(height_of(whole.astype(np.float64)), n_columns),
    )


def height_of(score: Float64) -> Float64:
    """Return how far from the top a score is drawn: linear to 1.0, logarithmic above."""
    above = np.clip(np.log10(np.maximum(score, 1.0)) / DECADES, 0, 1)
    below = np.clip(score, 0, 1)
    height: Float64 = FLOOR - (FLOOR - LINE) * below - (LINE - TOP) * above
    return height


def _restless(values: Float32, train_rows: int) -> list[int]:
    """Return the sensors that leave their training values most, by their own deviation then."""
    x = filled(values)
    head = x[:train_rows]
    deviation = np.maximum(head.std(axis=0), 1e-3 * np.abs(x).max(axis=0) + 1e-9)
    moved = np.minimum(np.abs(x[train_rows:] - head.mean(axis=0)) / deviation, 10).mean(axis=0)
    return sorted(np.argsort(-moved, kind="stable")[:MOST_SENSORS].tolist())


def _strip(name: str, values: Float32, n_columns: int) -> Strip:
    known = values[np.isfinite(values)].astype(np.float64)
    low, high = np.quantile(known, [0.0005, 0.9995]).tolist() if len(known) else (0.0, 0.0)
    span = (high - low) or 1.0
    inside = np.clip((values.astype(np.float64) - low) / span, -0.05, 1.05)
    return Strip(name, _path(FLOOR - 2 - (FLOOR - TOP - 4) * inside, n_columns), low, high)


def _path(heights: Float64, n_columns: int) -> str:
    """Join columns to a line that visits the least and the greatest height of each; blank columns break it."""
    starts = np.arange(n_columns) * len(heights) // n_columns
    lows = np.fmin.reduceat(heights, starts).round(1)
    highs = np.fmax.reduceat(heights, starts).round(1)
    parts: list[str] = []
    last: float | None = None
    for x, (low, high) in enumerate(zip(lows.tolist(), highs.tolist(), strict=True)):
        if low != low:
            last = None
            continue
        first, then = (low, high) if last is None or abs(last - low) <= abs(last - high) else (high, low)
        parts.append(f"{'M' if last is None else 'L'}{x} {first:g}" + (f"V{then:g}" if then != first else ""))
        if last is None and then == first:
            parts.append("h.5")  # a lone column is a dot, and a dot needs a length
        last = then
    return "".join(parts)
