"""From raw scores of healthy data to a threshold, and to the windows not to be trusted as healthy.

In: raw scores of held-out windows. Out: the raw score that will be called 1.0, and how well it is known.
Law: what is counted is what people are woken by: alerts, as `stream.decide` opens and closes them, and never windows.
The promise is stated with its evidence; where the held-out data are too few for it, it says `provisional`. Windows
that are suspected of a fault do not move the threshold, and count in the certificate like all others.

    level        at which threshold an alert would open here: the confirm-th largest of the last `among` scores
    stretches    windows of an asset that follow one another in time: peaks in different ones are independent
    within       weeks enough to certify the budget: the threshold that its Poisson bound leaves
    beyond       too few: a generalised Pareto tail over independent peaks, and what they leave open about it
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from monitor.budget import WEEK_S, Budget, Status, gamma_quantile, most_alarms, upper_bound, weeks_missing

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from monitor.types import Bool, Float32, Int32, Int64

    Float64 = NDArray[np.float64]

__all__ = ["Budget", "Threshold", "calibrate", "episodes", "suspects"]

ABOVE = 1 + 1e-4
"""A threshold "just above" a score: more than float32 rounds away."""

BASES = (0.98, 0.95, 0.9, 0.8, 0.7, 0.5)
"""Quantiles of the level above which the tail is fitted: the highest with `N_PEAKS` independent peaks above it."""
N_PEAKS = 20

SHAPE, SHAPE_SD = 0.1, 0.15
"""Prior of the tail's shape: a little heavier than exponential. Twenty peaks alone know it within ±0.25."""
SCALE_LOG_SD = 0.7
"""Prior of the tail's scale: within a factor of two of what the scores below it lead to expect."""
SURE, WITHIN_REACH = 0.75, 0.3
"""Of the tails that the peaks leave possible, so many keep the budget, or a rate of so many alarms in all of the held-
out time if that is more: what is far rarer cannot be known from it. The budget itself is then kept by half of them.
Measured when .5, .7 or .9 was asked throughout: of simulated assets with six held-out days .60, .78, 1.0 keep one
alarm a week; of labelled faults skab finds 13, 8, 3 of 16, gecco 51, 51, 39 of 51, smd 33, 26, 14 of 84."""
MOST_ALARMED = 0.1
"""Share of the healthy held-out windows above which no budget is kept, however few the alerts: they do not end."""
MOST_SUSPECTED = 0.5
"""Share of the alerts allowed that suspected faults may use up, so that a rare one costs no certificate. Where they are
more the threshold stays where the healthy windows put it: to raise it would hide faults, and certify nothing."""
LEAST_SCALE = 0.05
"""Of the middle score: a model that scores its held-out data all alike has not seen how they scatter."""

SUSPECT_SIGMAS = 6.0
"""Robust deviations of the log error that no healthy window reaches."""


@dataclass(frozen=True, slots=True)
class Threshold:
    """The raw score that is called 1.0, and the certificate of its promise."""

    raw: float
    alarms_per_week: float
    """The budget, per asset."""
    bound_per_week: float
    """False alarms per asset and week that the held-out data leave possible (95 %, Poisson)."""
    weeks: float
    """Asset-weeks held out: each scored window stands for the time to the next."""
    n_assets: int
    n_episodes: int
    """Alerts that the held-out data would have raised at this threshold."""
    state: Status
    """`certified`: the bound keeps the budget; else `provisional`."""
    weeks_missing: float
    """Asset-weeks without a further alarm that would certify it."""
    worst_asset: int | str | None
    """The asset that most of the episodes are of, its number where names are not known; None = there were none."""
    worst_per_week: float
    """Its episodes per week of its own."""
    confirm: int
    among: int
    recover: int
    step_s: float
    """What makes an alert; the certificate holds for this and no other."""
    method: str
    reason: str
    """All of it in a sentence."""
    n_suspected: int = 0
    """Of the alerts, so many more than without the windows that are suspected of a fault."""
    n_overlapping: int = 0
    """Windows learnt from that reach into the held-out time, which then is no evidence of anything."""

    @classmethod
    def from_json(cls, fields: dict[str, Any]) -> Threshold:
        """Read a card's. Raises TypeError or ValueError for what is none."""
        return cls(**{**fields, "state": Status(fields["state"])})


