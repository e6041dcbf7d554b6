"""Injected faults: seeded, from a row on, in spreads of the sensor, and only where they mean something."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from monitor.lifecycle.injection import KINDS, SIZED, UNSIZED, Fault, Stretch, inject, measure, spread_of, stretches
from monitor.models.inputs import ModelInputs, SensorInput
from monitor.models.spec import TrainingSet

if TYPE_CHECKING:
    from monitor.lifecycle.injection import Sensors
    from monitor.types import Float32

N, BEGIN = 400, 300
NAMES = ("plain", "angle", "counter", "switch", "still", "absent", "row")
ANGLE, COUNTER, SWITCH, STILL, ABSENT, LEFT_OUT = range(1, 7)
INTERVAL_US = 10_000_000


def readings(seed: int = 0) -> Float32:
    rng = np.random.default_rng(seed)
    values = np.full((N, len(NAMES)), np.nan)
    values[:, 0] = 20 + 2 * rng.standard_normal(N)
    values[:, ANGLE] = (350 + 20 * rng.standard_normal(N)) % 360
    values[:, COUNTER] = rng.poisson(5, N).cumsum()
    values[:, SWITCH] = np.arange(N) // 40 % 2
    values[:, STILL] = 7
    values[:, LEFT_OUT] = np.arange(N)
    return values.astype(np.float32)


def sensors(*stretches_: Float32) -> Sensors:
    kinds = ("plain", "angle", "change", "plain", "plain", "plain", "left_out")
    inputs = ModelInputs(NAMES, [SensorInput(kind) for kind in kinds])
    return measure([Stretch(0, 0, each) for each in stretches_ or (readings(),)], NAMES, inputs)


def faulty(kind: str, size: float = 0.0, sensor: int = 0, seed: int = 0, values: Float32 | None = None) -> Float32:
    healthy = readings() if values is None else values
    return inject(healthy, Fault(kind, sensor, BEGIN, size), sensors(), np.random.default_rng(seed), [readings(1)])


def late(values: Float32, sensor: int = 0) -> Float32:
    return values[BEGIN:, sensor]


def test_sensors_are_told_apart() -> None:
    found = sensors()
    assert found.types == ("plain", "angle", "counter", "discrete", "constant", "absent", "left_out")
    assert found.spread[0] == pytest.approx(2, rel=0.15)
    assert found.spread[ANGLE] == pytest.approx(20, rel=0.15)


@pytest.mark.parametrize("kind", KINDS)
def test_a_fault_changes_its_sensor_from_its_row_on(kind: str) -> None:
    before, size = readings(), 0.0 if kind in UNSIZED else 3.0
    after = faulty(kind, size)
    changed = ~((before == after) | (np.isnan(before) & np.isnan(after)))
    assert np.flatnonzero(changed.any(axis=0)).tolist() == [0]
    assert np.flatnonzero(changed.any(axis=1))[0] in (BEGIN, BEGIN + 1)
    np.testing.assert_array_equal(before, readings())


@pytest.mark.parametrize("kind", ["noise", "broken"])
def test_the_same_seed_gives_the_same_fault(kind: str) -> None:
    first, again, other = (faulty(kind, 3.0, seed=seed) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert (late(first) != late(other)).any()


def test_sizes_are_in_spreads_of_the_sensor() -> None:
    spread, before = sensors().spread[0], late(readings())
    np.testing.assert_allclose(late(faulty("bias", -2.0)) - before, -2 * spread, rtol=1e-4)
    assert late(faulty("ramp", 4.0))[-1] - before[-1] == pytest.approx(4 * spread, rel=1e-4)
    assert np.count_nonzero(late(faulty("spike", 9.0)) != before) == 1
    assert (late(faulty("noise", 5.0)) - before).std() == pytest.approx(5 * spread, rel=0.2)


def test_a_ramp_stays_at_its_size_once_it_has_grown() -> None:
    fault = Fault("ramp", 0, BEGIN, 4.0, grows_in=10)
    off = late(inject(readings(), fault, sensors(), np.random.default_rng(0))) - late(readings())
    np.testing.assert_allclose(off[9:], 4 * sensors().spread[0], rtol=1e-4)
    assert 0 < off[0] < off[5] < off[9]


def test_lag_delays_by_rows() -> None:
    np.testing.assert_array_equal(late(faulty("lag", 7.0)), readings()[BEGIN - 7 : -7, 0])


def test_stuck_holds_the_last_value_and_dropout_has_none() -> None:
    assert (late(faulty("stuck")) == readings()[BEGIN - 1, 0]).all()
    assert np.isnan(late(faulty("dropout"))).all()


def test_broken_takes_values_of_another_healthy_time() -> None:
    healthy = {*readings()[:BEGIN, 0].tolist(), *readings(1)[:, 0].tolist()}
    assert set(late(faulty("broken")).tolist()) <= healthy


def test_missing_readings_stay_missing() -> None:
    values = readings()
    values[BEGIN + 3, 0] = values[BEGIN, 0] = np.nan
    for kind in KINDS:
        assert np.isnan(late(faulty(kind, 2.0 if kind in SIZED else 0.0, values=values))[[0, 3]]).all()
    assert np.count_nonzero(late(faulty("spike", 9.0, values=values)) != late(values)) == 3  # two of them missing


def test_an_angle_turns_within_its_degrees() -> None:
    after = late(faulty("bias", 2.0, sensor=ANGLE), ANGLE)
    assert ((after >= 0) & (after < 360)).all()
    turned = (after - late(readings(), ANGLE)) % 360
    np.testing.assert_allclose(turned, 2 * sensors().spread[ANGLE], rtol=1e-3)
    assert sensors().largest(ANGLE, "bias") == pytest.approx(180 / sensors().spread[ANGLE])


def test_a_counter_of_another_time_goes_on_from_its_level() -> None:
    after = faulty("broken", sensor=COUNTER)[:, COUNTER]
    assert after[BEGIN] == after[BEGIN - 1]
    assert (np.diff(after) >= 0).all()


@pytest.mark.parametrize(
    ("sensor", "kind", "why"),
    [
        (COUNTER, "bias", "counts"),
        (SWITCH, "noise", "8 values"),
        (STILL, "stuck", "does not move"),
        (ABSENT, "dropout", "no value"),
        (LEFT_OUT, "broken", "leaves this sensor out"),
    ],
)
def test_a_fault_without_meaning_is_refused_with_a_reason(sensor: int, kind: str, why: str) -> None:
    assert why in (sensors().why_not(sensor, kind) or "")
    with pytest.raises(ValueError, match=why):
        faulty(kind, 2.0, sensor)


def test_faults_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="needs so many rows"):
        faulty("lag", BEGIN + 1.0)
    with pytest.raises(ValueError, match="begins in row 1 to 399"):
        inject(readings(), Fault("bias", 0, N, 1.0), sensors(), np.random.default_rng(0))
    with pytest.raises(ValueError, match="another healthy time"):
        inject(readings(), Fault("broken", 0, 100), sensors(), np.random.default_rng(0))


def test_a_sensor_that_mostly_rests_has_a_spread() -> None:
    mostly_at_rest = np.where(np.arange(1000) % 10 < 4, np.linspace(0, 5, 1000), 0).astype(np.float32)
    assert spread_of(mostly_at_rest) > 0
    assert spread_of(np.full(100, 3, np.float32)) == 0
    outlier = np.random.default_rng(0).standard_normal(1000).astype(np.float32)
    outlier[0] = 1e9
    assert spread_of(outlier) == pytest.approx(1, rel=0.1)


def windows_of(values: Float32, length: int, stride: int, asset: int = 0, first: int = 0) -> TrainingSet:
    starts = np.arange(0, len(values) - length + 1, stride)
    cut = np.stack([values[start : start + length] for start in starts])
    return TrainingSet(cut, np.full(len(starts), asset, np.int32), (first + starts + length) * INTERVAL_US)


def joined(*parts: TrainingSet) -> TrainingSet:
    values, asset, end_us = (
        np.concatenate([getattr(each, name) for each in parts]) for name in ("values", "asset", "end_us")
    )
    return TrainingSet(values, asset, end_us)


def test_stretches_are_the_readings_that_the_windows_were_cut_from() -> None:
    first, second, other = readings(0)[:200], readings(1)[:100], readings(2)
    later = windows_of(second, 32, 32, first=1000)
    windows = joined(windows_of(first, 32, 8), later, windows_of(other, 32, 1, asset=1))
    found = stretches(windows, INTERVAL_US)
    assert [(each.asset, len(each.values)) for each in found] == [(0, 96), (1, N), (0, 200)]
    np.testing.assert_array_equal(found[0].values, second[:96])
    np.testing.assert_array_equal(found[1].values, other)
    np.testing.assert_array_equal(found[2].values, first)
    assert found[0].end_us == (1000 + 96) * INTERVAL_US


def test_stretches_leave_out_alerted_windows() -> None:
    windows = windows_of(readings(), 32, 8)
    alerted = (windows.end_us > 200 * INTERVAL_US) & (windows.end_us <= 260 * INTERVAL_US)
    marked = TrainingSet(windows.values, windows.asset, windows.end_us, alerted)
    assert [len(each.values) for each in stretches(marked, INTERVAL_US)] == [168, 200]


def test_stretches_keep_the_latest_rows() -> None:
    (found,) = stretches(windows_of(readings(), 32, 8), INTERVAL_US, n_rows=100)
    np.testing.assert_array_equal(found.values, readings()[-100:])
