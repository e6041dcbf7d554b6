"""A batch of records → one set of columns per fleet, and the records for the quarantine, each with its reason.

Input: a `RecordBatch`. Output: `Decoded`. Invariant: the result for a record depends on the record alone (and on the
fleets), never on its neighbours, on the batching, or on the parser. The one exception: the sensors of a fleet without
configured sensors are learnt from the whole of the first batch that has any.

Records of one format and one fleet are decoded together. The fast parsers (`readings.py`, `blocks.py`) are tried in
turn, beginning with the one that accepted most records last. The others are decoded one by one by `document.py`, which
is slower, accepts every layout, and gives the reason for a bad record.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field, replace
from operator import itemgetter
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from monitor.decode.blocks import BlockParser
from monitor.decode.columns import DecodedColumns, RecordGroup, cells_of, drop_empty_readings
from monitor.decode.document import Document, Layout
from monitor.decode.formats import (
    FORMATS,
    FormatOptions,
    FormatParser,
    RawRecord,
    StatefulParser,
    make_parser,
    recognise,
)
from monitor.decode.formatting import duration_text, truncate_reason
from monitor.decode.payload import MAX_FIELDS
from monitor.decode.readings import ReadingParser, peek_tokens
from monitor.decode.schema import AssetIndex, FleetSchema, Router, Token
from monitor.decode.timestamps import MAX_US, iso_text
from monitor.errors import ConfigError, DecodeError
from monitor.printable import is_sensor_name
from monitor.types import SAMPLE_BYTES, Quarantined, Readings, Unread

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from monitor.types import Float32, Int8, Int32, Int64, RecordBatch

_FAST_FORMATS = ("json", "msgpack")
"""The formats that the fast parsers read. Their numbers are 0 and 1."""
_JSON, _MSGPACK = 0, 1
_FORMAT_OF_FIRST = np.full(256, -1, np.int8)
"""First byte → number of the format. -1 = `recognise` looks at more bytes."""
_FORMAT_OF_FIRST[[*b"{["]] = 0
_FORMAT_OF_FIRST[[*range(0x80, 0x90), 0xDE, 0xDF]] = 1
_GROUP_SIZE = 2_048
"""Records decoded together: as many as stay in the processor's cache until they are columns."""
_FEW = 4
"""With at most this many records left, no further parser is tried."""
_VALUES_PER_BYTE = 4
"""Limit of the values decoded from a record, missing ones included, per byte of `max_record_bytes`. With 256 KiB that
is 4 MiB of float32. A raw block of all sensors has a quarter of a value per byte."""
_NO_LIMIT = np.iinfo(np.int64).max


@dataclass(frozen=True, slots=True)
class Decoded:
    """The readings of one batch. Each of its records is accepted, quarantined or a tombstone."""

    readings: list[Readings]
    """One per fleet, in their order. May be empty."""
    quarantined: list[Quarantined]
    """In offset order."""
    n_accepted: int
    """Records whose readings are in `readings`."""
    n_tombstones: int
    """Records without a value."""


@dataclass(slots=True)
class _Work:
    """The state of one batch while it is decoded. A position is the index of a record in the batch."""

    batch: RecordBatch
    latest_us: Int64
    """[N], the last event time that is not too far in the future."""
    router: Router
    format: Int8
    """[N], numbers of the wire formats: `Decoder._format_names`."""
    positions: Int64
    """Positions of the records to parse."""
    columns: dict[int, list[DecodedColumns]] = field(default_factory=dict)
    """By number of the fleet."""
    reasons: dict[int, str] = field(default_factory=dict)
    """Position → reason for the quarantine."""
    n_tombstones: int = 0

    def record(self, position: int) -> RawRecord:
        batch = self.batch
        headers = batch.headers[position] if batch.headers is not None else ()
        stamp, offset = int(batch.timestamps_us[position]), int(batch.offsets[position])
        value = batch.values[position] or b""
        return RawRecord(value, batch.keys[position], headers, stamp, batch.schemas, offset)


class _Group(NamedTuple):
    """Records of one batch in one format, presumably of one fleet."""

    fleet: int
    """Its number. -1 = not known."""
    is_msgpack: bool
    positions: Int64
    """Rising."""


