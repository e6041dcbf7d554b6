"""Scales of every kind of sensor: never zero, and healthy values are not clipped."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from monitor.models.scaler import CLIP, Scaler, SensorScale, forward_fill, measure


@pytest.fixture
def draw() -> np.random.Generator:
    return np.random.default_rng(0)


def column(values: object) -> np.ndarray:
    return np.asarray(values, dtype=np.float32)


def test_a_sensor_has_its_median_and_spread(draw: np.random.Generator) -> None:
    sensor = measure("speed", column(50 + 4 * draw.standard_normal(20_000)))
    assert sensor.kind == "continuous"
    assert sensor.centre == pytest.approx(50, abs=0.1)
    assert sensor.scale == pytest.approx(4, rel=0.05)


def test_outliers_do_not_move_the_scale(draw: np.random.Generator) -> None:
    clean = column(draw.standard_normal(20_000))
    dirty = clean.copy()
    dirty[:60] = 1e6
    assert measure("x", dirty).scale == pytest.approx(measure("x", clean).scale, rel=0.1)


@pytest.mark.parametrize("value", [0.0, 5.0, -273.15, 1e9])
def test_a_constant_sensor_shows_a_deviation(value: float) -> None:
    sensor = measure("valve", np.full(500, value, np.float32))
    assert sensor.kind == "constant"
    assert sensor.scale > 0
    deviation = abs(value * 1.1 + 1 - sensor.centre) / sensor.scale
    assert 0.9 <= deviation < np.inf


def test_rounding_is_not_a_spread() -> None:
    steps = np.full(500, 1e9, np.float32)
    steps[::2] = np.nextafter(np.float32(1e9), np.float32(2e9))
    assert measure("counter", steps).kind == "constant"


@pytest.mark.parametrize("share", [0.5, 0.1, 0.02, 0.002])
def test_binary_values_stay_apart(share: float, draw: np.random.Generator) -> None:
    values = column(draw.random(20_000) < share)
    sensor = measure("door", values)
    assert sensor.kind == "binary"
    assert 0 < sensor.scale < 1
    assert 1 / sensor.scale > 1.3


def test_a_heavy_tail_is_rarely_clipped(draw: np.random.Generator) -> None:
    values = column(draw.standard_t(2, 20_000) ** 3)
    sensor = measure("load", values)
    assert sensor.kind == "heavy-tailed"
    assert np.mean(np.abs((values - sensor.centre) / sensor.scale) > CLIP) < 0.005


def test_an_absent_sensor_is_never_scored() -> None:
    scaler = Scaler((measure("gone", np.full(10, np.nan, np.float32)), SensorScale("there", "continuous", 0.0, 1.0)))
    x, present = scaler.standardise(torch.full((1, 4, 2), 7.0))
    assert present is not None
    assert not present[0, 0].any()
    assert present[0, 1].all()
    assert (x[0, 0] == 0).all()


def test_restore_inverts_standardise() -> None:
    scaler = Scaler((SensorScale("a", "continuous", 50.0, 4.0), SensorScale("b", "continuous", -1e4, 1e-2)))
    values = torch.tensor([[[48.0, -1e4], [60.0, -1e4 + 0.03]]])
    x, present = scaler.standardise(values)
    assert present is None
    assert x.shape == (1, 2, 2)
    torch.testing.assert_close(scaler.restore(x).transpose(1, 2), values)


def test_large_is_clipped_and_infinite_missing() -> None:
    scaler = Scaler((SensorScale("a", "continuous", 0.0, 1.0),))
    x, present = scaler.standardise(torch.tensor([[[1e30], [-1e30], [float("inf")], [0.5]]]))
    assert present is not None
    assert present[0, 0].tolist() == [True, True, False, True]
    assert x[0, 0].tolist() == [CLIP, -CLIP, -CLIP, 0.5]


def test_an_overflowing_sum_is_not_a_gap() -> None:
    scaler = Scaler((SensorScale("a", "continuous", 0.0, 1.0),))
    x, present = scaler.standardise(torch.full((1, 4, 1), 3e38))
    assert present is None or bool(present.all())
    assert (x == CLIP).all()


def test_gaps_are_filled_forward() -> None:
    x = torch.tensor([[[0.0, 1.0, 0.0, 0.0, 2.0, 0.0], [0.0] * 6]])
    present = torch.tensor([[[False, True, False, False, True, False], [False] * 6]])
    assert forward_fill(x, present).tolist() == [[[1.0, 1.0, 1.0, 1.0, 2.0, 2.0], [0.0] * 6]]


def test_the_card_keeps_every_digit() -> None:
    rng = np.random.default_rng(1)
    scaler = Scaler.fit(("a", "b"), column(rng.standard_normal((500, 2)) * [1e-7, 1e7]))
    again = Scaler.from_json(scaler.to_json(), 2)
    assert torch.equal(again.centre, scaler.centre)
    assert torch.equal(again.per_unit, scaler.per_unit)
