"""Tests of the sensors themselves, on windows of a machine with five sensors."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from monitor.config.sensors import SensorConfig
from monitor.models.inputs import ModelInputs, SensorInput
from monitor.models.sensor_profile import block_noise, learn, longest_runs, profiles_from_json
from monitor.stream.sensor_health import (
    DEAD,
    FINDINGS,
    HEALTHY,
    NOISY,
    NOT_TESTED,
    OUT_OF_RANGE,
    RUN_FACTOR,
    STUCK,
    SensorTests,
)

if TYPE_CHECKING:
    from monitor.types import Float32

SENSORS = ("power", "wind", "pitch", "heat", "valve")
LENGTH, N = 64, 400



def machine(seed: int = 0, n: int = N + LENGTH) -> Float32:
    """Return readings [n, 5]: four that move, and a valve that is on or off."""
    draw = np.random.default_rng(seed)
    at = np.arange(n)
    waves = np.stack([50 + 20 * np.sin(at / period) for period in (9, 17, 31, 60)], axis=1)
    waves += draw.normal(0, 0.5, waves.shape)
    return np.concatenate([waves, (at // 90 % 2)[:, None]], axis=1).astype(np.float32)


def windows(readings: Float32) -> Float32:
    return np.lib.stride_tricks.sliding_window_view(readings, LENGTH, axis=0).transpose(0, 2, 1).copy()


def model(inputs: ModelInputs | None = None, readings: Float32 | None = None) -> Any:
    inputs = inputs or ModelInputs(SENSORS)
    values = windows(machine() if readings is None else readings)
    entry = learn(values, np.arange(len(values)), inputs)
    return SimpleNamespace(sensors=SENSORS, inputs=inputs, profiles=profiles_from_json(SENSORS, entry))


def sensor_tests(settings: Any = None, of: Any = None) -> SensorTests:
    return SensorTests(SENSORS, settings, of or model())


def fleet(usual: tuple[str, ...] = FINDINGS, **sensor: SensorConfig) -> Any:
    return SimpleNamespace(sensor=sensor, alerts=SimpleNamespace(sensor_tests=usual))


def test_healthy_windows_are_not_copied() -> None:
    values = windows(machine(seed=1))
    inspection = sensor_tests().inspect(values)
    assert not inspection.findings.any()
    assert inspection.values is values


def test_a_stuck_sensor_is_found_within_eight_readings_and_masked() -> None:
    readings = machine(seed=1)
    readings[100:, 1] = readings[100, 1]
    values = windows(readings)
    inspection = sensor_tests().inspect(values)
    first = int(np.argmax(inspection.findings[:, 1] == STUCK))
    assert first + LENGTH - 1 == 107  # the eighth equal reading
    assert (inspection.findings[first:, 1] == STUCK).all()
    assert np.isnan(inspection.values[first:, :, 1]).all()
    assert np.array_equal(inspection.values[..., 0], values[..., 0])
    assert not np.isnan(values).any()


def test_a_sensor_that_is_on_or_off_is_never_stuck() -> None:
    readings = machine(seed=1)
    readings[50:, 4] = 1.0
    assert not sensor_tests().inspect(windows(readings)).findings.any()


@pytest.mark.parametrize("value", [0.0, 400.0])
def test_a_sensor_held_outside_its_usual_values_is_not_stuck(value: float) -> None:
    readings = machine(seed=1)
    readings[100:, 1] = value
    assert not (sensor_tests().inspect(windows(readings)).findings == STUCK).any()


def test_a_machine_that_stands_still_has_no_stuck_sensors() -> None:
    readings = machine(seed=1)
    readings[100:, :3] = readings[100, :3]
    assert not sensor_tests().inspect(windows(readings)).findings[60:].any()


def test_a_dead_sensor_is_found_once_its_window_is_empty() -> None:
    readings = machine(seed=1)
    readings[100:, 2] = np.nan
    findings = sensor_tests().inspect(windows(readings)).findings
    first = int(np.argmax(findings[:, 2] == DEAD))
    assert first == 100
    assert not findings[:, [0, 1, 3, 4]].any()


def test_a_sensor_that_came_and_went_in_training_is_not_dead() -> None:
    readings = machine()
    readings[50:200, 2] = np.nan
    found = sensor_tests(of=model(readings=readings)).inspect(windows(readings)).findings
    assert not found.any()


def test_readings_outside_of_the_range_are_missing_for_the_model() -> None:
    readings = machine(seed=1)
    readings[100, 0] = 300.0
    inspection = sensor_tests(fleet(power=SensorConfig(range=(0.0, 200.0)))).inspect(windows(readings))
    assert not inspection.findings.any()  # one glitch is no broken sensor
    assert not (inspection.values > 200).any()
    assert np.isnan(inspection.values).sum() == LENGTH


def test_an_eighth_of_a_window_outside_is_out_of_range() -> None:
    readings = machine(seed=1)
    readings[100:108, 0] = [300.0, 310.0] * 4
    findings = sensor_tests(fleet(power=SensorConfig(range=(0.0, float("inf"))))).inspect(windows(readings)).findings
    assert not findings.any()
    findings = sensor_tests(fleet(power=SensorConfig(range=(0.0, 200.0)))).inspect(windows(readings)).findings
    assert int(np.argmax(findings[:, 0] == OUT_OF_RANGE)) + LENGTH - 1 == 107


def test_a_code_far_outside_of_all_training_is_out_of_range() -> None:
    readings = machine(seed=1)
    readings[100:, 3] = -9999.0
    inspection = sensor_tests().inspect(windows(readings))
    assert (inspection.findings[100:, 3] == OUT_OF_RANGE).all()
    assert int(np.isnan(inspection.values[..., 3]).any(axis=1).argmax()) + LENGTH - 1 == 101  # its second reading


def test_a_far_value_that_moves_is_left_to_the_model() -> None:
    readings = machine(seed=1)
    readings[100:, 3] *= 100
    assert not sensor_tests().inspect(windows(readings)).findings.any()


def test_white_noise_of_one_sensor_is_found_in_half_a_block() -> None:
    readings = machine(seed=1)
    readings[100:, 1] += np.random.default_rng(2).normal(0, 60, len(readings) - 100).astype(np.float32)
    inspection = sensor_tests().inspect(windows(readings))
    first = int(np.argmax(inspection.findings[:, 1] == NOISY))
    assert 100 <= first + LENGTH - 1 <= 110
    assert np.isnan(inspection.values[first:, :, 1]).all()


def test_a_machine_that_shakes_has_no_noisy_sensors() -> None:
    readings = machine(seed=1)
    readings[100:, :3] += np.random.default_rng(2).normal(0, 60, (len(readings) - 100, 3)).astype(np.float32)
    assert not sensor_tests().inspect(windows(readings)).findings.any()


def test_an_oscillation_is_no_noise() -> None:
    readings = machine(seed=1)
    readings[100:, 1] += 60 * np.sin(np.arange(len(readings) - 100)).astype(np.float32)
    assert not sensor_tests().inspect(windows(readings)).findings.any()


def test_tests_can_be_switched_off_by_fleet_and_by_sensor() -> None:
    readings = machine(seed=1)
    readings[100:, 0], readings[100:, 1] = readings[100, 0], np.nan
    values = windows(readings)
    assert not sensor_tests(fleet(usual=())).inspect(values).findings.any()
    found = sensor_tests(fleet(power=SensorConfig(tests=("dead",)))).inspect(values).findings
    assert not found[:, 0].any()
    assert (found[:, 1] == DEAD).any()
    found = sensor_tests(fleet(usual=("stuck",))).inspect(values).findings
    assert (found[:, 0] == STUCK).any()
    assert not found[:, 1].any()


def test_without_a_profile_only_ranges_are_tested() -> None:
    readings = machine(seed=1)
    readings[100:, 0], readings[100:, 1] = 300.0, readings[100, 1]
    old = SimpleNamespace(sensors=SENSORS, inputs=ModelInputs(SENSORS), profiles=None)
    settings = fleet(power=SensorConfig(range=(0.0, 200.0)))
    found = sensor_tests(settings, old).inspect(windows(readings)).findings
    assert set(found[:, 0].tolist()) == {HEALTHY, OUT_OF_RANGE}
    assert (found[:, 1:] == NOT_TESTED).all()


def test_codes_for_missing_values_make_a_sensor_dead() -> None:
    inputs = ModelInputs(SENSORS, [SensorInput(missing=(-999.0,)), *[SensorInput()] * 4])
    readings = machine(seed=1)
    readings[100:, 0] = -999.0
    found = sensor_tests(of=model(inputs)).inspect(windows(readings)).findings
    assert set(found[:, 0].tolist()) == {HEALTHY, DEAD}


def test_findings_of_a_window_do_not_depend_on_the_batch() -> None:
    readings = machine(seed=1, n=900)
    readings[100:200, 0], readings[300:420, 1], readings[500:600, 2] = readings[100, 0], np.nan, -9999.0
    values, tests = windows(readings), sensor_tests()
    together = tests.inspect(values)
    alone = [tests.inspect(values[row : row + 1]) for row in range(0, len(values), 7)]
    assert np.array_equal(together.findings[::7], np.concatenate([each.findings for each in alone]))
    expected = np.concatenate([each.values for each in alone])
    assert np.array_equal(together.values[::7], expected, equal_nan=True)
    assert set(np.unique(together.findings).tolist()) == {HEALTHY, DEAD, OUT_OF_RANGE, STUCK}


def test_missing_readings_neither_count_nor_end_a_run() -> None:
    column = np.array([1, 2, np.nan, 2, 2, 3, 3, np.nan], np.float32)
    runs = longest_runs(column[None, :, None])
    assert (runs.length[0, 0], runs.value[0, 0]) == (3, 2.0)


def test_one_wild_reading_is_no_noise() -> None:
    column = np.linspace(0, 1, LENGTH, dtype=np.float32)
    column[-4] = 1e6
    assert block_noise(column[None, :, None]).max() < 1e-3


# ---------------------------------------------------------------- stuck: values of rest, related sensors


def pump(seed: int, n: int = 3000) -> Float32:
    """Return readings [n, 5] of a pump that stops now and then: its flow is exactly 0, and the others go on."""
    readings = machine(seed, n)
    readings[:, 1] += np.random.default_rng(seed + 50).normal(0, 0.5, n)
    readings[np.arange(n) // 70 % 3 == 0, 1] = 0.0
    readings[:, 1] -= 20  # the stop is neither the least nor the greatest value
    return readings


def coarse(seed: int, n: int = 3000) -> Float32:
    """Return readings [n, 5] of four sensors that move together, slowly, the first of them in coarse steps."""
    draw = np.random.default_rng(seed)
    load = np.sin(np.arange(n) / 40) + 0.3 * np.sin(np.arange(n) / 300)
    readings = load[:, None] * (4, -3, 2, 1, 5) + draw.normal(0, 0.05, (n, 5))
    readings[:, 0] = np.round(readings[:, 0])
    readings[:, 4] = np.arange(n) // 90 % 2
    return readings.astype(np.float32)


def stuck_windows(of: Any, readings: Float32) -> Any:
    return sensor_tests(of=of).inspect(windows(readings)).findings


def test_a_sensor_is_tested_between_its_rests() -> None:
    of = model(readings=pump(0))
    assert of.profiles[1].rests == (-20.0,)
    assert of.profiles[1].longest_run == 1
    readings = pump(1, 600)
    assert not stuck_windows(of, readings).any()
    first = int(np.flatnonzero(readings[100:, 1] != -20.0)[0]) + 100
    readings[first:, 1] = readings[first, 1]
    findings = stuck_windows(of, readings)
    assert (findings[first + 8 - LENGTH :, 1] == STUCK).all()


def test_a_longer_rest_is_not_stuck() -> None:
    readings = pump(1, 600)
    readings[200:, 1] = -20.0
    assert not stuck_windows(model(readings=pump(0)), readings).any()


def test_a_new_position_is_not_stuck() -> None:
    of = model(readings=pump(0))
    assert of.profiles[4].rests == ()  # it is at one of its positions all the time
    readings = pump(1, 600)
    readings[200:, 4] = 0.5
    assert not stuck_windows(of, readings).any()


def test_related_sensors_tell_a_coarse_one() -> None:
    of = model(readings=coarse(0))
    assert len(of.profiles[0].related) >= 2
    assert RUN_FACTOR * of.profiles[0].longest_run > LENGTH
    readings = coarse(1, 600)
    assert not stuck_windows(of, readings).any()
    readings[200:, 0] = readings[200, 0]
    found = np.flatnonzero(stuck_windows(of, readings)[:, 0] == STUCK)
    assert 0 < found[0] + LENGTH - 200 <= LENGTH


def test_one_related_sensor_proves_nothing() -> None:
    of = model(readings=coarse(0))
    readings = coarse(1, 300)
    readings[100:] = readings[100]  # the machine stands still
    readings[100:, 1] += 10 * np.sin(np.arange(200) / 10)
    assert not (stuck_windows(of, readings)[:, 0] == STUCK).any()


def test_a_held_sensor_keeps_its_alert_open() -> None:
    of = model(readings=coarse(0))
    readings = coarse(1, 600)
    readings[200:400, 0] = readings[200, 0]
    findings = stuck_windows(of, readings)[:, 0]
    whole = findings[200 : 400 - LENGTH + 1]
    assert set(whole.tolist()) == {STUCK, NOT_TESTED}
    assert not findings[400:].any()
    values = sensor_tests(of=of).inspect(windows(readings)).values
    assert np.isfinite(values[200 : 400 - LENGTH + 1][whole == NOT_TESTED]).all()


def test_a_whole_window_of_one_value_is_stuck() -> None:
    profile = {"low": 0.0, "high": 9.0, "noise": 1.0, "absent_share": 0.0}
    readings = np.random.default_rng(0).integers(0, 10, (200, 5)).astype(np.float32)
    readings[100:, 2] = 4.0
    for run, n_runs, is_found in ((20, 2000, True), (20, 0, False), (26, 2000, False)):
        entry = {name: profile | {"longest_run": run, "n_runs": n_runs} for name in SENSORS}
        of = SimpleNamespace(
            sensors=SENSORS, inputs=ModelInputs(SENSORS), profiles=profiles_from_json(SENSORS, entry)
        )
        assert (stuck_windows(of, readings)[:, 2] == STUCK).any() == is_found


def test_the_profile_of_an_older_card_is_read() -> None:
    old = {"low": 0.0, "high": 9.0, "longest_run": 3, "noise": 1.0, "absent_share": 0.0}
    (profile,) = profiles_from_json(("a",), {"a": old})
    assert (profile.longest_run, profile.n_runs, profile.rests, profile.related) == (3, 0, (), {})


def test_a_profile_survives_its_card() -> None:
    entry = learn(windows(coarse(0)), np.arange(2000), ModelInputs(SENSORS))
    again = profiles_from_json(SENSORS, json.loads(json.dumps(entry)))
    assert again == profiles_from_json(SENSORS, entry)
    assert any(each.related for each in again)


def test_a_sensor_that_is_always_missing_has_a_profile() -> None:
    """A median over nothing once raised a warning."""
    readings = windows(coarse(0))
    readings[..., 3] = np.nan
    profiles = profiles_from_json(SENSORS, learn(readings, np.arange(2000), ModelInputs(SENSORS)))
    assert (profiles[3].low, profiles[3].absent_share, profiles[3].related) == (None, 1.0, {})
    assert any(each.related for each in profiles)
    assert not any(SENSORS[3] in each.related for each in profiles)
