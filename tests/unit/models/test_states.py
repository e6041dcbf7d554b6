from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from monitor.models.states import States

NAN = np.nan
STATES = States(
    "rpm", 1, ("off", "idle", "running"), (-np.inf, 20.0, 90.0), (10.0, 40.0, np.inf), max_between=2, max_changes=2,
    factors=(0.5, 1.0, 2.0, 1.5, 1.0), shares=(0.2, 0.2, 0.5, 0.1, 0.0),
)  # fmt: skip


def window(*rpm: float) -> np.ndarray:
    values = np.zeros((1, len(rpm), 2), np.float32)
    values[0, :, 1] = rpm
    return values


@pytest.mark.parametrize(
    ("rpm", "expected"),
    [
        ((0, 1, 2, -5), "off"),
        ((30, 31, 40, 20), "idle"),
        ((90, 100, 5000, 95), "running"),
        ((0, 0, 95, 95), "transition"),
        ((0, 15, 60, 95), "transition"),
        ((95, 95, 95, 60), "transition"),
        ((0, 95, 0, 95), "unknown"),  # more changes than a healthy window has
        ((60, 61, 62, 95), "unknown"),  # between two states for longer than a healthy change takes
        ((60, 60, 60, 60), "unknown"),
        ((0, NAN, 0, 0), "off"),
        ((0, NAN, NAN, NAN), "unknown"),
        ((NAN, NAN, NAN, NAN), "unknown"),
        ((0, np.inf, 0, 0), "off"),
    ],
)
def test_a_window_is_in_one_class(rpm: tuple[float, ...], expected: str) -> None:
    assert STATES.classes[STATES.classify(window(*rpm))[0]] == expected


def test_a_window_has_the_same_class_alone_and_in_a_batch() -> None:
    rpm = np.random.default_rng(0).choice([0.0, 30.0, 60.0, 95.0, NAN], (300, 4), p=[0.4, 0.2, 0.05, 0.3, 0.05])
    values = np.concatenate([window(*row) for row in rpm])
    together = STATES.classify(values)
    assert len(set(together.tolist())) == 5
    np.testing.assert_array_equal(together, np.concatenate([STATES.classify(one[None]) for one in values]))


def test_no_window_has_no_class() -> None:
    assert STATES.classify(np.empty((0, 4, 2), np.float32)).shape == (0,)


def test_only_windows_of_off_alone_are_off() -> None:
    values = np.concatenate([window(0, 0), window(0, 95), window(95, 95)])
    assert STATES.is_off(STATES.classify(values)).tolist() == [True, False, False]
    named = replace(STATES, names=("low", "middle", "high"))
    assert not named.is_off(named.classify(values)).any()


def test_states_survive_the_card() -> None:
    entry = json.loads(json.dumps(STATES.to_json(), allow_nan=False))
    assert States.from_json(("power", "rpm"), entry) == STATES
    assert entry["says"][0] == (
        "Operating states by rpm, found in the data: off up to 10, idle 20 to 40, running from 90."
    )


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("sensor", "pressure"),
        ("factors", {"off": 0.0, "idle": 1.0, "running": 1.0, "transition": 1.0, "unknown": 1.0}),
        ("factors", {"off": 1.0}),
        ("states", []),
        ("states", [{"name": "off", "from": 5, "to": 1}]),
        ("max_between", None),
    ],
)
def test_a_malformed_card_is_refused(key: str, value: object) -> None:
    with pytest.raises((KeyError, TypeError, ValueError, AttributeError)):
        States.from_json(("power", "rpm"), {**STATES.to_json(), key: value})
