"""A survey of sampled records: how the decoder reads them, and how they fit the settings of their fleet.

Input: the configuration, and neighbouring records of each partition (a *stretch*). Output: a `FleetSurvey` per fleet.
Invariant: the records are decoded by the daemon's decoder, and the survey only counts what it returns.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from monitor.config.spacing import Spacing
from monitor.decode.columns import widened
from monitor.signals import find_counter, find_sentinels
from monitor.stream.partition import make_decoder, schemas_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from monitor.config import Config, FleetConfig
    from monitor.types import Float32, Int32, Int64, Notice, RecordBatch

TICK_US = 1_000
"""Resolution of the surveyed times. The decoder returns cells of the grid, so its grid is made this fine."""
MAX_ASSETS = 50
"""Assets of which times and values are examined."""
MIN_SAME = 20
"""Readings of one value that make a sensor look constant."""


class Refusal(NamedTuple):
    """Records that cannot be used, for one reason."""

    word: str
    n: int
    example: str
    """The reason of the first one."""
    position: str
    """Its partition and offset."""


@dataclass(frozen=True, slots=True)
class SensorFacts:
    """One sensor in the sample."""

    name: str
    share: float
    """Share of the assets' readings in which it has a value."""
    low: float
    high: float
    remark: str = ""
    """A reason to doubt that it is a measurement; "" = none."""


class Places(NamedTuple):
    """Where the records of a fleet have asset and time, the most frequent first."""

    asset: tuple[str, ...]
    time: tuple[str, ...]
    unit: tuple[str, ...]
    """Notations of the times: s, ms, iso, …"""
    shape: tuple[str, ...]
    """Structures of the records."""


@dataclass(slots=True)
class FleetSurvey:
    """Records of one fleet in the sample."""

    fleet: str
    n_records: int = 0
    """Records of its topics."""
    n_used: int = 0
    """Records with a reading of the fleet."""
    n_readings: int = 0
    n_other: int = 0
    """Records of its topics that other fleets use, and tombstones."""
    refused: list[Refusal] = field(default_factory=list)
    """Records of its topics that cannot be used, most frequent first."""
    assets: list[str] = field(default_factory=list)
    """In order of appearance."""
    sensors: list[SensorFacts] = field(default_factory=list)
    spacing: Spacing | None = None
    """None = too few readings."""
    late_s: float = 0.0
    """The most that a reading came behind the newest reading of its asset."""
    ahead: dict[str, float] = field(default_factory=dict)
    """Asset → seconds by which its times are ahead of Kafka's, the furthest first."""
    span_us: tuple[int, int] | None = None
    """First and last event time."""
    readings_per_asset: int = 0
    """Readings that the topics hold of a usual asset, by the share of the sample."""
    cycle: str = ""
    """Description of the cycle of the sensors, where one is too long for a usual window. Empty = none is known."""
    notices: list[Notice] = field(default_factory=list)
    places: Places | None = None
    """Set by `places.py`."""

    @property
    def n_refused(self) -> int:
        """Records of the fleet's topics that cannot be used."""
        return sum(each.n for each in self.refused)

    @property
    def share_refused(self) -> float:
        """Share of the records that cannot be used."""
        return self.n_refused / self.n_records if self.n_records else 0.0


class _Columns(NamedTuple):
    """Readings of one fleet in one stretch."""

    asset: Int32
    us: Int64
    stamp_us: Int64
    values: Float32


def survey(
    config: Config, stretches: Sequence[RecordBatch], known: Mapping[str, tuple[str, ...] | None] | None = None
) -> dict[str, FleetSurvey]:
    """Decode the stretches as a daemon would, and return the findings by fleet.

    `known`: by fleet, the sensors that the database has.
    """
    schemas = [
        replace(schema, interval_us=TICK_US, sensors=schema.sensors or (known or {}).get(schema.name))
        for schema in schemas_of(config, is_limited=False)
    ]
    decoder = make_decoder(config, schemas)
    found = {fleet.name: FleetSurvey(fleet.name) for fleet in config.fleets}
    columns: dict[str, list[_Columns]] = {fleet.name: [] for fleet in config.fleets}
    refused: dict[str, dict[str, list[tuple[str, str]]]] = {}
    for batch in stretches:
        decoded = decoder.decode(batch)
        topic = batch.partition.topic
        for record in decoded.quarantined:
            where = f"{record.partition} offset {record.offset}"
            refused.setdefault(topic, {}).setdefault(record.word, []).append((record.reason, where))
        for fleet, readings in zip(config.fleets, decoded.readings, strict=True):
            of_fleet = found[fleet.name]
            if len(readings):
                row = np.searchsorted(batch.offsets, readings.offset)
                us = readings.cell * TICK_US
                part = _Columns(readings.asset, us, batch.timestamps_us[row], readings.values)
                columns[fleet.name].append(part)
                of_fleet.n_used += len(np.unique(readings.offset))
                of_fleet.n_readings += len(readings)
        for fleet in config.fleets:
            if topic in config.topics_of(fleet):
                found[fleet.name].n_records += len(batch)
        for notice in decoded.notices:
            found[notice.fleet].notices.append(notice)
    for fleet, sensors, index in zip(config.fleets, decoder.fleets, decoder.assets, strict=True):
        of_fleet = found[fleet.name]
        of_fleet.assets = list(index.names)
        of_fleet.refused = _refusals(refused, config.topics_of(fleet))
        of_fleet.n_other = of_fleet.n_records - of_fleet.n_used - of_fleet.n_refused
        n_sensors = len(sensors.sensors or ())  # of all stretches: later ones may have further sensors
        parts = [part._replace(values=widened(part.values, n_sensors)) for part in columns[fleet.name]]
        _measure(of_fleet, fleet, parts, sensors.sensors or ())
    return found


