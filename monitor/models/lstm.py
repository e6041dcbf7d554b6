"""The LSTM autoencoder: one LSTM reads the window into a code, another writes the window back from it.

In: standardised windows (B, C, T). Out: their reconstruction, same shape, any T.
Law: all that passes from reader to writer is one code vector.

Malhotra et al., LSTM-based encoder-decoder for multi-sensor anomaly detection, ICML workshop 2016
(arXiv:1607.00148). As there, the writer works backwards in time: what was read last is written first, so the
newest cells, to which a score belongs, are the ones rebuilt most sharply.
"""

from __future__ import annotations

import torch
from torch import nn

from monitor.models.network import Autoencoder, code_size


class Lstm(Autoencoder):
    """Reader, code, writer. Costs about three times `conv`."""

    def __init__(self, n_sensors: int, length: int, *, hidden: int = 48, code: int | None = None) -> None:
        code = code or code_size(n_sensors, length)
        super().__init__(n_sensors, length, hidden, code)
        self.hyper = {"hidden": hidden, "code": code}
        self.reader = nn.LSTM(n_sensors, hidden, batch_first=True)
        self.writer = nn.LSTM(code, hidden, batch_first=True)
        self.to_sensors = nn.Linear(hidden, n_sensors)

    def see(self, x: torch.Tensor) -> torch.Tensor:
        """Return where reading has led to."""
        _, (last, _) = self.reader(x.transpose(1, 2))                    # (1, B, H)
        state: torch.Tensor = last[0]                                    # (B, H)
        return state

    def bend(self, z: torch.Tensor, length: int) -> torch.Tensor:
        """Return what the writer adds."""
        steps, _ = self.writer(z[:, None].expand(-1, length, -1))        # (B, T, H), newest first
        x: torch.Tensor = self.to_sensors(steps)                         # (B, T, C), newest first
        return x.flip(1).transpose(1, 2)                                 # (B, C, T)

    def last_layer(self) -> nn.Module:
        """Return the layer that writes the window."""
        return self.to_sensors
