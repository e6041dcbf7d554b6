"""Each trouble is found where it is, and not where it is not."""

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
from monitor.training.loop import Learnt, Point, Tensors, learn

SENSORS = ("speed", "power", "pitch")
CPU = torch.device("cpu")


def waves(n: int, seed: int = 0, noise: float = 0.1) -> Tensors:
    """Three sensors on one wave, its phase at random, with noise."""
    draw = torch.Generator().manual_seed(seed)
    at = 6.28 * torch.rand(n, 1, generator=draw) + torch.arange(16) / 2
    x = torch.stack([at.sin(), at.cos(), (at.sin() + at.cos()) / 1.4], dim=1)   # (N, 3, 16)
    return Tensors(x + noise * torch.randn(x.shape, generator=draw), None)


def solved(train: Tensors) -> Pca:
    return Pca.solve(train.x)


def course(network: Network, **more: object) -> Learnt:
    return dataclasses.replace(Learnt(network, 0, n_steps=400, best_step=400), **more)   # type: ignore[arg-type]  # test values


def found(network: Network, train: Tensors, held_out: Tensors, learnt: Learnt | None = None) -> Diagnosis:
    return diagnose(network.eval(), solved(train), train, held_out, learnt, SENSORS)


class Copier(Network):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return 0.99 * x


class Silent(Network):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.zeros_like(x)


class Parrot(Network):
    """Knows its windows by heart and nothing else."""

    def __init__(self, known: torch.Tensor) -> None:
        super().__init__()
        self.known = known

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        distance = (x.flatten(1)[:, None] - self.known.flatten(1)[None]).square().sum(-1)   # (B, N)
        nearest, row = distance.min(1)
        return torch.where(nearest[:, None, None] < 1e-3, self.known[row], 0.0)


@pytest.fixture(scope="module")
def healthy() -> Learnt:
    train = waves(400)
    return learn(train, waves(100, 1), ModelSpec("conv", max_steps=300), CPU, lambda *_: None, pca=solved(train))


def test_a_network_that_learnt_its_waves_has_no_troubles(healthy: Learnt) -> None:
    diagnosis = found(healthy.network, waves(400), waves(100, 1), healthy)
    assert diagnosis.troubles == []
    assert diagnosis.facts["gap"] < 1.2
    assert diagnosis.facts["noise_passed"] < 0.3
    assert diagnosis.facts["shuffled_time"] > 3
    assert diagnosis.facts["swapped_sensors"] > 3
    assert diagnosis.facts["curve"][-1][0] == 300
    assert 0 <= diagnosis.facts["gradient_norm"]["clipped"] <= 1


def test_the_same_windows_give_the_same_facts(healthy: Learnt) -> None:
    one, two = (found(healthy.network, waves(400), waves(100, 1), healthy) for _ in range(2))
    assert one == two


def test_a_network_that_knows_its_windows_by_heart_is_overfitted() -> None:
    train = waves(200)
    network = Parrot(train.x)
    [first, *_] = found(network, train, waves(100, 1), course(network, best_step=350)).troubles
    assert first.startswith("overfitting: ")
    assert "350 of 400" in first


def test_a_later_time_that_is_unlike_the_earlier_is_drift_not_overfitting() -> None:
    train = waves(200)
    later = Tensors(waves(100, 1).x + 2.0 * torch.linspace(-1, 1, 16).square(), None)
    [first, *_] = found(solved(train), train, later).troubles
    assert first.startswith("drift: ")


def test_a_copier_is_named() -> None:
    diagnosis = found(Copier(), waves(200), waves(100, 1))
    assert any(trouble.startswith("copying: 99%") for trouble in diagnosis.troubles)
    assert any("sensors come from different moments" in trouble for trouble in diagnosis.troubles)


def test_one_that_returns_the_mean_is_named() -> None:
    assert any("little more than each sensor's mean" in t for t in found(Silent(), waves(200), waves(100, 1)).troubles)


def with_odd(windows: Tensors, odd: torch.Tensor) -> Tensors:
    """The second sensor is another one, the third stands still."""
    x = windows.x.clone()
    x[:, 1], x[:, 2] = odd, 0.0
    return Tensors(x, None)


def narrow(train: Tensors) -> Pca:
    pca = Pca(3, 16, n_components=2)
    pca.components.copy_(Pca.solve(train.x).components[:2])
    return pca


