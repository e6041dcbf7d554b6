"""Training objectives: the loss of each, without the missing values."""

from __future__ import annotations

import pytest
import torch

from monitor.models.build import build
from monitor.models.objectives import (
    LEAST_NOISE,
    MOST_NOISE,
    OBJECTIVES,
    Adversarial,
    Denoising,
    corrupt,
    kl_divergence,
    noise_of,
    plain,
    sparse,
    variational,
)
from monitor.models.variational import Variational


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def x() -> torch.Tensor:
    return torch.randn(64, 3, 16, generator=generator(1))


def loss(name: str, x: torch.Tensor, present: torch.Tensor | None) -> float:
    torch.manual_seed(0)
    network = build("dense", 3, 16, draws=4 if name == "variational" else 0)
    return float(OBJECTIVES[name](network)(network, x, present, generator()).detach())


@pytest.mark.parametrize("name", ["plain", "denoising"])
def test_a_missing_value_contributes_no_loss(name: str, x: torch.Tensor) -> None:
    """True of the other objectives as well, but there the filled value is an input like any other."""
    present = torch.ones_like(x, dtype=torch.bool)
    present[:, 1, 4:9] = False
    if name == "plain":
        filled = torch.where(present, x, 1e4)
        network = build("dense", 3, 16)
        with torch.no_grad():
            for parameter in network.parameters():
                parameter.zero_()
        assert plain(network, filled, present, generator()) < 2
    else:
        assert loss(name, torch.where(present, x, 1e4), present) == loss(name, torch.where(present, x, -1e4), present)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_every_weight_has_a_gradient(name: str, x: torch.Tensor) -> None:
    torch.manual_seed(0)
    network = build("conv", 3, 16, draws=4 if name == "variational" else 0)
    OBJECTIVES[name](network)(network, x, None, generator()).backward()
    assert [n for n, p in network.named_parameters() if p.grad is None] == []


def test_sparse_prefers_few_large_numbers(x: torch.Tensor) -> None:
    torch.manual_seed(0)
    network = build("dense", 3, 16, code=3)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.zero_()
        network.get_parameter("to_latent.bias").copy_(torch.tensor([3.0, 0.0, 0.0]))
        few = float(sparse(network, x, None, generator()))
        network.get_parameter("to_latent.bias").copy_(torch.tensor([1.0, 1.0, 1.0]))
        many = float(sparse(network, x, None, generator()))
    assert few < many


def test_corruption_adds_noise_and_gaps() -> None:
    x = torch.zeros(2000, 4, 40) + 5.0
    out = corrupt(x, None, generator())
    gone = (out == 0).all(-1)                                              # a sensor that is missing altogether
    held = (out.diff() == 0).any(-1) & ~gone                               # a sensor with a filled gap
    assert 0.05 < gone.float().mean() < 0.2
    assert 0.05 < held.float().mean() < 0.25
    assert not gone.all(1).any(), "one sensor is always left"
    kept = out[~gone & ~held]
    assert abs(float(kept.std()) - LEAST_NOISE) < 0.1 * LEAST_NOISE
    assert torch.equal(out, corrupt(x, None, generator()))


def test_a_single_sensor_is_never_dropped() -> None:
    assert not (corrupt(torch.zeros(500, 1, 40) + 5.0, None, generator()) == 0).all(-1).any()


def test_corruption_reveals_no_missing_value() -> None:
    x, present = torch.zeros(50, 2, 20), torch.ones(50, 2, 20, dtype=torch.bool)
    x[:, 0, 5:9], present[:, 0, 5:9] = 1e6, False
    assert corrupt(x, present, generator()).max() < 100


def test_denoising_targets_the_clean_window(x: torch.Tensor) -> None:
    class Clean(torch.nn.Module):
        n_unscored = 0

        def squared_error(self, seen: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
            assert not torch.equal(seen, x)
            return (x - target).square()

    objective = Denoising(Clean())   # type: ignore[arg-type]  # all that is used
    objective._noise = torch.full((3, 1), LEAST_NOISE)
    assert float(objective(Clean(), x, None, generator())) == 0.0   # type: ignore[arg-type]  # as above


def test_the_noise_of_a_copy_is_that_of_its_sensor() -> None:
    class Off(torch.nn.Module):
        n_unscored = 0

        def squared_error(self, seen: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
            return torch.tensor([0.0, 0.3, 2.0]).square()[:, None].expand_as(seen)

    x = torch.zeros(400, 3, 16)
    noise = noise_of(Off(), x, None)   # type: ignore[arg-type]  # all that is used
    assert noise[:, 0].tolist() == pytest.approx([LEAST_NOISE, 0.3, MOST_NOISE])
    spread = corrupt(x, None, generator(), noise).std((0, 2))
    assert spread[0] < spread[1] < spread[2]


def test_the_priors_kl_divergence_is_zero() -> None:
    zero = torch.zeros(1, 1)
    assert float(kl_divergence(zero, zero)) == 0.0
    assert float(kl_divergence(zero + 2, zero)) == pytest.approx(2.0)
    assert float(kl_divergence(zero, zero - 4)) == pytest.approx(0.5 * (torch.e**-4 + 3), rel=1e-5)


def test_a_missing_latent_is_a_type_error(x: torch.Tensor) -> None:
    with pytest.raises(TypeError, match="build it with draws"):
        variational(build("conv", 3, 16), x, None, generator())
    with pytest.raises(TypeError, match="no code that learns"):
        Adversarial(build("forecast", 3, 16))


def test_variational_errors_use_fixed_draws(x: torch.Tensor) -> None:
    torch.manual_seed(0)
    network = build("conv", 3, 16, draws=6)
    assert isinstance(network, Variational)
    assert torch.equal(network.draws[:3], -network.draws[3:])
    first = network.squared_error(x, x)
    assert torch.equal(first, network.squared_error(x, x))
    torch.testing.assert_close(network.squared_error(x[5:6], x[5:6]), first[5:6])
    with torch.no_grad():
        network.to_log_variance.bias.fill_(-100.0)   # clamped to the minimum, nearly a point
    torch.testing.assert_close(network.squared_error(x, x), (network(x) - x).square(), rtol=0.05, atol=0.02)


def test_a_discriminator_guesses_at_the_prior() -> None:
    torch.manual_seed(0)
    network = build("dense", 2, 8, code=2)
    adversary = Adversarial(network)
    network.encode = lambda x: x[:, 0, :2]   # type: ignore[method-assign]  # a latent that is normal already
    for seed in range(300):
        adversary(network, torch.randn(128, 2, 8, generator=generator(1000 + seed)), None, generator(seed))
    assert adversary.summary()["judge_right"] == pytest.approx(0.5, abs=0.08)
    network.encode = lambda x: x[:, 0, :2] + 5   # type: ignore[method-assign]  # and one far from it
    for seed in range(300):
        adversary(network, torch.randn(128, 2, 8, generator=generator(1000 + seed)), None, generator(seed))
    assert adversary.summary()["judge_right"] > 0.9
