"""Batches as a broker sends them, through aiokafka's own fetcher: what is too large or broken costs no memory."""

from __future__ import annotations

import asyncio
import struct
import time
import tracemalloc
from typing import TYPE_CHECKING, Any

import cramjam
import pytest
from aiokafka import TopicPartition
from aiokafka.codec import gzip_encode, lz4_encode, snappy_encode, zstd_encode
from aiokafka.consumer import fetcher
from aiokafka.record.default_records import DefaultRecordBatchBuilder
from aiokafka.record.legacy_records import LegacyRecordBatchBuilder
from aiokafka.record.memory_records import MemoryRecords
from aiokafka.record.util import calc_crc32c, encode_varint

from monitor.decode import Decoder, FleetSchema
from monitor.kafka import decompression
from monitor.kafka.client import as_batch
from monitor.types import Partition, Unread

if TYPE_CHECKING:
    from collections.abc import Sequence

P = Partition("plant", 0)
NONE, GZIP, SNAPPY, LZ4, ZSTD = range(5)
CODECS = [pytest.param(codec, id=name) for codec, name in enumerate(("none", "gzip", "snappy", "lz4", "zstd"))]
MIB = 1024 * 1024
TOO_MUCH = bytes(decompression.MAX_BATCH_BYTES + 1)


def batch(codec: int, values: Sequence[bytes], *, base: int = 0, headers: Any = ()) -> bytes:
    """Return a batch of today's format, as it lies in a log at offset `base`."""
    builder = DefaultRecordBatchBuilder(2, codec, 0, -1, -1, -1, 1 << 31)
    for number, value in enumerate(values):
        assert builder.append(number, 1_000 + number, b"R1", value, list(headers)) is not None
    return struct.pack(">q", base) + bytes(builder.build())[8:]


def with_payload(codec: int, payload: bytes, n: int) -> bytes:
    """Return a batch of `n` records whose checksum is right, whatever the payload is."""
    whole = bytearray(batch(codec, [bytes(1_000)] * n)[:61] + payload)
    struct.pack_into(">i", whole, 8, len(whole) - 12)
    struct.pack_into(">I", whole, 17, calc_crc32c(bytes(whole[21:])))
    return bytes(whole)


def piece(log: bytes, fetched_at: int = 0) -> Any:
    """Walk through a piece of log as aiokafka does that it has fetched."""
    key = TopicPartition(*P)
    return fetcher.PartitionRecords(key, MemoryRecords(log), [], fetched_at, None, None, True, fetcher.READ_COMMITTED)


def words(records: list[Any]) -> dict[int, str]:
    """By offset, why a record is unread."""
    return {each.offset: each.value.reason.split(":")[0] for each in records if isinstance(each.value, Unread)}


@pytest.mark.parametrize("codec", CODECS)
def test_an_ordinary_batch_is_read_as_before(codec: int) -> None:
    values = [b"%d" % number * 400 for number in range(300)]
    records = list(piece(batch(codec, values, base=50)))
    assert [each.value for each in records] == values
    assert [each.offset for each in records] == list(range(50, 350))
    assert {each.key for each in records} == {b"R1"}


@pytest.mark.parametrize("codec", CODECS[1:])
def test_a_batch_that_unpacks_to_too_much_is_not_unpacked_and_the_ones_beside_it_are_read(codec: int) -> None:
    bomb = batch(codec, [b"{}", TOO_MUCH, b"{}"], base=10)
    log = batch(codec, [b"{}"] * 10) + bomb + batch(codec, [b"{}"] * 5, base=13)
    records = list(piece(log))
    assert [each.offset for each in records] == list(range(18))
    assert words(records) == dict.fromkeys((10, 11, 12), "too_large_batch")
    assert words(list(piece(bomb, fetched_at=12))) == {12: "too_large_batch"}, "from its middle on"


