"""Calibration: certified where the held-out data allow it, provisional where they do not."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from monitor.budget import WEEK_S, Budget, Status, weeks_missing
from monitor.models.calibrate import Threshold, asset_factors, calibrate, episodes, find_outliers
from monitor.stream.alerting import AlertPolicy, Decider
from monitor.types import AlertState, Scores, Windows

if TYPE_CHECKING:
    from numpy.typing import NDArray

STEP_US = 600_000_000
BUDGET = Budget(alarms_per_week=1.0, confirm=3, among=5, recover=6, step_s=600.0)
A_WEEK = 1008
"""Windows of one asset in a week."""


def calibrated(raw: NDArray[np.float64], budget: Budget = BUDGET, n_assets: int = 1) -> Threshold:
    """Calibrate windows that follow one another without a gap, the same number for each asset."""
    asset, end_us = columns(len(raw), n_assets)
    return calibrate(raw.astype(np.float32), asset, end_us, budget)


def columns(n: int, n_assets: int = 1) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    each = -(-n // n_assets)
    return (np.arange(n) // each).astype(np.int32), (np.arange(n) % each + 1) * STEP_US


def smooth(n: int, memory: float = 0.95, seed: int = 0) -> NDArray[np.float64]:
    """Return scores like those of healthy machines: around one, skewed, and autocorrelated."""
    draw = np.random.default_rng(seed).standard_normal(n) * np.sqrt(1 - memory**2)
    state = np.zeros(n)
    for i in range(1, n):
        state[i] = memory * state[i - 1] + draw[i]
    return np.exp(0.3 * state)


@cache
def future() -> NDArray[np.float32]:
    return smooth(200 * A_WEEK, seed=99).astype(np.float32)


def per_week(limit: float) -> float:
    return len(episodes(future(), *columns(len(future())), BUDGET, limit)) / 200


# ---------------------------------------------------------------- episodes


def alerts_of(score: NDArray[np.float32], asset: NDArray[np.int32], end_us: NDArray[np.int64], budget: Budget) -> int:
    """Count the alerts that the pipeline would open."""
    n = len(score)
    nothing = np.zeros(n, np.int64)
    values, present = np.zeros((n, 1, 1), np.float32), np.ones(n, np.int32)
    windows = Windows("f", asset, np.arange(n), values, present, nothing, nothing)
    decider = Decider("f", AlertPolicy(budget.confirm, budget.among, budget.recover))
    changes = decider.decide(Scores(windows, score, ["v"] * n, {}), end_us)
    opened = {(c.asset, c.opened_us, c.at_us) for c in changes if c.state is AlertState.FIRING and c.n_anomalous}
    return len({(asset, opened_us) for asset, opened_us, _ in opened})


@settings(max_examples=300, deadline=None)
@given(
    windows=st.lists(
        st.tuples(st.sampled_from([0.0, 0.5, 1.0, 2.0, float("nan")]), st.sampled_from([1, 1, 1, 2, 5, 40])),
        min_size=1, max_size=120,
    ),
    policy=st.tuples(st.integers(1, 6), st.integers(1, 6), st.integers(1, 7)),
    n_assets=st.integers(1, 3),
    limit=st.sampled_from([0.5, 1.0, 2.0]),
    shuffle=st.randoms(use_true_random=False),
)
def test_episodes_are_the_pipelines_alerts(
    windows: list[tuple[float, int]], policy: tuple[int, int, int], n_assets: int, limit: float, shuffle: object
) -> None:
    m, n, recover = policy
    budget = Budget(1.0, min(m, n), max(m, n), recover, 600.0)
    raw = np.array([value for value, _ in windows], np.float32)
    asset, _ = columns(len(raw), n_assets)
    scored = ~np.isnan(raw)
    end_us = np.cumsum([steps for _, steps in windows]) * STEP_US
    order = np.array(shuffle.sample(range(len(raw)), len(raw)))  # type: ignore[attr-defined]
    found = episodes(raw[order], asset[order], end_us[order], budget, limit) if scored.any() else []
    assert len(found) == alerts_of(raw / np.float32(limit), asset, end_us, budget)


def test_unscored_time_ends_no_alert() -> None:
    """The decider counts windows: machines that run in bursts shorter than `confirm` alarm too."""
    end_us = np.cumsum(np.tile([1, 11], 500)) * STEP_US
    asset = np.zeros(1000, np.int32)
    raw = np.random.default_rng(0).exponential(size=1000).astype(np.float32)
    limit = calibrate(raw, asset, end_us, BUDGET)
    assert limit.n_episodes == alerts_of(raw / np.float32(limit.raw), asset, end_us, BUDGET)
    assert len(episodes(raw, asset, end_us, BUDGET, 1.0)) == alerts_of(raw, asset, end_us, BUDGET) == 20
    assert len(episodes(np.full(20, 2.0, np.float32), asset[:20], 1000 * end_us[:20], BUDGET, 1.0)) == 1


def test_a_strided_window_stands_for_several() -> None:
    raw = smooth(20 * A_WEEK)
    asset, end_us = columns(len(raw))
    fine = calibrate(raw.astype(np.float32), asset, end_us, BUDGET)
    third = calibrate(raw[::3].astype(np.float32), asset[::3], end_us[::3], BUDGET, stride_factor=3)
    assert third.weeks == pytest.approx(fine.weeks, rel=1e-3)
    assert third.raw == pytest.approx(fine.raw, rel=0.15)


# ---------------------------------------------------------------- the threshold and its certificate


def test_the_future_keeps_a_certified_budget() -> None:
    limit = calibrated(smooth(40 * A_WEEK), n_assets=4)
    assert limit.state is Status.CERTIFIED
    assert limit.weeks == pytest.approx(40)
    assert limit.n_assets == 4
    assert limit.bound_per_week <= 1.0
    assert limit.weeks_missing == 0
    assert 0.3 < per_week(limit.raw) < 1.0


def test_three_clean_weeks_certify_one_alarm() -> None:
    assert calibrated(smooth(round(3.1 * A_WEEK))).state is Status.CERTIFIED
    short = calibrated(smooth(round(1.4 * A_WEEK)))
    assert short.state is Status.PROVISIONAL
    assert short.bound_per_week == pytest.approx(3.0 / 1.4, rel=0.01)
    assert short.weeks_missing == pytest.approx(3.88 - 1.4, abs=0.01)
    assert "2.5 more clean asset-weeks would certify the budget of 1" in short.reason


def test_two_weeks_may_have_as_many_alarms_as_the_budget_allows() -> None:
    limits = [calibrated(smooth(2 * A_WEEK, seed=seed)) for seed in range(20)]
    assert 0 < max(limit.n_episodes for limit in limits) <= 2
    assert np.mean([per_week(limit.raw) <= 1.0 for limit in limits]) >= 0.9


@pytest.mark.parametrize(("factor", "state"), [(1.0, "certified"), (1.5, "certified"), (0.8, "provisional")])
def test_labels_that_lower_a_threshold_void_its_test(factor: float, state: str) -> None:
    raw = smooth(40 * A_WEEK).astype(np.float32)
    plain, moved = (calibrate(raw, *columns(len(raw), 4), BUDGET, factor=each) for each in (1.0, factor))
    assert moved.raw == pytest.approx(factor * plain.raw)
    assert moved.state == state
    assert (moved.n_episodes > plain.n_episodes) is (factor < 1)
    assert ("labels moved the threshold" in moved.reason) is (factor != 1)
    assert ("only time watched with it can certify it" in moved.reason) is (factor < 1)


def test_short_histories_keep_their_bound() -> None:
    """Six held-out days, of a month of history, cannot certify an alarm a week: the tail is extrapolated."""
    limits = [calibrated(smooth(864, seed=seed)) for seed in range(60)]
    observed = np.array([per_week(limit.raw) for limit in limits])
    assert np.mean(observed <= [limit.bound_per_week for limit in limits]) >= 0.9
    assert np.mean(observed <= 1.0) >= 0.65
    assert 0.2 < observed.mean() < 1.1


def test_overlapping_windows_are_few_peaks() -> None:
    limit = calibrated(smooth(864, memory=0.99))
    assert int(limit.method.split()[-3]) < 15


def test_stricter_budgets_raise_the_threshold() -> None:
    raw = smooth(864)
    budgets = [Budget(rate, 3, 5, 6, 600.0) for rate in (100.0, 10.0, 1.0, 0.1, 0.01)]
    limits = [calibrated(raw, budget).raw for budget in budgets]
    assert limits == sorted(limits)
    assert limits[0] < limits[2] < limits[-1] < 4 * limits[2]


def test_one_peak_gives_a_margin_above_it() -> None:
    raw = 1 + 0.1 * np.sin(np.arange(67) / 20)
    limit = calibrated(raw)
    assert limit.state is Status.PROVISIONAL
    assert 1.1 * raw.max() < limit.raw < 3 * raw.max()
    assert limit.n_episodes == 0
    assert limit.bound_per_week == pytest.approx(3.0 * WEEK_S / (67 * 600), rel=0.01)


def test_one_outlier_raises_no_threshold() -> None:
    healthy = smooth(4 * A_WEEK)
    spiked = healthy.copy()
    spiked[500] = 1000.0
    assert calibrated(spiked).raw == pytest.approx(calibrated(healthy).raw, rel=0.05)


def test_the_asset_that_alarms_most_is_named() -> None:
    raw = np.concatenate([smooth(10 * A_WEEK, seed=seed) * level for seed, level in ((0, 1.0), (1, 2.0), (2, 1.0))])
    limit = calibrated(raw, n_assets=3)
    assert limit.worst_asset == 1
    assert limit.worst_per_week > 1.0
    assert limit.n_episodes / limit.weeks < 1.0


@pytest.mark.parametrize("raw", [np.zeros(50), np.full(50, 0.3), np.array([0.4]), np.array([0.4, 0.5])])
def test_the_unit_is_never_zero(raw: NDArray[np.float64]) -> None:
    limit = calibrated(raw)
    assert raw.max() < limit.raw
    assert limit.raw > 0


def test_unscored_windows_are_no_evidence() -> None:
    raw = smooth(1000)
    gappy = np.concatenate([raw, np.full(500, np.nan)])
    assert calibrated(gappy).raw == calibrated(raw).raw
    assert calibrated(gappy).weeks == calibrated(raw).weeks


def test_the_order_of_windows_does_not_matter() -> None:
    raw = smooth(2000).astype(np.float32)
    asset, end_us = columns(2000, n_assets=3)
    order = np.random.default_rng(0).permutation(2000)
    assert calibrate(raw[order], asset[order], end_us[order], BUDGET) == calibrate(raw, asset, end_us, BUDGET)


def bursts(n: int, period: int) -> NDArray[np.bool_]:
    """Mark ten windows in each period."""
    return np.arange(n) % period < 10


def test_suspected_faults_move_no_threshold() -> None:
    raw = smooth(40 * A_WEEK).astype(np.float32)
    asset, end_us = columns(len(raw), 4)
    outlier = bursts(len(raw), A_WEEK // 7)
    faulty = np.where(outlier, raw + 100, raw).astype(np.float32)
    healthy = calibrate(raw[~outlier], asset[~outlier], end_us[~outlier], BUDGET)
    limit = calibrate(faulty, asset, end_us, BUDGET, outlier=outlier)
    assert limit.raw == pytest.approx(healthy.raw, rel=0.02)
    assert limit.state is Status.PROVISIONAL
    assert limit.n_suspected == pytest.approx(280, abs=5)
    assert limit.n_episodes == len(episodes(faulty, asset, end_us, BUDGET, limit.raw)) > 280
    assert limit.bound_per_week > 7
    assert f"({limit.n_suspected} of suspected faults, which did not move the threshold)" in limit.reason


def test_a_rare_fault_uses_part_of_the_budget() -> None:
    raw = smooth(40 * A_WEEK).astype(np.float32)
    asset, end_us = columns(len(raw), 4)
    outlier = bursts(len(raw), 10 * A_WEEK)
    limit = calibrate(raw + 100 * outlier.astype(np.float32), asset, end_us, BUDGET, outlier=outlier)
    assert limit.n_suspected == 4
    assert limit.state is Status.CERTIFIED
    assert limit.bound_per_week <= 1.0


def test_overlapping_time_certifies_nothing() -> None:
    raw = smooth(40 * A_WEEK).astype(np.float32)
    limit = calibrate(raw, *columns(len(raw), 4), BUDGET, n_overlapping=11)
    assert limit.state is Status.PROVISIONAL
    assert limit.weeks_missing == pytest.approx(weeks_missing(limit.n_episodes, 0.0, 1.0), rel=1e-5)
    assert "11 windows learnt from reach into that time" in limit.reason


# ---------------------------------------------------------------- outliers


def test_faults_are_outliers() -> None:
    errors = np.random.default_rng(3).lognormal(sigma=0.4, size=5000)
    assert not find_outliers(errors, 0.1).any()
    errors[100:160] *= 200
    assert np.flatnonzero(find_outliers(errors, 0.1)).tolist() == list(range(100, 160))


def test_worst_outliers_are_left_out_first() -> None:
    errors = np.random.default_rng(4).lognormal(sigma=0.1, size=1000)
    errors[:200] = np.linspace(1e3, 2e3, 200)
    assert np.flatnonzero(find_outliers(errors, 0.1)).tolist() == list(range(100, 200))
    assert not find_outliers(errors, 0.0).any()


# ---------------------------------------------------------------- thresholds of assets


def test_assets_that_are_alike_have_the_fleets_threshold() -> None:
    asset, end_us = columns(6 * 864, 6)
    raw = np.concatenate([smooth(864, seed=seed) for seed in range(6)]).astype(np.float32)
    assert set(asset_factors(raw, asset, end_us, BUDGET).values()) == {1.0}


def test_an_asset_that_is_noisier_has_a_higher_threshold() -> None:
    asset, end_us = columns(6 * 864, 6)
    size = np.array([1.0, 1.0, 1.0, 1.0, 1.0, 3.0])
    raw = np.concatenate([size[seed] * smooth(864, seed=seed) for seed in range(6)]).astype(np.float32)
    factor = asset_factors(raw, asset, end_us, BUDGET)
    assert 1.5 < factor[5] / np.mean([factor[one] for one in range(5)]) < 3.5
    limit = calibrate(raw / np.array([factor[one] for one in asset.tolist()], np.float32), asset, end_us, BUDGET)
    assert per_week(limit.raw * factor[0]) < 1.0
    assert per_week(limit.raw * factor[5] / 3) < 1.5
    # One threshold for all follows the noisiest, and the others are watched at twice their own.
    assert calibrate(raw, asset, end_us, BUDGET).raw > 2 * limit.raw * factor[0]


def test_an_asset_with_few_windows_has_no_threshold_of_its_own() -> None:
    asset, end_us = columns(3 * 864, 3)
    raw = (np.array([1.0, 3.0, 9.0])[asset] * smooth(3 * 864)).astype(np.float32)
    rows = np.r_[0 : 2 * 864, 2 * 864 : 2 * 864 + 50]
    assert set(asset_factors(raw[rows], asset[rows], end_us[rows], BUDGET)) == {0, 1}


def test_the_certificate_names_the_worst_asset_of_the_mean() -> None:
    asset, end_us = columns(8 * A_WEEK, 2)
    raw = smooth(8 * A_WEEK)
    raw[-200:-190] = 9.0
    limit = calibrate(raw.astype(np.float32), asset, end_us, BUDGET, names=("north", "south"))
    assert limit.worst_asset == "south"
    assert "as the mean of the fleet (95 %); the worst, south, had" in limit.reason
    assert "fleet" not in calibrated(smooth(4 * A_WEEK)).reason
