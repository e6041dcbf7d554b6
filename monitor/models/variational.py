"""Variational autoencoder: any autoencoder with a distribution as its latent, scored by draws from it.

Input: standardised windows (B, C, T). Output: the reconstruction from the mean latent, and errors averaged over draws.
Invariant: the draws are fixed when the network is made and stored with it, the same for every window. So a score
depends on its window alone.

Kingma and Welling, Auto-encoding variational Bayes, ICLR 2014. Scored by the reconstruction probability of An and Cho
2015: with one noise variance per sensor, its logarithm is the squared error averaged over draws, in units of the
sensor's healthy error. `residual` divides by these units.
"""

from __future__ import annotations

import torch
from torch import nn

from monitor.models.network import Autoencoder, Network

N_DRAWS = 8
START_LOG_VARIANCE = -4.0
"""At first latents are nearly points: the decoder learns before the prior takes effect, else it learns to ignore the
latent."""
MIN_LOG_VARIANCE, MAX_LOG_VARIANCE = -10.0, 4.0


def autoencoder_in(network: Network) -> Autoencoder:
    """Return the autoencoder that a network is or wraps. TypeError: it has no latent that learns."""
    base = network.base if isinstance(network, Variational) else network
    if not isinstance(base, Autoencoder):
        raise TypeError(f"{type(network).__name__} has no code that learns")
    return base


class Variational(Network):
    """An autoencoder and a second head for the log variance of its latent. Scoring decodes once for each draw."""

    draws: torch.Tensor
    """Standard normal numbers (n_draws, code)."""

    def __init__(self, base: Autoencoder, n_draws: int = N_DRAWS) -> None:
        super().__init__()
        self.base = base
        self.hyper = {**base.hyper, "draws": n_draws}
        code, n_inputs = base.to_latent.weight.shape
        self.to_log_variance = nn.Linear(n_inputs, code)
        nn.init.zeros_(self.to_log_variance.weight)
        nn.init.constant_(self.to_log_variance.bias, START_LOG_VARIANCE)
        # In pairs of opposite sign: the mean of few draws is then exact where the decoder is linear.
        half = torch.randn((n_draws + 1) // 2, code)
        self.register_buffer("draws", torch.cat([half, -half])[:n_draws])

    def encode(self, x: torch.Tensor) -> torch.Tensor:
        """Return the mean latent."""
        return self.base.encode(x)

    def decode(self, z: torch.Tensor, length: int) -> torch.Tensor:
        return self.base.decode(z, length)

    def sample_latent(self, n: int, generator: torch.Generator) -> torch.Tensor:
        """Return `n` latents from the prior."""
        return self.base.sample_latent(n, generator)

    def posterior(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return mean and log variance of the latent, (B, code) each."""
        inputs = self.base.latent_inputs(x)                               # (B, CT + n_features)
        log_variance = self.to_log_variance(inputs).clamp(MIN_LOG_VARIANCE, MAX_LOG_VARIANCE)
        return self.base.to_latent(inputs), log_variance

    def squared_error(self, x: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """Return the squared error (B, C, T), averaged over the draws."""
        mean, log_variance = self.posterior(x)                            # (B, code) each
        spread = (0.5 * log_variance).exp()
        total = torch.zeros_like(target)
        for draw in self.draws:
            total += (self.decode(mean + spread * draw, x.shape[-1]) - target).square()
        return total / len(self.draws)
