"""Dense autoencoder: the window as one long vector, a hidden layer, a latent, a hidden layer.

Input: standardised windows (B, C, T). Output: their reconstruction, same shape, any T.
Invariant: one latent vector is all that passes from the encoder to the decoder.

Hinton and Salakhutdinov, Reducing the dimensionality of data with neural networks, Science 2006.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from monitor.models.network import Autoencoder, default_latent_size


class Dense(Autoencoder):
    """Fully connected: it does not use that steps are neighbours in time. The cheapest network to run."""

    def __init__(self, n_sensors: int, length: int, *, hidden: int = 128, code: int | None = None) -> None:
        code = code or default_latent_size(n_sensors, length)
        super().__init__(n_sensors, length, hidden, code)
        self.hyper = {"hidden": hidden, "code": code}
        self.n_sensors = n_sensors
        self.down = nn.Linear(n_sensors * length, hidden)
        self.from_latent = nn.Linear(code, hidden)
        self.up = nn.Linear(hidden, n_sensors * length)

    def encode_features(self, x: torch.Tensor) -> torch.Tensor:
        """Return patterns of the whole window."""
        return F.relu(self.down(x.flatten(1)))                           # (B, H)

    def decode_nonlinear(self, z: torch.Tensor, length: int) -> torch.Tensor:
        """Return a sum of patterns of the whole window, weighted by the latent."""
        out: torch.Tensor = self.up(F.relu(self.from_latent(z)))         # (B, CT)
        return out.reshape(len(z), self.n_values // length, length)      # (B, C, T)

    def output_layer(self) -> nn.Module:
        return self.up

    def layer_pairs(self) -> list[tuple[nn.Module, nn.Module]]:
        length = self.n_values // self.n_sensors
        back = nn.Sequential(self.up, nn.Unflatten(1, (self.n_sensors, length)))
        return [(nn.Sequential(nn.Flatten(1), self.down), back)]
