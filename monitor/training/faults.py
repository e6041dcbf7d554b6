"""Faults put into healthy windows, to ask a model what it would notice: no label is needed, and none is used.

In: standardised healthy windows (N, C, T). Out: copies with a fault in their last cells, and its kind.
Law: pure and seeded; what is missing stays missing. Kinds, sizes and onsets are drawn evenly from a list that names
what goes wrong with sensors and machines, and are tuned to nothing.

Choosing among detectors by injected faults: Goswami et al., Unsupervised model selection for time series anomaly
detection, ICLR 2023.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from monitor.models.scaler import CLIP

if TYPE_CHECKING:
    from numpy.typing import NDArray

KINDS = ("spike", "shift", "drift", "stuck", "noise", "swap", "gain")
"""One or two wild cells · another level · a ramp · the last value held · more noise · the sensor as it was at another
time · a larger or smaller amplitude."""
SIZES = (1.0, 2.0, 4.0)
"""In spreads of the sensor: from hardly visible to obvious."""


def inject(
    x: torch.Tensor, present: torch.Tensor | None, pool: torch.Tensor, seed: int
) -> tuple[torch.Tensor, NDArray[np.int64]]:
    """Return windows (N, C, T) with a fault each, and the number of its kind, [N].

    In half of them one sensor is at fault, in the others a quarter of all; the fault began at most half a window ago.
    What is not `present` stays as it was filled.
    `pool` (M, C, T) is where `swap` takes healthy cells from.
    """
    draw = np.random.default_rng(seed)
    values, others = x.cpu().numpy().copy(), pool.cpu().numpy()
    n, n_sensors, length = values.shape
    kinds = np.arange(n) % len(KINDS)
    for window, kind in zip(values, kinds, strict=True):
        n_faulty = 1 if draw.random() < 0.5 else max(1, n_sensors // 4)
        age = int(draw.integers(2, max(3, length // 2)))
        size = float(draw.choice(SIZES))
        other = others[draw.integers(len(others))]
        for sensor in draw.choice(n_sensors, n_faulty, replace=False):
            _spoil(window[sensor], KINDS[kind], age, size * draw.choice((-1.0, 1.0)), other[sensor], draw)
    np.clip(values, -CLIP, CLIP, out=values)
    faulty = torch.from_numpy(values).to(x.device)
    return faulty if present is None else torch.where(present, faulty, x), kinds


def _spoil(
    cells: NDArray[np.float32], kind: str, age: int, size: float, other: NDArray[np.float32], draw: np.random.Generator
) -> None:
    """Spoil the last `age` cells of one sensor, in place."""
    late = cells[-age:]
    match kind:
        case "spike":
            late[-int(draw.integers(1, 3)) :] += size
        case "shift":
            late += size / 2
        case "drift":
            late += size * np.linspace(0, 1, age, dtype=np.float32)
        case "stuck":
            late[:] = late[0]
        case "noise":
            late += draw.normal(0, abs(size) / 2, age).astype(np.float32)
        case "swap":
            late[:] = other[-age:]
        case "gain":
            middle = cells.mean()
            late[:] = middle + (late - middle) * (1 + size / 2 if size > 0 else 1 / (1 - size / 2))
