"""Stacked pretraining: each layer learns to reconstruct its input, and the linear path is zero."""

from __future__ import annotations

import pytest
import torch

from monitor.models.build import build
from monitor.models.network import Autoencoder
from monitor.models.spec import ModelSpec
from monitor.training.loop import train
from monitor.training.stacked import pretrain_layers
from monitor.training.tensors import WindowTensors

CPU = torch.device("cpu")


def waves(n: int, seed: int = 0) -> torch.Tensor:
    draw = torch.Generator().manual_seed(seed)
    at = 6.28 * torch.rand(n, 1, generator=draw) + torch.arange(13) / 2
    x = torch.stack([at.sin(), at.cos()], dim=1)                           # (N, 2, 13)
    return x + 0.1 * torch.randn(x.shape, generator=draw)


@pytest.mark.parametrize(("architecture", "n_layers"), [("conv", 2), ("dense", 1)])
@pytest.mark.parametrize("draws", [0, 4])
def test_each_layer_reconstructs_its_input(architecture: str, n_layers: int, draws: int) -> None:
    torch.manual_seed(0)
    network = build(architecture, 2, 13, draws=draws)
    summary = pretrain_layers(network, waves(300), torch.Generator().manual_seed(0), 1.0, lambda: 0.0)
    assert len(summary) == n_layers
    assert all(layer["last_error"] < 0.5 * layer["first_error"] for layer in summary)


def test_pretraining_zeroes_the_linear_path() -> None:
    torch.manual_seed(0)
    network = build("conv", 2, 13)
    assert isinstance(network, Autoencoder)
    pretrain_layers(network, waves(300), torch.Generator().manual_seed(0), 1.0, lambda: 0.0)
    x = waves(20, 1)
    z = network.encode(x)
    torch.testing.assert_close(network.decode(z, 13), network.decode_nonlinear(z, 13))
    assert not network.to_latent.weight[:, : network.n_values].any()


def test_without_time_no_layer_is_pretrained() -> None:
    network = build("conv", 2, 13)
    assert pretrain_layers(network, waves(50), torch.Generator().manual_seed(0), 1.0, lambda: 2.0) == []


def test_training_follows_the_pretraining() -> None:
    training, later = WindowTensors(waves(300), None), WindowTensors(waves(80, 1), None)
    result = train(training, later, ModelSpec("conv", stacked=True, max_steps=300), CPU, lambda *_: None)
    assert len(result.layers) == 2
    assert result.held_out_error < 0.1
    assert result.held_out_error < 0.5 * result.curve[0].held_out_error
