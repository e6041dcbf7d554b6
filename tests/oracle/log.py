"""The rules of records. Input: raw bytes. Output: readings, or the stable word of a rejection.

A log is a list of `(offset, kafka_timestamp_us, key, value)` of one partition, in offset order. The parsers are the
standard library's JSON and msgspec's MessagePack, not monitor's. Known here are the wide, flat and block layouts, and
lists of those.
Invariant: an unreadable value is missing, and a field that is no sensor is ignored. If a key occurs twice in one
object, the last value counts.
"""

from __future__ import annotations

import fnmatch
import functools
import json
import math
import re
import struct
import unicodedata
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import msgspec

if TYPE_CHECKING:
    from collections.abc import Iterable

RawRecord = tuple[int, int, bytes | None, bytes | None]
"""(offset, Kafka's timestamp in µs or -1, key, value)."""

LAST_STAMP_US = 253_402_300_799_000_000
"""The end of the year 9999. A later timestamp is none."""
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
BLANKS = set(" \u115f\u1160\u2800\u3164\uffa0")
TIME_KEYS = ("ts", "timestamp", "time")
ASSET_KEYS = ("asset", "asset_id")
MAX_DEPTH = 16
"""Levels of objects and lists. The record is the first."""
MAX_FIELDS = 2_000
"""In all objects of a record together."""
VALUES_PER_BYTE = 4
"""Limit of readings × sensors per allowed byte of a record."""


@dataclass(frozen=True, slots=True)
class FleetRule:
    """The settings of one fleet that the rules need, in cells."""

    name: str
    sensors: tuple[str, ...]
    interval_us: int
    length: int
    stride: int = 1
    lateness_cells: int = 1
    max_gap_cells: int = 0
    assets: tuple[str, ...] = ("*",)
    """Glob patterns. An asset belongs to the first fleet that matches."""
    topics: tuple[str, ...] | None = None
    """None = every topic."""
    confirm: tuple[int, int] = (3, 5)
    recover: int = 6
    max_assets: int = 10_000
    """In one partition."""


@dataclass(frozen=True, slots=True)
class Rules:
    """The fleets in the order of the configuration, and the limits on a record."""

    fleets: tuple[FleetRule, ...]
    max_record_bytes: int = 262_144
    max_skew_us: int = 600_000_000

    @functools.cache  # noqa: B019  # a few rules and a few hundred assets per test, used for every record
    def fleet_of(self, asset: str, topic: str) -> FleetRule | None:
        for fleet in self.fleets:
            if fleet.topics is not None and topic not in fleet.topics:
                continue
            if any(fnmatch.fnmatchcase(asset, pattern) for pattern in fleet.assets):
                return fleet
        return None

    def fleet(self, name: str) -> FleetRule:
        return next(fleet for fleet in self.fleets if fleet.name == name)


