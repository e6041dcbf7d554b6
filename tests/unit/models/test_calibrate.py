"""The threshold keeps its promise where the data allow it, and says so where they do not."""

from __future__ import annotations

import numpy as np
import pytest

from monitor.models.calibrate import budget_quantile, suspects, threshold


def test_one_alarm_a_week_at_ten_minutes_is_one_window_in_a_thousand_and_eight() -> None:
    assert budget_quantile(1.0, interval_s=600.0) == pytest.approx(1 - 1 / 1008)
    assert budget_quantile(1.0, interval_s=600.0, stride=8) == pytest.approx(1 - 1 / 126)


def test_a_budget_beyond_all_windows_is_still_a_quantile() -> None:
    assert budget_quantile(1000.0, interval_s=86_400.0) == 0.5
    assert budget_quantile(0.0, interval_s=1.0) < 1.0


def test_enough_data_give_the_empirical_quantile() -> None:
    raw = np.random.default_rng(0).exponential(size=20_000).astype(np.float32)
    limit = threshold(raw, 0.999)
    assert np.mean(raw > limit.raw) == pytest.approx(0.001, abs=1e-4)
    assert not limit.provisional
    assert limit.n_above == pytest.approx(20.0)


def test_too_few_data_are_called_provisional_and_say_how_many_certify() -> None:
    limit = threshold(np.ones(200, np.float32), 0.999)
    assert limit.provisional
    assert "200 healthy windows" in limit.reason
    assert "3000 would certify" in limit.reason


def test_beyond_the_data_the_threshold_lies_above_them() -> None:
    draw = np.random.default_rng(1)
    raw = draw.exponential(size=300).astype(np.float32)
    limits = [threshold(raw, q).raw for q in (0.999, 0.9999, 0.99999)]
    assert raw.max() <= limits[0] < limits[1] < limits[2]
    # An exponential's own quantile; 300 points know it within a factor.
    assert -np.log(1e-5) * 0.7 < limits[2] < -np.log(1e-5) * 2


def test_few_independent_windows_raise_the_threshold() -> None:
    raw = np.random.default_rng(2).exponential(size=200).astype(np.float32)
    assert threshold(raw, 0.9999, n_independent=3).raw > threshold(raw, 0.9999, n_independent=200).raw


@pytest.mark.parametrize("raw", [np.zeros(50), np.full(50, 0.3), np.array([0.4])])
def test_the_unit_is_never_zero(raw: np.ndarray) -> None:
    assert threshold(raw.astype(np.float32), 0.999).raw > 0


def test_faults_are_suspected_and_healthy_scatter_is_not() -> None:
    errors = np.random.default_rng(3).lognormal(sigma=0.4, size=5000)
    assert not suspects(errors, 0.1).any()
    errors[100:160] *= 200
    assert np.flatnonzero(suspects(errors, 0.1)).tolist() == list(range(100, 160))


def test_no_more_than_the_allowed_share_is_left_out_the_worst_first() -> None:
    errors = np.random.default_rng(4).lognormal(sigma=0.1, size=1000)
    errors[:200] = np.linspace(1e3, 2e3, 200)
    assert np.flatnonzero(suspects(errors, 0.1)).tolist() == list(range(100, 200))
    assert not suspects(errors, 0.0).any()
