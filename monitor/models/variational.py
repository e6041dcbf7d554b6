"""Any autoencoder, made variational: a code is a distribution, and a window is scored by what draws of it rebuild.

In: standardised windows (B, C, T). Out: the reconstruction from the mean code, and errors averaged over draws.
Law: the draws are fixed when the network is made and stored with it, the same for every window: a score depends
on nothing but its window.

Kingma and Welling, Auto-encoding variational Bayes, ICLR 2014; scored by the reconstruction probability of An and
Cho 2015: with a noise that is one number per sensor, its logarithm is the squared error averaged over draws, in units
of the sensor's healthy one, which is what `residual` makes of it.
"""

from __future__ import annotations

import torch
from torch import nn

from monitor.models.network import Autoencoder, Network

N_DRAWS = 8
START_LOG_VARIANCE = -4.0
"""At first codes are nearly points: the decoder learns before the prior speaks, else it learns to ignore the code."""
MIN_LOG_VARIANCE, MAX_LOG_VARIANCE = -10.0, 4.0


def autoencoder_in(network: Network) -> Autoencoder:
    """Return the autoencoder that a network is, or is made of. TypeError: it has no code that learns."""
    base = network.base if isinstance(network, Variational) else network
    if not isinstance(base, Autoencoder):
        raise TypeError(f"{type(network).__name__} has no code that learns")
    return base


class Variational(Network):
    """The network and a second head, for how sure its code is. Scoring decodes once for each draw."""

    draws: torch.Tensor

    def __init__(self, base: Autoencoder, n_draws: int = N_DRAWS) -> None:
        super().__init__()
        self.base = base
        self.hyper = {**base.hyper, "draws": n_draws}
        code, n_features = base.to_code.weight.shape
        self.to_log_variance = nn.Linear(n_features, code)
        nn.init.zeros_(self.to_log_variance.weight)
        nn.init.constant_(self.to_log_variance.bias, START_LOG_VARIANCE)
        # In pairs of opposite sign: the mean of few draws is then exact where the decoder is linear.
        half = torch.randn((n_draws + 1) // 2, code)
        self.register_buffer("draws", torch.cat([half, -half])[:n_draws])

    def encode(self, x: torch.Tensor) -> torch.Tensor:
        """Return the mean code."""
        return self.base.encode(x)

    def decode(self, z: torch.Tensor, length: int) -> torch.Tensor:
        """Return the window."""
        return self.base.decode(z, length)

    def draw_codes(self, n: int, draw: torch.Generator) -> torch.Tensor:
        """Return `n` codes of the prior."""
        return self.base.draw_codes(n, draw)

    def posterior(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return mean and log variance of the code, (B, code) each."""
        features = self.base.features(x)                                  # (B, CT + n_seen)
        log_variance = self.to_log_variance(features).clamp(MIN_LOG_VARIANCE, MAX_LOG_VARIANCE)
        return self.base.to_code(features), log_variance

    def squared_error(self, x: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """Return the squared error (B, C, T), averaged over the draws."""
        mean, log_variance = self.posterior(x)                            # (B, code) each
        spread = (0.5 * log_variance).exp()
        total = torch.zeros_like(target)
        for draw in self.draws:
            total += (self.decode(mean + spread * draw, x.shape[-1]) - target).square()
        return total / len(self.draws)