@pytest.mark.parametrize("codec", CODECS[1:])
def test_a_batch_that_unpacks_to_just_so_much_is_read(codec: int, monkeypatch: pytest.MonkeyPatch) -> None:
    unpacked = len(batch(NONE, [bytes(MIB)])) - 61
    monkeypatch.setattr(decompression, "MAX_BATCH_BYTES", unpacked)
    assert words(list(piece(batch(codec, [bytes(MIB)])))) == {}
    monkeypatch.setattr(decompression, "MAX_BATCH_BYTES", unpacked - 1)
    assert words(list(piece(batch(codec, [bytes(MIB)])))) == {0: "too_large_batch"}


def test_a_bomb_of_700_mib_takes_no_more_than_the_limit() -> None:
    packer = cramjam.gzip.Compressor(level=1)
    for _ in range(700):
        packer.compress(bytes(MIB))
    bomb = with_payload(GZIP, bytes(packer.finish()), 3)
    tracemalloc.start()
    try:
        assert words(list(piece(bomb))) == dict.fromkeys(range(3), "too_large_batch")
        assert tracemalloc.get_traced_memory()[1] < 2.5 * decompression.MAX_BATCH_BYTES
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("filler", [b"\x00", b"\x01", b"\x80", b"\xff"])
def test_megabytes_of_one_byte_are_refused_at_once(filler: bytes) -> None:
    began = time.process_time()
    assert words(list(piece(with_payload(ZSTD, zstd_encode(filler * 16 * MIB), 1)))) == {0: "corrupt_batch"}
    assert time.process_time() - began < 1.0


@pytest.mark.parametrize("codec", CODECS[1:])
def test_headers_that_would_fill_memory_are_not_made(codec: int) -> None:
    few = batch(codec, [bytes(3 * MIB)] * 2, headers=[("name", b"")] * 1_000)
    assert words(list(piece(few))) == {}
    whole = bytearray(b"\x00\x00\x00\x01\x01")  # attributes, time and offset of the batch's first; no key, no value
    encode_varint(decompression.MAX_HEADERS + 1, whole.append)
    whole += bytes(2 * decompression.MAX_HEADERS + 2)  # no name, no value
    size = bytearray()
    encode_varint(len(whole), size.append)
    encode = {GZIP: gzip_encode, SNAPPY: snappy_encode, LZ4: lz4_encode, ZSTD: zstd_encode}[codec]
    short = bytes([2 * 8]) + bytes(whole)  # its length is a lie, and the parser finds out too late
    for payload in (bytes(size + whole), short):
        records = list(piece(with_payload(codec, encode(payload), 1)))
        assert words(records) == {0: "too_large_batch"}
        assert "1,000,000 headers" in records[0].value.reason


def test_a_snappy_block_that_lies_about_its_size_is_not_believed() -> None:
    claims_4_gib = b"\xff\xff\xff\xff\x0f" + bytes(100)
    assert words(list(piece(with_payload(SNAPPY, claims_4_gib, 2)))) == dict.fromkeys(range(2), "too_large_batch")
    backwards = decompression.XERIAL + struct.pack(">iii", 1, 1, -4)
    assert words(list(piece(with_payload(SNAPPY, backwards, 1)))) == {0: "corrupt_batch"}


@pytest.mark.parametrize("codec", CODECS)
def test_a_batch_that_holds_no_records_is_stepped_over_when_its_checksum_is_right(codec: int) -> None:
    log = with_payload(codec, b"nonsense" * 9, 4) + batch(codec, [b"{}"], base=4)
    records = list(piece(log))
    assert words(records) == dict.fromkeys(range(4), "corrupt_batch")
    assert [each.offset for each in records] == list(range(5))


