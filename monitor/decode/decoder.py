"""A batch of records → one set of columns per fleet, and the records for the quarantine, each with its reason.

Input: a `RecordBatch`. Output: `Decoded`. Invariant: the result for a record depends on the record alone (and on the
fleets), never on its neighbours, on the batching, or on the parser. Where the sensors of a fleet are learnt, each
record adds those that it is the first to have.

A format parser (`formats/`) turns a record into documents, and `mapping.py` turns these into rows: asset, time, cells.
That is the definition. Records of one format and one fleet are tried first with the fast parsers (`readings.py`,
`blocks.py`), beginning with the one that accepted most records last. They give the same result or leave the record.
"""

from __future__ import annotations

import itertools
from collections import Counter
from dataclasses import dataclass, field, replace
from operator import itemgetter
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from monitor.decode.columns import DecodedColumns, RecordGroup, cells_of, drop_empty_readings
from monitor.decode.fast_parsers import FastParsers
from monitor.decode.formats import (
    FORMATS,
    FRAME_BYTES,
    ColumnarParser,
    FormatOptions,
    FormatParser,
    Layout,
    RawRecord,
    StatefulParser,
    make_parser,
    recognise,
)
from monitor.decode.formatting import describe_value, duration_text, quote, short_list, toml, truncate_reason
from monitor.decode.joining import join
from monitor.decode.mapping import Mapping as FieldMapping
from monitor.decode.mapping import Row
from monitor.decode.names import is_identifier
from monitor.decode.notes import Notes
from monitor.decode.payload import MAX_FIELDS
from monitor.decode.readings import ReadingParser, peek_tokens, plan_of
from monitor.decode.reasons import fix_of_text, unread_number
from monitor.decode.schema import AssetIndex, Fields, FleetSchema, Growth, Router, Token
from monitor.decode.shapes import SERIES, flattened, is_measurement, unwrapped
from monitor.decode.timestamps import MAX_US, format_of, iso_text
from monitor.errors import ConfigError, DecodeError
from monitor.printable import is_sensor_name
from monitor.types import SAMPLE_BYTES, Notice, Quarantined, Readings, Unread

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from monitor.types import Int8, Int64, RecordBatch

_FAST_FORMATS = ("json", "msgpack")
"""The formats of which the fast parsers read the bytes. Their numbers are 0 and 1."""
_JSON, _MSGPACK = 0, 1
_FORMAT_OF_FIRST = np.full(256, -1, np.int8)
"""First byte → number of the format. -1 = `recognise` looks at more bytes."""
_FORMAT_OF_FIRST[[*b"{["]] = 0
_FORMAT_OF_FIRST[[*range(0x80, 0x90), 0xDE, 0xDF]] = 1
_GROUP_SIZE = 2_048
"""Records decoded together: as many as stay in the processor's cache until they are columns."""
_FEW = 4
"""With at most this many records left, no further parser is tried."""
_MAX_FORMATS = 100
"""Formats and flat schemas that have a number. The records of further schemas are read alone."""
_VALUES_PER_BYTE = 4
"""Limit of the values decoded from a record, missing ones included, per byte of `max_record_bytes`. With 256 KiB that
is 4 MiB of float32. A raw block of all sensors has a quarter of a value per byte."""
_LEARNT_ROWS = 10_000
"""Readings of a block of which only sensors with a value are learnt."""
_NO_READING = "no_reading: the record has no reading: it is an event, or a row that was deleted"
_HARMLESS = ("no_reading:", "empty:", "unknown_sensor:")
"""Reasons for which a reading beside others may be left out without a word."""
_NO_LIMIT = np.iinfo(np.int64).max
_UNITS = frozenset(("s", "ms", "us", "ns", "compact"))


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
    notices: Sequence[Notice] = ()
    """Findings about accepted records."""


class _Route(NamedTuple):
    """Fleets of one topic that have the same fields."""

    mapping: FieldMapping
    router: Router


