"""Explanations of alerts from their evidence: the deviating sensors beside their expected values.

Input: evidence as arrays, and the alert as the queries return it. Output: sentences, bands and similarities.
Invariant: pure NumPy, no I/O.

All is measured in *spreads*: the usual size of the model's error of a sensor, by the card of the version that fired the
alert. For a version without one, it is estimated from the evidence itself: its first window is half healthy.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from monitor.types import Bool, Float32, Int64

BAND = 2.0
"""Half the width of a band, in spreads: it holds about 95 % of the healthy values."""
DEVIATES = 3.0
"""Spreads beyond which a value counts as a deviation."""
NARROW = 1e-4
"""Share of the values below which the width of a band is not told."""
NAMED = 2
"""Sensors in a sentence."""
QUARTER_OF_NORMAL = 0.3186
"""A quarter of the absolute values of a normal distribution are below so many standard deviations."""
SHAPE = 16
"""Points in time at which two evidences are compared."""


@dataclass(frozen=True, slots=True)
class Evidence:
    """The stored evidence of an alert: N cells of C sensors, and M scores. Older cells may be thinned out.

    It begins with the window that fired the alert and ends with the one that closed it.
    """

    sensors: tuple[str, ...]
    """[C]"""
    cell_us: Int64
    """[N], event time of each cell, rising."""
    values: Float32
    """[N, C], readings in the sensors' own units, NaN = missing."""
    expected: Float32
    """[N, C], the model's reconstruction, to 16 significant bits, NaN = unknown."""
    end_us: Int64
    """[M], ends of the scored windows, rising. They begin up to one window before the one that fired."""
    score: Float32
    """[M], 1.0 = threshold. Where they are thinned out, the higher of two is kept."""
    spread: Float32 | None = None
    """[C], usual size of the model's error of each sensor in its own unit, NaN = unknown. None = no card has it."""

    @property
    def interval_us(self) -> int:
        """The sampling interval: the smallest step of the cells."""
        return int(np.diff(self.cell_us).min()) if len(self.cell_us) > 1 else 0


# ---------------------------------------------------------------- bands


class Bands(NamedTuple):
    """Values that would have been normal: the expected ones, and a band on either side."""

    low: Float32
    """[N, C], NaN = unknown."""
    high: Float32
    """[N, C]"""
    spread: Float32
    """[C], in the sensors' own units. NaN = unknown."""
    is_from_model: bool
    """Whether every spread is the model's usual error. False: some are estimated from this evidence."""


def bands(evidence: Evidence) -> Bands:
    """Return the expected values ± 2 spreads: about 95 % of healthy values are inside."""
    estimated = _estimated_spread(evidence)
    spread = estimated if evidence.spread is None else np.where(
        np.isfinite(evidence.spread), evidence.spread, estimated
    ).astype(np.float32)
    is_from_model = evidence.spread is not None and bool(np.isfinite(evidence.spread).all())
    half = BAND * spread
    return Bands(evidence.expected - half, evidence.expected + half, spread, is_from_model)


def _estimated_spread(evidence: Evidence) -> Float32:
    """Return [C], a robust spread of the errors. NaN for a sensor without any.

    The smaller of two: that of the smallest quarter of the errors, and that of their steps from cell to cell, which a
    fault that shifts the level does not change. It is at least a thousandth of what the expected values span.
    """
    error = evidence.values - evidence.expected
    found = np.full(error.shape[1], np.nan, np.float32)
    for c in range(error.shape[1]):
        known = error[np.isfinite(error[:, c]), c]
        if len(known):
            expected = evidence.expected[np.isfinite(evidence.expected[:, c]), c]
            least = 1e-3 * float(np.ptp(expected)) + 1e-6 * float(np.abs(expected).max())
            size = float(np.quantile(np.abs(known), 0.25))
            steps = np.abs(np.diff(known))
            steps = steps[steps > 0]  # a sensor that stands still tells nothing of its noise
            step = float(np.quantile(steps, 0.25)) / 2**0.5 if len(steps) > 1 else size
            found[c] = max(min(size, step) / QUARTER_OF_NORMAL, least, 1e-9)
    return found


