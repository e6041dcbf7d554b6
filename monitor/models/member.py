"""One voice of a detector: a network, and what its errors mean.

In: standardised windows and what is present. Out: evidence (B,), the greater the less like healthy, and shares (B, C).
Law: voices are of one loudness: each speaks in spreads of its own healthy errors, so they may be added up.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F

from monitor.models.build import build
from monitor.models.residual import Residual, squared_error

if TYPE_CHECKING:
    from monitor.models.network import Network


@dataclass(frozen=True, slots=True)
class Member:
    """A network with its calibrated errors."""

    name: str
    """The architecture, as `build` knows it."""
    network: Network
    residual: Residual

    @classmethod
    def measure(cls, name: str, network: Network, squared: torch.Tensor, present: torch.Tensor | None) -> Member:
        """Calibrate a trained network on its squared errors (N, C, T) of healthy held-out windows."""
        return cls(name, network, Residual.fit(squared, _judged(network, squared, present), network.half_life))

    def to(self, device: torch.device) -> Member:
        """Return the same on another device, ready to score."""
        return Member(self.name, self.network.to(device).eval(), self.residual.to(device))

    def evidence(self, x: torch.Tensor, present: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor]:
        """Return evidence (B, S) at each time scale, and shares (B, S, C), of standardised windows (B, C, T)."""
        squared = squared_error(self.network, x, present)
        standard, share = self.residual.standard(squared, _judged(self.network, squared, present))
        # More ordinary than usual is no evidence against a fault that another scale or voice sees: a soft zero below.
        return F.softplus(standard).square(), share

    def tensors(self, prefix: str) -> dict[str, torch.Tensor]:
        """Return all that is not in the card, by name."""
        own = {"usual": self.residual.usual, "centre": self.residual.centre, "spread": self.residual.spread}
        return {
            **{f"{prefix}network.{name}": tensor for name, tensor in self.network.state_dict().items()},
            **{f"{prefix}residual.{name}": tensor for name, tensor in own.items()},
        }

    def to_json(self) -> dict[str, Any]:
        """Return what the card says of it."""
        share = self.network.half_life
        # JSON knows no infinity: None is the whole window, all its cells alike.
        return {"name": self.name, "hyper": self.network.hyper, "half_life": share if math.isfinite(share) else None}

    @classmethod
    def load(
        cls, said: dict[str, Any], tensors: dict[str, torch.Tensor], prefix: str, n_sensors: int, length: int
    ) -> Member:
        """Build it again. Raises KeyError, TypeError, RuntimeError, ConfigError where card and tensors do not fit."""
        network = build(said["name"], n_sensors, length, **said["hyper"])
        start = f"{prefix}network."
        network.load_state_dict({name[len(start) :]: t for name, t in tensors.items() if name.startswith(start)})
        usual, centre, spread = (tensors[f"{prefix}residual.{name}"] for name in ("usual", "centre", "spread"))
        residual = Residual(usual, centre, spread, network.half_life)
        return cls(said["name"], network, residual)


def _judged(network: Network, squared: torch.Tensor, present: torch.Tensor | None) -> torch.Tensor | None:
    """Return the cells that are present and that the network has an opinion about: no opinion is no zero error.

    Whether other windows of the batch have gaps must not matter: where nothing is missing they are still left out.
    """
    if not network.n_unscored:
        return present
    judged = torch.ones_like(squared, dtype=torch.bool) if present is None else present.clone()
    judged[..., : network.n_unscored] = False
    return judged


def blend(
    members: tuple[Member, ...], x: torch.Tensor, present: torch.Tensor | None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return raw scores (B,), NaN where nothing is present, and shares (B, C), of standardised windows (B, C, T).

    Squares of standard deviations add up, as in a chi-squared test of independent witnesses: one that is very sure
    is enough, several that are fairly sure are enough too. All weigh alike: weights by what each detects of injected
    faults were tried and find no more. What comes out is a size again: how much larger than usual errors are, so that
    errors ten times as large in every voice are a score about ten times as large; 0 = no larger.
    """
    total = torch.zeros(len(x), device=x.device)
    share = torch.zeros(x.shape[:2], device=x.device)
    for member in members:
        evidence, part = member.evidence(x, present)                      # (B, S), (B, S, C)
        total = total + evidence.sum(1)                                   # (B,)
        share = share + (evidence[..., None] * part).sum(1)               # (B, C)
    per_spread = sum(member.residual.spread.pow(-2).sum() for member in members)
    known = total.clamp(min=torch.finfo(total.dtype).tiny).nan_to_num(1.0)
    return (total / per_spread).sqrt().expm1(), share.nan_to_num(0.0) / known[:, None]
