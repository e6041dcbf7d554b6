"""Arithmetic of the false-alarm budget: bounds of the alarm rate, and the status of the budget.

Input: counted alarms and asset-weeks. Output: bounds, the missing evidence, a status. No I/O and no numpy: model cards,
the command line, the daemon and the tests all use this module. Invariant: a rate is never given without its evidence.

    certified     at most 5 % of the versions that exceed the budget are ever called certified, however often one looks
    provisional   the evidence does not suffice to certify, and the missing asset-weeks are known
    violated      alarms came faster than the budget allows, and not by chance (`too_many`)

`certified` rests on one of two tests. The held-out time is finished when it is tested, so a Poisson bound serves
(`upper_bound`). Time that goes on is looked at every day until it certifies. There the same bound would be wrong for
23 % of the fleets exactly at their budget within a year. So a mixture of likelihood ratios is used (`log_evidence`).
The two share the 5 % (`waiting_level`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from datetime import timedelta

WEEK_S = 7 * 24 * 3600
DAY_US = 24 * 3600 * 1_000_000

CONFIDENCE = 0.95
"""Confidence of every bound in this module."""

FALSE_VERDICT_DAYS = 3650
"""Mean time to a wrong `violated` verdict on a fleet within its budget, at least: ten years, although the verdict is
computed daily and several are computed at once (`one_of`)."""

EXCESS = (1.5, 2.0, 3.0, 5.0, 10.0, 20.0)
"""Alternatives of the test: multiples of the budget that a violating fleet may be using."""


SHARES = (0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95)
"""Alternatives of the test that certifies: shares of the budget that a fleet within it may be using."""
LEAST_LEVEL = 1e-6
"""Least chance of an error that is left for waiting (`waiting_level`), so that the missing weeks are finite."""


def _share_weights() -> tuple[float, ...]:
    """Weigh the alternatives by Jeffreys' prior of a rate, 1/√rate. Most fleets with few alarms have very few."""
    middles = [(a + b) / 2 for a, b in pairwise(SHARES)]
    raw = [
        (high - low) / math.sqrt(share)
        for share, (low, high) in zip(SHARES, pairwise((0.0, *middles, 1.0)), strict=True)
    ]
    return tuple(each / sum(raw) for each in raw)


SHARE_WEIGHTS = _share_weights()


class Status(StrEnum):
    """Status of a budget."""

    CERTIFIED = "certified"
    PROVISIONAL = "provisional"
    VIOLATED = "violated"


class Basis(StrEnum):
    """Evidence that a status rests on."""

    HELD_OUT = "held_out"
    """The finished held-out time: a Poisson bound, computed once. The time watched since may only take it back."""
    WATCHED = "watched"
    """The held-out time and the time watched since, by former versions, too: an e-process, valid however often one
    looks. It certifies the fleet as it is run, retrainings included."""


BASIS_WORDS = {
    Basis.HELD_OUT: "It rests on the finished held-out time (Poisson bound), and the time since agrees.",
    Basis.WATCHED: "It rests on the time watched, by a test that may be looked at every day (e-process).",
}
"""Basis of a certificate → sentence."""


@dataclass(frozen=True, slots=True)
class Budget:
    """False alarms allowed, and the alert policy that counts them (`stream.alerting`)."""

    alarms_per_week: float
    """Per asset."""
    confirm: int
    """Anomalous windows that open an alert, …"""
    among: int
    """… among this many last scored windows of the asset."""
    recover: int
    """Normal windows in a row that close it."""
    step_s: float
    """Time between two windows of one asset: interval × stride."""


def weekly(count: float, per: timedelta) -> float:
    """Return the rate per week of `count` in each period `per`."""
    return count * WEEK_S / per.total_seconds()


def upper_bound(n_alarms: int, weeks: float) -> float:
    """Return the upper bound of the alarms per week: 3.0 / weeks with no alarm, 4.74 / weeks with one."""
    return math.inf if weeks <= 0 else gamma_quantile(n_alarms + 1, CONFIDENCE) / weeks


def lower_bound(n_alarms: int, weeks: float) -> float:
    """Return the lower bound of the alarms per week."""
    return 0.0 if n_alarms == 0 or weeks <= 0 else gamma_quantile(n_alarms, 1 - CONFIDENCE) / weeks


