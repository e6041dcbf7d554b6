"""What a reconstruction error means: errors in, one score and each sensor's share of it out.

In: standardised windows, their reconstruction, what is present: (B, C, T). Out: raw score (B,), shares (B, C).
Law: 1.0 in a sensor is its usual error on healthy data, so no sensor shouts because it is merely hard to rebuild.
"""

from __future__ import annotations

import torch

SHRINK = 0.5
"""How far a sensor's own healthy error is drawn to the fleet's (on a log scale): full trust in the own one finds more
on well-trained plants and fails where the healthy rows were too few or not typical."""

HALF_LIFE = 0.25
"""Share of a window's length after which an older cell counts half: a score belongs to the window's last cell, yet
one cell alone is noise."""

FLOOR = 1e-4
"""Least healthy squared error (standardised units): a hundredth of a spread. Below it is a sensor's resolution."""


class Residual:
    """Healthy error per sensor and cell, as the weight (C, T) that a squared error is multiplied by."""

    def __init__(self, weight: torch.Tensor) -> None:
        self.weight = weight   # (C, T)

    @classmethod
    def fit(cls, squared: torch.Tensor, present: torch.Tensor | None) -> Residual:
        """Measure on healthy held-out squared errors (N, C, T)."""
        counted = torch.ones_like(squared) if present is None else present.to(squared.dtype)
        per_cell = (squared * counted).sum(0) / counted.sum(0).clamp(min=1)            # (C, T)
        own = per_cell.mean(1).clamp(min=FLOOR)                                         # (C,)
        pooled = own.log().mean().exp()
        usual = own ** (1 - SHRINK) * pooled ** SHRINK                                  # (C,)
        # The first and the last cells are rebuilt from one side only; that profile is common to all sensors.
        profile = (per_cell / own[:, None]).mean(0).clamp(min=0.1)                      # (T,)
        profile = profile / profile.mean()
        length = squared.shape[-1]
        age = torch.arange(length - 1, -1, -1, dtype=squared.dtype, device=squared.device)
        recency = 0.5 ** (age / (HALF_LIFE * length))
        weight = (recency / recency.sum() / profile) / usual[:, None]                   # (C, T)
        return cls(weight)

    def to(self, device: torch.device) -> Residual:
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
        part = torch.log1p(z)
        if present is None:
            n = torch.full_like(part[:, 0], part.shape[1])
            here = torch.ones_like(part)
        else:
            here = present.any(-1).to(part.dtype)                                       # (B, C)
            part = part * here
            n = here.sum(-1)
        total = part.sum(-1)
        raw = torch.expm1(total / n)                                                    # 0/0 = NaN: nothing present
        even = here / n.clamp(min=1)[:, None]
        share = torch.where(total[:, None] > 0, part / total[:, None], even)
        return raw, share
