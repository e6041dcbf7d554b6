"""A machine watched live: windows, trainings on its latest history, and the alerts that the pipeline would open.

Input: readings [n, C] of one machine, by rows of the sampling grid. Output: scores, alerts, and the judged times that
a training gets of them. Invariant: nothing here knows where a fault is.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from monitor.budget import Alarm, Budget
from monitor.models.spec import FleetSpec, ModelSpec, TrainingSet
from monitor.store.results import LAST_US
from monitor.stream.alerting import AlertPolicy, Decider
from monitor.training.fit import fit
from monitor.training.judge import judge
from monitor.types import AlertState, JudgedTime, Scores, Windows

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from monitor.models.detector import TrainedModel

LENGTH, INTERVAL_S = 64, 600.0
DAY, WEEK = 144, 1008
"""Rows."""
BUDGET = Budget(alarms_per_week=1.0, confirm=3, among=5, recover=6, step_s=INTERVAL_S)
STEP_US = int(INTERVAL_S * 1e6)
NEW_NORMAL = 2 * WEEK
"""The default of `retrain.new_normal`."""


def windows_of(readings: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.lib.stride_tricks.sliding_window_view(readings, LENGTH, axis=0).transpose(0, 2, 1)


def trained(
    histories: NDArray[np.float32],
    spec: ModelSpec,
    alerted: NDArray[np.bool_] | None = None,
    judged: list[JudgedTime] | None = None,
) -> TrainedModel:
    """Train on readings [A, n_rows, C] of a fleet. `judged`: of an asset alone, whose readings begin at time 0."""
    values = np.concatenate([windows_of(history) for history in histories])
    n_windows = histories.shape[1] - LENGTH + 1
    asset = np.repeat(np.arange(len(histories), dtype=np.int32), n_windows)
    end_us = np.tile((np.arange(n_windows) + LENGTH) * STEP_US, len(histories))
    sensors = tuple(f"s{i}" for i in range(histories.shape[2]))
    train = TrainingSet(values, asset, end_us, alerted)
    if judged is not None:
        train, span_us = replace(train, assets=("a",)), LENGTH * STEP_US
        train = judge(train, {"a": judged}, span_us=span_us, step_us=STEP_US, new_normal_us=NEW_NORMAL * STEP_US)
    return fit(train, spec, FleetSpec("f", sensors, INTERVAL_S, BUDGET))


def alarms(score: NDArray[np.float32], first: int = 0) -> list[Alarm]:
    """Return the alerts that the pipeline would open. The windows end one step apart, the first at `first` + 1."""
    n = len(score)
    nothing, asset = np.zeros(n, np.int64), np.zeros(n, np.int32)
    windows = Windows("f", asset, np.arange(n), np.zeros((n, 1, 1), np.float32), np.ones(n, np.int32), nothing, nothing)
    decider = Decider("f", AlertPolicy(BUDGET.confirm, BUDGET.among, BUDGET.recover))
    closed_us: dict[int, int | None] = {}
    for change in decider.decide(Scores(windows, score, ["v"] * n, {}), (first + np.arange(n) + 1) * STEP_US):
        closed_us[change.opened_us] = change.at_us if change.state is AlertState.CLOSED else None
    return [Alarm(opened, closed) for opened, closed in closed_us.items()]


def judged_times(known: list[Alarm], begin: int) -> list[JudgedTime]:
    """Return unlabelled alerts as a training gets them. `begin`: the row at which its history begins.

    A window is called by its first row in `alarms`, and by its end here.
    """
    offset_us = (LENGTH - 1 - begin) * STEP_US
    return [
        JudgedTime(
            each.opened_us + offset_us - 1,
            LAST_US if each.closed_us is None else each.closed_us + offset_us,
            "open" if each.closed_us is None else "unlabelled",
            "alert",
            number,
        )
        for number, each in enumerate(known)
    ]
