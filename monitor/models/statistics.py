"""Predictors without training: the healthy median, and the mean of the steps just before.

Input: standardised windows (B, C, T). Output: the prediction, same shape.
Invariant: nothing is learnt but each sensor's scale, so nothing can be overfitted. They cannot be chosen as an
architecture. `auto` adds them to a network's ensemble (`detector.TrainedModel`), which then misses neither a level nor
a jump.

On one labelled recording of drinking water the moving mean alone beats every network (VUS-PR .63 against .02 to .39).
On others it is close to chance. So it is a member, and does not decide alone.
"""

from __future__ import annotations

from functools import lru_cache

import torch
import torch.nn.functional as F

from monitor.models.network import Network

N_BEFORE = 8
"""Steps in the moving mean."""
MAX_BAND = 256
"""Steps of a window up to which the moving mean is one product with a banded matrix: .8 in place of 4.2 µs for 8 × 64.
Its cost grows with the square of the steps."""


class HealthyMedian(Network):
    """The healthy median, for every window."""

    scales = ("whole",)   # a drift is slow, and noise around a level large

    def __init__(self, n_sensors: int, length: int) -> None:  # noqa: ARG002 — one signature for all
        super().__init__()
        self.hyper = {}

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the healthy median, which is 0 in standardised units."""
        return torch.zeros_like(x)


class MovingMean(Network):
    """The mean of the steps just before."""

    scales = ("newest",)   # a jump: behind it, errors are large for as long as the mean takes to follow
    n_context = N_BEFORE

    def __init__(self, n_sensors: int, length: int) -> None:  # noqa: ARG002 — one signature for all
        super().__init__()
        self.hyper = {}

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the moving mean. The steps before the window repeat its first step."""
        length = x.shape[-1]
        if length > MAX_BAND:
            before = F.pad(x, (N_BEFORE, 0), mode="replicate")[..., :-1]  # (B, C, T + 7)
            return F.avg_pool1d(before, N_BEFORE, stride=1)               # (B, C, T)
        return x @ _band(length, x.dtype, x.device)                       # (B, C, T)


@lru_cache(maxsize=8)
def _band(length: int, dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    """Return the weight (T, T) of each step in the moving mean of each step."""
    with torch.inference_mode(mode=False):                                # the first caller's mode must not stay in it
        weight = torch.zeros(length, length, dtype=dtype)
        for step in range(length):
            for before in range(step - N_BEFORE, step):
                weight[max(0, before), step] += 1 / N_BEFORE
        return weight.to(device)
