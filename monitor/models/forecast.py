"""Causal forecaster: each step is predicted from the steps before it.

Input: standardised windows (B, C, T). Output: the prediction of each step, same shape, any T.
Invariant: step t of the output depends on steps before t alone. So it has no latent and cannot copy. The first steps of
a window have little before them and count in no error.

Munir et al., DeepAnT: a deep learning approach for unsupervised anomaly detection in time series, IEEE Access 2019.
Dilated convolutions (van den Oord et al., WaveNet, 2016) take the place of its pooling, so that one pass predicts every
step.
"""

from __future__ import annotations

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import nn

from monitor.models.network import Network

DILATIONS = (1, 2, 4, 8)
KERNEL = 3
N_CONTEXT = 8
"""Steps that a prediction needs before it. In a short window it is a quarter of the window."""


class Forecast(Network):
    """Four dilated convolutions that see thirty-one steps back, and a linear path over the last eight.

    It costs as much as `lstm`.
    """

    stored_names: ClassVar = {
        "linear": "straight", "to_hidden": "inward", "dilated": "look_back", "to_sensors": "outward",
    }  # fmt: skip

    def __init__(self, n_sensors: int, length: int, *, width: int = 32) -> None:
        super().__init__()
        self.hyper = {"width": width}
        self.n_unscored = min(N_CONTEXT, length // 4)
        # Most of a step is a weighted sum of the last steps. The convolutions learn the rest.
        self.linear = nn.Conv1d(n_sensors, n_sensors, N_CONTEXT)
        self.to_hidden = nn.Conv1d(n_sensors, width, 1)
        self.dilated = nn.ModuleList(nn.Conv1d(width, width, KERNEL, dilation=d) for d in DILATIONS)
        self.to_sensors = nn.Conv1d(width, n_sensors, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        past = F.pad(x, (1, -1))                                         # (B, C, T), step t holds t - 1
        h = self.to_hidden(past)                                         # (B, width, T)
        for conv, dilation in zip(self.dilated, DILATIONS, strict=True):
            h = h + F.relu(conv(F.pad(h, ((KERNEL - 1) * dilation, 0))))  # (B, width, T)
        out: torch.Tensor = self.to_sensors(F.relu(h)) + self.linear(F.pad(past, (N_CONTEXT - 1, 0)))
        # An unscored step repeats the step before it, the first one is the healthy median.
        return torch.cat([past[..., : self.n_unscored], out[..., self.n_unscored :]], -1)   # (B, C, T)
