"""Every architecture learns every kind of sensor: only a fault scores above 1.0."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from monitor.budget import Budget
from monitor.config.tree import ARCHITECTURES
from monitor.models.spec import FleetSpec, ModelSpec, TrainingSet
from monitor.training.fit import fit

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from monitor.types import Float32

LENGTH = 16
N_TRAIN, N_LATER = 900, 250
FAULT = slice(N_TRAIN + 150, N_TRAIN + 190)
BUDGET = Budget(alarms_per_week=10_000.0, confirm=1, among=1, recover=1, step_s=1.0)

DRIFT = np.linspace(0, 0.3, N_TRAIN + N_LATER)
"""A tenth of the sensor's spread within the later time. A faster drift looks like a fault, and may be one: retraining
follows it, or an operator decides."""

Kind = tuple["Callable[[NDArray[np.float64], np.random.Generator], NDArray[np.float64]]", float]

KINDS: dict[str, Kind] = {
    "constant": (lambda wave, draw: np.full_like(wave, 21.5), 30.0),
    "binary": (lambda wave, draw: (wave > 0).astype(float), 7.0),
    "integer": (lambda wave, draw: np.round(3 * wave + 0.3 * draw.standard_normal(len(wave))), 40.0),
    "saturated": (lambda wave, draw: np.clip(2 * wave + 0.1 * draw.standard_normal(len(wave)), -1.0, 1.0), 9.0),
    "heavy-tailed": (lambda wave, draw: 5 * wave + draw.standard_t(2.5, len(wave)), 400.0),
    "drifting": (lambda wave, draw: wave + DRIFT + 0.1 * draw.standard_normal(len(wave)), -15.0),
}
"""Kind of sensor → its values for a wave of the plant, and its value when it is broken."""


def recording(kind: str) -> Float32:
    """Return the values of two ordinary sensors and of one of this kind, which is broken for a while near the end."""
    follow, broken = KINDS[kind]
    draw = np.random.default_rng(0)
    wave = np.sin(2 * np.pi * np.arange(N_TRAIN + N_LATER) / 20)
    usual = [50 + 10 * wave, 3 - 2 * np.roll(wave, 5)]
    columns = [column + 0.1 * column.std() * draw.standard_normal(len(wave)) for column in usual]
    values = np.stack([*columns, follow(wave, draw)], axis=1).astype(np.float32)
    values[FAULT, 2] = broken
    return values


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("kind", KINDS)
def test_only_a_fault_scores_above_one(kind: str, architecture: str) -> None:
    windows = np.lib.stride_tricks.sliding_window_view(recording(kind), LENGTH, axis=0).transpose(0, 2, 1)
    n_train = N_TRAIN - LENGTH + 1
    train = TrainingSet(windows[:n_train], np.zeros(n_train, np.int32), np.arange(n_train, dtype=np.int64) * 1_000_000)
    spec = ModelSpec(architecture, max_steps=150, n_tries=1)
    sensors = ("temperature", "flow", kind)
    detector = fit(train, spec, FleetSpec("pumps", sensors, 1.0, BUDGET))

    scored = detector.score(np.ascontiguousarray(windows))
    last = np.arange(len(windows)) + LENGTH - 1                            # a score belongs to its last cell
    before = (last >= N_TRAIN) & (last < FAULT.start)
    breaks = (last >= FAULT.start) & (last < FAULT.start + 4)
    assert np.mean(scored.score[before] >= 1.0) < 0.15
    assert scored.score[breaks].max() > 1.5
    assert int(scored.share[breaks].mean(0).argmax()) == 2
