"""Member of an ensemble: a network and the calibration of its errors.

Input: standardised windows and the mask of present values. Output: scores (B, S) at each time scale, and the errors
that they are of.
Invariant: every member scores in spreads of its own healthy errors, so that scores of members may be added up.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F

from monitor.models.build import build
from monitor.models.residual import (
    FIRST_SCALES,
    N_SCALES,
    SCALES,
    Residual,
    SensorErrors,
    TimeScales,
    impute,
    squared_error,
)
from monitor.models.states import MAX_STATES

if TYPE_CHECKING:
    from collections.abc import Sequence

    from monitor.models.knobs import BoundKnobs
    from monitor.models.network import Network
    from monitor.models.residual import Errors


@dataclass(frozen=True, slots=True)
class Member:
    """A network with its calibrated errors."""

    name: str
    """The architecture, as `build` knows it."""
    network: Network
    residual: Residual
    weight: float = 1.0
    """Factor of its scores in the sum of all members."""
    imputes: bool = False
    """Whether it fills the gaps of a window for all members (`imputer_of`)."""
    by_state: tuple[Residual, ...] = ()
    """Calibration of each class of windows (`states.States`) but the last, of windows in no known state: they have
    `residual`. Empty = one for all."""

    @classmethod
    def fit(cls, name: str, network: Network, healthy: SensorErrors) -> Member:
        """Calibrate a trained network on its errors of healthy held-out windows."""
        return cls(name, network, Residual.fit(healthy, TimeScales.of(network)))

    def to(self, device: torch.device) -> Member:
        """Return the same on another device, ready to score."""
        by_state = tuple(each.to(device) for each in self.by_state)
        network = self.network.to(device).eval()
        return replace(self, network=network, residual=self.residual.to(device), by_state=by_state)

    def in_state(self, number: int) -> Member:
        """Return the member with the calibration of one class of windows."""
        return replace(self, residual=self.by_state[number], by_state=()) if number < len(self.by_state) else self

    def errors(
        self,
        x: torch.Tensor,
        present: torch.Tensor | None,
        knobs: BoundKnobs | None = None,
        imputer: Network | None = None,
    ) -> Errors:
        """Return the errors of standardised windows (B, C, T). `imputer`: see `residual.squared_error`."""
        return self.residual.in_units(sensor_errors(self.network, self.residual.scales, x, present, knobs, imputer))

    def score(
        self,
        x: torch.Tensor,
        present: torch.Tensor | None,
        knobs: BoundKnobs | None = None,
        imputer: Network | None = None,
    ) -> torch.Tensor:
        """Return scores (B, S) at each time scale, of standardised windows (B, C, T). `imputer`: see `errors`."""
        return self.score_of(self.errors(x, present, knobs, imputer).of_all)

    def score_of(self, error: torch.Tensor) -> torch.Tensor:
        """Return scores (B, S) of errors (B, S) over all sensors."""
        # A smooth maximum with zero: errors below the healthy median are no evidence against a fault that another
        # scale or member detects.
        return F.softplus(self.residual.in_spreads(error)).square()

    def tensors(self, prefix: str) -> dict[str, torch.Tensor]:
        """Return everything that is not in the card, by its name in the checkpoint."""
        residuals = {"residual": self.residual} | {f"state{n}": each for n, each in enumerate(self.by_state)}
        return {
            **{f"{prefix}network.{name}": tensor for name, tensor in self.network.state_dict().items()},
            **{
                f"{prefix}{kind}.{name}": tensor
                for kind, each in residuals.items()
                for name, tensor in (("usual", each.sensor_error), ("centre", each.centre), ("spread", each.spread))
            },
        }

    def to_json(self) -> dict[str, Any]:
        """Return its entry in the card."""
        half_life = self.residual.scales.half_life
        return {
            "name": self.name,
            "hyper": self.network.hyper,
            # JSON has no infinity: None is the whole window, all its steps alike.
            "half_life": half_life if math.isfinite(half_life) else None,
            "scales": list(self.residual.scales.names),
            "weight": self.weight,
            **({"imputes": True} if self.imputes else {}),
            **({"n_states": len(self.by_state)} if self.by_state else {}),
        }

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
        names = tuple(entry.get("scales", FIRST_SCALES))
        if not names or names != tuple(name for name in SCALES if name in names):
            raise ValueError(f"{prefix}scales: {names}")
        half_life = math.inf if entry["half_life"] is None else float(entry["half_life"])
        scales = TimeScales(half_life, names, network.n_unscored)
        weight = float(entry.get("weight", 1.0))
        if not 0 <= weight < math.inf:
            raise ValueError(f"{prefix}weight: {weight}")
        n_states = int(entry.get("n_states", 0))
        if not 0 <= n_states <= MAX_STATES + 1:
            raise ValueError(f"{prefix}n_states: {n_states}")
        residual, *by_state = (
            _residual(tensors, f"{prefix}{kind}.", n_sensors, scales)
            for kind in ("residual", *(f"state{number}" for number in range(n_states)))
        )
        return cls(entry["name"], network, residual, weight, bool(entry.get("imputes", False)), tuple(by_state))


def _residual(tensors: dict[str, torch.Tensor], prefix: str, n_sensors: int, scales: TimeScales) -> Residual:
    """Read one calibration. Raises KeyError or ValueError where it does not fit."""
    sensor_error, centre, spread = (tensors[f"{prefix}{name}"] for name in ("usual", "centre", "spread"))
    shapes, n_scales = (sensor_error.shape, centre.shape, spread.shape), len(scales.names)
    if shapes != ((n_sensors,), (n_scales,), (n_scales,)):
        raise ValueError(f"{prefix}: shapes {[tuple(shape) for shape in shapes]}")
    return Residual(sensor_error, centre, spread, scales)


def sensor_errors(
    network: Network,
    scales: TimeScales,
    x: torch.Tensor,
    present: torch.Tensor | None,
    knobs: BoundKnobs | None = None,
    imputer: Network | None = None,
) -> SensorErrors:
    """Return the errors of a network for standardised windows (B, C, T), before any calibration.

    `imputer`: see `residual.squared_error`.
    """
    if network.n_context is not None and scales.names == ("newest",) and knobs is None:
        x = x[..., -network.n_context - 1 :]
        present = None if present is None else present[..., -network.n_context - 1 :]
    squared = squared_error(network, x, present, knobs, imputer)
    errors = scales.errors(squared, present)
    sensors = network.scored_sensors
    if sensors is None:
        return errors
    here = sensors.expand_as(errors.error[..., 0]) if errors.here is None else errors.here & sensors    # (B, C)
    return SensorErrors(errors.error * sensors[:, None], here)


def imputer_of(members: Sequence[Member]) -> Network | None:
    """Return the network that fills gaps for all members. None = each fills its own, as in older versions.

    An autoregression expects a sensor that is missing altogether from the past alone. All its other expectations then
    rest on a wrong one: in `tests/contract/test_models.py`, .09 to .33 of the healthy windows alarmed without one of
    three sensors. The network that knows whole windows expects it from the other sensors, too.
    """
    return next((member.network for member in members if member.imputes), None)


def ensemble_score(
    members: tuple[Member, ...],
    x: torch.Tensor,
    present: torch.Tensor | None,
    knobs: BoundKnobs | None = None,
    shares_from: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return raw scores (B,), NaN where nothing is present, and shares (B, C), of standardised windows (B, C, T).

    `shares_from`: (B,), raw score from which a window has shares. Others have 0. None = all have.

    Squares of z-scores add up, as in a chi-squared test of independent statistics: one very high score is enough, and
    so are several fairly high ones. Weights by the injected faults that each member detects were tried, and find no
    more. The result is an amplitude again, the relative increase of the errors: errors ten times as large in every
    member are a score about ten times as large, and 0 = no larger than usual.
    """
    imputer = imputer_of(members)
    if imputer is not None:
        x = impute(imputer, x, present)
    errors = [member.errors(x, present, knobs, imputer) for member in members]
    scores = [member.score_of(each.of_all) for member, each in zip(members, errors, strict=True)]    # (B, S)
    raw = amplitude(members, scores)
    share = torch.zeros(x.shape[:2], device=x.device)
    asked = raw.isfinite() if shares_from is None else raw >= shares_from
    rows = asked.nonzero()[:, 0]
    if len(rows):
        # Few windows are explained, and a share costs as much as a score.
        part = torch.zeros(len(rows), x.shape[1], device=x.device)
        for member, score, each in zip(members, scores, errors, strict=True):
            own = (score[rows][..., None] * each.shares(rows)).sum(1)                                # (n, C)
            part += member.weight * own.nan_to_num(0.0)
        share[rows] = part / part.sum(1, keepdim=True).clamp(min=torch.finfo(part.dtype).tiny)
    return raw, share


