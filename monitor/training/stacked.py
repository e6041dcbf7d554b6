"""Layer-by-layer pretraining: each layer learns alone to reconstruct its input, the outermost first.

Input: an untrained network and standardised windows. Output: the same network with pretrained layers.
Invariant: a layer's input is the output of the layers outside it. The linear path is zero and learns nothing here, so
that the layers have to carry the information.

Bengio et al., Greedy layer-wise training of deep networks, NIPS 2007.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F

from monitor.models.variational import autoencoder_in

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import nn

    from monitor.models.network import Network

N_STEPS = 150
"""Steps per layer. They give a starting point, which the training loop improves."""
BATCH = 128
LEARNING_RATE = 3e-3


def pretrain_layers(
    network: Network, x: torch.Tensor, generator: torch.Generator, deadline: float, now: Callable[[], float]
) -> list[dict[str, float]]:
    """Train each layer of the network on windows (N, C, T). Return each layer's error before and after."""
    base = autoencoder_in(network)
    with torch.no_grad():
        base.to_latent.weight[:, : base.n_values] = 0.0
        base.linear_decoder.weight.zero_()
        base.linear_decoder.bias.zero_()
    outer: list[nn.Module] = []
    summary = []
    for down, up in base.layer_pairs():
        optimiser = torch.optim.Adam([*down.parameters(), *up.parameters()], lr=LEARNING_RATE)
        errors: list[float] = []
        while len(errors) < N_STEPS and now() <= deadline:
            layer_input = _forward(outer, x[torch.randint(len(x), (BATCH,), generator=generator)])
            output = up(F.relu(down(layer_input)))
            # A transposed convolution may return one step more than it was given.
            loss = (output[..., : layer_input.shape[-1]] - layer_input).square().mean()
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            optimiser.step()
            errors.append(float(loss.detach()))
        if errors:
            summary.append({"first_error": round(errors[0], 4), "last_error": round(errors[-1], 4)})
        outer.append(down)
    return summary


@torch.no_grad()
def _forward(layers: list[nn.Module], x: torch.Tensor) -> torch.Tensor:
    for layer in layers:
        x = F.relu(layer(x))
    return x
