"""Batches as a broker sends them, through aiokafka's own fetcher: too large or broken ones cost no memory."""

from __future__ import annotations

import struct
import time
import tracemalloc
import zlib
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import cramjam
import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.codec import gzip_encode, lz4_encode, snappy_encode, zstd_encode
from aiokafka.consumer import fetcher
from aiokafka.record.default_records import DefaultRecordBatchBuilder
from aiokafka.record.legacy_records import LegacyRecordBatchBuilder
from aiokafka.record.util import calc_crc32c, encode_varint

from monitor.decode import Decoder, FleetSchema
from monitor.kafka import bounded_consumer, decompression
from monitor.kafka.bounded_consumer import BoundedConsumer, CorruptBatch, FetchedBatches, PollBudget, bounded_records
from monitor.kafka.client import as_batch
from monitor.types import Partition, Unread

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

P = Partition("plant", 0)
KEY = TopicPartition(*P)
NONE, GZIP, SNAPPY, LZ4, ZSTD = range(5)
CODECS = [pytest.param(codec, id=name) for codec, name in enumerate(("none", "gzip", "snappy", "lz4", "zstd"))]
MIB = 1024 * 1024
TOO_MUCH = bytes(decompression.MAX_BATCH_BYTES + 1)


def batch(codec: int, values: Sequence[bytes], *, base: int = 0, headers: Any = ()) -> bytes:
    """Return a batch of format version 2, as it lies in a log at offset `base`."""
    builder = DefaultRecordBatchBuilder(2, codec, 0, -1, -1, -1, 1 << 31)
    for number, value in enumerate(values):
        assert builder.append(number, 1_000 + number, b"R1", value, list(headers)) is not None
    return struct.pack(">q", base) + bytes(builder.build())[8:]


def with_payload(codec: int, payload: bytes, n: int) -> bytes:
    """Return a batch of `n` records with this payload and a right checksum."""
    whole = bytearray(batch(codec, [bytes(1_000)] * n)[:61] + payload)
    struct.pack_into(">i", whole, 8, len(whole) - 12)
    struct.pack_into(">I", whole, 17, calc_crc32c(bytes(whole[21:])))
    return bytes(whole)


def fetched(log: bytes, offset: int = 0) -> Any:
    """Return the records of a fetched piece of log, as aiokafka's fetcher makes them."""
    batches = FetchedBatches(log)
    assert batches.has_next()
    return bounded_records(PollBudget(), KEY, batches, [], offset, None, None, True, fetcher.READ_COMMITTED)


def unread(records: list[Any]) -> dict[int, str]:
    """Return the reasons of unread records by their offset."""
    return {each.offset: each.value.reason.split(":")[0] for each in records if isinstance(each.value, Unread)}


@pytest.mark.parametrize("codec", CODECS)
def test_ordinary_batches_are_read(codec: int) -> None:
    values = [b"%d" % number * 400 for number in range(300)]
    records = list(fetched(batch(codec, values, base=50)))
    assert [each.value for each in records] == values
    assert [each.offset for each in records] == list(range(50, 350))
    assert [each.timestamp for each in records] == list(range(1_000, 1_300))
    assert {each.key for each in records} == {b"R1"}


@pytest.mark.parametrize("codec", CODECS[1:])
def test_a_bomb_is_not_decompressed_and_its_neighbours_are_read(codec: int) -> None:
    bomb = batch(codec, [b"{}", TOO_MUCH, b"{}"], base=10)
    log = batch(codec, [b"{}"] * 10) + bomb + batch(codec, [b"{}"] * 5, base=13)
    records = list(fetched(log))
    assert [each.offset for each in records] == list(range(18))
    assert unread(records) == dict.fromkeys((10, 11, 12), "too_large_batch")
    assert unread(list(fetched(bomb, offset=12))) == {12: "too_large_batch"}, "from the middle of the batch"


@pytest.mark.parametrize("codec", CODECS[1:])
def test_a_batch_of_exactly_the_limit_is_read(codec: int, monkeypatch: pytest.MonkeyPatch) -> None:
    n_bytes = len(batch(NONE, [bytes(MIB)])) - 61
    monkeypatch.setattr(decompression, "MAX_BATCH_BYTES", n_bytes)
    assert unread(list(fetched(batch(codec, [bytes(MIB)])))) == {}
    monkeypatch.setattr(decompression, "MAX_BATCH_BYTES", n_bytes - 1)
    assert unread(list(fetched(batch(codec, [bytes(MIB)])))) == {0: "too_large_batch"}


def test_a_bomb_of_700_mib_takes_no_more_than_the_limit() -> None:
    packer = cramjam.gzip.Compressor(level=1)
    for _ in range(700):
        packer.compress(bytes(MIB))
    bomb = with_payload(GZIP, bytes(packer.finish()), 3)
    tracemalloc.start()
    try:
        assert unread(list(fetched(bomb))) == dict.fromkeys(range(3), "too_large_batch")
        assert tracemalloc.get_traced_memory()[1] < 2.5 * decompression.MAX_BATCH_BYTES
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("filler", [b"\x00", b"\x01", b"\x80", b"\xff"])
def test_megabytes_of_one_byte_are_refused_at_once(filler: bytes) -> None:
    began = time.process_time()
    assert unread(list(fetched(with_payload(ZSTD, zstd_encode(filler * 16 * MIB), 1)))) == {0: "corrupt_batch"}
    assert time.process_time() - began < 1.0