# ---------------------------------------------------------------- one sentence


class Finding(NamedTuple):
    """The deviation of one sensor."""

    sensor: str
    what: str
    """rose, fell, stuck, noisy, missing"""
    at: int
    """Cell, by number: where it was worst."""
    value: float
    """There, or the size of the noise. NaN = missing."""
    expected: float
    half_width: float
    """Of the band round it."""
    duration_us: int


def sentence(
    alert: Mapping[str, Any],
    evidence: Evidence | None,
    units: Mapping[str, str] | None = None,
    descriptions: Mapping[str, str] | None = None,
) -> str:
    """Describe an alert in one sentence without a full stop.

    `alert`: as `Reader.alert` returns it. `units`, `descriptions`: of the sensors that have one. Without evidence it is
    told from the sensors' values at the onset. Empty = nothing is known, as of alerts of other classes.
    """
    units, names = units or {}, descriptions or {}
    blamed = blamed_sensors(alert)
    if evidence is None or not len(evidence.cell_us):
        rows = {sensor["name"]: sensor for sensor in alert["sensors"]}
        told = [_from_contribution(rows[name], units, names) for name in blamed[:1] if name in rows]
        return told[0] if told else ""
    found = [finding(evidence, name, alert) for name in blamed if name in evidence.sensors]
    told = [_told(each, units, names) for each in found[:NAMED] if each is not None]
    return "; ".join(told)


def blamed_sensors(alert: Mapping[str, Any]) -> list[str]:
    """Return the sensors that explain an alert: the clearing ones, or the first at the onset. Most important first."""
    def onset(sensor: Mapping[str, Any]) -> float:
        return float((sensor.get("onset") or sensor)["share"])

    ranked = [sensor["name"] for sensor in sorted(alert["sensors"], key=onset, reverse=True)]
    clearing = list(alert.get("clearing") or ())
    return clearing or ranked[:1]


def finding(evidence: Evidence, sensor: str, alert: Mapping[str, Any]) -> Finding | None:
    """Return the deviation of a sensor while the alert was open, and before it opened. None = nothing is known."""
    c = evidence.sensors.index(sensor)
    value, expected = evidence.values[:, c].astype(np.float64), evidence.expected[:, c].astype(np.float64)
    spread = float(bands(evidence).spread[c])
    interval_us = evidence.interval_us
    if not np.isfinite(expected).any():
        return None
    missing = ~np.isfinite(value)
    opened = evidence.cell_us >= _us(alert["opened_at"]) - interval_us
    if missing[opened].mean() > 0.5 if opened.any() else missing.all():
        at = int(np.flatnonzero(missing)[0])
        return Finding(
            sensor, "missing", at, np.nan, _known(expected, at), BAND * spread, _lasted(evidence.cell_us, missing)
        )
    if not np.isfinite(spread):
        return None
    size = np.where(missing | ~np.isfinite(expected), 0.0, np.abs(value - expected) / spread)
    deviates = size > min(DEVIATES, float(size.max()))
    deviates |= size == size.max()
    stuck = _stuck_from(value, missing)
    if stuck is not None and size[stuck] <= DEVIATES and _moves(expected[stuck:], spread):
        at = stuck + int(np.argmax(size[stuck:]))
        lasted = int(evidence.cell_us[-1] - evidence.cell_us[stuck]) + interval_us
        return Finding(sensor, "stuck", at, value[at], expected[at], BAND * spread, lasted)
    error = (value - expected)[deviates]
    at = int(np.argmax(size))
    lasted = _lasted(evidence.cell_us, deviates)
    if len(error) >= 4 and abs(np.sign(error).mean()) < 0.5:
        noise = float(np.std(error))
        return Finding(sensor, "noisy", at, noise, expected[at], BAND * spread, lasted)
    what = "rose" if value[at] > expected[at] else "fell"
    return Finding(sensor, what, at, float(value[at]), float(expected[at]), BAND * spread, lasted)


