"""Tests of the sensors themselves: dead, out of range, stuck, noisy.

Input: windows, and the profile that the version in charge has learnt (`models/sensor_profile.py`). Output: a finding
for each window and sensor, and the windows for the model, in which bad values are missing. Invariant: a finding is a
function of the window, the profile and the settings, so a restart and a replay find the same. A sensor has at most one
finding in a window, the first of `FINDINGS` that applies.

    dead          no value in the window, in which other sensors have some. In training it always had one
    out_of_range  several readings outside of `[fleet.sensor.NAME] range`, or at an impossible value, far outside of all
                  that training has seen: the same code again and again, or a number a thousand times too large
    stuck         many equal readings in a row, four times as many as ever in training, at a value within those that
                  training has seen and at which the sensor never rested. Of a coarse sensor: held while the sensors
                  moved that hardly did so while it was held in training
    noisy         short-time noise twenty times the largest in training, white (no oscillation of a machine), round a
                  value that training has seen

If more than a third of the sensors are stuck at once, the machine stands still. If another sensor is louder than ever,
the machine shakes. Then there is no finding, and the model judges it. So it does where a sensor stands at a value that
it never had, at the end of its scale or where it rests, like the flow of a pump that was switched off.

A sensor with a finding is missing (NaN) for the model in this window. Readings outside of the configured range are
missing in each window, also where they are too few for a finding.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from monitor.config.sensors import SENSOR_TESTS, SensorConfig
from monitor.models.sensor_profile import (
    BLOCK,
    HELD_FACTOR,
    WINDOWS_AT_ONCE,
    block_noise,
    held_blocks,
    longest_runs,
    movements,
    second_differences,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from monitor.config import FleetConfig
    from monitor.models.detector import TrainedModel
    from monitor.models.sensor_profile import SensorProfile
    from monitor.types import Bool, Float32, UInt8

FINDINGS = ("dead", "out_of_range", "stuck", "noisy")
"""By number in `Inspection.findings`, less one, and by precedence."""
DEAD, OUT_OF_RANGE, STUCK, NOISY = range(1, 5)
HEALTHY = 0
NOT_TESTED = 255
"""In `Inspection.findings`: the window was not tested. It neither opens an alert nor closes one."""
MIN_RUN = 8
"""Fewest equal readings of a stuck sensor. Two equal float values are chance, eight are not."""
RUN_FACTOR, LEAST_RUN_FACTOR = 4, 2.5
"""… and least multiple of the longest healthy run. If a window is shorter, equal readings all through it are enough, as
long as it has the second multiple. Else runs are not tested: the sensor is on or off, very coarse, or seldom moves."""
RUN_CHANCE = 0.001
"""Runs beyond the limit to expect of a healthy sensor, in as much time as the training had. It sets the factor: if one
run of n is the longest, and lengths fall off exponentially, n^(1 - factor) of n runs are longer than the limit."""
MIN_RELATED = 2
"""Least number of sensors that must move beside a held one, and half of those that move with it. A single one may be
the broken one."""
NOISE_FACTOR = 20.0
OTHERS_FACTOR = 1.5
"""Noise of another sensor, as a multiple of its own largest in training, with which it is the machine that shakes."""
WHITENESS = 2.0
"""Least ratio of squared second to squared first differences. White noise has 3, an oscillation of four steps 2, a slow
one less."""
FAR, ABSURD = 10.0, 1000.0
"""Distance from the middle of the values in training, in units of their span or their greatest size, if that is larger.
From the first on, the same value twice is a code. From the second on, a reading is impossible."""
MIN_OUTSIDE = 2
"""Readings outside that make a finding, or an eighth of those in the window: one glitch is no broken sensor."""
NEVER = 1 << 30
EDGE = 0.02
"""Share of a sensor's span at both ends, in which it rests rather than sticks beside others that move."""
MAX_SHARE = 3
"""One in so many sensors may be stuck at once, and one always."""
MAX_ABSENT = 0.001
"""Share of the training windows without a value up to which a sensor can be dead."""


