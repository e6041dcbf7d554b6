"""Latents, reconstructions and samples: in the sensors' own units, and refused by networks without a latent."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from monitor.budget import Budget
from monitor.errors import NotFound
from monitor.models.apply import encode, reconstruct, sample
from monitor.models.spec import FleetSpec, ModelSpec, TrainingSet
from monitor.training.fit import fit

if TYPE_CHECKING:
    from monitor.models.detector import TrainedModel

LENGTH = 12
SENSORS = ("speed", "power", "gone")
BUDGET = Budget(alarms_per_week=10_000.0, confirm=1, among=1, recover=1, step_s=1.0)


def windows(n: int, seed: int = 0, noise: float = 0.1) -> np.ndarray:
    draw = np.random.default_rng(seed)
    wave = np.stack([np.sin(np.arange(n) / 3), np.cos(np.arange(n) / 3)], axis=1)
    values = (wave + noise * draw.standard_normal(wave.shape)) * [10, 2000] + [50, 1000]
    whole = np.concatenate([values, np.full((n, 1), np.nan)], axis=1).astype(np.float32)
    return np.ascontiguousarray(np.lib.stride_tricks.sliding_window_view(whole, LENGTH, axis=0).transpose(0, 2, 1))


def trained(spec: ModelSpec) -> TrainedModel:
    values = windows(500)
    train = TrainingSet(values, np.zeros(len(values), np.int32), np.arange(len(values), dtype=np.int64) * 1_000_000)
    return fit(train, spec, FleetSpec("pumps", SENSORS, 1.0, BUDGET))


@pytest.fixture(scope="module")
def pca() -> TrainedModel:
    return trained(ModelSpec("pca"))


def test_similar_windows_have_similar_latents(pca: TrainedModel) -> None:
    fresh = windows(600, seed=1)                                           # more than one chunk
    latents = encode(pca, fresh)
    assert latents.shape == (len(fresh), pca.network.hyper["n_components"])
    one_period, half = 19, 9                                               # 6π readings
    apart = np.linalg.norm(latents[:-one_period] - latents[one_period:], axis=1).mean()
    opposite = np.linalg.norm(latents[:-half] - latents[half:], axis=1).mean()
    assert apart < 0.3 * opposite
    np.testing.assert_allclose(encode(pca, fresh[300:301]), latents[300:301], rtol=1e-4, atol=1e-4)


def test_reconstruction_removes_noise_and_gaps(pca: TrainedModel) -> None:
    noisy, clean = windows(200, seed=2), windows(200, seed=2, noise=0.0)
    noisy[:, 4:6, 0] = np.nan
    rebuilt = reconstruct(pca, noisy)
    assert rebuilt.shape == noisy.shape
    assert np.isnan(rebuilt[..., 2]).all(), "an absent sensor has no reconstruction"
    for sensor, unit in ((0, 10), (1, 2000)):
        assert np.sqrt(np.mean((rebuilt[..., sensor] - clean[..., sensor]) ** 2)) < 0.08 * unit


@pytest.mark.parametrize(
    "spec",
    [ModelSpec("pca"), ModelSpec("conv", max_steps=100), ModelSpec("dense", "variational", max_steps=100)],
    ids=lambda spec: f"{spec.architecture}-{spec.objective}",
)
def test_samples_look_healthy_and_are_seeded(spec: ModelSpec) -> None:
    detector = trained(spec)
    drawn = sample(detector, 300, seed=7)
    assert drawn.shape == (300, LENGTH, 3)
    assert np.isnan(drawn[..., 2]).all()
    np.testing.assert_array_equal(drawn, sample(detector, 300, seed=7))
    assert not np.array_equal(drawn[..., :2], sample(detector, 300, seed=8)[..., :2])
    usual = windows(500)
    for sensor in (0, 1):
        assert abs(drawn[..., sensor].mean() - usual[..., sensor].mean()) < 0.3 * usual[..., sensor].std()
        assert 0.6 < drawn[..., sensor].std() / usual[..., sensor].std() < 1.4


def test_no_windows_give_no_rows(pca: TrainedModel) -> None:
    none = np.empty((0, LENGTH, 3), np.float32)
    assert encode(pca, none).shape == (0, pca.network.hyper["n_components"])
    assert reconstruct(pca, none).shape == none.shape
    assert sample(pca, 0, seed=0).shape == none.shape


def test_a_forecaster_has_no_latent() -> None:
    detector = trained(ModelSpec("forecast", max_steps=20))
    with pytest.raises(NotFound, match="forecast has none"):
        encode(detector, windows(60))
    with pytest.raises(NotFound, match="no code to draw"):
        sample(detector, 1, seed=0)
    assert reconstruct(detector, windows(60)).shape == windows(60).shape
