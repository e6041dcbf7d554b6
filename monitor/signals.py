"""Recognition of columns that are no plain measurements: values that mean "missing", counters, angles.

Input: healthy values of one sensor in order of time, [n], or a list of such stretches. NaN = missing.
Output: the missing-value codes (sentinels), the kind of counter, or the suspicion of an angle.
Invariant: pure NumPy, no label. When in doubt nothing is recognised, and the column stays a plain sensor.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from monitor.types import Bool

    Stretch = NDArray[np.floating[Any]]
    Values = Stretch | Sequence[Stretch]
    Float64 = NDArray[np.float64]

# ---------------------------------------------------------------- sentinels

NINES = frozenset(sign * float(10**n - 1) for n in range(3, 11) for sign in (-1, 1))
USUAL_SENTINELS = NINES | {
    *(-99.0, -99.9, -99.99, -127.0, -200.0, -273.15, 999.9, -999.9, 999.99, -999.99, 9999.9, -9999.9),
    *(32767.0, -32768.0, 65535.0, 2147483647.0, -2147483648.0, 4294967295.0),
    *(1e20, -1e20, 1e30, -1e30, 1e35, -1e35, 9.96920996838687e36, 3.4028234663852886e38, -3.4028234663852886e38),
}
"""Codes of data loggers, sensors and file formats. Not 0, -1, 99 and 99.9: those are measured as well."""
MIN_RECURRENCES, MIN_RUNS = 3, 2
"""Readings with the code, and separate times at which it begins."""
MAX_SENTINEL_SHARE = 0.5
MIN_OTHERS, MIN_DISTINCT = 30, 10
"""Other readings, and distinct values among them. With fewer the sensor has states, and a rare state is no code."""
USUAL_GAP = 0.5
"""Least distance of a usual code from the nearest other value, in spans of the other values. A reading of -200 among
20 to 380 is one."""
UNUSUAL_RUNS, UNUSUAL_GAP, UNUSUAL_FACTOR = 3, 2.0, 10.0
"""An unusual code has to begin at least three times. It is negative where nothing else is, and lies two spans from
everything else, or it is ten times as large as everything else. So a sensor that saturates (humidity at 100 %), or
stands at a small value while a machine is off, is not recognised, and 0 never is."""
MAX_SENTINELS = 4


def find_sentinels(values: Values) -> tuple[float, ...]:
    """Return the exact values that mean "missing", rising.

    Such a code recurs, is the smallest or largest value, and lies far from all others (see the constants). One extreme
    reading, or a real extreme that the others approach, is not a code.
    """
    rows = _stretches(values)
    found: list[float] = []
    while len(found) < MAX_SENTINELS and (code := _next_sentinel(rows)) is not None:
        found.append(code)
        rows = [np.where(row == code, np.nan, row) for row in rows]
    return tuple(sorted(found))


def is_far_outside(code: float, low: float, high: float) -> bool:
    """Return whether a code that another sensor has recognised lies far outside a sensor's range, too."""
    return max(low - code, code - high) >= USUAL_GAP * max(high - low, float(np.spacing(np.float32(abs(high)))))


