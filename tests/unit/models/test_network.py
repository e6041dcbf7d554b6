"""Every autoencoder starts as the principal components, and knows afterwards where healthy codes lie."""

from __future__ import annotations

import pytest
import torch

from monitor.models.build import build
from monitor.models.network import Autoencoder
from monitor.models.pca import Pca

AUTOENCODERS = ("conv", "dense", "lstm")


def waves(n: int) -> torch.Tensor:
    draw = torch.Generator().manual_seed(0)
    at = 6.28 * torch.rand(n, 1, generator=draw) + torch.arange(13) / 2
    x = torch.stack([3 * at.sin() + 1, at.cos()], dim=1)                   # (N, 2, 13)
    return x + 0.1 * torch.randn(x.shape, generator=draw)


def started(architecture: str, pca: Pca) -> Autoencoder:
    network = build(architecture, 2, 13, code=pca.hyper["n_components"])
    assert isinstance(network, Autoencoder)
    network.init_from_pca(pca.mean, pca.components, pca.spread)
    return network


@pytest.mark.parametrize("architecture", AUTOENCODERS)
def test_it_starts_as_the_principal_components_with_a_white_code(architecture: str) -> None:
    x = waves(300)
    pca = Pca.solve(x)
    network = started(architecture, pca)
    torch.testing.assert_close(network(x), pca(x), rtol=1e-4, atol=1e-4)
    z = network.encode(x)
    torch.testing.assert_close(z.mean(0), torch.zeros(z.shape[1]), rtol=0, atol=1e-3)
    torch.testing.assert_close(z.std(0, correction=0), torch.ones(z.shape[1]), rtol=1e-2, atol=0)


@pytest.mark.parametrize("architecture", AUTOENCODERS)
def test_everything_it_has_can_still_learn(architecture: str) -> None:
    x = waves(300)
    network = started(architecture, Pca.solve(x))
    optimiser = torch.optim.Adam(network.parameters(), lr=1e-3)
    before = {name: parameter.detach().clone() for name, parameter in network.named_parameters()}
    for _ in range(3):
        optimiser.zero_grad()
        (network(x) - x).square().mean().backward()
        optimiser.step()
    assert [n for n, p in network.named_parameters() if torch.equal(p, before[n])] == []


def test_drawn_codes_lie_where_the_measured_ones_did() -> None:
    x = waves(2000)
    network = started("dense", Pca.solve(x))
    with torch.no_grad():
        network.to_latent.bias += 2.0
    network.fit_latent(x)
    z = network.encode(x).detach()
    drawn = network.sample_latent(4000, torch.Generator().manual_seed(0))
    torch.testing.assert_close(drawn.mean(0), z.mean(0), rtol=0, atol=0.1)
    torch.testing.assert_close(drawn.T.cov(), z.T.cov(), rtol=0, atol=0.1)
