"""Simulated machines with operating states, and faults that happen in one of the states alone.

Input: a kind and a seed. Output: readings [n, C] and the state [n] of each row: 0 = at rest, the highest = running.
Invariant: as in `machines.py`: pure, seeded, one row is ten minutes, and all sizes are drawn from wide ranges, none of
which was chosen by a result.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from tests.quality.machines import DAY, WEEK, _common, _coupled, _smoothed

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from monitor.types import Float32

    Draw = np.random.Generator
    Float64 = NDArray[np.float64]
    States = NDArray[np.int64]

FAULTS = ("offset at rest", "bias running", "stuck running", "ramp running")
"""At rest: a fifth of the sensor's whole spread. Running: two spreads of the sensor while it runs, the last value held,
a ramp to four spreads in a day. Rows in other states stay healthy."""


class Machine(NamedTuple):
    """One machine and its states."""

    readings: Float32
    state: States


def duty_machine(kind: str, seed: int, n_rows: int) -> Machine:
    """Return healthy readings [n_rows, C] of one machine, and its state [n_rows]."""
    draw = np.random.default_rng([seed, sum(map(ord, kind))])
    n_sensors = int(draw.integers(3, 7))
    state, n_states = _STATES[kind](draw, n_rows)
    readings = _readings(draw, state, n_states, n_sensors)
    unit = 10 ** draw.uniform(-2, 3, n_sensors)
    return Machine((readings * unit).astype(np.float32), state)


def inject(machine: Machine, fault: str, begin: int, sensor: int, draw: Draw) -> Float32:
    """Return the readings with a fault in one sensor from a row on, in the rows of its state alone."""
    readings = machine.readings.copy()
    is_rest = fault == "offset at rest"
    wanted = machine.state == 0 if is_rest else machine.state == machine.state.max()
    rows = begin + np.flatnonzero(wanted[begin:])
    before = np.flatnonzero(wanted[:begin])
    spread = readings[:begin, sensor].std() / 5 if is_rest else readings[before, sensor].std()
    sign = draw.choice((-1.0, 1.0))
    match fault:
        case "offset at rest":
            readings[rows, sensor] += sign * spread
        case "bias running":
            readings[rows, sensor] += sign * 2 * spread
        case "stuck running":
            readings[rows, sensor] = readings[before[-1], sensor]
        case "ramp running":
            readings[rows, sensor] += sign * 4 * spread * np.minimum(1.0, (rows - begin) / DAY)
    return readings


def _readings(draw: Draw, state: States, n_states: int, n_sensors: int) -> Float64:
    """Return sensors that are nearly at rest in state 0, and vary the more the higher the state."""
    share = np.linspace(0, 1, n_states) ** draw.uniform(0.7, 1.5)
    speed = draw.uniform(0.3, 1.0)
    on = _smoothed(share[state][:, None], speed)
    running = _coupled(_common(draw, len(state)), draw, n_sensors) + draw.uniform(3, 6, n_sensors)
    rest = draw.normal(0, 0.02, (len(state), n_sensors))
    always = draw.random(n_sensors) < 0.2
    return np.where(always, running, on * running + rest)


def _alternating(draw: Draw, n: int, of_state: Callable[[int], float], next_state: Callable[[int], int]) -> States:
    states, lengths, state, total = [], [], 0, 0
    while total < n:
        length = max(1, int(np.ceil(of_state(state))))
        states.append(state)
        lengths.append(length)
        total += length
        state = next_state(state)
    return np.repeat(np.array(states), np.array(lengths))[:n].astype(np.int64)


def _on_off(draw: Draw, n: int) -> tuple[States, int]:
    """Runs of hours to days, and pauses of hours."""
    means = (draw.uniform(0.1, 0.7) * DAY, draw.uniform(0.2, 1.5) * DAY)
    return _alternating(draw, n, lambda s: 1 + draw.gamma(3.0, means[s] / 3), lambda s: 1 - s), 2


def _rare_starts(draw: Draw, n: int) -> tuple[States, int]:
    """A run of half a day to two days about once a week. At rest in between."""
    run = draw.uniform(0.5, 2.0) * DAY
    means = (WEEK - run, run)
    return _alternating(draw, n, lambda s: 1 + draw.gamma(20.0, means[s] / 20), lambda s: 1 - s), 2


def _irregular(draw: Draw, n: int) -> tuple[States, int]:
    """Runs and pauses from an hour to days, of a log-normal length."""
    means = (draw.uniform(0.15, 0.8) * DAY, draw.uniform(0.3, 1.5) * DAY)
    return _alternating(draw, n, lambda s: means[s] * draw.lognormal(-0.5, 1.0), lambda s: 1 - s), 2


def _three_levels(draw: Draw, n: int) -> tuple[States, int]:
    """At rest, idling and running, in any order."""
    means = draw.uniform(0.3, 1.2, 3) * DAY
    return _alternating(
        draw, n, lambda s: 1 + draw.gamma(3.0, means[s] / 3), lambda s: (s + 1 + int(draw.integers(2))) % 3
    ), 3


def _duty_cycles(draw: Draw, n: int) -> tuple[States, int]:
    """Cycles of one to eight hours, each a little longer or shorter."""
    period, share, vary = draw.uniform(6, 48), draw.uniform(0.3, 0.7), draw.uniform(0.02, 0.15)
    means = (period * (1 - share), period * share)
    return _alternating(draw, n, lambda s: means[s] * draw.normal(1, vary), lambda s: 1 - s), 2


_STATES: dict[str, Callable[[Draw, int], tuple[States, int]]] = {
    "on/off": _on_off,
    "rare starts": _rare_starts,
    "irregular": _irregular,
    "three levels": _three_levels,
    "duty cycles": _duty_cycles,
}
KINDS = tuple(_STATES)