def calibrate(
    raw: Float32,
    asset: Int32,
    end_us: Int64,
    budget: Budget,
    *,
    suspect: Bool | None = None,
    every: int = 1,
    n_overlapping: int = 0,
) -> Threshold:
    """Return the threshold for held-out raw scores [N] of windows of one or more assets, in any order.

    NaN = unscored; at least one is not. One threshold for all assets, from their pooled time. `suspect`: [N], windows
    too bad to be healthy, not all of them: the threshold is placed without them, and certified with them. `every`: of
    the river's windows, only one in so many is here. `n_overlapping`: see `Threshold`; with any it is provisional.
    """
    whole = past = _Past.of(raw, asset, end_us, budget, every).countable()
    if suspect is not None and suspect.any():
        past = _Past.of(raw[~suspect], asset[~suspect], end_us[~suspect], budget, every).countable()
    weeks = whole.weeks
    allowed = most_alarms(weeks, budget.alarms_per_week)
    if allowed is not None:
        limit, method = past.limit_for(allowed), f"counted: with {allowed} held-out alerts the bound keeps the budget"
        n_beside = len(whole.episodes(limit)) - len(past.episodes(limit))
        if 0 < n_beside <= allowed * MOST_SUSPECTED:
            limit = past.limit_for(allowed - n_beside)
    else:
        limit, n_peaks = _beyond(past, past.weeks, budget.alarms_per_week)
        limit, method = max(limit, past.limit_for(0)), f"a generalised Pareto tail over {n_peaks} independent peaks"
    # A model that rebuilds its held-out data exactly still needs a unit.
    limit = max(limit, 1e-6)
    seen = whole.episodes(limit)
    n_suspected = max(0, len(seen) - len(past.episodes(limit)))
    bound = upper_bound(len(seen), weeks)
    is_kept = allowed is not None and bound <= budget.alarms_per_week and not n_overlapping
    missing = 0.0 if is_kept else weeks_missing(len(seen), 0.0 if n_overlapping else weeks, budget.alarms_per_week)
    worst_asset, worst_per_week = whole.worst(seen)
    limit_of = Threshold(
        raw=limit,
        alarms_per_week=_rounded(budget.alarms_per_week),
        bound_per_week=_rounded(bound),
        weeks=_rounded(weeks),
        n_assets=len(np.unique(whole.asset)),
        n_episodes=len(seen),
        state=Status.CERTIFIED if is_kept else Status.PROVISIONAL,
        weeks_missing=_rounded(missing),
        worst_asset=worst_asset,
        worst_per_week=_rounded(worst_per_week),
        confirm=budget.confirm,
        among=budget.among,
        recover=budget.recover,
        step_s=budget.step_s,
        method=method,
        reason="",
        n_suspected=n_suspected,
        n_overlapping=n_overlapping,
    )
    return replace(limit_of, reason=_reason(limit_of))


def episodes(raw: Float32, asset: Int32, end_us: Int64, budget: Budget, limit: float) -> Int32:
    """Return the asset of each alert that these windows would raise at a threshold."""
    return _Past.of(raw, asset, end_us, budget, 1).episodes(limit)


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


# ---------------------------------------------------------------- what would have been an alert


