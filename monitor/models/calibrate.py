"""From raw scores of healthy data to a threshold, and to the windows not to be trusted as healthy.

In: raw scores of held-out windows. Out: the raw score that will be called 1.0, and how well it is known.
Law: the promise is stated with its evidence; where the held-out data are too few for it, it says `provisional`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from monitor.types import Bool, Float32

WEEK_S = 7 * 24 * 3600

CERTAIN_EXCEEDANCES = 3.0
"""No alarm seen where three were allowed: the 95 % Poisson bound of "none seen" is 3.0."""

TAIL = 0.1
"""Upper share of the scores that an exponential is fitted to, for quantiles beyond the data."""

Z_95 = 1.645
"""Of the normal distribution: 95 % lie below."""

SUSPECT_SIGMAS = 6.0
"""Robust deviations of the log error that no healthy window reaches."""


@dataclass(frozen=True, slots=True)
class Threshold:
    """The raw score that is called 1.0."""

    raw: float
    quantile: float
    n_held_out: int
    """Healthy held-out windows it was read from."""
    n_above: float
    """Held-out windows the quantile allows above it."""
    provisional: bool
    """Fewer than three of them: more clean data are needed to certify it."""
    reason: str


def budget_quantile(alarms_per_week: float, interval_s: float, stride: int = 1) -> float:
    """Return the quantile of window scores that an asset passes so many times a week."""
    windows_per_week = WEEK_S / (interval_s * stride)
    return float(np.clip(1 - alarms_per_week / windows_per_week, 0.5, 1 - 1e-7))


def threshold(raw: Float32, quantile: float, n_independent: int | None = None) -> Threshold:
    """Return the threshold for healthy held-out raw scores [N], N ≥ 1, of which so many windows do not overlap.

    Within the data it is the empirical quantile; beyond, an exponential tail over the upper tenth (a generalised
    Pareto with shape 0, the least that can be fitted to few points), its mean at the 95 % upper bound that the number
    of independent windows in the tail allows: too few data must not turn into too many alarms.
    """
    raw = np.asarray(raw, dtype=np.float64)
    n = len(raw)
    n_above = n * (1 - quantile)
    value = float(np.quantile(raw, quantile))
    if n_above < 1:
        start = float(np.quantile(raw, 1 - TAIL))
        above = raw[raw > start]
        if len(above):
            in_tail = max(1.0, TAIL * (n_independent or n))
            mean_excess = float((above - start).mean()) * (1 + Z_95 / math.sqrt(in_tail))
            value = max(float(raw.max()), start + mean_excess * math.log(TAIL / (1 - quantile)))
    provisional = n_above < CERTAIN_EXCEEDANCES
    if provisional:
        needed = math.ceil(round(CERTAIN_EXCEEDANCES / (1 - quantile), 6))
        reason = f"provisional: {n} healthy windows were held out, {needed} would certify this quantile"
    else:
        reason = f"{n} healthy windows were held out, the quantile allows {n_above:.1f} of them above"
    # A model that rebuilds its held-out data exactly still needs a unit.
    return Threshold(max(value, 1e-6), quantile, n, round(n_above, 6), provisional, reason)


def suspects(errors: Float32, max_share: float) -> Bool:
    """Return which windows [N] are too bad to be healthy: far outside the robust spread of log errors, and at most
    the given share of all, the worst first.
    """
    log = np.log(np.maximum(np.asarray(errors, dtype=np.float64), 1e-12))
    q1, centre, q3 = np.quantile(log, [0.25, 0.5, 0.75])
    sigma = max((q3 - q1) / 1.349, 0.05)
    far: Bool = log > centre + SUSPECT_SIGMAS * sigma
    n_max = int(max_share * len(log))
    if int(far.sum()) > n_max:
        worst = np.argsort(-log, kind="stable")[:n_max]
        far = np.zeros(len(log), dtype=bool)
        far[worst] = True
    return far
