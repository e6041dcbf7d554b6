"""Injection of faults into copies of healthy stretches of readings, for drills and for the gate of new versions.

Input: contiguous stretches [T, C] of an asset's readings in the sensors' own units, NaN = missing. Output: copies in
which one sensor is faulty from one row to the end, a spike in one row.
Invariant: pure and seeded. The input is not changed. A reading that was missing stays missing. A kind that has no
meaning for a sensor is named with the reason (`Sensors.why_not`), never injected silently in another form.

    bias      another level: `size` spreads added
    ramp      a drift that grows evenly, and reaches `size` spreads in the last row, or after `grows_in` rows
    spike     one wild reading, the first that is not missing, `size` spreads off
    noise     white noise with a standard deviation of `size` spreads added
    lag       the sensor's values of `size` rows before
    stuck     the last value before the fault, held
    dropout   no value: missing, not 0
    broken    the sensor's own values of another healthy time: each is usual, its relation to the other sensors is not

The last three have no size: the time until they are found is their measure. An angle is turned, and stays in its range
of degrees. Of a counter a level means nothing: it can stop, miss, lag, or count as at another time from its level on.

`training/faults.py` injects into standardised windows while a training chooses, without readings around them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from monitor.models.inputs import ModelInputs

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from monitor.models.spec import TrainingSet
    from monitor.types import Float32

SIZED = ("bias", "ramp", "spike", "noise", "lag")
"""Kinds with a size."""
UNSIZED = ("stuck", "dropout", "broken")
"""Kinds whose measure is the time until they are found."""
KINDS = (*SIZED, *UNSIZED)
UNITS = {"lag": "rows"} | dict.fromkeys(("bias", "ramp", "spike", "noise"), "spreads")
"""Unit of the sizes, by kind."""
MAX_STATES = 8
"""Distinct values up to which a sensor is discrete: a switch, a mode, the position of a valve."""
NORMAL_RANGE = 3.2897
"""Distance of the 5 % and 95 % quantiles of a normal variable, in standard deviations."""
N_READINGS = 100_000
"""Readings of a sensor that its spread is measured on, evenly spaced. More would not change it."""
_LEVEL_FAULTS = ("bias", "ramp", "spike", "noise")


@dataclass(frozen=True, slots=True)
class Stretch:
    """Readings of one asset on the grid, without a gap between windows."""

    asset: int
    """Number of the asset in its training set."""
    end_us: int
    """Event time of the end of the last row."""
    values: Float32
    """[T, C], in the sensors' own units, NaN = missing."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault of one sensor."""

    kind: str
    sensor: int
    """Column."""
    begin: int
    """First faulty row."""
    size: float = 0.0
    """In `UNITS`. Negative = downwards. Of a lag whole rows, above 0. 0 = the kind has no size."""
    grows_in: int | None = None
    """Of a ramp, rows until it reaches its size, and stays there. None = it grows until the last row."""


@dataclass(frozen=True, slots=True)
class Sensors:
    """Facts of a fleet's sensors in healthy time that say which faults mean something, and how large they are."""

    names: tuple[str, ...]
    spread: NDArray[np.float64]
    """[C], healthy standard deviation of the sensor within an asset, measured robustly (`spread_of`), the median of all
    assets. Of an angle in degrees. 0 = it does not move."""
    types: tuple[str, ...]
    """plain, angle, counter, discrete, constant, absent or left_out, by sensor."""
    low: NDArray[np.float64]
    """[C], least healthy value. It says whether an angle is written as 0 to 360 or as -180 to 180 degrees."""

    def why_not(self, sensor: int, kind: str) -> str | None:
        """Return the reason why a kind of fault means nothing for a sensor. None = it can be injected."""
        known = self.types[sensor]
        if known == "left_out":
            return "the model leaves this sensor out"
        if known == "absent":
            return "the sensor has no value in healthy time"
        if known == "constant" and kind != "dropout":
            return "the sensor does not move in healthy time, so a size has no unit and its values are all alike"
        if kind in _LEVEL_FAULTS and known == "counter":
            return "the sensor counts, and has no level"
        if kind in _LEVEL_FAULTS and known == "discrete":
            return f"the sensor has at most {MAX_STATES} values, and no size in between"
        return None

    def largest(self, sensor: int, kind: str) -> float:
        """Return the size from which on a kind means nothing more for a sensor. An angle turns at most half round."""
        if self.types[sensor] == "angle" and kind in _LEVEL_FAULTS and self.spread[sensor] > 0:
            return 180.0 / float(self.spread[sensor])
        return np.inf


