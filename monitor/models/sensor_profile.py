"""Healthy behaviour of each sensor as such: its range, its longest constant run, its short-time noise, its absences.

Input: windows [N, T, C] in the sensors' own units, NaN = missing. Output: a `SensorProfile` for each sensor, which the
card of a version keeps, and the measurements that the tests of `stream/sensor_health.py` compare with it.
Invariant: each measurement is a function of one window and one sensor. Training and tests use the same functions.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from monitor.models.inputs import ModelInputs
    from monitor.types import Bool, Float32, Int64

BLOCK = 8
"""Steps over which short-time noise is measured: few, so that a sensor that becomes noisy is found soon."""
WINDOWS_AT_ONCE = 256
"""Windows measured together. They fit the cache."""


@dataclass(frozen=True, slots=True)
class SensorProfile:
    """The behaviour of one sensor in the healthy windows of a training."""

    low: float | None
    """Least value. None = the sensor never had one."""
    high: float | None
    """Greatest value."""
    longest_run: int
    """Largest number of equal readings in a row within a window."""
    noise: float
    """Largest short-time noise of `BLOCK` steps. 0 = not known."""
    absent_share: float
    """Windows without a value of it, 0..1."""


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


def learn(windows: Float32, rows: Int64, inputs: ModelInputs) -> dict[str, dict[str, Any]]:
    """Return the card's entry: the profile of each sensor in these windows, by name."""
    n_sensors = windows.shape[2]
    low, high = np.full(n_sensors, np.inf), np.full(n_sensors, -np.inf)
    run, noise = np.zeros(n_sensors, dtype=np.int64), np.zeros(n_sensors)
    n_absent = np.zeros(n_sensors, dtype=np.int64)
    for part in np.array_split(rows, max(1, -(-len(rows) // WINDOWS_AT_ONCE))) if len(rows) else ():
        values = without_codes(windows[part], inputs)
        low = np.fmin(low, np.fmin.reduce(values, axis=(0, 1)))
        high = np.fmax(high, np.fmax.reduce(values, axis=(0, 1)))
        run = np.maximum(run, longest_runs(values).length.max(axis=0))
        noise = np.fmax(noise, np.fmax.reduce(block_noise(values), axis=(0, 1), initial=0.0))
        n_absent += _is_missing(values).all(axis=1).sum(axis=0)
    profiles = [
        SensorProfile(
            low=float(low[number]) if np.isfinite(low[number]) else None,
            high=float(high[number]) if np.isfinite(high[number]) else None,
            longest_run=int(run[number]),
            noise=float(noise[number]) if np.isfinite(noise[number]) else 0.0,
            absent_share=round(float(n_absent[number]) / max(1, len(rows)), 6),
        )
        for number in range(n_sensors)
    ]
    return {name: asdict(each) for name, each in zip(inputs.sensors, profiles, strict=True)}


def profiles_from_json(sensors: Sequence[str], entry: dict[str, Any]) -> tuple[SensorProfile, ...]:
    """Read the card's entry, in the order of the sensors. Raises KeyError, TypeError, ValueError."""
    profiles = []
    for name in sensors:
        low, high, run, noise, absent = (
            entry[name][key] for key in ("low", "high", "longest_run", "noise", "absent_share")
        )
        is_known = low is not None and high is not None
        limits = (float(low), float(high)) if is_known else (None, None)
        profiles.append(SensorProfile(limits[0], limits[1], int(run), float(noise), float(absent)))
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
