"""What a network is asked to do while it learns.

In: a network, standardised windows (B, C, T) and what is present (None = all). Out: the loss to be made small.
Law: a cell that is missing asks for nothing. A new objective adds a line to the table and its name in `spec`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import nn

from monitor.models.scaler import hold
from monitor.models.variational import Variational, autoencoder_in

if TYPE_CHECKING:
    from collections.abc import Callable

    from monitor.models.network import Network

    Objective = Callable[[Network, torch.Tensor, torch.Tensor | None, torch.Generator], torch.Tensor]

SPARSITY = 0.1
"""What sparseness weighs, as a share of the error itself: enough to choose between codes that rebuild alike."""

NOISE = 0.2
"""Spread of the noise, in a sensor's own spread: above what sensors jitter by, below what faults do."""
P_DAMAGED, P_DROPPED, P_SPAN = 0.75, 0.15, 0.2
"""Share of the windows that lose anything; within them, share of the sensors that are gone altogether, and of those
that are gone for a while (a quarter of the window at most). The rest of the windows are only noisy."""

ADVERSARY_RATE = 1e-3
ADVERSARY_WEIGHT = 0.1
"""What fooling the judge weighs, as a share of the error itself."""


def plain(
    network: Network,
    x: torch.Tensor,
    present: torch.Tensor | None,
    draw: torch.Generator,  # noqa: ARG001 — one door for every objective; this one needs no chance
) -> torch.Tensor:
    """Rebuild the window: mean squared error over the cells that are present."""
    return mean_error(network, x, x, present)


def sparse(
    network: Network,
    x: torch.Tensor,
    present: torch.Tensor | None,
    draw: torch.Generator,  # noqa: ARG001 — as above
) -> torch.Tensor:
    """Rebuild the window from a code with few large numbers.

    L1, not KL: a KL penalty speaks of activities between 0 and 1, and our code is linear. L1 relative to L2
    (Hoyer 2004), because L1 alone is escaped by a small code before large weights.
    """
    z = network.encode(x).flatten(1)                                      # (B, code)
    error = masked_mean((network.decode(z, x.shape[-1]) - x).square(), present)
    density = z.abs().mean(1) / z.square().mean(1).clamp(min=1e-12).sqrt()    # (B,), 1 = all alike
    return error + SPARSITY * error.detach() * density.mean()


def denoising(
    network: Network, x: torch.Tensor, present: torch.Tensor | None, draw: torch.Generator
) -> torch.Tensor:
    """Rebuild the window from a damaged copy (Vincent et al. 2008): noise everywhere, sensors gone altogether or for
    a while. What is gone looks as it does in the river: held, or at its centre. So a network that learnt this serves
    assets that lack a sensor.
    """
    return mean_error(network, damaged(x, present, draw), x, present)


def damaged(x: torch.Tensor, present: torch.Tensor | None, draw: torch.Generator) -> torch.Tensor:
    """Return a copy of (B, C, T) with noise, lost sensors and lost spans; alike on every device."""
    n, n_sensors, length = x.shape
    noisy = x + NOISE * torch.randn(x.shape, generator=draw).to(x.device)
    lossy = torch.rand(n, 1, 1, generator=draw) < P_DAMAGED
    dropped = lossy & (torch.rand(n, n_sensors, 1, generator=draw) < P_DROPPED)
    # One sensor alone cannot be told from nothing: something must be left to rebuild it from.
    dropped &= ~dropped.all(1, keepdim=True)
    hit = lossy & (torch.rand(n, n_sensors, 1, generator=draw) < P_SPAN)
    begins = torch.rand(n, n_sensors, 1, generator=draw) * length
    lasts = torch.rand(n, n_sensors, 1, generator=draw) * length / 4
    steps = torch.arange(length)
    here = (~(dropped | (hit & (steps >= begins) & (steps < begins + lasts)))).to(x.device)   # (B, C, T)
    if present is not None:
        here = here & present
    return hold(torch.where(here, noisy, 0.0), here)


