"""Places of asset, time and values in sampled records: those that the decoder finds, and those it could be told.

Input: sampled records. Output: a description of the places, or keys of `[kafka.fields]` for records that the decoder
does not recognise by itself. Invariant: a suggestion was tried on the sample with the daemon's decoder.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import TYPE_CHECKING, Any

import numpy as np

from monitor.decode.formats import RawRecord, make_parser, recognise
from monitor.decode.mapping import KEY_PATH, Mapping
from monitor.decode.names import ASSET_NAMES, TIME_NAMES, WEAK_ASSET_NAMES, plain
from monitor.decode.shapes import flattened
from monitor.decode.timestamps import TimeParser
from monitor.errors import DecodeError
from monitor.kafka.record_format import format_options
from monitor.service.survey import Places, survey
from monitor.stream.partition import fields_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from monitor.config import Config, FleetConfig
    from monitor.config.fields import FieldsConfig
    from monitor.types import RecordBatch

MAX_RECORDS = 200
"""Records that are examined."""
MOST = 0.9
"""Share of the records that must have a field at a place."""
ENOUGH = 0.5
"""Share of the records that must be used, for a suggestion to be made."""
YEAR_US = 366 * 86_400_000_000
MAX_ROUNDS = 3
TIME_FORMATS = ("auto", "day-first", "month-first", "compact", "excel")
"""Notations that are tried, in this order."""
Leaves = dict[str, list[tuple[Any, int]]]
"""Dotted path → values there, with the timestamps of their records in µs."""

_KEY_OF = {
    "missing_ts": "time",
    "bad_ts": "time",
    "future": "time",
    "missing_asset": "asset",
    "bad_asset": "asset",
    "no_reading": "values",
}
"""First word of a reason → the key of `[kafka.fields]` that may mend it."""


def places_of(config: Config, stretches: Sequence[RecordBatch], fleet: FleetConfig) -> Places:
    """Describe where the records that can be read have their asset and time."""
    mapping = Mapping(fields_of(config, fleet))
    counts = [Counter[str](), Counter[str](), Counter[str](), Counter[str]()]
    for batch, record, documents in _records(config, stretches, config.topics_of(fleet)):
        try:
            rows = mapping.rows(documents, record, batch.partition.topic)
        except DecodeError:
            continue
        for row in rows[:1]:
            is_kafkas = row.unit == "kafka"
            time, unit = ("Kafka's timestamp", "") if is_kafkas else (_text(row.time_path), row.unit)
            found = (_text(row.asset_path), time, unit, row.found.shape if row.found else "block")
            for counter, each in zip(counts, found, strict=True):
                counter[each] += 1
    return Places(*(tuple(each for each, _ in counter.most_common() if each) for counter in counts))


def _text(path: tuple[str, ...] | None) -> str:
    return "" if path is None else "Kafka's key" if path == KEY_PATH else f'"{".".join(path)}"'


Fields = dict[str, "str | tuple[str, ...]"]


def suggest_fields(config: Config, stretches: Sequence[RecordBatch], fleet: str) -> Fields:
    """Return keys of `[kafka.fields]` with which most records of a fleet can be used. {} = none is needed, or found."""
    leaves: Leaves | None = None
    given: Fields = {}
    for _ in range(MAX_ROUNDS + 1):
        found = survey(with_fields(config, given), stretches)[fleet]
        if not found.refused or found.n_used >= ENOUGH * found.n_records:
            return given if found.n_used else {}
        key = _KEY_OF.get(found.refused[0].word)
        if key is None or key in given:
            return {}
        if leaves is None:
            topics = next(config.topics_of(each) for each in config.fleets if each.name == fleet)
            leaves = _leaves(config, stretches, topics)
        n = max(map(len, leaves.values()), default=0)
        common = {path: values for path, values in leaves.items() if len(values) >= MOST * n}
        found_places: Fields = {"time": _time, "asset": _asset, "values": _values}[key](common)
        if not found_places:
            return {}
        given |= found_places
    return {}


def with_fields(config: Config, fields: Fields) -> Config:
    """Return a configuration with these keys of `[kafka.fields]`."""
    changed: FieldsConfig = config.kafka.fields.model_copy(update=fields)
    return config.model_copy(update={"kafka": config.kafka.model_copy(update={"fields": changed})})


# ---------------------------------------------------------------- candidates


def _leaves(
    config: Config, stretches: Sequence[RecordBatch], topics: Sequence[str]
) -> Leaves:
    """Return the values at each dotted path, with Kafka's timestamps of their records in µs."""
    found: Leaves = defaultdict(list)
    for _, record, documents in _records(config, stretches, topics):
        for document in documents:
            for path, value in flattened(document):
                found[".".join(path)].append((value, record.stamp_us))
    return found


