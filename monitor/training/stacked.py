"""Layer by layer: each learns alone to give back what it was given, the outermost first (Bengio et al. 2007).

In: an untrained network and standardised windows. Out: the same network, its layers no longer at random.
Law: each layer sees what the layers outside it make of a window; the straight path learns nothing here and is silent,
so that the layers and not the plane say what the window is.
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
"""Per layer: a start, not a goal. Fine-tuning follows."""
BATCH = 128
LEARNING_RATE = 3e-3


def learn_layers(
    network: Network, x: torch.Tensor, draw: torch.Generator, deadline: float, now: Callable[[], float]
) -> list[dict[str, float]]:
    """Train each layer of the network on windows (N, C, T); returns its error before and after."""
    base = autoencoder_in(network)
    with torch.no_grad():
        base.to_latent.weight[:, : base.n_values] = 0.0
        base.linear_decoder.weight.zero_()
        base.linear_decoder.bias.zero_()
    outside: list[nn.Module] = []
    facts = []
    for down, up in base.layer_pairs():
        optimiser = torch.optim.Adam([*down.parameters(), *up.parameters()], lr=LEARNING_RATE)
        errors: list[float] = []
        while len(errors) < N_STEPS and now() <= deadline:
            given = _through(outside, x[torch.randint(len(x), (BATCH,), generator=draw)])
            back = up(F.relu(down(given)))
            # A transposed convolution may give one cell more than was taken.
            loss = (back[..., : given.shape[-1]] - given).square().mean()
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            optimiser.step()
            errors.append(float(loss.detach()))
        if errors:
            facts.append({"first_error": round(errors[0], 4), "last_error": round(errors[-1], 4)})
        outside.append(down)
    return facts


@torch.no_grad()
def _through(outside: list[nn.Module], x: torch.Tensor) -> torch.Tensor:
    for layer in outside:
        x = F.relu(layer(x))
    return x
