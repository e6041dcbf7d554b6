"""Healthy behaviour of each sensor as such: its range, constant runs, short-time noise, absences.

Input: windows [N, T, C] in the sensors' own units, NaN = missing. Output: a `SensorProfile` for each sensor, which the
card of a version keeps, and the measurements that the tests of `stream/sensor_health.py` compare with it.
Invariant: each measurement is a function of one window and one sensor. Training and tests use the same functions.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from monitor.models.inputs import ModelInputs
    from monitor.types import Bool, Float32, Int64

BLOCK = 8
"""Steps over which short-time noise is measured: few, so that a sensor that becomes noisy is found soon."""
WINDOWS_AT_ONCE = 256
"""Windows measured together. They fit the cache."""
MAX_RESTS = 4
"""Values at which a sensor rests, at most: the positions of a valve, the zero of a flow."""
MIN_REST_RUN, REST_SHARE = 16, 0.02
"""Least run at a value of rest, and least share of the windows with such a run."""
MIN_BETWEEN = 0.1
"""Least share of the readings at other values. A valve that is nearly always at one of its positions may get a new one.
"""
MAX_RUN_BETWEEN = 4
"""Longest run at all other values, at which it moves with nearly each reading. A coarse sensor has long runs at many
values, and so no value of rest."""
HELD_FACTOR = 1.5
"""Movement of another sensor, as a multiple of its largest beside a held one, that says that the held one is stuck."""
MIN_HELD = 100
"""Least number of windows in which the sensor was held, from which the largest movement beside it is learnt."""
MAX_RELATED = 6
"""Related sensors that the card keeps for each sensor."""


@dataclass(frozen=True, slots=True)
class SensorProfile:
    """The behaviour of one sensor in the healthy windows of a training."""

    low: float | None
    """Least value. None = the sensor never had one."""
    high: float | None
    """Greatest value."""
    longest_run: int
    """Largest number of equal readings in a row within a window, at other values than those of rest."""
    noise: float
    """Largest short-time noise of `BLOCK` steps. 0 = not known."""
    absent_share: float
    """Windows without a value of it, 0..1."""
    n_runs: int = 0
    """Changes from one reading to the next, about as many as runs. 0 = not known."""
    rests: tuple[float, ...] = ()
    """Values at which it rests, with runs far longer than elsewhere."""
    related: dict[str, float] = field(default_factory=dict)
    """Sensor → its largest movement (range of block means) while this one was held through two blocks or more."""


class Runs(NamedTuple):
    """The longest run of equal readings of each window and sensor."""

    length: Int64
    """[N, C], readings. Missing ones neither count nor end a run."""
    value: Float32
    """[N, C], the value that it holds. NaN = no reading."""


def longest_runs(values: Float32) -> Runs:
    """Measure the longest run of equal readings in windows [N, T, C]."""
    n, length, n_sensors = values.shape
    run = np.zeros((n, n_sensors), dtype=np.int64)
    longest, held = run.copy(), np.full((n, n_sensors), np.nan, dtype=np.float32)
    last = held.copy()
    for step in range(length):
        now = values[:, step]
        present = ~np.isnan(now)
        run = np.where(present, np.where(now == last, run + 1, 1), run)
        last = np.where(present, now, last)
        held = np.where(run > longest, last, held)
        longest = np.maximum(longest, run)
    return Runs(longest, held)


def second_differences(values: Float32) -> Float32:
    """Return the absolute second differences [N, T - 2, C]: large for noise, small for movements of a machine."""
    difference = values[:, 1:] - values[:, :-1]
    return np.abs(difference[:, 1:] - difference[:, :-1])


def block_noise(values: Float32) -> Float32:
    """Return the short-time noise [N, blocks, C] of windows: the median second difference of each `BLOCK` steps.

    The last block ends with the window. A block with a missing reading has NaN. One wild reading changes no median.
    """
    second = second_differences(values)
    n, length, n_sensors = second.shape
    n_blocks = length // BLOCK
    blocks = second[:, length - n_blocks * BLOCK :].reshape(n, n_blocks, BLOCK, n_sensors)
    # The fourth of eight: np.median would take the mean of two, at three times the cost.
    return np.partition(blocks, BLOCK // 2 - 1, axis=2)[:, :, BLOCK // 2 - 1]


def held_blocks(values: Float32) -> Int64:
    """Count the last blocks of windows [N, T, C] through which a sensor kept its newest reading: [N, C]."""
    n, length, n_sensors = values.shape
    n_blocks = length // BLOCK
    last = values[:, length - n_blocks * BLOCK :].reshape(n, n_blocks, BLOCK, n_sensors)
    is_held = (last == values[:, None, None, -1]).all(axis=2)[:, ::-1]
    count: Int64 = np.logical_and.accumulate(is_held, axis=1).sum(axis=1)
    return count


def movements(values: Float32) -> Float32:
    """Return the movement [N, blocks, C] in the last 1, 2, … blocks of windows: the range of the means of blocks.

    A block with a missing reading does not count.
    """
    n, length, n_sensors = values.shape
    n_blocks = length // BLOCK
    means = values[:, length - n_blocks * BLOCK :].reshape(n, n_blocks, BLOCK, n_sensors).mean(axis=2)[:, ::-1]
    moved: Float32 = np.fmax.accumulate(means, axis=1) - np.fmin.accumulate(means, axis=1)
    return moved


def learn(windows: Float32, rows: Int64, inputs: ModelInputs) -> dict[str, dict[str, Any]]:
    """Return the card's entry: the profile of each sensor in these windows, by name."""
    n_sensors = windows.shape[2]
    low, high = np.full(n_sensors, np.inf), np.full(n_sensors, -np.inf)
    noise = np.zeros(n_sensors)
    n_absent, n_runs = np.zeros(n_sensors, dtype=np.int64), np.zeros(n_sensors, dtype=np.int64)
    for values in _parts(windows, rows, inputs):
        low = np.fmin(low, np.fmin.reduce(values, axis=(0, 1)))
        high = np.fmax(high, np.fmax.reduce(values, axis=(0, 1)))
        noise = np.fmax(noise, np.fmax.reduce(block_noise(values), axis=(0, 1), initial=0.0))
        n_absent += _is_missing(values).all(axis=1).sum(axis=0)
        n_runs += (np.abs(values[:, -1] - values[:, -2]) > 0).sum(axis=0)  # NaN, a missing reading, is no change
    runs, rests = _runs(windows, rows, inputs)
    related = _related(windows, rows, inputs)
    profiles = [
        SensorProfile(
            low=float(low[number]) if np.isfinite(low[number]) else None,
            high=float(high[number]) if np.isfinite(high[number]) else None,
            longest_run=runs[number],
            noise=float(noise[number]) if np.isfinite(noise[number]) else 0.0,
            absent_share=round(float(n_absent[number]) / max(1, len(rows)), 6),
            n_runs=int(n_runs[number]),
            rests=rests[number],
            related=related[number],
        )
        for number in range(n_sensors)
    ]
    # A list, as JSON makes of a tuple: the card of a version is equal before and after it is saved.
    return {
        name: asdict(each) | {"rests": list(each.rests)} for name, each in zip(inputs.sensors, profiles, strict=True)
    }


