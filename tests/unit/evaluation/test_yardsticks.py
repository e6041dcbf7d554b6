from __future__ import annotations

import numpy as np
import pytest
import torch

from monitor.evaluation import yardsticks
from monitor.evaluation.metrics import auc_roc
from monitor.evaluation.yardsticks import YARDSTICKS, learn, standardised
from tests import labelled_recording as sample

LENGTH = 16


def scores(name: str, values: np.ndarray, n_fit: int = sample.N_TRAIN, seed: int = 0) -> np.ndarray:
    return learn(YARDSTICKS[name], values, n_fit, LENGTH, seed)(n_fit)


@pytest.mark.parametrize("name", YARDSTICKS)
def test_yardsticks_rank_a_stuck_sensor(name: str) -> None:
    found = scores(name, sample.values())
    assert found.dtype == np.float32
    assert len(found) == sample.N_ROWS - sample.N_TRAIN
    assert auc_roc(sample.label()[sample.N_TRAIN :], found.astype(np.float64)) > (0.7 if "forecast" in name else 0.9)


@pytest.mark.parametrize("name", YARDSTICKS)
def test_a_seed_gives_the_same_scores(name: str) -> None:
    state = torch.random.get_rng_state()
    assert np.array_equal(scores(name, sample.values()), scores(name, sample.values()))
    assert torch.equal(state, torch.random.get_rng_state()), "the caller's random numbers are left alone"


@pytest.mark.parametrize("name", YARDSTICKS)
def test_blanks_give_finite_scores(name: str) -> None:
    values = np.column_stack((sample.values(), np.full(sample.N_ROWS, 7.0), np.full(sample.N_ROWS, np.nan)))
    values[100:140, 0] = values[900:, 1] = np.nan
    assert np.isfinite(scores(name, values.astype(np.float32))).all()


def test_components_rebuild_a_plane() -> None:
    draw = np.random.default_rng(0)
    for n_sensors in (1, 40):  # more windows than cells, and fewer
        rows = draw.standard_normal((400, 1)) @ draw.standard_normal((1, n_sensors))
        rows += 1e-3 * draw.standard_normal(rows.shape)
        z = torch.from_numpy(standardised(rows.astype(np.float32), 300)).unfold(0, 1, 1).transpose(1, 2)
        assert yardsticks.pca_window(z[:300])(z).max() < 1e-3
        assert yardsticks.pca_newest(z[:300])(z).max() < 1e-3


def test_a_forecast_finds_the_lags() -> None:
    draw = np.random.default_rng(0)
    values = draw.standard_normal((4000, 2))
    for row in range(2, len(values)):
        values[row] += 0.6 * values[row - 1, ::-1] - 0.3 * values[row - 2]
    found = scores("linear-forecast", values.astype(np.float32), 3000)
    # The errors are the shocks, of which the mean of the absolute values is sqrt(2/π).
    assert found.mean() == pytest.approx(np.sqrt(2 / np.pi), rel=0.1)


def test_a_short_window_has_fewer_lags() -> None:
    for name in YARDSTICKS:
        found = learn(YARDSTICKS[name], sample.values(), sample.N_TRAIN, 2, 0)(sample.N_TRAIN)
        assert np.isfinite(found).all()
