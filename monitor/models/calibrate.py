"""Threshold of a model from the raw scores of healthy data, and the detection of outliers among them.

Input: raw scores of held-out windows. Output: the raw score that will be called 1.0, and the confidence in it.
Invariant: alerts are counted, as `stream.alerting` opens and closes them, never windows. The threshold comes with the
held-out time and the alerts that it is based on. Where they are too few to certify the budget, its state is
`provisional`. Windows suspected of a fault do not move the threshold, and count in the certificate like all others.

    alert level  the highest threshold at which an alert would open at a window: the confirm-th largest of the asset's
                 last `among` scores
    segment      windows of an asset that follow one another in time: peaks in different segments are independent
    counted      with enough weeks to certify the budget: the lowest threshold whose Poisson bound keeps it
    tail         with fewer: from a generalised Pareto tail over independent peaks, integrated over its parameters
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from monitor.budget import (
    WEEK_S,
    Budget,
    Status,
    gamma_quantile,
    most_alarms,
    upper_bound,
    waiting_level,
    weeks_missing,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from monitor.types import Bool, Float32, Int32, Int64

    Float64 = NDArray[np.float64]

JUST_ABOVE = 1 + 1e-4
"""Factor from a score to a threshold above it, more than float32 rounds away."""
MIN_RAW = 1e-6
"""Least threshold: a model that reconstructs its held-out data exactly still needs a unit."""

TAIL_QUANTILES = (0.98, 0.95, 0.9, 0.8, 0.7, 0.5)
"""Quantiles of the alert level above which the tail is fitted: the highest with `N_PEAKS` independent peaks above."""
N_PEAKS = 20

SHAPE, SHAPE_SD = 0.1, 0.15
"""Prior of the tail's shape: a little heavier than exponential. Twenty peaks alone determine it within ±0.25."""
SCALE_LOG_SD = 0.7
"""Prior of the tail's scale: within a factor of two of the scale that the scores below it suggest."""
TAIL_CONFIDENCE, OBSERVABLE_ALERTS = 0.75, 0.3
"""The tail keeps the budget with confidence .5. It also keeps the higher of two rates with TAIL_CONFIDENCE: the budget,
and OBSERVABLE_ALERTS in the held-out time, which carries no information on much rarer alerts.
Measured with one confidence of .5, .7 or .9 for both: a share of .60, .78 or 1.0 of simulated assets with six held-out
days keeps one alarm a week. Of the labelled faults 13, 8 or 3 of 16 are found in skab, 51, 51 or 39 of 51 in gecco, and
33, 26 or 14 of 84 in smd."""
LONG_HELD_OUT, LONG_CONFIDENCE = 1.5, 0.98
"""Alarms that the budget allows in the held-out time, from which the tail keeps the budget with this confidence, and
the held-out time has half as many alarms as the budget allows, at most. In less time it has none.
Measured on simulated assets of ten kinds with two held-out weeks (tests/quality/machines.py, retrained weekly for ten
weeks). 75 assets with the PCA, confidence .6, .75, .85 and .92: a share of .48, .66, .80 and .91 keeps one alarm a
week. Of the injected faults .89, .88, .86 and .84 are found. 15 assets with the default ensemble, .92, .95 and .97:
.87, .87 and .93 keep it, and .98 of the faults are found. With no alarm in the held-out time and .75: .93, and .945.
60 other assets with .97 and as many alarms as allowed: .85, the fewest where the level grows or the season drifts. 18
of these kinds and of heavy tails: .50 (.97), .89 (.98, half of the alarms), and .83 (12 assets, .99). Of the injected
biases .92, .80 and .76 are found there."""
MAX_ANOMALOUS_SHARE = 0.1
"""Largest share of the healthy held-out windows above a threshold. With more, few alerts mean that they do not end."""
MAX_SUSPECTED_SHARE = 0.5
"""Share of the allowed alerts that suspected faults may use, so that a rare one costs no certificate. If they use more,
the threshold stays where the healthy windows put it. A higher one would hide faults, and certify nothing."""
MIN_TAIL_SCALE = 0.05
"""Least scale of the tail, as a share of the median score. A model whose held-out scores are all alike has not seen
their variation."""

MIN_ASSET_WINDOWS = 100
"""Windows from which an asset has a threshold of its own. Fewer hold no twenty peaks."""
MAX_FACTOR = 4.0
"""Most that an asset's threshold is above or below the fleet's. An asset that needs more is of another kind."""
MIN_LOG_SD = 0.05
"""Least uncertainty of an asset's threshold, as a share of it."""

