"""aiokafka's unpacking of compressed batches, within a limit of memory.

Enters: batches as a broker sent them. Leaves: their records; and for each offset of what cannot be unpacked a record
whose value is `Unread` and says why, which the decoder puts into quarantine like any other that it cannot use. The law:
**what becomes of a batch depends on its bytes alone**, so that a replay meets what live met. That is why a batch with a
wrong checksum is no such record but an error: it may be right on another replica, or the next time.

aiokafka 0.14 unpacks a batch whole, whatever comes out: 700 MiB of zeros travel as 700 KiB. Its parser looks its
decompressors up by name, and its fetcher the class that walks through a fetched piece of log; both get ours here.
"""

from __future__ import annotations

import struct
import zlib
from contextvars import ContextVar
from importlib import import_module
from typing import TYPE_CHECKING, Any, NamedTuple

import aiokafka.consumer.fetcher
import cramjam
import numpy as np
from aiokafka import errors as kafka

from monitor.types import Partition, Unread

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition

MAX_RECORDS = 4096
"""Per poll: large enough that batches pay, small enough that the event loop stays responsive."""
MAX_BATCH_BYTES = 64 * 1024 * 1024
"""What one batch may unpack to: 64 times what Kafka lets it have packed by default (`max.message.bytes`, 1 MiB).

Readings in JSON unpack to 4 to 6 times their size, and 60 times with gzip where no value ever changes (measured); most
producers fill a batch by its unpacked size, to 1 MiB and less.
"""
MAX_POLL_BYTES = 64 * 1024 * 1024
"""After so much has been unpacked, a poll ends; the rest of what was fetched is fetched again."""
MAX_HEADERS = 1_000_000
"""Of all records of a batch. A header takes 2 bytes there, and 72 of ours: aiokafka makes a list of them first."""
SHORTEST_RECORD = 6
"""Bytes behind its length: one for each of what a record has."""
USUAL_RATIO = 16
"""How much room lz4 and zstd, which do not say what they need, get at first."""
XERIAL = b"\x82SNAPPY\x00"
"""How Java's framing of snappy begins: two version numbers follow, then blocks behind their lengths, 4 bytes each."""
BAD_STRUCTURE = (kafka.KafkaError, ArithmeticError, AssertionError, LookupError, ValueError, struct.error)
"""What aiokafka's parser raises over bytes that are no records; a header's name that is no UTF-8 is a ValueError."""
WHO = "though its checksum is right; whoever runs its producer must look at what it sends"


class Damaged(kafka.CorruptRecordException):  # type: ignore[misc]  # aiokafka ships no types
    """A batch is not what the broker was given: its checksum is wrong."""

    def __init__(self, partition: Partition, offset: int) -> None:
        super().__init__(f"{partition}: the batch at offset {offset} has a wrong checksum or length")
        self.partition = partition
        self.offset = offset


class _Unpackable(Exception):
    """A batch's content cannot be had; the argument is the reason, as quarantine has it."""


async def take(
    consumer: AIOKafkaConsumer, *keys: TopicPartition, timeout_ms: int
) -> dict[TopicPartition, list[ConsumerRecord[bytes, bytes]]]:
    """Poll once, within all limits. Raises KafkaError; never to be cancelled."""
    _left.set([MAX_POLL_BYTES])
    polled: dict[TopicPartition, list[ConsumerRecord[bytes, bytes]]] = await consumer.getmany(
        *keys, timeout_ms=timeout_ms, max_records=MAX_RECORDS
    )
    return polled


_left: ContextVar[list[int]] = ContextVar("_left")
"""Bytes that the poll under way may still unpack."""


# ---------------------------------------------------------------- a batch, and what was fetched of a log


class _Lost(NamedTuple):
    """A record as aiokafka's fetcher wants one, in place of one that cannot be had."""

    offset: int
    timestamp: int | None
    value: Unread
    key: None = None
    timestamp_type: None = None
    checksum: None = None
    headers: tuple[()] = ()


class _Batch:
    """One batch, whose checksum is right."""

    __slots__ = ("_batch", "_piece")

    def __init__(self, batch: Any, piece: _Piece) -> None:
        self._batch = batch
        self._piece = piece

    def __getattr__(self, name: str) -> Any:
        return getattr(self._batch, name)

    def __next__(self) -> Any:
        return next(self._batch)

    def __iter__(self) -> Iterator[Any]:
        try:
            yield from self._batch
        except _Unpackable as problem:
            why = str(problem)
        except BAD_STRUCTURE as problem:
            why = f"corrupt_batch: its batch holds what are no records ({problem}), {WHO}"
        else:
            return
        # What a batch says of itself: the old formats neither have their first offset nor their time outside.
        first = max(getattr(self._batch, "base_offset", 0), self._piece.next_fetch_offset)
        timestamp, value = getattr(self._batch, "max_timestamp", None), Unread(why)
        yield from (_Lost(offset, timestamp, value) for offset in range(first, self._batch.next_offset))


class _Batches:
    """The batches of a piece, one after the other."""

    def __init__(self, batches: Any, piece: _Piece) -> None:
        self._batches = batches
        self._piece = piece
        self._next: Any = None

    def has_next(self) -> bool:
        """Whether there is one, and room for it: where a walk ends, the next fetch begins.

        Raises Damaged, once nothing is left in front of what is: an error loses all that its walk has found.
        """
        left = _left.get(None)
        if (left is not None and left[0] <= 0) or not self._batches.has_next():
            return False
        try:
            self._next = self._batches.next_batch()
            is_right = bool(self._next.validate_crc())
        except BAD_STRUCTURE:
            is_right = False
        if not is_right and self._piece.next_fetch_offset == self._piece.begins:
            raise Damaged(self._piece.partition, self._piece.begins)
        return is_right

    def next_batch(self) -> _Batch:
        """Return the one that was looked at."""
        return _Batch(self._next, self._piece)


