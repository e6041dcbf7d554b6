"""Memory of short stretches: each stretch of a window is expected to look like one that was seen before.

Input: standardised windows (B, C, T). Output: the nearest remembered stretches, one after the other, same shape.
Invariant: solved, not trained. A stretch is compared by itself, so that the error of a step depends on the steps of its
own stretch alone.

A long window is rarely like another one in every cell, a short one more often (`memory`). Side by side, the stretches
of a window show a fault that is older than the newest of them.
"""

from __future__ import annotations

from typing import Self

import torch

from monitor.models.memory import Memory
from monitor.models.network import Network

N_CELLS = 16
"""Steps of a stretch."""
MAX_REMEMBERED = 500
"""Stretches. A short one is one of fewer, and a window has several to search for: with 1,000 it costs a third more, and
finds as much."""


class ShortMemory(Network):
    """Stretches end at the newest step. Steps before the first whole stretch count in no error."""

    def __init__(
        self, n_sensors: int, length: int, *, cells: int = N_CELLS, n_windows: int = 1, n_axes: int = 1
    ) -> None:
        super().__init__()
        self.cells = min(cells, length)
        self.n_unscored = length % self.cells
        self.hyper = {"cells": self.cells, "n_windows": n_windows, "n_axes": n_axes}
        self.memory = Memory(n_sensors, self.cells, n_windows=n_windows, n_axes=n_axes)

    @classmethod
    def solve(
        cls,
        x: torch.Tensor,
        ends_us: torch.Tensor | None = None,
        *,
        cells: int = N_CELLS,
        seed: int = 0,
        n_max: int = MAX_REMEMBERED,
    ) -> Self:
        """Remember the stretches of healthy windows (N, C, T). `ends_us`: see `Memory.solve`."""
        _, n_sensors, length = x.shape
        cells = min(cells, length)
        each = cls._stretches(x[..., length % cells :], cells)               # (N · tiles, C, cells)
        ends_us = None if ends_us is None else ends_us.repeat_interleave(length // cells)
        memory = Memory.solve(each, ends_us, seed=seed, n_max=n_max)
        sizes = {name: memory.hyper[name] for name in ("n_windows", "n_axes")}
        short = cls(n_sensors, length, cells=cells, **sizes)
        short.memory = memory
        return short

    @staticmethod
    def _stretches(x: torch.Tensor, cells: int) -> torch.Tensor:
        """Return the stretches (B · tiles, C, cells) of windows of whole stretches, the oldest of each first."""
        n, n_sensors, length = x.shape
        return x.reshape(n, n_sensors, length // cells, cells).transpose(1, 2).flatten(0, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the nearest stretches. Steps before the first whole stretch are returned as they are."""
        n, n_sensors, _ = x.shape
        found = self.memory(self._stretches(x[..., self.n_unscored :], self.cells))
        found = found.reshape(n, -1, n_sensors, self.cells).transpose(1, 2).flatten(2)     # (B, C, T - unscored)
        return torch.cat([x[..., : self.n_unscored], found], -1) if self.n_unscored else found
