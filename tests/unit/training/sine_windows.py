"""Sine waves with noise as training windows, for tests that train a small model."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from monitor.budget import Budget
from monitor.models.spec import FleetSpec, TrainingSet

if TYPE_CHECKING:
    from monitor.types import Float32

LENGTH = 12
MINUTE_US = 60_000_000
SENSORS = ("speed", "power")
BUDGET = Budget(alarms_per_week=20.0, confirm=3, among=5, recover=6, step_s=60.0)
"""Wide enough for a few hours of held-out time to be evidence."""
FLEET_SPEC = FleetSpec("pumps", SENSORS, 60.0, BUDGET)


def readings(n: int, seed: int = 0) -> Float32:
    """Return readings [n, 2] of one asset."""
    rng = np.random.default_rng(seed)
    phase = np.arange(n) / 3
    return (np.stack([np.sin(phase), np.cos(phase)], axis=1) + rng.normal(0, 0.1, (n, 2))).astype(np.float32)


def windows(*assets: Float32) -> TrainingSet:
    """Return windows at stride 1 and one reading a minute, asset after asset."""
    values = [np.lib.stride_tricks.sliding_window_view(a, LENGTH, axis=0).transpose(0, 2, 1) for a in assets]
    return TrainingSet(
        np.concatenate(values),
        np.concatenate([np.full(len(v), i, np.int32) for i, v in enumerate(values)]),
        np.concatenate([(np.arange(len(v)) + LENGTH) * MINUTE_US for v in values]),
    )
