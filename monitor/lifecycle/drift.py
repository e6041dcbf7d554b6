"""Test for drift: whether a fleet's recent days differ from the days that its champion was calibrated on.

Input: hourly maxima of scores by asset, of the champion's held-out history and of the days since. Output: a detector
value for each recent day. Drift is found where it reaches the bound.
Invariant: pure. If days are exchangeable while nothing changes, the mean time to a false trigger is at least that of
the setting `[fleet.retrain] drift`, with any number of assets and any dependence within a day and between assets.

- A block is a day of event time: whole days hold whole daily cycles, and the autocorrelation within a day is inside.
- Of a day and asset, the level is the median over the hours of the logarithm of the hour's highest score: one incident
  is no drift. It is standardised by the asset's own reference days.
- Of a day and fleet, the level is the median over the assets: one faulty machine is no drift of a fleet of three.
- Each day is ranked among all days before it. The rank is uniform, and independent of earlier ranks. A bet on ranks 1
  to j pays (n + 1) / j, so its mean is 1. Bets on several j, of half the stake, are collected by Shiryaev-Roberts sums
  R = (R + 1) · payment, whose mean time to a bound A is at least A days (Shin, Ramdas, Rinaldo: E-detectors, 2022).

Only higher scores count. Days that depend on each other, as with slow weather, trigger more often than stated: the
measured rates are in deploy/RETRAINING.md.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from monitor.config.values import Rate
    from monitor.types import Int64

    Float64 = NDArray[np.float64]
    Levels = dict[Any, dict[int, Float64]]
    """By asset and day (days since 1970), [K]. NaN = unknown."""

HOUR_US, DAY_US = 3_600_000_000, 24 * 3_600_000_000
MIN_HOURS = 12
"""Hours with scores that a day needs."""
MIN_REFERENCE_DAYS = 7
"""With fewer days, the lowest rank says too little."""
RANKS = (1, 2, 4, 8)
"""Ranks that are bet on. A change that lasts d days has ranks 1 to d among the days since."""
STAKE = 0.5
"""Share of the capital in a bet: a day that is like the others must not end the evidence of those before."""
REGIME_SHARE = 0.5
"""Share of the assets above all their reference days, in the median of the last days, that is a change of regime."""
REGIME_DAYS = 2


class HourlyScores(NamedTuple):
    """Highest scores of hours: 1.0 = the threshold."""

    hour_us: Int64
    """[n], start of the hour."""
    asset: NDArray[np.str_]
    """[n], names."""
    score: Float64
    """[n], NaN = unscored."""


@dataclass(frozen=True, slots=True)
class DriftTest:
    """Result of the test on the days since the training."""

    n_reference: int
    """Days before."""
    n_days: int
    value: float
    """Of the detector after the last day, as a multiple of the bound: 1 = drift."""
    reached_on: int | None
    """Event time of the start of the day on which the bound was reached, µs. None = it was not."""
    share_above: float
    """Share of the assets that were above all their reference days, of the last days."""

    @property
    def is_regime(self) -> bool:
        """A lasting change of the level of most assets."""
        return self.share_above > REGIME_SHARE

    def to_json(self) -> dict[str, object]:
        """Return the form that is stored."""
        return {
            "reason": "regime" if self.is_regime else "drift",
            "value": round(self.value, 4), "n_reference": self.n_reference, "n_days": self.n_days,
            "share_above": round(self.share_above, 3),
        }  # fmt: skip


def bound(rate: Rate) -> float:
    """Return the bound of the detector, in days."""
    return rate.per / timedelta(days=1) / rate.count


def find_drift(reference: HourlyScores, recent: HourlyScores, rate: Rate) -> DriftTest | None:
    """Test the recent days. None = there are too few days before, or none since."""
    before, since = _levels(reference), _levels(recent)
    centre = centres(before)
    old, new = of_fleet(before, centre), of_fleet(since, centre)
    days = [day for day in sorted(new) if day not in old]
    if len(old) < MIN_REFERENCE_DAYS or not days:
        return None
    values = detector(np.concatenate([*old.values()]), np.concatenate([new[day] for day in days])) / bound(rate)
    reached = np.flatnonzero(values >= 1)
    above = [
        np.mean([since[asset][day] > max(before[asset].values()) for asset in centre if day in since.get(asset, {})])
        for day in days[-REGIME_DAYS:]
    ]
    return DriftTest(
        len(old), len(days), float(values[-1]), days[reached[0]] * DAY_US if len(reached) else None,
        float(np.median(above)),
    )  # fmt: skip


def detector(reference: Float64, recent: Float64) -> Float64:
    """Return the detector's value after each recent day [n]. Its mean time to a value A is at least A days."""
    past, sums = [*reference.tolist()], np.zeros(len(RANKS))
    found = []
    for level in recent.tolist():
        n_before = len(past)
        rank = 1 + sum(each >= level for each in past)
        pays = np.array([(n_before + 1) / j * (rank <= j) if j <= n_before else 1.0 for j in RANKS])
        sums = (sums + 1) * (1 - STAKE + STAKE * pays)
        found.append(float(sums.mean()))
        past.append(level)
    return np.array(found)