def test_sensors_that_are_lost_are_named_and_those_that_stand_still_are_not() -> None:
    def slow(n: int, seed: int) -> torch.Tensor:
        """Smooth, but little beside the others, and at a moment of its own."""
        draw = torch.Generator().manual_seed(seed)
        return 0.2 * (6.28 * torch.rand(n, 1, generator=draw) + torch.arange(16) / 3).sin()

    train, later = with_odd(waves(400), slow(400, 5)), with_odd(waves(200, 1), slow(200, 6))
    pca = narrow(train)
    diagnosis = diagnose(pca, pca, train, later, None, SENSORS)
    assert diagnosis.facts["not_rebuilt"] == ["power"]
    assert any(t.startswith("distorted features: power cannot be rebuilt, though") for t in diagnosis.troubles)
    assert not any(t.startswith("noise") for t in diagnosis.troubles)
    assert set(diagnosis.facts["detail_explained"]) == {"speed", "power"}


def test_a_sensor_that_is_noise_is_called_so() -> None:
    draw = torch.Generator().manual_seed(5)
    train, later = (with_odd(waves(n, n), torch.randn(n, 16, generator=draw)) for n in (400, 200))
    pca = narrow(train)
    diagnosis = diagnose(pca, pca, train, later, None, SENSORS)
    assert any(t.startswith("noise: power cannot be rebuilt by anything") for t in diagnosis.troubles)
    assert not any(t.startswith("distorted") for t in diagnosis.troubles)


def test_a_code_that_stands_still_has_collapsed(healthy: Learnt) -> None:
    network = build("conv", 3, 16, code=4)
    with torch.no_grad():
        network.get_parameter("to_latent.weight")[1:] = 0.0
    diagnosis = found(network, waves(200), waves(100, 1))
    assert "collapse: only 1 of the code's 4 numbers ever change" in diagnosis.troubles
    assert found(healthy.network, waves(400), waves(100, 1)).facts["code_active"] >= 2


def test_a_posterior_that_is_its_prior_has_collapsed() -> None:
    network = build("dense", 3, 16, draws=4)
    assert isinstance(network, Variational)
    with torch.no_grad():
        for layer in (network.base.to_latent, network.to_log_variance):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)
    troubles = found(network, waves(200), waves(100, 1)).troubles
    assert any(trouble.startswith("posterior collapse") for trouble in troubles)


@pytest.mark.parametrize(
    ("facts", "said"),
    [
        ({"restarts": ["seed 0: loss nan at step 50"]}, "hard training: 1 seeds failed before this one (seed 0"),
        ({"gradient_norm": {"p50": 4.0, "p99": 9.0, "clipped": 0.8}}, "clipped in 80% of the steps"),
        ({"stopped": "time budget"}, "cut short by max_train after 300 steps"),
        ({"curve": [Point(50 * i, 1.0, 1 / (i + 1)) for i in range(9)]}, "learning had not ended"),
        ({"objective": {"judge_right": 0.93}}, "the judge tells codes from the prior in 93%"),
    ],
)
def test_how_learning_went_is_told(facts: dict[str, object], said: str, healthy: Learnt) -> None:
    learnt = dataclasses.replace(healthy, **facts)   # type: ignore[arg-type]  # test values
    troubles = found(healthy.network, waves(400), waves(100, 1), learnt).troubles
    assert len(troubles) == 1
    assert said in troubles[0]


def test_gaps_do_not_count() -> None:
    train, later = waves(300), waves(100, 1)
    present = torch.ones_like(later.x, dtype=torch.bool)
    present[:, 2, 4:9] = False
    wild = Tensors(torch.where(present, later.x, 50.0), present)
    facts = found(Silent(), train, wild).facts
    assert facts["detail_explained"]["pitch"] == pytest.approx(0.0, abs=1e-3)


def test_a_single_sensor_has_nothing_to_swap() -> None:
    train, later = (Tensors(w.x[:, :1], None) for w in (waves(200), waves(80, 1)))
    facts = diagnose(Pca.solve(train.x), Pca.solve(train.x), train, later, None, ("speed",)).facts
    assert "swapped_sensors" not in facts


def test_a_forecaster_has_no_code_and_passes_no_noise() -> None:
    train = waves(300)
    learnt = learn(train, waves(80, 1), ModelSpec("forecast", max_steps=300), CPU, lambda *_: None)
    facts = found(learnt.network, train, waves(80, 1), learnt).facts
    assert "code" not in facts
    assert abs(facts["noise_passed"]) < 0.1