def log_evidence(n_alarms: int, allowed: float) -> float:
    """Return the log of the evidence that the rate of alarms is below the allowed one. It may be looked at every day.

    `allowed`: alarms that the budget allows in the time watched. The evidence is a mixture of the likelihood ratios of
    `SHARES` of the allowed rate. In a fleet at or above its budget each ratio is a supermartingale of mean 1 at most.
    By Ville's inequality (1939) the evidence then ever reaches 1/α with a chance of at most α (an e-process: Ramdas,
    Grünwald, Vovk & Shafer 2023).
    """
    return log_mixture(lambda share: (n_alarms * math.log(share) if n_alarms else 0.0) + (1 - share) * allowed)


def log_mixture(log_ratio: Callable[[float], float]) -> float:
    """Return the log of the weighted mean over `SHARES` of likelihood ratios, given the log of each."""
    logs = [math.log(weight) + log_ratio(share) for share, weight in zip(SHARES, SHARE_WEIGHTS, strict=True)]
    highest = max(logs)
    return highest + math.log(math.fsum(math.exp(each - highest) for each in logs))


def waiting_level(held_out_weeks: float, alarms_per_week: float) -> float:
    """Return the chance of an error that is left for waiting, after the test of the finished held-out time.

    That test errs with the chance of the most alarms that it lets pass: 0 where the time is too short for any. So both
    together err in at most 5 %.
    """
    most = most_alarms(held_out_weeks, alarms_per_week)
    used = 0.0 if most is None else _fewer_than(most + 1, held_out_weeks * alarms_per_week)
    return max(LEAST_LEVEL, 1 - CONFIDENCE - used)


def weeks_missing(n_alarms: int, weeks: float, alarms_per_week: float, level: float = 1 - CONFIDENCE) -> float:
    """Return the further asset-weeks without an alarm until waiting certifies the budget; 0 = it is certified.

    `level`: see `waiting_level`. From nothing, with one alarm a week allowed: 3.9 weeks without an alarm.
    """
    needed = -math.log(level)
    low = allowed = weeks * alarms_per_week
    if log_evidence(n_alarms, allowed) >= needed:
        return 0.0
    step = 1.0
    while log_evidence(n_alarms, low + step) < needed:
        low, step = low + step, 2 * step
    high = low + step
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (middle, high) if log_evidence(n_alarms, middle) < needed else (low, middle)
    return high / alarms_per_week - weeks


def weeks_until_kept(n_alarms: int, weeks: float, alarms_per_week: float) -> float:
    """Return the further asset-weeks without an alarm until the upper bound is within the budget; 0 = it is.

    For a finished time only. For one that goes on, see `weeks_missing`.
    """
    return max(0.0, gamma_quantile(n_alarms + 1, CONFIDENCE) / alarms_per_week - weeks)


def most_alarms(weeks: float, alarms_per_week: float) -> int | None:
    """Return the most alarms with an upper bound within the budget. None = too few weeks, even without an alarm."""
    allowed = weeks * alarms_per_week
    if gamma_quantile(1, CONFIDENCE) > allowed:
        return None
    low, high = 0, int(allowed) + 1   # the bound of n alarms lies above n
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if gamma_quantile(middle + 1, CONFIDENCE) <= allowed else (low, middle)
    return low


def too_many(days: Iterable[tuple[int, float]], one_of: int = 1) -> bool:
    """Return True if alarms come faster than allowed. The test may be repeated every day.

    `days`: (alarms, alarms allowed) of each day, in order. `one_of`: number of tests computed at once. A wrong verdict
    of any of them is as rare as of one test alone.

    The statistic is the Shiryaev-Roberts sum of likelihood ratios, used as an e-detector (Shin, Ramdas & Rinaldo 2024).
    On each day a likelihood ratio starts, for a rate of `EXCESS` times the allowed one from that day on. While the
    budget is kept, the sum grows by one a day on average, so it takes at least `FALSE_VERDICT_DAYS` on average to reach
    the limit.
    """
    sums = [0.0] * len(EXCESS)
    for n_alarms, allowed in days:
        for place, excess in enumerate(EXCESS):
            ratio = math.exp(min(600.0, n_alarms * math.log(excess) - (excess - 1) * allowed))
            sums[place] = min(1e290, (1 + sums[place]) * ratio)
    return sum(sums) / len(sums) >= FALSE_VERDICT_DAYS * one_of


# ---------------------------------------------------------------- burn