@dataclass(slots=True)
class _Rows:
    """Accepted single readings of one fleet, from records that no fast parser accepted."""

    position: list[int] = field(default_factory=list)
    tokens: list[Token] = field(default_factory=list)
    cell: list[int] = field(default_factory=list)
    row: list[int] = field(default_factory=list)
    """Of each value, its row."""
    column: list[int] = field(default_factory=list)
    value: list[float] = field(default_factory=list)

    def columns(self, n_sensors: int) -> DecodedColumns:
        values = np.full((len(self.position), n_sensors), np.nan, np.float32)
        values[self.row, self.column] = self.value
        return DecodedColumns(
            np.array(self.position, np.int64), self.tokens, None, np.array(self.cell, np.int64), values
        )


@dataclass(slots=True)
class _Work:
    """The state of one batch while it is decoded. A position is the index of a record in the batch."""

    batch: RecordBatch
    latest_us: Int64
    """[N], the last event time that is not too far in the future."""
    routes: list[_Route]
    format: Int8
    """[N], numbers of the wire formats: `Decoder._format_names`."""
    positions: Int64
    """Positions of the records to parse."""
    notes: Notes
    columns: dict[int, list[DecodedColumns]] = field(default_factory=dict)
    """By number of the fleet."""
    rows: dict[int, _Rows] = field(default_factory=dict)
    """By number of the fleet."""
    documents: dict[int, list[dict[str, Any]]] = field(default_factory=dict)
    """By position, of records that were parsed already."""
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
    read: str
    """json, msgpack, or documents."""
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
        self.may_learn = True
        """False: no sensor is added, although a fleet is learning."""
        given = assets or {}
        self.assets = [given[f.name] if f.name in given else AssetIndex() for f in self.fleets]
        """One per fleet, in their order."""
        self._format = format
        self._options = options or FormatOptions()
        self._format_names = list(_FAST_FORMATS)
        """Names of the wire formats met so far, by number."""
        self._format_parsers: dict[str, FormatParser] = {}
        self._layouts: dict[str, Layout] = {}
        """Flat schemas met so far, by the name of their format."""
        if format not in ("auto", *_FAST_FORMATS):  # a schema file that cannot be used is an error of the start
            self._format_parsers[format] = make_parser(format, self._options)
        self._max_record_bytes = max_record_bytes
        self._max_skew_us = max_skew_us
        self._mappings = {each.fields: _mapping(each.fields) for each in self.fleets}
        self._routes: dict[str, list[_Route]] = {}
        self._parsers = [FastParsers() for _ in self.fleets]
        self.newest_stamp_us = -1
        """Newest valid timestamp of a record so far, by which records without one are judged. -1 = none yet. A restart
        in the middle of a log must restore it."""
        self._columns: list[dict[str, int]] = [_numbered(each.sensors) for each in self.fleets]
        """By fleet, sensor → column."""
        self._units: dict[int, str] = {}
        """By fleet, the unit of its latest times."""
        self._told: set[tuple[int, str]] = set()
        """Fleet and field, of fields that were reported once."""
        self._asset_paths: list[tuple[str, ...]] = []
        """Places of the asset, to find the fleet of a record."""
        self._key_is_asset = True
        """True until a payload names an asset of another fleet than its key."""

    def decode(self, batch: RecordBatch) -> Decoded:
        """Decode a batch. No bytes raise an exception: a record that cannot be used is quarantined."""
        with np.errstate(over="ignore", invalid="ignore"):  # numbers out of range, and signalling NaN, are refused
            work = self._prepare(batch)
            self._find_formats(work)
            left = [self._decode_group(work, group) for group in self._group_records(work)]
            for position in sorted(itertools.chain.from_iterable(positions.tolist() for positions in left)):
                self._decode_record(work, position)
            return self._finish(work)

    def set_sensors(self, fleet: str, sensors: tuple[str, ...], growth: Growth | None = None) -> None:
        """Set a fleet's sensors, as another partition or the database has them. `growth`: None = as before."""
        number = next(number for number, schema in enumerate(self.fleets) if schema.name == fleet)
        before = self.fleets[number]
        if growth is None:
            growth = Growth.LEARNING if before.is_learning else before.growth
        self.fleets[number] = replace(before, sensors=sensors, growth=growth)
        self._columns[number] = _numbered(sensors)

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
        if topic not in self._routes:
            kinds = dict.fromkeys(f.fields for f in self.fleets if f.topics is None or topic in f.topics)
            routes = [_Route(self._mappings[kind], Router(self.fleets, topic, kind)) for kind in kinds]
            self._routes[topic] = routes or [_Route(_mapping(Fields()), Router((), topic))]
        for index in self.assets:
            index.forget_unregistered()
        for route in self._routes[topic]:
            route.router.forget_unregistered(self.assets)
        n = len(batch)
        stamps = self._stamps(batch)
        latest = np.where(stamps >= 0, stamps + self._max_skew_us, _NO_LIMIT)
        return _Work(batch, latest, self._routes[topic], np.zeros(n, np.int8), np.arange(n), Notes(batch))

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
            self._find_layouts(work, [self._format])
            return
        present = _pick(values, work.positions)
        first = np.fromiter(map(itemgetter(0), present), np.uint8, len(present))
        formats = _FORMAT_OF_FIRST[first]
        is_framed = (first == 0) & (sizes[work.positions] >= FRAME_BYTES)
        if is_framed.any():
            formats[is_framed] = self._format_number("framed")
        for row in np.flatnonzero(formats < 0).tolist():
            formats[row] = self._format_number(recognise(present[row]))
        work.format[work.positions] = formats
        self._find_layouts(work, [self._format_names[number] for number in np.unique(formats).tolist()])

    def _find_layouts(self, work: _Work, names: Sequence[str]) -> None:
        """Give the records of each flat schema a format of their own, so that they are read together."""
        for name in names:
            if name in _FAST_FORMATS or not isinstance(parser := self._format_parser(name), ColumnarParser):
                continue
            positions = work.positions[work.format[work.positions] == self._format_number(name)]
            layouts, of_record = parser.layouts(_pick(work.batch.values, positions), work.batch.schemas)
            numbers = []
            for layout in layouts:
                if layout is not None and layout.name not in self._layouts and self._has_room:
                    self._layouts[layout.name], self._format_parsers[layout.name] = layout, parser
                is_known = layout is not None and layout.name in self._layouts
                numbers.append(self._format_number(layout.name if layout and is_known else name))
            work.format[positions] = np.array(numbers, np.int8)[of_record]

    @property
    def _has_room(self) -> bool:
        """Whether another schema can have a number."""
        return len(self._format_names) < _MAX_FORMATS

    def _format_number(self, name: str) -> int:
        if name not in self._format_names:
            self._format_names.append(name)
        return self._format_names.index(name)

    def _documents(self, work: _Work, position: int) -> list[dict[str, Any]]:
        """Parse one record. Raises DecodeError."""
        if position in work.documents:
            return work.documents[position]
        return self._format_parser(self._format_names[work.format[position]]).parse(work.record(position))

    def _format_parser(self, name: str) -> FormatParser:
        if name not in self._format_parsers:
            self._format_parsers[name] = make_parser(name, self._options)
        return self._format_parsers[name]

    # ------------------------------------------------------------ groups of records

    def _group_records(self, work: _Work) -> list[_Group]:
        """Return the records in groups of one format and, presumably, one fleet."""
        groups: list[_Group] = []
        formats = work.format[work.positions]
        for number in np.unique(formats).tolist():
            positions = work.positions[formats == number]
            read = self._read_of(number)
            if read == "documents":
                positions = self._parse_documents(work, positions)
            router = work.routes[0].router
            if len(work.routes) > 1:  # a record may be another mapping's
                groups.append(_Group(-1, read, positions))
            elif router.has_one_fleet:
                groups.append(_Group(router.numbers[0], read, positions))
            else:
                guess = np.array(self._guess_fleets(work, positions, read), np.int64)
                groups += [_Group(fleet, read, positions[guess == fleet]) for fleet in np.unique(guess).tolist()]
        return [
            _Group(group.fleet, group.read, group.positions[first : first + _GROUP_SIZE])
            for group in groups
            for first in range(0, len(group.positions), _GROUP_SIZE)
        ]

    def _read_of(self, number: int) -> str:
        """Return how the fast parsers read a format: by its name, or as documents."""
        name = self._format_names[number]
        return name if number in (_JSON, _MSGPACK) or name in self._layouts else "documents"

    def _parse_documents(self, work: _Work, positions: Int64) -> Int64:
        """Parse records of a format without a fast parser, in order. Return the positions of those that are read."""
        read = []
        for position in positions.tolist():
            try:
                work.documents[position] = self._documents(work, position)
                read.append(position)
            except DecodeError as problem:
                work.reasons[position] = problem.detail
        return np.array(read, np.int64)

    def _guess_fleets(self, work: _Work, positions: Int64, read: str) -> list[int]:
        """Return the number of the fleet per record, -1 = unknown. A wrong guess costs time, never correctness."""
        keys = _pick(work.batch.keys, positions)
        tokens: Sequence[Token | None] = keys
        if not self._key_is_asset or None in set(keys):
            if read not in _FAST_FORMATS:
                return [-1] * len(positions)
            tokens = peek_tokens(_pick(work.batch.values, positions), keys, self._asset_paths, read)
        fleets: dict[Token | None, int] = {}
        for token in set(tokens):
            try:
                fleets[token] = work.routes[0].router.fleet_of(token)
            except DecodeError:
                fleets[token] = -1
        return [fleets[token] for token in tokens]

    def _decode_group(self, work: _Work, group: _Group) -> Int64:
        """Decode a group with the fast parsers. Return the positions that are left."""
        positions, number = group.positions, group.fleet
        if number < 0 or not len(positions):
            return positions
        mapping, router = work.routes[0]
        parsers, fleet = self._parsers[number], self.fleets[number]
        values = _pick(work.batch.values, positions)
        if group.read == "documents":
            several = [len(work.documents[position]) != 1 for position in positions.tolist()]
            if any(several):
                return positions
            values = [work.documents[position][0] for position in positions.tolist()]
        if not parsers.has_any(group.read):
            self._probe(work, group)
        records = RecordGroup(
            fleet, number, positions, values, _pick(work.batch.keys, positions), work.latest_us[positions],
            self._max_readings(len(fleet.sensors or ())), mapping,
        )  # fmt: skip
        for parser in parsers.in_order(group.read):
            columns, left = parser.decode(records, router)
            if columns is not None:
                work.columns.setdefault(number, []).append(columns)
                if isinstance(parser, ReadingParser):
                    self._note_fast(work, number, parser, columns)
                if len(left) < len(records) / 2:
                    parsers.prefer(group.read, parser)
                records = records.select(left)
            if len(left) <= _FEW:
                break
        return records.position

    def _probe(self, work: _Work, group: _Group) -> None:
        """Make a fast parser by the first record of a group, before any was accepted."""
        if len(group.positions) <= _FEW or self.fleets[group.fleet].is_learning:
            return
        position = int(group.positions[0])
        try:
            documents = self._documents(work, position)
            rows = work.routes[0].mapping.rows(documents, work.record(position), work.batch.partition.topic)
        except DecodeError:
            return
        if len(rows) == len(documents) == 1:
            self._expect(group.fleet, group.read, rows[0], documents[0])

    def _expect(self, number: int, read: str, row: Row, document: dict[str, Any]) -> None:
        """Let the fast parsers read records like this one."""
        plan = plan_of(row)
        if plan is not None:
            fleet, columns = self.fleets[number], self._columns[number]
            if fleet.is_learning and not self.may_learn:
                new = (pair for pair in row.cells.items() if pair[0] not in columns)
                if any(self._is_sensor(number, row, name, cell) for name, cell in new):
                    return  # such records must reach `_learn` later
            watched = []
            if fleet.growth is Growth.LEARNT:
                others = ((name, cell) for name, cell in row.cells.items() if name not in columns)
                watched = [name for name, cell in others if self._is_sensor(number, row, name, cell)]
            self._parsers[number].expect(plan, read, row, document, columns, watched, self._layouts.get(read))

    # ------------------------------------------------------------ one record

    def _decode_record(self, work: _Work, position: int) -> None:
        """Decode one record that no fast parser accepted."""
        try:
            documents = self._documents(work, position)
            route, rows, problem = self._rows_of(work, position, documents)
        except DecodeError as refused:
            work.reasons[position] = refused.detail
            return
        n_accepted = 0
        n_rows = Counter(number for number, row in rows if row.block is None)
        for number, n in n_rows.items():
            n_sensors = len(self._columns[number])
            if n > (most := self._max_readings(n_sensors)):
                work.reasons[position] = _too_many(n_sensors, n, most)
                return
        for number, row in rows:
            try:
                if row.block is not None:
                    self._accept_block(work, position, number, row, route.mapping)
                else:
                    self._accept_row(work, position, number, row, route.mapping)
                n_accepted += 1
            except DecodeError as refused:
                problem = problem or refused.detail
        if not n_accepted:
            work.reasons[position] = problem or _NO_READING
            return
        if problem is not None and not problem.startswith(_HARMLESS):
            number, row = rows[0]
            detail = f"records are read in part only, as some of their readings are refused: {problem}"
            work.notes.add(
                "part_refused", self.fleets[number].name, problem.partition(":")[0], detail, position, row.token
            )
        if len(rows) == len(documents) == 1 and len(work.routes) == 1:
            [(number, row)], key = rows, work.batch.keys[position]
            self._expect(number, self._read_of(int(work.format[position])), row, documents[0])
            if not route.router.has_one_fleet and row.token != key:
                self._key_is_asset = self._key_is_asset and key is not None and route.router.known.get(key) == number
                if row.asset_path and row.asset_path not in self._asset_paths and len(self._asset_paths) < 4:
                    self._asset_paths.append(row.asset_path)

    def _rows_of(
        self, work: _Work, position: int, documents: list[dict[str, Any]]
    ) -> tuple[_Route, list[tuple[int, Row]], str | None]:
        """Return the rows of a record with their fleets, by the first mapping that finds an asset of its fleets.

        The third result is the reason why another row has none.
        """
        reason: str | None = None  # not the error: it would be part of a reference cycle with this frame
        for route in work.routes:
            placed: list[tuple[int, Row]] = []
            problem: str | None = None
            try:
                found = route.mapping.rows(documents, work.record(position), work.batch.partition.topic)
                problem = found.problem
                for row in found:
                    try:
                        placed.append((route.router.fleet_of(row.token), row))
                    except DecodeError as error:
                        problem = problem or error.detail
            except DecodeError as error:
                problem = error.detail
            if placed:
                return route, placed, problem
            reason = reason or problem
        raise DecodeError(reason or _NO_READING)

    def _check_time(self, work: _Work, position: int, last_us: int) -> None:
        if last_us > work.latest_us[position]:
            written_us = int(work.latest_us[position]) - self._max_skew_us
            ahead, written = duration_text(last_us - written_us), iso_text(written_us)
            has_stamp = work.batch.timestamps_us[position] == written_us
            raise DecodeError(
                f"future: the event time {iso_text(last_us)} is {ahead} after {written}, when Kafka got "
                f"{'the record' if has_stamp else 'an earlier record (this one has no valid timestamp)'}; check the "
                f"producer's clock, time zone and unit of time, or raise kafka.max_skew (now "
                f"{duration_text(self._max_skew_us)})"
            )

    def _accept_row(self, work: _Work, position: int, number: int, row: Row, mapping: FieldMapping) -> None:
        """Add one reading to the work. Raises DecodeError where it has no value."""
        self._check_time(work, position, row.us)
        fleet, columns, read = self.fleets[number], self._columns[number], mapping.cells.read
        cells = row.cells
        if row.found is not None and (doubt := row.found.doubt) is not None:
            is_listed = fleet.growth is Growth.LISTED and fleet.sensors is not None
            if not (is_listed and doubt.value in columns):
                raise DecodeError(doubt.reason)
        if fleet.growth is Growth.LISTED and fleet.sensors is not None and columns.keys().isdisjoint(cells):
            cells = _nested_cells(row, columns)
        found: list[tuple[int, float]] = []
        unreadable: dict[str, object] = {}
        for name, cell in cells.items():
            column = columns.get(name)
            if column is None:
                if fleet.growth is Growth.LISTED and fleet.sensors is not None:
                    continue
                if not self._is_sensor(number, row, name, cell):
                    self._note_identifier(work, position, number, row, name, cell)
                    continue
                value = read(cell)
                if fleet.is_learning and (value is None or value != value):  # no value teaches no sensor
                    if value is None:
                        unreadable[name] = cell
                    continue
                column = self._learn(work, position, number, row, name)
                if column is None:
                    continue
                columns = self._columns[number]
            value = read(cell)
            if value is None:
                unreadable[name] = cell
            elif value == value:
                found.append((column, value))
        self._note_unreadable(work, number, unreadable, position, row.token)
        if not found:
            raise DecodeError(self._no_value(number, row, cells, unreadable))
        self._note_unit(work, number, row.unit, position, row.token)
        rows = work.rows.setdefault(number, _Rows())
        at = len(rows.position)
        rows.position.append(position)
        rows.tokens.append(row.token)
        rows.cell.append(int(cells_of(row.us, fleet.interval_us)))  # type: ignore[arg-type]  # works on ints as well
        for column, value in found:
            rows.row.append(at)
            rows.column.append(column)
            rows.value.append(value)

    def _accept_block(self, work: _Work, position: int, number: int, row: Row, mapping: FieldMapping) -> None:
        """Add the readings of one block to the work. Raises DecodeError where none has a value."""
        assert row.block is not None and row.times is not None  # noqa: S101, PT018  # the caller asked
        n, names = len(row.times), row.block.sensor_names()
        if n:
            self._check_time(work, position, int(row.times.max()))
        fleet, new = self.fleets[number], []
        if fleet.is_learning and self.may_learn and n and len(names) < MAX_FIELDS:
            given = row.block.values(_numbered(names), n, mapping.cells).values if n <= _LEARNT_ROWS else None
            has_value = [given is None or np.isfinite(given[:, column]).any() for column in range(len(names))]
            found = itertools.compress(names, has_value)
            new = [name for name in found if name not in self._columns[number]]
        n_sensors = len(self._columns[number]) + len(new)
        if n > (most := self._max_readings(n_sensors)):
            raise DecodeError(_too_many(n_sensors, n, most))
        for name in new:
            self._learn(work, position, number, row, name)
        fleet, columns = self.fleets[number], self._columns[number]
        values, unreadable, unknown = row.block.values(columns, n, mapping.cells)
        if fleet.growth is Growth.LEARNT:
            for name in unknown:
                self._learn(work, position, number, row, name)
        self._note_unreadable(work, number, unreadable, position, row.token)
        cell, values = drop_empty_readings(cells_of(row.times, fleet.interval_us), values)[:2]
        if not len(cell):
            raise DecodeError(self._no_value(number, row, dict.fromkeys(names, 0.0), unreadable))
        part = DecodedColumns(np.array([position]), [row.token], np.array([len(cell)]), cell, values)
        work.columns.setdefault(number, []).append(part)

    def _max_readings(self, n_sensors: int) -> int:
        """Return the limit of readings in a record: one long column of one sensor must not allocate all the others."""
        return max(1, _VALUES_PER_BYTE * self._max_record_bytes // max(1, n_sensors))

    def _no_value(self, number: int, row: Row, cells: Mapping[str, Any], unreadable: Mapping[str, Any]) -> str:
        """Return the reason why a reading has no value."""
        fleet, columns = self.fleets[number], self._columns[number]
        if unreadable:
            name, cell = next(iter(unreadable.items()))
            if type(cell) in (int, float):
                return (
                    f"not_finite: sensor {quote(name)} is {describe_value(cell)}, which is no finite 32-bit number; "
                    "send null where it is missing"
                )
            return (
                f"wrong_type: sensor {quote(name)} is {describe_value(cell)}; send a number, or null where it is "
                f"missing{fix_of_text(cell)}"
            )
        if not columns.keys().isdisjoint(cells) or (row.block is not None and fleet.is_learning):
            return "empty: no sensor has a value"
        if row.block is not None:
            others = list(cells)
        else:
            others = [name for name, cell in cells.items() if is_measurement(unwrapped(cell))]
        unread = None
        if row.found is not None and all(map(is_identifier, others)):
            unread = unread_number({n: v for n, v in row.found.scopes[-1].fields.items() if not is_identifier(n)})
        if unread is not None:
            return f"unknown_shape: no number of the record is read: {unread}"
        if not others:
            return "no_reading: the record has no number; it is counted apart"
        if fleet.sensors is None or fleet.growth is not Growth.LISTED:
            new = [name for name in others if self._is_sensor(number, row, name, cells[name])]
            if new:
                names = short_list(tuple(new))
                return f"no_reading: {names} came after the model was trained; `monitor retrain` learns it"
            names = ", ".join(map(toml, others[:8]))
            return (
                f"no_reading: {short_list(tuple(others))} count or identify something by their names; if they are "
                f"measurements: [kafka.fields] values = [{names}]"
            )
        others = [name for name in others if self._is_sensor(number, row, name, cells[name])] or others
        is_fixed = row.found is not None and row.found.paths is not None
        places = f", or name their places: [kafka.fields] values = [{', '.join(map(toml, others[:8]))}]"
        return (
            f"unknown_sensor: none of the sensors of fleet {quote(fleet.name)} ({short_list(fleet.sensors)}) is in the "
            f"record, which has {short_list(tuple(others))}; list these under sensors{places if is_fixed else ''}"
        )

    # ------------------------------------------------------------ sensors that no record had before

    def _is_sensor(self, number: int, row: Row, name: str, cell: object) -> bool:
        """Return whether a cell may be a new sensor's, by its name and value."""
        found = row.found
        if not is_sensor_name(name) or found is None:
            return False
        inner = unwrapped(cell)
        if found.is_exact:
            value = self._mappings[self.fleets[number].fields].cells.read(cell)
            return value is not None and value == value
        return is_measurement(inner, is_whole_allowed=not found.is_flat) and not is_identifier(name)

    def _learn(self, work: _Work, position: int, number: int, row: Row, name: str) -> int | None:
        """Add a sensor to a fleet that is learning, else report it. Return its column."""
        fleet, columns = self.fleets[number], self._columns[number]
        if not fleet.is_learning or not self.may_learn:
            if fleet.growth is Growth.LEARNT:
                self._note_new(work, number, name, [position], [row.token])
            return None
        if not is_sensor_name(name) or len(columns) >= MAX_FIELDS:
            return None
        sensors = (*(fleet.sensors or ()), name)
        self.fleets[number] = replace(fleet, sensors=sensors, growth=Growth.LEARNING)
        self.learnt[fleet.name] = sensors
        columns[name] = len(columns)
        return columns[name]

    def _note_new(
        self, work: _Work, number: int, name: str, positions: Iterable[int], tokens: Iterable[Token]
    ) -> None:
        detail = f"new sensor {name}: it is ignored until `monitor retrain` learns it"
        for position, token in zip(positions, tokens, strict=True):
            work.notes.add("new_sensor", self.fleets[number].name, name, detail, position, token)

    def _note_identifier(
        self, work: _Work, position: int, number: int, row: Row, name: str, cell: object
    ) -> None:
        """Report once a number that is not learnt because of its name."""
        if row.found is None or (number, name) in self._told or len(self._told) >= 256:
            return
        inner = unwrapped(cell)
        if type(inner) not in (int, float) or not is_sensor_name(name):
            return
        self._told.add((number, name))
        known = [*(self.fleets[number].sensors or ()), name]
        values = ", ".join(map(toml, known[:8]))
        detail = (
            f"{name} is not learnt as a sensor, as its name says that it counts or identifies something; if it is a "
            f"measurement: [kafka.fields] values = [{values}]"
        )
        work.notes.add("not_a_sensor", self.fleets[number].name, name, detail, position, row.token)

    # ------------------------------------------------------------ findings

    def _note_unreadable(
        self, work: _Work, number: int, cells: Mapping[str, object], position: int, token: Token
    ) -> None:
        """Report values that are neither a number nor missing."""
        for name, cell in cells.items():
            detail = f"sensor {quote(name)} is {describe_value(cell)} at times; it is taken as missing"
            work.notes.add("unreadable", self.fleets[number].name, name, detail + fix_of_text(cell), position, token)

    def _note_unit(self, work: _Work, number: int, unit: str, position: int, token: Token) -> None:
        """Report a unit of time that changes."""
        if unit not in _UNITS or self.fleets[number].fields.time_format != "auto":
            return
        before = self._units.setdefault(number, unit)
        if unit != before:
            self._units[number] = unit
            detail = (
                f"the unit of time changed from {before} to {unit}, by the size of the numbers; if one of the two is "
                f'wrong, fix the producer, or set [kafka.fields] time_format = "{before}"'
            )
            work.notes.add("unit_changed", self.fleets[number].name, "time", detail, position, token)

    def _note_fast(self, work: _Work, number: int, parser: ReadingParser, columns: DecodedColumns) -> None:
        """Report what a fast parser found besides the readings."""
        for name, rows in parser.seen:
            positions = columns.position[rows].tolist()
            self._note_new(work, number, name, positions, [columns.tokens[row] for row in rows])
        # A change of the unit lasts: two of two thousand records show it soon enough.
        for row in (0, -1) if len(parser.times) else ():
            if type(parser.times[row]) in (int, float):
                unit = format_of(parser.times[row])
                self._note_unit(work, number, unit, int(columns.position[row]), columns.tokens[row])

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
        for number, rows in work.rows.items():
            part = rows.columns(len(self._columns[number]))
            work.columns.setdefault(number, []).append(part)
        readings = [
            join(batch, fleet, self.assets[number], work.columns.get(number, []))
            for number, fleet in enumerate(self.fleets)
        ]
        n_accepted = len(batch.values) - len(quarantined) - work.n_tombstones
        return Decoded(readings, quarantined, n_accepted, work.n_tombstones, work.notes.notices())


def _mapping(fields: Fields) -> FieldMapping:
    try:
        return FieldMapping(fields)
    except ValueError as problem:
        raise ConfigError(f"[kafka.fields]: {problem}") from None


def _numbered(sensors: Sequence[str] | None) -> dict[str, int]:
    return {name: column for column, name in enumerate(sensors or ())}


def _nested_cells(row: Row, columns: Mapping[str, int]) -> dict[str, Any]:
    """Return the listed sensors that lie in other objects of the record: by path, or by a name that occurs once."""
    if row.found is None or row.others or row.found.shape == SERIES:
        return row.cells
    leaves: dict[str, list[Any]] = {}
    for path, value in flattened(row.found.scopes[0].fields):
        for name in {".".join(path), path[-1]}:
            leaves.setdefault(name, []).append(value)
    found = {name: values[0] for name, values in leaves.items() if name in columns and len(values) == 1}
    return found or row.cells


def _too_many(n_sensors: int, n: int, most: int) -> str:
    return (
        f"too_many_readings: the record has {n} readings; at most {most} of {n_sensors} sensors are read at "
        "once; send smaller records, or raise kafka.max_record_bytes"
    )


def _pick(items: Sequence[Any], positions: Int64) -> Sequence[Any]:
    """Return the items at these rising positions."""
    return items if len(positions) == len(items) else [items[i] for i in positions.tolist()]