def _refusals(refused: Mapping[str, Mapping[str, list[tuple[str, str]]]], topics: Sequence[str]) -> list[Refusal]:
    by_word: dict[str, list[tuple[str, str]]] = {}
    for topic in topics:
        for word, examples in refused.get(topic, {}).items():
            by_word.setdefault(word, []).extend(examples)
    found = [Refusal(word, len(each), each[0][0], each[0][1]) for word, each in by_word.items()]
    return sorted(found, key=lambda refusal: -refusal.n)


# ---------------------------------------------------------------- times and values


def _measure(found: FleetSurvey, fleet: FleetConfig, parts: Sequence[_Columns], sensors: Sequence[str]) -> None:
    if not parts:
        return
    us = np.concatenate([part.us for part in parts])
    found.span_us = (int(us.min()), int(us.max()))
    found.spacing = _spacing(parts, len(sensors))
    found.late_s = max(_lateness_s(part) for part in parts)
    ahead = Counter[str]()
    for part in parts:
        for number in np.unique(part.asset).tolist():
            rows = (part.asset == number) & (part.stamp_us >= 0)
            if rows.any():
                name = found.assets[number]
                ahead[name] = max(ahead[name], int((part.us - part.stamp_us)[rows].max()))
    found.ahead = {name: most / 1e6 for name, most in ahead.most_common() if most > 0}
    found.sensors = [
        facts for number, name in enumerate(sensors) if (facts := _sensor_facts(name, number, parts, found, fleet))
    ]


def _spacing(parts: Sequence[_Columns], n_sensors: int) -> Spacing | None:
    """Return the times between readings. Each sensor counts for itself: a record may hold one of many."""
    by_series: list[Int64] = []
    for part in parts:
        for number in np.unique(part.asset)[:MAX_ASSETS].tolist():
            mine = part.asset == number
            for sensor in range(n_sensors):
                times = np.unique(part.us[mine & ~np.isnan(part.values[:, sensor])])
                if len(times) > 1:
                    by_series.append(np.diff(times))
    if not by_series or sum(map(len, by_series)) < 3:
        return None
    # Each series counts alike, however many readings the sample has of it. Of two rates the faster one is the grid's.
    usual, short, long = (
        float(np.quantile([np.quantile(gaps, q) for gaps in by_series], 0.5, method="lower")) for q in (0.5, 0.1, 0.9)
    )
    return Spacing(usual / 1e6, short / 1e6, long / 1e6)


def _lateness_s(part: _Columns) -> float:
    """Return the most seconds that a reading is older than an earlier one of its asset, in the order of the log."""
    latest = 0
    for number in np.unique(part.asset).tolist():
        us = part.us[part.asset == number]
        latest = max(latest, int((np.maximum.accumulate(us) - us).max()))
    return latest / 1e6


def _sensor_facts(
    name: str, number: int, parts: Sequence[_Columns], found: FleetSurvey, fleet: FleetConfig
) -> SensorFacts | None:
    """Describe one sensor. None = it has no value in the sample."""
    usual_us = round(found.spacing.usual_s * 1e6) if found.spacing else fleet.interval_us
    grid_us = max(fleet.interval_us, usual_us)
    n_cells = n_present = 0
    series: list[Float32] = []
    for part in parts:
        cell = (part.us + grid_us // 2) // grid_us
        has_value = ~np.isnan(part.values[:, number])
        key = np.stack((part.asset.astype(np.int64), cell))
        n_cells += np.unique(key, axis=1).shape[1]
        n_present += np.unique(key[:, has_value], axis=1).shape[1]
        for asset in np.unique(part.asset[has_value])[:MAX_ASSETS].tolist():
            mine = (part.asset == asset) & has_value
            order = np.argsort(part.us[mine], kind="stable")
            series.append(part.values[mine, number][order])
    if not series:
        return None
    values = np.concatenate(series)
    low, high = float(values.min()), float(values.max())
    return SensorFacts(name, n_present / n_cells, low, high, _remark(series, low, high))


def _remark(series: Sequence[Float32], low: float, high: float) -> str:
    """Return a reason to doubt that these values are measurements. Each series is one asset's, in order of time."""
    n = sum(map(len, series))
    if low == high:
        return f"always {low:g} in the sample" if n >= MIN_SAME else ""
    length = max(map(len, series))
    rows = np.full((len(series), length), np.nan)
    for row, values in zip(rows, series, strict=True):
        row[: len(values)] = values
    if (counter := find_counter(rows)) is not None:
        return counter.reason
    if codes := find_sentinels(rows):
        return f"{', '.join(f'{code:g}' for code in codes)} seems to mean missing"
    return ""
