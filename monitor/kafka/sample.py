"""The oldest and the newest records of each partition, for a look at a topic.

Input: the bounds of the logs. Output: one batch per partition and end, in the order of the log. Invariant: the look
joins no group and commits nothing. It ends after a fixed time, whatever the brokers do.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from aiokafka import TopicPartition

from monitor.kafka.bounded_consumer import BoundedConsumer
from monitor.kafka.client import as_batch, consumer_settings, stop
from monitor.kafka.error_mapping import map_kafka_errors
from monitor.kafka.record_format import registry_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from monitor.config import KafkaConfig
    from monitor.kafka.log_reader import LogBounds
    from monitor.types import Partition, RecordBatch

LIMIT_S = 20.0
"""For one end of all partitions. What was read by then is the sample."""
POLL_MS = 500
HOLES = 20
"""The newest offsets may hold no records (transaction markers, compaction). Then the look begins so far back."""


async def sample_ends(config: KafkaConfig, bounds: Mapping[Partition, LogBounds], n: int) -> list[RecordBatch]:
    """Return the oldest `n` records of each partition, and then the newest `n`, without repetition.

    Raises SourceUnavailable or SourceRefused.
    """
    ranges = {partition: (first, end) for partition, (first, end) in bounds.items() if first < end}
    if not ranges:
        return []
    registry = registry_of(config)
    with map_kafka_errors(config.bootstrap):
        consumer = BoundedConsumer(**consumer_settings(config))
        try:
            await consumer.start()
            consumer.assign([TopicPartition(*partition) for partition in ranges])
            oldest = await _read(consumer, ranges, n)
            rest = {p: (_next(oldest, p, first), end) for p, (first, end) in ranges.items()}
            tails = {p: (max(first, end - n), end) for p, (first, end) in rest.items() if first < end}
            newest = await _read(consumer, tails, n)
            thin = {p: (max(rest[p][0], end - HOLES * n), end) for p, (_, end) in tails.items() if not newest.get(p)}
            newest |= await _read(consumer, thin, HOLES * n)
        finally:
            await stop(consumer)
    found = [*oldest.items(), *((partition, records[-n:]) for partition, records in newest.items())]
    batches = [as_batch(partition, records) for partition, records in found if records]
    if registry is None:
        return batches
    try:
        return [await registry.complete(batch) for batch in batches]
    finally:
        await registry.close()


def _next(read: Mapping[Partition, list[Any]], partition: Partition, first: int) -> int:
    records = read.get(partition)
    return records[-1].offset + 1 if records else first


async def _read(
    consumer: BoundedConsumer, ranges: Mapping[Partition, tuple[int, int]], n: int
) -> dict[Partition, list[Any]]:
    """Return at most `n` records of each range of offsets, as many as come in time."""
    found: dict[Partition, list[Any]] = {partition: [] for partition in ranges}
    open_ones = {TopicPartition(*partition): partition for partition in ranges}
    consumer.pause(*(consumer.assignment() - open_ones.keys()))
    for key, partition in open_ones.items():
        consumer.seek(key, ranges[partition][0])
        consumer.resume(key)
    deadline = time.monotonic() + LIMIT_S
    while open_ones and time.monotonic() < deadline:
        polled = await consumer.getmany(*open_ones, timeout_ms=POLL_MS, max_records=max(n, 500))
        for key, records in polled.items():
            partition = open_ones[key]
            first, end = ranges[partition]
            found[partition] += [record for record in records if first <= record.offset < end]
            del found[partition][n:]
        for key, partition in list(open_ones.items()):
            if len(found[partition]) >= n or await consumer.position(key) >= ranges[partition][1]:
                consumer.pause(key)
                del open_ones[key]
    return found
