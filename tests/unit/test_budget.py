"""The arithmetic of the budget: bounds with textbook values, and a test that may be repeated every day."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import pytest

from monitor.budget import (
    DAY_US,
    FALSE_VERDICT_DAYS,
    Alarm,
    Basis,
    BudgetTerms,
    Status,
    burn,
    log_evidence,
    lower_bound,
    most_alarms,
    too_many,
    upper_bound,
    waiting_level,
    weeks_missing,
    weeks_until_kept,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray


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


def test_a_finished_time_goes_by_the_bound() -> None:
    assert weeks_until_kept(0, 1.0, 1.0) == pytest.approx(1.996, abs=0.01)
    assert weeks_until_kept(1, 1.0, 2.0) == pytest.approx(4.744 / 2 - 1, abs=0.01)
    assert weeks_until_kept(0, 3.0, 1.0) == 0.0


@pytest.mark.parametrize(("n", "weeks"), [(0, 3.88), (1, 6.56), (2, 8.79), (5, 14.3), (10, 22.3), (100, 135.7)])
def test_waiting_certifies_after_so_many_weeks(n: int, weeks: float) -> None:
    assert weeks_missing(n, 0.0, 1.0) == pytest.approx(weeks, rel=0.005)
    assert weeks_missing(n, 0.0, 2.0) == pytest.approx(weeks / 2, rel=0.005)
    assert weeks_missing(n, weeks - 1, 1.0) == pytest.approx(1.0, abs=0.1)
    assert weeks_missing(n, weeks + 1, 1.0) == 0.0


def test_large_fleets_have_missing_weeks() -> None:
    assert weeks_missing(100_000, 90_000.0, 1.0) == pytest.approx(100_000 / 0.99 - 90_000, rel=0.2)


def ever_certified(
    n_held_out: NDArray[np.int64], held_out: float, days: NDArray[np.int64], per_day: float
) -> float:
    """Return the share of fleets that are certified on any day. One row each: held-out alarms, alarms of the days."""
    level = waiting_level(held_out, 1.0)
    at_once = np.array([upper_bound(int(n), held_out) <= 1.0 for n in n_held_out])
    total = n_held_out[:, None] + days.cumsum(1)
    needed = np.array([weeks_missing(n, 0.0, 1.0, level) for n in range(int(total.max()) + 1)])
    weeks = held_out + per_day * np.arange(1, days.shape[1] + 1)
    by_waiting = (needed[total] <= weeks).any(1)
    return float((at_once | by_waiting).mean())


N_FLEETS = 5_000


@pytest.mark.parametrize("n_assets", [1, 5, 20])
def test_a_fleet_at_its_budget_is_rarely_certified(n_assets: int) -> None:
    """Daily looks for a year. By the bound of a finished time, 23 % of the fleets of one asset would be."""
    draw = np.random.default_rng(n_assets)
    days = draw.poisson(n_assets / 7, (N_FLEETS, 365))
    nothing = np.zeros(N_FLEETS, dtype=np.int64)
    assert 0.01 < ever_certified(nothing, 0.0, days, n_assets / 7) <= 0.05
    if n_assets == 1:
        bound = np.array([upper_bound(n, 1.0) for n in range(int(days.sum(1).max()) + 1)])
        assert (bound[days.cumsum(1)] <= np.arange(1, 366) / 7).any(1).mean() == pytest.approx(0.23, abs=0.02)


@pytest.mark.parametrize("held_out", [1.0, 2.0, 2.9, 3.0, 3.5, 5.0, 8.0])
def test_both_tests_share_one_error(held_out: float) -> None:
    draw = np.random.default_rng(round(10 * held_out))
    found = ever_certified(draw.poisson(held_out, N_FLEETS), held_out, draw.poisson(1 / 7, (N_FLEETS, 365)), 1 / 7)
    assert found <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / N_FLEETS)


@pytest.mark.parametrize(("rate", "median_weeks"), [(0.02, 5), (0.1, 6), (0.2, 9), (0.5, 25)])
def test_a_quiet_asset_is_certified_soon(rate: float, median_weeks: float) -> None:
    """Median weeks of one asset, with one alarm a week allowed, until it is certified."""
    days = np.random.default_rng(7).poisson(rate / 7, (2000, 365))
    needed = np.array([weeks_missing(n, 0.0, 1.0) for n in range(int(days.sum(1).max()) + 1)])
    is_certified = needed[days.cumsum(1)] <= np.arange(1, 366) / 7
    assert is_certified.any(1).mean() > 0.9
    assert np.median(is_certified.argmax(1) + 1) / 7 <= median_weeks


def test_evidence_has_a_mean_of_one_at_the_budget() -> None:
    for weeks in (0.5, 4.0, 30.0):
        mean = math.fsum(
            math.exp(n * math.log(weeks) - weeks - math.lgamma(n + 1) + log_evidence(n, weeks)) for n in range(150)
        )
        assert mean == pytest.approx(1.0, abs=1e-6)


def test_the_levels_of_both_tests_add_up() -> None:
    assert waiting_level(2.9, 1.0) == pytest.approx(0.05)
    assert waiting_level(3.5, 1.0) == pytest.approx(0.05 - math.exp(-3.5))
    assert 0 < waiting_level(2.996, 1.0) < 0.0001


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
    assert used.weeks_missing == pytest.approx(8.79 - 4.0, abs=0.01)


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
    assert burn([], 0, WEEK_US, 1.0, 1.0, before=(0, 2.0)).status is Status.PROVISIONAL
    assert burn([], 0, WEEK_US, 2.0, 1.0, before=(0, 2.0)).status is Status.CERTIFIED
    assert burn([], 0, WEEK_US, 0.1, 1.0, before=(0, 3.0)).status is Status.CERTIFIED
    endless = [Alarm(1, None)]
    assert burn(endless, 0, 2 * WEEK_US, 2.0, 1.0, before=(0, 1000.0)).status is Status.VIOLATED


def test_a_certificate_names_its_evidence() -> None:
    assert burn([], 0, WEEK_US, 1.0, 1.0, before=(0, 3.0)).basis is Basis.HELD_OUT
    assert burn([], 0, WEEK_US, 4.0, 1.0).basis is Basis.WATCHED
    moved = burn([], 0, WEEK_US, 1.0, 1.0, before=(0, 3.1), is_tested=False)
    assert (moved.status, moved.basis) == (Status.PROVISIONAL, Basis.WATCHED)


def test_time_watched_may_take_a_certificate_back() -> None:
    one = [Alarm(1, 2)]
    early = burn(one, 0, WEEK_US, 1.0, 1.0, before=(0, 3.0))
    assert (early.status, early.basis) == (Status.PROVISIONAL, Basis.HELD_OUT)
    assert early.weeks_missing == pytest.approx(4.744 - 4.0, abs=0.01)
    assert burn(one, 0, 2 * WEEK_US, 2.0, 1.0, before=(0, 3.0)).status is Status.CERTIFIED


def test_earlier_time_is_evidence() -> None:
    assert burn([], 0, WEEK_US, 1.0, 1.0, earlier=(0, 3.0)).status is Status.CERTIFIED
    assert burn([], 0, 4 * WEEK_US, 4.0, 1.0, earlier=(9, 1.0)).status is Status.PROVISIONAL


def test_a_sliding_range_certifies_nothing() -> None:
    assert burn([], 0, WEEK_US, 100.0, 1.0, is_sliding=True).status is Status.PROVISIONAL
    endless = [Alarm(1, None)]
    assert burn(endless, 0, 2 * WEEK_US, 2.0, 1.0, is_sliding=True).status is Status.VIOLATED


@pytest.mark.parametrize(
    ("state", "is_tested"), [({}, True), ({"state": "certified"}, True), ({"state": "provisional"}, False)]
)
def test_a_provisional_threshold_is_untested(state: dict[str, str], is_tested: bool) -> None:
    terms = BudgetTerms.read({"alarms_per_week": 1.0, "step_s": 60.0, "n_episodes": 0, "weeks": 3.5} | state)
    assert terms is not None
    assert terms.is_tested is is_tested


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


def test_former_versions_replace_the_held_out_time() -> None:
    used = burn([], 0, WEEK_US, 1.0, 1.0, before=(0, 1.0), former=(0, 2.0))
    assert (used.status, used.former_weeks) == (Status.PROVISIONAL, 2.0)
    assert used.weeks_missing == pytest.approx(0.88, abs=0.01)
    assert burn([], 0, WEEK_US, 1.0, 1.0, before=(0, 1.0), former=(0, 3.0)).status is Status.CERTIFIED
    assert burn([], 0, WEEK_US, 1.0, 1.0, before=(0, 3.0), former=(9, 3.0)).basis is Basis.HELD_OUT