def _parts(windows: Float32, rows: Int64, inputs: ModelInputs) -> Iterator[Float32]:
    for part in np.array_split(rows, max(1, -(-len(rows) // WINDOWS_AT_ONCE))) if len(rows) else ():
        yield without_codes(windows[part], inputs)


def _runs(windows: Float32, rows: Int64, inputs: ModelInputs) -> tuple[list[int], list[tuple[float, ...]]]:
    """Return the longest run of each sensor, and its values of rest, which do not count for it."""
    n_sensors = windows.shape[2]
    longest = np.zeros(n_sensors, dtype=np.int64)
    long_runs = [Counter[float]() for _ in range(n_sensors)]
    for values in _parts(windows, rows, inputs):
        runs = longest_runs(values)
        longest = np.maximum(longest, runs.length.max(axis=0))
        for row, number in np.argwhere(runs.length >= MIN_REST_RUN).tolist():
            long_runs[number][float(runs.value[row, number])] += 1
    rests = [
        tuple(sorted(value for value, n in each.most_common(MAX_RESTS) if n >= REST_SHARE * len(rows)))
        for each in long_runs
    ]
    if not any(rests):
        return longest.tolist(), rests
    between, n_between = np.zeros(n_sensors, dtype=np.int64), np.zeros(n_sensors, dtype=np.int64)
    for values in _parts(windows, rows, inputs):
        others = without_rests(values, rests)
        between = np.maximum(between, longest_runs(others).length.max(axis=0))
        n_between += np.isfinite(others[:, -1]).sum(axis=0)
    has_rests = (between <= MAX_RUN_BETWEEN) & (n_between >= MIN_BETWEEN * len(rows))
    kept = [each if has else () for each, has in zip(rests, has_rests.tolist(), strict=True)]
    return np.where(has_rests, between, longest).tolist(), kept


def _related(windows: Float32, rows: Int64, inputs: ModelInputs) -> list[dict[str, float]]:
    """Return, by sensor, the sensors that hardly moved while it was held, and otherwise do. See `SensorProfile`."""
    length, n_sensors = windows.shape[1:]
    if length < 4 * BLOCK or not len(rows):
        return [{} for _ in range(n_sensors)]
    largest = np.zeros((n_sensors, n_sensors), dtype=np.float32)
    n_held = np.zeros(n_sensors, dtype=np.int64)
    usual = []
    for values in _parts(windows, rows, inputs):
        held, moved = held_blocks(values), movements(values)
        usual.append(moved[:, -2])
        for number in np.flatnonzero((held >= 2).any(axis=0)).tolist():
            some = np.flatnonzero(held[:, number] >= 2)
            beside = moved[some, held[some, number] - 2]  # without the block in which the others may still arrive
            largest[number] = np.fmax(largest[number], np.fmax.reduce(beside, axis=0))
            n_held[number] += len(some)
    moves = np.concatenate(usual)
    known = ~np.isnan(moves).all(axis=0)
    typical = np.full(n_sensors, np.nan, dtype=np.float32)
    typical[known] = np.nanmedian(moves[:, known], axis=0)
    out = []
    for number in range(n_sensors):
        ratio = HELD_FACTOR * largest[number] / np.where(typical > 0, typical, np.nan)
        ratio[number] = np.nan
        best = [other for other in np.argsort(ratio)[:MAX_RELATED].tolist() if ratio[other] < 1]
        is_known = n_held[number] >= MIN_HELD and inputs.inputs[number].kind == "plain"
        out.append({inputs.sensors[other]: float(largest[number, other]) for other in best} if is_known else {})
    return out


def without_rests(values: Float32, rests: Sequence[tuple[float, ...]]) -> Float32:
    """Return windows [N, T, C] in which each sensor's values of rest are NaN. A copy."""
    out = values.copy()
    for number, each in enumerate(rests):
        if each:
            column = out[..., number]
            column[np.isin(column, np.array(each, dtype=np.float32))] = np.nan
    return out


def profiles_from_json(sensors: Sequence[str], entry: dict[str, Any]) -> tuple[SensorProfile, ...]:
    """Read the card's entry, in the order of the sensors. Raises KeyError, TypeError, ValueError."""
    profiles = []
    for name in sensors:
        low, high, run, noise, absent = (
            entry[name][key] for key in ("low", "high", "longest_run", "noise", "absent_share")
        )
        is_known = low is not None and high is not None
        n_runs = int(entry[name].get("n_runs", 0))
        rests = tuple(float(each) for each in entry[name].get("rests", ()))
        related = {str(other): float(moved) for other, moved in entry[name].get("related", {}).items()}
        low, high = (float(low), float(high)) if is_known else (None, None)
        profiles.append(SensorProfile(low, high, int(run), float(noise), float(absent), n_runs, rests, related))
    return tuple(profiles)


def without_codes(values: Float32, inputs: ModelInputs) -> Float32:
    """Return windows [N, T, C] with the sensors' codes for "missing", and infinities, as NaN. A copy where needed."""
    coded = [number for number, each in enumerate(inputs.inputs) if each.missing]
    wild = np.isinf(values)
    if not coded and not wild.any():
        return values
    out = np.where(wild, np.float32(np.nan), values)
    for number in coded:
        column = out[..., number]
        for code in inputs.inputs[number].missing:
            column[column == np.float32(code)] = np.nan
    return out


def _is_missing(values: Float32) -> Bool:
    missing: Bool = np.isnan(values)
    return missing
