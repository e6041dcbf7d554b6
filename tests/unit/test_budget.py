"""The arithmetic of the promise: bounds that are textbook values, and a verdict that may be looked at every day."""

from __future__ import annotations

import numpy as np
import pytest

from monitor.budget import FALSE_VERDICT_DAYS, lower_bound, most_alarms, too_many, upper_bound, weeks_missing


@pytest.mark.parametrize(("n", "bound"), [(0, 2.996), (1, 4.744), (2, 6.296), (5, 10.513), (10, 16.962), (100, 118.08)])
def test_the_upper_bound_is_the_textbook_s(n: int, bound: float) -> None:
    assert upper_bound(n, 1.0) == pytest.approx(bound, abs=0.01)
    assert upper_bound(n, 4.0) == pytest.approx(bound / 4, abs=0.01)


@pytest.mark.parametrize(("n", "bound"), [(0, 0.0), (1, 0.0513), (5, 1.970), (100, 84.14)])
def test_the_lower_bound_is_the_textbook_s(n: int, bound: float) -> None:
    assert lower_bound(n, 1.0) == pytest.approx(bound, abs=0.01)


def test_bounds_close_in_and_do_not_jump_where_the_formula_changes() -> None:
    assert 1.07 > upper_bound(999, 1000.0) > 1.04
    assert upper_bound(499, 1.0) < upper_bound(500, 1.0) < upper_bound(501, 1.0) < upper_bound(499, 1.0) + 3.5


def test_nothing_watched_proves_nothing() -> None:
    assert upper_bound(0, 0.0) == float("inf")
    assert lower_bound(3, 0.0) == 0.0


def test_what_is_missing_is_what_certifies() -> None:
    assert weeks_missing(0, 1.0, 1.0) == pytest.approx(1.996, abs=0.01)
    assert weeks_missing(1, 1.0, 2.0) == pytest.approx(4.744 / 2 - 1, abs=0.01)
    assert weeks_missing(0, 3.0, 1.0) == 0.0


@pytest.mark.parametrize("weeks", [0.5, 2.9, 3.0, 4.8, 33.0, 400.0])
def test_the_most_alarms_keep_the_bound_and_one_more_does_not(weeks: float) -> None:
    most = most_alarms(weeks, 1.0)
    if most is None:
        assert upper_bound(0, weeks) > 1.0
    else:
        assert upper_bound(most, weeks) <= 1.0 < upper_bound(most + 1, weeks)


def test_a_fleet_that_keeps_its_budget_is_hardly_ever_called_violated_though_looked_at_daily() -> None:
    draw = np.random.default_rng(0)
    wrong = 0
    for _ in range(300):
        days = draw.poisson(1 / 7, 365)
        wrong += any(too_many((int(n), 1 / 7) for n in days[:today]) for today in range(30, 366, 7))
    assert wrong / 300 < 3 * 365 / FALSE_VERDICT_DAYS


@pytest.mark.parametrize("clean_days", [0, 70, 365])
def test_an_alert_that_never_ends_is_called_violated_within_a_fortnight_however_long_all_was_well(
    clean_days: int,
) -> None:
    days = [(0, 1 / 7)] * clean_days + [(1, 1 / 7)] * 14
    assert not too_many(days[: clean_days + 3])
    assert too_many(days)


def test_a_violation_that_ended_is_forgiven_in_time() -> None:
    days = [(3, 1 / 7)] * 10
    assert too_many(days)
    assert not too_many(days + [(0, 1 / 7)] * 400)


def test_too_many_alarms_in_one_day_are_no_overflow() -> None:
    assert too_many([(100_000, 0.1)])
    assert not too_many([])
