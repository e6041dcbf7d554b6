"""Standardisation per sensor: own units to about unit spread round zero, and back.

Input: values [..., C], NaN = missing. Output: the same, centred on the healthy median and divided by a robust spread.
Invariant: the scale is never zero and a healthy value is rarely clipped, for any kind of sensor: constant, binary,
heavy-tailed, or never seen.
"""

from __future__ import annotations

import math
from copy import copy
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

if TYPE_CHECKING:
    from monitor.types import Float32

CLIP = 10.0
"""Limit of standardised values. Beyond ten spreads the distance carries no information, and one broken sensor would
outweigh all others."""

IQR_OF_NORMAL = 1.349
SPAN_OF_NORMAL = 5.152
"""Width of the central 50 % and 99 % of a normal distribution, in standard deviations."""

CONSTANT_UNIT = 0.01
"""Unit of a sensor that never moved, as a share of its value. A sensor at zero is measured in its own unit."""

FLOAT32_STEPS = 8
"""A scale below this many float32 steps of the value would measure rounding."""


@dataclass(frozen=True, slots=True)
class SensorScale:
    """Standardisation of one sensor."""

    name: str
    kind: str
    """continuous, heavy-tailed, binary, constant, or absent (never seen in training: ignored in scoring)"""
    centre: float
    scale: float


def measure(name: str, values: Float32) -> SensorScale:
    """Measure one sensor on its healthy values [n]. NaN and infinities are left out."""
    seen = values[np.isfinite(values)].astype(np.float64)
    if len(seen) == 0:
        return SensorScale(name, "absent", 0.0, 1.0)
    low, q1, centre, q3, high = np.quantile(seen, [0.005, 0.25, 0.5, 0.75, 0.995])
    floor = FLOAT32_STEPS * float(np.finfo(np.float32).eps) * abs(float(centre))
    iqr, span = (q3 - q1) / IQR_OF_NORMAL, (high - low) / SPAN_OF_NORMAL

    # The wider of the two: healthy bursts (a log, a pump that runs at night) have a narrow middle, and would all be
    # clipped if the middle alone were the unit.
    scale = max(iqr, span)
    if scale <= floor:
        scale = float(seen.std())   # moves in under half a percent of the readings
    if scale <= floor:
        return SensorScale(name, "constant", float(centre), max(CONSTANT_UNIT * abs(float(centre)), floor) or 1.0)
    kind = "continuous"
    if len(np.unique(seen[:: max(1, len(seen) // 4096)])) == 2 and len(np.unique(seen)) == 2:
        kind = "binary"
    elif span > 3 * iqr:
        kind = "heavy-tailed"
    return SensorScale(name, kind, float(np.float32(centre)), float(np.float32(scale)))


class Scaler:
    """Standardises windows and restores their units, with each sensor's centre and scale on one device."""

    def __init__(self, sensors: tuple[SensorScale, ...], device: torch.device | None = None) -> None:
        self.sensors = sensors
        self.centre = torch.tensor([[s.centre] for s in sensors], dtype=torch.float32, device=device)        # (C, 1)
        self.per_unit = torch.tensor([[1 / s.scale] for s in sensors], dtype=torch.float32, device=device)   # (C, 1)
        self._absent = [i for i, s in enumerate(sensors) if s.kind == "absent"]

    @classmethod
    def fit(cls, names: tuple[str, ...], values: Float32) -> Scaler:
        """Measure each sensor on healthy readings [n, C]."""
        return cls(tuple(measure(name, values[:, c]) for c, name in enumerate(names)))

    def to(self, device: torch.device) -> Scaler:
        """Return the same on another device."""
        return Scaler(self.sensors, device)

    def at(self, centre: torch.Tensor, per_unit: torch.Tensor) -> Scaler:
        """Return the same sensors with other centres and units, (C, 1) or of each window (B, C, 1)."""
        other = copy(self)
        other.centre, other.per_unit = centre, per_unit
        return other

    def rows(self, rows: torch.Tensor) -> Scaler:
        """Return the scaler of some of the windows."""
        return self if self.centre.ndim == 2 else self.at(self.centre[rows], self.per_unit[rows])

    def standardise(self, values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Turn (B, T, C) in own units into (B, C, T) without gaps, and a mask (B, C, T) of present values, None = all.

        A gap holds the last value seen in the window (the next one before the first), as a plant's historian
        would. A sensor with no value at all is at its centre. No filled value counts in an error.
        """
        x = torch.sub(values.transpose(1, 2), self.centre).contiguous()   # (B, C, T)
        x.mul_(self.per_unit)
        # One sum tells if any value is NaN or infinite: a batch without gaps, the usual one, pays one pass for it.
        if not self._absent and bool(torch.isfinite(x.sum())):
            return x.clamp_(-CLIP, CLIP), None
        present = torch.isfinite(x)                                       # (B, C, T)
        present[:, self._absent] = False
        x = torch.where(present, x.clamp_(-CLIP, CLIP), 0.0)
        return forward_fill(x, present), present

    def restore(self, x: torch.Tensor) -> torch.Tensor:
        """Turn standardised (B, C, T) back into own units."""
        return x / self.per_unit + self.centre

    def to_json(self) -> list[dict[str, Any]]:
        """Return the card's rows."""
        return [asdict(s) for s in self.sensors]

    @classmethod
    def from_json(cls, rows: list[dict[str, Any]], n_channels: int) -> Scaler:
        """Read the card's rows back. Raises KeyError, TypeError, ValueError."""
        sensors = tuple(SensorScale(r["name"], r["kind"], float(r["centre"]), float(r["scale"])) for r in rows)
        if len(sensors) != n_channels:
            raise ValueError(f"{len(sensors)} scales for {n_channels} channels")
        if bad := [s.name for s in sensors if not (math.isfinite(s.centre) and 0 < s.scale < math.inf)]:
            raise ValueError(f"no scale: {', '.join(bad)}")
        return cls(sensors)


def forward_fill(x: torch.Tensor, present: torch.Tensor) -> torch.Tensor:
    """Fill gaps of (B, C, T) with the last present value, leading gaps with the first. Rows without any stay 0."""
    steps = torch.arange(x.shape[-1], device=x.device)
    last = torch.where(present, steps, -1).cummax(dim=-1).values          # (B, C, T), -1 = none yet
    first = present.to(torch.uint8).argmax(dim=-1, keepdim=True)          # (B, C, 1), 0 where none
    return x.gather(-1, torch.where(last < 0, first, last))
