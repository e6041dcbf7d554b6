"""Simulated fleets of machines that differ in level, gain, couplings or nothing, and a fault in each machine.

Input: a seed and the difference. Output: readings of each asset, healthy in the first part, with one fault in the rest.
Invariant: pure and seeded. The same seed draws the same load and noise for every difference.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from tests.quality.machines import FAULTS, inject

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Float32 = NDArray[np.float32]

DAY = 144
"""Rows. One row is ten minutes."""
DIFFERENCES = ("identical", "levels", "gains", "both", "couplings")
"""`couplings`: each machine's sensors follow the common signals in ways of their own."""


class FleetAsset(NamedTuple):
    """One machine of a fleet."""

    healthy: Float32
    """[H, C], the history to train on."""
    test: Float32
    """[N, C], what comes after it."""
    label: NDArray[np.bool_]
    """[N], rows with the fault."""
    fault: str


def fleet(
    seed: int, differs: str, *, n_assets: int = 6, n_sensors: int = 4, n_healthy: int = 14 * DAY, n_test: int = 7 * DAY
) -> list[FleetAsset]:
    """Return the machines of a fleet. They share their couplings and follow a day's load, each with its own noise."""
    draw = np.random.default_rng([seed, 17])
    n = n_healthy + n_test
    weight = draw.uniform(0.4, 1.5, (3, n_sensors)) * draw.choice((-1, 1), (3, n_sensors))
    memory, noise = draw.uniform(0.0, 0.9, n_sensors), draw.uniform(0.15, 0.5, n_sensors)
    out = []
    for number in range(n_assets):
        own = np.random.default_rng([seed, 18, number])
        turn = 2 * np.pi * (np.arange(n) / DAY + own.uniform(0, 0.1))
        common = np.stack([np.sin(turn), _slow(own, n, 0.97), _slow(own, n, 0.9)], axis=1)
        shocks = np.stack([_slow(own, n, each) for each in memory], axis=1)
        if differs == "couplings":
            other = np.random.default_rng([seed, 19, number])
            weight = other.uniform(0.4, 1.5, (3, n_sensors)) * other.choice((-1, 1), (3, n_sensors))
        readings = common @ weight + shocks * noise
        level, gain = own.uniform(-8, 8, n_sensors), np.exp(own.uniform(-1, 1, n_sensors))
        readings *= gain if differs in ("gains", "both") else 1.0
        readings += level if differs in ("levels", "both") else 0.0
        begin, fault = n_healthy + int(own.integers(n_test // 4, n_test // 2)), FAULTS[number % len(FAULTS)]
        sensor = int(own.integers(n_sensors))
        stop = begin + int(own.integers(DAY // 2, DAY))
        faulty = readings[:stop].copy()
        inject(faulty, fault, begin, sensor, float(readings[:n_healthy, sensor].std()), own)
        readings[begin:stop] = faulty[begin:]
        label = np.zeros(n, dtype=bool)
        label[begin:stop] = True
        readings = readings.astype(np.float32)
        out.append(FleetAsset(readings[:n_healthy], readings[n_healthy:], label[n_healthy:], fault))
    return out


def _slow(draw: np.random.Generator, n: int, memory: float) -> NDArray[np.float64]:
    """Return a first-order autoregression [n] of variance 1."""
    shocks = draw.standard_normal(n)
    out = shocks * np.sqrt(1 - memory**2)
    out[0] = shocks[0]
    for row in range(1, n):
        out[row] += memory * out[row - 1]
    return out
