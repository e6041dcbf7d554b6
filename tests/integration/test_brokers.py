"""Both brokers with the settings of `embedded_broker.py`: acknowledged records are read back once and in order."""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

from monitor.errors import SourceRefused, SourceUnavailable
from monitor.kafka.embedded_broker import create_topic, is_embedded, producer_settings
from tests.servers import KafkaServer, free_port

PARTITIONS = 4
RECORDS = 10_000


@pytest.fixture(params=["embedded", "kafka"])
def bootstrap(request: pytest.FixtureRequest) -> str:
    fixture = {"embedded": "embedded_broker", "kafka": "kafka"}[request.param]
    return request.getfixturevalue(fixture).bootstrap


async def write(bootstrap: str, topic: str, numbers: range) -> None:
    async with AIOKafkaProducer(**producer_settings(bootstrap)) as producer:
        acknowledged = [
            await producer.send(topic, value=b"%d" % i, partition=i % PARTITIONS, timestamp_ms=1_000 * i)
            for i in numbers
        ]
        await asyncio.gather(*acknowledged)


async def read(bootstrap: str, topic: str, n: int) -> dict[int, list[int]]:
    """Read from the beginning until `n` records came and no more follow."""
    found: dict[int, list[int]] = defaultdict(list)
    partitions = [TopicPartition(topic, p) for p in range(PARTITIONS)]
    consumer = AIOKafkaConsumer(
        bootstrap_servers=bootstrap, enable_auto_commit=False, auto_offset_reset="none", fetch_max_wait_ms=250
    )
    async with consumer:
        consumer.assign(partitions)
        for partition in partitions:
            consumer.seek(partition, 0)
        deadline = time.monotonic() + 60
        while True:
            batches = await consumer.getmany(timeout_ms=1_000)
            for partition, records in batches.items():
                found[partition.partition] += [int(r.value) for r in records]
                assert all(r.timestamp == 1_000 * int(r.value) for r in records)
            count = sum(map(len, found.values()))
            if count >= n and not batches:
                return dict(found)
            assert time.monotonic() < deadline, f"{count} of {n} records after 60 s"


def each_partition(numbers: range) -> dict[int, list[int]]:
    return {p: list(numbers[p::PARTITIONS]) for p in range(PARTITIONS)}


async def test_ten_thousand_records_are_read_once_and_in_order(bootstrap: str) -> None:
    await create_topic(bootstrap, "there-and-back", PARTITIONS)
    await write(bootstrap, "there-and-back", range(RECORDS))
    assert await read(bootstrap, "there-and-back", RECORDS) == each_partition(range(RECORDS))


async def test_a_topic_is_created_once_with_its_partitions(bootstrap: str) -> None:
    assert await create_topic(bootstrap, "once", PARTITIONS) is True
    assert await create_topic(bootstrap, "once", PARTITIONS) is False
    with pytest.raises(SourceRefused, match=f"has {PARTITIONS} partitions, not 5"):
        await create_topic(bootstrap, "once", 5)


async def test_a_bad_topic_name_is_refused_with_the_reason(kafka: KafkaServer) -> None:
    with pytest.raises(SourceRefused, match="bad name"):
        await create_topic(kafka.bootstrap, "bad name", 1)


async def test_a_missing_broker_is_a_transient_error() -> None:
    with pytest.raises(SourceUnavailable):
        await create_topic(f"127.0.0.1:{free_port()}", "nowhere", 1)


def test_apache_kafka_is_not_the_embedded_broker(kafka: KafkaServer) -> None:
    assert not is_embedded(kafka.bootstrap)
    assert producer_settings(kafka.bootstrap)["enable_idempotence"] is True


@pytest.mark.parametrize("end", ["stop", "kill"])
async def test_kafka_keeps_records_and_address_over_a_restart(kafka: KafkaServer, end: str) -> None:
    topic = f"over-a-{end}"
    await create_topic(kafka.bootstrap, topic, PARTITIONS)
    await write(kafka.bootstrap, topic, range(1_000))
    getattr(kafka, end)()
    try:
        with pytest.raises(SourceUnavailable):
            await create_topic(kafka.bootstrap, "while-away", 1)
    finally:
        kafka.start()
    await write(kafka.bootstrap, topic, range(1_000, 2_000))
    assert await read(kafka.bootstrap, topic, 2_000) == each_partition(range(2_000))