class Decoder:
    """Decodes one partition. Keeps, per fleet, the sensors, the shard's asset index and the order of the parsers."""

    def __init__(
        self,
        fleets: Sequence[FleetSchema],
        *,
        format: str = "auto",  # noqa: A002  # the word of the configuration
        options: FormatOptions | None = None,
        max_record_bytes: int = 262_144,
        max_skew_us: int = 600_000_000,
        assets: Mapping[str, AssetIndex] | None = None,
    ) -> None:
        """`assets`: by fleet, the index of an existing shard. The other fleets get an empty index."""
        if format not in ("auto", *FORMATS):
            raise ConfigError(f"kafka.format is {format!r}; it can be {', '.join(('auto', *FORMATS))}")
        self.fleets = list(fleets)
        """A copy: an entry is replaced when the fleet's sensors are learnt or set."""
        self.learnt: dict[str, tuple[str, ...]] = {}
        """By fleet, sensors that this decoder learnt. The caller empties it after sharing them with other decoders."""
        given = assets or {}
        self.assets = [given[f.name] if f.name in given else AssetIndex() for f in self.fleets]
        """One per fleet, in their order."""
        self._format = format
        self._options = options or FormatOptions()
        self._format_names = list(_FAST_FORMATS)
        """Names of the wire formats met so far, by number."""
        self._format_parsers: dict[str, FormatParser] = {}
        if format not in ("auto", *_FAST_FORMATS):  # a schema file that cannot be used is an error of the start
            self._format_parsers[format] = make_parser(format, self._options)
        self._max_record_bytes = max_record_bytes
        self._max_skew_us = max_skew_us
        self._routers: dict[str, Router] = {}
        self._parsers = [_Parsers() for _ in self.fleets]
        self.newest_stamp_us = -1
        """Newest valid timestamp of a record so far, by which records without one are judged. -1 = none yet. A restart
        in the middle of a log must restore it."""
        self._key_is_asset = True
        """True until a payload names an asset of another fleet than its key."""

    def decode(self, batch: RecordBatch) -> Decoded:
        """Decode a batch. No bytes raise an exception: a record that cannot be used is quarantined."""
        with np.errstate(over="ignore", invalid="ignore"):  # numbers out of range, and signalling NaN, are refused
            work = self._prepare(batch)
            self._find_formats(work)
            if any(self.fleets[number].sensors is None for number in work.router.numbers):
                self._learn_sensors(work)
            left = [self._decode_group(work, group) for group in self._group_records(work)]
            for position in sorted(itertools.chain.from_iterable(positions.tolist() for positions in left)):
                self._decode_record(work, position)
            return self._finish(work)

    def set_sensors(self, fleet: str, sensors: tuple[str, ...]) -> None:
        """Set a fleet's sensors, as another partition learnt them."""
        number = next(number for number, schema in enumerate(self.fleets) if schema.name == fleet)
        self.fleets[number] = replace(self.fleets[number], sensors=sensors)

    def format_state(self, since: int) -> dict[str, Any]:
        """Return the state of the wire format that reading again from the offset `since` on needs, as plain JSON."""
        parser = self._format_parsers.get(self._format)
        return parser.state(since) if isinstance(parser, StatefulParser) else {}

    def restore_format(self, state: Mapping[str, Any]) -> None:
        """Continue with a stored state of the wire format."""
        parser = self._format_parsers.get(self._format)
        if isinstance(parser, StatefulParser):
            parser.restore(state)

    # ------------------------------------------------------------ before

    def _prepare(self, batch: RecordBatch) -> _Work:
        topic = batch.partition.topic
        if topic not in self._routers:
            self._routers[topic] = Router(self.fleets, topic)
        for index in self.assets:
            index.forget_unregistered()
        self._routers[topic].forget_unregistered(self.assets)
        n = len(batch)
        stamps = self._stamps(batch)
        latest = np.where(stamps >= 0, stamps + self._max_skew_us, _NO_LIMIT)
        return _Work(batch, latest, self._routers[topic], np.zeros(n, np.int8), np.arange(n))

    def _stamps(self, batch: RecordBatch) -> Int64:
        """Return Kafka's timestamps [N]. A record without a valid one has the newest of those before it, -1 = none."""
        stamps = batch.timestamps_us
        is_valid = (stamps >= 0) & (stamps <= MAX_US)
        if not is_valid.all():
            known = np.concatenate(([self.newest_stamp_us], np.where(is_valid, stamps, -1)))
            stamps = np.where(is_valid, stamps, np.maximum.accumulate(known)[1:])
        if len(stamps):
            self.newest_stamp_us = max(self.newest_stamp_us, int(stamps.max()))
        return stamps

    def _find_formats(self, work: _Work) -> None:
        """Find the records to parse, and the format of each. Refuse empty and too large ones."""
        values = work.batch.values
        try:
            sizes = np.fromiter(map(len, values), np.int64, len(values))  # type: ignore[arg-type]  # None: see below
        except TypeError:
            sizes = np.array([-1 if value is None else len(value) for value in values], np.int64)
            work.n_tombstones = int((sizes < 0).sum())
        for position in np.flatnonzero(sizes > self._max_record_bytes).tolist():
            work.reasons[position] = (
                f"too_large: the record has {sizes[position]} bytes; at most {self._max_record_bytes} are read; "
                "raise kafka.max_record_bytes or send smaller blocks"
            )
        for position in np.flatnonzero(sizes == 0).tolist():
            value, wanted = values[position], "json" if self._format == "auto" else self._format
            work.reasons[position] = value.reason if isinstance(value, Unread) else f"not_{wanted}: the record is empty"
        work.positions = np.flatnonzero((sizes > 0) & (sizes <= self._max_record_bytes))
        if self._format != "auto":
            work.format[:] = self._format_number(self._format)
            return
        present = _pick(values, work.positions)
        first = np.fromiter(map(itemgetter(0), present), np.uint8, len(present))
        formats = _FORMAT_OF_FIRST[first]
        for row in np.flatnonzero(formats < 0).tolist():
            formats[row] = self._format_number(recognise(present[row]))
        work.format[work.positions] = formats

    def _format_number(self, name: str) -> int:
        if name not in self._format_names:
            self._format_names.append(name)
        return self._format_names.index(name)

    def _documents(self, work: _Work, position: int) -> list[Document]:
        """Parse one record. Raises DecodeError."""
        name = self._format_names[work.format[position]]
        if name not in self._format_parsers:
            self._format_parsers[name] = make_parser(name, self._options)
        return [Document(fields) for fields in self._format_parsers[name].parse(work.record(position))]

    def _learn_sensors(self, work: _Work) -> None:
        """Set the sensors of the fleets that have none: every name in this batch, in order of appearance."""
        found: dict[int, dict[str, None]] = {}
        texts: set[str] = set()
        for position in work.positions.tolist():
            try:
                for document in self._documents(work, position):
                    number = work.router.fleet_of(document.asset_token(work.batch.keys[position]))
                    document.times()
                    found.setdefault(number, {}).update(dict.fromkeys(document.sensor_names()))
                    if document.layout is Layout.FLAT:  # a field that is null here is no sensor if a text elsewhere
                        texts.update(n for n, v in document.fields.items() if isinstance(v, (str, bytes, dict, list)))
            except DecodeError:
                continue
        for number, names in found.items():
            fleet = self.fleets[number]
            usable = (name for name in names if name not in texts and is_sensor_name(name))
            sensors = tuple(itertools.islice(usable, MAX_FIELDS))
            if fleet.sensors is None and sensors:
                self.set_sensors(fleet.name, sensors)
                self.learnt[fleet.name] = sensors

    # ------------------------------------------------------------ groups of records

    def _group_records(self, work: _Work) -> list[_Group]:
        """Return the records in groups of one format and, presumably, one fleet."""
        groups: list[_Group] = []
        formats = work.format[work.positions]
        for number in np.unique(formats).tolist():
            positions, is_msgpack = work.positions[formats == number], number == _MSGPACK
            if number not in (_JSON, _MSGPACK):
                groups.append(_Group(-1, is_msgpack, positions))
            elif work.router.has_one_fleet:
                groups.append(_Group(work.router.numbers[0], is_msgpack, positions))
            else:
                guess = np.array(self._guess_fleets(work, positions, is_msgpack=is_msgpack), np.int64)
                groups += [_Group(fleet, is_msgpack, positions[guess == fleet]) for fleet in np.unique(guess).tolist()]
        return [
            _Group(group.fleet, group.is_msgpack, group.positions[first : first + _GROUP_SIZE])
            for group in groups
            for first in range(0, len(group.positions), _GROUP_SIZE)
        ]

    def _guess_fleets(self, work: _Work, positions: Int64, *, is_msgpack: bool) -> list[int]:
        """Return the number of the fleet per record, -1 = unknown. A wrong guess costs time, never correctness."""
        keys = _pick(work.batch.keys, positions)
        tokens: Sequence[Token | None] = keys
        if not self._key_is_asset or None in set(keys):
            tokens = peek_tokens(_pick(work.batch.values, positions), keys, is_msgpack=is_msgpack)
        fleets: dict[Token | None, int] = {}
        for token in set(tokens):
            try:
                fleets[token] = work.router.fleet_of(token)
            except DecodeError:
                fleets[token] = -1
        return [fleets[token] for token in tokens]

    def _decode_group(self, work: _Work, group: _Group) -> Int64:
        """Decode a group with the fast parsers. Return the positions that are left."""
        positions = group.positions
        if group.fleet < 0:
            return positions
        parsers, fleet = self._parsers[group.fleet], self.fleets[group.fleet]
        values, keys = _pick(work.batch.values, positions), _pick(work.batch.keys, positions)
        latest_us = work.latest_us[positions]
        records = RecordGroup(fleet, group.fleet, positions, values, keys, latest_us, self._max_readings(fleet))
        for parser in parsers.in_order(group.is_msgpack):
            columns, left = parser.decode(records, work.router)
            if columns is not None:
                work.columns.setdefault(group.fleet, []).append(columns)
                if len(left) < len(records) / 2:
                    parsers.prefer(group.is_msgpack, parser)
                records = records.select(left)
            if len(left) <= _FEW:
                break
        return records.position

    # ------------------------------------------------------------ one record

    def _decode_record(self, work: _Work, position: int) -> None:
        """Decode one record that no fast parser accepted: all of its documents, or none of them."""
        key = work.batch.keys[position]
        found: list[tuple[int, DecodedColumns]] = []
        try:
            documents = self._documents(work, position)
            for document in documents:
                token = document.asset_token(key)
                number = work.router.fleet_of(token)
                cell, values = self._readings_of(work, position, document, self.fleets[number])
                if token is not None:  # fleet_of has refused None
                    columns = DecodedColumns(np.array([position]), [token], np.array([len(cell)]), cell, values)
                    found.append((number, columns))
        except DecodeError as problem:
            work.reasons[position] = problem.detail
            return
        for number, columns in found:
            work.columns.setdefault(number, []).append(columns)
        if len(found) == 1 and work.format[position] in (_JSON, _MSGPACK):
            [document], [(number, columns)] = documents, found
            sensors, is_msgpack = self.fleets[number].sensors or (), work.format[position] == _MSGPACK
            self._parsers[number].expect_extra_fields(document, sensors, is_msgpack=bool(is_msgpack))
            token = columns.tokens[0]
            if self._key_is_asset and not work.router.has_one_fleet and token != key:
                self._key_is_asset = key is not None and work.router.known.get(key) == number

    def _readings_of(self, work: _Work, position: int, document: Document, fleet: FleetSchema) -> tuple[Int64, Float32]:
        """Return the cells [N] and values [N, C] of one record's readings."""
        ts_us = document.times()
        if len(ts_us) > (most := self._max_readings(fleet)):
            raise DecodeError(
                f"too_many_readings: the block has {len(ts_us)} readings; at most {most} of {len(fleet.sensors or ())} "
                "sensors are read at once; send smaller blocks, or raise kafka.max_record_bytes"
            )
        values = document.values(fleet, len(ts_us))
        if len(ts_us) and (last_us := int(ts_us.max())) > work.latest_us[position]:
            written_us = int(work.latest_us[position]) - self._max_skew_us
            ahead, written = duration_text(last_us - written_us), iso_text(written_us)
            has_stamp = work.batch.timestamps_us[position] == written_us
            raise DecodeError(
                f"future: the event time {iso_text(last_us)} is {ahead} after {written}, when Kafka got "
                f"{'the record' if has_stamp else 'an earlier record (this one has no valid timestamp)'}; check the "
                f"producer's clock, time zone and unit of time, or raise kafka.max_skew (now "
                f"{duration_text(self._max_skew_us)})"
            )
        cell, values = drop_empty_readings(cells_of(ts_us, fleet.interval_us), values)[:2]
        if not len(cell):
            raise DecodeError("empty: no sensor has a value")
        return cell, values

    def _max_readings(self, fleet: FleetSchema) -> int:
        """Return the limit of readings in a record: one long column of one sensor must not allocate all the others."""
        return max(1, _VALUES_PER_BYTE * self._max_record_bytes // max(1, len(fleet.sensors or ())))

    # ------------------------------------------------------------ after

    def _finish(self, work: _Work) -> Decoded:
        batch, reasons = work.batch, work.reasons
        quarantined = [
            Quarantined(
                batch.partition,
                int(batch.offsets[position]),
                truncate_reason(reasons[position]),
                (batch.values[position] or b"")[:SAMPLE_BYTES],
                max(int(batch.timestamps_us[position]), 0),
            )
            for position in sorted(reasons)
        ]
        readings = [self._join(batch, number, work.columns.get(number, [])) for number in range(len(self.fleets))]
        n_accepted = len(batch.values) - len(quarantined) - work.n_tombstones
        return Decoded(readings, quarantined, n_accepted, work.n_tombstones)

    def _join(self, batch: RecordBatch, number: int, parts: list[DecodedColumns]) -> Readings:
        """Return one fleet's readings in offset order, with the numbers of their assets."""
        fleet, index = self.fleets[number], self.assets[number]
        if not parts:
            none = np.empty(0, np.int64)
            values = np.empty((0, len(fleet.sensors or ())), np.float32)
            return Readings(fleet.name, none.astype(np.int32), none, none, values)
        numbers = _number_assets(index, parts)
        asset = [_per_reading(of_record, part) for of_record, part in zip(numbers, parts, strict=True)]
        position = [_per_reading(part.position, part) for part in parts]
        if len(parts) == 1:
            return Readings(fleet.name, asset[0], parts[0].cell, batch.offsets[position[0]], parts[0].values)
        offset = batch.offsets[np.concatenate(position)]
        readings = Readings(
            fleet.name,
            np.concatenate(asset),
            np.concatenate([part.cell for part in parts]),
            offset,
            np.concatenate([part.values for part in parts]),
        )
        if (np.diff(offset) >= 0).all():
            return readings
        order = np.argsort(offset, kind="stable")
        return Readings(fleet.name, readings.asset[order], readings.cell[order], offset[order], readings.values[order])


def _number_assets(index: AssetIndex, parts: list[DecodedColumns]) -> list[Int32]:
    """Return, per part, the asset of each record [M]. New assets are numbered in offset order, across the parts."""
    try:
        return [index.numbers(part.tokens) for part in parts]
    except KeyError:
        tokens = ((at, t) for part in parts for at, t in zip(part.position.tolist(), part.tokens, strict=True))
        for _, token in sorted((pair for pair in tokens if pair[1] not in index), key=itemgetter(0)):
            index.add(token)
        return [index.numbers(part.tokens) for part in parts]


def _per_reading(of_record: Any, part: DecodedColumns) -> Any:
    """Turn a column with an entry per record into one with an entry per reading."""
    return of_record if part.n_readings is None else np.repeat(of_record, part.n_readings)


def _pick(items: Sequence[Any], positions: Int64) -> Sequence[Any]:
    """Return the items at these rising positions."""
    return items if len(positions) == len(items) else [items[i] for i in positions.tolist()]


_Parser = ReadingParser | BlockParser


class _Parsers:
    """The fast parsers of one fleet's records, beginning with the one that accepted most records last."""

    __slots__ = ("_json", "_msgpack")

    def __init__(self) -> None:
        self._json: list[_Parser] = [ReadingParser(layout, is_msgpack=False) for layout in (Layout.WIDE, Layout.FLAT)]
        readings = [ReadingParser(layout, is_msgpack=True) for layout in (Layout.WIDE, Layout.FLAT)]
        self._msgpack: list[_Parser] = [BlockParser(), *readings]

    def in_order(self, is_msgpack: bool) -> tuple[_Parser, ...]:
        return tuple(self._msgpack if is_msgpack else self._json)

    def prefer(self, is_msgpack: bool, parser: _Parser) -> None:
        parsers = self._msgpack if is_msgpack else self._json
        parsers.remove(parser)
        parsers.insert(0, parser)

    def expect_extra_fields(self, document: Document, sensors: tuple[str, ...], *, is_msgpack: bool) -> None:
        for parser in self._msgpack if is_msgpack else self._json:
            if isinstance(parser, ReadingParser) and parser.layout is document.layout:
                parser.expect_extra_fields(document, sensors)
