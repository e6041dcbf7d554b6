"""The false-alarm budget as arithmetic: what was promised, how well it is known, and whether it is kept.

In: counted alarms and asset-weeks. Out: bounds, what is missing, a status. No I/O and no numpy: the card, the command
line, the daemon and the tests all count with this page. Law: a rate never stands without its evidence.

    certified     at most 5 % of the fleets that show this much break the budget
    provisional   too little was seen to say so; it says how much is missing
    violated      alarms came faster than the budget allows, and not by chance (`too_many`)
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from monitor.config import FleetConfig

WEEK_S = 7 * 24 * 3600
DAY_US = 24 * 3600 * 1_000_000

CONFIDENCE = 0.95
"""Of every bound here."""

FALSE_VERDICT_DAYS = 3650
"""A fleet that keeps its budget is called `violated` by chance once in ten years at most, though looked at daily, and
in several ways: see `one_of`."""

EXCESS = (1.5, 2.0, 3.0, 5.0, 10.0, 20.0)
"""How many times its budget a fleet that breaks it may be using."""


class Status(StrEnum):
    """How a promise stands."""

    CERTIFIED = "certified"
    PROVISIONAL = "provisional"
    VIOLATED = "violated"


@dataclass(frozen=True, slots=True)
class Budget:
    """False alarms allowed, and what makes one: an alert as `stream.decide` opens and closes it."""

    alarms_per_week: float
    """Per asset."""
    confirm: int
    """m anomalous windows …"""
    among: int
    """… among the asset's last n scored ones open an alert."""
    recover: int
    """Normal ones in a row close it."""
    step_s: float
    """Time between two windows of one asset: interval × stride."""

    @classmethod
    def of(cls, fleet: FleetConfig) -> Budget:
        """Read what the operator allows."""
        alerts = fleet.alerts
        weekly = alerts.budget.count * WEEK_S / alerts.budget.per.total_seconds()
        step_s = fleet.stride * fleet.interval.total_seconds()
        return cls(weekly, alerts.confirm.m, alerts.confirm.n, alerts.recover, step_s)


def upper_bound(n_alarms: int, weeks: float, confidence: float = CONFIDENCE) -> float:
    """Return the alarms per week that so many in so many weeks leave possible: 3.0 / weeks with none, 4.74 with one."""
    return math.inf if weeks <= 0 else gamma_quantile(n_alarms + 1, confidence) / weeks


def lower_bound(n_alarms: int, weeks: float, confidence: float = CONFIDENCE) -> float:
    """Return the alarms per week that so many in so many weeks prove at least."""
    return 0.0 if n_alarms == 0 or weeks <= 0 else gamma_quantile(n_alarms, 1 - confidence) / weeks


def weeks_missing(n_alarms: int, weeks: float, alarms_per_week: float) -> float:
    """Return the asset-weeks without a further alarm after which the upper bound keeps the budget; 0 = it does."""
    return max(0.0, gamma_quantile(n_alarms + 1, CONFIDENCE) / alarms_per_week - weeks)


def most_alarms(weeks: float, alarms_per_week: float) -> int | None:
    """Return with how many alarms in so many weeks the upper bound keeps the budget; None = not even with none."""
    allowed = weeks * alarms_per_week
    if gamma_quantile(1, CONFIDENCE) > allowed:
        return None
    low, high = 0, int(allowed) + 1   # the bound of n alarms lies above n
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if gamma_quantile(middle + 1, CONFIDENCE) <= allowed else (low, middle)
    return low


def too_many(days: Iterable[tuple[int, float]], one_of: int = 1) -> bool:
    """Say whether alarms come faster than allowed, however often one looks. `days`: (alarms, allowed) a day, in order.
    `one_of`: how many are looked at beside this one; a wrong verdict on any of them is as rare.

    Each day starts a bet that from then on the rate is `EXCESS` times the allowed one, and the bets of all days are
    added up (Shiryaev and Roberts' sum of likelihood ratios, as an e-detector: Shin, Ramdas & Rinaldo 2024). While the
    budget is kept the sum grows by one a day on average, whoever looks; so it reaches `FALSE_VERDICT_DAYS` that late.
    """
    bets = [0.0] * len(EXCESS)
    for n_alarms, allowed in days:
        for place, excess in enumerate(EXCESS):
            gain = math.exp(min(600.0, n_alarms * math.log(excess) - (excess - 1) * allowed))
            bets[place] = min(1e290, (1 + bets[place]) * gain)
    return sum(bets) / len(bets) >= FALSE_VERDICT_DAYS * one_of


# ---------------------------------------------------------------- what was used of it


class Alarm(NamedTuple):
    """An alert that nobody labelled a fault, in event time."""

    opened_us: int
    closed_us: int | None
    """None = still open."""


@dataclass(frozen=True, slots=True)
class Burn:
    """What was used of a budget in a stretch of event time, by one asset or by many."""

    weeks: float
    """Asset-weeks watched: windows that were scored, each for the time to the next."""
    n_alarms: int
    """Alerts not labelled fault; one that stays open counts again for each day it has been open."""
    allowed: float
    """By the budget, in those weeks."""
    per_week: float
    at_least_per_week: float
    at_most_per_week: float
    """95 % bounds of the rate, each."""
    status: Status
    weeks_missing: float
    """Asset-weeks without an alarm that would certify it; 0 where nothing is missing."""

    @property
    def ratio(self) -> float:
        """Used over allowed; 1.0 = all of it."""
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
    """Return what the alarms in (from_us, to_us] used of the budget of so many asset-weeks.

    `by_day`: which share of them was watched on each day from `from_us` on, adding up to 1; None = evenly.
    `before`: alarms and asset-weeks of the held-out data, evidence of the same promise; it helps to certify, and never
    excuses what happened since. `one_of`: see `too_many`. A drift that opens one endless alert burns a budget as surely
    as many short ones do.
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
    """Return the moments at which an alarm counts: when it opens, and each day later while it is still open."""
    last_us = to_us if alarm.closed_us is None else min(to_us, alarm.closed_us - 1)
    return range(alarm.opened_us, max(last_us, min(alarm.opened_us, to_us)) + 1, DAY_US)


# ---------------------------------------------------------------- the Poisson bounds


def gamma_quantile(shape: int, p: float) -> float:
    """Return the p-quantile of the time until the shape-th event at rate 1 (half a chi-square's of 2·shape)."""
    z = _normal_quantile(p)
    # Wilson & Hilferty 1931: within a thousandth from a few hundred events on; below that where the search begins.
    near = shape * max(0.0, 1 - 1 / (9 * shape) + z / (3 * math.sqrt(shape))) ** 3
    if shape > 500:
        return near
    low, high = 0.0, 2 * near + 10
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (low, middle) if 1 - _fewer_than(shape, middle) >= p else (middle, high)
    return (low + high) / 2


def _fewer_than(n: int, mean: float) -> float:
    """Return the Poisson probability of 0 … n - 1."""
    log = math.log(max(mean, 1e-300))
    return min(1.0, math.fsum(math.exp(k * log - mean - math.lgamma(k + 1)) for k in range(n)))


def _normal_quantile(p: float) -> float:
    from statistics import NormalDist

    return NormalDist().inv_cdf(p)
