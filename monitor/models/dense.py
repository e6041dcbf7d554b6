"""The vanilla autoencoder: the window as one long vector, a hidden layer, a code, and back.

In: standardised windows (B, C, T). Out: their reconstruction, same shape, any T.
Law: all that passes from one half to the other is one code vector.

Hinton and Salakhutdinov, Reducing the dimensionality of data with neural networks, Science 2006.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from monitor.models.network import Autoencoder, code_size


class Dense(Autoencoder):
    """Knows no neighbourhood: what stands at which cell is all it sees. The cheapest network to run."""

    def __init__(self, n_sensors: int, length: int, *, hidden: int = 128, code: int | None = None) -> None:
        code = code or code_size(n_sensors, length)
        super().__init__(n_sensors, length, hidden, code)
        self.hyper = {"hidden": hidden, "code": code}
        self.n_sensors = n_sensors
        self.down = nn.Linear(n_sensors * length, hidden)
        self.from_code = nn.Linear(code, hidden)
        self.up = nn.Linear(hidden, n_sensors * length)

    def see(self, x: torch.Tensor) -> torch.Tensor:
        """Return patterns of the whole window."""
        return F.relu(self.down(x.flatten(1)))                           # (B, H)

    def bend(self, z: torch.Tensor, length: int) -> torch.Tensor:
        """Return patterns of the whole window where the code wants them."""
        out: torch.Tensor = self.up(F.relu(self.from_code(z)))           # (B, CT)
        return out.reshape(len(z), self.n_cells // length, length)       # (B, C, T)

    def last_layer(self) -> nn.Module:
        """Return the layer that writes the window."""
        return self.up

    def layers(self) -> list[tuple[nn.Module, nn.Module]]:
        """Return the hidden layer with its counterpart."""
        length = self.n_cells // self.n_sensors
        back = nn.Sequential(self.up, nn.Unflatten(1, (self.n_sensors, length)))
        return [(nn.Sequential(nn.Flatten(1), self.down), back)]
