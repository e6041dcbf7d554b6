"""A small fleet, a version of it, and the document of a drill."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from monitor.budget import Budget
from monitor.config.tree import FleetConfig
from monitor.lifecycle.drills import drill
from monitor.models.spec import FleetSpec, ModelSpec, TrainingSet
from monitor.training.fit import fit

if TYPE_CHECKING:
    from monitor.models.detector import TrainedModel
    from monitor.types import Float32

LENGTH, STRIDE, N, N_HEALTHY = 16, 2, 2400, 600
NAMES = ("load", "flow", "heat", "switch")
INTERVAL_US = 60_000_000
FLEET = FleetConfig.model_validate(
    {"name": "pumps", "interval": "1m", "window": LENGTH, "stride": STRIDE, "alerts": {"budget": "1/day"}}
)


def readings(n: int = N + N_HEALTHY, seed: int = 0) -> Float32:
    """Return readings of three coupled sensors and a switch."""
    rng = np.random.default_rng(seed)
    load = np.sin(2 * np.pi * np.arange(n) / 48) + 0.1 * rng.standard_normal(n)
    noise = 0.05 * rng.standard_normal((n, 3))
    switch = np.arange(n) // 12 % 2
    return np.stack([load + noise[:, 0], 3 - 2 * load + noise[:, 1], 50 + 8 * load + noise[:, 2], switch], 1).astype(
        np.float32
    )


def windows(values: Float32) -> TrainingSet:
    """Cut readings into windows."""
    starts = np.arange(0, len(values) - LENGTH + 1, STRIDE)
    cut = np.stack([values[start : start + LENGTH] for start in starts])
    return TrainingSet(cut, np.zeros(len(starts), np.int32), (starts + LENGTH) * INTERVAL_US, assets=("p1",))


@cache
def model() -> TrainedModel:
    """Return a version that learnt from the first readings."""
    spec = FleetSpec("pumps", NAMES, 60.0, Budget(7.0, 3, 5, 6, STRIDE * 60.0))
    return fit(windows(readings()[:N]), ModelSpec("pca"), spec)


@cache
def document() -> dict[str, Any]:
    """Return a drill of this version."""
    return drill(model(), windows(readings()), FLEET, NAMES)
