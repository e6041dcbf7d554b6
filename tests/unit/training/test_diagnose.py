"""Diagnosis: each trouble is found in a network that has it, and not in a healthy one."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import nn

from monitor.models.build import build
from monitor.models.network import Network
from monitor.models.pca import Pca
from monitor.models.spec import ModelSpec
from monitor.models.variational import Variational
from monitor.training.diagnose import Diagnosis, diagnose
from monitor.training.loop import CurvePoint, TrainingResult, train
from monitor.training.tensors import WindowTensors

SENSORS = ("speed", "power", "pitch")
CPU = torch.device("cpu")


def waves(n: int, seed: int = 0, noise: float = 0.1) -> WindowTensors:
    """Return three sensors on one wave with a random phase, with noise."""
    draw = torch.Generator().manual_seed(seed)
    at = 6.28 * torch.rand(n, 1, generator=draw) + torch.arange(16) / 2
    x = torch.stack([at.sin(), at.cos(), (at.sin() + at.cos()) / 1.4], dim=1)   # (N, 3, 16)
    return WindowTensors(x + noise * torch.randn(x.shape, generator=draw), None)


def solved(training: WindowTensors) -> Pca:
    return Pca.solve(training.x)


def result_of(network: Network, **more: object) -> TrainingResult:
    result = TrainingResult(network, 0, n_steps=400, best_step=400)
    return dataclasses.replace(result, **more)   # type: ignore[arg-type]  # test values


def diagnosed(
    network: Network, training: WindowTensors, held_out: WindowTensors, result: TrainingResult | None = None
) -> Diagnosis:
    return diagnose(network.eval(), solved(training), training, held_out, result, SENSORS)


class Copier(Network):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return 0.99 * x


class Zero(Network):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.zeros_like(x)


class Memory(Network):
    """Returns the windows that it has stored, and zero for any other."""

    def __init__(self, known: torch.Tensor) -> None:
        super().__init__()
        self.known = known

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        distance = (x.flatten(1)[:, None] - self.known.flatten(1)[None]).square().sum(-1)   # (B, N)
        nearest, row = distance.min(1)
        return torch.where(nearest[:, None, None] < 1e-3, self.known[row], 0.0)


@pytest.fixture(scope="module")
def healthy() -> TrainingResult:
    training = waves(400)
    return train(training, waves(100, 1), ModelSpec("conv", max_steps=300), CPU, lambda *_: None, pca=solved(training))


def test_a_trained_network_has_no_troubles(healthy: TrainingResult) -> None:
    diagnosis = diagnosed(healthy.network, waves(400), waves(100, 1), healthy)
    assert diagnosis.troubles == []
    assert diagnosis.metrics["gap"] < 1.2
    assert diagnosis.metrics["noise_passed"] < 0.3
    assert diagnosis.metrics["shuffled_time"] > 3
    assert diagnosis.metrics["swapped_sensors"] > 3
    assert diagnosis.metrics["curve"][-1][0] == 300
    assert 0 <= diagnosis.metrics["gradient_norm"]["clipped"] <= 1


def test_the_diagnosis_is_deterministic(healthy: TrainingResult) -> None:
    one, two = (diagnosed(healthy.network, waves(400), waves(100, 1), healthy) for _ in range(2))
    assert one == two


def test_a_memorising_network_is_overfitted() -> None:
    training = waves(200)
    network = Memory(training.x)
    [first, *_] = diagnosed(network, training, waves(100, 1), result_of(network, best_step=350)).troubles
    assert first.startswith("overfitting: ")
    assert "350 of 400" in first


def test_a_changed_later_time_is_drift() -> None:
    training = waves(200)
    later = WindowTensors(waves(100, 1).x + 2.0 * torch.linspace(-1, 1, 16).square(), None)
    [first, *_] = diagnosed(solved(training), training, later).troubles
    assert first.startswith("drift: ")


def test_a_copying_network_is_found() -> None:
    diagnosis = diagnosed(Copier(), waves(200), waves(100, 1))
    assert any(trouble.startswith("copying: 99%") for trouble in diagnosis.troubles)
    assert any("sensors come from different moments" in trouble for trouble in diagnosis.troubles)


def test_a_network_returning_the_mean_is_found() -> None:
    troubles = diagnosed(Zero(), waves(200), waves(100, 1)).troubles
    assert any("little more than each sensor's mean" in trouble for trouble in troubles)


def with_sensor(windows: WindowTensors, sensor: torch.Tensor) -> WindowTensors:
    """Replace the second sensor, and let the third one stand still."""
    x = windows.x.clone()
    x[:, 1], x[:, 2] = sensor, 0.0
    return WindowTensors(x, None)


def narrow(training: WindowTensors) -> Pca:
    pca = Pca(3, 16, n_components=2)
    pca.components.copy_(Pca.solve(training.x).components[:2])
    return pca


def test_lost_sensors_are_named() -> None:
    def slow(n: int, seed: int) -> torch.Tensor:
        """Return a smooth sensor, small beside the others, with a phase of its own."""
        draw = torch.Generator().manual_seed(seed)
        return 0.2 * (6.28 * torch.rand(n, 1, generator=draw) + torch.arange(16) / 3).sin()

    training, later = with_sensor(waves(400), slow(400, 5)), with_sensor(waves(200, 1), slow(200, 6))
    pca = narrow(training)
    diagnosis = diagnose(pca, pca, training, later, None, SENSORS)
    assert diagnosis.metrics["not_rebuilt"] == ["power"]
    assert any(t.startswith("distorted features: power cannot be rebuilt, though") for t in diagnosis.troubles)
    assert not any(t.startswith("noise") for t in diagnosis.troubles)
    assert set(diagnosis.metrics["detail_explained"]) == {"speed", "power"}


def test_a_sensor_of_noise_is_named() -> None:
    draw = torch.Generator().manual_seed(5)
    training, later = (with_sensor(waves(n, n), torch.randn(n, 16, generator=draw)) for n in (400, 200))
    pca = narrow(training)
    diagnosis = diagnose(pca, pca, training, later, None, SENSORS)
    assert any(t.startswith("noise: power cannot be rebuilt by anything") for t in diagnosis.troubles)
    assert not any(t.startswith("distorted") for t in diagnosis.troubles)


def test_a_constant_latent_has_collapsed(healthy: TrainingResult) -> None:
    network = build("conv", 3, 16, code=4)
    with torch.no_grad():
        network.get_parameter("to_latent.weight")[1:] = 0.0
    diagnosis = diagnosed(network, waves(200), waves(100, 1))
    assert "collapse: only 1 of the code's 4 numbers ever change" in diagnosis.troubles
    assert diagnosed(healthy.network, waves(400), waves(100, 1)).metrics["code_active"] >= 2


def test_a_posterior_like_the_prior_collapsed() -> None:
    network = build("dense", 3, 16, draws=4)
    assert isinstance(network, Variational)
    with torch.no_grad():
        for layer in (network.base.to_latent, network.to_log_variance):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)
    troubles = diagnosed(network, waves(200), waves(100, 1)).troubles
    assert any(trouble.startswith("posterior collapse") for trouble in troubles)


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"restarts": ["seed 0: loss nan at step 50"]}, "hard training: 1 seeds failed before this one (seed 0"),
        ({"gradient_norm": {"p50": 4.0, "p99": 9.0, "clipped": 0.8}}, "clipped in 80% of the steps"),
        ({"stopped": "time budget"}, "cut short by max_train after 300 steps"),
        ({"curve": [CurvePoint(50 * i, 1.0, 1 / (i + 1)) for i in range(9)]}, "learning had not ended"),
        ({"objective": {"judge_right": 0.93}}, "the judge tells codes from the prior in 93%"),
    ],
)
def test_troubles_of_the_training_are_named(fields: dict[str, object], text: str, healthy: TrainingResult) -> None:
    result = dataclasses.replace(healthy, **fields)   # type: ignore[arg-type]  # test values
    troubles = diagnosed(healthy.network, waves(400), waves(100, 1), result).troubles
    assert len(troubles) == 1
    assert text in troubles[0]


def test_missing_values_do_not_count() -> None:
    training, later = waves(300), waves(100, 1)
    present = torch.ones_like(later.x, dtype=torch.bool)
    present[:, 2, 4:9] = False
    gappy = WindowTensors(torch.where(present, later.x, 50.0), present)
    metrics = diagnosed(Zero(), training, gappy).metrics
    assert metrics["detail_explained"]["pitch"] == pytest.approx(0.0, abs=1e-3)


def test_a_single_sensor_has_nothing_to_swap() -> None:
    training, later = (WindowTensors(w.x[:, :1], None) for w in (waves(200), waves(80, 1)))
    metrics = diagnose(Pca.solve(training.x), Pca.solve(training.x), training, later, None, ("speed",)).metrics
    assert "swapped_sensors" not in metrics


def test_a_forecaster_passes_no_noise() -> None:
    training = waves(300)
    result = train(training, waves(80, 1), ModelSpec("forecast", max_steps=300), CPU, lambda *_: None)
    metrics = diagnosed(result.network, training, waves(80, 1), result).metrics
    assert "code" not in metrics
    assert abs(metrics["noise_passed"]) < 0.1
