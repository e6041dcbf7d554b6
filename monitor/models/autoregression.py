"""Linear autoregression: each step is a weighted sum of the eight before it, of all sensors.

Input: standardised windows (B, C, T). Output: the prediction of each step, same shape.
Invariant: solved, not trained. Step t of the output depends on steps before t alone. The first steps of a window count
in no error.

A vector autoregression by ridge regression (Hoerl and Kennard 1970). Alone it ties with deep forecasters. Above fifty
sensors its weights have a reduced rank (Izenman 1975): what the sensors have in common is predicted by their leading
principal components, and the rest of each sensor from its own past.
"""

from __future__ import annotations

from typing import Self

import torch
import torch.nn.functional as F

from monitor.models.network import Network
from monitor.models.rows import evenly_spaced

N_LAGS = 8
"""Steps that a prediction is from. In a short window they are a quarter of the window."""
FULL_RANK = 50
"""Sensors up to which each is predicted from all others."""
N_FACTORS = 32
MAX_ROWS = 65_536
"""Steps that it is solved on, those of evenly spaced windows."""
RIDGE = 1e-2
"""Penalty, in units of the mean variance of the inputs."""


class Autoregression(Network):
    """Weights of the last steps."""

    bias: torch.Tensor
    """(C,)"""
    weight: torch.Tensor
    """(F, F, lags) of the factors, of all sensors (F = C) without factors. The last lag is the step just before."""

    def __init__(self, n_sensors: int, length: int, *, n_factors: int = 0) -> None:
        super().__init__()
        self.hyper = {"n_factors": n_factors}
        n_lags = max(1, min(N_LAGS, length // 4))
        self.n_unscored = n_lags
        n_inputs = n_factors or n_sensors
        self.register_buffer("bias", torch.zeros(n_sensors))
        self.register_buffer("weight", torch.zeros(n_inputs, n_inputs, n_lags))
        if n_factors:
            self.register_buffer("factors", torch.eye(n_factors, n_sensors))
            self.register_buffer("own", torch.zeros(n_sensors, 1, n_lags))

    factors: torch.Tensor
    """Orthonormal rows (F, C): the leading principal components of the sensors."""
    own: torch.Tensor
    """(C, 1, lags), weights of each sensor's own rest."""

    @classmethod
    def solve(cls, x: torch.Tensor, *, n_factors: int | None = None) -> Self:
        """Solve it on healthy windows (N, C, T). `n_factors`: None = 0 up to fifty sensors, 0 = full rank."""
        _, n_sensors, length = x.shape
        if n_factors is None:
            n_factors = 0 if n_sensors <= FULL_RANK else N_FACTORS
        network = cls(n_sensors, length, n_factors=n_factors).to(x.device)
        n_steps = length - network.n_unscored
        n_max = max(1, MAX_ROWS // max(1, n_steps))
        x = x[evenly_spaced(len(x), n_max).to(x.device)]
        mean = x.mean((0, 2))                                                # (C,)
        centred = x - mean[:, None]
        if not n_factors:
            network.weight.copy_(_ridge(centred, network.n_unscored))
            network.bias.copy_(mean - network.weight.sum(-1) @ mean)
            return network
        cells = centred.transpose(1, 2).reshape(-1, n_sensors)
        _, axes = torch.linalg.eigh((cells.T @ cells).cpu().double())        # ascending
        factors = axes[:, -n_factors:].T.flip(0).to(x)                       # (F, C)
        network.factors.copy_(factors)
        common = factors @ centred                                           # (N, F, T)
        network.weight.copy_(_ridge(common, network.n_unscored))
        rest = centred - factors.T @ common
        for c in range(n_sensors):
            network.own[c].copy_(_ridge(rest[:, c : c + 1], network.n_unscored)[0])
        network.bias.copy_(mean - network._weighted(mean[:, None].expand(-1, network.n_unscored)[None])[0, :, 0])
        return network

    def _weighted(self, x: torch.Tensor) -> torch.Tensor:
        """Return the weighted sums (B, C, T - lags + 1) of (B, C, T), and the bias."""
        if not self.hyper["n_factors"]:
            return F.conv1d(x, self.weight, self.bias)
        common = self.factors @ x                                            # (B, F, T)
        own = F.conv1d(x - self.factors.T @ common, self.own, self.bias, groups=x.shape[1])
        return own + self.factors.T @ F.conv1d(common, self.weight)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the prediction. An unscored step repeats the step before it, the first one is the healthy median."""
        out = self._weighted(x[..., :-1])                                    # (B, C, T - lags)
        return torch.cat([F.pad(x[..., : self.n_unscored - 1], (1, 0)), out], -1)


def _ridge(x: torch.Tensor, n_lags: int) -> torch.Tensor:
    """Return the weights (C, C, lags) that predict each step of centred (N, C, T) from the steps before it."""
    n_sensors = x.shape[1]
    n_inputs = n_sensors * n_lags
    gram = torch.zeros(n_inputs + n_sensors, n_inputs + n_sensors, dtype=torch.float64)
    n_rows = 0
    for part in torch.split(x, 256):
        steps = part.unfold(-1, n_lags + 1, 1).transpose(1, 2)               # (N, T - lags, C, lags + 1)
        past, target = steps[..., :-1].flatten(2), steps[..., -1]            # (N, T - lags, C · lags), (…, C)
        rows = torch.cat([past, target], -1).flatten(0, 1)
        gram += (rows.T @ rows).cpu().double()
        n_rows += len(rows)
    inputs = gram[:n_inputs, :n_inputs]
    penalty = RIDGE * max(float(inputs.trace()) / n_inputs, 1e-6 * n_rows)
    inputs = inputs + penalty * torch.eye(n_inputs, dtype=inputs.dtype)
    solved: torch.Tensor = torch.linalg.solve(inputs, gram[:n_inputs, n_inputs:])          # (C · lags, C)
    return solved.T.reshape(n_sensors, n_sensors, n_lags).to(x)
