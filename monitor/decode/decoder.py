"""A batch of records → one set of columns per fleet, and the records that cannot be used, each with its reason.

Enters a `RecordBatch`; leaves `Decoded`. The law: what becomes of a record depends on the record alone (and on the
fleets), never on its neighbours, on the batching, or on the way it was decoded. Only names learnt for a fleet without
configured sensors come from a whole batch: the first one that has any.

Records that look alike travel together: split by format and by fleet, tried on the shape that fitted last
(`readings.py`, `blocks.py`), then on the others; what is left goes one by one through `document.py`, which is slower,
accepts every form, and knows the reason where it does not.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from operator import itemgetter
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, get_args

import numpy as np

from monitor.decode.admission import Admission
from monitor.decode.blocks import BlockShape
from monitor.decode.columns import Piece, Task, cells_of, drop_empty_rows
from monitor.decode.document import Document, Form
from monitor.decode.formatting import bounded, duration
from monitor.decode.payload import MAX_FIELDS
from monitor.decode.readings import ReadingShape, tokens_only
from monitor.decode.schema import AssetIndex, FleetSchema, Router, Token
from monitor.decode.timestamps import MAX_US, iso
from monitor.errors import ConfigError, DecodeError
from monitor.types import SAMPLE_BYTES, Quarantined, Readings, Unread

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from monitor.types import Bool, Float32, Int64, RecordBatch

Format = Literal["auto", "json", "msgpack"]

_CHUNK = 2_048
"""Records that are decoded together: as many as stay in the processor's cache until they are columns."""
_MAX_LEARNT_NAME = 128
"""Characters: what is learnt is learnt for good, so nobody's novel."""
_FEW = 4
"""Records that are not worth another shape's try."""
_VALUES_PER_BYTE = 4
"""Values that a record becomes, missing ones included, for each byte that a record may have: 4 MiB in float32 where
that is 256 KiB. A raw block of all sensors needs a quarter for each."""
_NO_LIMIT = np.iinfo(np.int64).max


@dataclass(frozen=True, slots=True)
class Decoded:
    """What became of the records of one batch: each is accepted, quarantined or a tombstone."""

    readings: list[Readings]
    """One per fleet, in the order of the fleets; may be empty."""
    quarantined: list[Quarantined]
    """In offset order."""
    n_accepted: int
    """Records whose readings are in `readings`."""
    n_tombstones: int
    """Records without a value."""


@dataclass(slots=True)
class _Work:
    """One batch on its way."""

    batch: RecordBatch
    latest_us: Int64
    """[N], the last event time that is not too far in the future."""
    router: Router
    is_msgpack: Bool
    """[N]"""
    rows: Int64
    """Positions of the records worth opening."""
    pieces: dict[int, list[Piece]] = field(default_factory=dict)
    reasons: dict[int, str] = field(default_factory=dict)
    """Position in the batch → why not."""
    n_tombstones: int = 0

    def document(self, at: int) -> Document:
        return Document(self.batch.values[at] or b"", is_msgpack=bool(self.is_msgpack[at]))


class _Group(NamedTuple):
    """Records of one batch that look alike."""

    fleet: int
    """Number; -1 = not known."""
    is_msgpack: bool
    at: Int64
    """Positions, rising."""


