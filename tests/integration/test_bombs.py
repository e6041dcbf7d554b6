"""Batches that unpack to more than memory holds, on Apache Kafka, amid healthy ones."""

from __future__ import annotations

import asyncio
import struct
from pathlib import Path
from typing import TYPE_CHECKING

import cramjam
from aiokafka import TopicPartition
from aiokafka.client import AIOKafkaClient
from aiokafka.codec import snappy_encode
from aiokafka.protocol.produce import ProduceRequest
from aiokafka.record.default_records import DefaultRecordBatchBuilder
from aiokafka.record.util import calc_crc32c, encode_varint

from monitor.replay.digest import digest_of
from tests.acceptance.streams import MINUTE_US, plant
from tests.daemon_process import SENSORS, Deployment, partitioned, publish
from tests.oracle.log import FleetRule

if TYPE_CHECKING:

    from tests.servers import KafkaServer

RULE = FleetRule("turbines", SENSORS, MINUTE_US, 12)
MIB = 1024 * 1024
NONE, GZIP, SNAPPY, LZ4, ZSTD = range(5)
ROOM_KIB = 300 * 1024
"""Allowed growth of the daemon's memory: the limits of a batch and of a poll, copies, late imports."""


def bomb(codec: int, mib: int) -> bytes:
    """Return a batch of one record whose value is `mib` MiB of zeros. The value is compressed in parts."""
    after = b"\x00"  # no headers
    body = bytearray(b"\x00\x00\x00\x01")  # attributes, time and offset as in the batch; no key
    encode_varint(mib * MIB, body.append)
    head = bytearray()
    encode_varint(len(body) + mib * MIB + len(after), head.append)
    zeros = bytes(MIB)
    if codec == SNAPPY:  # its compressors keep their whole input
        packed = snappy_encode(bytes(head + body) + zeros * mib + after)
    else:
        how = {"block_linked": False} if codec == LZ4 else {}  # Kafka takes no other lz4
        packer = {GZIP: cramjam.gzip, LZ4: cramjam.lz4, ZSTD: cramjam.zstd}[codec].Compressor(**how)
        for part in (bytes(head + body), *[zeros] * mib, after):
            packer.compress(part)
        packed = bytes(packer.finish())
    builder = DefaultRecordBatchBuilder(2, codec, 0, -1, -1, -1, 1 << 20)
    builder.append(0, 1_700_000_000_000, None, bytes(1_000), [])
    whole = bytearray(bytes(builder.build())[:61] + packed)
    struct.pack_into(">i", whole, 8, len(whole) - 12)
    struct.pack_into(">I", whole, 17, calc_crc32c(bytes(whole[21:])))
    return bytes(whole)


def produce_raw(bootstrap: str, topic: str, batch: bytes) -> int:
    """Send a batch unchanged to the broker and return its offset."""

    async def send() -> int:
        client = AIOKafkaClient(bootstrap_servers=bootstrap, request_timeout_ms=60_000)
        await client.bootstrap()
        try:
            await client.set_topics([topic])
            leader = client.cluster.leader_for_partition(TopicPartition(topic, 0))
            answer = await client.send(leader, ProduceRequest(None, -1, 60_000, [(topic, [(0, batch)])]))
        finally:
            await client.close()
        _, partitions = answer.topics[0]
        _, code, offset, *_ = partitions[0]
        assert code == 0, answer
        return int(offset)

    return asyncio.run(send())


def peak_kib(deployment: Deployment) -> int:
    """Return the most memory that the daemon ever held."""
    status = Path(f"/proc/{deployment.pid}/status").read_text()
    return int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM")))


def test_bombs_take_bounded_memory_and_spare_their_neighbours(kafka: KafkaServer, deployment: Deployment) -> None:
    topic = "bombs"
    kafka.create_topic(topic, 1, retention_ms="-1", max_message_bytes=str(32 * MIB))
    messages = list(partitioned(plant(3, 10, 6_000, RULE), 1))
    deployment.configure(kafka.bootstrap, topic)
    deployment.install_model()
    deployment.start()
    publish(kafka.bootstrap, topic, messages[:1_000])
    deployment.wait_records(1_000)
    before = peak_kib(deployment)

    at, sizes = 1_000, []
    bombs = [(GZIP, 700), (LZ4, 200), (ZSTD, 700), (SNAPPY, 200), (GZIP, 700)]
    offsets = []
    for codec, mib in bombs:
        packed = bomb(codec, mib)
        sizes.append(len(packed))
        offsets.append(produce_raw(kafka.bootstrap, topic, packed))
        publish(kafka.bootstrap, topic, messages[at : at + 1_000])
        at += 1_000
    deployment.wait_records(6_000 + len(bombs), limit_s=120)
    grown = peak_kib(deployment) - before
    print(f"\nbombs of {sizes} bytes; {before >> 10} MiB before, {grown >> 10} MiB more with them")
    assert grown < ROOM_KIB

    rows = deployment.fetch("SELECT record_offset, reason FROM quarantine WHERE reason LIKE 'too_large_batch%'")
    assert sorted(offset for offset, _ in rows) == offsets
    assert "more than 64 MiB" in rows[0][1]
    with deployment.reader() as reader:
        (counters,) = [row["counters"] for row in reader.partitions()]
        live = digest_of(reader)
    fates = ("accepted", "duplicate", "late", "quarantined", "tombstones")
    assert sum(counters[fate] for fate in fates) == counters["records"] == 6_000 + len(bombs)
    assert counters["quarantined"] == len(bombs)
    assert counters["reasons"] == counters["reasons"] | {"too_large_batch": len(bombs)}

    deployment.terminate()
    found = deployment.json("replay", limit_s=120)
    assert found["live"]["is_equal"]
    assert found["digest"] == live
    assert found["quarantined"] >= len(bombs)

    deployment.start()  # the records that refill its windows may contain a bomb too
    publish(kafka.bootstrap, topic, messages[:1])
    deployment.wait_records(6_001 + len(bombs))
    assert peak_kib(deployment) < before + ROOM_KIB
    assert not deployment.events("rebuild_differs")
