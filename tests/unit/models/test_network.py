"""Autoencoders: initialised as the principal components, with a fitted latent and stable names in checkpoints."""

from __future__ import annotations

import pytest
import torch

from monitor.models.build import NETWORKS, build
from monitor.models.network import Autoencoder
from monitor.models.pca import Pca

AUTOENCODERS = ("conv", "dense", "lstm")


def waves(n: int) -> torch.Tensor:
    draw = torch.Generator().manual_seed(0)
    at = 6.28 * torch.rand(n, 1, generator=draw) + torch.arange(13) / 2
    x = torch.stack([3 * at.sin() + 1, at.cos()], dim=1)                   # (N, 2, 13)
    return x + 0.1 * torch.randn(x.shape, generator=draw)


def initialised(architecture: str, pca: Pca) -> Autoencoder:
    network = build(architecture, 2, 13, code=pca.hyper["n_components"])
    assert isinstance(network, Autoencoder)
    network.init_from_pca(pca.mean, pca.components, pca.spread)
    return network


@pytest.mark.parametrize("architecture", AUTOENCODERS)
def test_training_starts_as_the_pca(architecture: str) -> None:
    x = waves(300)
    pca = Pca.solve(x)
    network = initialised(architecture, pca)
    torch.testing.assert_close(network(x), pca(x), rtol=1e-4, atol=1e-4)
    z = network.encode(x)
    torch.testing.assert_close(z.mean(0), torch.zeros(z.shape[1]), rtol=0, atol=1e-3)
    torch.testing.assert_close(z.std(0, correction=0), torch.ones(z.shape[1]), rtol=1e-2, atol=0)


@pytest.mark.parametrize("architecture", AUTOENCODERS)
def test_every_parameter_can_still_learn(architecture: str) -> None:
    x = waves(300)
    network = initialised(architecture, Pca.solve(x))
    optimiser = torch.optim.Adam(network.parameters(), lr=1e-3)
    before = {name: parameter.detach().clone() for name, parameter in network.named_parameters()}
    for _ in range(3):
        optimiser.zero_grad()
        (network(x) - x).square().mean().backward()
        optimiser.step()
    assert [n for n, p in network.named_parameters() if torch.equal(p, before[n])] == []


def test_samples_follow_the_fitted_latents() -> None:
    x = waves(2000)
    network = initialised("dense", Pca.solve(x))
    with torch.no_grad():
        network.to_latent.bias += 2.0
    network.fit_latent(x)
    z = network.encode(x).detach()
    drawn = network.sample_latent(4000, torch.Generator().manual_seed(0))
    torch.testing.assert_close(drawn.mean(0), z.mean(0), rtol=0, atol=0.1)
    torch.testing.assert_close(drawn.T.cov(), z.T.cov(), rtol=0, atol=0.1)


@pytest.mark.parametrize(
    ("architecture", "draws"), [*((name, 0) for name in NETWORKS), *((name, 4) for name in AUTOENCODERS)]
)
def test_state_dict_keeps_the_stored_names(architecture: str, draws: int) -> None:
    network, other = (build(architecture, 2, 13, draws=draws) for _ in range(2))
    state = network.state_dict()
    other.load_state_dict(state)
    assert list(other.state_dict()) == list(state)
    assert all(map(torch.equal, other.state_dict().values(), state.values()))
    if architecture in AUTOENCODERS:
        prefix = "base." if draws else ""
        assert {f"{prefix}{name}" for name in ("to_code.weight", "plane.bias", "code_mean", "code_root")} <= set(state)