class Alarm(NamedTuple):
    """An alert that is not labelled as a fault, in event time."""

    opened_us: int
    closed_us: int | None
    """None = still open."""


@dataclass(frozen=True, slots=True)
class Burn:
    """Burn of a budget in a range of event time, by one asset or by many."""

    weeks: float
    """Asset-weeks watched: each scored window counts for the time to the next."""
    n_alarms: int
    """Alerts not labelled as faults. One that stays open counts again for each day it is open."""
    allowed: float
    """Alarms that the budget allows in those weeks."""
    per_week: float
    at_least_per_week: float
    at_most_per_week: float
    """The bounds of the rate, each with 95 % confidence."""
    status: Status
    weeks_missing: float
    """Further asset-weeks without an alarm that would certify it; 0 = none."""
    basis: Basis = Basis.WATCHED
    """Evidence by which it is certified, or will be. `violated` rests on the time watched in any case."""
    former_weeks: float = 0.0
    """Asset-weeks of former versions with the same terms that this evidence includes."""

    @property
    def ratio(self) -> float:
        """Alarms over alarms allowed; 1.0 = the whole budget."""
        return self.n_alarms / self.allowed if self.allowed else 0.0


def burn(
    alarms: Sequence[Alarm],
    from_us: int,
    to_us: int,
    weeks: float,
    alarms_per_week: float,
    *,
    by_day: Sequence[float] | None = None,
    before: tuple[int, float] = (0, 0.0),
    earlier: tuple[int, float] = (0, 0.0),
    former: tuple[int, float] | None = None,
    is_tested: bool = True,
    is_sliding: bool = False,
    one_of: int = 1,
) -> Burn:
    """Return the burn of the budget in (from_us, to_us], of which `weeks` asset-weeks were watched.

    `by_day`: share of the asset-weeks on each day from `from_us` on, with the sum 1. None = even shares. `before`:
    alarms and asset-weeks of the held-out data. `earlier`: those of the time watched before `from_us`. Both are
    evidence for `certified`, and never prevent `violated`. `is_tested`: False = the held-out data alone must not
    certify, since the threshold was moved after its test. `is_sliding`: the range moves on with time, so it certifies
    nothing: by its last four weeks alone, 59 % of the assets exactly at their budget would be certified at some time in
    a year. `one_of`: see `too_many`. An alert that never closes, as after a drift, burns the budget like many short
    ones.

    Where the held-out data certified the budget, its error is spent: the version is within its budget or not, whatever
    is watched later. So the bound over both times may take the certificate back and give it back on any day. Elsewhere
    waiting certifies, by an e-process that starts with the held-out data. A retraining every day would end each wait.
    So `former` goes on with the alarms and asset-weeks of former versions with the same terms, and the held-out data of
    the first of them in place of `before`, which is time that the former versions have watched.
    """
    moments = count_moments(alarms, from_us, to_us)
    n_days = max(1, -(-(to_us - from_us) // DAY_US))
    n_by_day = [0] * n_days
    for moment in moments:
        n_by_day[min(n_days - 1, (moment - from_us - 1) // DAY_US)] += 1
    watched = by_day or [1 / n_days] * n_days
    allowed = weeks * alarms_per_week
    n_alarms = len(moments)
    n_all, weeks_all = n_alarms + before[0] + earlier[0], weeks + before[1] + earlier[1]
    if is_tested and upper_bound(*before) <= alarms_per_week:
        basis, missing = Basis.HELD_OUT, weeks_until_kept(n_all, weeks_all, alarms_per_week)
    else:
        level = waiting_level(before[1], alarms_per_week)
        if former is not None:
            n_all, weeks_all = n_all - before[0] + former[0], weeks_all - before[1] + former[1]
        basis, missing = Basis.WATCHED, weeks_missing(n_all, weeks_all, alarms_per_week, level)
    if too_many(((n, allowed * share) for n, share in zip(n_by_day, watched, strict=True)), one_of):
        status = Status.VIOLATED
    else:
        status = Status.PROVISIONAL if missing or is_sliding else Status.CERTIFIED
    return Burn(
        weeks=weeks,
        n_alarms=n_alarms,
        allowed=allowed,
        per_week=n_alarms / weeks if weeks else 0.0,
        at_least_per_week=lower_bound(n_alarms, weeks),
        at_most_per_week=upper_bound(n_alarms, weeks),
        status=status,
        weeks_missing=missing,
        basis=basis,
        former_weeks=0.0 if former is None or basis is Basis.HELD_OUT else former[1],
    )


def count_moments(alarms: Iterable[Alarm], from_us: int, to_us: int) -> list[int]:
    """Return the times in (from_us, to_us] at which alarms count."""
    return [moment for alarm in alarms for moment in _counted(alarm, to_us) if from_us < moment]


def _counted(alarm: Alarm, to_us: int) -> range:
    """Return the times at which an alarm counts: its opening, and each full day after it while it is open."""
    last_us = to_us if alarm.closed_us is None else min(to_us, alarm.closed_us - 1)
    return range(alarm.opened_us, max(last_us, min(alarm.opened_us, to_us)) + 1, DAY_US)


# ---------------------------------------------------------------- the report of a fleet


class BudgetTerms(NamedTuple):
    """The fields of a stored threshold that the report is checked against."""

    alarms_per_week: float
    step_s: float
    n_episodes: int
    weeks: float
    """Held-out asset-weeks, as far as they are evidence."""
    is_tested: bool = True
    """The bound of the held-out time is for this threshold, and for no lower one (`Threshold.state`)."""

    @classmethod
    def read(cls, threshold: object) -> BudgetTerms | None:
        """Return the terms of a card's threshold. None = it is unreadable, or of a format without them."""
        if not isinstance(threshold, dict):
            return None
        names = ("alarms_per_week", "step_s", "n_episodes", "weeks")
        found = [value for name in names if isinstance(value := threshold.get(name), int | float)]
        if len(found) < len(names) or not all(0 <= value < math.inf for value in found):
            return None
        alarms_per_week, step_s, n_episodes, weeks = found
        is_tested = threshold.get("state", Status.CERTIFIED) == Status.CERTIFIED
        terms = cls(alarms_per_week, step_s, int(n_episodes), weeks, is_tested)
        if not (terms.alarms_per_week > 0 and terms.step_us > 0):
            return None
        return terms._replace(weeks=0.0) if threshold.get("n_overlapping") else terms

    @property
    def step_us(self) -> int:
        """Time between two windows of an asset."""
        return round(self.step_s * 1e6)


class UnreadableThreshold(NamedTuple):
    """A champion with an unreadable stored threshold."""

    fleet: str
    version: str


@dataclass(frozen=True, slots=True)
class BudgetReport:
    """Burn of a fleet's budget, by the version that was calibrated to it, by the fleet and by each asset."""

    fleet: str
    version: str
    from_us: int
    to_us: int
    """Event time (from, to] in which the version decided, as far as its scores are still kept."""
    own: Burn
    """Burn of the version, in that time. The held-out data count as evidence."""
    recent: Burn
    """Burn of the whole fleet, in the last four weeks of event time."""
    worst: tuple[tuple[str, Burn], ...]
    """Assets with an alarm in those weeks, the highest burn first."""

    @property
    def status(self) -> Status:
        """Violated if the version, the fleet or any asset alone is. Otherwise the version's status."""
        every = (self.own, self.recent, *(each for _, each in self.worst))
        return Status.VIOLATED if any(each.status is Status.VIOLATED for each in every) else self.own.status

    @property
    def violating_assets(self) -> tuple[str, ...]:
        """Assets that violate the budget on their own."""
        return tuple(name for name, each in self.worst if each.status is Status.VIOLATED)


# ---------------------------------------------------------------- the Poisson bounds


def gamma_quantile(shape: int, p: float) -> float:
    """Return the p-quantile of the gamma distribution with scale 1: half of a chi-square's with 2·shape degrees."""
    from statistics import NormalDist  # slow to import, and most commands need no bound

    z = NormalDist().inv_cdf(p)
    # Wilson & Hilferty 1931: exact to a thousandth from a few hundred events on. Below, the start of the search.
    near = shape * max(0.0, 1 - 1 / (9 * shape) + z / (3 * math.sqrt(shape))) ** 3
    if shape > 500:
        return near
    low, high = 0.0, 2 * near + 10
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (low, middle) if 1 - _fewer_than(shape, middle) >= p else (middle, high)
    return (low + high) / 2


def _fewer_than(n: int, mean: float) -> float:
    """Return the Poisson probability of fewer than n events."""
    log = math.log(max(mean, 1e-300))
    return min(1.0, math.fsum(math.exp(k * log - mean - math.lgamma(k + 1)) for k in range(n)))
