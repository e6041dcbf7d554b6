"""Arithmetic of the false-alarm budget: bounds of the alarm rate, and the status of the budget.

Input: counted alarms and asset-weeks. Output: bounds, the missing evidence, a status. No I/O and no numpy: model cards,
the command line, the daemon and the tests all use this module. Invariant: a rate is never given without its evidence.

    certified     at most 5 % of the fleets with this evidence exceed the budget
    provisional   the evidence does not suffice to certify, and the missing asset-weeks are known
    violated      alarms came faster than the budget allows, and not by chance (`too_many`)
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
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


class Status(StrEnum):
    """Status of a budget."""

    CERTIFIED = "certified"
    PROVISIONAL = "provisional"
    VIOLATED = "violated"


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


def weeks_missing(n_alarms: int, weeks: float, alarms_per_week: float) -> float:
    """Return the further asset-weeks without an alarm until the upper bound is within the budget; 0 = it is."""
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
    one_of: int = 1,
) -> Burn:
    """Return the burn of the budget in (from_us, to_us], of which `weeks` asset-weeks were watched.

    `by_day`: share of the asset-weeks on each day from `from_us` on, with the sum 1. None = even shares. `before`:
    alarms and asset-weeks of the held-out data. They are evidence for `certified`, and never prevent `violated`.
    `one_of`: see `too_many`. An alert that never closes, as after a drift, burns the budget like many short ones.
    """
    moments = [moment for alarm in alarms for moment in _counted(alarm, to_us) if from_us < moment]
    n_days = max(1, -(-(to_us - from_us) // DAY_US))
    n_by_day = [0] * n_days
    for moment in moments:
        n_by_day[min(n_days - 1, (moment - from_us - 1) // DAY_US)] += 1
    watched = by_day or [1 / n_days] * n_days
    allowed = weeks * alarms_per_week
    n_alarms, n_all, weeks_all = len(moments), len(moments) + before[0], weeks + before[1]
    missing = weeks_missing(n_all, weeks_all, alarms_per_week)
    if too_many(((n, allowed * share) for n, share in zip(n_by_day, watched, strict=True)), one_of):
        status = Status.VIOLATED
    else:
        status = Status.PROVISIONAL if missing else Status.CERTIFIED
    return Burn(
        weeks=weeks,
        n_alarms=n_alarms,
        allowed=allowed,
        per_week=n_alarms / weeks if weeks else 0.0,
        at_least_per_week=lower_bound(n_alarms, weeks),
        at_most_per_week=upper_bound(n_alarms, weeks),
        status=status,
        weeks_missing=missing,
    )


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

    @classmethod
    def read(cls, threshold: object) -> BudgetTerms | None:
        """Return the terms of a card's threshold. None = it is unreadable, or of a format without them."""
        if not isinstance(threshold, dict):
            return None
        found = [value for name in cls._fields if isinstance(value := threshold.get(name), int | float)]
        if len(found) < len(cls._fields) or not all(0 <= value < math.inf for value in found):
            return None
        alarms_per_week, step_s, n_episodes, weeks = found
        terms = cls(alarms_per_week, step_s, int(n_episodes), weeks)
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
