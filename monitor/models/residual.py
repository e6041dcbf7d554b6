"""What a reconstruction error means: errors in, one score and each sensor's share of it out.

In: standardised windows, their reconstruction, what is present: (B, C, T). Out: raw score (B,), shares (B, C).
Law: 1.0 in a sensor is its usual error on healthy data, so no sensor shouts because it is merely hard to rebuild.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from monitor.models.network import Network

N_REFILLS = 2
"""Times a gap is filled with what the network expects there; after one, a sensor that is missing altogether still
bends the others (normal windows above 1.0 in the contract's data: all without, half after one, none after two)."""

SHRINK = 0.5
"""How far a sensor's own healthy error is drawn to the fleet's (on a log scale). Full trust in the own one finds more
where healthy rows abound, and fails where they were too few or not typical."""

HALF_LIFE = 0.125
"""Share of a window's length after which an older cell counts half: a score belongs to the window's last cell. Equal
weights would raise the alarm late and hold it for a whole window after the fault has gone."""

FLOOR = 1e-4
"""Least healthy squared error (standardised units): a hundredth of a spread. Below it is a sensor's resolution."""


def rebuild(network: Network, x: torch.Tensor, present: torch.Tensor | None) -> torch.Tensor:
    """Return the reconstruction of standardised (B, C, T)."""
    return network(fill(network, x, present))                                           # (B, C, T)


def squared_error(network: Network, x: torch.Tensor, present: torch.Tensor | None) -> torch.Tensor:
    """Return how far (B, C, T) the reconstruction is from `x`, squared, as the network counts it."""
    return network.squared_error(fill(network, x, present), x)


def fill(network: Network, x: torch.Tensor, present: torch.Tensor | None) -> torch.Tensor:
    """Return standardised (B, C, T) with what the network expects where cells are missing.

    What they were filled with before would bend the reconstruction of their neighbours; so they are filled again
    (expectation-maximisation, as for a PCA with gaps).
    """
    if present is None:
        return x
    rows = (~present).any(-1).any(-1).nonzero()[:, 0]
    if not len(rows):
        return x
    gappy, here = x[rows], present[rows]
    filled = gappy
    for _ in range(N_REFILLS):
        filled = torch.where(here, gappy, network(filled))
    out = x.clone()
    out[rows] = filled
    return out


class Residual:
    """Healthy error per sensor and cell, as the weight (C, T) that a squared error is multiplied by."""

    def __init__(self, weight: torch.Tensor) -> None:
        self.weight = weight   # (C, T)

    @classmethod
    def fit(cls, squared: torch.Tensor, present: torch.Tensor | None) -> Residual:
        """Measure on healthy held-out squared errors (N, C, T)."""
        counted = torch.ones_like(squared) if present is None else present.to(squared.dtype)
        own = ((squared * counted).sum((0, 2)) / counted.sum((0, 2)).clamp(min=1)).clamp(min=FLOOR)   # (C,)
        pooled = own.log().mean().exp()
        usual = own ** (1 - SHRINK) * pooled ** SHRINK                                  # (C,)
        length = squared.shape[-1]
        age = torch.arange(length - 1, -1, -1, dtype=squared.dtype, device=squared.device)
        recency = 0.5 ** (age / (HALF_LIFE * length))                                   # (T,)
        weight = (recency / recency.sum()) / usual[:, None]                             # (C, T)
        return cls(weight)

    def to(self, device: torch.device) -> Residual:
        """Return the same on another device."""
        return Residual(self.weight.to(device))

    def per_sensor(self, squared: torch.Tensor, present: torch.Tensor | None) -> torch.Tensor:
        """Turn squared errors (B, C, T) into errors in units of the healthy one: (B, C); a missing sensor has 0."""
        if present is None:
            return (squared * self.weight).sum(-1)
        weight = self.weight * present                                                  # (B, C, T)
        # What is missing says nothing: the cells that are there speak for their sensor.
        known = weight.sum(-1) / self.weight.sum(-1)
        return (squared * weight).sum(-1) / known.clamp(min=torch.finfo(squared.dtype).tiny)

    @staticmethod
    def combine(z: torch.Tensor, present: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor]:
        """Turn errors per sensor (B, C) into the raw score (B,), NaN where nothing is present, and shares (B, C)."""
        # The root makes it a size, not a power: squares would leave the word to the loudest sensor, logarithms
        # to the many quiet ones.
        part = z.sqrt()
        if present is None:
            here = torch.ones_like(part)
        else:
            here = present.any(-1).to(part.dtype)                                       # (B, C)
            part = part * here
        n, total = here.sum(-1), part.sum(-1)
        raw = total / n                                                                 # 0/0 = NaN: nothing present
        even = here / n.clamp(min=1)[:, None]
        share = torch.where(total[:, None] > 0, part / total[:, None], even)
        return raw, share
