"""What an operator would plot before any model: how far from usual, and how far from a moment ago.

In: standardised windows (B, C, T). Out: what was to be expected, same shape.
Law: nothing is learnt but each sensor's scale, so nothing can be overfitted. They are no architectures to choose;
`auto` lets them speak beside a network (`detector.Detector`), which is blind to neither a level nor a jump then.

On one labelled recording of drinking water the moving mean alone beats every network (VUS-PR .63 against .02 to .39),
and on others it is close to chance: so it has a voice, and not the word.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F

from monitor.models.network import Network

N_BEFORE = 8
"""Cells in the moving mean."""


class Level(Network):
    """The usual value: the healthy median, whatever the window."""

    half_life = math.inf   # the mean of the whole window: a drift is slow, and noise around a level large

    def __init__(self, n_sensors: int, length: int) -> None:  # noqa: ARG002 — one door for all
        super().__init__()
        self.hyper = {}

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the healthy median, which is 0 in standardised units."""
        return torch.zeros_like(x)


class Moving(Network):
    """The mean of the cells just before."""

    def __init__(self, n_sensors: int, length: int) -> None:  # noqa: ARG002 — one door for all
        super().__init__()
        self.hyper = {}

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the moving mean; before the window all was as in its first cell."""
        before = F.pad(x, (N_BEFORE, 0), mode="replicate")[..., :-1]      # (B, C, T + 7)
        return F.avg_pool1d(before, N_BEFORE, stride=1)                   # (B, C, T)