def _next_sentinel(rows: Sequence[Float64]) -> float | None:
    seen = np.sort(_seen(rows))
    if len(seen) < MIN_OTHERS + MIN_RECURRENCES:
        return None
    for code in (float(seen[0]), float(seen[-1])):
        n = int(np.searchsorted(seen, code, "right") - np.searchsorted(seen, code, "left"))
        others = seen[n:] if code == seen[0] else seen[:-n]
        if not MIN_RECURRENCES <= n <= MAX_SENTINEL_SHARE * len(seen) or len(others) < MIN_OTHERS or code == 0:
            continue
        if len(np.unique(others[:: max(1, len(others) // 4096)])) < MIN_DISTINCT:
            continue
        low, high = float(others[0]), float(others[-1])
        gap, span = max(low - code, code - high), high - low
        n_runs = sum(_n_runs(row[np.isfinite(row)] == code) for row in rows)
        if any(np.isclose(code, usual, rtol=1e-6, atol=0) for usual in USUAL_SENTINELS):
            is_code = n_runs >= MIN_RUNS and gap >= USUAL_GAP * span
        else:
            is_alone = code < 0 <= low and gap >= UNUSUAL_GAP * span
            is_huge = abs(code) >= UNUSUAL_FACTOR * max(abs(low), abs(high)) and gap >= UNUSUAL_GAP * span
            is_code = n_runs >= UNUSUAL_RUNS and (is_alone or is_huge)
        if is_code:
            return code
    return None


def _n_runs(is_code: Bool) -> int:
    """Return the number of times that the code begins, after another value or with the stretch."""
    return int(np.count_nonzero(is_code[1:] & ~is_code[:-1])) + int(is_code[:1].any())


# ---------------------------------------------------------------- counters


@dataclass(frozen=True, slots=True)
class Counter:
    """A column that only counts, up (1) or down (-1), except where it begins again."""

    direction: int
    is_useless: bool
    """Its steps carry no information, for they are all alike: a row number, an uptime, a clock."""
    reason: str
    """The finding, for operators."""


MIN_STEPS, MIN_REAL_STEPS = 20, 100
"""Steps to the same side before a column of whole numbers, or of others, can be a counter. A random walk makes twenty
in a row once in a million. A room that warms up in the morning makes more."""
MAX_RESETS = 0.01
"""Share of the steps that may go the other way: resets, wraps and single wrong readings."""
CONSTANT_SHARE, CONSTANT_TOLERANCE = 0.95, 1e-3
"""Share of the steps that have to be alike, and their relative difference. Readings that miss a grid cell make some
steps twice as long."""
MAX_WHOLE = 1 << 23
"""Largest value of a row number: whole numbers above it may be rounded measurements, a pressure in Pa."""
CLOCKS = tuple((1e9 * unit, 2.2e9 * unit) for unit in (1.0, 1e3, 1e6, 1e9))
"""Times from 2001 to 2039 in s, ms, µs and ns since 1970. A float32 of one has no digit that changes in a minute."""
RESET_SHARE = 0.1
"""A step back is a reset if one of the two values is at most this share of the other: a counter begins again near 0. A
smaller step back is none: a meter that runs backwards is a fault, and so is a falling pressure that rose until then."""


def find_counter(values: Values) -> Counter | None:
    """Return the kind of counter that a column is, None = it is none.

    Steps are taken between neighbouring readings of one stretch. A gap between them does not matter.
    """
    rows = [row for row in _stretches(values) if len(row)]
    if not rows:
        return None
    steps, per_cell, level = _steps(rows)
    moves = steps[steps != 0]
    n_up = int(np.count_nonzero(moves > 0))
    direction = 1 if n_up >= len(moves) - n_up else -1
    n_with = n_up if direction == 1 else len(moves) - n_up
    if n_with < MIN_STEPS or len(moves) - n_with > MAX_RESETS * len(moves):
        return None
    way, usual = "up" if direction == 1 else "down", float(np.median(np.abs(moves)))
    middle, largest = float(np.median(level)), float(np.abs(level).max())
    if direction == 1 and any(low <= middle <= high for low, high in CLOCKS):
        return Counter(direction, True, "is a clock, the time since 1970")
    forward = steps * direction >= 0
    is_whole = largest < MAX_WHOLE and bool((level == np.round(level)).all())
    if not is_whole and (n_with < MIN_REAL_STEPS or direction == -1):
        return None  # a level or pressure that falls all the time: no meter counts down
    if is_whole and any(_are_alike(np.abs(each[forward])) for each in (steps, per_cell)):
        return Counter(direction, True, f"counts {way} by {usual:g} at each reading, like a row number or an uptime")
    return Counter(direction, False, f"counts {way}, by {usual:.3g} in a usual step")


def _steps(rows: Sequence[Float64]) -> tuple[Float64, Float64, Float64]:
    """Return the steps between neighbouring readings, the same per cell, and the values before the steps."""
    steps, cells, levels = [], [], []
    for row in rows:
        at = np.flatnonzero(np.isfinite(row))
        steps.append(np.diff(row[at]))
        cells.append(np.diff(at))
        levels.append(row[at[:-1]])
    step = np.concatenate(steps)
    return step, step / np.concatenate(cells), np.concatenate(levels)


def _are_alike(steps: Float64) -> bool:
    middle = float(np.median(steps))
    alike = np.abs(steps - middle) <= CONSTANT_TOLERANCE * middle
    return middle > 0 and float(alike.mean()) >= CONSTANT_SHARE


# ---------------------------------------------------------------- angles

EDGE_DEG = 15.0
"""An angle comes this near to 0° and to 360°."""
MIN_WRAPS = 3


def may_be_angle(values: Values) -> bool:
    """Return whether a column looks like an angle in degrees: within 0 to 360, with steps across north.

    It is a suspicion for people, not a fact: other columns look like this as well.
    """
    rows = _stretches(values)
    seen = _seen(rows)
    if len(seen) < MIN_OTHERS or seen.min() < 0 or not 360 - EDGE_DEG <= seen.max() <= 360 or seen.min() > EDGE_DEG:
        return False
    steps = np.abs(_steps(rows)[0])
    # A wrap is a step of nearly a full turn. Of random values a quarter are over half a turn, of an angle hardly any is
    # between a third and two thirds of it.
    n_wraps = int(np.count_nonzero(steps > 240))
    n_between = int(np.count_nonzero((steps > 120) & (steps <= 240)))
    return n_wraps >= MIN_WRAPS and n_wraps > n_between


def _stretches(values: Values) -> list[Float64]:
    rows = [values] if isinstance(values, np.ndarray) and values.ndim == 1 else values
    return [np.asarray(row, dtype=np.float64) for row in rows]


def _seen(rows: Sequence[Float64]) -> Float64:
    return np.concatenate([row[np.isfinite(row)] for row in rows]) if rows else np.empty(0)