@dataclass(frozen=True, slots=True)
class _Past:
    """Scored windows by asset and time. N windows; a stretch ends with its asset, or with a gap in time."""

    raw: Float64
    """[N]"""
    level: Float64
    """[N], the greatest threshold at which an alert would open here; -inf = too early in the asset's time."""
    asset: Int32
    stretch: Int64
    recover: int
    """Normal windows in a row that close an alert, as many as there are between two of *these* windows."""
    step_s: float

    @classmethod
    def of(cls, raw: Float32, asset: Int32, end_us: Int64, budget: Budget, every: int) -> _Past:
        scored = np.flatnonzero(~np.isnan(raw))
        order = scored[np.lexsort((end_us[scored], asset[scored]))]
        by_time, owner, ends = np.asarray(raw, dtype=np.float64)[order], asset[order], end_us[order]
        steps, same = np.diff(ends), np.diff(owner) == 0
        # History too long for memory comes at a multiple of the river's stride: then each window speaks for several.
        confirm, among, recover = (
            max(1, n // every) for n in (budget.confirm, budget.among + every - 1, budget.recover)
        )
        step_s = every * budget.step_s
        # A gap in which an open alert could have closed, had there been windows.
        follows = same & (steps <= (recover + 1) * step_s * 1e6)
        stretch = np.concatenate([[0], np.cumsum(~follows)]).astype(np.int64)
        # The river's memory counts an asset's scored windows, however much time lies between them.
        level = np.minimum(by_time, _kth_largest(by_time, _numbered(owner), confirm, among))
        return cls(by_time, level, owner, stretch, recover, step_s)

    @property
    def weeks(self) -> float:
        """Each scored window stands for the time to the next."""
        return len(self.raw) * self.step_s / WEEK_S

    def countable(self) -> _Past:
        """Where there are too few windows in a row to confirm an alert, let each of them count."""
        return self if np.isfinite(self.level).any() else replace(self, level=self.raw)

    def episodes(self, limit: float) -> Int32:
        """Return the asset of each alert at a threshold: runs of anomalous windows, shorter recoveries within them
        included, in which one was confirmed.
        """
        anomalous = np.flatnonzero(self.raw >= limit)
        run = _runs(anomalous, self.recover, self.asset)
        opened = np.unique(run[self.level[anomalous] >= limit], return_index=True)[0]
        first = np.searchsorted(run, opened)
        return self.asset[anomalous[first]]

    def limit_for(self, n_most: int) -> float:
        """Return the least threshold down to which at most so many alerts are raised: just above one of the peaks.

        Looked for from the top: far down all alerts are one, which never ends.
        """
        finite = np.sort(self.level[np.isfinite(self.level)])[::-1]
        levels = np.unique(finite[: math.ceil(MOST_ALARMED * len(finite))])[::-1]
        low, stride = 0, 1
        while low + stride < len(levels) and len(self.episodes(levels[low + stride] * ABOVE)) <= n_most:
            low, stride = low + stride, 2 * stride
        high = min(low + stride, len(levels))
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if len(self.episodes(levels[middle] * ABOVE)) <= n_most else (low, middle)
        return float(levels[low]) * ABOVE

    def peaks(self, base: float) -> tuple[Float64, int]:
        """Return the peaks of independent exceedances of a base level, and how many alerts they would have been.

        Exceedances belong together while they are nearer than their own spacing calls chance (Ferro & Segers 2003):
        so peaks within a window that overlaps itself, or within a bad hour, count once.
        """
        above = np.flatnonzero(self.level >= base)
        apart = max(self.recover, self._apart(above))
        run = _runs(above, apart, self.stretch)
        peaks = np.maximum.reduceat(self.level[above], np.flatnonzero(np.diff(run, prepend=-1)))
        return peaks, len(self.episodes(base))

    def worst(self, seen: Int32) -> tuple[int | None, float]:
        """Return the asset with most of the given alerts per week of its own, and how many that are."""
        if not len(seen):
            return None, 0.0
        names, n_alarms = np.unique(seen, return_counts=True)
        n_windows = np.array([np.count_nonzero(self.asset == name) for name in names])
        rate = n_alarms * WEEK_S / (n_windows * self.step_s)
        return int(names[rate.argmax()]), float(rate.max())

    def _apart(self, above: Int64) -> int:
        gaps = np.diff(above)[np.diff(self.stretch[above]) == 0].astype(np.float64)
        if len(gaps) < 2 or gaps.max() <= 2:
            return int(gaps.max()) if len(gaps) else 0
        extremal = 2 * (gaps - 1).sum() ** 2 / (len(gaps) * ((gaps - 1) * (gaps - 2)).sum())
        n_between = math.floor(min(1.0, extremal) * len(gaps))
        return int(np.sort(gaps)[::-1][min(n_between, len(gaps) - 1)])


def _runs(rows: Int64, apart: int, of: NDArray[np.integer[Any]]) -> Int64:
    """Number the runs of rows: a new one where more than `apart` lie between, or where `of` changes."""
    if not len(rows):
        return np.empty(0, dtype=np.int64)
    new = (np.diff(rows) > apart) | (np.diff(of[rows]) != 0)
    return np.concatenate([[0], np.cumsum(new)]).astype(np.int64)


def _numbered(owner: Int32) -> Int64:
    """Number the assets, which come one after the other, from 0."""
    return np.concatenate([[0], np.cumsum(np.diff(owner) != 0)]).astype(np.int64)


def _kth_largest(raw: Float64, owner: Int64, k: int, among: int) -> Float64:
    """Return, for each window, the k-th largest of its asset's last `among` scores; -inf where there are fewer."""
    padding = among - 1
    place = np.arange(len(raw)) + padding * (owner + 1)
    padded = np.full(len(raw) + padding * (int(owner[-1]) + 1), -np.inf)
    padded[place] = raw
    last = np.lib.stride_tricks.sliding_window_view(padded, among)
    parts = np.array_split(place - padding, max(1, len(raw) * among // 4_000_000))
    return np.concatenate([np.partition(last[part], among - k, axis=1)[:, among - k] for part in parts])


# ---------------------------------------------------------------- beyond the data


def _beyond(past: _Past, weeks: float, alarms_per_week: float) -> tuple[float, int]:
    """Return the threshold that keeps the budget, as surely as so few weeks allow, and the number of peaks it rests on.

    Each scale and shape of a generalised Pareto tail, and each rate of peaks, leads to a threshold of its own; they
    count as much as the peaks and the priors make them likely. With few peaks the priors keep the answer sane.
    """
    level = past.level[np.isfinite(past.level)]
    middle, high = np.quantile(level, [0.5, 0.9])
    base, peaks, n_alerts = float(middle), np.empty(0), 0
    for share in BASES:
        lower = float(np.quantile(level, share))
        found, n_found = past.peaks(lower)
        if len(found) > len(peaks):
            base, peaks, n_alerts = lower, found, n_found
        if len(peaks) >= N_PEAKS:
            break
    usual = max((high - middle) / math.log(5), LEAST_SCALE * abs(middle), 1e-9)   # an exponential's, from its quantiles
    shape = np.linspace(-0.4, 0.8, 24)[:, None, None]                             # (S, 1, 1); 0 is not among them
    scale = usual * np.exp(np.linspace(-2.1, 2.1, 43))[None, :, None]             # (1, V, 1)
    likely = -0.5 * ((shape - SHAPE) / SHAPE_SD) ** 2 - 0.5 * (np.log(scale / usual) / SCALE_LOG_SD) ** 2
    inside = 1 + shape * (peaks - base) / scale                                   # (S, V, P)
    log = np.log(np.maximum(inside, 1e-300)).sum(-1, keepdims=True)
    likely = likely - len(peaks) * np.log(scale) - (1 + 1 / shape) * log          # (S, V, 1)
    likely = np.where((inside > 0).all(-1, keepdims=True), likely, -np.inf)
    weight = np.exp(likely - likely.max())
    # Alerts a week above the base: as many as were seen, give or take what so few peaks leave open.
    spread = [gamma_quantile(len(peaks) + 1, (k + 0.5) / 9) / (len(peaks) + 1) for k in range(9)]
    rate = (n_alerts + 1) / weeks * np.array(spread)                              # (9,)

    def limit(target: float, sure: float) -> float:
        kept = base + scale / shape * ((rate / target) ** shape - 1)              # (S, V, 9)
        order = np.argsort(kept, axis=None)
        mass = np.cumsum(np.broadcast_to(weight, kept.shape).ravel()[order])
        return float(kept.ravel()[order][np.searchsorted(mass, sure * mass[-1])])

    within_reach = max(alarms_per_week, WITHIN_REACH / weeks)
    return max(limit(alarms_per_week, 0.5), limit(within_reach, SURE)), len(peaks)


# ---------------------------------------------------------------- words


def _reason(limit: Threshold) -> str:
    seen = (
        f"{limit.n_episodes or 'no'} alert{'s' * (limit.n_episodes != 1)} in {_figure(limit.weeks)} held-out weeks"
        f" of {limit.n_assets} asset{'s' * (limit.n_assets != 1)}"
    )
    if limit.n_suspected:
        seen += f" ({limit.n_suspected} of suspected faults, which did not move the threshold)"
    seen += f": at most {_figure(limit.bound_per_week)} per asset and week (95 %)"
    if limit.state is Status.CERTIFIED:
        return f"{seen}; the budget is {_figure(limit.alarms_per_week)}"
    if limit.n_overlapping:
        seen += f"; but {limit.n_overlapping} windows learnt from reach into that time, so it certifies nothing"
    return f"{seen}; {_figure(limit.weeks_missing)} more clean asset-weeks would certify the budget of " + _figure(
        limit.alarms_per_week
    )


def _figure(value: float) -> str:
    """Two digits: no bound here is known better."""
    return f"{value:.2g}" if abs(value) < 100 else f"{value:,.0f}"


def _rounded(value: float) -> float:
    """Six digits: a card is for people too, and its digest must not hang on the last bit."""
    return float(f"{value:.6g}")