def stretches(
    windows: TrainingSet, interval_us: int, *, n_rows: int | None = None, assets: Sequence[int] | None = None
) -> list[Stretch]:
    """Rebuild the stretches of readings that windows were cut from, newest first.

    Windows that overlap an alert are left out. Windows of an asset that overlap or touch form one stretch.
    `n_rows`: rows of each asset at most, the latest. `assets`: numbers. None = all.
    """
    found = []
    usable = np.ones(len(windows), np.bool_) if windows.alerted is None else ~windows.alerted
    if assets is not None:
        usable = usable & np.isin(windows.asset, list(assets))
    for asset in np.unique(windows.asset[usable]).tolist():
        rows = np.flatnonzero(usable & (windows.asset == asset))
        rows = rows[np.argsort(windows.end_us[rows], kind="stable")]
        found += _of_asset(windows, int(asset), rows, interval_us, n_rows)
    return sorted(found, key=lambda each: (-each.end_us, each.asset))


def _of_asset(
    windows: TrainingSet, asset: int, rows: NDArray[np.intp], interval_us: int, n_rows: int | None
) -> list[Stretch]:
    length, end = windows.values.shape[1], windows.end_us[rows] // interval_us
    cuts = np.flatnonzero(np.diff(end) > length) + 1
    found, n_left = [], n_rows
    for part in reversed(np.split(np.arange(len(rows)), cuts)):
        if n_left is not None:
            part = part[end[part] > end[part[-1]] - n_left]
        first = int(end[part[0]]) - length
        values = np.full((int(end[part[-1]]) - first, windows.values.shape[2]), np.nan, dtype=np.float32)
        for row in part.tolist():
            at = int(end[row]) - length - first
            values[at : at + length] = windows.values[rows[row]]
        values = values if n_left is None else values[-n_left:]
        found.append(Stretch(asset, int(windows.end_us[rows[part[-1]]]), values))
        if n_left is not None and (n_left := n_left - len(values)) <= 0:
            break
    return found


def measure(
    healthy: Sequence[Stretch], names: Sequence[str], inputs: ModelInputs | None = None
) -> Sensors:
    """Measure the sensors in healthy stretches. `inputs`: a model's. None = all sensors are plain measurements."""
    inputs = ModelInputs(names) if inputs is None else inputs
    kinds = {name: each.kind for name, each in zip(inputs.sensors, inputs.inputs, strict=True)}
    codes = {name: each.missing for name, each in zip(inputs.sensors, inputs.inputs, strict=True)}
    spread, low, types = [], [], []
    for number, name in enumerate(names):
        by_asset: dict[int, list[Float32]] = {}
        for each in healthy:
            column = each.values[:, number]
            known = np.isfinite(column) & ~np.isin(column, np.array(codes.get(name, ()), dtype=np.float32))
            by_asset.setdefault(each.asset, []).append(column[known])
        columns = [column for parts in by_asset.values() if len(column := np.concatenate(parts))]
        is_angle = kinds.get(name) == "angle"
        sizes = [spread_of(column, is_angle=is_angle) for column in columns]
        spread.append(float(np.median(sizes)) if sizes else 0.0)
        low.append(min((float(column.min()) for column in columns), default=np.nan))
        types.append(_type(kinds.get(name, "left_out"), columns, spread[-1]))
    return Sensors(tuple(names), np.array(spread), tuple(types), np.array(low))


