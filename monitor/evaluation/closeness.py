"""Closeness of synthetic windows to real ones, beside the closeness of real windows to other real ones.

Input: windows float32 [N, T, C], NaN = missing. Output: distances per sensor: marginal distribution, autocorrelation,
cross-correlation. Invariant: pure, and the same distance is measured for halves of the real windows, so that a number
has something to be compared with.

    ks                  Kolmogorov-Smirnov distance of the values: largest difference of the distribution functions
    wasserstein         mean difference of the quantiles, in standard deviations of the real values
    autocorrelation     root mean square difference of the autocorrelation, over lags up to half a window
    cross_correlation   mean absolute difference of the correlations with the other sensors
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from monitor.types import Float32

    Float64 = NDArray[np.float64]

MEASURES = ("ks", "wasserstein", "autocorrelation", "cross_correlation")
N_SPLITS = 10
"""Random halves of the real windows."""
N_QUANTILES = 200
MOST_VALUES = 200_000
"""Values of a sensor that its marginal is measured on."""


@dataclass(frozen=True, slots=True)
class Closeness:
    """Distances of C sensors, NaN where a sensor has none (constant, or missing)."""

    measure: str
    synthetic: Float64
    """[C], synthetic windows to all real ones."""
    real: Float64
    """[C], mean over halves of the real windows, of one to the other."""
    real_most: Float64
    """[C], largest of them."""


def closeness(real: Float32, synthetic: Float32, *, seed: int = 0) -> list[Closeness]:
    """Return the distances. `real`: at least 4 windows, best without overlap, else halves are too alike.

    Synthetic windows are compared in as many as a half has: a distance grows when samples are small.
    """
    rng = np.random.default_rng(seed)
    half = len(real) // 2
    apart = []
    for _ in range(N_SPLITS):
        order = rng.permutation(len(real))
        apart.append(_distances(real[order[:half]], real[order[half : 2 * half]]))
    chosen = synthetic[rng.permutation(len(synthetic))[:half]]
    found = _distances(real[rng.permutation(len(real))[:half]], chosen)
    with np.errstate(all="ignore"):
        splits = np.stack(apart)                                          # (splits, measures, C)
        mean, most = splits.mean(0), splits.max(0)
    return [Closeness(name, found[at], mean[at], most[at]) for at, name in enumerate(MEASURES)]


def _distances(one: Float32, other: Float32) -> Float64:
    """Return the distances [4, C] of two sets of windows. The unit of the second is the first's spread."""
    n_sensors = one.shape[2]
    out = np.full((len(MEASURES), n_sensors), np.nan)
    for c in range(n_sensors):
        a, b = (_values(windows[..., c]) for windows in (one, other))
        if len(a) < 2 or len(b) < 2:
            continue
        out[0, c] = _ks(a, b)
        spread = a.std()
        if spread > 0:
            at = (np.arange(N_QUANTILES) + 0.5) / N_QUANTILES
            out[1, c] = np.abs(np.quantile(a, at) - np.quantile(b, at)).mean() / spread
            out[2, c] = np.sqrt(np.mean((_autocorrelation(one[..., c]) - _autocorrelation(other[..., c])) ** 2))
    if n_sensors > 1:
        with np.errstate(all="ignore"):
            apart = np.abs(_correlations(one) - _correlations(other))
            np.fill_diagonal(apart, np.nan)
            known = np.isfinite(apart).any(1)
            out[3, known] = np.nanmean(apart[known], axis=1)
    return out


def _values(windows: Float32) -> Float64:
    values = windows[np.isfinite(windows)].astype(np.float64)
    return values[:: max(1, len(values) // MOST_VALUES)]


def _ks(a: Float64, b: Float64) -> float:
    a, b = np.sort(a), np.sort(b)
    both = np.concatenate([a, b])
    share = [np.searchsorted(each, both, side="right") / len(each) for each in (a, b)]
    return float(np.abs(share[0] - share[1]).max())


def _autocorrelation(windows: Float32) -> Float64:
    """Return the autocorrelation of windows [N, T] at lags 1 to T/2, about the mean of all of them."""
    values = windows.astype(np.float64)
    x = np.nan_to_num(values - np.nanmean(values))
    here = np.isfinite(values)
    variance = (x**2).sum() / max(1, here.sum())
    lags = range(1, max(2, x.shape[1] // 2 + 1))
    pairs = [(x[:, lag:] * x[:, :-lag]).sum() / max(1, (here[:, lag:] & here[:, :-lag]).sum()) for lag in lags]
    return np.array(pairs) / variance if variance > 0 else np.zeros(len(pairs))


def _correlations(windows: Float32) -> Float64:
    """Return the correlations [C, C] of the sensors at the same step. NaN for a constant sensor."""
    rows = windows.reshape(-1, windows.shape[2]).astype(np.float64)
    here = np.isfinite(rows)
    mean = np.where(here, rows, 0.0).sum(0) / np.maximum(here.sum(0), 1)
    filled = np.where(here, rows - mean, 0.0)
    spread = np.sqrt((filled**2).mean(0))
    spread[spread == 0] = np.nan
    matrix: Float64 = (filled.T @ filled) / len(filled) / np.outer(spread, spread)
    return matrix
