"""Operating states: found where machines rest, with few false alarms, and not where they never rest.

PCA alone, so that all of it takes seconds. Simulated machines of `duty.py` and `machines.py`, no labels.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from monitor.budget import Budget
from monitor.models.spec import FleetSpec, ModelSpec, TrainingSet
from monitor.training.fit import fit
from tests.quality.duty import duty_machine
from tests.quality.machines import DAY, machine

if TYPE_CHECKING:
    from monitor.models.detector import TrainedModel
    from monitor.types import Float32

LENGTH, STEP_S = 64, 600.0
N_TRAIN, N_AFTER = 28 * DAY, 7 * DAY
SEEDS = range(9101, 9105)


def windows_of(readings: Float32) -> Float32:
    return np.ascontiguousarray(np.lib.stride_tricks.sliding_window_view(readings, LENGTH, axis=0).transpose(0, 2, 1))


def trained(readings: Float32) -> TrainedModel:
    cut = windows_of(readings)
    end_us = (np.arange(len(cut), dtype=np.int64) + LENGTH) * round(STEP_S * 1e6)
    names = tuple(f"s{number}" for number in range(readings.shape[1]))
    fleet = FleetSpec("duty", names, STEP_S, Budget(1.0, 3, 5, 6, STEP_S))
    return fit(TrainingSet(cut, np.zeros(len(cut), np.int32), end_us), ModelSpec("pca"), fleet)


def test_machines_that_rest_have_states_and_keep_the_budget() -> None:
    false, n_found = [], 0
    for seed in SEEDS:
        readings = duty_machine("rare starts", seed, N_TRAIN + N_AFTER).readings
        version = trained(readings[:N_TRAIN])
        n_found += version.states is not None
        false.append(float((version.score(windows_of(readings)[N_TRAIN:]).score >= 1.0).mean()))
    print(f"states of {n_found} machines, anomalous windows {false}")
    assert n_found >= len(SEEDS) - 1
    assert np.mean(false) <= 0.03


@pytest.mark.parametrize("kind", ["seasonal", "seasonal with drift"])
def test_machines_that_never_rest_have_no_states(kind: str) -> None:
    for seed in SEEDS:
        assert trained(machine(kind, seed, N_TRAIN)).states is None
