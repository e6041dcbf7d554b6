"""Layers that learn one by one: each gives back what it was given, and nobody else speaks meanwhile."""

from __future__ import annotations

import pytest
import torch

from monitor.models.build import build
from monitor.models.network import Autoencoder
from monitor.models.spec import ModelSpec
from monitor.training.loop import Tensors, learn
from monitor.training.stacked import learn_layers

CPU = torch.device("cpu")


def waves(n: int, seed: int = 0) -> torch.Tensor:
    draw = torch.Generator().manual_seed(seed)
    at = 6.28 * torch.rand(n, 1, generator=draw) + torch.arange(13) / 2
    x = torch.stack([at.sin(), at.cos()], dim=1)                           # (N, 2, 13)
    return x + 0.1 * torch.randn(x.shape, generator=draw)


@pytest.mark.parametrize(("architecture", "n_layers"), [("conv", 2), ("dense", 1)])
@pytest.mark.parametrize("draws", [0, 4])
def test_each_layer_learns_to_give_back_what_it_was_given(architecture: str, n_layers: int, draws: int) -> None:
    torch.manual_seed(0)
    network = build(architecture, 2, 13, draws=draws)
    facts = learn_layers(network, waves(300), torch.Generator().manual_seed(0), 1.0, lambda: 0.0)
    assert len(facts) == n_layers
    assert all(layer["last_error"] < 0.5 * layer["first_error"] for layer in facts)


def test_the_straight_path_is_silent_and_the_deeper_layers_do_not_touch_the_outer_ones() -> None:
    torch.manual_seed(0)
    network = build("conv", 2, 13)
    assert isinstance(network, Autoencoder)
    learn_layers(network, waves(300), torch.Generator().manual_seed(0), 1.0, lambda: 0.0)
    x = waves(20, 1)
    z = network.encode(x)
    torch.testing.assert_close(network.decode(z, 13), network.decode_nonlinear(z, 13))
    assert not network.to_latent.weight[:, : network.n_values].any()


def test_no_time_is_no_layer() -> None:
    network = build("conv", 2, 13)
    assert learn_layers(network, waves(50), torch.Generator().manual_seed(0), 1.0, lambda: 2.0) == []


def test_fine_tuning_follows() -> None:
    train, later = Tensors(waves(300), None), Tensors(waves(80, 1), None)
    learnt = learn(train, later, ModelSpec("conv", stacked=True, max_steps=300), CPU, lambda *_: None)
    assert len(learnt.layers) == 2
    assert learnt.held_out_error < 0.1
    assert learnt.held_out_error < 0.5 * learnt.curve[0].held_out_error
