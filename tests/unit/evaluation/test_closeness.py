"""Distances of synthetic windows to real ones, beside those of real windows to real ones."""

from __future__ import annotations

import numpy as np
import pytest

from monitor.evaluation.closeness import MEASURES, closeness


def windows(n: int, seed: int, *, shift: float = 0.0, smooth: int = 5, mixed: float = 0.8) -> np.ndarray:
    """Return windows [n, 32, 2] of two correlated, smooth sensors."""
    rng = np.random.default_rng(seed)
    noise = rng.normal(size=(n, 32 + smooth, 2))
    x = np.stack([noise[:, k : k + 32] for k in range(smooth)]).mean(0) * smooth**0.5
    x[..., 1] = mixed * x[..., 0] + (1 - mixed**2) ** 0.5 * x[..., 1]
    return (x + shift).astype(np.float32)


def of(real: np.ndarray, synthetic: np.ndarray) -> dict[str, tuple[float, float]]:
    found = closeness(real, synthetic)
    return {each.measure: (float(each.synthetic[1]), float(each.real_most[1])) for each in found}


def test_windows_of_the_same_distribution_are_as_close_as_real_ones() -> None:
    found = of(windows(200, 1), windows(200, 2))
    assert set(found) == set(MEASURES)
    assert all(synthetic < 2 * real for synthetic, real in found.values()), found


@pytest.mark.parametrize(
    ("change", "measure"),
    [({"shift": 1.0}, "ks"), ({"shift": 1.0}, "wasserstein"), ({"smooth": 1}, "autocorrelation"),
     ({"mixed": 0.0}, "cross_correlation")],
)  # fmt: skip
def test_each_distance_shows_its_difference(change: dict[str, float], measure: str) -> None:
    synthetic, real = of(windows(200, 1), windows(200, 2, **change))[measure]
    assert synthetic > 3 * real


def test_a_shift_by_one_deviation_is_a_distance_of_one() -> None:
    assert of(windows(400, 1), windows(400, 2, shift=1.0))["wasserstein"][0] == pytest.approx(1.0, abs=0.1)


def test_a_constant_or_missing_sensor_has_no_distance() -> None:
    real, other = windows(50, 1), windows(50, 2)
    real[..., 1], other[..., 1] = 3.0, np.nan
    by_measure = {each.measure: each.synthetic for each in closeness(real, other)}
    assert np.isnan(by_measure["ks"][1])
    assert np.isnan(by_measure["autocorrelation"][1])
    assert np.isfinite(by_measure["ks"][0])
