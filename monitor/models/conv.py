"""The convolutional autoencoder: two strided convolutions and a code, two back up. The default.

In: standardised windows (B, C, T). Out: their reconstruction, same shape, any T, odd too.
Law: the code is always smaller than the window, one sensor or fifty, so that copying is impossible.

Masci et al., Stacked convolutional auto-encoders, ICANN 2011.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from monitor.models.network import Autoencoder, code_size


class Conv(Autoencoder):
    """Two halvings of the time axis: a column stands for four cells and sees thirteen."""

    def __init__(
        self, n_sensors: int, length: int, *, width: int = 32, kernel: int = 5, code: int | None = None
    ) -> None:
        code = code or code_size(n_sensors, length)
        half = (length + 1) // 2
        quarter = (half + 1) // 2
        super().__init__(n_sensors, length, width * quarter, code)
        self.n_half, self.n_quarter = half, quarter
        self.hyper = {"width": width, "kernel": kernel, "code": code}
        pad = kernel // 2
        self.down1 = nn.Conv1d(n_sensors, width, kernel, stride=2, padding=pad)
        self.down2 = nn.Conv1d(width, width, kernel, stride=2, padding=pad)
        self.from_code = nn.Linear(code, width * quarter)
        self.up1 = nn.ConvTranspose1d(width, width, kernel, stride=2, padding=pad, output_padding=1)
        self.up2 = nn.ConvTranspose1d(width, n_sensors, kernel, stride=2, padding=pad, output_padding=1)

    def see(self, x: torch.Tensor) -> torch.Tensor:
        """Return short shapes, and where in the window they are."""
        x = F.relu(self.down1(x))                                        # (B, width, ceil(T/2))
        x = F.relu(self.down2(x))                                        # (B, width, ceil(T/4))
        return x.flatten(1)                                              # (B, width · ceil(T/4))

    def bend(self, z: torch.Tensor, length: int) -> torch.Tensor:
        """Return short shapes where the code wants them."""
        x = F.relu(self.from_code(z))                                    # (B, width · ceil(T/4))
        x = x.reshape(len(z), self.up1.in_channels, self.n_quarter)      # (B, width, ceil(T/4))
        x = F.relu(self.up1(x)[..., : self.n_half])                        # (B, width, ceil(T/2))
        out: torch.Tensor = self.up2(x)                                  # (B, C, T) or one longer
        return out[..., :length]                                         # (B, C, T)

    def last_layer(self) -> nn.Module:
        """Return the layer that writes the window."""
        return self.up2

    def layers(self) -> list[tuple[nn.Module, nn.Module]]:
        """Return the convolutions with their counterparts."""
        return [(self.down1, self.up2), (self.down2, self.up1)]