def error_parts(errors: Sequence[Errors]) -> torch.Tensor:
    """Return each channel's part (B, M, N_SCALES, C) of the error of each member, 0 at scales that a member lacks.

    Their sum over the channels is the error.
    """
    parts = [each.of_all[..., None] * each.shares() for each in errors]                    # (B, S, C)
    return torch.stack([F.pad(part, (0, 0, 0, N_SCALES - part.shape[1])) for part in parts], 1)


def raw_score(members: Sequence[Member], error: torch.Tensor) -> torch.Tensor:
    """Return raw scores (B,) of the errors (B, M, S) of the members. A member may have fewer scales than S."""
    parts = [error[:, number, : len(member.residual.centre)] for number, member in enumerate(members)]
    return amplitude(members, [member.score_of(part) for member, part in zip(members, parts, strict=True)])


def amplitude(members: Sequence[Member], scores: Sequence[torch.Tensor]) -> torch.Tensor:
    """Return raw scores (B,) from the scores (B, S) of each member.

    A member that scores none of the present sensors has no say. NaN where none has one.
    """
    of_each = torch.stack([member.weight * score.sum(1) for member, score in zip(members, scores, strict=True)])
    total = torch.where(of_each.isnan().all(0), torch.nan, of_each.nansum(0))              # (B,)
    per_spread = sum(member.weight * member.residual.spread.pow(-2).sum() for member in members)
    return (total / per_spread).sqrt().expm1()