def variational(
    network: Network, x: torch.Tensor, present: torch.Tensor | None, draw: torch.Generator
) -> torch.Tensor:
    """Rebuild the window from a draw of its code, and keep codes near a standard normal (Kingma & Welling 2014).

    The noise of the window is not guessed but the best there is for the present error (Rybkin et al. 2021): the
    evidence bound is then CT/2 · log(error) + KL, and this loss has its gradient, scaled by the error.
    """
    if not isinstance(network, Variational):
        raise TypeError("the network has no distribution of codes: build it with draws")
    mean, log_variance = network.posterior(x)                             # (B, code) each
    chance = torch.randn(mean.shape, generator=draw).to(x.device)
    z = mean + (0.5 * log_variance).exp() * chance
    error = masked_mean((network.decode(z, x.shape[-1]) - x).square(), present)
    nats = divergence(mean, log_variance).sum(1).mean()
    return error + 2 * error.detach() * nats / x[0].numel()


def divergence(mean: torch.Tensor, log_variance: torch.Tensor) -> torch.Tensor:
    """Return the KL divergence (B, code) from a standard normal, in nats."""
    return 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance)


class Adversarial:
    """Rebuild the window from a code that a judge cannot tell from a standard normal (Makhzani et al. 2015).

    The judge learns beside the network and is discarded with this object; only its facts stay.
    """

    def __init__(self, network: Network) -> None:
        to_latent = autoencoder_in(network).to_latent
        judge = nn.Sequential(nn.Linear(to_latent.out_features, 64), nn.ReLU(), nn.Linear(64, 1))
        self.judge = judge.to(to_latent.weight.device)
        self.optimiser = torch.optim.Adam(self.judge.parameters(), lr=ADVERSARY_RATE, betas=(0.5, 0.999))
        self.right = torch.tensor(0.5)

    def __call__(
        self, network: Network, x: torch.Tensor, present: torch.Tensor | None, draw: torch.Generator
    ) -> torch.Tensor:
        """Teach the judge one step, and return the network's loss."""
        z = network.encode(x)                                             # (B, code)
        drawn = torch.randn(z.shape, generator=draw).to(x.device)
        true, made = self.judge(drawn), self.judge(z.detach())            # (B, 1)
        verdict = F.softplus(-true).mean() + F.softplus(made).mean()
        self.optimiser.zero_grad(set_to_none=True)
        verdict.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        self.optimiser.step()
        with torch.no_grad():
            right = 0.5 * ((true > 0).float().mean() + (made < 0).float().mean())
            self.right = 0.98 * self.right.to(right.device) + 0.02 * right

        error = masked_mean((network.decode(z, x.shape[-1]) - x).square(), present)
        return error + ADVERSARY_WEIGHT * error.detach() * F.softplus(-self.judge(z)).mean()

    def facts(self) -> dict[str, Any]:
        """Return what is worth keeping of the judge."""
        return {"judge_right": round(float(self.right), 3)}


def mean_error(network: Network, x: torch.Tensor, target: torch.Tensor, present: torch.Tensor | None) -> torch.Tensor:
    """Return the mean squared error over the cells that are present and that the network has an opinion about."""
    seen = slice(network.n_unscored, None)
    squared = network.squared_error(x, target)[..., seen]
    return masked_mean(squared, None if present is None else present[..., seen])


def masked_mean(squared: torch.Tensor, present: torch.Tensor | None) -> torch.Tensor:
    """Return the mean over the cells that are present."""
    if present is None:
        return squared.mean()
    return (squared * present).sum() / present.sum().clamp(min=1)


OBJECTIVES: dict[str, Callable[[Network], Objective]] = {
    "plain": lambda _: plain,
    "sparse": lambda _: sparse,
    "denoising": lambda _: denoising,
    "variational": lambda _: variational,
    "adversarial": Adversarial,
}
"""Name → what makes the objective of one training."""

PRIOR = ("variational", "adversarial")
"""Those that teach the code to be a standard normal."""
