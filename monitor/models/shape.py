"""Memory of shapes: windows of periodic sensors, each sensor less its mean in the window and in units of its spread.

Input: standardised windows (B, C, T). Output: the nearest remembered shape, at the window's own level and spread, same
shape. Sensors that are not periodic are returned as they are.
Invariant: solved, not trained. The spread that a window is divided by has a floor, so that noise on a still line is no
shape. Errors are in the sensor's own unit. In units of the window's spread they find less: on twelve simulated odd
cycles VUS-PR .43, in its own unit .51.

Distances of normalised windows find the odd cycle of a long repeating signal (matrix profile, Yeh et al., ICDM 2016).
On signals that do not repeat they find chance.
"""

from __future__ import annotations

from typing import Self

import torch

from monitor.models.memory import MAX_REMEMBERED, Memory, chosen_rows
from monitor.models.network import Network

FLOOR = 0.3
"""Least spread that a window is divided by, as a share of the sensor's median one."""


class Shape(Network):
    """Memory of normalised windows of some sensors."""

    periodic: torch.Tensor
    """Mask (C,) of the sensors that it compares."""
    floor: torch.Tensor
    """(P, 1), least spread of each periodic sensor."""

    def __init__(
        self, n_sensors: int, length: int, *, n_periodic: int = 0, n_windows: int = 1, n_axes: int = 1
    ) -> None:
        super().__init__()
        n_periodic = n_periodic or n_sensors
        self.hyper = {"n_periodic": n_periodic, "n_windows": n_windows, "n_axes": n_axes}
        self.memory = Memory(n_periodic, length, n_windows=n_windows, n_axes=n_axes)
        self.register_buffer("periodic", torch.arange(n_sensors) < n_periodic)
        self.register_buffer("floor", torch.ones(n_periodic, 1))

    @property
    def scored_sensors(self) -> torch.Tensor | None:
        """Return the mask of the periodic sensors. None = all are."""
        return None if self.hyper["n_periodic"] == len(self.periodic) else self.periodic

    @classmethod
    def solve(
        cls,
        x: torch.Tensor,
        ends_us: torch.Tensor | None = None,
        *,
        periodic: torch.Tensor,
        seed: int = 0,
        n_max: int = MAX_REMEMBERED,
    ) -> Self | None:
        """Remember the shapes of healthy windows (N, C, T). `periodic` (C,): mask of the sensors that repeat.

        None = no sensor repeats. For `ends_us` see `Memory.solve`.
        """
        _, n_sensors, length = x.shape
        periodic = periodic.to(x.device)
        if not periodic.any():
            return None
        rows = chosen_rows(len(x), ends_us).to(x.device)
        own = x[rows][:, periodic]                                           # (N, P, T)
        floor = FLOOR * own.std(-1, correction=0).median(0).values[:, None]  # (P, 1)
        floor = floor.clamp(min=torch.finfo(x.dtype).eps)
        level, spread = _level_and_spread(own, floor)
        ends_us = None if ends_us is None else ends_us.to(x.device)[rows]
        memory = Memory.solve_on((own - level) / spread, ends_us, seed=seed, n_max=n_max)
        shape = cls(
            n_sensors,
            length,
            n_periodic=own.shape[1],
            n_windows=memory.hyper["n_windows"],
            n_axes=memory.hyper["n_axes"],
        )
        shape.memory = memory
        shape.register_buffer("periodic", periodic)
        shape.register_buffer("floor", floor)
        return shape

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the nearest shape at the level and spread of the window."""
        is_all = self.hyper["n_periodic"] == x.shape[1]
        own = x if is_all else x[:, self.periodic]                           # (B, P, T)
        level, spread = _level_and_spread(own, self.floor)
        expected = torch.addcmul(level, self.memory((own - level) / spread), spread)
        if is_all:
            return expected
        out = x.clone()
        out[:, self.periodic] = expected
        return out


def _level_and_spread(own: torch.Tensor, floor: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the mean and the spread of each sensor in each window of (B, P, T), both (B, P, 1)."""
    level = own.mean(-1, keepdim=True)
    spread = (own - level).square_().mean(-1, keepdim=True).sqrt_()
    return level, torch.maximum(spread, floor)