def _records(
    config: Config, stretches: Sequence[RecordBatch], topics: Sequence[str]
) -> Iterator[tuple[RecordBatch, RawRecord, list[dict[str, Any]]]]:
    """Yield some of the records, and the documents in each."""
    options = format_options(config.kafka)
    parsers: dict[str, Any] = {}
    for batch in stretches:
        if batch.partition.topic not in topics:
            continue
        for row in range(0, len(batch), max(1, len(batch) * len(stretches) // MAX_RECORDS)):
            value = batch.values[row]
            if not value:
                continue
            stamp_us = int(batch.timestamps_us[row])
            name = recognise(value) if config.kafka.format == "auto" else config.kafka.format
            headers = batch.headers[row] if batch.headers is not None else ()
            record = RawRecord(value, batch.keys[row], headers, stamp_us, batch.schemas, int(batch.offsets[row]))
            try:
                parser = parsers.get(name) or parsers.setdefault(name, make_parser(name, options))
                yield batch, record, parser.parse(record)
            except DecodeError:
                continue


def _time(leaves: Leaves) -> Fields:
    """Return the place whose values are times, changing and near Kafka's. Kafka's own timestamp where none is."""
    for time_format in TIME_FORMATS:
        parser, ranked = TimeParser(time_format), []
        for path, values in leaves.items():
            far_us = _distance_us(values, parser)
            if far_us <= YEAR_US:
                name = plain(path.rpartition(".")[2])
                n_distinct = len({str(value) for value, _ in values})
                ranked.append((TIME_NAMES.get(name, len(TIME_NAMES)), -n_distinct, far_us, path))
        if ranked:
            found: Fields = {"time": (min(ranked)[3],)}
            return found if time_format == "auto" else found | {"time_format": time_format}
    return {"time": ("kafka",)}


def _distance_us(values: Sequence[tuple[Any, int]], parser: TimeParser) -> float:
    """Return the usual distance of these times from Kafka's. Infinite = one of them is no time."""
    distances = []
    for value, stamp_us in values:
        try:
            us = parser.parse_us(value)
        except ValueError:
            return np.inf
        distances.append(abs(us - stamp_us) if stamp_us >= 0 else 0)
    return float(np.median(distances))


def _asset(leaves: Leaves) -> Fields:
    """Return the place of texts that recur. The topic where there is none."""
    ranked = []
    usual = ASSET_NAMES | {name: len(ASSET_NAMES) + rank for name, rank in WEAK_ASSET_NAMES.items()}
    for path, values in leaves.items():
        texts = [value for value, _ in values if isinstance(value, str) and 0 < len(value) <= 64]
        n_distinct = len(set(texts))
        if len(texts) == len(values) and n_distinct <= max(1, len(texts) // 4):
            name = plain(path.rpartition(".")[2])
            ranked.append((usual.get(name, len(usual)), -n_distinct, path))
    return {"asset": (min(ranked)[2] if ranked else "topic",)}


def _values(leaves: Leaves) -> Fields:
    """Return the places of numbers that are no times."""
    numbers = tuple(
        path
        for path, values in leaves.items()
        if all(type(value) in (int, float) for value, _ in values)
        and plain(path.rpartition(".")[2]) not in TIME_NAMES
        and len({value for value, _ in values}) > 1
    )
    return {"values": numbers} if numbers else {}