OUTLIER_SIGMAS = 6.0
"""Robust standard deviations of the log error that no healthy window reaches."""


@dataclass(frozen=True, slots=True)
class Threshold:
    """Raw score that is called 1.0, and the certificate of its promise."""

    raw: float
    alarms_per_week: float
    """Budget, per asset."""
    bound_per_week: float
    """Upper bound of the false alarms per asset and week, from the held-out data (95 %, Poisson)."""
    weeks: float
    """Asset-weeks held out. Each scored window stands for the time to the next."""
    n_assets: int
    n_episodes: int
    """Alerts that the held-out data would have raised at this threshold."""
    state: Status
    """`certified`: the bound keeps the budget, else `provisional`."""
    weeks_missing: float
    """Asset-weeks to watch without a further alarm until it is certified (`budget.weeks_missing`)."""
    worst_asset: int | str | None
    """Asset with the highest rate of alerts, its number where names are not known. None = there were no alerts."""
    worst_per_week: float
    """Its alerts per week of its own held-out time."""
    confirm: int
    among: int
    recover: int
    step_s: float
    """Alert policy. The certificate holds for this one and no other."""
    method: str
    reason: str
    """The certificate in a sentence."""
    n_suspected: int = 0
    """Those of the alerts that only suspected faults raise."""
    n_overlapping: int = 0
    """Training windows that reach into the held-out time, which then certifies nothing."""

    @classmethod
    def from_json(cls, fields: dict[str, Any]) -> Threshold:
        """Read a card's entry. Raises TypeError or ValueError for a malformed one."""
        return cls(**{**fields, "state": Status(fields["state"])})


def calibrate(
    raw: Float32,
    asset: Int32,
    end_us: Int64,
    budget: Budget,
    *,
    outlier: Bool | None = None,
    stride_factor: int = 1,
    n_overlapping: int = 0,
    names: Sequence[str | int] = (),
    factor: float = 1.0,
) -> Threshold:
    """Return the threshold for held-out raw scores [N] of windows of one or more assets, in any order.

    `raw`: NaN = unscored, at least one is not. One threshold for all assets, from their pooled time: divide by
    `asset_factors` before, where assets have thresholds of their own.
    `outlier`: [N], windows suspected of a fault, not all of them. The threshold is placed without them, and certified
    with them.
    `stride_factor`: see `TrainingSet`. `n_overlapping`: see `Threshold`. Above 0 it is provisional.
    `names`: of the assets, by number. `factor`: of the calibrated threshold, by operators' labels. Below 1 it is
    provisional: the held-out time was tested with a higher one.
    """
    whole = healthy = _ScoreHistory.of(raw, asset, end_us, budget, stride_factor).countable()
    if outlier is not None and outlier.any():
        rest = ~outlier
        healthy = _ScoreHistory.of(raw[rest], asset[rest], end_us[rest], budget, stride_factor).countable()
    placed = _place(whole, healthy, budget)
    placed = placed._replace(raw=placed.raw * factor)
    alerts = whole.episodes(placed.raw)
    bound = upper_bound(len(alerts), whole.weeks)
    is_kept = placed.is_counted and bound <= budget.alarms_per_week and not n_overlapping and factor >= 1
    evidence_weeks = 0.0 if n_overlapping else whole.weeks
    level = waiting_level(evidence_weeks, budget.alarms_per_week)
    missing = 0.0 if is_kept else weeks_missing(len(alerts), evidence_weeks, budget.alarms_per_week, level)
    worst_asset, worst_per_week = whole.worst(alerts)
    threshold = Threshold(
        raw=placed.raw,
        alarms_per_week=rounded(budget.alarms_per_week),
        bound_per_week=rounded(bound),
        weeks=rounded(whole.weeks),
        n_assets=len(np.unique(whole.asset)),
        n_episodes=len(alerts),
        state=Status.CERTIFIED if is_kept else Status.PROVISIONAL,
        weeks_missing=rounded(missing),
        worst_asset=worst_asset if worst_asset is None or not names else names[worst_asset],
        worst_per_week=rounded(worst_per_week),
        confirm=budget.confirm,
        among=budget.among,
        recover=budget.recover,
        step_s=budget.step_s,
        method=placed.method,
        reason="",
        n_suspected=max(0, len(alerts) - len(healthy.episodes(placed.raw))),
        n_overlapping=n_overlapping,
    )
    return replace(threshold, reason=_reason(threshold) + _moved(factor))


