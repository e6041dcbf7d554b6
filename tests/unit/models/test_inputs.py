"""Inputs of a model: sensors become channels, and results of channels those of sensors."""

from __future__ import annotations

import json

import numpy as np
import pytest

from monitor.models.inputs import ModelInputs, SensorInput

NAN = float("nan")
SENSORS = ("temp", "wind", "meter", "row")
INPUTS = ModelInputs(
    SENSORS,
    [
        SensorInput(missing=(-200.0, float(np.float32(-99.9))), low=0.0, high=10.0),
        SensorInput("angle"),
        SensorInput("change", low=0.0, high=1.0),
        SensorInput("left_out", note="a row number"),
    ],
)


def window(*columns: list[float]) -> np.ndarray:
    return np.array(columns, dtype=np.float32).T[None]


def test_channels_have_names_and_owners() -> None:
    assert INPUTS.channels == ("temp", "wind (sine)", "wind (cosine)", "meter (change)")
    assert INPUTS.owner.tolist() == [0, 1, 1, 2]
    assert INPUTS.taken == ("temp", "wind", "meter")
    assert INPUTS.notes == ["row: a row number"]


def test_each_kind_of_sensor_becomes_its_channels() -> None:
    values = window([20, -200, -99.9, -99.8], [0, 90, 359, NAN], [100, 101, 103, 103], [1, 2, 3, 4])
    temp, sine, cosine, change = INPUTS.to_channels(values)[0].T
    np.testing.assert_array_equal(temp, np.float32([20, NAN, NAN, -99.8]))
    np.testing.assert_allclose(sine, [0, 1, np.sin(np.deg2rad(359)), NAN], atol=1e-6)
    np.testing.assert_allclose(cosine, [1, 0, np.cos(np.deg2rad(359)), NAN], atol=1e-6)
    np.testing.assert_array_equal(change, np.float32([0, 1, 3, 3]))


def test_gaps_and_resets_change_nothing() -> None:
    inputs = ModelInputs(("up", "down"), [SensorInput("change"), SensorInput("change", direction=-1)])
    values = window([50, 51, NAN, 53, 54, 0, 1], [30, 29, 2, 300, 299, 298, 298])
    up, down = inputs.to_channels(values)[0].T
    np.testing.assert_array_equal(up, np.float32([0, 1, NAN, 3, 4, 4, 5]))
    np.testing.assert_array_equal(down, np.float32([0, -1, -28, -28, -29, -30, -30]))


def test_a_meter_that_runs_backwards_is_no_reset() -> None:
    inputs = ModelInputs(("up",), [SensorInput("change")])
    change = inputs.to_channels(window([50, 51, 49, 40]))[0].T
    np.testing.assert_array_equal(change, np.float32([[0, 1, -1, -10]]))


def test_a_change_begins_with_the_first_value() -> None:
    inputs = ModelInputs(("up",), [SensorInput("change")])
    change = inputs.to_channels(window([NAN, 7, 8], [NAN, NAN, NAN]).transpose(2, 1, 0))[..., 0]
    np.testing.assert_array_equal(change, np.float32([[NAN, 0, 1], [NAN, NAN, NAN]]))


def test_plain_inputs_return_the_same_array() -> None:
    plain, values = ModelInputs(("a", "b")), window([1, 2], [3, 4])
    assert plain.is_plain
    assert plain.to_channels(values) is values
    assert plain.select(values, ["a", "b"]) is values
    assert plain.to_sensors(values) is values


def test_sensors_are_selected_by_name() -> None:
    inputs, values = ModelInputs(("a", "b", "c")), window([1, 2], [3, 4], [5, 6])
    found = inputs.select(values, ["c", "new", "a"])
    np.testing.assert_array_equal(found[0], np.float32([[5, NAN, 1], [6, NAN, 2]]))


def test_shares_of_an_angle_add_up() -> None:
    folded = INPUTS.fold_shares(np.float32([[0.5, 0.2, 0.1, 0.2]]))
    np.testing.assert_allclose(folded, [[0.5, 0.3, 0.2, 0.0]], rtol=1e-6)


def test_values_are_those_of_sensors() -> None:
    angle = np.deg2rad(270)
    values = INPUTS.fold_values(np.float32([[3.0, np.sin(angle), np.cos(angle), 0.5]]))
    np.testing.assert_allclose(values, [[3.0, 270.0, 0.5, NAN]], rtol=1e-5)
    assert 0 <= INPUTS.fold_values(np.float32([[0, -1e-9, 1, 0]]))[0, 1] < 360


def test_expected_values_stay_near_what_was_seen() -> None:
    bounded = INPUTS.bound(np.float32([[-50, 400, 7, NAN], [5, 1, NAN, 0]]))
    np.testing.assert_allclose(bounded, [[-1.0, 400.0, 1.1, NAN], [5, 1, NAN, 0]], rtol=1e-6)


def test_windows_come_back_from_channels() -> None:
    values = window([1, 2, 3], [10, 350, 180], [7, 8, 10], [1, 2, 3])
    again = INPUTS.to_sensors(INPUTS.to_channels(values))
    np.testing.assert_allclose(again[..., :2], values[..., :2], rtol=1e-4)
    np.testing.assert_allclose(again[0, :, 2], [0, 1, 3])  # counted from 0
    assert np.isnan(again[..., 3]).all()


def test_the_card_keeps_the_inputs() -> None:
    again = ModelInputs.from_json(SENSORS, json.loads(json.dumps(INPUTS.to_json())))
    assert (again.sensors, again.inputs) == (INPUTS.sensors, INPUTS.inputs)
    assert ModelInputs.from_json(SENSORS, None).is_plain


@pytest.mark.parametrize("entry", [{}, {"a": {}}, {"a": {"kind": "x", "missing": []}}, {"a": {"missing": [], "b": 1}}])
def test_a_wrong_entry_is_refused(entry: dict[str, object]) -> None:
    with pytest.raises((KeyError, TypeError, ValueError)):
        ModelInputs.from_json(("a",), entry)
