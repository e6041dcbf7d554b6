"""Training objectives: the loss of a network on a batch.

Input: a network, standardised windows (B, C, T) and the mask of present values (None = all). Output: the loss to
minimise.
Invariant: a missing value contributes nothing. A new objective adds a line to the table and its name to
`monitor.config.tree.OBJECTIVES`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import nn

from monitor.models.scaler import forward_fill
from monitor.models.variational import Variational, autoencoder_in

if TYPE_CHECKING:
    from collections.abc import Callable

    from monitor.models.network import Network

    Objective = Callable[[Network, torch.Tensor, torch.Tensor | None, torch.Generator], torch.Tensor]

SPARSITY = 0.1
"""Weight of sparseness, as a share of the error itself: enough to choose between latents that reconstruct alike."""

LEAST_NOISE, MOST_NOISE = 0.2, 0.5
"""Spread of the noise that corrupts a sensor, in the sensor's own spread: as large as the error of the initial network,
within these limits. A sensor with little noise keeps its detail, and one with much is taught to lose it: always .2
leaves more noise in the reconstruction, and with always .5 an odd beat was found less well (`dense`, VUS-PR .86 instead
of .95 on ucr, arterial pressure)."""
P_CORRUPTED, P_DROPPED, P_SPAN = 0.75, 0.15, 0.2
"""Share of the windows that lose values. Within them: share of the sensors that are missing altogether, and of the
sensors missing for a while (a quarter of the window at most). The rest of the windows are only noisy."""

DISCRIMINATOR_RATE = 1e-3
ADVERSARIAL_WEIGHT = 0.1
"""Weight of the discriminator's loss, as a share of the error itself."""


def plain(
    network: Network,
    x: torch.Tensor,
    present: torch.Tensor | None,
    generator: torch.Generator,  # noqa: ARG001 — one signature for every objective, and this one draws nothing
) -> torch.Tensor:
    """Reconstruct the window: mean squared error over the values that are present."""
    return mean_error(network, x, x, present)


def sparse(
    network: Network,
    x: torch.Tensor,
    present: torch.Tensor | None,
    generator: torch.Generator,  # noqa: ARG001 — as above
) -> torch.Tensor:
    """Reconstruct the window from a latent with few large numbers.

    L1, not KL: a KL penalty is defined for activations between 0 and 1, and the latent is linear. L1 relative to L2
    (Hoyer 2004), because a small latent with large weights behind it would make L1 alone small.
    """
    z = network.encode(x).flatten(1)                                      # (B, code)
    error = masked_mean((network.decode(z, x.shape[-1]) - x).square(), present)
    density = z.abs().mean(1) / z.square().mean(1).clamp(min=1e-12).sqrt()    # (B,), 1 = all alike
    return error + SPARSITY * error.detach() * density.mean()


class Denoising:
    """Reconstruct the window from a corrupted copy (Vincent et al. 2008).

    The copy has noise everywhere and lacks sensors, altogether or for a while. A missing value is filled as by the
    scaler: with the last value, or the sensor's centre. So the network also works for assets that lack a sensor.
    """

    def __init__(self, _network: Network) -> None:
        self._noise: torch.Tensor | None = None

    def __call__(
        self, network: Network, x: torch.Tensor, present: torch.Tensor | None, generator: torch.Generator
    ) -> torch.Tensor:
        """Return the loss. The first call measures the noise."""
        if self._noise is None and not network.n_unscored:
            self._noise = noise_of(network, x, present)
        return mean_error(network, self.corrupted(x, present, generator), x, present)

    def corrupted(self, x: torch.Tensor, present: torch.Tensor | None, generator: torch.Generator) -> torch.Tensor:
        """Return corrupted copies of windows, with the noise that the first call measured.

        A forecaster has the least noise: it sees no step that it predicts, and cannot copy its noise.
        """
        return corrupt(x, present, generator, self._noise)


@torch.no_grad()
def noise_of(network: Network, x: torch.Tensor, present: torch.Tensor | None) -> torch.Tensor:
    """Return the spread (C, 1) of the noise that corrupts each sensor of (B, C, T)."""
    squared = network.squared_error(x, x)
    here = torch.ones_like(squared) if present is None else present
    mean = (squared * here).sum((0, 2)) / here.sum((0, 2)).clamp(min=1)   # (C,)
    return mean.sqrt().clamp(LEAST_NOISE, MOST_NOISE)[:, None]


