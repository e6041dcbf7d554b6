"""The arithmetic of the budget: bounds with textbook values, and a test that may be repeated every day."""

from __future__ import annotations

import numpy as np
import pytest

from monitor.budget import (
    DAY_US,
    FALSE_VERDICT_DAYS,
    Alarm,
    Status,
    burn,
    lower_bound,
    most_alarms,
    too_many,
    upper_bound,
    weeks_missing,
)


@pytest.mark.parametrize(("n", "bound"), [(0, 2.996), (1, 4.744), (2, 6.296), (5, 10.513), (10, 16.962), (100, 118.08)])
def test_the_upper_bound_equals_the_textbook(n: int, bound: float) -> None:
    assert upper_bound(n, 1.0) == pytest.approx(bound, abs=0.01)
    assert upper_bound(n, 4.0) == pytest.approx(bound / 4, abs=0.01)


@pytest.mark.parametrize(("n", "bound"), [(0, 0.0), (1, 0.0513), (5, 1.970), (100, 84.14)])
def test_the_lower_bound_equals_the_textbook(n: int, bound: float) -> None:
    assert lower_bound(n, 1.0) == pytest.approx(bound, abs=0.01)


def test_bounds_narrow_and_are_continuous_between_both_formulas() -> None:
    assert 1.07 > upper_bound(999, 1000.0) > 1.04
    assert upper_bound(499, 1.0) < upper_bound(500, 1.0) < upper_bound(501, 1.0) < upper_bound(499, 1.0) + 3.5


def test_bounds_are_trivial_without_watched_time() -> None:
    assert upper_bound(0, 0.0) == float("inf")
    assert lower_bound(3, 0.0) == 0.0


def test_missing_weeks_are_those_that_certify() -> None:
    assert weeks_missing(0, 1.0, 1.0) == pytest.approx(1.996, abs=0.01)
    assert weeks_missing(1, 1.0, 2.0) == pytest.approx(4.744 / 2 - 1, abs=0.01)
    assert weeks_missing(0, 3.0, 1.0) == 0.0


@pytest.mark.parametrize("weeks", [0.5, 2.9, 3.0, 4.8, 33.0, 400.0])
def test_most_alarms_is_the_last_count_within_the_budget(weeks: float) -> None:
    most = most_alarms(weeks, 1.0)
    if most is None:
        assert upper_bound(0, weeks) > 1.0
    else:
        assert upper_bound(most, weeks) <= 1.0 < upper_bound(most + 1, weeks)


def test_false_violations_are_rare_under_daily_tests() -> None:
    draw = np.random.default_rng(0)
    wrong = 0
    for _ in range(100):
        days = draw.poisson(1 / 7, 365)
        wrong += any(too_many((int(n), 1 / 7) for n in days[:today]) for today in range(10, 366, 15))
    assert wrong / 100 < 2 * 365 / FALSE_VERDICT_DAYS


@pytest.mark.parametrize("clean_days", [0, 70, 365])
def test_an_endless_alert_is_a_violation_within_two_weeks(clean_days: int) -> None:
    days = [(0, 1 / 7)] * clean_days + [(1, 1 / 7)] * 14
    assert not too_many(days[: clean_days + 3])
    assert too_many(days)


def test_a_violation_expires_after_a_long_clean_time() -> None:
    days = [(3, 1 / 7)] * 10
    assert too_many(days)
    assert not too_many(days + [(0, 1 / 7)] * 400)


def test_many_alarms_in_one_day_do_not_overflow() -> None:
    assert too_many([(100_000, 0.1)])
    assert not too_many([])


# ---------------------------------------------------------------- burn


WEEK_US = 7 * DAY_US


def test_alarms_are_compared_with_the_watched_time() -> None:
    used = burn([Alarm(DAY_US, DAY_US + 5), Alarm(3 * DAY_US, 3 * DAY_US + 5)], 0, WEEK_US, 4.0, 1.0)
    assert (used.n_alarms, used.allowed, used.per_week, used.ratio) == (2, 4.0, 0.5, 0.5)
    assert used.at_least_per_week < 0.5 < used.at_most_per_week
    assert used.status is Status.PROVISIONAL
    assert used.weeks_missing == pytest.approx(6.296 - 4.0, abs=0.01)


@pytest.mark.parametrize(
    ("closed_us", "n"), [(None, 7), (1, 1), (DAY_US, 1), (DAY_US + 1, 2), (3 * DAY_US + 1, 4), (100 * DAY_US, 7)]
)
def test_an_alert_that_stays_open_counts_again_each_day(closed_us: int | None, n: int) -> None:
    opened = 1
    closed = None if closed_us is None else opened + closed_us
    assert burn([Alarm(opened, closed)], 0, WEEK_US, 1.0, 1.0).n_alarms == n


def test_an_earlier_alert_counts_only_its_days_in_the_range() -> None:
    assert burn([Alarm(-3 * DAY_US, None)], 0, 2 * DAY_US, 1.0, 1.0).n_alarms == 2
    assert burn([Alarm(-3 * DAY_US, -DAY_US)], 0, 2 * DAY_US, 1.0, 1.0).n_alarms == 0
    assert burn([Alarm(3 * DAY_US, None)], 0, 2 * DAY_US, 1.0, 1.0).n_alarms == 0


def test_held_out_time_certifies_but_never_prevents_a_violation() -> None:
    assert burn([], 0, WEEK_US, 1.0, 1.0).status is Status.PROVISIONAL
    assert burn([], 0, WEEK_US, 1.0, 1.0, before=(0, 2.0)).status is Status.CERTIFIED
    endless = [Alarm(1, None)]
    assert burn(endless, 0, 2 * WEEK_US, 2.0, 1.0, before=(0, 1000.0)).status is Status.VIOLATED


def test_the_budget_is_per_asset_week_of_the_fleet() -> None:
    alarms = [Alarm(day * DAY_US + 1, day * DAY_US + 2) for day in range(7)]
    assert burn(alarms * 3, 0, WEEK_US, 100.0, 1.0).status is Status.CERTIFIED
    assert burn(alarms * 3, 0, WEEK_US, 2.0, 1.0).status is Status.VIOLATED


def test_alarms_are_compared_with_the_time_watched_on_their_day() -> None:
    """A fleet that was connected three days ago could not alarm before."""
    alarms = [Alarm(25 * DAY_US + k, 25 * DAY_US + k + 1) for k in range(1, 40)]
    assert burn(alarms, 0, 28 * DAY_US, 42.0, 1.0).status is Status.VIOLATED
    late = [0.0] * 25 + [1 / 3] * 3
    assert burn(alarms, 0, 28 * DAY_US, 42.0, 1.0, by_day=late).status is not Status.VIOLATED


def test_burn_without_watched_time_is_provisional() -> None:
    used = burn([], 0, 0, 0.0, 1.0)
    assert (used.status, used.ratio, used.per_week) == (Status.PROVISIONAL, 0.0, 0.0)