class Inspection(NamedTuple):
    """The result of the tests of N windows."""

    values: Float32
    """[N, T, C], for the model: bad values are NaN. The given array where there are none."""
    findings: UInt8
    """[N, C], 0 = healthy, else a number of `FINDINGS` and 1."""


class SensorTests:
    """The tests of a fleet's windows by one version."""

    def __init__(self, sensors: Sequence[str], fleet: FleetConfig | None, model: TrainedModel | None) -> None:
        """`sensors`: of the windows. `fleet`: None = no setting. `model`: None = only the configured ranges."""
        own = {} if fleet is None else fleet.sensor
        usual = SENSOR_TESTS if fleet is None else fleet.alerts.sensor_tests
        settings = [own.get(name, SensorConfig()) for name in sensors]
        tests = [usual if each.tests is None else each.tests for each in settings]
        known = {} if model is None else dict(zip(model.sensors, model.profiles or (), strict=False))
        profiles = [known.get(name) for name in sensors]
        coded = {} if model is None else dict(zip(model.sensors, model.inputs.inputs, strict=True))

        def of(test: str) -> Bool:
            return np.array([test in each for each in tests], dtype=np.bool_)

        has_profile = np.array([each is not None and each.low is not None for each in profiles], dtype=np.bool_)
        low = np.array([np.nan if each is None or each.low is None else each.low for each in profiles])
        high = np.array([np.nan if each is None or each.high is None else each.high for each in profiles])
        run = np.array([0 if each is None else each.longest_run for each in profiles])
        n_runs = np.array([0 if each is None else each.n_runs for each in profiles])
        noise = np.array([0.0 if each is None else each.noise for each in profiles])
        absent = np.array([1.0 if each is None else each.absent_share for each in profiles])
        is_plain = np.array([name in coded and coded[name].kind in ("plain", "angle") for name in sensors], np.bool_)

        self.codes = [(n, each.missing) for n, name in enumerate(sensors)
                      if (each := coded.get(name)) is not None and each.missing]  # fmt: skip
        self.range = _ranges(settings, of("out_of_range"))
        """[2, C], configured. Infinite = no limit."""
        self.has_range = bool(np.isfinite(self.range).any())
        unit = np.fmax(high - low, np.fmax(np.abs(low), np.abs(high)))
        # A counter leaves all that it ever was, and a sensor that was always 0 has no size.
        self.unit = np.where(has_profile & is_plain & of("out_of_range") & (unit > 0), unit, np.inf)
        self.middle = np.where(np.isfinite(self.unit), (low + high) / 2, 0.0)
        self.is_dead_tested = has_profile & of("dead") & (absent <= MAX_ABSENT)
        self.low, self.high = low, high
        is_stuck_tested = has_profile & is_plain & of("stuck")
        self.run_limit = np.where(is_stuck_tested, np.maximum(MIN_RUN, RUN_FACTOR * run), NEVER)
        self.least_window = np.where(is_stuck_tested, np.ceil(_least_run_factor(n_runs) * run), NEVER)
        """[C], length of a window from which on equal readings all through it are stuck."""
        # A lone sensor cannot be told from its machine.
        has_others = np.count_nonzero(noise > 0) > 1
        noise_limit = np.where(is_plain & of("noisy") & (noise > 0) & has_others, NOISE_FACTOR * noise, np.inf)
        self.noise_limit = noise_limit.astype(np.float32)
        self.noise = np.where(noise > 0, noise, np.inf)
        self.rests = [() if each is None else each.rests for each in profiles]
        self.related = [
            _related(sensors, each) if each is not None and tested and not each.rests else None
            for each, tested in zip(profiles, is_stuck_tested.tolist(), strict=True)
        ]
        self.may_be_held = np.array([each is not None for each in self.related], dtype=np.bool_)
        self.has_profile = bool(has_profile.any())
        self.is_idle = not self.has_range and not has_profile.any()
        """Whether there is nothing to test."""
        # A version that tests a sensor no more takes it for healthy, and its alert closes. Without a profile nothing is
        # known.
        is_known = np.isfinite(self.range).any(axis=0) | (model is not None and model.profiles is not None)
        self.untested = np.where(is_known, HEALTHY, NOT_TESTED).astype(np.uint8)
        """[C], the finding of a window that passes all tests."""

    def inspect(self, values: Float32) -> Inspection:
        """Test windows [N, T, C]."""
        findings = np.tile(self.untested, (len(values), 1))
        if self.is_idle or not len(values):
            return Inspection(values, findings)
        masked: Float32 | None = None
        for start in range(0, len(values), WINDOWS_AT_ONCE):
            part = slice(start, start + WINDOWS_AT_ONCE)
            bad = self._inspect(values[part], findings[part])
            if bad is not None:
                masked = values.copy() if masked is None else masked
                masked[part][bad] = np.nan
        return Inspection(values if masked is None else masked, findings)

    def _inspect(self, values: Float32, findings: UInt8) -> Bool | None:
        """Fill in the findings of some windows. Return the bad values [N, T, C]. None = there are none.

        Each test looks at the few windows that a cheap bound cannot rule out.
        """
        values = self._without_codes(values)
        bad: Bool | None = None
        has_gaps = not np.isfinite(values.sum())
        largest, smallest = (np.fmax, np.fmin) if has_gaps else (np.maximum, np.minimum)  # these are faster
        greatest, least = _fold(largest, values), _fold(smallest, values)           # [N, C], NaN: no value at all
        reach = np.maximum(greatest - self.middle, self.middle - least)
        suspects = (greatest > self.range[1]) | (least < self.range[0]) | (reach > FAR * self.unit)
        if (rows := np.flatnonzero(suspects.any(axis=1))).size:
            found, outside = self._out_of_range(values[rows])
            if outside.any():
                bad = np.zeros(values.shape, dtype=np.bool_)
                bad[rows] = outside
                findings[rows] = np.where(found, OUT_OF_RANGE, findings[rows])
        unclear = None
        if self.has_profile:
            findings[np.isnan(greatest) & self.is_dead_tested] = DEAD
            unclear = self._find_stuck(values, findings, has_gaps=has_gaps)
            self._find_noisy(values, findings)
        is_bad = findings != self.untested
        if unclear is not None:  # an open alert goes on until the sensor moves
            findings[unclear & (findings == HEALTHY)] = NOT_TESTED
        if not is_bad.any():
            return bad
        of_sensor = np.broadcast_to(is_bad[:, None], values.shape)
        return of_sensor if bad is None else bad | of_sensor

    def _without_codes(self, values: Float32) -> Float32:
        if not self.codes:
            return values
        values = values.copy()
        for number, codes in self.codes:
            column = values[..., number]
            for code in codes:
                column[column == np.float32(code)] = np.nan
        return values

    def _out_of_range(self, values: Float32) -> tuple[Bool, Bool]:
        """Return the findings [N, C], and the bad values [N, T, C]."""
        outside = (values < self.range[0]) | (values > self.range[1])
        distance = np.abs(values - self.middle) / self.unit
        far = distance > FAR
        if far.any():
            low = np.where(far, values, np.inf).min(axis=1)
            high = np.where(far, values, -np.inf).max(axis=1)
            is_code = (np.count_nonzero(far, axis=1) >= MIN_OUTSIDE) & (low == high)
            outside |= (far & is_code[:, None]) | (distance > ABSURD)
        n_outside, n_present = np.count_nonzero(outside, axis=1), np.count_nonzero(np.isfinite(values), axis=1)
        return n_outside >= np.maximum(MIN_OUTSIDE, -(-n_present // 8)), outside

    def _find_stuck(self, values: Float32, findings: UInt8, *, has_gaps: bool) -> Bool | None:
        """Fill in stuck sensors. Return those [N, C] of which a window of equal readings says nothing. None = none."""
        rows, sensors = self._long_runs(values, has_gaps=has_gaps)
        stuck: Bool = np.zeros(findings.shape, dtype=np.bool_)
        stuck[rows, sensors] = True
        unclear = self._find_held(values, stuck)
        if stuck.any():
            n_tested = np.count_nonzero((self._run_limit(values) <= values.shape[1]) | self.may_be_held)
            stuck[np.count_nonzero(stuck, axis=1) > max(1, n_tested // MAX_SHARE)] = False
            rows, sensors = np.nonzero(stuck)
            self._mark(findings, rows, sensors, STUCK)
        return unclear

    def _long_runs(self, values: Float32, *, has_gaps: bool) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        """Return (rows, sensors) with more equal readings in a row than a healthy sensor has."""
        equal = _count(values[:, 1:] == values[:, :-1])                             # [N, C]
        if has_gaps:
            equal += _count(np.isnan(values))  # a missing reading may hide a pair of equal ones
        limit = self._run_limit(values)
        rows, sensors = np.nonzero(equal + 1 >= limit)
        if not len(rows):
            return rows, sensors
        suspects = values[rows, :, sensors]                                         # a copy [M, T]
        for number, rests in enumerate(self.rests):
            if rests:
                of_sensor = suspects[sensors == number]
                suspects[sensors == number] = np.where(np.isin(of_sensor, rests), np.float32(np.nan), of_sensor)
        runs = longest_runs(suspects[..., None])
        is_long = runs.length[:, 0] >= limit[sensors]
        is_stuck = is_long & self._is_within(runs.value[:, 0], sensors)
        return rows[is_stuck], sensors[is_stuck]

    def _run_limit(self, values: Float32) -> NDArray[np.int64]:
        """Return the least number of equal readings in a row of a stuck sensor [C]. More than a window = not tested."""
        length = values.shape[1]
        return np.where((self.run_limit > length) & (self.least_window <= length), length, self.run_limit)

    def _find_held(self, values: Float32, stuck: Bool) -> Bool | None:
        """Add the sensors that were held while those that move with them moved. Return the unclear ones [N, C]."""
        if not self.may_be_held.any() or values.shape[1] < 4 * BLOCK:
            return None
        newest = values[:, -1]
        is_held = (values[:, -BLOCK:] == newest[:, None]).all(axis=1) & self.may_be_held
        some = np.flatnonzero(is_held.any(axis=1))
        if not len(some):
            return None
        unclear: Bool | None = None
        held, moved = held_blocks(values[some]), movements(values[some])
        for number, related in enumerate(self.related):
            if related is None or not (held[:, number] >= 2).any():
                continue
            at = np.flatnonzero((held[:, number] >= 2) & self._is_within(newest[some, number], number, EDGE))
            beside = moved[at[:, None], held[at, number][:, None] - 2, related.sensors]
            n_moved = np.count_nonzero(beside > related.limits, axis=1)
            stuck[some[at], number] |= n_moved >= max(MIN_RELATED, -(-len(related.sensors) // 2))
            if (whole := some[at[held[at, number] == moved.shape[1]]]).size:
                unclear = np.zeros(stuck.shape, dtype=np.bool_) if unclear is None else unclear
                unclear[whole, number] = True
        return unclear

    def _is_within(self, value: Float32, sensors: NDArray[np.intp] | int, edge: float = 0.0) -> Bool:
        """Return whether a sensor stands at a value within those of its training, not in this share at their ends."""
        low, high = self.low[sensors], self.high[sensors]
        within: Bool = (value > low + edge * (high - low)) & (value < high - edge * (high - low))
        return within

    def _find_noisy(self, values: Float32, findings: UInt8) -> None:
        if values.shape[1] < BLOCK + 2 or not np.isfinite(self.noise_limit).any():
            return
        second = second_differences(values)
        total = _sum(second)                                                        # [N, C]
        if not np.isfinite(total).all():
            total = _sum(np.nan_to_num(second, nan=0.0, posinf=np.inf))
        # More than half of the values in a loud block are above the limit.
        if (rows := np.flatnonzero((total >= self.noise_limit * (BLOCK // 2)).any(axis=1))).size:
            found, sensors = np.nonzero(self._is_noisy(values[rows]))
            self._mark(findings, rows[found], sensors, NOISY)

    def _is_noisy(self, values: Float32) -> Bool:
        noise = block_noise(values)                                                 # [N, blocks, C]
        is_loud = noise > self.noise_limit
        is_louder = (noise > OTHERS_FACTOR * self.noise).any(axis=1)
        noisy: Bool = is_loud.any(axis=1) & (np.count_nonzero(is_louder, axis=1) == 1)[:, None]
        for row, sensor in np.argwhere(noisy).tolist():
            of_blocks = values[row, -noise.shape[1] * BLOCK - 2 :, sensor].astype(np.float64)
            noisy[row, sensor] = any(
                self._is_in_reach(sensor, block, noise[row, at, sensor]) and _is_white(block)
                for at in np.flatnonzero(is_loud[row, :, sensor])
                if len(block := of_blocks[at * BLOCK : at * BLOCK + BLOCK + 2])
            )
        return noisy

    def _is_in_reach(self, sensor: int, values: NDArray[np.float64], noise: float) -> bool:
        """Return whether a sensor's values [n] are noise round a value that it had in training."""
        low, high = self.low[sensor] - noise, self.high[sensor] + noise
        return bool(low <= np.median(values) <= high)

    def _mark(self, findings: UInt8, rows: NDArray[np.intp], sensors: NDArray[np.intp], found: int) -> None:
        first = findings[rows, sensors] == self.untested[sensors]  # of several findings
        findings[rows[first], sensors[first]] = found


def _fold(ufunc: np.ufunc, values: Float32) -> Float32:
    """Reduce windows [N, T, C] to [N, C]. `ufunc.reduce` over the middle axis takes ten times as long."""
    while (length := values.shape[1]) > 1:
        half = length // 2
        folded = ufunc(values[:, :half], values[:, half : 2 * half])
        if length % 2:
            folded[:, 0] = ufunc(folded[:, 0], values[:, -1])
        values = folded
    return values[:, 0]


def _sum(values: Float32) -> Float32:
    """Add up windows [N, T, C] over their steps: [N, C]."""
    total: Float32 = (np.ones((1, values.shape[1]), dtype=np.float32) @ values)[:, 0]
    return total


def _count(is_true: Bool) -> Float32:
    """Count the true values of windows [N, T, C]: [N, C]."""
    return _sum(is_true.astype(np.float32))


def _is_white(values: NDArray[np.float64]) -> bool:
    steps = np.diff(values)
    return float((np.diff(steps) ** 2).mean()) >= WHITENESS * float((steps * steps).mean()) > 0


def _least_run_factor(n_runs: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the multiple of the longest of so many healthy runs from which on a sensor can be stuck."""
    factor: NDArray[np.float64] = 1 - np.log(RUN_CHANCE) / np.log(np.maximum(n_runs, 2))
    return factor.clip(LEAST_RUN_FACTOR, RUN_FACTOR)


class _Related(NamedTuple):
    """Sensors that move with another one."""

    sensors: NDArray[np.intp]
    limits: Float32
    """Movement of each, above which the other one is stuck if it was held."""


def _related(sensors: Sequence[str], profile: SensorProfile) -> _Related | None:
    """Return the sensors that move with one of this profile. None = fewer than two."""
    numbers = {name: number for number, name in enumerate(sensors)}
    known = [(numbers[name], HELD_FACTOR * moved) for name, moved in profile.related.items() if name in numbers]
    if len(known) < MIN_RELATED:
        return None
    found, limits = zip(*known, strict=True)
    return _Related(np.array(found, np.intp), np.array(limits, np.float32))


def _ranges(settings: Sequence[SensorConfig], tested: Bool) -> NDArray[np.float64]:
    given = [each.range or (None, None) for each in settings]
    low = [-np.inf if each[0] is None else each[0] for each in given]
    high = [np.inf if each[1] is None else each[1] for each in given]
    return np.where(tested, np.array([low, high], dtype=np.float64).reshape(2, -1), np.array([[-np.inf], [np.inf]]))
