"""aiokafka's consumer with limits on the memory of one poll. It creates no topic.

Input: fetch responses as a broker sends them. Output: their records. A record of a batch that cannot be read has an
`Unread` value with the reason, which the decoder puts into quarantine.
Invariant: the records of a batch depend on its bytes alone, so that a replay reads the same records as the live run. So
a batch with a wrong checksum raises `CorruptBatch` and gives no records: another replica or fetch may have it intact.

aiokafka 0.14 decompresses each batch whole, however large the result is: 700 MiB of zeros travel as 700 KiB.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass
from functools import partial
from types import FunctionType, MethodType
from typing import TYPE_CHECKING, Any, NamedTuple

import cramjam
from aiokafka import AIOKafkaConsumer, client
from aiokafka import errors as kafka
from aiokafka.client import AIOKafkaClient
from aiokafka.consumer import fetcher
from aiokafka.protocol.metadata import MetadataRequest
from aiokafka.record.default_records import DefaultRecordBatch
from aiokafka.record.memory_records import MemoryRecords

from monitor.kafka.decompression import ADVICE, UnreadableBatch, check_headers, decompress
from monitor.types import Partition, Unread

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from aiokafka import ConsumerRecord, TopicPartition

MAX_RECORDS = 4096
"""Records of one poll: enough for efficient batches, few enough for a responsive event loop."""
MAX_POLL_BYTES = 64 * 1024 * 1024
"""Decompressed bytes after which a poll ends. Fetched batches beyond them are fetched again."""
PARSER_ERRORS = (kafka.KafkaError, ArithmeticError, AssertionError, LookupError, OSError, EOFError, ValueError)
MALFORMED = (*PARSER_ERRORS, SystemError, struct.error, zlib.error, cramjam.DecompressionError)
"""Errors of aiokafka over malformed bytes. A header name that is not UTF-8 is a ValueError, and a negative length in an
old format is a SystemError."""

# Offsets in a batch. The length and the format version lie at the same place in all versions.
LENGTH, LENGTH_END = 8, 12
VERSION = 16
ATTRIBUTES = 22
RECORDS = 61
OLD_ATTRIBUTES = 17
OLD_KEY = {0: 18, 1: 26}
CODEC_MASK = 0x07


class CorruptBatch(kafka.CorruptRecordException):  # type: ignore[misc]  # aiokafka ships no types
    """A batch changed after the producer sent it: its checksum or length is wrong."""

    def __init__(self, partition: Partition, offset: int) -> None:
        super().__init__(f"{partition}: the batch at offset {offset} has a wrong checksum or length")
        self.partition = partition
        self.offset = offset


@dataclass(slots=True)
class PollBudget:
    """Bytes that the present poll may still decompress."""

    bytes_left: int = MAX_POLL_BYTES


class BoundedConsumer(AIOKafkaConsumer):  # type: ignore[misc]  # aiokafka ships no types
    """A consumer whose polls stay within the limits of this module. Subscribe or assign after `start`."""

    _budget: PollBudget

    async def start(self) -> None:
        """Connect, and let the fetcher of this consumer parse within the limits."""
        # aiokafka 0.14 lets the broker create the topics that it asks for. A misspelt name must not become a topic.
        asking = {"MetadataRequest": partial(MetadataRequest, allow_auto_topic_creation=False)}
        update = FunctionType(AIOKafkaClient._metadata_update.__code__, vars(client) | asking)
        self._client._metadata_update = MethodType(update, self._client)
        await super().start()
        # aiokafka 0.14 has no parameter for its parser: one method of its Fetcher names the two classes. This fetcher
        # gets the same method with other values for these names. Nothing changes for other consumers.
        self._budget = PollBudget()
        parsers = {"MemoryRecords": FetchedBatches, "PartitionRecords": partial(bounded_records, self._budget)}
        method = FunctionType(fetcher.Fetcher._proc_fetch_request.__code__, vars(fetcher) | parsers)
        self._fetcher._proc_fetch_request = MethodType(method, self._fetcher)

    async def getmany(
        self, *partitions: TopicPartition, timeout_ms: int = 0, max_records: int = MAX_RECORDS
    ) -> dict[TopicPartition, list[ConsumerRecord[bytes, bytes]]]:
        """Poll once, within all limits. Raises KafkaError. Must not be cancelled."""
        self._budget.bytes_left = MAX_POLL_BYTES
        return await super().getmany(  # type: ignore[no-any-return]
            *partitions, timeout_ms=timeout_ms, max_records=max_records
        )


def bounded_records(budget: PollBudget, tp: TopicPartition, batches: FetchedBatches, *rest: Any) -> Any:
    """Return aiokafka's iterator over fetched records, within the limits."""
    records = fetcher.PartitionRecords(tp, batches, *rest)
    batches.limit(budget, Partition(*tp), records.next_fetch_offset)
    return records


