"""The convolutional autoencoder: three strided convolutions down to a narrow code, three back up. The default.

In: standardised windows (B, C, T). Out: their reconstruction, same shape, any T, odd too.
Law: the code is always smaller than the window, one sensor or fifty, so that copying is impossible.

Masci et al., Stacked convolutional auto-encoders, ICANN 2011.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from monitor.models.network import Network


class Conv(Network):
    """Three halvings of the time axis: a code column stands for eight cells and sees twenty-nine."""

    def __init__(
        self,
        n_sensors: int,
        length: int,  # noqa: ARG002 — one door for every architecture; a convolution takes any length
        *,
        width: int = 32,
        kernel: int = 5,
        code: int | None = None,
    ) -> None:
        super().__init__()
        code = code or (n_sensors + 1) // 2   # columns of C/2 numbers for 8·C cells: a sixteenth of the window
        pad = kernel // 2
        self.hyper = {"width": width, "kernel": kernel, "code": code}
        self.down1 = nn.Conv1d(n_sensors, width, kernel, stride=2, padding=pad)
        self.down2 = nn.Conv1d(width, width, kernel, stride=2, padding=pad)
        self.down3 = nn.Conv1d(width, code, kernel, stride=2, padding=pad)
        self.up1 = nn.ConvTranspose1d(code, width, kernel, stride=2, padding=pad, output_padding=1)
        self.up2 = nn.ConvTranspose1d(width, width, kernel, stride=2, padding=pad, output_padding=1)
        self.up3 = nn.ConvTranspose1d(width, n_sensors, kernel, stride=2, padding=pad, output_padding=1)

    def encode(self, x: torch.Tensor) -> torch.Tensor:
        """Return the code, a sixteenth of the window."""
        x = F.relu(self.down1(x))                    # (B, width, ceil(T/2))
        x = F.relu(self.down2(x))                    # (B, width, ceil(T/4))
        # The code is linear: a rectified one would lose half of what a narrow bottleneck can say.
        z: torch.Tensor = self.down3(x)              # (B, code, ceil(T/8))
        return z

    def decode(self, z: torch.Tensor, length: int) -> torch.Tensor:
        """Return the window."""
        half = (length + 1) // 2
        quarter = (half + 1) // 2
        x = F.relu(self.up1(z)[..., :quarter])       # (B, width, ceil(T/4))
        x = F.relu(self.up2(x)[..., :half])          # (B, width, ceil(T/2))
        # Linear at the end: standardised values are not in [0, 1], a sigmoid here could not rebuild a spike.
        out: torch.Tensor = self.up3(x)              # (B, C, T) or one longer
        return out[..., :length]                     # (B, C, T)