def _levels(scores: HourlyScores) -> Levels:
    """Return the level [1] of each asset on each day with enough hours."""
    known = np.isfinite(scores.score) & (scores.score > 0)
    log_score, day = np.log(scores.score[known])[:, None], scores.hour_us[known] // DAY_US
    found: Levels = {}
    for asset in np.unique(scores.asset[known]):
        rows = scores.asset[known] == asset
        days, counts = np.unique(day[rows], return_counts=True)
        found[str(asset)] = {int(d): median(log_score[rows][day[rows] == d]) for d in days[counts >= MIN_HOURS]}
    return found


# ---------------------------------------------------------------- levels of days, of scores and of readings


def centres(levels: Levels) -> dict[Any, tuple[Float64, Float64]]:
    """Return the middle and the spread [K] of each asset with enough days.

    A channel that never moved has no spread, and any move of it counts by its rank.
    """
    found = {}
    for asset, days in levels.items():
        if len(days) >= MIN_REFERENCE_DAYS:
            values = np.array([*days.values()])
            middle = median(values)
            spread = median(np.abs(values - middle))
            found[asset] = middle, np.where(spread > 0, spread, 1.0)
    return found


def of_fleet(levels: Levels, centre: Mapping[Any, tuple[Float64, Float64]]) -> dict[int, Float64]:
    """Return the fleet's level [K] by day: the median of the assets, each in its own measure."""
    by_day: dict[int, list[Float64]] = {}
    for asset, (middle, spread) in centre.items():
        for day, level in levels.get(asset, {}).items():
            by_day.setdefault(day, []).append((level - middle) / spread)
    return {day: median(np.array(values)) for day, values in sorted(by_day.items())}


def median(values: NDArray[np.floating[Any]]) -> Float64:
    """Return the median over the rows [n, K], NaN where a column has no value."""
    known = np.isfinite(values).any(axis=0)
    found = np.full(values.shape[1], np.nan)
    found[known] = np.nanmedian(values[:, known].astype(np.float64), axis=0)
    return found


def hourly(end_us: Int64, asset: NDArray[np.str_], score: Float64) -> HourlyScores:
    """Return the highest score of each asset and hour."""
    hour = end_us // HOUR_US
    names, number = np.unique(asset, return_inverse=True)
    order = np.lexsort((number, hour))
    hour, number, score = hour[order], number[order], score[order]
    first = np.flatnonzero(np.r_[True, (np.diff(hour) != 0) | (np.diff(number) != 0)]) if len(hour) else hour
    with np.errstate(invalid="ignore"):
        highest = np.fmax.reduceat(score, first) if len(first) else score
    return HourlyScores(hour[first] * HOUR_US, names[number[first]], highest)
