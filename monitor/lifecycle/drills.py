"""Drills: faults injected into copies of a fleet's recent readings, to measure the least size that would be detected.

Input: a version, and recent windows of its fleet. Output: a plain document (`drill`) that the database keeps: by sensor
and kind of fault the minimum detectable size and the delay, and the fleet's summary.
Invariant: seeded and deterministic but for `took_s`, nothing is written, and no label is used. Windows are tested,
scored and decided by the functions of the pipeline: sensor tests, the version's score, `stream/alerting.py`.

One copy is a stretch of an asset's readings: a healthy lead, then the fault until the horizon. It counts as detected
where an alert opens in it, of the machine or of that sensor, and none opens in the same stretch without the fault.
Stretches that alarm without a fault are left out and counted. Where most do, they stay, and detect nothing: a version
that alarms all the time has no recall.

The minimum detectable size is the smallest of a ladder of sizes at which 90 % of the copies are detected. The search
for it decides at a few moments of a copy (`MOMENTS`), the figures reported at the end at every window. An alert at such
a moment is one at every window, so the search may find a size too large, never one too small. It assumes that a larger
fault is found no less often.

The cost is bounded by values scored (`MAX_VALUES`): with many sensors there are fewer copies, and at last fewer
sensors, drawn anew for each seed. The document says how many.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from monitor.alert_health import at_least_probability, proportion_at_least
from monitor.clock import from_us
from monitor.errors import NotEnoughData
from monitor.lifecycle.injection import KINDS, SIZED, UNITS, Fault, Sensors, inject, measure, stretches
from monitor.stream.alerting import AlertPolicy, Decider
from monitor.stream.score import misfit
from monitor.stream.sensor_health import NOT_TESTED, SensorTests
from monitor.types import AlertState, Scores, Windows

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from monitor.config import FleetConfig
    from monitor.lifecycle.injection import Stretch
    from monitor.models.detector import TrainedModel
    from monitor.models.spec import TrainingSet
    from monitor.types import Float32, UInt8

TARGET = 0.9
"""Share of the copies that must be detected."""
SIZES = (0.25, 0.35, 0.5, 0.7, 1.0, 1.4, 2.0, 2.8, 4.0, 5.6, 8.0, 11.0, 16.0)
"""Ladder of sizes, in spreads of the sensor. Each is about √2 times the one before."""
REFERENCE_SIZE = 4.0
"""Size whose recall is compared from drill to drill: obvious to a person who looks at the sensor."""
LAGS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64)
"""Ladder of lags, in rows, up to half a window."""
REFERENCE_LAG = 0.25
"""The same for lags, as a share of the window."""
N_COPIES = (30, 20, 10)
"""Copies of each sensor and kind: as many as `MAX_VALUES` allows. 30 is the least number that bounds the 90 % size from
above: all of 30 are detected by chance in less than 5 % of the cases where fewer than 90 % would be."""
MIN_COPIES = 5
MAX_VALUES = 1_000_000_000
"""Values scored, about: windows × steps × sensors. One to five minutes of a core, depending on the version."""
MIN_SENSORS = 4
MOMENTS = (1.0, 2.0, 0.5, 0.125, 1.5)
"""Ages of the fault, in windows, at which the search looks for an alert. The likeliest first."""
ROWS_PER_ASSET = 64
"""Recent readings of each asset that copies are made of, in copies."""
MAX_ASSETS = 64
BATCH = 16
"""Windows of each copy that are scored at once. A copy with an alert needs no further ones."""
VALUES_AT_ONCE = 4_000_000
"""Values of the windows that are held in memory at once."""

PROCESS, SENSOR = "process", "sensor"
"""Class of the alert that detects a fault first."""


class Detection(NamedTuple):
    """The outcome of one copy with a fault."""

    delay_rows: int | None
    """Rows from the first faulty one to the end of the window that opened the alert. None = not detected."""
    by: str = ""


@dataclass(frozen=True, slots=True)
class Place:
    """A stretch that copies are made of: a lead and a horizon."""

    number: int
    asset: int
    values: Float32
    """[lead + horizon, C]"""
    end_us: int
    """Event time of the end of the last row."""
    others: tuple[Float32, ...]
    """Further readings of the asset, without those of this place."""


def drill(
    model: TrainedModel,
    windows: TrainingSet,
    fleet: FleetConfig,
    sensors: Sequence[str],
    *,
    seed: int = 0,
    only: Sequence[str] | None = None,
    max_values: int = MAX_VALUES,
    on_progress: Callable[[float, str], None] | None = None,
) -> dict[str, Any]:
    """Drill a version on recent windows, and return the document.

    `sensors`: names of the columns. `only`: drill these sensors. `on_progress`: called with a share and words. Raises
    NotEnoughData where the windows hold too few healthy stretches, or the version cannot score them.
    """
    fleet = fleet.with_length(model.card.length)
    if (reason := misfit(model, windows.values.shape[1], sensors)) is not None:
        raise NotEnoughData(f"no drill of {fleet.name}: {model.version} {reason}")
    return _Drill(model, windows, fleet, tuple(sensors), seed).run(only, max_values, on_progress or _silent)


def _silent(_share: float, _text: str) -> None:
    return


class _Drill:
    """One drill of one version."""

    def __init__(
        self, model: TrainedModel, windows: TrainingSet, fleet: FleetConfig, sensors: tuple[str, ...], seed: int
    ) -> None:
        self._began_s = time.monotonic()
        self._model, self._fleet, self._names, self._seed = model, fleet, sensors, seed
        self._rng = np.random.default_rng([seed, 0])
        self._length, self._stride = model.card.length, fleet.stride
        self._policy = AlertPolicy.of(fleet.alerts)
        self._tests = SensorTests(sensors, fleet, model)
        self._n_before = self._policy.among - 1
        """Windows before the fault that an alert may rest on, besides the last healthy one."""
        self._lead = self._length + self._n_before * self._stride
        wanted = self._length + max(self._length, 2 * self._policy.among * self._stride)
        self._n_windows = -(-wanted // self._stride)
        """Windows of a copy that contain the fault."""
        self._horizon = self._n_windows * self._stride
        self._assets = windows.assets
        self._n_scored = 0
        recent = self._recent(windows)
        self._from_us = min((each.end_us - len(each.values) * fleet.interval_us for each in recent), default=0)
        self._to_us = max((each.end_us for each in recent), default=0)
        self._sensors: Sensors = measure(recent, sensors, model.inputs)
        self._stretches = recent

    def run(
        self, only: Sequence[str] | None, max_values: int, on_progress: Callable[[float, str], None]
    ) -> dict[str, Any]:
        columns = [number for number, name in enumerate(self._names) if only is None or name in only]
        drilled, n_copies = self._sample([c for c in columns if self._kinds_of(c)], max_values)
        on_progress(0.0, "scoring healthy copies")
        places, n_tried, n_alarmed = self._places(2 * n_copies)
        found: dict[str, dict[str, Any]] = {}
        for done, column in enumerate(drilled):
            on_progress(done / len(drilled), f"sensor {done + 1} of {len(drilled)}: {self._names[column]}")
            found[self._names[column]] = self._drill_sensor(column, places, n_copies)
        return {
            "fleet": self._fleet.name,
            "version": self._model.version,
            "seed": self._seed,
            "from": from_us(self._from_us).isoformat(),
            "to": from_us(self._to_us).isoformat(),
            "interval_s": self._fleet.interval.total_seconds(),
            "window_s": self._in_s(self._length),
            "horizon_s": self._in_s(self._horizon),
            "copies": min(n_copies, len(places)),
            "assets": len({place.asset for place in places}),
            "healthy": {"copies": n_tried, "alarmed": n_alarmed, "allowed": round(self._allowed(), 4)},
            "n_sensors": len(columns),
            "n_drilled": len(drilled),
            "sensors": [self._document(column, found.get(self._names[column])) for column in columns],
            "kinds": {kind: _summary([each[kind] for each in found.values()]) for kind in KINDS},
            "windows": self._n_scored,
            "took_s": round(time.monotonic() - self._began_s, 1),
        }

    def _allowed(self) -> float:
        """Return the share of healthy copies in which the budget allows an alert."""
        covered = self._fleet.interval * (self._n_before + 1 + self._n_windows) * self._stride
        return float(1 - np.exp(-self._fleet.alerts.budget.within(covered)))

    # ------------------------------------------------------------------ samples

    def _recent(self, windows: TrainingSet) -> list[Stretch]:
        n_rows = ROWS_PER_ASSET * (self._lead + self._horizon)
        assets = np.unique(windows.asset)
        if len(assets) > MAX_ASSETS:
            assets = self._rng.choice(assets, MAX_ASSETS, replace=False)
        return stretches(windows, self._fleet.interval_us, n_rows=n_rows, assets=assets.tolist())

    def _kinds_of(self, column: int) -> list[str]:
        return [kind for kind in KINDS if self._sensors.why_not(column, kind) is None]

    def _sample(self, columns: list[int], max_values: int) -> tuple[list[int], int]:
        """Return the columns to drill and the number of copies of each, whose cost stays within `max_values`."""
        n_moments = min(self._n_windows, len(MOMENTS) * self._policy.among)
        # Half of the windows are skipped, because a copy with an alert needs no further ones.
        of_kinds = len(SIZED) * (5 * n_moments / 2 + self._n_windows / 2) + 3 * self._n_windows / 2
        per_copy = of_kinds * self._length * len(self._names)
        for n_copies in N_COPIES:
            if len(columns) * n_copies * per_copy <= max_values:
                return columns, n_copies
        n_most = max(MIN_SENSORS, int(max_values / (N_COPIES[-1] * per_copy)))
        drawn = self._rng.permutation(len(columns))[:n_most]
        return [columns[number] for number in sorted(drawn.tolist())], N_COPIES[-1]

    def _places(self, n: int) -> tuple[list[Place], int, int]:
        """Return places to drill in, the number of those tried, at most n, and that of those that alarm.

        Without overlap, one of each asset in turn. A place that alarms without a fault says nothing, and is left out.
        Where more than half of them alarm, they stay: the version detects nothing there. Raises NotEnoughData where
        there are too few.
        """
        size = self._lead + self._horizon
        by_asset: dict[int, list[tuple[Stretch, int]]] = {}
        for each in self._stretches:
            slots = len(each.values) // size
            starts = [len(each.values) - (slot + 1) * size for slot in range(slots)]
            by_asset.setdefault(each.asset, []).extend((each, start) for start in starts)
        for asset, of_asset in by_asset.items():
            by_asset[asset] = [of_asset[number] for number in self._rng.permutation(len(of_asset))]
        in_turn = [of_asset[turn] for turn in range(ROWS_PER_ASSET + 1) for of_asset in by_asset.values()
                   if turn < len(of_asset)]  # fmt: skip
        places = [
            Place(
                number,
                each.asset,
                each.values[start : start + size],
                each.end_us - (len(each.values) - start - size) * self._fleet.interval_us,
                self._others(each, start, size),
            )
            for number, (each, start) in enumerate(in_turn[:n])
        ]
        if len(places) < MIN_COPIES:
            raise NotEnoughData(
                f"no drill of {self._fleet.name}: {len(places)} stretches of {size} healthy readings, and {MIN_COPIES} "
                f"are needed"
            )
        copies = [place.values for place in places]
        alarmed = [each.delay_rows is not None for each in self._detect(copies, places, None)]
        quiet = [place for place, is_alarmed in zip(places, alarmed, strict=True) if not is_alarmed]
        loud = [place for place, is_alarmed in zip(places, alarmed, strict=True) if is_alarmed]
        self._loud = {place.number for place in loud}
        is_usual = len(quiet) >= max(MIN_COPIES, len(places) / 2)
        return (quiet if is_usual else [*quiet, *loud]), len(places), len(loud)

    def _others(self, stretch: Stretch, start: int, size: int) -> tuple[Float32, ...]:
        own = (stretch.values[:start], stretch.values[start + size :])
        rest = (each.values for each in self._stretches if each.asset == stretch.asset and each is not stretch)
        return tuple(each for each in (*own, *rest) if len(each) >= self._horizon)

    # ------------------------------------------------------------------ one sensor

    def _drill_sensor(self, column: int, places: Sequence[Place], n_copies: int) -> dict[str, Any]:
        found: dict[str, Any] = {}
        usable = [place for place in places if self._has_values(place, column)]
        for kind in KINDS:
            reason = self._sensors.why_not(column, kind)
            here = [place for place in usable if place.others] if kind == "broken" else usable
            here = [] if reason else self._effective(here, column, kind)[:n_copies]
            if reason is None and len(here) < MIN_COPIES:
                reason = f"{len(here)} healthy stretches in which it would change something, {MIN_COPIES} are needed"
            found[kind] = {"skipped": reason} if reason else self._search(column, kind, here)
        return found

    def _has_values(self, place: Place, column: int) -> bool:
        known = np.isfinite(place.values[:, column])
        return bool(known[: self._lead].any() and known[self._lead :].mean() >= 0.5)

    def _effective(self, places: Sequence[Place], column: int, kind: str) -> list[Place]:
        """Return the places in which the fault changes something: a valve that rests is not stuck."""
        size = float(self._ladder(column, kind)[-1]) if kind in SIZED else 0.0
        return [
            place for place in places
            if not np.array_equal(self._copy(place, column, kind, size), place.values, equal_nan=True)
        ]  # fmt: skip

    def _ladder(self, column: int, kind: str) -> tuple[float, ...]:
        if kind == "lag":
            return tuple(float(each) for each in LAGS if each <= max(1, self._length // 2))
        largest = self._sensors.largest(column, kind)
        return tuple(each for each in SIZES if each <= largest) or SIZES[:1]

    def _search(self, column: int, kind: str, places: Sequence[Place]) -> dict[str, Any]:
        """Find the minimum detectable size, and measure recall and delay at it."""
        n, tested = len(places), dict[float, int]()
        size, reference = 0.0, None
        ladder = self._ladder(column, kind) if kind in SIZED else ()
        if ladder:
            wanted = REFERENCE_LAG * self._length if kind == "lag" else REFERENCE_SIZE
            first = max((number for number, each in enumerate(ladder) if each <= wanted), default=0)
            low, high, number = -1, len(ladder), first
            while low + 1 < high:
                found = self._try(column, kind, ladder[number], places, is_full=False)
                tested[ladder[number]] = n_found = sum(each.delay_rows is not None for each in found)
                low, high = (low, number) if n_found >= TARGET * n else (number, high)
                number = len(ladder) - 1 if high == len(ladder) else (low + high) // 2
            reference = {"size": ladder[first], "found": tested[ladder[first]]}
            size = ladder[min(high, len(ladder) - 1)]
        detections = self._try(column, kind, size, places, is_full=True)
        n_found = sum(each.delay_rows is not None for each in detections)
        tested[size] = max(n_found, tested.get(size, 0))
        is_found = n_found >= TARGET * n
        delays = sorted(self._in_s(each.delay_rows) for each in detections if each.delay_rows is not None)
        own_unit = self._fleet.interval.total_seconds() if kind == "lag" else float(self._sensors.spread[column])
        low_size, high_size = _interval(ladder, tested, n)
        return {
            "n": n,
            "found": n_found,
            "is_found": is_found,
            **_share(n_found, n),
            "size": size if ladder and is_found else None,
            "size_low": low_size,
            "size_high": high_size,
            "largest": ladder[-1] if ladder else None,
            "unit": UNITS.get(kind),
            "value": round(size * own_unit, 6) if ladder and is_found else None,
            "delay_s": float(np.median(delays)) if delays else None,
            "delay_90_s": float(np.quantile(delays, 0.9, method="inverted_cdf")) if delays else None,
            "by": {who: sum(each.by == who for each in detections) for who in (PROCESS, SENSOR)},
            "reference": reference or {"size": None, "found": n_found},
        }

    def _try(
        self, column: int, kind: str, size: float, places: Sequence[Place], *, is_full: bool
    ) -> list[Detection]:
        """Inject one size into all places. A place that alarms without a fault detects none."""
        quiet = [place for place in places if place.number not in self._loud]
        copies = [self._copy(place, column, kind, size) for place in quiet]
        found = self._detect(copies, quiet, column, is_full=is_full)
        return found + [Detection(None)] * (len(places) - len(quiet))

    def _copy(self, place: Place, column: int, kind: str, size: float) -> Float32:
        # The same draws for all sizes of a place: a larger fault is the same fault, only larger.
        rng = np.random.default_rng([self._seed, 1 + column, KINDS.index(kind), place.number])
        sign = 1.0 if kind == "lag" else float(rng.choice((-1.0, 1.0)))
        return inject(place.values, Fault(kind, column, self._lead, sign * size), self._sensors, rng, place.others)

    # ------------------------------------------------------------------ windows → alerts

    def _detect(
        self, copies: Sequence[Float32], places: Sequence[Place], column: int | None, *, is_full: bool = True
    ) -> list[Detection]:
        """Decide on copies as the pipeline would. `column`: the faulty sensor. None = alerts of all sensors count."""
        found = [Detection(None)] * len(copies)
        if not copies:
            return found
        for numbers, is_new in self._schedule(is_full=is_full):
            left = [copy for copy, each in enumerate(found) if each.delay_rows is None]
            if not left:
                break
            if is_new:
                deciders = {who: Decider(self._fleet.name, self._policy) for who in (PROCESS, SENSOR)}
            scored = self._score(copies, [places[copy] for copy in left], left, numbers)
            ends = np.tile(np.array(numbers, dtype=np.int64) * self._stride, len(left))
            asset = np.repeat(np.array(left, dtype=np.int32), len(numbers))
            for who, score in ((SENSOR, self._findings(scored[1], column)), (PROCESS, scored[0])):
                for copy, end in _alarms(deciders[who], score, asset, ends):
                    known = found[copy].delay_rows
                    if known is None or end < known:
                        found[copy] = Detection(end, who)
        return found

    def _schedule(self, *, is_full: bool) -> Iterator[tuple[list[int], bool]]:
        """Yield numbers of windows to score together, and whether a decision begins anew with them.

        Window n ends n strides after the last healthy reading.
        """
        n, among = self._n_windows, self._policy.among
        if is_full or n <= len(MOMENTS) * among:
            yield list(range(-self._n_before, min(BATCH, n) + 1)), True
            for first in range(BATCH + 1, n + 1, BATCH):
                yield list(range(first, min(first + BATCH, n + 1))), False
            return
        for age in MOMENTS:
            last = min(n, round(age * self._length / self._stride) + among - 1)
            yield list(range(last - among + 1, last + 1)), True

    def _score(
        self, copies: Sequence[Float32], places: Sequence[Place], left: Sequence[int], numbers: Sequence[int]
    ) -> tuple[Float32, UInt8]:
        """Return scores [N] and findings [N, C] of some windows of the copies that are left, copy by copy."""
        starts = [self._lead + number * self._stride - self._length for number in numbers]
        rows_left = self._lead + self._horizon - self._length - np.array(starts, dtype=np.int64)
        to_end = rows_left * self._fleet.interval_us
        at_once = max(1, VALUES_AT_ONCE // (len(starts) * self._length * len(self._names)))
        scores, findings = [], []
        for first in range(0, len(left), at_once):
            part = left[first : first + at_once]
            values = np.stack([copies[copy][start : start + self._length] for copy in part for start in starts])
            tested = self._tests.inspect(values)
            here = places[first : first + at_once]
            names = [self._assets[place.asset] for place in here for _ in starts] if self._assets else None
            ends_us = np.concatenate([place.end_us - to_end for place in here])
            chosen = self._model.inputs.select(tested.values, self._names)
            scores.append(self._model.score(chosen, names, end_us=ends_us, share_normal=False).score)
            findings.append(tested.findings)
            self._n_scored += len(values)
        return np.concatenate(scores), np.concatenate(findings)

    def _findings(self, findings: UInt8, column: int | None) -> Float32:
        """Return the findings of a sensor [N] as scores: 1 = it fails a test, NaN = it was not tested."""
        if column is not None:
            findings = findings[:, [column]]
        fails = ((findings > 0) & (findings != NOT_TESTED)).any(axis=1)
        is_tested = (findings != NOT_TESTED).any(axis=1)
        return np.where(is_tested, fails, np.nan).astype(np.float32)

    def _document(self, column: int, kinds: dict[str, Any] | None) -> dict[str, Any]:
        return {
            "name": self._names[column],
            "type": self._sensors.types[column],
            "spread": float(self._sensors.spread[column]),
            "kinds": kinds,
        }

    def _in_s(self, rows: int) -> float:
        return round(rows * self._fleet.interval.total_seconds(), 6)


def _alarms(decider: Decider, score: Float32, asset: np.ndarray[Any, np.dtype[np.int32]],
            end: np.ndarray[Any, np.dtype[np.int64]]) -> Iterator[tuple[int, int]]:  # fmt: skip
    """Yield the assets whose alert opens with these scores, and the end of the window that opened it."""
    nothing = np.zeros(len(score), dtype=np.int64)
    windows = Windows(decider.fleet, asset, nothing, np.empty((len(score), 0, 0), np.float32),
                      np.zeros(len(score), np.int32), nothing, nothing)  # fmt: skip
    for change in decider.decide(Scores(windows, score, [""] * len(score), {}), end):
        if change.is_transition and change.state is AlertState.FIRING and change.at_us == change.peak_us:
            yield change.asset, change.at_us


def _share(k: int, n: int) -> dict[str, float]:
    """Return a share, and its 95 % interval (Clopper & Pearson 1934)."""
    low, high = proportion_at_least(k, n, 0.975), 1 - proportion_at_least(n - k, n, 0.975)
    return {"recall": round(k / n, 4), "recall_low": round(low, 4), "recall_high": round(high, 4)}


def _interval(ladder: Sequence[float], tested: dict[float, int], n: int) -> tuple[float | None, float | None]:
    """Return the 95 % bounds of the minimum detectable size, by the sizes that were tried. None = there is none.

    By order statistics: each copy has a least size of its own, and the size wanted is the 90 % quantile of these. It
    lies above a size at which so few of n were detected that 90 % is refuted, and not above one at which all were, if n
    is large enough for that to refute less than 90 %.
    """
    refuted = [size for size, k in tested.items() if at_least_probability(n - k, n, 1 - TARGET) < 0.05]
    proven = [size for size, k in tested.items() if k == n and TARGET**n < 0.05]
    above = [size for size in ladder if not refuted or size > max(refuted)]
    return (min(above) if above else None), (min(proven) if proven else None)


def _summary(cells: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return the summary of one kind of fault over the sensors of a fleet."""
    drilled = [cell for cell in cells if "skipped" not in cell]
    if not drilled:
        return {"sensors": 0}
    sizes = sorted(np.inf if cell["size"] is None else cell["size"] for cell in drilled)
    middle = sizes[(len(sizes) - 1) // 2]
    delays = [cell["delay_s"] for cell in drilled if cell["delay_s"] is not None]
    n, n_found = sum(cell["n"] for cell in drilled), sum(cell["reference"]["found"] for cell in drilled)
    return {
        "sensors": len(drilled),
        "found": sum(cell["is_found"] for cell in drilled),
        "size": middle if np.isfinite(middle) else None,
        "unit": drilled[0]["unit"],
        "reference": drilled[0]["reference"]["size"],
        "delay_s": float(np.median(delays)) if delays else None,
        "copies": n,
        "detected": n_found,
        **_share(n_found, n),
    }
