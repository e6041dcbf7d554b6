"""Simulated healthy machines of ten kinds, drawn at random, and faults to inject into them.

Input: a kind and a seed. Output: readings [n, C] of one machine. Invariant: pure and seeded. Each seed draws the number
of sensors (3 to 6), their couplings, noise, memory, units and all sizes of the kind from wide ranges, none of which was
chosen by a result. One row is ten minutes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from monitor.lifecycle import injection
from monitor.lifecycle.injection import Fault, Sensors

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from monitor.types import Float32

    Draw = np.random.Generator
    Float64 = NDArray[np.float64]

DAY, WEEK = 144, 1008
"""Rows."""
FAULTS = ("bias", "stuck", "broken", "ramp")
SIZES = {"bias": 2.0, "ramp": 4.0}
"""A bias of two spreads, the last value held, values of the sensor from another time, a ramp to four spreads in a
day."""


def machine(kind: str, seed: int, n_rows: int, n_sensors: int | None = None) -> Float32:
    """Return healthy readings [n_rows, C] of one machine. `n_sensors`: None = drawn, 3 to 6."""
    draw = np.random.default_rng([seed, sum(map(ord, kind))])
    drawn = int(draw.integers(3, 7))
    readings = _GENERATORS[kind](draw, n_rows, n_sensors or drawn)
    unit = 10 ** draw.uniform(-2, 3, readings.shape[1]) if kind not in ("counters", "quantised") else 1.0
    return (readings * unit).astype(np.float32)


def inject(readings: Float32, kind: str, begin: int, sensor: int, spread: float, draw: Draw) -> None:
    """Apply a fault to one sensor from a row on, in place. `spread`: its healthy standard deviation."""
    n_sensors = readings.shape[1]
    facts = Sensors(("",) * n_sensors, np.full(n_sensors, spread), ("plain",) * n_sensors, np.zeros(n_sensors))
    fault = Fault(kind, sensor, begin, draw.choice((-1.0, 1.0)) * SIZES.get(kind, 0.0), grows_in=DAY)
    readings[begin:, sensor] = injection.inject(readings, fault, facts, draw)[begin:, sensor]


# ---------------------------------------------------------------- parts


def _recursive(shocks: Float64, memory: Float64 | float) -> Float64:
    """Return first-order autoregressions of shocks [n, C], with their variance."""
    out = shocks * np.sqrt(1 - np.square(memory))
    out[0] = shocks[0]
    for row in range(1, len(out)):
        out[row] += memory * out[row - 1]
    return out


def _coupled(common: Float64, draw: Draw, n_sensors: int) -> Float64:
    """Return sensors [n, C] that follow common signals [n, K], each with noise of its own."""
    n, n_common = common.shape
    weight = draw.uniform(0.4, 1.5, (n_common, n_sensors)) * draw.choice((-1, 1), (n_common, n_sensors))
    memory = draw.uniform(0.0, 0.9, n_sensors)
    own = _recursive(draw.standard_normal((n, n_sensors)), memory) * draw.uniform(0.1, 0.5, n_sensors)
    return common @ weight + own + draw.uniform(-3, 3, n_sensors)


def _season(draw: Draw, n: int, n_common: int) -> Float64:
    """Return signals [n, K] with a day, its harmonics, and another level and size at weekends."""
    row = np.arange(n)[:, None]
    turn = 2 * np.pi * (row / DAY + draw.uniform(0, 1, n_common))
    harmonics = draw.uniform(0, 0.5, (2, n_common))
    day = np.sin(turn) + harmonics[0] * np.sin(2 * turn + 1) + harmonics[1] * np.sin(3 * turn + 2)
    weekend = (row // DAY + draw.integers(7)) % 7 >= 5
    day *= np.where(weekend, draw.uniform(0.4, 1.0), 1.0)
    return day * draw.uniform(0.7, 2, n_common) - weekend * draw.uniform(0, 1.0, n_common)


def _durations(draw: Draw, n: int, means: Float64) -> NDArray[np.int64]:
    """Return the state [n] of a machine that goes from state to state, each for a random time with its own mean."""
    states, lengths = [], []
    state = 0
    while sum(lengths) < n:
        length = 1 + draw.gamma(3.0, means[state] / 3.0)
        states.append(state)
        lengths.append(int(np.ceil(length)))
        state = (state + 1 + int(draw.integers(len(means) - 1))) % len(means) if len(means) > 1 else state
    return np.repeat(np.array(states), np.array(lengths))[:n].astype(np.int64)


def _smoothed(values: Float64, share: float) -> Float64:
    """Return values [n, C] that follow the given ones by a share of the difference in each row."""
    out = values.copy()
    for row in range(1, len(out)):
        out[row] = out[row - 1] + share * (values[row] - out[row - 1])
    return out


def _common(draw: Draw, n: int) -> Float64:
    n_common = int(draw.integers(1, 3))
    return _recursive(draw.standard_normal((n, n_common)), draw.uniform(0.7, 0.98, n_common))


# ---------------------------------------------------------------- kinds


def _autoregressive(draw: Draw, n: int, n_sensors: int) -> Float64:
    return _coupled(_common(draw, n), draw, n_sensors)


def _regimes(draw: Draw, n: int, n_sensors: int) -> Float64:
    """Two to four operating points, each for hours to days."""
    n_states = int(draw.integers(2, 5))
    state = _durations(draw, n, draw.uniform(0.2, 1.5, n_states) * DAY)
    level = _smoothed(draw.normal(0, 1.5, (n_states, n_sensors))[state], draw.uniform(0.2, 1.0))
    return level + 0.5 * _coupled(_common(draw, n), draw, n_sensors)


def _seasonal(draw: Draw, n: int, n_sensors: int) -> Float64:
    season = _season(draw, n, int(draw.integers(1, 3)))
    return _coupled(season + draw.uniform(0.1, 0.4) * _recursive(draw.standard_normal(season.shape), 0.95),
                    draw, n_sensors)  # fmt: skip


def _seasonal_drift(draw: Draw, n: int, n_sensors: int) -> Float64:
    """A season, of which level and size wander: by about a fifth to a half of a spread in a month."""
    readings = _seasonal(draw, n, n_sensors)
    spread, mean = readings[: 4 * WEEK].std(0), readings[: 4 * WEEK].mean(0)
    month = np.arange(n)[:, None] / (4 * WEEK)
    trend = draw.uniform(0.1, 0.4, n_sensors) * draw.choice((-1, 1), n_sensors) * month
    walk = np.cumsum(draw.standard_normal((n, n_sensors)), 0) * draw.uniform(0.05, 0.2) / np.sqrt(4 * WEEK)
    size = 1 + draw.uniform(0.0, 0.1) * month
    return mean + size * (readings - mean) + spread * (trend + walk)


def _t3_tails(draw: Draw, n: int, n_sensors: int) -> Float64:
    """Shocks with three degrees of freedom, common and of single sensors."""
    memory = draw.uniform(0.3, 0.9, n_sensors)
    common = _recursive(draw.standard_t(3, (n, 1)) / np.sqrt(3), draw.uniform(0.5, 0.95))
    own = _recursive(draw.standard_t(3, (n, n_sensors)) / np.sqrt(3), memory) * draw.uniform(0.2, 0.6, n_sensors)
    return common * draw.uniform(0.4, 1.5, n_sensors) * draw.choice((-1, 1), n_sensors) + own


def _counters(draw: Draw, n: int, n_sensors: int) -> Float64:
    """Counts that only grow, by a rate that depends on the load, beside measured values."""
    season = 0.3 * draw.choice((0, 1)) * _season(draw, n, 1)
    load = np.exp(season + 0.2 * _recursive(draw.standard_normal((n, 1)), 0.95))
    n_counters = int(draw.integers(1, n_sensors))
    counts = draw.poisson(load * draw.uniform(5, 50, n_counters)).cumsum(0).astype(np.float64)
    rest = _coupled((load - load.mean()) / load.std(), draw, n_sensors - n_counters)
    return np.concatenate([counts, rest], 1)


def _growing_level(draw: Draw, n: int, n_sensors: int) -> Float64:
    """Level and noise grow together, by 5 to 20 % in a month."""
    growth = (1 + draw.uniform(0.05, 0.2)) ** (np.arange(n)[:, None] / (4 * WEEK))
    noise = _coupled(_common(draw, n), draw, n_sensors)
    relative = draw.uniform(0.05, 0.3, n_sensors)
    return draw.uniform(2, 20, n_sensors) * growth * np.exp(relative * (noise - noise.mean(0)))


def _duty_cycles(draw: Draw, n: int, n_sensors: int) -> Float64:
    """Cycles of one to eight hours, each a little longer or shorter, that the sensors follow at their own speed."""
    period, share = draw.uniform(6, 48), draw.uniform(0.3, 0.7)
    lengths = np.maximum(3, np.round(period * draw.normal(1, draw.uniform(0.02, 0.15), int(2 * n / period) + n // 3)))
    lengths = lengths[: int(np.searchsorted(lengths.cumsum(), n)) + 1].astype(np.int64)
    into = np.arange(lengths.sum()) - np.repeat(lengths.cumsum() - lengths, lengths)
    on = (into < share * np.repeat(lengths, lengths))[:n].astype(np.float64)[:, None]
    speeds = draw.uniform(0.2, 1.0, n_sensors)
    follow = np.concatenate([_smoothed(on, speed) for speed in speeds], 1)
    noise = _coupled(_common(draw, n), draw, n_sensors) * draw.uniform(0.05, 0.2)
    return follow * draw.uniform(1, 3, n_sensors) * draw.choice((-1, 1), n_sensors) + noise


def _on_off(draw: Draw, n: int, n_sensors: int) -> Float64:
    """Runs of hours and pauses of hours, in which nearly all sensors are at rest. At some machines no pause at all."""
    state = _durations(draw, n, np.array([draw.uniform(0.2, 1.5), draw.uniform(0.1, 0.7)]) * DAY)
    on = _smoothed((state == 0).astype(np.float64)[:, None], draw.uniform(0.3, 1.0))
    running = _coupled(_common(draw, n), draw, n_sensors) + draw.uniform(3, 6, n_sensors)
    rest = draw.normal(0, 0.02, (n, n_sensors))
    always = draw.random(n_sensors) < 0.2
    return np.where(always, running, on * running + rest)


def _quantised(draw: Draw, n: int, n_sensors: int) -> Float64:
    """Coarse readings: two to twenty steps in a spread."""
    base = _seasonal(draw, n, n_sensors) if draw.random() < 0.5 else _autoregressive(draw, n, n_sensors)
    step = base.std(0) / draw.uniform(2, 20, n_sensors)
    unit = draw.choice((0.1, 0.5, 1.0, 5.0), n_sensors)
    return np.round(base / step) * unit


_GENERATORS: dict[str, Callable[[Draw, int, int], Float64]] = {
    "autoregressive": _autoregressive,
    "regimes": _regimes,
    "seasonal": _seasonal,
    "seasonal with drift": _seasonal_drift,
    "t3 tails": _t3_tails,
    "counters": _counters,
    "growing level": _growing_level,
    "duty cycles": _duty_cycles,
    "on/off": _on_off,
    "quantised": _quantised,
}
KINDS = tuple(_GENERATORS)
