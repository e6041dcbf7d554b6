"""Member of an ensemble: a network and the calibration of its errors.

Input: standardised windows and the mask of present values. Output: scores (B, S) at each time scale, and shares
(B, S, C).
Invariant: every member scores in spreads of its own healthy errors, so that scores of members may be added up.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F

from monitor.models.build import build
from monitor.models.residual import N_SCALES, Residual, squared_error

if TYPE_CHECKING:
    from collections.abc import Sequence

    from monitor.models.knobs import BoundKnobs
    from monitor.models.network import Network


@dataclass(frozen=True, slots=True)
class Member:
    """A network with its calibrated errors."""

    name: str
    """The architecture, as `build` knows it."""
    network: Network
    residual: Residual

    @classmethod
    def fit(cls, name: str, network: Network, squared: torch.Tensor, present: torch.Tensor | None) -> Member:
        """Calibrate a trained network on its squared errors (N, C, T) of healthy held-out windows."""
        return cls(name, network, Residual.fit(squared, _scored(network, squared, present), network.half_life))

    def to(self, device: torch.device) -> Member:
        """Return the same on another device, ready to score."""
        return Member(self.name, self.network.to(device).eval(), self.residual.to(device))

    def score(
        self, x: torch.Tensor, present: torch.Tensor | None, knobs: BoundKnobs | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return scores (B, S) at each time scale, and shares (B, S, C), of standardised windows (B, C, T)."""
        squared = squared_error(self.network, x, present, knobs)
        error, share = self.residual.errors(squared, _scored(self.network, squared, present))
        return self.score_of(error), share

    def score_of(self, error: torch.Tensor) -> torch.Tensor:
        """Return scores (B, S) of errors (B, S) over all sensors."""
        # A smooth maximum with zero: errors below the healthy median are no evidence against a fault that another
        # scale or member detects.
        return F.softplus(self.residual.in_spreads(error)).square()

    def error_parts(self, x: torch.Tensor, present: torch.Tensor | None) -> torch.Tensor:
        """Return each channel's part (B, S, C) of the error of standardised windows (B, C, T)."""
        squared = squared_error(self.network, x, present)
        error, share = self.residual.errors(squared, _scored(self.network, squared, present))
        return error[..., None] * share

    def tensors(self, prefix: str) -> dict[str, torch.Tensor]:
        """Return everything that is not in the card, by its name in the checkpoint."""
        own = {"usual": self.residual.sensor_error, "centre": self.residual.centre, "spread": self.residual.spread}
        return {
            **{f"{prefix}network.{name}": tensor for name, tensor in self.network.state_dict().items()},
            **{f"{prefix}residual.{name}": tensor for name, tensor in own.items()},
        }

    def to_json(self) -> dict[str, Any]:
        """Return its entry in the card."""
        share = self.network.half_life
        # JSON has no infinity: None is the whole window, all its steps alike.
        return {"name": self.name, "hyper": self.network.hyper, "half_life": share if math.isfinite(share) else None}

    @classmethod
    def load(
        cls, entry: dict[str, Any], tensors: dict[str, torch.Tensor], prefix: str, n_sensors: int, length: int
    ) -> Member:
        """Build it again. Raises KeyError, TypeError, RuntimeError, ConfigError where card and tensors do not fit."""
        start = f"{prefix}network."
        weights = {name[len(start) :]: t for name, t in tensors.items() if name.startswith(start)}
        with torch.device("meta"):  # a card may ask for any width: take no memory before its weights are seen to fit
            network = build(entry["name"], n_sensors, length, **entry["hyper"])
        network.load_state_dict(weights, assign=True)
        sensor_error, centre, spread = (tensors[f"{prefix}residual.{name}"] for name in ("usual", "centre", "spread"))
        shapes = (sensor_error.shape, centre.shape, spread.shape)
        if shapes != ((n_sensors,), (N_SCALES,), (N_SCALES,)):
            raise ValueError(f"{prefix}residual: shapes {[tuple(shape) for shape in shapes]}")
        return cls(entry["name"], network, Residual(sensor_error, centre, spread, network.half_life))


def _scored(network: Network, squared: torch.Tensor, present: torch.Tensor | None) -> torch.Tensor | None:
    """Return the mask of values that are present and that the network scores: an unscored step is not a zero error.

    It must not depend on gaps in other windows of the batch: unscored steps are masked without any gap, too.
    """
    sensors = network.scored_sensors
    if not network.n_unscored and sensors is None:
        return present
    scored = torch.ones_like(squared, dtype=torch.bool) if present is None else present.clone()
    scored[..., : network.n_unscored] = False
    return scored if sensors is None else scored & sensors[:, None]


def ensemble_score(
    members: tuple[Member, ...], x: torch.Tensor, present: torch.Tensor | None, knobs: BoundKnobs | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return raw scores (B,), NaN where nothing is present, and shares (B, C), of standardised windows (B, C, T).

    Squares of z-scores add up, as in a chi-squared test of independent statistics: one very high score is enough, and
    so are several fairly high ones. All members have the same weight: weights by the injected faults that each detects
    were tried and find no more. The result is an amplitude again, the relative increase of the errors: errors ten times
    as large in every member are a score about ten times as large, and 0 = no larger than usual.
    """
    total = torch.zeros(len(x), device=x.device)
    share = torch.zeros(x.shape[:2], device=x.device)
    for member in members:
        score, part = member.score(x, present, knobs)                     # (B, S), (B, S, C)
        total = total + score.sum(1)                                      # (B,)
        share = share + (score[..., None] * part).sum(1)                  # (B, C)
    known = total.clamp(min=torch.finfo(total.dtype).tiny).nan_to_num(1.0)
    return _amplitude(members, total), share.nan_to_num(0.0) / known[:, None]


def error_parts(members: Sequence[Member], x: torch.Tensor, present: torch.Tensor | None) -> torch.Tensor:
    """Return each channel's part (B, M, S, C) of the error of each member. Their sum over the channels is the error."""
    return torch.stack([member.error_parts(x, present) for member in members], 1)


def raw_score(members: Sequence[Member], error: torch.Tensor) -> torch.Tensor:
    """Return raw scores (B,) of the errors (B, M, S) of the members."""
    total = torch.zeros(len(error), device=error.device)
    for number, member in enumerate(members):
        total = total + member.score_of(error[:, number]).sum(1)
    return _amplitude(members, total)


def _amplitude(members: Sequence[Member], total: torch.Tensor) -> torch.Tensor:
    per_spread = sum(member.residual.spread.pow(-2).sum() for member in members)
    return (total / per_spread).sqrt().expm1()
