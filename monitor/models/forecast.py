"""The causal forecaster: what is expected of a cell is made of the cells before it, and of nothing else.

In: standardised windows (B, C, T). Out: what was to be expected of each cell, same shape, any T.
Law: cell t of the output depends on cells before t alone. So it has no code and cannot copy; the first cells of a
window have little before them and count in no error.

Munir et al., DeepAnT: a deep learning approach for unsupervised anomaly detection in time series, IEEE Access 2019;
with dilated convolutions (van den Oord et al., WaveNet, 2016) for its pooling, so that one pass forecasts every cell.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from monitor.models.network import Network

DILATIONS = (1, 2, 4, 8)
KERNEL = 3
N_CONTEXT = 8
"""Cells that a forecast needs before it; in a short window a quarter of it must do."""


class Forecast(Network):
    """Four dilated convolutions that see thirty-one cells back, and a linear path over the last eight.

    Costs as much as `lstm`.
    """

    def __init__(self, n_sensors: int, length: int, *, width: int = 32) -> None:
        super().__init__()
        self.hyper = {"width": width}
        self.n_blind = min(N_CONTEXT, length // 4)
        # Most of what comes next is a weighted sum of what came last; the convolutions learn what is not.
        self.straight = nn.Conv1d(n_sensors, n_sensors, N_CONTEXT)
        self.inward = nn.Conv1d(n_sensors, width, 1)
        self.look_back = nn.ModuleList(nn.Conv1d(width, width, KERNEL, dilation=d) for d in DILATIONS)
        self.outward = nn.Conv1d(width, n_sensors, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the expectation of every cell."""
        past = F.pad(x, (1, -1))                                         # (B, C, T), cell t holds t - 1
        h = self.inward(past)                                            # (B, width, T)
        for conv, dilation in zip(self.look_back, DILATIONS, strict=True):
            h = h + F.relu(conv(F.pad(h, ((KERNEL - 1) * dilation, 0))))  # (B, width, T)
        out: torch.Tensor = self.outward(F.relu(h)) + self.straight(F.pad(past, (N_CONTEXT - 1, 0)))
        # With little before it, a cell is expected to be as the one before; the first, to be in the middle.
        return torch.cat([past[..., : self.n_blind], out[..., self.n_blind :]], -1)   # (B, C, T)

    def squared_error(self, x: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """Return how far (B, C, T) the expectation is from `target`, squared; 0 in blind cells."""
        squared = (self(x) - target).square()
        return F.pad(squared[..., self.n_blind :], (self.n_blind, 0))