@pytest.mark.parametrize("codec", CODECS[1:])
def test_a_million_headers_are_not_parsed(codec: int) -> None:
    few = batch(codec, [bytes(3 * MIB)] * 2, headers=[("name", b"")] * 1_000)
    assert unread(list(fetched(few))) == {}
    whole = bytearray(b"\x00\x00\x00\x01\x01")  # attributes, time and offset of the batch's first; no key, no value
    encode_varint(decompression.MAX_HEADERS + 1, whole.append)
    whole += bytes(2 * decompression.MAX_HEADERS + 2)  # no name, no value
    size = bytearray()
    encode_varint(len(whole), size.append)
    encode = {GZIP: gzip_encode, SNAPPY: snappy_encode, LZ4: lz4_encode, ZSTD: zstd_encode}[codec]
    short = bytes([2 * 8]) + bytes(whole)  # its length is wrong, and aiokafka's parser notices too late
    for payload in (bytes(size + whole), short):
        records = list(fetched(with_payload(codec, encode(payload), 1)))
        assert unread(records) == {0: "too_large_batch"}
        assert "1,000,000 headers" in records[0].value.reason


def test_a_snappy_block_with_a_wrong_size_is_refused() -> None:
    claims_4_gib = b"\xff\xff\xff\xff\x0f" + bytes(100)
    assert unread(list(fetched(with_payload(SNAPPY, claims_4_gib, 2)))) == dict.fromkeys(range(2), "too_large_batch")
    backwards = decompression.XERIAL_MAGIC + struct.pack(">iii", 1, 1, -4)
    assert unread(list(fetched(with_payload(SNAPPY, backwards, 1)))) == {0: "corrupt_batch"}


@pytest.mark.parametrize("codec", [*CODECS, pytest.param(7, id="unknown")])
def test_a_batch_without_valid_records_is_stepped_over(codec: int) -> None:
    whole = bytearray(with_payload(codec % 5, b"nonsense" * 9, 4))
    whole[22] = codec
    struct.pack_into(">I", whole, 17, calc_crc32c(bytes(whole[21:])))
    records = list(fetched(bytes(whole) + batch(codec % 5, [b"{}"], base=4)))
    assert unread(records) == dict.fromkeys(range(4), "corrupt_batch")
    assert [each.offset for each in records] == list(range(5))


def test_records_before_the_broken_one_of_a_batch_are_read() -> None:
    values = [b"first" * 9, b"second" * 9, b"third" * 9]
    good = batch(NONE, values, headers=[("name", b"")])
    second = good.index(b"name", good.index(b"second"))
    bad = with_payload(NONE, good[61:second] + b"\xff" + good[second + 1 :], 3)
    records = list(fetched(bad))
    assert [each.value for each in records] == [values[0], b"", b""]
    assert unread(records) == dict.fromkeys((1, 2), "corrupt_batch")


def test_a_wrong_checksum_is_an_error_after_the_records_before_it() -> None:
    corrupt = bytearray(batch(NONE, [b"{}"], base=7))
    corrupt[-1] ^= 1
    records = fetched(batch(NONE, [b"{}"] * 7) + bytes(corrupt))
    assert [each.offset for each in records] == list(range(7)), "aiokafka discards what it has found, at an error"
    assert records.next_fetch_offset == 7
    with pytest.raises(CorruptBatch, match="plant/0: the batch at offset 7") as caught:
        next(fetched(bytes(corrupt), 7))
    assert (caught.value.partition, caught.value.offset) == (P, 7)