class FetchedBatches(MemoryRecords):  # type: ignore[misc]  # aiokafka ships no types
    """The fetched batches of one partition. After `limit` each one is returned with a verified checksum."""

    def __init__(self, data: bytes) -> None:
        super().__init__(data)
        self._data = memoryview(data)
        self._end = 0
        self._next: Any = None
        self._is_limited = False

    def limit(self, budget: PollBudget, partition: Partition, fetch_offset: int) -> None:
        """Verify batches from now on. `fetch_offset`: the first requested offset."""
        self._budget, self._partition, self._fetch_offset = budget, partition, fetch_offset
        self._is_limited = True

    def has_next(self) -> bool:
        """Return True if a batch follows and the poll has room for it. The next fetch begins after the last one.

        Raises CorruptBatch, but only for the first batch: an error discards all records found before it.
        """
        if not self._is_limited or not super().has_next():
            return super().has_next()  # type: ignore[no-any-return]
        if self._budget.bytes_left <= 0:
            return False
        try:
            self._next = super().next_batch()
            is_intact = bool(self._next.validate_crc())
        except MALFORMED:
            is_intact = False
        if not is_intact and self._end == 0:
            raise CorruptBatch(self._partition, self._fetch_offset)
        return is_intact

    def next_batch(self) -> _BoundedBatch:
        """Return the batch that `has_next` has checked."""
        start = self._end
        self._end += LENGTH_END + int.from_bytes(self._data[start + LENGTH : start + LENGTH_END], "big")
        return _BoundedBatch(self._next, self._data[start : self._end], self._fetch_offset, self._budget)


class _BoundedBatch:
    """A batch with a verified checksum. Its records are decompressed within the limits."""

    def __init__(self, batch: Any, data: memoryview, fetch_offset: int, budget: PollBudget) -> None:
        self._batch = batch
        self._data = data
        self._fetch_offset = fetch_offset
        self._budget = budget

    def __getattr__(self, name: str) -> Any:
        return getattr(self._batch, name)

    def validate_crc(self) -> bool:
        return True  # `FetchedBatches` has verified it

    def __next__(self) -> Any:
        return next(self._batch)

    def __iter__(self) -> Iterator[Any]:
        try:
            yield from self._records()
        except UnreadableBatch as problem:
            reason = str(problem)
        except MALFORMED as problem:
            reason = f"corrupt_batch: its batch does not hold valid records ({problem}), {ADVICE}"
        else:
            return
        # The header of a batch in an old format states neither its first offset nor its time. aiokafka skips offsets
        # that it has already handed out.
        first = max(getattr(self._batch, "base_offset", 0), self._fetch_offset)
        timestamp, value = getattr(self._batch, "max_timestamp", None), Unread(reason)
        yield from (_UnreadRecord(offset, timestamp, value) for offset in range(first, self._batch.next_offset))

    def _records(self) -> Iterable[Any]:
        batch, data = self._batch, self._data
        is_old = data[VERSION] < 2
        codec = data[OLD_ATTRIBUTES if is_old else ATTRIBUTES] & CODEC_MASK
        if not codec:
            return batch  # type: ignore[no-any-return]
        records = decompress(codec, _old_value(data) if is_old else data[RECORDS:])
        self._budget.bytes_left -= len(records)
        if is_old:
            return batch  # type: ignore[no-any-return]  # aiokafka decompresses it again: these formats are rare
        check_headers(records)
        header = bytearray(data[:RECORDS])
        header[ATTRIBUTES] &= ~CODEC_MASK
        return DefaultRecordBatch(b"".join((header, records)))  # type: ignore[no-any-return]


def _old_value(data: memoryview) -> memoryview:
    """Return the value of a message in format 0 or 1. Key and value each follow their length, which is -1 for none."""
    at, field = OLD_KEY[data[VERSION]], data[:0]
    for _ in ("key", "value"):
        size = int.from_bytes(data[at : at + 4], "big", signed=True)
        field = data[at + 4 : at + 4 + max(size, 0)]
        at += 4 + len(field)
    return field


class _UnreadRecord(NamedTuple):
    """A record in place of one that cannot be read, with the fields that aiokafka's fetcher uses."""

    offset: int
    timestamp: int | None
    value: Unread
    key: None = None
    timestamp_type: None = None
    checksum: None = None
    headers: tuple[()] = ()
