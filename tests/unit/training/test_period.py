"""Window length from the period of the sensors: found where one is, and never where none is."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from monitor.training.period import (
    DEFAULT_LENGTH,
    LONGEST,
    autocorrelation,
    length_for_assets,
    period,
    periodic_sensors,
    suggested_length,
)

if TYPE_CHECKING:
    from monitor.types import Float32

N, DAY = 3000, 144
NO_CYCLE = f"no cycle of up to {LONGEST} cells was found"


def cycles(draw: np.random.Generator, length: float, n: int = N) -> Float32:
    return np.sin(2 * np.pi * (np.arange(n) / length + draw.random())).astype(np.float32)


def walk(draw: np.random.Generator, keep: float, n: int = N) -> Float32:
    """Return a process that keeps this share of its value at each step. 1 = a random walk."""
    shocks, out, last = draw.standard_normal(n), np.empty(n, np.float32), 0.0
    for row in range(n):
        last = keep * last + shocks[row]
        out[row] = last
    return out


def heart(draw: np.random.Generator, length: int, jitter: float, n: int = N) -> Float32:
    """Return peaks of three cells at irregular distances, above noise."""
    out, at = 0.2 * draw.standard_normal(n), 0
    while (at := at + max(4, round(draw.normal(length, jitter)))) < n - 3:
        out[at : at + 3] += (1, 3, 1)
    return out.astype(np.float32)


@pytest.mark.parametrize("keep", [0.0, 0.9, 0.99, 0.995, 1.0])
@pytest.mark.parametrize("n", [500, 1000, 3000])
def test_slow_processes_have_no_period(keep: float, n: int) -> None:
    draw = np.random.default_rng(n)
    assert [period(walk(draw, keep, n)) for _ in range(20)] == [None] * 20


@pytest.mark.parametrize("length", [7, 34, 90, 144, 250])
def test_a_cycle_is_found_under_noise_and_a_trend(length: int) -> None:
    draw = np.random.default_rng(length)
    for _ in range(10):
        values = cycles(draw, length) + 0.5 * draw.standard_normal(N).astype(np.float32) + np.arange(N) * 0.002
        found = period(values.astype(np.float32))
        assert found is not None
        assert abs(found - length) <= max(1, 0.05 * length)


def test_short_irregular_peaks_have_a_period() -> None:
    draw = np.random.default_rng(3)
    found = [period(heart(draw, 90, 3)) for _ in range(10)]
    assert sum(each is not None and abs(each - 90) <= 4 for each in found) >= 9


def test_gaps_and_a_wild_reading_hide_no_cycle() -> None:
    draw = np.random.default_rng(4)
    values = cycles(draw, 100)
    values[draw.random(N) < 0.3] = np.nan
    values[1000:1100] = np.nan
    values[17] = 1e12
    found = period(values)
    assert found is not None
    assert abs(found - 100) <= 5


def test_autocorrelation_leaves_gaps_out() -> None:
    draw = np.random.default_rng(5)
    values = walk(draw, 0.8, 400)
    values[draw.random(400) < 0.2] = np.nan
    known = np.isfinite(values)
    rows = np.arange(400)
    x = np.where(known, values, 0.0)
    x[known] -= np.polyval(np.polyfit(rows[known], x[known].astype(np.float64), 1), rows[known])
    for lag in (0, 1, 7, 50):
        both = known[: 400 - lag] & known[lag:]
        one, other = x[: 400 - lag][both], x[lag:][both]
        expected = (one * other).sum() / np.sqrt((one**2).sum() * (other**2).sum())
        assert autocorrelation(values, 60)[lag] == pytest.approx(expected, abs=1e-4)


def test_a_long_cycle_is_the_length() -> None:
    draw = np.random.default_rng(6)
    values = np.stack([cycles(draw, DAY) + 0.3 * draw.standard_normal(N) for _ in range(4)], axis=1)
    found = suggested_length(values.astype(np.float32), 600.0)
    # The peak is some cells beside it. At ten minutes a day is 144 cells.
    assert (found.cells, found.period) == (DAY, DAY)
    assert found.reason == "one cycle of the sensors (144 cells, 1d)"


def test_a_short_cycle_keeps_the_default() -> None:
    found = suggested_length(cycles(np.random.default_rng(7), 24)[:, None], 3600.0)
    assert (found.cells, found.period) == (DEFAULT_LENGTH, 24)
    assert "24 cells, 1d" in found.reason


def test_a_longer_cycle_keeps_the_default() -> None:
    values = cycles(np.random.default_rng(8), 288, 20 * 288)[:, None]
    assert suggested_length(values, 300.0) == (DEFAULT_LENGTH, None, f"no cycle of up to {LONGEST} cells was found")
    assert suggested_length(values, 300.0, longest=320).cells == 288


def test_one_of_many_sensors_decides_nothing() -> None:
    draw = np.random.default_rng(9)
    noise = [draw.standard_normal(N) for _ in range(4)]
    constant = np.ones(N)
    values = np.stack([cycles(draw, DAY), *noise], axis=1).astype(np.float32)
    assert suggested_length(values, 600.0).period is None
    # Sensors that never move have no say.
    values = np.stack([cycles(draw, DAY), noise[0], constant, constant], axis=1).astype(np.float32)
    assert suggested_length(values, 600.0).period == DAY


@pytest.mark.parametrize("n", [0, 1, 5, 100])
def test_few_readings_have_no_period(n: int) -> None:
    assert suggested_length(np.full((n, 3), np.nan, np.float32), 1.0).cells == DEFAULT_LENGTH
    assert suggested_length(np.zeros((n, 3), np.float32), 1.0).cells == DEFAULT_LENGTH
    assert suggested_length(cycles(np.random.default_rng(1), 10, n)[:, None], 1.0).cells == DEFAULT_LENGTH


@pytest.mark.parametrize("stride", [1, 4, 32, 50])
def test_cycles_that_fit_two_windows_are_periodic(stride: int) -> None:
    """Overlapping windows of one asset. At stride 50 some cells lie between them."""
    draw = np.random.default_rng(stride)
    values = np.stack([cycles(draw, 20), cycles(draw, 50), cycles(draw, 150), walk(draw, 1.0), walk(draw, 0.9)], 1)
    x = np.lib.stride_tricks.sliding_window_view(values, 32, axis=0)[::stride]
    found = periodic_sensors(x)
    assert found[2:].tolist() == [False] * 3
    if stride <= 32:
        assert found[:2].tolist() == [True, True]


def test_one_window_has_no_periodic_sensor() -> None:
    assert periodic_sensors(np.zeros((1, 2, 16), np.float32)).tolist() == [False, False]


def test_most_assets_decide_for_a_fleet() -> None:
    draw = np.random.default_rng(10)
    cyclic = [cycles(draw, length)[:, None] for length in (88, 90, 92)]
    noise = [draw.standard_normal((N, 1)).astype(np.float32) for _ in range(4)]
    assert length_for_assets([*cyclic, *noise[:2]], 1.0).cells == 90
    assert length_for_assets([*cyclic, *noise], 1.0) == (DEFAULT_LENGTH, None, NO_CYCLE)
    assert length_for_assets([], 1.0) == (DEFAULT_LENGTH, None, NO_CYCLE)


def test_the_present_length_is_kept() -> None:
    draw = np.random.default_rng(11)
    cycle, noise = cycles(draw, 100)[:, None], draw.standard_normal((N, 1)).astype(np.float32)
    assert length_for_assets([noise], 1.0, 144).cells == 144
    assert length_for_assets([cycle], 1.0, 95).cells == 95
    assert length_for_assets([cycle], 1.0, 144).cells == 100
    assert length_for_assets([cycle], 1.0, DEFAULT_LENGTH).cells == 100