def test_gzip_members_are_read_and_limited_together() -> None:
    plain = batch(NONE, [b"first" * 99, b"second" * 99])[61:]
    members = gzip_encode(plain[:300]) + gzip_encode(plain[300:]) + bytes(5)
    assert [each.value for each in fetched(with_payload(GZIP, members, 2))] == [b"first" * 99, b"second" * 99]
    half = gzip_encode(bytes(decompression.MAX_BATCH_BYTES // 2 + 1))
    assert unread(list(fetched(with_payload(GZIP, half + half, 1)))) == {0: "too_large_batch"}


def old_batch(magic: int, codec: int, *values: bytes, key: bytes | None = b"R1") -> bytes:
    builder = LegacyRecordBatchBuilder(magic=magic, compression_type=codec, batch_size=1 << 31)
    for number, value in enumerate(values):
        builder.append(number, timestamp=1_000, key=key, value=value)
    last = len(values) - 1  # a broker gives it the offset of its last record
    return struct.pack(">q", last) + bytes(builder.build())[8:]


@pytest.mark.parametrize("magic", [0, 1])
def test_a_bomb_in_an_old_format_is_not_decompressed(magic: int) -> None:
    records = list(fetched(old_batch(magic, GZIP, b"{}", TOO_MUCH)))
    assert unread(records) == dict.fromkeys(range(2), "too_large_batch")
    assert as_batch(P, records).timestamps_us.tolist() == [-1, -1]


@pytest.mark.parametrize("magic", [0, 1])
@pytest.mark.parametrize("codec", CODECS[:3])
def test_ordinary_batches_in_an_old_format_are_read(magic: int, codec: int) -> None:
    values = [b"%d" % number for number in range(1 if codec == NONE else 20)]
    records = list(fetched(old_batch(magic, codec, *values)))
    assert [(each.offset, each.value) for each in records] == list(enumerate(values))


def test_an_old_batch_that_only_aiokafka_refuses_is_stepped_over() -> None:
    bad = bytearray(old_batch(1, SNAPPY, b"{}" * 99, b"{}" * 99))
    version = bad.index(decompression.XERIAL_MAGIC) + len(decompression.XERIAL_MAGIC) + 3
    bad[version] = 9  # a version of the framing that aiokafka does not know
    struct.pack_into(">I", bad, 12, zlib.crc32(bytes(bad[16:])))
    assert unread(list(fetched(bytes(bad)))) == dict.fromkeys(range(2), "corrupt_batch")


@pytest.mark.parametrize("codec", CODECS[:2])
@pytest.mark.parametrize(("magic", "key_length"), [(0, 18), (1, 26)])
def test_a_negative_length_in_an_old_format_is_an_error(magic: int, key_length: int, codec: int) -> None:
    bad = bytearray(old_batch(magic, codec, b"{}"))
    struct.pack_into(">i", bad, key_length, -5)
    struct.pack_into(">I", bad, 12, zlib.crc32(bytes(bad[16:])))
    with pytest.raises(CorruptBatch):
        list(fetched(bytes(bad)))


def test_unread_records_go_to_quarantine_with_their_reason() -> None:
    records = list(fetched(batch(GZIP, [b'{"ts": 60, "sensors": {"a": 1}}', TOO_MUCH])))
    decoded = Decoder([FleetSchema("f", 60_000_000, ("a",))]).decode(as_batch(P, records))
    assert [(each.offset, each.word) for each in decoded.quarantined] == [(n, "too_large_batch") for n in (0, 1)]
    assert "more than 64 MiB" in decoded.quarantined[0].reason
    assert "batch.size" in decoded.quarantined[0].reason
    assert decoded.n_accepted == 0


# ---------------------------------------------------------------- a consumer


class Client:
    """The part of aiokafka's client that a consumer without a group uses, over one partition's batches."""

    _metadata_max_age_ms = 300_000

    def __init__(self, loop: Any, batches: Sequence[bytes]) -> None:
        self._loop = loop
        self._batches = batches
        self.cluster = SimpleNamespace(
            add_listener=lambda _: None, leader_for_partition=lambda _: 0, broker_metadata=lambda _: None
        )

    async def bootstrap(self) -> None: ...

    async def close(self) -> None: ...

    def set_topics(self, _topics: Any) -> None: ...

    async def send(self, _node: int, request: Any) -> Any:
        ((topic, [(number, offset, _)]),) = request.topics
        log = b"".join(self._batches[offset:])
        return SimpleNamespace(API_VERSION=4, topics=[(topic, [(number, 0, len(self._batches), 0, [], log)])])


@pytest.fixture
async def consumer(request: pytest.FixtureRequest) -> AsyncIterator[Any]:
    """A consumer of the class and over the batches that the test names."""
    kind, batches = request.param
    made = kind(enable_auto_commit=False, auto_offset_reset="none", isolation_level="read_committed")
    made._client = Client(made._loop, batches)
    await made.start()
    made.assign([KEY])
    made.seek(KEY, 0)
    yield made
    await made.stop()


EIGHT = [batch(ZSTD, [bytes(4 * MIB)], base=number) for number in range(8)]
BOMB = [batch(ZSTD, [TOO_MUCH])]


@pytest.mark.parametrize("consumer", [(BoundedConsumer, EIGHT)], indirect=True)
async def test_a_poll_ends_at_its_limit_and_the_next_goes_on(consumer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounded_consumer, "MAX_POLL_BYTES", 10 * MIB)
    polls = []
    while sum(map(len, polls)) < 8:
        polled = await consumer.getmany(timeout_ms=1_000)
        polls.append([each.offset for records in polled.values() for each in records])
    assert [poll for poll in polls if poll] == [[0, 1, 2], [3, 4, 5], [6, 7]]


@pytest.mark.parametrize("consumer", [(BoundedConsumer, BOMB)], indirect=True)
async def test_a_consumer_fetches_within_the_limits(consumer: Any) -> None:
    polled = await consumer.getmany(timeout_ms=1_000)
    assert unread(polled[KEY]) == {0: "too_large_batch"}


@pytest.mark.parametrize("consumer", [(AIOKafkaConsumer, BOMB)], indirect=True)
async def test_other_consumers_of_the_process_are_not_changed(consumer: Any) -> None:
    polled = await consumer.getmany(timeout_ms=1_000)
    assert [each.value for each in polled[KEY]] == [TOO_MUCH]
