"""Standardised windows as tensors, and a network's errors on them.

Input: standardised windows (N, C, T), the mask of present values, a network. Output: parts of the windows, errors [N].
Invariant: a missing value and an unscored step count in no error.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

if TYPE_CHECKING:
    from collections.abc import Sequence

    from monitor.models.network import Network
    from monitor.types import Bool, Float32

CHUNK = 512
TRIMMED_SHARE = 0.9
"""Share of the windows that a trimmed mean is over, those with the smallest errors: a fault among the held-out windows
must not decide the early stopping."""


@dataclass(frozen=True, slots=True)
class WindowTensors:
    """Standardised windows of one split."""

    x: torch.Tensor
    """(N, C, T)"""
    present: torch.Tensor | None
    """(N, C, T), None = all."""

    def __len__(self) -> int:
        return len(self.x)

    def select(self, rows: torch.Tensor | slice) -> WindowTensors:
        """Return some of the rows."""
        return WindowTensors(self.x[rows], None if self.present is None else self.present[rows])

    def without(self, outlier: Bool) -> WindowTensors:
        """Return the rows that are not outliers [N]."""
        return self.select(torch.from_numpy(np.flatnonzero(~outlier)))


def joined(parts: Sequence[WindowTensors]) -> WindowTensors:
    """Return the windows of all parts."""
    x = torch.cat([part.x for part in parts])
    if all(part.present is None for part in parts):
        return WindowTensors(x, None)
    everything = [torch.ones_like(p.x, dtype=torch.bool) if p.present is None else p.present for p in parts]
    return WindowTensors(x, torch.cat(everything))


def chunks(windows: WindowTensors) -> list[WindowTensors]:
    """Return the windows in parts that fit the cache."""
    return [windows.select(slice(start, start + CHUNK)) for start in range(0, len(windows), CHUNK)]


def window_errors(network: Network, windows: WindowTensors, inputs: torch.Tensor | None = None) -> Float32:
    """Return the mean squared error of each window [N] over its present values, without unscored steps.

    `inputs`: (N, C, T) that the network reconstructs the windows from. None = the windows themselves.
    """
    out = []
    scored = slice(network.n_unscored, None)
    given = windows.x if inputs is None else inputs
    with torch.inference_mode():
        for start, part in zip(range(0, len(windows), CHUNK), chunks(windows), strict=True):
            squared = network.squared_error(given[start : start + CHUNK], part.x)[..., scored]
            if part.present is None:
                out.append(squared.mean((1, 2)))
            else:
                present = part.present[..., scored]
                out.append((squared * present).sum((1, 2)) / present.sum((1, 2)).clamp(min=1))
    errors: Float32 = torch.cat(out).cpu().numpy()
    return errors


def trimmed_mean(errors: Float32) -> float:
    """Return the mean over the smallest nine tenths of window errors. NaN if any is."""
    if not np.isfinite(errors).all():
        return math.nan
    return float(np.sort(errors)[: max(1, int(TRIMMED_SHARE * len(errors)))].mean())
