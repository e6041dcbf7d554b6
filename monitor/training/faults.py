"""Injection of faults into healthy windows, to measure the detection of a model without labels.

Input: standardised healthy windows (N, C, T). Output: copies with a fault in their last steps, and its kind.
Invariant: pure and seeded. Missing values stay missing. Kinds, sizes and onsets are drawn evenly from a list of common
faults of sensors and machines. They are not tuned to any recording.

The choice among detectors by injected faults is from Goswami et al., Unsupervised model selection for time series
anomaly detection, ICLR 2023.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from monitor.models.scaler import CLIP

if TYPE_CHECKING:
    from numpy.typing import NDArray

KINDS = ("spike", "shift", "drift", "stuck", "noise", "swap", "gain")
"""In this order: one or two outliers, another level, a ramp, the last value held, more noise, values of the sensor from
another time, a larger or smaller amplitude."""
SIZES = (1.0, 2.0, 4.0)
"""In spreads of the sensor: from hardly visible to obvious."""


def inject(
    x: torch.Tensor, present: torch.Tensor | None, pool: torch.Tensor, seed: int
) -> tuple[torch.Tensor, NDArray[np.int64]]:
    """Return windows (N, C, T) with a fault each, and the number of its kind, [N].

    In half of them one sensor is faulty, in the others a quarter of all. The fault began at most half a window ago.
    A value that is not `present` stays as it was filled.
    `pool`: (M, C, T), healthy windows whose values `swap` inserts.
    """
    rng = np.random.default_rng(seed)
    values, others = x.cpu().numpy().copy(), pool.cpu().numpy()
    n, n_sensors, length = values.shape
    kinds = np.arange(n) % len(KINDS)
    for window, kind in zip(values, kinds, strict=True):
        n_faulty = 1 if rng.random() < 0.5 else max(1, n_sensors // 4)
        age = int(rng.integers(2, max(3, length // 2)))
        size = float(rng.choice(SIZES))
        other = others[rng.integers(len(others))]
        for sensor in rng.choice(n_sensors, n_faulty, replace=False):
            apply_fault(window[sensor], KINDS[kind], age, size * rng.choice((-1.0, 1.0)), other[sensor], rng)
    np.clip(values, -CLIP, CLIP, out=values)
    faulty = torch.from_numpy(values).to(x.device)
    return faulty if present is None else torch.where(present, faulty, x), kinds


def apply_fault(
    series: NDArray[np.float32], kind: str, age: int, size: float, other: NDArray[np.float32], rng: np.random.Generator
) -> None:
    """Apply a fault to the last `age` steps of one sensor, in place."""
    late = series[-age:]
    match kind:
        case "spike":
            late[-int(rng.integers(1, 3)) :] += size
        case "shift":
            late += size / 2
        case "drift":
            late += size * np.linspace(0, 1, age, dtype=np.float32)
        case "stuck":
            late[:] = late[0]
        case "noise":
            late += rng.normal(0, abs(size) / 2, age).astype(np.float32)
        case "swap":
            late[:] = other[-age:]
        case "gain":
            mean = series.mean()
            late[:] = mean + (late - mean) * (1 + size / 2 if size > 0 else 1 / (1 - size / 2))