def _us(at: str) -> int:
    moment = datetime.fromisoformat(at)
    return round(moment.timestamp() * 1_000_000)


def _known(column: NDArray[np.float64], at: int) -> float:
    """Return the value at a place, or the last known one before it, or the first."""
    known = np.flatnonzero(np.isfinite(column))
    before = known[known <= at]
    return float(column[before[-1] if len(before) else known[0]])


def _lasted(cell_us: Int64, which: Bool) -> int:
    """Return the event time from the first to the last of these cells."""
    rows = np.flatnonzero(which)
    step = int(np.diff(cell_us).min()) if len(cell_us) > 1 else 0
    return int(cell_us[rows[-1]] - cell_us[rows[0]]) + step


def _stuck_from(value: NDArray[np.float64], missing: Bool) -> int | None:
    """Return the first cell of the longest run of one value, if it is long and the sensor moved before. None = none."""
    known = np.flatnonzero(~missing)
    if len(known) < 8:
        return None
    same = np.diff(value[known]) == 0
    if not same.any() or same.mean() > 0.95:
        return None
    edges = np.flatnonzero(np.diff(np.concatenate(([0], same.astype(np.int8), [0]))))
    begins, ends = edges[::2], edges[1::2]
    longest = int(np.argmax(ends - begins))
    others = np.delete(ends - begins, longest)
    if ends[longest] - begins[longest] < max(4, 2 * (others.max() if len(others) else 0)):
        return None
    return int(known[begins[longest]])


def _moves(expected: NDArray[np.float64], spread: float) -> bool:
    known = expected[np.isfinite(expected)]
    return len(known) > 1 and float(np.ptp(known)) > spread


def _told(found: Finding, units: Mapping[str, str], names: Mapping[str, str]) -> str:
    name = names.get(found.sensor) or found.sensor
    unit = f" {units[found.sensor]}" if units.get(found.sensor) else ""
    least = NARROW * max(abs(found.expected), abs(found.value - found.expected) if found.value == found.value else 0.0)
    width = f" ± {shown(found.half_width, 2)}" if found.half_width >= least else ""
    usual = f"{shown(found.expected)}{width}{unit} was expected"
    lasted = duration(found.duration_us)
    match found.what:
        case "missing":
            return f"{name} had no values where {usual}, for {lasted}"
        case "stuck":
            return f"{name} was stuck at {shown(found.value)}{unit} where {usual}, for {lasted}"
        case "noisy":
            width = shown(BAND * found.value, 2)
            return f"{name} was noisy, ± {width}{unit} where ± {shown(found.half_width, 2)} is usual, for {lasted}"
    return f"{name} {found.what} to {shown(found.value)}{unit} where {usual}, for {lasted}"


def _from_contribution(row: Mapping[str, Any], units: Mapping[str, str], names: Mapping[str, str]) -> str:
    name = names.get(row["name"]) or row["name"]
    unit = f" {units[row['name']]}" if units.get(row["name"]) else ""
    values = row.get("onset") or row
    actual, expected = values["actual"], values["expected"]
    if expected is None:
        return ""
    if actual is None:
        return f"{name} had no value where {shown(expected)}{unit} was expected"
    what = "rose" if actual > expected else "fell"
    change = " (change within a window)" if row.get("quantity") == "change" else ""
    return f"{name}{change} {what} to {shown(actual)}{unit} where {shown(expected)}{unit} was expected"


