"""Drift of readings: found in the sensor that moved, with a stated rate of false triggers."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from monitor.config.values import Rate
from monitor.lifecycle.input_drift import daily_levels, find_input_drift, input_drift
from monitor.models.inputs import ModelInputs
from monitor.models.spec import TrainingSet

RATE = Rate(1, timedelta(days=90))
SENSORS = ("speed", "power", "heat")
TRAINED_DAY = 27


def days(n: int, seed: int, shift: float = 0.0, n_assets: int = 1) -> dict[Any, dict[int, Any]]:
    """Return independent daily levels of three sensors. `shift`: of the second one, after the training."""
    draw = np.random.default_rng(seed).normal(size=(n_assets, n, 3))
    draw[:, TRAINED_DAY + 1 :, 1] += shift
    return {asset: dict(enumerate(levels)) for asset, levels in enumerate(draw)}


def test_a_sensor_that_moved_is_found_and_named() -> None:
    found = find_input_drift(days(36, 0, shift=6.0), TRAINED_DAY, SENSORS, RATE)
    assert found is not None
    assert found.value >= 1
    assert found.moved[0][0] == "power"
    assert found.problem is not None
    assert "power by +" in found.problem
    assert found.to_json()["problem"] == found.problem


def test_a_fall_is_found_like_a_rise() -> None:
    rise, fall = (find_input_drift(days(36, 1, shift=s), TRAINED_DAY, SENSORS, RATE) for s in (8.0, -8.0))
    assert rise is not None
    assert fall is not None
    assert min(rise.value, fall.value) >= 1


def test_independent_days_trigger_no_more_often_than_stated() -> None:
    n_triggers = 0
    for seed in range(20):
        levels = days(TRAINED_DAY + 1 + 90, seed)[0]
        until = range(TRAINED_DAY + 1, TRAINED_DAY + 91)
        found = (find_input_drift({0: {d: levels[d] for d in range(day + 1)}}, TRAINED_DAY, SENSORS, RATE)
                 for day in until)  # fmt: skip
        n_triggers += any(each is not None and each.value >= 1 for each in found)
    assert n_triggers <= 20 * 0.63  # the share that an event of this rate reaches in its mean time


def test_one_faulty_asset_of_three_is_no_drift() -> None:
    levels = days(40, 2, n_assets=3)
    for day in range(TRAINED_DAY + 1, 40):
        levels[0][day] = levels[0][day] + 50.0
    found = find_input_drift(levels, TRAINED_DAY, SENSORS, RATE)
    assert found is not None
    assert found.value < 1


@pytest.mark.parametrize("n", [5, TRAINED_DAY + 1])
def test_too_few_days_give_no_result(n: int) -> None:
    trained = 2 if n == 5 else TRAINED_DAY
    assert find_input_drift(days(n, 3), trained, SENSORS, RATE) is None


def test_a_sensor_without_readings_is_left_out() -> None:
    levels = {0: {day: np.where([True, False, True], level, np.nan) for day, level in days(36, 4)[0].items()}}
    found = find_input_drift(levels, TRAINED_DAY, SENSORS, RATE)
    assert found is not None
    assert "power" not in dict(found.moved)
    assert np.isfinite(found.value)


def test_days_with_few_windows_have_no_level() -> None:
    day = np.repeat([0, 1, 2], [10, 10, 4])
    assert list(daily_levels(np.zeros((24, 1)), np.zeros(24), day)[0.0]) == [0, 1]


def test_windows_are_tested_from_the_training_on() -> None:
    rng = np.random.default_rng(5)
    n_days, per_day = 40, 24
    day = np.repeat(np.arange(n_days), per_day)
    newest = rng.normal(size=(len(day), 2)).astype(np.float32) + rng.normal(size=(n_days, 2))[day].astype(np.float32)
    newest[day > TRAINED_DAY, 0] += 9.0
    windows = TrainingSet(
        values=np.repeat(newest[:, None], 4, axis=1),
        asset=np.zeros(len(day), np.int32),
        end_us=(day * 24 + np.tile(np.arange(per_day), n_days)) * 3_600_000_000,
    )
    until = datetime.fromtimestamp((TRAINED_DAY + 1) * 86_400 - 3_600, UTC).isoformat()
    model: Any = SimpleNamespace(
        inputs=ModelInputs(("a", "b")), card=SimpleNamespace(training={"to": until})
    )
    found = input_drift(model, windows, ("a", "b"), RATE)
    assert found is not None
    assert found.value >= 1
    assert found.moved[0][0] == "a"
    before = day <= TRAINED_DAY
    calm = replace(
        windows, values=windows.values[before], asset=windows.asset[before], end_us=windows.end_us[before]
    )
    assert input_drift(model, calm, ("a", "b"), RATE) is None