class _Piece(aiokafka.consumer.fetcher.PartitionRecords):  # type: ignore[misc]  # aiokafka ships no types
    """What was fetched of one partition."""

    def __init__(self, tp: TopicPartition, records: Any, aborted: Any, fetch_offset: int, *rest: Any) -> None:
        super().__init__(tp, _Batches(records, self), aborted, fetch_offset, *rest)
        self.partition = Partition(*tp)
        self.begins = fetch_offset


# ---------------------------------------------------------------- decompressors


def gunzip(packed: Any) -> bytes:
    """Members of gzip, one after the other, and zeros behind them."""
    unpacked, rest = b"", bytes(packed)
    while rest:
        stream = zlib.decompressobj(wbits=31)
        unpacked += stream.decompress(rest, MAX_BATCH_BYTES + 1 - len(unpacked))
        if len(unpacked) > MAX_BATCH_BYTES:
            raise _Unpackable(_too_large())
        if not stream.eof:
            raise zlib.error("its stream ends behind the batch")
        rest = stream.unused_data.lstrip(b"\0")
    return unpacked


def unsnap(packed: Any) -> bytes:
    """Snappy, bare or in Java's framing; either says how much comes out."""
    view = memoryview(packed)
    blocks = list(_blocks(view)) if view[: len(XERIAL)] == XERIAL else [view]
    if sum(cramjam.snappy.decompress_raw_len(block) for block in blocks) > MAX_BATCH_BYTES:
        raise _Unpackable(_too_large())
    return b"".join(bytes(cramjam.snappy.decompress_raw(block)) for block in blocks)


def _blocks(framed: memoryview) -> Iterator[memoryview]:
    at = len(XERIAL) + 8
    while at < len(framed):
        size = int.from_bytes(framed[at : at + 4], "big")
        at += 4 + size
        if at > len(framed):
            raise ValueError("a block of snappy ends behind its batch")
        yield framed[at - size : at]


def unlz4(packed: Any) -> bytes:
    """Frames of lz4."""
    return _unpack_into(cramjam.lz4.decompress_into, packed)


def unzstd(packed: Any) -> bytes:
    """Frames of zstd."""
    return _unpack_into(cramjam.zstd.decompress_into, packed)


def _unpack_into(decompress_into: Callable[[Any, Any], int], packed: Any) -> bytes:
    for room in (min(USUAL_RATIO * len(packed), MAX_BATCH_BYTES), MAX_BATCH_BYTES):
        buffer = np.empty(room, np.uint8)  # pages that are not written to cost nothing
        try:
            return buffer[: decompress_into(packed, buffer)].tobytes()
        except cramjam.DecompressionError as problem:
            why = problem
    if "whole buffer" in str(why):
        raise _Unpackable(_too_large())
    raise why


def _too_large(why: str = f"unpacks to more than {MAX_BATCH_BYTES >> 20} MiB") -> str:
    return (
        f"too_large_batch: its batch {why}, so nothing of it was read; "
        "have the producer send smaller batches (batch.size, linger.ms), or smaller records"
    )


def _too_many_headers(records: bytes) -> bool:
    """Whether the records of a batch in today's format have too many; what is no record at all is told by the parser.

    Each begins with its length. Inside: attributes, time, offset, key, value behind their lengths, number of headers.
    """
    at, n_headers = 0, 0
    try:
        while at < len(records):
            size, at = _varint(records, at)
            if size < SHORTEST_RECORD:
                break
            inside = at + 1
            for _ in range(2):
                _, inside = _varint(records, inside)
            for _ in range(2):
                length, inside = _varint(records, inside)
                inside += max(length, 0)
            n_headers += max(_varint(records, inside)[0], 0)  # the parser makes them before it looks at the length
            at += size
    except IndexError:
        pass
    return n_headers > MAX_HEADERS


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """Read a number, 7 bits to a byte, the sign in the last bit; return where it ends. Raises IndexError."""
    number = data[at] & 0x7F
    for shift in range(7, 70, 7):
        if data[at] < 0x80:
            break
        at += 1
        number |= (data[at] & 0x7F) << shift
    return (number >> 1) ^ -(number & 1), at + 1


def _within_limits(decompress: Callable[[Any], bytes], name: str) -> Callable[[Any], bytes]:
    def unpack(packed: Any) -> bytes:
        try:
            unpacked = decompress(packed)
        except (zlib.error, cramjam.DecompressionError, ValueError) as problem:
            raise _Unpackable(f"corrupt_batch: its batch is no {name} ({problem}), {WHO}") from problem
        if len(unpacked) > 2 * MAX_HEADERS and _too_many_headers(unpacked):
            raise _Unpackable(_too_large(f"holds more than {MAX_HEADERS:,} headers"))
        if (left := _left.get(None)) is not None:
            left[0] -= len(unpacked)
        return unpacked

    return unpack


# ---------------------------------------------------------------- aiokafka 0.14, mended

_MENDED = {
    "gzip_decode": _within_limits(gunzip, "gzip"),
    "snappy_decode": _within_limits(unsnap, "snappy"),
    "lz4_decode": _within_limits(unlz4, "lz4"),
    "zstd_decode": _within_limits(unzstd, "zstd"),
}
for _parser in ("default_records", "legacy_records", "_crecords.default_records", "_crecords.legacy_records"):
    vars(import_module(f"aiokafka.record.{_parser}")).update(_MENDED)
aiokafka.consumer.fetcher.PartitionRecords = _Piece
