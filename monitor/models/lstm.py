"""LSTM autoencoder: one LSTM encodes the window into a latent, another decodes the window from it.

Input: standardised windows (B, C, T). Output: their reconstruction, same shape, any T.
Invariant: one latent vector is all that passes from the encoder to the decoder.

Malhotra et al., LSTM-based encoder-decoder for multi-sensor anomaly detection, ICML workshop 2016 (arXiv:1607.00148).
As there, the decoder runs backwards in time: the last step read is the first one written. So the newest steps, to which
a score belongs, are reconstructed most sharply.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import nn

from monitor.models.network import Autoencoder, default_latent_size


class Lstm(Autoencoder):
    """Encoder LSTM, latent, decoder LSTM. It costs about three times as much as `conv`."""

    stored_names: ClassVar = {**Autoencoder.stored_names, "encoder": "reader", "decoder": "writer"}

    def __init__(self, n_sensors: int, length: int, *, hidden: int = 48, code: int | None = None) -> None:
        code = code or default_latent_size(n_sensors, length)
        super().__init__(n_sensors, length, hidden, code)
        self.hyper = {"hidden": hidden, "code": code}
        self.encoder = nn.LSTM(n_sensors, hidden, batch_first=True)
        self.decoder = nn.LSTM(code, hidden, batch_first=True)
        self.to_sensors = nn.Linear(hidden, n_sensors)

    def encode_features(self, x: torch.Tensor) -> torch.Tensor:
        _, (last, _) = self.encoder(x.transpose(1, 2))                   # (1, B, H)
        state: torch.Tensor = last[0]                                    # (B, H)
        return state

    def decode_nonlinear(self, z: torch.Tensor, length: int) -> torch.Tensor:
        """Return the decoder's outputs, which get the latent as their input at every step."""
        steps, _ = self.decoder(z[:, None].expand(-1, length, -1))       # (B, T, H), newest first
        x: torch.Tensor = self.to_sensors(steps)                         # (B, T, C), newest first
        return x.flip(1).transpose(1, 2)                                 # (B, C, T)

    def output_layer(self) -> nn.Module:
        return self.to_sensors