class Decoder:
    """Decodes one partition. Keeps, per fleet, the asset index of the lane and which shape fitted last."""

    def __init__(
        self,
        fleets: Sequence[FleetSchema],
        *,
        format: Format = "auto",  # noqa: A002  # the word of the configuration
        max_record_bytes: int = 262_144,
        max_skew_us: int = 86_400_000_000,
        assets: Mapping[str, AssetIndex] | None = None,
    ) -> None:
        """`assets`: by fleet, the index of a lane that goes on; fleets not named begin with an empty one."""
        if format not in get_args(Format):
            msg = f"kafka.format is {format!r}; it can be {', '.join(get_args(Format))}"
            raise ConfigError(msg)
        self.fleets = tuple(fleets)
        given = assets or {}
        self.assets = [given[f.name] if f.name in given else AssetIndex() for f in self.fleets]
        """One per fleet, in their order."""
        self.admissions: dict[str, Admission] = {}
        """By fleet; where there is none, every asset is let in."""
        self._format = format
        self._max_record_bytes = max_record_bytes
        self._max_skew_us = max_skew_us
        self._routers: dict[str, Router] = {}
        self._shapes = [_Shapes() for _ in self.fleets]
        self._key_is_asset = True
        """Until a payload names an asset of another fleet than the key does."""

    def decode(self, batch: RecordBatch) -> Decoded:
        """Columns of what can be used, quarantine for the rest. Raises nothing over any bytes."""
        with np.errstate(over="ignore", invalid="ignore"):  # numbers out of range, and NaN that signals, are refused
            work = self._begin(batch)
            self._look(work)
            if any(self.fleets[number].sensors is None for number in work.router.numbers):
                self._learn_sensors(work)
            left = [self._decode_alike(work, group) for group in self._alike(work)]
            for at in sorted(itertools.chain.from_iterable(places.tolist() for places in left)):
                self._decode_singly(work, at)
            return self._finish(work)

    def guard(self, fleet: str, since: Sequence[int], state: Sequence[int], next_offset: int) -> None:
        """From now on let no new asset of this fleet in without asking its admission.

        `since`: by asset, the offset of its first record. Records from `next_offset` on are not saved yet, so whoever
        came with them comes again. `state`: as `admission_states` said then; empty at the start of a log.
        """
        number = next(number for number, schema in enumerate(self.fleets) if schema.name == fleet)
        waiting = [asset for asset, offset in enumerate(since) if offset >= next_offset]
        self.admissions[fleet] = Admission(self.assets[number], self.fleets[number], waiting=waiting, state=state)

    def admission_states(self) -> dict[str, list[int]]:
        """By fleet, what admission must know after a restart, besides the assets. Plain JSON."""
        return {fleet: admission.state for fleet, admission in self.admissions.items()}

    # ------------------------------------------------------------ before

    def _begin(self, batch: RecordBatch) -> _Work:
        topic = batch.partition.topic
        if topic not in self._routers:
            self._routers[topic] = Router(self.fleets, topic)
        for index in self.assets:
            index.forget_strangers()
        self._routers[topic].forget_strangers(self.assets)
        stamps = batch.timestamps_us
        latest = np.where(stamps >= 0, np.minimum(stamps, MAX_US) + self._max_skew_us, _NO_LIMIT)
        return _Work(batch, latest, self._routers[topic], np.zeros(len(batch), np.bool_), np.arange(len(batch)))

    def _look(self, work: _Work) -> None:
        """Find the records worth opening, and their format; refuse what is empty or too large."""
        values = work.batch.values
        try:
            sizes = np.fromiter(map(len, values), np.int64, len(values))  # type: ignore[arg-type]  # None: see below
        except TypeError:
            sizes = np.array([-1 if value is None else len(value) for value in values], np.int64)
            work.n_tombstones = int((sizes < 0).sum())
        for at in np.flatnonzero(sizes > self._max_record_bytes).tolist():
            work.reasons[at] = (
                f"too_large: the record has {sizes[at]} bytes; at most {self._max_record_bytes} are read; "
                "raise kafka.max_record_bytes or send smaller blocks"
            )
        for at in np.flatnonzero(sizes == 0).tolist():
            value, wanted = values[at], "msgpack" if self._format == "msgpack" else "json"
            work.reasons[at] = value.reason if isinstance(value, Unread) else f"not_{wanted}: the record is empty"
        work.is_msgpack = np.full(len(values), self._format == "msgpack")
        work.rows = np.flatnonzero((sizes > 0) & (sizes <= self._max_record_bytes))
        if self._format == "auto":
            present = _pick(values, work.rows)
            # JSON text begins below 0x80, a map of MessagePack (and most else it has) at or above.
            first = np.fromiter(map(itemgetter(0), present), np.uint8, len(present))
            work.is_msgpack[work.rows] = first >= 0x80

    def _learn_sensors(self, work: _Work) -> None:
        """Fix the sensors of the fleets that have none: every name in this batch, in order of appearance."""
        found: dict[int, dict[str, None]] = {}
        texts: set[str] = set()
        for at in work.rows.tolist():
            try:
                document = work.document(at)
                number = work.router.fleet_of(document.token(work.batch.keys[at]))
                document.times()
                found.setdefault(number, {}).update(dict.fromkeys(document.names()))
            except DecodeError:
                continue
            if document.form is Form.FLAT:  # null here and a text elsewhere: not a sensor
                texts.update(n for n, v in document.fields.items() if isinstance(v, (str, bytes, dict, list)))
        for number, names in found.items():
            fleet = self.fleets[number]
            usable = (name for name in names if name not in texts and len(name) <= _MAX_LEARNT_NAME)
            sensors = tuple(itertools.islice(usable, MAX_FIELDS))
            if fleet.sensors is None and sensors:
                fleet.sensors, fleet.learnt = sensors, True

    # ------------------------------------------------------------ records that look alike

    def _alike(self, work: _Work) -> list[_Group]:
        """Records of one format and, presumably, one fleet."""
        groups: list[_Group] = []
        for is_msgpack in (False, True):
            at = work.rows[work.is_msgpack[work.rows] == is_msgpack]
            if not len(at):
                continue
            if work.router.is_plain:
                groups.append(_Group(work.router.numbers[0], is_msgpack, at))
                continue
            fleets = np.array(self._guess_fleets(work, at, is_msgpack=is_msgpack), np.int64)
            groups += [_Group(number, is_msgpack, at[fleets == number]) for number in np.unique(fleets).tolist()]
        return [
            _Group(group.fleet, group.is_msgpack, group.at[first : first + _CHUNK])
            for group in groups
            for first in range(0, len(group.at), _CHUNK)
        ]

    def _guess_fleets(self, work: _Work, at: Int64, *, is_msgpack: bool) -> list[int]:
        """Number of the fleet per record, -1 = unknown. A wrong guess costs time, never correctness."""
        keys = _pick(work.batch.keys, at)
        tokens: Sequence[Token | None] = keys
        if not self._key_is_asset or None in set(keys):
            tokens = tokens_only(_pick(work.batch.values, at), keys, is_msgpack=is_msgpack)
        fleets: dict[Token | None, int] = {}
        for token in set(tokens):
            try:
                fleets[token] = work.router.fleet_of(token)
            except DecodeError:
                fleets[token] = -1
        return [fleets[token] for token in tokens]

    def _decode_alike(self, work: _Work, group: _Group) -> Int64:
        """Decode with the shapes that fit; returns the positions left over."""
        at = group.at
        if group.fleet < 0:
            return at
        shapes = self._shapes[group.fleet]
        values, keys = _pick(work.batch.values, at), _pick(work.batch.keys, at)
        fleet = self.fleets[group.fleet]
        task = Task(fleet, group.fleet, at, values, keys, work.latest_us[at], self._max_rows(fleet))
        for shape in shapes.in_order(group.is_msgpack):
            piece, left = shape.decode(task, work.router)
            if piece is not None:
                work.pieces.setdefault(group.fleet, []).append(piece)
                if len(left) < len(task) / 2:
                    shapes.prefer(group.is_msgpack, shape)
                task = task.only(left)
            if len(left) <= _FEW:
                break
        return task.at

    # ------------------------------------------------------------ one by one

    def _decode_singly(self, work: _Work, at: int) -> None:
        """The long way, for what is unusual or wrong."""
        key = work.batch.keys[at]
        try:
            document = work.document(at)
            token = document.token(key)
            number = work.router.fleet_of(token)
            cell, values = self._place(work, at, document, self.fleets[number])
        except DecodeError as problem:
            work.reasons[at] = problem.detail
            return
        if token is None:  # fleet_of has refused it
            return
        piece = Piece(np.array([at]), [token], np.array([len(cell)]), cell, values)
        work.pieces.setdefault(number, []).append(piece)
        self._shapes[number].learn(document, self.fleets[number].sensors or (), is_msgpack=bool(work.is_msgpack[at]))
        if self._key_is_asset and not work.router.is_plain and token != key:
            self._key_is_asset = key is not None and work.router.known.get(key) == number

    def _place(self, work: _Work, at: int, document: Document, fleet: FleetSchema) -> tuple[Int64, Float32]:
        """Cells and values of one record's readings."""
        ts_us = document.times()
        if len(ts_us) > (most := self._max_rows(fleet)):
            msg = (
                f"too_many_readings: the block has {len(ts_us)} readings; at most {most} of {len(fleet.sensors or ())} "
                "sensors are read at once; send smaller blocks, or raise kafka.max_record_bytes"
            )
            raise DecodeError(msg)
        values = document.values(fleet, len(ts_us))
        if len(ts_us) and (last := int(ts_us.max())) > work.latest_us[at]:
            written = int(work.batch.timestamps_us[at])
            msg = (
                f"future: the event time {iso(last)} is {duration(last - written)} after {iso(min(written, MAX_US))}, "
                "when Kafka got the record; check the producer's clock and unit of time, or raise kafka.max_skew"
            )
            raise DecodeError(msg)
        cell, values = drop_empty_rows(cells_of(ts_us, fleet.interval_us), values)[:2]
        if not len(cell):
            raise DecodeError("empty: no sensor has a value")
        return cell, values

    def _max_rows(self, fleet: FleetSchema) -> int:
        """Readings that one record may have: a short column of one sensor must not become a huge table of all."""
        return max(1, _VALUES_PER_BYTE * self._max_record_bytes // max(1, len(fleet.sensors or ())))

    # ------------------------------------------------------------ after

    def _finish(self, work: _Work) -> Decoded:
        batch, reasons = work.batch, work.reasons
        quarantined = [
            Quarantined(
                batch.partition,
                int(batch.offsets[at]),
                bounded(reasons[at]),
                (batch.values[at] or b"")[:SAMPLE_BYTES],
                max(int(batch.timestamps_us[at]), 0),
            )
            for at in sorted(reasons)
        ]
        readings = [self._join(batch, number, work.pieces.get(number, [])) for number in range(len(self.fleets))]
        n_accepted = len(batch) - len(quarantined) - work.n_tombstones
        return Decoded(readings, quarantined, n_accepted, work.n_tombstones)

    def _join(self, batch: RecordBatch, number: int, pieces: list[Piece]) -> Readings:
        """One fleet's pieces in offset order, assets numbered."""
        fleet, index = self.fleets[number], self.assets[number]
        if not pieces:
            none = np.empty(0, np.int64)
            return Readings(
                fleet.name, none.astype(np.int32), none, none, np.empty((0, len(fleet.sensors or ())), np.float32)
            )
        try:
            numbers = [index.numbers(piece.tokens) for piece in pieces]
        except KeyError:  # new assets: number them in offset order, whatever way their records went
            tokens = ((at, t) for piece in pieces for at, t in zip(piece.at.tolist(), piece.tokens, strict=True))
            for _, token in sorted((pair for pair in tokens if pair[1] not in index), key=itemgetter(0)):
                index.add(token)
            numbers = [index.numbers(piece.tokens) for piece in pieces]
        asset = [_per_reading(of_record, piece) for of_record, piece in zip(numbers, pieces, strict=True)]
        place = [_per_reading(piece.at, piece) for piece in pieces]
        if len(pieces) == 1:
            return Readings(fleet.name, asset[0], pieces[0].cell, batch.offsets[place[0]], pieces[0].values)
        offset = batch.offsets[np.concatenate(place)]
        readings = Readings(
            fleet.name,
            np.concatenate(asset),
            np.concatenate([piece.cell for piece in pieces]),
            offset,
            np.concatenate([piece.values for piece in pieces]),
        )
        if (np.diff(offset) >= 0).all():
            return readings
        order = np.argsort(offset, kind="stable")
        return Readings(fleet.name, readings.asset[order], readings.cell[order], offset[order], readings.values[order])


def _per_reading(of_record: Any, piece: Piece) -> Any:
    """A column with an entry per record → one with an entry per reading."""
    return of_record if piece.n_rows is None else np.repeat(of_record, piece.n_rows)


def _pick(items: Sequence[Any], at: Int64) -> Sequence[Any]:
    """The items at these rising positions."""
    return items if len(at) == len(items) else [items[i] for i in at.tolist()]


Shape = ReadingShape | BlockShape


class _Shapes:
    """The shapes that one fleet's records may have, the one that fitted last first."""

    __slots__ = ("_json", "_msgpack")

    def __init__(self) -> None:
        self._json: list[Shape] = [ReadingShape(form, is_msgpack=False) for form in (Form.WIDE, Form.FLAT)]
        readings = [ReadingShape(form, is_msgpack=True) for form in (Form.WIDE, Form.FLAT)]
        self._msgpack: list[Shape] = [BlockShape(), *readings]

    def in_order(self, is_msgpack: bool) -> tuple[Shape, ...]:
        return tuple(self._msgpack if is_msgpack else self._json)

    def prefer(self, is_msgpack: bool, shape: Shape) -> None:
        shapes = self._msgpack if is_msgpack else self._json
        shapes.remove(shape)
        shapes.insert(0, shape)

    def learn(self, document: Document, sensors: tuple[str, ...], *, is_msgpack: bool) -> None:
        for shape in self._msgpack if is_msgpack else self._json:
            if isinstance(shape, ReadingShape) and shape.form is document.form:
                shape.learn(document, sensors)
