"""A confirmed fault outlives the acceptance of another time: from the labels to the gate, on both databases."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest

from monitor import control
from monitor.budget import Budget
from monitor.errors import WrongState
from monitor.lifecycle.gate import Limits
from monitor.lifecycle.gate import judge as judged_by_gate
from monitor.models.spec import FleetSpec, ModelSpec, TrainingSet
from monitor.store import labels, training_times
from monitor.store.acts import Actor
from monitor.store.confirmed_faults import confirmed_faults
from monitor.training.fit import fit
from monitor.training.judge import judge
from monitor.types import AlertState, EvidencePart, Label
from tests.contract.steps import FLEET, INTERVAL_US, change, own
from tests.fakes import FakeClock

if TYPE_CHECKING:
    from monitor.models.detector import TrainedModel
    from monitor.store.engine import AsyncStore
    from monitor.types import Float32, JudgedTime

ANN = Actor("ann", "cli")
DAY, CELLS = 144, 16
SENSORS = ("flow", "pressure", "speed")
FAULT = slice(5 * DAY, 5 * DAY + 24)
CHANGE = slice(8 * DAY, 10 * DAY)
BUDGET = Budget(alarms_per_week=1.0, confirm=3, among=5, recover=6, step_s=600.0)


def machine() -> Float32:
    """Return ten days of coupled sensors, with a fault of four hours, and another level for the last two days."""
    draw = np.random.default_rng(0)
    common = draw.standard_normal((10 * DAY, 1))
    readings = common * (1.0, 0.7, 0.4) + 0.3 * draw.standard_normal((10 * DAY, 3))
    readings[FAULT, 0] += 8.0
    readings[CHANGE, 1] += 4.0
    return readings.astype(np.float32)


def trained(readings: Float32, judged: dict[str, list[JudgedTime]]) -> tuple[TrainedModel, TrainingSet]:
    """Return the version of a history from cell 0 on, and the windows that it was made of."""
    values = np.lib.stride_tricks.sliding_window_view(readings, CELLS, axis=0).transpose(0, 2, 1)
    ends_us = (np.arange(len(values)) + CELLS) * INTERVAL_US
    windows = judge(
        TrainingSet(values, np.zeros(len(values), np.int32), ends_us, assets=("T1",)), judged,
        span_us=CELLS * INTERVAL_US, step_us=INTERVAL_US, new_normal_us=None,
    )  # fmt: skip
    return fit(windows, ModelSpec("pca"), FleetSpec(FLEET, SENSORS, 600.0, BUDGET)), windows


async def with_fault_alert(store: AsyncStore, readings: Float32) -> None:
    owner = await own(store)
    cells = np.arange(FAULT.start - CELLS, FAULT.stop)
    evidence = EvidencePart(
        asset=0, opened_us=FAULT.start * INTERVAL_US, sensors=SENSORS, cell_us=cells * INTERVAL_US,
        values=readings[cells], expected=readings[cells], end_us=(cells[-1:] + 1) * INTERVAL_US,
        score=np.array([2.0], np.float32), limit=4 * CELLS,
    )  # fmt: skip
    steps = [
        change(FAULT.start, FAULT.start + 1, AlertState.FIRING), change(FAULT.start, FAULT.stop, AlertState.CLOSED)
    ]  # fmt: skip
    rows = await owner.rows({"T1": 2.0}, FAULT.start)
    await owner.save(owner.step(replace(rows, alerts=steps, evidence=[evidence])))


async def test_a_fault_is_remembered_after_an_acceptance(store: AsyncStore) -> None:
    readings, clock = machine(), FakeClock(10 * DAY * INTERVAL_US)
    await with_fault_alert(store, readings)
    await store.run(labels.label_alert, 1, Label.FAULT, "bearing", ANN, 0)

    def accept(first: int, last: int) -> object:
        return control.accept_normal(
            store, clock, FLEET, "T1", first * INTERVAL_US, last * INTERVAL_US, actor=ANN, note="new belt"
        )

    with pytest.raises(WrongState, match=r"alert 1 says that T1 had a fault"):
        await accept(5 * DAY, CHANGE.stop)
    await accept(CHANGE.start, CHANGE.stop)
    judged = await store.read(training_times.judged_times, FLEET)
    champion, _ = trained(readings[: FAULT.start], {})
    challenger, windows = trained(readings, judged)
    faults = await store.read(confirmed_faults, FLEET, 20)
    limits = Limits(SENSORS, 600.0, BUDGET, CELLS)
    [memory] = [
        each for each in judged_by_gate(challenger, champion, windows, faults, limits).checks if each.name == "memory"
    ]
    assert memory.passed
    assert (memory.numbers["n_judged"], memory.numbers["n_lost"]) == (1, 0)
    changed = np.stack([readings[end - CELLS : end] for end in range(CHANGE.start + CELLS, CHANGE.stop)])
    assert (challenger.score(changed).score >= 1).mean() < 0.05
    assert (champion.score(changed).score >= 1).mean() > 0.9