class _Placement(NamedTuple):
    raw: float
    method: str
    is_counted: bool
    """From counted alerts, not from a fitted tail."""


def _place(whole: _ScoreHistory, healthy: _ScoreHistory, budget: Budget) -> _Placement:
    """Place the threshold by the healthy windows. Alerts of the suspected ones may use a part of the budget."""
    allowed = most_alarms(whole.weeks, budget.alarms_per_week)
    if allowed is None:
        expected = whole.weeks * budget.alarms_per_week
        n_most = int(expected / 2) if expected >= LONG_HELD_OUT else 0
        raw, n_peaks = _tail_threshold(healthy, budget.alarms_per_week, is_long=expected >= LONG_HELD_OUT)
        method = f"a generalised Pareto tail over {n_peaks} independent peaks"
        raw = max(raw, healthy.threshold_for(n_most))
        return _Placement(max(raw, MIN_RAW), method, is_counted=False)
    raw = healthy.threshold_for(allowed)
    n_suspected = len(whole.episodes(raw)) - len(healthy.episodes(raw))
    if 0 < n_suspected <= allowed * MAX_SUSPECTED_SHARE:
        raw = healthy.threshold_for(allowed - n_suspected)
    method = f"counted: with {allowed} held-out alerts the bound keeps the budget"
    return _Placement(max(raw, MIN_RAW), method, is_counted=True)


def asset_factors(
    raw: Float32,
    asset: Int32,
    end_us: Int64,
    budget: Budget,
    *,
    outlier: Bool | None = None,
    stride_factor: int = 1,
) -> dict[int, float]:
    """Return the threshold of each asset as a multiple of the fleet's, for held-out raw scores [N]."""
    return group_factors(raw, asset, asset, end_us, budget, outlier=outlier, stride_factor=stride_factor)


def group_factors(
    raw: Float32,
    group: NDArray[np.integer[Any]],
    asset: Int32,
    end_us: Int64,
    budget: Budget,
    *,
    outlier: Bool | None = None,
    stride_factor: int = 1,
) -> dict[int, float]:
    """Return the threshold of each group of windows as a multiple of the fleet's, for held-out raw scores [N].

    Each group's own threshold by the tail is shrunk towards the mean of the fleet, on a logarithmic scale: the less,
    the more the groups differ beyond what is uncertain of each (empirical Bayes, DerSimonian and Laird 1986). Groups
    that are alike have 1. One that is missing has too few windows.
    """
    usable = ~np.isnan(raw) if outlier is None else ~np.isnan(raw) & ~outlier
    known: list[int] = []
    logs: list[float] = []
    variances: list[float] = []
    for one in np.unique(group[usable]).tolist():
        rows = np.flatnonzero(usable & (group == one))
        if len(rows) < MIN_ASSET_WINDOWS:
            continue
        history = _ScoreHistory.of(raw[rows], asset[rows], end_us[rows], budget, stride_factor).countable()
        tail = _Tail.fit(history)
        target = max(budget.alarms_per_week, OBSERVABLE_ALERTS / history.weeks)
        low, middle, high = (max(tail.threshold(target, share), MIN_RAW) for share in (0.16, 0.5, 0.84))
        known.append(one)
        logs.append(math.log(middle))
        variances.append(max(math.log(high / low) / 2, MIN_LOG_SD) ** 2)
    if len(known) < 2:
        return {}
    _, shrunk = shrink(np.array(logs), np.array(variances))
    factor = np.exp(np.clip(shrunk, -math.log(MAX_FACTOR), math.log(MAX_FACTOR)))
    return {one: rounded(each) for one, each in zip(known, factor.tolist(), strict=True)}


def shrink(value: Float64, variance: Float64) -> tuple[float, Float64]:
    """Return the mean of values [n] of known variance, and their deviations shrunk by the variance between them."""
    weight = 1 / variance
    mean = (weight * value).sum() / weight.sum()
    excess = (weight * (value - mean) ** 2).sum() - (len(value) - 1)
    between = max(0.0, excess / (weight.sum() - (weight**2).sum() / weight.sum()))
    if not between:
        return float(mean), np.zeros(len(value))
    weight = 1 / (variance + between)
    mean = (weight * value).sum() / weight.sum()
    shrunk: Float64 = between / (variance + between) * (value - mean)
    return float(mean), shrunk


