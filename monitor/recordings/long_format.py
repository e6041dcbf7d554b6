"""Long format: rows of one sensor each → rows of all sensors. And rows of several series that nobody named.

Input: columns of a file in long format, or a recording and its columns of text. Output: a `Recording`. Invariant: rows
of several series become several sensors or several assets, or the file is refused.
"""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Final

import numpy as np

from monitor.decode.formatting import duration_text, quote, short_list
from monitor.errors import BadRecording
from monitor.recordings.names import VALUE_COLUMNS, plain_name
from monitor.recordings.recording import Recording

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from monitor.types import Float32, Int32, Int64

    Texts = Mapping[str, tuple[tuple[str, ...], Int32]]
    """Columns of text: the distinct texts, and the index of each row's text."""

MIN_DISORDER: Final = 3
"""Steps of time back or on the spot, above which a file is searched for several series. A clock change makes one."""
MAX_DISORDER_SHARE: Final = 0.01
MAX_SERIES_SHARE: Final = 0.1
"""Series of a file, as a share of its rows. A column with more values names no series."""


def pivot(
    name: str,
    ts_us: Int64,
    assets: tuple[str, ...],
    asset: Int32,
    sensors: tuple[str, ...],
    sensor: Int32,
    values: Float32,
    label: NDArray[np.int8] | None,
    kept: Sequence[int],
) -> tuple[Recording, int]:
    """Return a recording with one row per asset and time, and the number of values that another one replaced.

    `kept`: indices of the sensors to keep.
    """
    column = np.full(len(sensors), -1, np.int64)
    column[list(kept)] = np.arange(len(kept))
    rows = np.flatnonzero((column[sensor] >= 0) & np.isfinite(values))
    if not len(rows):
        raise BadRecording("no row holds a number")
    order = rows[np.lexsort((rows, ts_us[rows], asset[rows]))]
    is_new = np.concatenate(([True], (np.diff(ts_us[order]) != 0) | (np.diff(asset[order]) != 0)))
    at = np.cumsum(is_new) - 1
    matrix = np.full((int(at[-1]) + 1, len(kept)), np.nan, np.float32)
    n_double = len(order) - len(np.unique(at * len(kept) + column[sensor[order]]))
    matrix[at, column[sensor[order]]] = values[order]  # the last one wins
    firsts = order[is_new]
    labels = None
    if label is not None:
        labels = np.zeros(len(firsts), np.int8)
        np.maximum.at(labels, at, label[order])
    by_time: NDArray[np.int64] = np.argsort(ts_us[firsts], kind="stable")
    return Recording(
        name,
        tuple(sensors[number] for number in kept),
        ts_us[firsts][by_time],
        matrix[by_time],
        assets,
        asset[firsts][by_time],
        None if labels is None else labels[by_time],
    ), n_double


def refuse_mixed_series(recording: Recording, texts: Texts, *, is_asset_named: bool) -> Recording | None:
    """Find rows of several series in one column.

    Returns the recording in wide format if a column of texts names the sensors of a single column called "value" or
    the like. None = time goes on. Raises BadRecording with the options if a column can be found that names the series.
    """
    n_disorder = _disorder(recording.ts_us, recording.asset)
    if n_disorder <= max(MIN_DISORDER, MAX_DISORDER_SHARE * len(recording)):
        return None
    for column, (distinct, codes) in texts.items():
        if not _explains(recording, codes, len(distinct), n_disorder):
            continue
        counts = np.isfinite(recording.values).sum(axis=0).tolist()
        numbers = [name for name, n in zip(recording.sensors, counts, strict=True) if n]
        if len(numbers) == 1 and plain_name(numbers[0]) in VALUE_COLUMNS:
            at = recording.sensors.index(numbers[0])
            wide, _ = pivot(
                recording.name, recording.ts_us, recording.assets, recording.asset, distinct, codes,
                recording.values[:, at], recording.label, range(len(distinct)),
            )  # fmt: skip
            note = (
                f"long format: column {quote(column)} names the sensor of each row, {quote(numbers[0])} holds its "
                f"value; {len(distinct)} sensors: {short_list(distinct, 12)}"
            )
            return wide.with_notes([note])
        raise BadRecording(_proposal(column, distinct, n_disorder))
    if is_asset_named:
        return None
    for at, column in enumerate(recording.sensors):
        values = recording.values[:, at]
        if np.isfinite(values).all() and (values == np.rint(values)).all():
            distinct_numbers, inverse = np.unique(values, return_inverse=True)
            if _explains(recording, inverse.astype(np.int32), len(distinct_numbers), n_disorder):
                shown = tuple(f"{number:g}" for number in distinct_numbers.tolist())
                raise BadRecording(_proposal(column, shown, n_disorder))
    return None


def _disorder(ts_us: Int64, group: Int32) -> int:
    """Count the steps of time that go back or stay, within each group and in the rows' order."""
    order = np.argsort(group, kind="stable")
    same = np.diff(group[order]) == 0
    steps = np.diff(ts_us[order])
    falls = int((steps[same] <= 0).sum())
    rises = int((steps[same] >= 0).sum())
    return min(falls, rises)  # a file may have the newest row first


def _explains(recording: Recording, codes: Int32, n_series: int, n_disorder: int) -> bool:
    """Return whether time goes on within each series that the codes name."""
    if not 2 <= n_series <= max(2, MAX_SERIES_SHARE * len(recording)):
        return False
    group: Int32 = (recording.asset.astype(np.int64) * n_series + codes).astype(np.int32)
    return _disorder(recording.ts_us, group) <= n_disorder * 0.1


def _proposal(column: str, distinct: tuple[str, ...], n_disorder: int) -> str:
    option = shlex.quote(column)
    return (
        f"its rows are {len(distinct)} series, one below or beside the other: time runs back or stands still "
        f"{n_disorder:,} times, and goes on for each value of column {quote(column)} ({short_list(distinct, 4)}); use "
        f"--asset-column {option} if each is a machine, or --sensor-column {option} if each is a sensor"
    )


def disorder_note(recording: Recording) -> str | None:
    """Return what to tell of times that run back. None = they do not."""
    order = np.argsort(recording.asset, kind="stable")
    steps = np.diff(recording.ts_us[order])
    same = np.diff(recording.asset[order]) == 0
    back = np.flatnonzero(same & (steps < 0))
    if not len(back) or len(back) > int((same & (steps > 0)).sum()):
        return None
    times = "once" if len(back) == 1 else f"{len(back):,} times"
    longest = duration_text(int(-steps[back].min()))
    return f"time runs backwards {times}, at most by {longest}: rows are taken in order of time"
