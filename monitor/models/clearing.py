"""The fewest sensors that, replaced by expected values, bring an anomalous window below the threshold.

Input: anomalous windows [N, T, C]. Output: for each, the columns of such sensors. Invariant: at most `MAX_SENSORS` of
the `MAX_CANDIDATES` with the largest shares, so the work for a window has a bound.

A replaced sensor has the values that the model reconstructs from the others, and so no error: it is scored as if it was
missing. One sensor is tried first, then greedily one more, and where that leads to three or more, each pair.
"""

from __future__ import annotations

from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from monitor.types import Float32, Int64

    Trial = tuple[int, tuple[int, ...]]
    """A window, and the sensors to replace."""

MAX_CANDIDATES = 12
MAX_SENSORS = 5
AT_ONCE = 256
"""Windows scored together."""


def clearing_sets(
    score: Callable[[Float32, Int64], Float32], values: Float32, share: Float32
) -> list[tuple[int, ...]]:
    """Return the columns of the sensors to replace in each window [N, T, C], empty where none are found.

    `score`: scores of copies of windows, 1.0 = threshold, with any number of sensors missing, and the number of the
    window that each is of. `share`: [N, C].
    """
    n, n_sensors = share.shape
    order = np.argsort(-share, axis=1, kind="stable")[:, :MAX_CANDIDATES]
    candidates = [[c for c in order[row].tolist() if share[row, c] > 0] for row in range(n)]
    found: dict[int, tuple[int, ...]] = {}
    chosen: dict[int, tuple[int, ...]] = dict.fromkeys(range(n), ())
    for _ in range(min(MAX_SENSORS, n_sensors)):
        trials = [(row, (*chosen[row], c)) for row in chosen for c in candidates[row] if c not in chosen[row]]
        best = _lowest(trials, _scores(score, values, trials))
        found |= {row: sensors for row, (sensors, lowest) in best.items() if lowest < 1.0}
        chosen = {row: sensors for row, (sensors, lowest) in best.items() if lowest >= 1.0}
    rows = [row for row, sensors in found.items() if len(sensors) > 2]
    pairs = [(row, pair) for row in rows for pair in combinations(candidates[row], 2)]
    best = _lowest(pairs, _scores(score, values, pairs))
    found |= {row: sensors for row, (sensors, lowest) in best.items() if lowest < 1.0}
    return [found.get(row, ()) for row in range(n)]


def _lowest(trials: Sequence[Trial], scores: Float32) -> dict[int, tuple[tuple[int, ...], float]]:
    """Return the trial with the lowest score of each window, and its score. NaN counts as infinite."""
    best: dict[int, tuple[tuple[int, ...], float]] = {}
    for (row, sensors), value in zip(trials, scores.tolist(), strict=True):
        known = np.inf if np.isnan(value) else value
        if row not in best or known < best[row][1]:
            best[row] = (sensors, known)
    return best


def _scores(score: Callable[[Float32, Int64], Float32], values: Float32, trials: Sequence[Trial]) -> Float32:
    """Score each trial: its window without its sensors."""
    parts = [np.empty(0, np.float32)]
    for first in range(0, len(trials), AT_ONCE):
        some = trials[first : first + AT_ONCE]
        rows = np.array([row for row, _ in some], dtype=np.int64)
        without = values[rows]   # a copy
        for number, (_, sensors) in enumerate(some):
            without[number][:, list(sensors)] = np.nan
        parts.append(score(without, rows))
    return np.concatenate(parts)