def test_what_comes_before_the_break_in_a_batch_is_read() -> None:
    values = [b"first" * 9, b"second" * 9, b"third" * 9]
    good = batch(NONE, values, headers=[("name", b"")])
    second = good.index(b"name", good.index(b"second"))
    bad = with_payload(NONE, good[61:second] + b"\xff" + good[second + 1 :], 3)
    records = list(piece(bad))
    assert [each.value for each in records] == [values[0], b"", b""]
    assert words(records) == dict.fromkeys((1, 2), "corrupt_batch")


def test_a_batch_with_a_wrong_checksum_is_an_error_that_says_where_once_what_lies_in_front_is_handed_out() -> None:
    damaged = bytearray(batch(NONE, [b"{}"], base=7))
    damaged[-1] ^= 1
    walk = piece(batch(NONE, [b"{}"] * 7) + bytes(damaged))
    assert [each.offset for each in walk] == list(range(7)), "aiokafka drops what it has found, at an error"
    assert walk.next_fetch_offset == 7
    with pytest.raises(decompression.Damaged, match="plant/0: the batch at offset 7") as caught:
        next(piece(bytes(damaged), 7))
    assert (caught.value.partition, caught.value.offset) == (P, 7)


def test_gzip_of_several_members_is_read_and_bounded_as_a_whole() -> None:
    plain = batch(NONE, [b"first" * 99, b"second" * 99])[61:]
    members = gzip_encode(plain[:300]) + gzip_encode(plain[300:]) + bytes(5)
    assert [each.value for each in piece(with_payload(GZIP, members, 2))] == [b"first" * 99, b"second" * 99]
    half = gzip_encode(bytes(decompression.MAX_BATCH_BYTES // 2 + 1))
    assert words(list(piece(with_payload(GZIP, half + half, 1)))) == {0: "too_large_batch"}


@pytest.mark.parametrize("magic", [0, 1])
def test_a_batch_in_an_old_format_is_bounded_too(magic: int) -> None:
    builder = LegacyRecordBatchBuilder(magic=magic, compression_type=GZIP, batch_size=1 << 31)
    for number, value in enumerate((b"{}", TOO_MUCH)):
        builder.append(number, timestamp=1_000, key=b"R1", value=value)
    log = struct.pack(">q", 1) + bytes(builder.build())[8:]  # a broker gives it the offset of its last record
    records = list(piece(log))
    assert words(records) == dict.fromkeys(range(2), "too_large_batch")
    assert as_batch(P, records).timestamps_us.tolist() == [-1, -1]


def test_what_is_unread_goes_to_quarantine_with_its_reason() -> None:
    records = list(piece(batch(GZIP, [b'{"ts": 60, "sensors": {"a": 1}}', TOO_MUCH])))
    decoded = Decoder([FleetSchema("f", 60_000_000, ("a",))]).decode(as_batch(P, records))
    assert [(each.offset, each.word) for each in decoded.quarantined] == [(n, "too_large_batch") for n in (0, 1)]
    assert "more than 64 MiB" in decoded.quarantined[0].reason
    assert "batch.size" in decoded.quarantined[0].reason
    assert decoded.n_accepted == 0


class Consumer:
    """Hands out all that is fetched, as aiokafka's fetcher does: what is left of a piece is thrown away."""

    def __init__(self, *batches: bytes) -> None:
        self.batches = batches
        self.position = 0

    async def getmany(self, **_how: Any) -> dict[TopicPartition, list[Any]]:
        records = piece(b"".join(self.batches[self.position :]), self.position)
        found = list(records)
        self.position = records.next_fetch_offset
        return {TopicPartition(*P): found}


async def test_one_poll_unpacks_only_so_much_and_the_next_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decompression, "MAX_POLL_BYTES", 10 * MIB)
    consumer = Consumer(*(batch(ZSTD, [bytes(4 * MIB)], base=number) for number in range(8)))
    polls = []
    for _ in range(3):
        taken = await asyncio.create_task(decompression.take(consumer, timeout_ms=0))
        polls.append([each.offset for records in taken.values() for each in records])
    assert polls == [[0, 1, 2], [3, 4, 5], [6, 7]]