def shown(value: float, digits: int = 3) -> str:
    """Format a number for a sentence: a few significant digits, a real minus sign, no exponent up to a billion."""
    if value != value:
        return "–"
    if abs(value) >= 1e9 or 0 < abs(value) < 1e-4:
        return f"{value:.{digits - 1}e}".replace("-", "−")
    rounded = float(f"{value:.{digits}g}")
    text = f"{rounded:,.0f}" if abs(rounded) >= 10 ** (digits - 1) else f"{rounded:.{digits}g}"
    return "0" if text in ("0", "-0") else text.replace("-", "−")


def duration(us: int) -> str:
    """Format a duration in its largest unit."""
    for unit, name in ((86_400_000_000, "d"), (3_600_000_000, "h"), (60_000_000, "min"), (1_000_000, "s")):
        if us >= 2 * unit or (name == "s" and us >= unit):
            return f"{us / unit:.{1 if us < 10 * unit else 0}f} {name}".replace(".0 ", " ")
    return f"{us / 1000:.0f} ms"


# ---------------------------------------------------------------- similar alerts


def signature(evidence: Evidence) -> dict[str, Float32]:
    """Return each sensor's course: the error in spreads, on a log scale, at `SHAPE` parts of the time that deviates.

    So an alert that is still open is like a closed one. A missing value counts as no error. Two numbers more are the
    roughness of the course and the share of missing values.
    """
    size = (evidence.values - evidence.expected) / bands(evidence).spread
    level = np.where(np.isfinite(size), np.sign(size) * np.log1p(np.abs(np.nan_to_num(size))), 0.0)
    missing = ~np.isfinite(evidence.values) & np.isfinite(evidence.expected)
    rows = _deviating(level, missing)
    level, missing, at_us = level[rows], missing[rows], evidence.cell_us[rows]
    rough = np.abs(np.diff(level, axis=0)).mean(axis=0) if len(level) > 1 else np.zeros(level.shape[1])
    part = np.minimum((at_us - at_us[0]) * SHAPE // max(1, int(at_us[-1] - at_us[0])), SHAPE - 1)
    courses = np.zeros((SHAPE, level.shape[1]))
    np.add.at(courses, part, level)
    n = np.bincount(part, minlength=SHAPE)
    courses /= np.maximum(n, 1)[:, None]
    filled = np.maximum.accumulate(np.where(n > 0, np.arange(SHAPE), 0))   # few cells: a part without any
    courses = courses[filled]
    extra = SHAPE**0.5 * np.stack([rough, 3 * missing.mean(axis=0)])
    return {
        name: np.concatenate((courses[:, c], extra[:, c])).astype(np.float32)
        for c, name in enumerate(evidence.sensors)
    }


def _deviating(level: NDArray[np.float64], missing: Bool) -> slice:
    """Return the cells from the first to the last that deviates, single outliers at either end left out."""
    worst = np.abs(level).max(axis=1)
    least = max(float(np.log1p(DEVIATES)), 0.5 * float(np.quantile(worst, 0.95)))
    rows = np.flatnonzero((worst > least) | missing.any(axis=1))
    if not len(rows):
        return slice(None)
    outliers = len(rows) // 50
    return slice(int(rows[outliers]), int(rows[-1 - outliers]) + 1)


def similarity(first: Evidence, second: Evidence) -> float:
    """Return how alike two alerts are, 0..1: by the deviating sensors, their directions and their course.

    Durations, sampling and lists of sensors may differ. A sensor that one of them lacks counts as without an error.
    """
    return similar_signatures(signature(first), signature(second))


def similar_signatures(first: Mapping[str, Float32], second: Mapping[str, Float32]) -> float:
    """Return the similarity of two signatures: the cosine of the angle between them, none below 0."""
    names = [name for name in first if name in second]
    product = sum(float(first[name] @ second[name]) for name in names)
    sizes = [sum(float(each @ each) for each in own.values()) ** 0.5 for own in (first, second)]
    return max(0.0, min(1.0, product / (sizes[0] * sizes[1]))) if all(sizes) else 0.0