def corrupt(
    x: torch.Tensor, present: torch.Tensor | None, generator: torch.Generator, noise: torch.Tensor | None = None
) -> torch.Tensor:
    """Return a copy of (B, C, T) with noise, missing sensors and missing spans, alike on every device.

    `noise`: its spread (C, 1). None = the least.
    """
    n, n_sensors, length = x.shape
    drawn = torch.randn(x.shape, generator=generator).to(x.device)
    noisy = x + (LEAST_NOISE if noise is None else noise) * drawn
    lossy = torch.rand(n, 1, 1, generator=generator) < P_CORRUPTED
    dropped = lossy & (torch.rand(n, n_sensors, 1, generator=generator) < P_DROPPED)
    # Keep all sensors where all were dropped: without any input there is nothing to reconstruct from.
    dropped &= ~dropped.all(1, keepdim=True)
    has_span = lossy & (torch.rand(n, n_sensors, 1, generator=generator) < P_SPAN)
    start = torch.rand(n, n_sensors, 1, generator=generator) * length
    duration = torch.rand(n, n_sensors, 1, generator=generator) * length / 4
    steps = torch.arange(length)
    in_span = has_span & (steps >= start) & (steps < start + duration)    # (B, C, T)
    kept = (~(dropped | in_span)).to(x.device)                            # (B, C, T)
    if present is not None:
        kept = kept & present
    return forward_fill(torch.where(kept, noisy, 0.0), kept)


def variational(
    network: Network, x: torch.Tensor, present: torch.Tensor | None, generator: torch.Generator
) -> torch.Tensor:
    """Reconstruct the window from a draw of its latent, and keep latents near a standard normal.

    Kingma & Welling 2014. The noise variance of the window is not set but optimal for the present error (Rybkin et al.
    2021): the evidence bound is then CT/2 · log(error) + KL, and this loss has its gradient, scaled by the error.
    """
    if not isinstance(network, Variational):
        raise TypeError("the network has no distribution of codes: build it with draws")
    mean, log_variance = network.posterior(x)                             # (B, code) each
    noise = torch.randn(mean.shape, generator=generator).to(x.device)
    z = mean + (0.5 * log_variance).exp() * noise
    error = masked_mean((network.decode(z, x.shape[-1]) - x).square(), present)
    kl = kl_divergence(mean, log_variance).sum(1).mean()
    return error + 2 * error.detach() * kl / x[0].numel()


def kl_divergence(mean: torch.Tensor, log_variance: torch.Tensor) -> torch.Tensor:
    """Return the KL divergence (B, code) from a standard normal, in nats."""
    return 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance)


class Adversarial:
    """Reconstruct the window from a latent that a discriminator cannot tell from a standard normal.

    Makhzani et al. 2015. The discriminator is trained beside the network and discarded with this object. Only its
    accuracy is kept.
    """

    def __init__(self, network: Network) -> None:
        to_latent = autoencoder_in(network).to_latent
        discriminator = nn.Sequential(nn.Linear(to_latent.out_features, 64), nn.ReLU(), nn.Linear(64, 1))
        self.discriminator = discriminator.to(to_latent.weight.device)
        self.optimiser = torch.optim.Adam(self.discriminator.parameters(), lr=DISCRIMINATOR_RATE, betas=(0.5, 0.999))
        self.accuracy = torch.tensor(0.5)

    def __call__(
        self, network: Network, x: torch.Tensor, present: torch.Tensor | None, generator: torch.Generator
    ) -> torch.Tensor:
        """Train the discriminator one step, and return the network's loss."""
        z = network.encode(x)                                             # (B, code)
        prior = torch.randn(z.shape, generator=generator).to(x.device)
        real, fake = self.discriminator(prior), self.discriminator(z.detach())   # (B, 1)
        loss = F.softplus(-real).mean() + F.softplus(fake).mean()
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        self.optimiser.step()
        with torch.no_grad():
            accuracy = 0.5 * ((real > 0).float().mean() + (fake < 0).float().mean())
            self.accuracy = 0.98 * self.accuracy.to(accuracy.device) + 0.02 * accuracy

        error = masked_mean((network.decode(z, x.shape[-1]) - x).square(), present)
        return error + ADVERSARIAL_WEIGHT * error.detach() * F.softplus(-self.discriminator(z)).mean()

    def summary(self) -> dict[str, Any]:
        """Return the discriminator's accuracy, under its key in the card."""
        return {"judge_right": round(float(self.accuracy), 3)}


def mean_error(network: Network, x: torch.Tensor, target: torch.Tensor, present: torch.Tensor | None) -> torch.Tensor:
    """Return the mean squared error over the values that are present and that the network scores."""
    scored = slice(network.n_unscored, None)
    squared = network.squared_error(x, target)[..., scored]
    return masked_mean(squared, None if present is None else present[..., scored])


def masked_mean(squared: torch.Tensor, present: torch.Tensor | None) -> torch.Tensor:
    """Return the mean over the values that are present."""
    if present is None:
        return squared.mean()
    return (squared * present).sum() / present.sum().clamp(min=1)


OBJECTIVES: dict[str, Callable[[Network], Objective]] = {
    "plain": lambda _: plain,
    "sparse": lambda _: sparse,
    "denoising": Denoising,
    "variational": lambda _: variational,
    "adversarial": Adversarial,
}
"""Name → factory of the objective of one training."""

PRIOR_OBJECTIVES = ("variational", "adversarial")
"""Objectives that pull the latent to a standard normal."""
