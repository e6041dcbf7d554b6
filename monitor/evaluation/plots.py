"""A series and its scores → SVG paths of a few hundred points.

Input: a `Series` and the scores of a method. Output: a `SeriesPlot`.
Invariant: the line in each column of pixels spans the smallest to the largest value of its rows. So no peak is lost,
and the path of a hundred thousand rows is as short as that of a thousand.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from monitor.drawing import envelope, score_position
from monitor.evaluation.metrics import forward_filled

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from monitor.evaluation.series import Series
    from monitor.types import Float32

    Float64 = NDArray[np.float64]

COLUMNS = 600
MAX_SENSORS = 8
HEIGHT = 60
"""Height of a plot in its own coordinates. The page stretches it."""
THRESHOLD_Y = 28
"""Distance of the score 1.0 from the top. It is the same in every plot of scores, so that they can be compared."""
BOTTOM, TOP = 58, 2


@dataclass(frozen=True, slots=True)
class SensorPlot:
    """The values of a sensor over time."""

    name: str
    path: str
    low: float
    high: float
    """`low` and `high` are the values at the lower and upper edge, in the sensor's unit."""


@dataclass(frozen=True, slots=True)
class SeriesPlot:
    """The plot of a series and the scores of one method."""

    n_rows: int
    train_rows: int
    interval_s: float
    n_sensors: int
    n_columns: int
    sensors: tuple[SensorPlot, ...]
    """The sensors that change most behind the training rows, in the recording's order."""
    score: str
    """Path of the scores. It begins where the training rows end."""


def plot_series(series: Series, score: Float32) -> SeriesPlot:
    """Plot a series and the scores [R] of the rows behind its training rows."""
    data = series.data
    n_rows, n_sensors = data.values.shape
    n_columns = min(COLUMNS, n_rows)
    whole = np.concatenate((np.full(data.train_rows, np.nan, np.float32), score))
    return SeriesPlot(
        n_rows=n_rows,
        train_rows=data.train_rows,
        interval_s=data.interval_s,
        n_sensors=n_sensors,
        n_columns=n_columns,
        sensors=tuple(
            _plot_sensor(data.sensors[c], data.values[:, c], n_columns)
            for c in _most_changed(data.values, data.train_rows)
        ),
        score=envelope(score_y(whole.astype(np.float64)), n_columns),
    )


def score_y(score: Float64) -> Float64:
    """Return the distance of scores from the top of the plot: linear up to 1.0, logarithmic above."""
    y: Float64 = BOTTOM - (BOTTOM - TOP) * score_position(score, (BOTTOM - THRESHOLD_Y) / (BOTTOM - TOP))
    return y


def _most_changed(values: Float32, train_rows: int) -> list[int]:
    """Return the sensors that differ most from their training values, in units of their deviation there."""
    x = forward_filled(values)
    head = x[:train_rows]
    deviation = np.maximum(head.std(axis=0), 1e-3 * np.abs(x).max(axis=0) + 1e-9)
    change = np.minimum(np.abs(x[train_rows:] - head.mean(axis=0)) / deviation, 10).mean(axis=0)
    return sorted(np.argsort(-change, kind="stable")[:MAX_SENSORS].tolist())


def _plot_sensor(name: str, values: Float32, n_columns: int) -> SensorPlot:
    known = values[np.isfinite(values)].astype(np.float64)
    low, high = np.quantile(known, [0.0005, 0.9995]).tolist() if len(known) else (0.0, 0.0)
    span = (high - low) or 1.0
    inside = np.clip((values.astype(np.float64) - low) / span, -0.05, 1.05)
    return SensorPlot(name, envelope(BOTTOM - 2 - (BOTTOM - TOP - 4) * inside, n_columns), low, high)
