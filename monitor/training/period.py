"""Window length from the period of the sensors, for `window = "auto"`.

Input: healthy readings of one asset [N, C], NaN = missing. Output: a window length in cells, and the reason.
Invariant: a pure function of the readings and their interval, without labels.

A window that holds one whole cycle shows the model each phase next to the next one, so that an odd cycle is a window
that it has never seen. A window of half a cycle is ordinary at some phase. Windows much longer than a cycle bring a
larger network and a later first score for little.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from monitor.config.values import format_duration

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from monitor.types import Bool, Float32

    Float64 = NDArray[np.float64]

DEFAULT_LENGTH = 64
"""Cells, without a period that decides. It also holds several cycles of a shorter period."""
LONGEST = 256
"""Cells. A longer cycle is not worth its cost: each window takes time and memory in proportion to its length."""
SHORTEST_PERIOD = 4
"""Cells. A shorter oscillation is noise for a window."""
MIN_CYCLES = 6
"""Cycles that the readings must hold: three in each half, which are compared."""
LATEST_ROWS = 32_768
"""Rows that are looked at."""
MIN_CORRELATION, MIN_PROMINENCE = 0.3, 0.3
"""Least autocorrelation one cycle later, and least height of it above the lowest within the cycle. As both halves must
have the period, none of 6,400 random walks and autoregressive processes of 500 to 10,000 rows had one."""
NEARLY_AS_HIGH = 0.9
"""A peak of this share of the highest one is the cycle, if it is earlier: the highest may be a multiple of it."""
SAME = 0.05
"""Relative difference of two periods that are one."""
MIN_SHARE = 0.5
"""Share of the moving sensors that must have the period."""
SMOOTH = 9
"""Cells of the moving mean."""
CALENDAR_S = (60.0, 3600.0, 8 * 3600.0, 86_400.0, 7 * 86_400.0)
"""A period next to one of these is one of them: peaks of the autocorrelation are wide."""


class SuggestedLength(NamedTuple):
    """Window length for a fleet."""

    cells: int
    period: int | None
    """Period of the sensors in cells. None = no period was found up to `LONGEST`."""
    reason: str
    """For the card, as part of a sentence."""


def suggested_length(values: Float32, interval_s: float, longest: int = LONGEST) -> SuggestedLength:
    """Return the length of windows for sensors with these healthy readings [N, C], one row each `interval_s`."""
    found = common_period(values, interval_s, longest)
    if found is None:
        return SuggestedLength(DEFAULT_LENGTH, None, f"no cycle of up to {longest} cells was found")
    cycle = f"{found} cells, {format_duration(timedelta(seconds=found * interval_s))}"
    if found <= DEFAULT_LENGTH:
        return SuggestedLength(DEFAULT_LENGTH, found, f"it holds a whole cycle of the sensors ({cycle})")
    return SuggestedLength(found, found, f"one cycle of the sensors ({cycle})")


def length_for_assets(
    assets: Sequence[Float32], interval_s: float, present: int | None = None, longest: int = LONGEST
) -> SuggestedLength:
    """Return the length of windows for a fleet, from the readings [N, C] of some of its assets.

    `present`: length of the present version. None = there is none. It stays unless another cycle is found, so that a
    fleet on the edge does not change its windows with each training.
    """
    found = [suggested_length(values, interval_s, longest) for values in assets]
    periodic = sorted(each for each in found if each.period is not None)
    if not periodic or len(periodic) < MIN_SHARE * len(found):
        none = SuggestedLength(DEFAULT_LENGTH, None, f"no cycle of up to {longest} cells was found")
        return none if present is None else none._replace(cells=present)
    chosen = periodic[len(periodic) // 2]
    if present is not None and abs(chosen.cells - present) <= 2 * SAME * present:
        return chosen._replace(cells=present)
    return chosen


def common_period(values: Float32, interval_s: float, longest: int = LONGEST) -> int | None:
    """Return the period in cells that most of the periodic sensors share. None = too few of them are periodic."""
    values = values[-LATEST_ROWS:]
    moving = [number for number in range(values.shape[1]) if _moves(values[:, number])]
    found = [each for number in moving if (each := period(values[:, number], longest)) is not None]
    together = [sum(_is_same(one, other) for other in found) for one in found]
    most = max(together, default=0)
    if not most or most < MIN_SHARE * len(moving):
        return None
    # Of equals the longest: it holds the others.
    best = max(one for one, n in zip(found, together, strict=True) if n == most)
    shared = round(float(np.median([one for one in found if _is_same(one, best)])))
    by_calendar = [calendar_s / interval_s for calendar_s in CALENDAR_S]
    return next((round(each) for each in by_calendar if _is_same(shared, each) and each <= longest), shared)


def periodic_sensors(x: Float32) -> Bool:
    """Return the mask [C] of the sensors with a cycle of at most two windows. A smaller part of it is only a slope.

    `x`: healthy windows [N, C, T] of one asset after the other, each in order of time and evenly spaced, without gaps.
    """
    values, longest = newest_readings(x), 2 * x.shape[2]
    return np.array([period(values[:, number], longest) is not None for number in range(values.shape[1])], np.bool_)


def newest_readings(x: Float32) -> Float32:
    """Return the readings [n, C] that windows were made of, at most `LATEST_ROWS`. For `x` see `periodic_sensors`."""
    _, n_sensors, length = x.shape
    newest = x[-LATEST_ROWS:, :, length - _step(x) :]                        # neighbours share all other cells
    return newest.transpose(0, 2, 1).reshape(-1, n_sensors)[-LATEST_ROWS:]


def _step(x: Float32) -> int:
    """Return the cells between the ends of two neighbours of the windows [N, C, T], at most T."""
    length = int(x.shape[-1])
    rows = np.linspace(0, max(0, len(x) - 2), min(64, len(x) - 1)).astype(np.int64)
    for step in range(1, length):
        same = (x[rows + 1, :, : length - step] == x[rows, :, step:]).all((1, 2))
        if same.size and same.mean() > 0.5:
            return step
    return length


def period(values: Float32, longest: int = LONGEST) -> int | None:
    """Return the period of one sensor's readings [N] in cells, up to `longest`, NaN = missing. None = it has none.

    Short peaks of a cycle that is not quite regular, like a heart's, hardly meet themselves one cycle later. Their
    moving mean does.
    """
    found = _confirmed_period(values, longest)
    return found if found is not None else _confirmed_period(_moving_mean(values), longest)


def _confirmed_period(values: Float32, longest: int) -> int | None:
    """Return the period that both halves have: the autocorrelation of any slow process has a peak somewhere."""
    whole = _period(values, longest)
    if whole is None or len(values) < MIN_CYCLES * whole:
        return None
    half = len(values) // 2
    parts = [_period(values[:half], longest), _period(values[half:], longest)]
    return whole if all(each is not None and _is_same(each, whole) for each in parts) else None


def _period(values: Float32, longest: int) -> int | None:
    correlation = autocorrelation(values, longest + longest // 4)
    ground = np.minimum.accumulate(correlation)
    is_top = np.zeros(len(correlation), dtype=np.bool_)
    is_top[1:-1] = (correlation[1:-1] > correlation[:-2]) & (correlation[1:-1] >= correlation[2:])
    is_top &= (correlation >= MIN_CORRELATION) & (correlation - ground >= MIN_PROMINENCE)
    tops = np.flatnonzero(is_top)
    tops = tops[tops >= SHORTEST_PERIOD]
    if not len(tops):
        return None
    first = tops[correlation[tops] >= NEARLY_AS_HIGH * correlation[tops].max()][0]
    # Noise gives a wide top several maxima: the highest of them is the period.
    near = tops[(tops >= first) & (tops <= 1.25 * first)]
    highest = int(near[np.argmax(correlation[near])])
    return highest if highest <= longest else None


def autocorrelation(values: Float32, n_lags: int) -> Float64:
    """Return the autocorrelation at lags 0 to `n_lags`, of readings [N] without their linear trend. NaN is left out."""
    known = np.isfinite(values)
    rows = np.arange(len(values), dtype=np.float64)
    out = np.zeros(n_lags + 1)
    if known.sum() < 8:
        return out
    x = np.where(known, values, 0.0).astype(np.float64)
    low, high = np.percentile(x[known], (1, 99))
    if low < high:  # one wild reading must not hide a cycle
        x[known] = np.clip(x[known], 2 * low - high, 2 * high - low)
    x[known] -= np.polyval(np.polyfit(rows[known], x[known], 1), rows[known])
    if not x.any():
        return out
    size = 2 ** int(np.ceil(np.log2(2 * len(x))))
    seen, energy = np.fft.rfft(known.astype(np.float64), size), np.fft.rfft(x * x, size)
    product = np.fft.irfft(np.abs(np.fft.rfft(x, size)) ** 2, size)
    now = np.fft.irfft(energy * np.conj(seen), size)      # sum of x² whose partner, so many rows before, is known
    before = np.fft.irfft(np.conj(energy) * seen, size)   # … so many rows later
    n_lags = min(n_lags, len(x) - 1)
    scale = np.sqrt(np.maximum(now, 0) * np.maximum(before, 0))[: n_lags + 1]
    np.divide(product[: n_lags + 1], scale, out=out[: n_lags + 1], where=scale > 1e-9 * scale[0])
    return out


def _moving_mean(values: Float32) -> Float32:
    """Return the mean of the present ones of each `SMOOTH` readings [N]."""
    if len(values) < SMOOTH:
        return values
    known, weights = np.isfinite(values), np.ones(SMOOTH)
    n = np.convolve(known, weights, mode="same")
    total = np.convolve(np.where(known, values, 0.0), weights, mode="same")
    mean: Float32 = np.divide(total, n, out=np.full(len(values), np.nan), where=n > 0.5).astype(np.float32)
    return mean


def _moves(values: Float32) -> bool:
    known = values[np.isfinite(values)]
    return len(known) > 0 and bool(known.min() < known.max())


def _is_same(one: float, other: float) -> bool:
    return abs(one - other) <= SAME * max(one, other)
