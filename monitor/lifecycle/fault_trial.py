"""The same injected faults for challenger and champion: a paired comparison without labels.

Input: recent readings that overlap no alert, and two versions. Output: the faults that each detects.
Invariant: both get the same copies, and alerts are decided by the policy of `stream/alerting.py`. A fault counts as
detected only where the same version raises no alert on the clean copy: a version that alarms all the time detects
nothing.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from monitor.lifecycle.injection import Fault, Stretch, inject, measure
from monitor.lifecycle.recent import CHUNK, policy_of, windows_at

if TYPE_CHECKING:
    from collections.abc import Sequence

    from monitor.budget import Budget
    from monitor.lifecycle.injection import Sensors
    from monitor.lifecycle.recent import Recent, Version
    from monitor.types import Bool, Float32, Int64

N_FAULTS = 360
"""Faults at most. With one in ten found by only one of the versions, the difference of recall is known within ±.027."""
N_STRETCHES = 32
"""Stretches of readings that the faults are injected into copies of, evenly spaced."""
N_AFTER = 40
"""Windows that end in the fault: of ten minutes, 6.7 hours."""
MAX_FAULTY_VALUES = 100_000_000
"""Values of the faulty windows, about 12 s on one core. With more values in a window, fewer faults are injected."""
MIN_FAULTS = 24
"""With fewer, nothing is compared."""

SIZES = {"bias": (0.7, 8.0), "ramp": (1.0, 12.0), "noise": (0.7, 8.0), "spike": (3.0, 30.0)}
"""Range of the sizes in spreads, drawn evenly on a logarithmic scale, so that faults near the threshold are among them
whatever the fleet. `dropout` is not injected: an expected value takes the place of a missing one, and missing sensors
have alerts of their own (`stream/sensor_health.py`)."""
LAG_SHARE = (0.05, 0.5)
"""Range of a lag, as a share of the window."""
KINDS = ("bias", "ramp", "noise", "spike", "lag", "stuck", "broken")


class InjectedFault(NamedTuple):
    """A fault in a copy of a stretch."""

    stretch: int
    fault: Fault


@dataclass(frozen=True, slots=True)
class FaultTrial:
    """Stretches of recent readings, and the faults to inject into copies of them."""

    recent: Recent
    budget: Budget
    stretches: tuple[tuple[int, int], ...]
    """Number of the series, and of its first window."""
    n_before: int
    """Windows before the fault."""
    n_after: int
    faults: tuple[InjectedFault, ...]
    sensors: Sensors
    seed: int

    @classmethod
    def draw(cls, recent: Recent, budget: Budget, judge_by: Version, seed: int) -> FaultTrial:
        """Draw stretches and faults. `judge_by`: the version whose inputs say which faults mean something."""
        rng = np.random.default_rng(seed)
        policy = policy_of(budget, recent.stride_factor)
        n_before = policy.among - 1
        places = _places(recent, n_before + N_AFTER)
        sensors = measure(_healthy(recent), recent.sensors, judge_by.inputs)
        n_values = (n_before + N_AFTER) * judge_by.card.length * max(1, len(recent.sensors))
        n = min(N_FAULTS, max(MIN_FAULTS, MAX_FAULTY_VALUES // n_values))
        possible = [
            (kind, sensor)
            for sensor in range(len(recent.sensors))
            for kind in KINDS
            if sensors.why_not(sensor, kind) is None
        ]
        faults: list[InjectedFault] = []
        if possible and places:
            order = np.concatenate([rng.permutation(len(possible)) for _ in range(-(-n // len(possible)))])[:n]
            for number, choice in enumerate(order.tolist()):
                kind, sensor = possible[choice]
                place = number % len(places)
                series, first = places[place]
                ends = recent.series[series].end[first : first + n_before + N_AFTER]
                begin, n_rows = int(ends[n_before]) - 1, int(ends[-1] - ends[n_before]) + 1
                start = int(ends[0]) - recent.length
                before = begin - start
                if kind == "broken" and n_rows > before and not _others(
                    recent.series[series].values, start, int(ends[-1])
                ):
                    continue  # no other time to take values from
                size = _size(kind, sensor, sensors, recent, rng)
                faults.append(InjectedFault(place, Fault(kind, sensor, begin, size)))
        return cls(recent, budget, tuple(places), n_before, N_AFTER, tuple(faults), sensors, seed)

    def run(self, version: Version) -> Detected:
        """Score all copies by a version."""
        clean = self._scores(version, [(place, None) for place in range(len(self.stretches))])
        faulty = self._scores(version, [(each.stretch, number) for number, each in enumerate(self.faults)])
        stretch = np.array([each.stretch for each in self.faults], np.int64)
        return Detected(self, clean[stretch], faulty)

    def fires(self, scores: Float32) -> Bool:
        """Return the mask [K] of the copies in which an alert fires, for scores [K, n] of their windows."""
        return policy_of(self.budget, self.recent.stride_factor).fires(scores)

    def _scores(self, version: Version, copies: Sequence[tuple[int, int | None]]) -> Float32:
        """Return the scores [K, n] of the windows of each copy: a stretch, with the number of a fault or None."""
        n = self.n_before + self.n_after
        out = np.empty((len(copies), n), np.float32)
        at_once = max(1, CHUNK // n)
        for first in range(0, len(copies), at_once):
            some = copies[first : first + at_once]
            windows = np.concatenate([self._windows(version, place, number) for place, number in some])
            names = [self.recent.series[self.stretches[place][0]].asset for place, _ in some for _ in range(n)]
            owners = [name for name in names if isinstance(name, str)]
            known = owners if len(owners) == len(names) else None
            ends_us = np.concatenate([self._ends_us(place) for place, _ in some])
            score = version.score(windows, known, end_us=ends_us, share_normal=False).score
            out[first : first + at_once] = score.reshape(len(some), n)
        return out

    def _ends_us(self, place: int) -> Int64:
        """Return the event times [n] of the ends of the windows of a stretch."""
        series, first = self.stretches[place]
        return self.recent.series[series].end_us[first : first + self.n_before + self.n_after]

    def _windows(self, version: Version, place: int, number: int | None) -> Float32:
        """Return the windows [n, T, C] of a stretch for a version, clean (None) or with a fault."""
        series_number, first = self.stretches[place]
        series = self.recent.series[series_number]
        ends = series.end[first : first + self.n_before + self.n_after]
        begin, end = int(ends[0]) - self.recent.length, int(ends[-1])
        values = series.values[begin:end]
        if number is not None:
            fault = self.faults[number].fault
            there = replace(fault, begin=fault.begin - begin)
            rng = np.random.default_rng([self.seed, number])
            values = inject(values, there, self.sensors, rng, _others(series.values, begin, end))
        return windows_at(version, self.recent.sensors, values, ends - begin)


@dataclass(frozen=True, slots=True)
class Detected:
    """Scores of a trial by one version."""

    trial: FaultTrial
    clean: Float32
    """[N, n], of the clean copy of each fault."""
    faulty: Float32
    """[N, n]"""

    def is_noisy(self, factor: float = 1.0) -> Bool:
        """Return [N], the version raises an alert on the clean copy. `factor`: of all scores."""
        return self.trial.fires(self.clean * np.float32(factor))

    def found(self, factor: float = 1.0) -> Bool:
        """Return [N], the faults that the version detects. `factor`: of all scores."""
        return self.trial.fires(self.faulty * np.float32(factor)) & ~self.is_noisy(factor)


class Loss(NamedTuple):
    """Difference of recall of two versions on the same faults, champion minus challenger."""

    mean: float
    low: float
    """Bounds of the mean, each with a confidence of 95 %."""
    high: float
    n: int


Z = 1.645


def loss_of(champion: Bool, challenger: Bool, z: float = Z) -> Loss:
    """Return the loss of recall by the challenger, with its bounds (paired differences, Wald with one fault added)."""
    n = len(champion)
    if not n:
        return Loss(0.0, -1.0, 1.0, 0)
    lost, gained = int((champion & ~challenger).sum()), int((challenger & ~champion).sum())
    mean = (lost - gained) / n
    half = z * math.sqrt(max(lost + gained + 1 - (lost - gained) ** 2 / n, 1.0)) / n
    return Loss(mean, mean - half, mean + half, n)


def _others(values: Float32, begin: int, end: int) -> list[Float32]:
    """Return the readings of the same asset that do not overlap a stretch, where they are as long."""
    return [part for part in (values[:begin], values[end:]) if len(part) >= end - begin]


def _healthy(recent: Recent) -> list[Stretch]:
    return [
        Stretch(number, int(each.end_us[-1]), _without_alerts(recent, number))
        for number, each in enumerate(recent.series)
        if len(each.end)
    ]


def _without_alerts(recent: Recent, number: int) -> Float32:
    """Return the readings of a series, those of windows that overlap an alert NaN."""
    series = recent.series[number]
    if series.counted.all():
        return series.values
    kept = np.zeros(len(series.values), np.bool_)
    for end in series.end[series.counted].tolist():
        kept[end - recent.length : end] = True
    return np.where(kept[:, None], series.values, np.float32(np.nan))


def _places(recent: Recent, n_windows: int) -> list[tuple[int, int]]:
    """Return series and first window of the stretches: windows that follow one another and overlap no alert."""
    found: list[tuple[int, int]] = []
    for number, series in enumerate(recent.series):
        if len(series.end) < n_windows:
            continue
        step = np.diff(series.end)
        usual = int(np.median(step)) if len(step) else 1
        follows = np.concatenate([[True], step == usual]) & series.counted
        n_in_row = np.zeros(len(follows), np.int64)
        count = 0
        for row in range(len(follows) - 1, -1, -1):
            count = count + 1 if series.counted[row] else 0
            n_in_row[row] = count
            if not follows[row]:
                count = 0
        found += [(number, row) for row in np.flatnonzero(n_in_row >= n_windows).tolist()]
    rows = np.linspace(0, len(found) - 1, min(N_STRETCHES, len(found))).round().astype(np.int64)
    return [found[row] for row in rows.tolist()]


def _size(kind: str, sensor: int, sensors: Sensors, recent: Recent, rng: np.random.Generator) -> float:
    if kind == "lag":
        low, high = LAG_SHARE
        return max(1.0, float(round(recent.length * math.exp(rng.uniform(math.log(low), math.log(high))))))
    if kind not in SIZES:
        return 0.0
    low, high = SIZES[kind]
    size = math.exp(rng.uniform(math.log(low), math.log(high)))
    return float(min(size, sensors.largest(sensor, kind)) * rng.choice((-1.0, 1.0)))