def episodes(raw: Float32, asset: Int32, end_us: Int64, budget: Budget, threshold: float) -> Int32:
    """Return the asset of each alert that these windows would raise at a threshold."""
    return _ScoreHistory.of(raw, asset, end_us, budget, 1).episodes(threshold)


def find_outliers(errors: Float32, max_share: float) -> Bool:
    """Return the mask [N] of windows whose errors are too large for healthy ones.

    They are far outside the robust spread of the log errors, and at most the given share of all, the worst first.
    """
    log = np.log(np.maximum(np.asarray(errors, dtype=np.float64), 1e-12))
    q1, median, q3 = np.quantile(log, [0.25, 0.5, 0.75])
    sigma = max((q3 - q1) / 1.349, 0.05)
    outlier: Bool = log > median + OUTLIER_SIGMAS * sigma
    n_max = int(max_share * len(log))
    if int(outlier.sum()) > n_max:
        worst = np.argsort(-log, kind="stable")[:n_max]
        outlier = np.zeros(len(log), dtype=bool)
        outlier[worst] = True
    return outlier


# ---------------------------------------------------------------- simulated alerts


@dataclass(frozen=True, slots=True)
class _ScoreHistory:
    """Scored windows, N of them, by asset and time. A segment ends with its asset, or with a gap in time."""

    raw: Float64
    """[N]"""
    level: Float64
    """[N], the highest threshold at which an alert would open here. -inf = too early in the asset's time."""
    asset: Int32
    segment: Int64
    recover: int
    """Normal windows in a row that close an alert, counted in windows of this history."""
    step_s: float

    @classmethod
    def of(
        cls, raw: Float32, asset: Int32, end_us: Int64, budget: Budget, stride_factor: int
    ) -> _ScoreHistory:
        scored = np.flatnonzero(~np.isnan(raw))
        order = scored[np.lexsort((end_us[scored], asset[scored]))]
        by_time, owner, ends = np.asarray(raw, dtype=np.float64)[order], asset[order], end_us[order]
        steps, same = np.diff(ends), np.diff(owner) == 0
        # A history too long for memory comes at a multiple of the fleet's stride: each window stands for several.
        confirm, among, recover = (
            max(1, n // stride_factor) for n in (budget.confirm, budget.among + stride_factor - 1, budget.recover)
        )
        step_s = stride_factor * budget.step_s
        # In a longer gap, normal windows would have closed an open alert.
        follows = same & (steps <= (recover + 1) * step_s * 1e6)
        segment = np.concatenate([[0], np.cumsum(~follows)]).astype(np.int64)
        # The decider counts an asset's scored windows, with any time between them.
        number = np.unique(owner, return_inverse=True)[1]   # of the asset, from 0 and rising
        level = np.minimum(by_time, _kth_largest(by_time, number, confirm, among))
        return cls(by_time, level, owner, segment, recover, step_s)

    @property
    def weeks(self) -> float:
        """Asset-weeks. Each scored window stands for the time to the next."""
        return len(self.raw) * self.step_s / WEEK_S

    def countable(self) -> _ScoreHistory:
        """Let each window open an alert by itself where no asset has enough windows to confirm one."""
        return self if np.isfinite(self.level).any() else replace(self, level=self.raw)

    def episodes(self, threshold: float) -> Int32:
        """Return the asset of each alert at a threshold.

        An alert is a run of anomalous windows, shorter recoveries within it included, in which one was confirmed.
        """
        anomalous = np.flatnonzero(self.raw >= threshold)
        run = _runs(anomalous, self.recover, self.asset)
        opened = np.unique(run[self.level[anomalous] >= threshold], return_index=True)[0]
        first = np.searchsorted(run, opened)
        return self.asset[anomalous[first]]

    def threshold_for(self, n_most: int) -> float:
        """Return the lowest threshold, just above one of the levels, at which at most `n_most` alerts are raised.

        The search goes down from the highest level, because at low thresholds all alerts merge into one without an end.
        """
        finite = np.sort(self.level[np.isfinite(self.level)])[::-1]
        levels = np.unique(finite[: math.ceil(MAX_ANOMALOUS_SHARE * len(finite))])[::-1]
        low, stride = 0, 1
        while low + stride < len(levels) and len(self.episodes(levels[low + stride] * JUST_ABOVE)) <= n_most:
            low, stride = low + stride, 2 * stride
        high = min(low + stride, len(levels))
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if len(self.episodes(levels[middle] * JUST_ABOVE)) <= n_most else (low, middle)
        return float(levels[low]) * JUST_ABOVE

    def peaks(self, base: float) -> tuple[Float64, int]:
        """Return the peaks of independent exceedances of a base level, and the number of alerts at it.

        Exceedances at most `_cluster_gap` windows apart are one cluster with one peak (Ferro & Segers 2003). So
        overlapping windows, or one bad hour, count once.
        """
        above = np.flatnonzero(self.level >= base)
        gap = max(self.recover, self._cluster_gap(above))
        run = _runs(above, gap, self.segment)
        peaks = np.maximum.reduceat(self.level[above], np.flatnonzero(np.diff(run, prepend=-1)))
        return peaks, len(self.episodes(base))

    def worst(self, alerts: Int32) -> tuple[int | None, float]:
        """Return the asset with the highest rate of the given alerts per week of its own, and that rate."""
        if not len(alerts):
            return None, 0.0
        names, n_alerts = np.unique(alerts, return_counts=True)
        n_windows = np.array([np.count_nonzero(self.asset == name) for name in names])
        rate = n_alerts * WEEK_S / (n_windows * self.step_s)
        return int(names[rate.argmax()]), float(rate.max())

    def _cluster_gap(self, above: Int64) -> int:
        """Return the largest gap within a cluster of exceedances, by the intervals estimator of the extremal index."""
        gaps = np.diff(above)[np.diff(self.segment[above]) == 0].astype(np.float64)
        if len(gaps) < 2 or gaps.max() <= 2:
            return int(gaps.max()) if len(gaps) else 0
        extremal = 2 * (gaps - 1).sum() ** 2 / (len(gaps) * ((gaps - 1) * (gaps - 2)).sum())
        n_between = math.floor(min(1.0, extremal) * len(gaps))
        return int(np.sort(gaps)[::-1][min(n_between, len(gaps) - 1)])


def _runs(rows: Int64, gap: int, of: NDArray[np.integer[Any]]) -> Int64:
    """Number the runs of rows: a new one where more than `gap` lie between, or where `of` changes."""
    if not len(rows):
        return np.empty(0, dtype=np.int64)
    new = (np.diff(rows) > gap) | (np.diff(of[rows]) != 0)
    return np.concatenate([[0], np.cumsum(new)]).astype(np.int64)


def _kth_largest(raw: Float64, owner: Int64, k: int, among: int) -> Float64:
    """Return, for each window, the k-th largest of its asset's last `among` scores, -inf where there are fewer."""
    padding = among - 1
    place = np.arange(len(raw)) + padding * (owner + 1)
    padded = np.full(len(raw) + padding * (int(owner[-1]) + 1), -np.inf)
    padded[place] = raw
    last = np.lib.stride_tricks.sliding_window_view(padded, among)
    parts = np.array_split(place - padding, max(1, len(raw) * among // 4_000_000))
    return np.concatenate([np.partition(last[part], among - k, axis=1)[:, among - k] for part in parts])


# ---------------------------------------------------------------- the tail


def _tail_threshold(history: _ScoreHistory, alarms_per_week: float, *, is_long: bool) -> tuple[float, int]:
    """Return the threshold by the tail (see `TAIL_CONFIDENCE`, `LONG_CONFIDENCE`), and the number of its peaks."""
    tail = _Tail.fit(history)
    if is_long:
        return tail.threshold(alarms_per_week, LONG_CONFIDENCE), tail.n_peaks
    observable = max(alarms_per_week, OBSERVABLE_ALERTS / history.weeks)
    return max(tail.threshold(alarms_per_week, 0.5), tail.threshold(observable, TAIL_CONFIDENCE)), tail.n_peaks


class _Tail(NamedTuple):
    """Generalised Pareto tails over independent peaks.

    Each scale and shape, and each rate of peaks, leads to a threshold of its own. They are weighed by likelihood and
    priors. With few peaks the priors keep the result plausible.
    """

    base: float
    n_peaks: int
    shape: Float64
    """(S, 1, 1)"""
    scale: Float64
    """(1, V, 1)"""
    weight: Float64
    """(S, V, 1)"""
    rate: Float64
    """(9,), alerts a week above the base: the observed rate, with the uncertainty of so few peaks."""

    @classmethod
    def fit(cls, history: _ScoreHistory) -> _Tail:
        level = history.level[np.isfinite(history.level)]
        median, high = np.quantile(level, [0.5, 0.9])
        base, peaks, n_alerts = _tail_peaks(history, level, float(median))
        usual = max((high - median) / math.log(5), MIN_TAIL_SCALE * abs(median), 1e-9)   # an exponential's
        shape = np.linspace(-0.4, 0.8, 24)[:, None, None]                         # (S, 1, 1), without 0
        scale = usual * np.exp(np.linspace(-2.1, 2.1, 43))[None, :, None]         # (1, V, 1)
        prior = -0.5 * ((shape - SHAPE) / SHAPE_SD) ** 2 - 0.5 * (np.log(scale / usual) / SCALE_LOG_SD) ** 2
        inside = 1 + shape * (peaks - base) / scale                               # (S, V, P)
        log = np.log(np.maximum(inside, 1e-300)).sum(-1, keepdims=True)
        posterior = prior - len(peaks) * np.log(scale) - (1 + 1 / shape) * log    # (S, V, 1)
        posterior = np.where((inside > 0).all(-1, keepdims=True), posterior, -np.inf)
        weight = np.exp(posterior - posterior.max())
        spread = [gamma_quantile(len(peaks) + 1, (k + 0.5) / 9) / (len(peaks) + 1) for k in range(9)]
        rate = (n_alerts + 1) / history.weeks * np.array(spread)
        return cls(base, len(peaks), shape, scale, weight, rate)

    def threshold(self, target: float, confidence: float) -> float:
        """Return the threshold that keeps `target` alerts a week with a confidence."""
        kept = self.base + self.scale / self.shape * ((self.rate / target) ** self.shape - 1)   # (S, V, 9)
        order = np.argsort(kept, axis=None)
        mass = np.cumsum(np.broadcast_to(self.weight, kept.shape).ravel()[order])
        return float(kept.ravel()[order][np.searchsorted(mass, confidence * mass[-1])])


def _tail_peaks(history: _ScoreHistory, level: Float64, median: float) -> tuple[float, Float64, int]:
    """Return the base of the tail, the independent peaks above it, and the number of alerts at the base."""
    base, peaks, n_alerts = median, np.empty(0), 0
    for share in TAIL_QUANTILES:
        lower = float(np.quantile(level, share))
        found, n_found = history.peaks(lower)
        if len(found) > len(peaks):
            base, peaks, n_alerts = lower, found, n_found
        if len(peaks) >= N_PEAKS:
            break
    return base, peaks, n_alerts


# ---------------------------------------------------------------- texts


def _reason(threshold: Threshold) -> str:
    alerts = (
        f"{threshold.n_episodes or 'no'} alert{'s' * (threshold.n_episodes != 1)}"
        f" in {_figure(threshold.weeks)} held-out weeks"
        f" of {threshold.n_assets} asset{'s' * (threshold.n_assets != 1)}"
    )
    if threshold.n_suspected:
        alerts += f" ({threshold.n_suspected} of suspected faults, which did not move the threshold)"
    mean = ", as the mean of the fleet" if threshold.n_assets > 1 else ""
    text = f"{alerts}: at most {_figure(threshold.bound_per_week)} per asset and week{mean} (95 %)"
    if threshold.n_assets > 1 and threshold.worst_asset is not None:
        text += f"; the worst, {_named(threshold.worst_asset)}, had {_figure(threshold.worst_per_week)} a week"
    budget = _figure(threshold.alarms_per_week)
    if threshold.state is Status.CERTIFIED:
        return f"{text}; the budget is {budget}"
    if threshold.n_overlapping:
        text += f"; but {threshold.n_overlapping} windows learnt from reach into that time, so it certifies nothing"
    return f"{text}; {_figure(threshold.weeks_missing)} more clean asset-weeks would certify the budget of {budget}"


def _named(asset: int | str) -> str:
    return f"asset {asset}" if isinstance(asset, int) else asset


def _moved(factor: float) -> str:
    if factor == 1:
        return ""
    text = f"; labels moved the threshold to {factor:.3g} of the calibrated one"
    return text if factor > 1 else f"{text}, so only time watched with it can certify it"


def _figure(value: float) -> str:
    """Format with two digits: no bound here is known more exactly."""
    return f"{value:.2g}" if abs(value) < 100 else f"{value:,.0f}"


def rounded(value: float) -> float:
    """Round to six digits: a card is read by people too, and its digest must not depend on the last bit."""
    return float(f"{value:.6g}")