def rules_from(config: Any) -> Rules:
    """Return the rules of a loaded `monitor.config.Config`. Durations are converted to cells here, independently.

    Every fleet must list its sensors: learnt sensors are not a function of one partition's log.
    """
    fleets = []
    for fleet in config.fleet:
        interval_us = _microseconds(fleet.interval)
        if fleet.sensors is None:
            raise ValueError(f"fleet {fleet.name}: the oracle needs listed sensors")
        fleets.append(
            FleetRule(
                name=fleet.name,
                sensors=tuple(fleet.sensors),
                interval_us=interval_us,
                length=fleet.length,
                stride=fleet.stride,
                lateness_cells=-(-_microseconds(fleet.lateness) // interval_us),
                max_gap_cells=_microseconds(fleet.max_gap) // interval_us,
                assets=tuple(fleet.assets),
                topics=None if fleet.topics is None else tuple(fleet.topics),
                confirm=(fleet.alerts.confirm.m, fleet.alerts.confirm.n),
                recover=fleet.alerts.recover,
                max_assets=fleet.max_assets,
            )
        )
    kafka = config.kafka
    return Rules(tuple(fleets), kafka.max_record_bytes, _microseconds(kafka.max_skew))


def _microseconds(span: timedelta) -> int:
    return span // timedelta(microseconds=1)


@dataclass(frozen=True, slots=True)
class Reading:
    """Values of one asset in one cell, from one record."""

    offset: int
    fleet: str
    asset: str
    cell: int
    values: list[float | None]
    """In the order of the fleet's sensors. None = missing."""


class Refused(Exception):
    """The record is quarantined. The argument is the stable word of the reason."""

    @property
    def word(self) -> str:
        return str(self.args[0])


def cell_of(ts_us: int, interval_us: int) -> int:
    """Return the nearest cell, half up."""
    return (ts_us + interval_us // 2) // interval_us


def readings_of(record: RawRecord, rules: Rules, topic: str = "") -> list[Reading] | None:
    """Return the readings in the order of the record. None = tombstone. Raises Refused."""
    offset, kafka_us, key, value = record
    if value is None:
        return None
    if len(value) > rules.max_record_bytes:
        raise Refused("too_large")
    found: list[Reading] = []
    nothing = ""
    for body in _parse(value):
        readings, word = _readings_in(body, offset, kafka_us, key, rules, topic)
        found += readings
        nothing = nothing or word
    if not found:
        raise Refused(nothing)
    return found


def _readings_in(
    body: dict[str, Any], offset: int, kafka_us: int, key: bytes | None, rules: Rules, topic: str
) -> tuple[list[Reading], str]:
    """Return the readings of one object, and the reason if there are none."""
    asset = _asset_of(body, key)
    fleet = rules.fleet_of(asset, topic)
    if fleet is None:
        raise Refused("no_fleet")
    times, rows = _times_and_rows(body, fleet)
    if len(times) > max(1, VALUES_PER_BYTE * rules.max_record_bytes // len(fleet.sensors)):
        raise Refused("too_many_readings")
    if kafka_us >= 0 and any(ts_us > kafka_us + rules.max_skew_us for ts_us in times):
        raise Refused("future")
    readings = [
        Reading(offset, fleet.name, asset, cell_of(ts_us, fleet.interval_us), row)
        for ts_us, row in zip(times, rows, strict=True)
        if any(number is not None for number in row)  # a row of a block without any value is a gap, not a reading
    ]
    return readings, "" if readings else _no_value(body, fleet)


def _parse(value: bytes) -> list[dict[str, Any]]:
    """Parse by the first byte: a MessagePack map, or JSON, which may be a list of objects."""
    first = value[0] if value else 0
    if 0x80 <= first <= 0x8F or first in (0xDE, 0xDF):
        try:
            body = msgspec.msgpack.decode(value)
        except RecursionError:
            raise Refused("too_deep") from None
        except (msgspec.DecodeError, UnicodeDecodeError):
            raise Refused("not_msgpack") from None
    else:
        try:
            text = value.decode("utf-8").removeprefix("\ufeff")
            body = json.loads(text, parse_constant=lambda _: None, parse_float=_finite)  # NaN, Infinity, 1e999: missing
        except RecursionError:
            raise Refused("too_deep") from None
        except ValueError:
            raise Refused("not_json") from None
    bodies = body if isinstance(body, list) and body and first < 0x80 else [body]
    if not all(isinstance(each, dict) for each in bodies):
        raise Refused("wrong_type")
    if _depth(body) > MAX_DEPTH:
        raise Refused("too_deep")
    if sum(len(part) for part in _inside(body) if isinstance(part, dict)) > MAX_FIELDS:
        raise Refused("too_many_fields")
    if first < 0x80:  # Python's parser accepts half a surrogate pair, which JSON excludes
        with_replaced = json.loads(text, object_pairs_hook=list)  # also the values that a later one replaced
        if not all(map(_is_json, _inside(with_replaced))):
            raise Refused("not_json")
    return bodies


def _finite(text: str) -> float | None:
    number = float(text)
    return number if math.isfinite(number) else None


def _inside(part: Any) -> Iterable[Any]:
    """Yield a value and all nested values, names of fields included."""
    rest = [part]
    while rest:
        part = rest.pop()
        yield part
        if isinstance(part, dict):
            rest += [*part.keys(), *part.values()]
        elif isinstance(part, list | tuple):
            rest += part


def _is_json(part: Any) -> bool:
    return not isinstance(part, str) or not any("\ud800" <= letter <= "\udfff" for letter in part)


def _depth(body: Any) -> int:
    level, depth = [body], 0
    while level:
        depth += 1
        within = [inner for part in level for inner in (part.values() if isinstance(part, dict) else part)]
        level = [part for part in within if isinstance(part, dict | list)]
    return depth


def _asset_of(body: dict[str, Any], key: bytes | None) -> str:
    name = next((body[word] for word in ASSET_KEYS if body.get(word) is not None), None)
    if name is None:
        if not key:
            raise Refused("missing_asset")
        try:
            name = key.decode("utf-8")
        except UnicodeDecodeError:
            raise Refused("bad_asset") from None
    if not isinstance(name, str):
        raise Refused("wrong_type")
    name = unicodedata.normalize("NFC", name)
    if not 1 <= len(name) <= 128 or name in (".", "..") or set(name) <= BLANKS or " " in (name[0], name[-1]):
        raise Refused("bad_asset")
    if any(unicodedata.category(sign)[0] in "CZ" and sign != " " for sign in name):
        raise Refused("bad_asset")
    return name


def _times_and_rows(body: dict[str, Any], fleet: FleetRule) -> tuple[list[int], list[list[float | None]]]:
    """Detect the wire form. Return event times in µs, and one row of values for each."""
    sensors = body.get("sensors")
    ts = next((body[word] for word in TIME_KEYS if body.get(word) is not None), None)
    is_block = isinstance(ts, list) or (ts is None and "start" in body)
    if ts is None and "start" not in body:
        raise Refused("missing_ts")

    if isinstance(sensors, list):  # form 3: names, and raw float32
        raw = body.get("values")
        if not isinstance(raw, bytes) or not sensors or len(raw) % (4 * len(sensors)):
            raise Refused("block_shape")
        n_rows = len(raw) // (4 * len(sensors))
        times = _times(body, ts, n_rows)
        if not all(isinstance(name, str) for name in sensors) or len(set(sensors)) < len(sensors):
            raise Refused("block_shape")
        flat = struct.unpack(f"<{n_rows * len(sensors)}f", raw)
        rows = []
        for number in range(n_rows):
            row: list[float | None] = [None] * len(fleet.sensors)
            for name, value in zip(sensors, flat[number * len(sensors) : (number + 1) * len(sensors)], strict=True):
                if name in fleet.sensors:
                    row[fleet.sensors.index(name)] = _number(value)
            rows.append(row)
        return times, rows

    if is_block:  # form 2: one list per sensor
        if not isinstance(sensors, dict) or not sensors:
            raise Refused("block_shape")
        columns = {}
        for name, column in sensors.items():
            if not isinstance(column, list):
                raise Refused("block_shape")
            columns[name] = [_number(value) for value in column]
        lengths = {len(column) for column in columns.values()}
        if len(lengths) != 1:
            raise Refused("block_shape")
        (n_rows,) = lengths
        times = _times(body, ts, n_rows)
        return times, [
            [columns[name][number] if name in columns else None for name in fleet.sensors]
            for number in range(n_rows)
        ]

    # form 1: one reading, with `sensors` or flat
    if "sensors" in body:
        if not isinstance(sensors, dict):
            raise Refused("wrong_type")
        fields = sensors
    else:
        reserved = {*TIME_KEYS, *ASSET_KEYS}
        fields = {
            name: value
            for name, value in body.items()
            if name not in reserved  # other fields are metadata
        }
    return [_time_us(ts)], [[_number(fields.get(name)) for name in fleet.sensors]]


def _times(body: dict[str, Any], ts: Any, n_rows: int) -> list[int]:
    if ts is not None:
        if not isinstance(ts, list) or len(ts) != n_rows:
            raise Refused("block_shape")
        return [_time_us(one) for one in ts]
    interval = body.get("interval")
    if isinstance(interval, bool) or not isinstance(interval, int | float) or not 0 < interval < math.inf:
        raise Refused("block_shape")
    start_us = _time_us(body["start"])
    return [start_us + round(Fraction(interval) * 1_000_000 * number) for number in range(n_rows)]


def _no_value(body: dict[str, Any], fleet: FleetRule) -> str:
    """Return the word for a record of which no sensor has a value."""
    sensors = body.get("sensors")
    if isinstance(sensors, list):
        if not set(sensors) & set(fleet.sensors):
            return "unknown_sensor"
        values = struct.unpack(f"<{len(body['values']) // 4}f", body["values"])
        return "not_finite" if any(map(math.isinf, values)) else "empty"
    fields = sensors if isinstance(sensors, dict) else body
    named = [fields[name] for name in fleet.sensors if name in fields]
    cells = [cell for value in named for cell in (value if isinstance(value, list) else [value])]
    unreadable = [cell for cell in cells if not _is_missing(cell)]
    if unreadable:
        is_number = isinstance(unreadable[0], int | float)
        return "not_finite" if is_number else "wrong_type"
    if named:
        return "empty"
    others = (value for name, value in fields.items() if name not in (*TIME_KEYS, *ASSET_KEYS))
    return "unknown_sensor" if any(isinstance(value, int | float | list) for value in others) else "no_reading"


def _is_missing(value: Any) -> bool:
    if isinstance(value, str):
        return value.strip().casefold() in ("", "nan", "null", "none", "unavailable", "unknown")
    return value is None or (isinstance(value, float) and math.isnan(value))


def _number(value: Any) -> float | None:
    """Return the value rounded to float32. None = missing, or unreadable."""
    if isinstance(value, str) and re.fullmatch(r"[-+]?\d+([.,]\d+)?", value.strip()):
        value = float(value.replace(",", "."))
    if not isinstance(value, int | float):
        return None
    try:
        (number,) = struct.unpack("<f", struct.pack("<f", value))
    except (OverflowError, struct.error):  # an integer too large for any float
        return None
    return float(number) if math.isfinite(number) else None


def _time_us(value: Any) -> int:
    """Parse ISO 8601 (naive = UTC), or a number of seconds, ms, µs or ns, according to its size."""
    if isinstance(value, str):
        try:
            moment = datetime.fromisoformat(value)
        except ValueError:
            raise Refused("bad_ts") from None
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=UTC)
        return (moment - EPOCH) // timedelta(microseconds=1)
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise Refused("bad_ts")
    size = abs(value)
    us_per_unit = (
        Fraction(1, 1000) if size >= 1e17
        else Fraction(1) if size >= 1e14
        else Fraction(1000) if size >= 1e11
        else Fraction(1_000_000)
    )  # fmt: skip
    return round(Fraction(value) * us_per_unit)


def read_log(
    log: Iterable[RawRecord], rules: Rules, topic: str = ""
) -> Iterable[tuple[int, list[Reading] | str | None]]:
    """Yield the offset of each record with its readings, its word of rejection, or None for a tombstone.

    A record without a valid timestamp is judged by the newest one before it.
    """
    newest_us = -1
    for record in log:
        if 0 <= record[1] <= LAST_STAMP_US:
            newest_us = max(newest_us, record[1])
        else:
            record = (record[0], newest_us, *record[2:])  # as it is judged
        try:
            yield record[0], readings_of(record, rules, topic)
        except Refused as refused:
            yield record[0], refused.word
