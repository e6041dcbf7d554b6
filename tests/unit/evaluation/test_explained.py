"""Hit rate of explanations on injected faults."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from monitor.budget import Budget
from monitor.evaluation.explained import (
    MAX_WINDOWS,
    QUIET,
    ExplainedFaults,
    explained_faults,
    inject,
    quiet_rows,
    wilson,
)
from monitor.models.spec import FleetSpec, ModelSpec, TrainingSet
from monitor.training.fit import fit

if TYPE_CHECKING:
    from monitor.models.detector import TrainedModel
    from monitor.types import Float32

LENGTH = 16
N_SENSORS = 6


def plant(n: int, seed: int) -> Float32:
    """Windows of six sensors that follow two waves, with noise."""
    rng = np.random.default_rng(seed)
    phase = np.arange(n + LENGTH - 1) / 9
    waves = np.stack([np.sin(phase + k) if k % 2 else np.cos(2 * phase + k) for k in range(N_SENSORS)], axis=1)
    values = (waves + 0.1 * rng.normal(size=waves.shape)).astype(np.float32) * 10 + 50
    return np.lib.stride_tricks.sliding_window_view(values, LENGTH, axis=0).transpose(0, 2, 1)


def model(values: Float32) -> TrainedModel:
    n = len(values)
    sensors = tuple(f"s{k}" for k in range(values.shape[2]))
    budget = Budget(alarms_per_week=100.0, confirm=1, among=1, recover=1, step_s=60.0)
    train = TrainingSet(values, np.zeros(n, np.int32), np.arange(n, dtype=np.int64) * 60_000_000)
    return fit(train, ModelSpec("pca"), FleetSpec("plant", sensors, 60.0, budget))


def test_blamed_sensors_are_those_with_the_fault() -> None:
    detector = model(plant(600, 0))
    found = explained_faults(detector, np.ascontiguousarray(plant(300, 1)), seed=0)
    assert found is not None
    assert 20 <= found.n_one <= MAX_WINDOWS
    assert found.n_two >= found.n_one
    row = found.row()
    assert row["top2_one"] == pytest.approx(found.hits_one / found.n_one, abs=1e-4)
    assert (row["top2_hit_rate"] or 0) > 0.9
    assert found == explained_faults(detector, np.ascontiguousarray(plant(300, 1)), seed=0)


def test_too_few_sensors_are_not_measured() -> None:
    narrow = plant(400, 0)[..., :3]
    assert explained_faults(model(narrow), narrow) is None
    assert explained_faults(model(plant(400, 0)), plant(10, 1)) is None


def test_a_fault_changes_the_chosen_sensors_alone() -> None:
    windows = np.ascontiguousarray(plant(40, 2))
    faulty, chosen = inject(model(plant(400, 0)), windows, windows, np.arange(1, 5), 2, np.random.default_rng(0))
    assert chosen.min() >= 1
    assert chosen.max() <= 4
    for row, columns in enumerate(chosen.tolist()):
        assert len(set(columns)) == 2
        others = [c for c in range(N_SENSORS) if c not in columns]
        assert (faulty[row][:, others] == windows[row][:, others]).all()
    changed = [(faulty[row][:, columns] != windows[row][:, columns]).any() for row, columns in enumerate(chosen)]
    assert np.mean(changed) > 0.9


def test_quiet_windows_are_spread_over_the_time() -> None:
    score = np.tile(np.array([0.1, QUIET, 2.0, np.nan], np.float32), 1000)
    rows = quiet_rows(score)
    assert (rows % 4 == 0).all()
    assert rows[-1] > 3900
    assert len(rows) == 500


def test_series_are_summed_and_an_interval_is_told() -> None:
    first, second = ExplainedFaults(10, 9, 20, 15), ExplainedFaults(0, 0, 3, 3)
    assert ExplainedFaults.of_rows([first.row(), second.row()]) == ExplainedFaults(10, 9, 23, 18)
    assert ExplainedFaults().row()["top2_hit_rate"] is None
    assert wilson(9, 10) == pytest.approx((0.5958, 0.9821), abs=1e-3)
    assert wilson(0, 0) == (None, None)
