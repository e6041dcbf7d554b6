"""Each sensor from the others at the same moment.

Input: standardised windows (B, C, T), at least two sensors. Output: the expectation of each value given the values of
all other sensors at that step, same shape.
Invariant: solved, not trained. A value of the output does not depend on the same value of the input, so a sensor that
no longer belongs to the others cannot hide.

Conditional expectation of a normal distribution, by its precision matrix P: ẑᵢ = −Σ Pᵢⱼ / Pᵢᵢ · xⱼ over j ≠ i. The
covariance is shrunk towards a sphere as far as its own noise demands (Ledoit and Wolf, A well-conditioned estimator for
large-dimensional covariance matrices, 2004), so that many or identical sensors can be inverted.
"""

from __future__ import annotations

from typing import Self

import torch

from monitor.models.network import Network
from monitor.models.rows import evenly_spaced

MAX_ROWS = 65_536
"""Steps that it is solved on, evenly spaced."""
MIN_SHRINKAGE = 1e-4
"""Least weight of the sphere: with identical sensors the covariance is singular, however many steps there are."""


class Cross(Network):
    """Weights of the other sensors."""

    weight: torch.Tensor
    """(C, C), the diagonal is 0."""
    bias: torch.Tensor
    """(C,)"""

    def __init__(self, n_sensors: int, length: int) -> None:  # noqa: ARG002 — one signature for all
        super().__init__()
        self.hyper = {}
        self.register_buffer("weight", torch.zeros(n_sensors, n_sensors))
        self.register_buffer("bias", torch.zeros(n_sensors))

    @classmethod
    def solve(cls, x: torch.Tensor) -> Self | None:
        """Solve it on healthy windows (N, C, T). None = there is one sensor alone."""
        n, n_sensors, length = x.shape
        if n_sensors < 2:
            return None
        chosen = evenly_spaced(n * length, MAX_ROWS).to(x.device)
        rows = x[chosen // length, :, chosen % length]                       # (n, C)
        mean = rows.mean(0)
        precision = torch.linalg.inv(shrunk_covariance(rows - mean))         # (C, C)
        weight = -precision / precision.diagonal()[:, None]
        weight.fill_diagonal_(0)
        network = cls(n_sensors, length).to(x.device)
        network.weight.copy_(weight)
        network.bias.copy_(mean - network.weight @ mean)
        return network

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the expectation of each value given the other sensors."""
        return self.weight @ x + self.bias[:, None]                          # (B, C, T)


def shrunk_covariance(rows: torch.Tensor) -> torch.Tensor:
    """Return the covariance (C, C), in float64 on the CPU, of centred rows (n, C) by Ledoit and Wolf 2004."""
    rows = rows.cpu().double()
    n, n_sensors = rows.shape
    sample = rows.T @ rows / n
    sphere = sample.trace() / n_sensors * torch.eye(n_sensors, dtype=sample.dtype)
    distance = (sample - sphere).square().sum()
    noise = (rows.square().sum(1).square().sum() / n - sample.square().sum()) / n
    shrinkage = float((noise / distance).nan_to_num(1.0).clamp(MIN_SHRINKAGE, 1.0))
    variance = sphere + torch.finfo(torch.float32).eps * torch.eye(n_sensors, dtype=sample.dtype)
    return (1 - shrinkage) * sample + shrinkage * variance