def spread_of(values: Float32, *, is_angle: bool = False) -> float:
    """Return the healthy spread of values [n] without gaps: the standard deviation of a normal variable as wide.

    By the 5 % and 95 % quantiles. Wild readings up to a twentieth on each side do not count, and a machine that rests
    most of the time is as wide as its running makes it. Where even these are alike, the standard deviation itself. An
    angle is measured from its circular mean, in degrees.
    """
    if not len(values):
        return 0.0
    seen = values[:: max(1, len(values) // N_READINGS)].astype(np.float64)
    if is_angle:
        turn = np.deg2rad(seen)
        middle = np.rad2deg(np.arctan2(np.sin(turn).mean(), np.cos(turn).mean()))
        seen = (seen - middle + 180) % 360 - 180
    low, high = np.quantile(seen, (0.05, 0.95))
    return float(high - low) / NORMAL_RANGE or float(seen.std())


def _type(kind: str, columns: Sequence[Float32], spread: float) -> str:
    if kind == "left_out" or not columns:
        return "left_out" if kind == "left_out" else "absent"
    if not spread:
        return "constant"
    if kind in ("angle", "change"):
        return "angle" if kind == "angle" else "counter"
    distinct: set[float] = set()
    for column in columns:
        distinct.update(np.unique(column[:: max(1, len(column) // N_READINGS)]).tolist())
        if len(distinct) > MAX_STATES:
            return "plain"
    return "discrete"


def inject(
    stretch: Float32, fault: Fault, sensors: Sensors, rng: np.random.Generator, others: Sequence[Float32] = ()
) -> Float32:
    """Return a copy of a stretch [T, C] with the fault.

    `others`: healthy stretches [n, C] of the same asset, that `broken` takes values from. The rows of this stretch
    before the fault serve as well. Raises ValueError where the kind means nothing for the sensor, or the fault does not
    fit into the stretch.
    """
    if fault.kind not in KINDS:
        raise ValueError(f"kind of fault {fault.kind!r}, use one of {', '.join(KINDS)}")
    if (reason := sensors.why_not(fault.sensor, fault.kind)) is not None:
        raise ValueError(f"{fault.kind} of {sensors.names[fault.sensor]}: {reason}")
    if not 1 <= fault.begin < len(stretch):
        raise ValueError(f"a fault begins in row 1 to {len(stretch) - 1} of its stretch, not {fault.begin}")
    faulty = stretch.copy()
    column, late = stretch[:, fault.sensor], faulty[fault.begin :, fault.sensor]
    size, n = fault.size * float(sensors.spread[fault.sensor]), len(late)
    is_missing = np.isnan(late)
    match fault.kind:
        case "bias":
            late += np.float32(size)
        case "ramp":
            share = np.arange(1, n + 1) / (fault.grows_in or n)
            late += (size * np.minimum(1.0, share)).astype(np.float32)
        case "spike":
            late[np.flatnonzero(~is_missing)[:1]] += np.float32(size)
        case "noise":
            late += (rng.standard_normal(n) * abs(size)).astype(np.float32)
        case "lag":
            late[:] = _delayed(column, fault)
        case "stuck":
            late[:] = _last_value(column[: fault.begin], late)
        case "dropout":
            late[:] = np.nan
        case "broken":
            late[:] = _of_another_time(column, fault, others, is_counter=sensors.types[fault.sensor] == "counter",
                                       rng=rng)  # fmt: skip
    if sensors.types[fault.sensor] == "angle" and fault.kind in _LEVEL_FAULTS:
        first = -180.0 if sensors.low[fault.sensor] < 0 else 0.0
        late[:] = (late - first) % 360 + first
    late[is_missing] = np.nan
    return faulty


def _delayed(column: Float32, fault: Fault) -> Float32:
    n_rows = round(fault.size)
    if not 1 <= n_rows <= fault.begin:
        raise ValueError(f"a lag of {fault.size:g} rows needs so many rows before the fault, not {fault.begin}")
    return column[fault.begin - n_rows : len(column) - n_rows]


def _last_value(before: Float32, late: Float32) -> np.float32:
    """Return the last value before the fault, or else the first one after it. NaN = there is none."""
    known = before[np.isfinite(before)]
    if len(known):
        return np.float32(known[-1])
    known = late[np.isfinite(late)]
    return np.float32(known[0]) if len(known) else np.float32(np.nan)


def _of_another_time(
    column: Float32, fault: Fault, others: Sequence[Float32], *, is_counter: bool, rng: np.random.Generator
) -> Float32:
    """Return values of the sensor from another healthy time, as many as the fault has rows."""
    n = len(column) - fault.begin
    all_of_it = (*(other[:, fault.sensor] for other in others), column[: fault.begin])
    sources = [each for each in all_of_it if len(each) >= n]
    if not sources:
        raise ValueError(f"broken needs {n} rows of another healthy time, and there are none")
    places = np.array([len(each) - n + 1 for each in sources])
    at = int(rng.integers(places.sum()))
    number = int(np.searchsorted(places.cumsum(), at, side="right"))
    first = at - int(places[:number].sum())
    taken = sources[number][first : first + n]
    if not is_counter:
        return taken
    start = taken[np.isfinite(taken)][:1]
    return taken if not len(start) else taken - start + _last_value(column[: fault.begin], column[fault.begin :])
