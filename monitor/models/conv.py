"""Convolutional autoencoder, the default network: two strided convolutions, a latent, two transposed convolutions.

Input: standardised windows (B, C, T). Output: their reconstruction, same shape, any T, odd too.
Invariant: the latent is smaller than the window for any number of sensors, so that copying is impossible.

Masci et al., Stacked convolutional auto-encoders, ICANN 2011.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from monitor.models.network import Autoencoder, default_latent_size


class Conv(Autoencoder):
    """Halves the time axis twice: a step of the inner layer stands for four steps of the window and sees thirteen."""

    def __init__(
        self, n_sensors: int, length: int, *, width: int = 32, kernel: int = 5, code: int | None = None
    ) -> None:
        code = code or default_latent_size(n_sensors, length)
        half = (length + 1) // 2
        quarter = (half + 1) // 2
        super().__init__(n_sensors, length, width * quarter, code)
        self.n_half, self.n_quarter = half, quarter
        self.hyper = {"width": width, "kernel": kernel, "code": code}
        pad = kernel // 2
        self.down1 = nn.Conv1d(n_sensors, width, kernel, stride=2, padding=pad)
        self.down2 = nn.Conv1d(width, width, kernel, stride=2, padding=pad)
        self.from_latent = nn.Linear(code, width * quarter)
        self.up1 = nn.ConvTranspose1d(width, width, kernel, stride=2, padding=pad, output_padding=1)
        self.up2 = nn.ConvTranspose1d(width, n_sensors, kernel, stride=2, padding=pad, output_padding=1)

    def encode_features(self, x: torch.Tensor) -> torch.Tensor:
        """Return local patterns and their positions."""
        x = F.relu(self.down1(x))                                        # (B, width, ceil(T/2))
        x = F.relu(self.down2(x))                                        # (B, width, ceil(T/4))
        return x.flatten(1)                                              # (B, width · ceil(T/4))

    def decode_nonlinear(self, z: torch.Tensor, length: int) -> torch.Tensor:
        """Return local patterns at the positions that the latent gives."""
        x = F.relu(self.from_latent(z))                                  # (B, width · ceil(T/4))
        x = x.reshape(len(z), self.up1.in_channels, self.n_quarter)      # (B, width, ceil(T/4))
        x = F.relu(self.up1(x)[..., : self.n_half])                      # (B, width, ceil(T/2))
        out: torch.Tensor = self.up2(x)                                  # (B, C, T) or one step longer
        return out[..., :length]                                         # (B, C, T)

    def output_layer(self) -> nn.Module:
        return self.up2

    def layer_pairs(self) -> list[tuple[nn.Module, nn.Module]]:
        return [(self.down1, self.up2), (self.down2, self.up1)]
