"""Recognition of missing-value codes, counters and angles."""

import numpy as np
import pytest

from monitor.signals import find_counter, find_sentinels, may_be_angle

RNG = np.random.default_rng(0)
N = 2000
HOURS = np.arange(N)
TEMP = 18 + 6 * np.sin(HOURS / 4) + RNG.normal(0, 0.7, N)
NOX = 200 + 90 * np.sin(HOURS / 4) + RNG.normal(0, 30, N)


def with_code(values, code, *, rows=(100, 400, 900, 1500), length=5):
    values = values.copy()
    for row in rows:
        values[row : row + length] = code
    return values.astype(np.float32)


@pytest.mark.parametrize("code", [-200.0, -999.0, -9999.0, -99.9, 9999.0, 65535.0, -127.0, 1e30])
def test_a_usual_code_far_outside_is_a_sentinel(code):
    assert find_sentinels(with_code(TEMP, code)) == (float(np.float32(code)),)


def test_a_usual_code_near_a_wide_sensor_is_a_sentinel():
    assert find_sentinels(with_code(NOX, -200.0)) == (-200.0,)


def test_an_unusual_code_needs_more_distance_and_recurrence():
    assert find_sentinels(with_code(np.abs(TEMP), -15.0)) == ()
    assert find_sentinels(with_code(np.abs(TEMP), -77.0)) == (-77.0,)
    assert find_sentinels(with_code(np.abs(TEMP), -77.0, rows=(100, 200))) == ()
    assert find_sentinels(with_code(TEMP, 4095.0)) == (4095.0,)
    assert find_sentinels(with_code(TEMP, 150.0)) == ()


def test_two_codes_are_both_found():
    values = with_code(with_code(TEMP, -999.0), 9999.0, rows=(200, 700, 1100))
    assert find_sentinels(values) == (-999.0, 9999.0)


@pytest.mark.parametrize(
    "values",
    [
        with_code(TEMP, 0.0),  # a zero is measured too
        np.clip(60 + 50 * np.sin(HOURS / 9) + RNG.normal(0, 2, N), 0, 99.9),  # humidity that saturates
        np.where(RNG.random(N) < 0.01, 100.0, 0.0),  # a valve that rarely opens
        np.where(RNG.random(N) < 0.3, 1.0, 900 + RNG.normal(0, 30, N)),  # a pump's power, off at times
        with_code(TEMP, -200.0, rows=(100,), length=1),  # one extreme reading
        with_code(TEMP, -200.0, rows=(100,), length=300),  # one long stretch: a fault of the sensor
        -190 + TEMP,  # cold, and -200 is near
        np.full(N, -999.0),
    ],
)
def test_measured_extremes_are_no_sentinels(values):
    assert find_sentinels(values) == ()


def test_a_code_that_recurs_across_stretches_is_a_sentinel():
    pumps = np.split(with_code(TEMP, -200.0), 40)
    assert find_sentinels(pumps) == (-200.0,)


def kind(values):
    counter = find_counter(np.asarray(values, dtype=np.float32))
    return None if counter is None else "useless" if counter.is_useless else "counter"


LOAD = np.maximum(0, 2 + np.sin(HOURS / 200) + RNG.normal(0, 0.1, N)) / 60
METER = 81_234 + np.cumsum(LOAD)
JITTER = HOURS.astype(float)
JITTER[RNG.random(N) < 0.02] = np.nan


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (HOURS, "useless"),  # a row number
        (JITTER, "useless"),  # a row number with lost rows
        (HOURS % 256, "useless"),  # a byte that wraps
        (86_400 + 10 * HOURS, "useless"),  # an uptime
        (5_000 - HOURS, "useless"),  # counts down
        (1.79e9 + 10 * HOURS, "useless"),  # seconds since 1970, finer than a float32
        (9.6e6 - np.cumsum(RNG.uniform(0.5, 3, N)), None),  # a pressure that falls all the time
        (1.6e7 + 46 * HOURS, "counter"),  # interpolated on a line
        (20 + 0.1 * HOURS, "counter"),  # a ramp
        (METER, "counter"),
        (np.where(HOURS < 900, METER, METER - METER[900]), "counter"),  # the meter was replaced
        (np.floor(np.cumsum(LOAD) * 40), "counter"),  # whole pulses, often none
        (-METER, None),
        (9_000 - np.floor(np.cumsum(LOAD) * 40), "counter"),  # pieces that remain
        (TEMP, None),
        (np.full(N, 7.0), None),
        (np.where(HOURS < 900, 21.0, 21.5), None),  # a set-point
        (HOURS / 10 + RNG.normal(0, 0.3, N), None),  # a trend with noise
        (100 * (HOURS % 20) + RNG.normal(0, 1, N), None),  # a tank that fills and empties
        ([1.0, 2.0, 3.0], None),
        ([np.nan] * 50, None),
    ],
)
def test_counters_are_told_from_sensors(values, expected):
    assert kind(values) == expected


def test_the_direction_of_a_counter():
    assert find_counter(METER).direction == 1
    assert find_counter(5_000 - HOURS).direction == -1


def test_an_angle_that_crosses_north_is_suspected():
    wind = np.cumsum(RNG.normal(0, 8, N)) % 360
    assert may_be_angle(wind)
    assert not may_be_angle(RNG.uniform(0, 360, N))
    assert not may_be_angle(180 + 170 * np.sin(HOURS / 9))
    assert not may_be_angle(TEMP)
