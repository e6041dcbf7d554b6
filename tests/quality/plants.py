"""Simulated recordings with one event each, by kind of fault. Each is drawn at random from a family by its seed.

    odd_cycle        a long repeating signal of one to three sensors, in which one cycle is odd
    coupled_plant    tanks, pumps and valves with level control, 8 to 20 sensors: a leak, a sticking valve, a worn pump
    no_longer_fits   one sensor leaves its relation to the others and stays within its own range
    slow_drift       one sensor or two drift over a week and more
    lost_rhythm      a duty cycle skips cycles, runs too short, or becomes irregular

Input: a kind and a seed. Output: a `Plant`. Invariants: the training rows are healthy, the load changes in the healthy
time as well as in the event, and no reading is missing. Strengths are drawn from ranges in physical or relative units
and were chosen before any detector was run on them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    Float64 = NDArray[np.float64]
    Rng = np.random.Generator

INTERVAL_S = 600.0
DAY, WEEK = 144, 1008
TRAIN, TEST = 4 * WEEK, 3 * WEEK
"""Rows of all kinds but `odd_cycle`, which counts cycles."""


@dataclass(frozen=True)
class Plant:
    """A recording of one machine. N rows of C sensors."""

    kind: str
    fault: str
    """The fault within the kind."""
    values: NDArray[np.float32]
    """[N, C]"""
    label: NDArray[np.int8]
    """[N], 1 = the event."""
    train_rows: int
    interval_s: float = INTERVAL_S

    @property
    def sensors(self) -> tuple[str, ...]:
        return tuple(f"s{number}" for number in range(self.values.shape[1]))


def plant(kind: str, seed: int) -> Plant:
    """Draw one recording of a kind."""
    draw = np.random.default_rng([list(KINDS).index(kind), seed])
    fault, values, (first, end), train_rows = KINDS[kind](draw)
    label = np.zeros(len(values), np.int8)
    label[first:end] = 1
    units = 10 ** draw.uniform(-1, 3, values.shape[1])
    offset = draw.uniform(-3, 3, values.shape[1])
    return Plant(kind, fault, ((values + offset) * units).astype(np.float32), label, train_rows)


# ---------------------------------------------------------------- parts


def ar1(draw: Rng, n: int, memory: float, n_signals: int | None = None) -> Float64:
    """Return autoregressive noise [n] or [n, n_signals] of variance 1."""
    shape = (n,) if n_signals is None else (n, n_signals)
    out = draw.standard_normal(shape)
    out[1:] *= math.sqrt(1 - memory**2)
    for row in range(1, n):
        out[row] += memory * out[row - 1]
    return out


def load(draw: Rng, n: int) -> Float64:
    """Return a healthy load [n] of mean about 0 and spread about 1: a day, a week, levels that change, noise."""
    rows = np.arange(n)
    day = draw.uniform(0.3, 1.0) * np.sin(2 * np.pi * rows / DAY + draw.uniform(0, 2 * np.pi))
    day += draw.uniform(0, 0.3) * np.sin(4 * np.pi * rows / DAY + draw.uniform(0, 2 * np.pi))
    weekend = -draw.uniform(0, 0.8) * (rows // DAY % 7 >= 5)
    changes = np.cumsum(draw.exponential(draw.uniform(0.7, 2.5) * DAY, n // DAY + 20)).astype(int)
    levels = draw.choice(draw.uniform(-1, 1, 4), len(changes) + 1)
    steps = levels[np.searchsorted(changes, rows, side="right")] + weekend
    ramp = int(draw.integers(3, 18))
    steps = np.convolve(np.concatenate((np.full(ramp - 1, steps[0]), steps)), np.full(ramp, 1 / ramp), "valid")
    total: Float64 = day + steps + draw.uniform(0.05, 0.25) * ar1(draw, n, 0.97)
    return (total - total.mean()) / total.std()


def ramp(n: int, rise: int) -> Float64:
    """Return [n], from 0 to 1 within `rise` rows and 1 from then on."""
    return np.minimum(np.arange(1, n + 1) / max(1, rise), 1.0)


def span(draw: Rng, days: tuple[float, float]) -> tuple[int, int]:
    """Draw the rows [first, end) of an event within the test rows, at least two days from both ends."""
    n = int(draw.uniform(*days) * DAY)
    first = TRAIN + int(draw.integers(2 * DAY, TEST - n - 2 * DAY))
    return first, first + n


def related(draw: Rng, n: int, n_sensors: int) -> Float64:
    """Return healthy sensors [n, n_sensors] that follow two or three common causes, each with noise of its own."""
    causes = np.stack([load(draw, n) for _ in range(draw.integers(2, 4))], axis=1)
    gains = draw.normal(0, 1, (causes.shape[1], n_sensors))
    gains[0] += np.where(draw.random(n_sensors) < 0.5, -1, 1) * draw.uniform(0.5, 1.5, n_sensors)
    common = causes @ gains
    common /= common.std(axis=0)
    bend = draw.uniform(0, 0.4, n_sensors)
    curved = (1 - bend) * common + bend * np.tanh(common)
    slow = draw.random(n_sensors) < 0.4  # these follow the causes late, as a temperature does
    for sensor in np.flatnonzero(slow):
        curved[:, sensor] = low_pass(curved[:, sensor], draw.uniform(2, 12))
    own = ar1(draw, n, float(draw.uniform(0.3, 0.9)), n_sensors) * draw.uniform(0.05, 0.25, n_sensors)
    return curved + own


def low_pass(x: Float64, rows: float) -> Float64:
    """Return x [n] as a first-order lag follows it."""
    out, share = np.empty_like(x), 1 / (1 + rows)
    state = x[0]
    for row, value in enumerate(x.tolist()):
        state += share * (value - state)
        out[row] = state
    return out


# ---------------------------------------------------------------- kinds

Drawn = tuple[str, "Float64", tuple[int, int], int]
"""Fault, values [N, C], rows [first, end) of the event, training rows."""


def odd_cycle(draw: Rng) -> Drawn:
    n_sensors, period = int(draw.integers(1, 4)), math.exp(draw.uniform(math.log(40), math.log(220)))
    n_train, n_test = int(draw.integers(60, 90)), int(draw.integers(30, 50))
    n_cycles = n_train + n_test
    odd = n_train + int(draw.integers(5, n_test - 5))
    walk = ar1(draw, n_cycles, 0.9)
    lengths = period * (1 + draw.uniform(0.005, 0.03) * draw.standard_normal(n_cycles) + draw.uniform(0, 0.03) * walk)
    lengths = np.maximum(np.rint(lengths), 8).astype(int)
    heights = 1 + draw.uniform(0.01, 0.04) * draw.standard_normal(n_cycles) + draw.uniform(0, 0.06) * walk
    shapes = [cycle_shape(draw) for _ in range(n_sensors)]
    fault = str(draw.choice(("scaled", "flattened", "reversed", "warped", "missing", "added")))
    at, width = draw.uniform(0.2, 0.8), draw.uniform(0.08, 0.2)
    changed = int(draw.integers(n_sensors))
    parts = []
    for cycle, (n_rows, height) in enumerate(zip(lengths, heights, strict=True)):
        phase = (np.arange(n_rows) + 0.5) / n_rows
        rows = np.stack([shape(phase) for shape in shapes], axis=1)
        if cycle == odd:
            rows[:, changed] = make_odd(draw, fault, shapes[changed], phase, at, width)
        parts.append(height * rows)
    values = np.concatenate(parts)
    n = len(values)
    values += draw.uniform(0.01, 0.05, n_sensors) * ar1(draw, n, float(draw.uniform(0, 0.7)), n_sensors)
    values += draw.uniform(0, 0.15, n_sensors) * ar1(draw, n, 1 - 1 / (10 * period), n_sensors)  # a wandering base line
    ends = np.cumsum(lengths)
    return fault, values, (int(ends[odd - 1]), int(ends[odd])), int(ends[n_train - 1])


def cycle_shape(draw: Rng) -> Callable[[Float64], Float64]:
    """Draw a smooth cycle of spread 1 over the phase [0, 1): harmonics, pulses, or a stroke with flat ends."""
    kind = draw.integers(3)
    if kind == 0:
        orders = np.arange(1, draw.integers(3, 8))
        size = draw.normal(0, 1, len(orders)) / orders
        turn = draw.uniform(0, 2 * np.pi, len(orders))

        def raw(phase: Float64) -> Float64:
            return (size * np.sin(2 * np.pi * orders * phase[:, None] + turn)).sum(1)
    elif kind == 1:
        centres, widths = draw.uniform(0.1, 0.9, 4), draw.uniform(0.02, 0.1, 4)
        tops = draw.uniform(0.3, 1.5, 4) * np.where(draw.random(4) < 0.3, -1, 1)

        def raw(phase: Float64) -> Float64:
            return (tops * np.exp(-0.5 * ((phase[:, None] - centres) / widths) ** 2)).sum(1)
    else:
        edges, steep = np.sort(draw.uniform(0.1, 0.9, 4)), draw.uniform(20, 80)
        jumps = np.array([1.0, draw.uniform(0.2, 1.0), -draw.uniform(0.2, 1.0), 0.0])
        jumps[3] = -jumps.sum()

        def raw(phase: Float64) -> Float64:
            return (jumps / (1 + np.exp(-steep * (phase[:, None] - edges)))).sum(1)

    grid = raw((np.arange(500) + 0.5) / 500)
    mean, spread = grid.mean(), max(grid.std(), 1e-6)
    return lambda phase: (raw(phase) - mean) / spread


def make_odd(
    draw: Rng, fault: str, shape: Callable[[Float64], Float64], phase: Float64, at: float, width: float
) -> Float64:
    """Return the odd cycle of one sensor. `at`, `width`: place of a local change in the cycle."""
    healthy = shape(phase)
    here = np.exp(-0.5 * ((phase - at) / width) ** 2)
    if fault == "scaled":  # a part is too small or too large
        return healthy * (1 + here * draw.choice((-1, 1)) * draw.uniform(0.3, 0.7))
    if fault == "flattened":  # cut at a height that usual cycles pass
        low, high = np.quantile(healthy, (draw.uniform(0.1, 0.3), draw.uniform(0.7, 0.9)))
        return np.clip(healthy, low, high)
    if fault == "reversed":
        return healthy[::-1]
    if fault == "warped":  # the first half takes longer
        return shape(phase ** math.exp(draw.choice((-1, 1)) * draw.uniform(0.3, 0.7)))
    if fault == "missing":  # a part is bridged
        inside = np.abs(phase - at) < 1.3 * width
        bridged = healthy.copy()
        bridged[inside] = np.interp(phase[inside], phase[~inside], healthy[~inside])
        return bridged
    return healthy + here * draw.choice((-1, 1)) * draw.uniform(0.5, 1.2)


SUBSTEPS = 5
"""Steps of the simulated plant in one row, so two minutes each."""


def coupled_plant(draw: Rng) -> Drawn:
    """Tanks in a row. A pump and a control valve behind each one keep its level."""
    n, n_tanks = TRAIN + TEST, int(draw.integers(2, 5))
    first, end = span(draw, (1.5, 5))
    fault, where = str(draw.choice(("leak", "sticking valve", "worn pump"))), int(draw.integers(n_tanks))
    strength = np.zeros(n)
    size = {"leak": draw.uniform(0.03, 0.1), "sticking valve": draw.uniform(0.06, 0.2),
            "worn pump": draw.uniform(0.1, 0.3)}[fault]  # fmt: skip
    strength[first:end] = size * ramp(end - first, int(draw.uniform(0.05, 0.5) * (end - first)))

    feed = np.clip(1 + draw.uniform(0.12, 0.22) * load(draw, n), 0.4, 1.6)
    feed_now = np.repeat(feed, SUBSTEPS) + 0.01 * ar1(draw, n * SUBSTEPS, 0.8)
    pump_speed = np.clip(1 + 0.1 * load(draw, n), 0.7, 1.3) if draw.random() < 0.5 else np.ones(n)
    ambient = load(draw, n)
    area, setpoint = draw.uniform(30, 90, n_tanks), draw.uniform(0.8, 1.2, n_tanks)
    head0, friction = draw.uniform(2, 4, n_tanks), draw.uniform(0.2, 0.6, n_tanks)
    opening = draw.uniform(0.35, 0.55, n_tanks)  # of the valve at the usual flow
    cv = 1 / (opening * np.sqrt(np.maximum(head0 + setpoint - friction, 0.3)))
    gain, reset = draw.uniform(0.8, 2.0, n_tanks), draw.uniform(60, 200, n_tanks)
    speed2, worn = np.ones(n_tanks), np.zeros(n_tanks)

    level, position, summed = setpoint.copy(), opening.copy(), opening.copy()
    readings = np.empty((n, 5, n_tanks))  # level, flow, valve command, pressure, current
    for row in range(n):
        lost = np.zeros(n_tanks)
        speed2[:] = pump_speed[row] ** 2
        if fault == "leak":
            lost[where] = strength[row]
        elif fault == "worn pump":
            worn[where] = strength[row]
        total = 0.0
        for step in range(SUBSTEPS):
            error = level - setpoint
            summed = np.clip(summed + gain * error / reset, 0, 1)
            command = np.clip(gain * error + summed, 0, 1)
            moves = np.abs(command - position) > (
                np.where(np.arange(n_tanks) == where, strength[row], 0) if fault == "sticking valve" else 0
            )
            position = np.where(moves, command, position)
            lift = head0 * speed2 * (1 - worn)
            flow = cv * position * np.sqrt(np.maximum(lift + level, 0) / (1 + friction * (cv * position) ** 2))
            inflow = np.concatenate(([feed_now[row * SUBSTEPS + step]], flow[:-1]))
            level = np.maximum(level + (inflow - flow - lost) / area, 0)
            total = total + flow
        pressure = lift + level - friction * flow**2
        current = 0.3 + 0.5 * total / SUBSTEPS * np.maximum(pressure, 0) / head0 + 0.6 * worn
        readings[row] = level, total / SUBSTEPS, command, pressure, current
    noise = np.array([0.004, 0.012, 0.004, 0.02, 0.015])[None, :, None] * draw.uniform(0.5, 2, (1, 5, n_tanks))
    readings += noise * draw.standard_normal(readings.shape)
    kept = np.ones((5, n_tanks), bool)
    kept[3:] = draw.random((2, n_tanks)) < 0.7
    if kept.sum() < 8:
        kept[:] = True
    sensors = readings[:, kept]
    extra = [feed + 0.01 * draw.standard_normal(n), 0.2 * ambient + 0.02 * draw.standard_normal(n)]
    values = np.column_stack((sensors, *extra))[:, :20]
    return fault, values, (first, end), TRAIN


def no_longer_fits(draw: Rng) -> Drawn:
    n, n_sensors = TRAIN + TEST, int(draw.integers(4, 11))
    values = related(draw, n, n_sensors)
    first, end = span(draw, (2, 6))
    sensor = int(draw.integers(n_sensors))
    low, high = np.quantile(values[:TRAIN, sensor], (0.01, 0.99))
    fault = str(draw.choice(("own past", "weaker gain", "offset")))
    grown = ramp(end - first, int(draw.uniform(0.1, 1.0) * DAY))
    healthy = values[first:end, sensor]
    if fault == "own past":  # its own readings of some days ago, mixed in more and more
        back = int(draw.uniform(5, 20) * DAY)
        share = grown * draw.uniform(0.6, 1.0)
        faulty = (1 - share) * healthy + share * values[first - back : end - back, sensor]
    elif fault == "weaker gain":
        centre = float(np.median(values[:TRAIN, sensor]))
        faulty = centre + (healthy - centre) * (1 - grown * draw.uniform(0.5, 0.9))
    else:
        faulty = healthy + grown * draw.choice((-1, 1)) * draw.uniform(0.6, 1.4) * values[:TRAIN, sensor].std()
    values[first:end, sensor] = np.clip(faulty, min(low, healthy.min()), max(high, healthy.max()))
    return fault, values, (first, end), TRAIN


def slow_drift(draw: Rng) -> Drawn:
    n, n_sensors = TRAIN + TEST, int(draw.integers(3, 9))
    values = related(draw, n, n_sensors)
    first, end = span(draw, (5, 12))
    drifting = draw.choice(n_sensors, int(draw.integers(1, 3)), replace=False)
    fault = "one sensor" if len(drifting) == 1 else "two sensors"
    shape = ramp(end - first, end - first) ** draw.uniform(0.8, 2.0)
    for sensor in drifting:
        size = draw.choice((-1, 1)) * draw.uniform(1.2, 3.0) * values[:TRAIN, sensor].std()
        values[first:end, sensor] += size * shape
    return fault, values, (first, end), TRAIN


WARM_UP = WEEK
"""Rows before the first kept one, until the slow sensors forget their first state."""


def lost_rhythm(draw: Rng) -> Drawn:
    n = WARM_UP + TRAIN + TEST
    period, busy = draw.uniform(12, 50), load(draw, n)
    first, end = (WARM_UP + row for row in span(draw, (1, 4)))
    fault = str(draw.choice(("skipped cycles", "short cycles", "irregular cycles")))
    chance, spread = draw.uniform(0.3, 0.6), draw.uniform(0.35, 0.6)
    usual, more, jitter = draw.uniform(0.3, 0.55), draw.uniform(0.02, 0.08), draw.uniform(0.01, 0.04)
    on, row = np.zeros(n), 0
    while row < n:
        is_faulty = first <= row < end
        length = period * (1 - 0.06 * busy[row]) * (1 + jitter * draw.standard_normal())
        share = float(np.clip(usual + more * busy[row], 0.15, 0.85))
        runs = 1.0
        if is_faulty and fault == "skipped cycles":
            runs = float(draw.random() > chance)
        elif is_faulty and fault == "short cycles":
            length *= draw.uniform(0.3, 0.6)
        elif is_faulty and fault == "irregular cycles":
            length *= float(np.clip(1 + spread * draw.standard_normal(), 0.3, 2.2))
        n_rows = max(4, round(length))
        on[row : row + max(2, round(n_rows * share))] = runs
        row += n_rows
    strength = 1 + 0.08 * busy
    signals = [
        strength * on,                                                    # motor current
        low_pass(strength * on, draw.uniform(2, 8)),                      # pressure
        low_pass(on, draw.uniform(6, 25)) + 0.15 * busy,                  # temperature
        np.cumsum(on - low_pass(on, 3 * period)) * 0.1,                   # level of the vessel that it fills
        0.5 * busy + 0.2 * low_pass(on, 4.0),
    ]  # fmt: skip
    signals[3] -= low_pass(signals[3], 2 * period)
    kept = np.sort(np.append(draw.choice(np.arange(1, 5), int(draw.integers(1, 5)), replace=False), 0))
    values = np.stack([signals[number] for number in kept], axis=1)[WARM_UP:]
    values /= values.std(axis=0)
    values += draw.uniform(0.02, 0.08, len(kept)) * ar1(draw, len(values), 0.3, len(kept))
    return fault, values, (first - WARM_UP, end - WARM_UP), TRAIN


KINDS: dict[str, Callable[[Rng], Drawn]] = {
    "odd_cycle": odd_cycle,
    "coupled_plant": coupled_plant,
    "no_longer_fits": no_longer_fits,
    "slow_drift": slow_drift,
    "lost_rhythm": lost_rhythm,
}
