"""Kafka's log as it is now: all its records, and the bounds of its partitions. For training and replay.

Input: topics, and optionally ranges of offsets. Output: batches of records, or bounds. Invariant: reading stops at the
end that the log had at the start, and no consumer group is involved.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, NamedTuple

from aiokafka import TopicPartition
from aiokafka import errors as kafka
from aiokafka.admin import AIOKafkaAdminClient

from monitor.errors import SourceUnavailable
from monitor.kafka.bounded_consumer import BoundedConsumer
from monitor.kafka.client import as_batch, client_settings, consumer_settings, stop
from monitor.kafka.error_mapping import map_kafka_errors
from monitor.kafka.record_format import registry_of
from monitor.types import Partition

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Mapping, Sequence

    from monitor.config import KafkaConfig
    from monitor.types import RecordBatch

BOUNDS_LIMIT_S = 30.0
"""Time for all partitions to report the end of their log."""


class KafkaHistory:
    """All records of the topics as they are now, read outside the group. Iterate once.

    `within`: only these partitions, and of each only those offsets of `[first, end)` that the log has.
    """

    def __init__(
        self, config: KafkaConfig, topics: Iterable[str], within: Mapping[Partition, tuple[int, int]] | None = None
    ) -> None:
        self._config = config
        self._topics = sorted(set(topics))
        self._within = within
        self.bounds: dict[Partition, LogBounds] = {}
        """The offsets that are read, by partition. Empty before reading begins."""

    async def __aiter__(self) -> AsyncIterator[RecordBatch]:
        with map_kafka_errors(self._config.bootstrap):
            self.bounds = await self._bounds_to_read()
            ends = {TopicPartition(*p): end for p, (first, end) in self.bounds.items() if first < end}
            if not ends:
                return
            consumer = BoundedConsumer(**consumer_settings(self._config))
            registry = registry_of(self._config)
            try:
                await consumer.start()
                consumer.assign(list(ends))
                for key in ends:
                    consumer.seek(key, self.bounds[Partition(*key)].first)
                while ends:
                    polled = await consumer.getmany(*ends, timeout_ms=1000)
                    for key, records in polled.items():
                        within = [record for record in records if record.offset < ends[key]]
                        if within:
                            batch = as_batch(Partition(*key), within)
                            yield await registry.complete(batch) if registry is not None else batch
                    for key in list(ends):
                        # The last offsets of a log may be invisible to readers (transaction markers, compaction).
                        if await consumer.position(key) >= ends[key]:
                            del ends[key]
            finally:
                await stop(consumer)
                if registry is not None:
                    await registry.close()

    async def _bounds_to_read(self) -> dict[Partition, LogBounds]:
        existing = await partitions_of(self._config, self._topics)
        if self._within is None:
            return await log_bounds(self._config, existing)
        wanted = [partition for partition in existing if partition in self._within]
        bounds = await log_bounds(self._config, wanted)
        return {
            partition: LogBounds(max(first, self._within[partition][0]), min(end, self._within[partition][1]))
            for partition, (first, end) in bounds.items()
        }


class LogBounds(NamedTuple):
    """The first offset that the log still has, and the offset of its next record."""

    first: int
    end: int


async def partitions_of(config: KafkaConfig, topics: Iterable[str]) -> list[Partition]:
    """Return the partitions of topics. A topic that does not exist has none."""
    # A consumer's `partitions_for_topic` knows only topics that it is subscribed to; on Apache Kafka that is none.
    admin = AIOKafkaAdminClient(**client_settings(config))
    with map_kafka_errors(config.bootstrap):
        try:
            await admin.start()
            found = {each["topic"]: each["partitions"] for each in await admin.describe_topics()}
        finally:
            await admin.close()
    return [Partition(t, n) for t in topics for n in sorted(each["partition"] for each in found.get(t, ()))]


async def log_ends(
    config: KafkaConfig, topics: Iterable[str], near: Mapping[Partition, int]
) -> dict[Partition, int]:
    """Return the end of each partition's log: the offset of its next record. Raises SourceUnavailable.

    `near`: offsets from which it is looked for. A fetch there reads little, one at the beginning a cold log.
    """
    with map_kafka_errors(config.bootstrap):
        bounds = await log_bounds(config, await partitions_of(config, topics), near)
    return {partition: each.end for partition, each in bounds.items()}


async def log_bounds(
    config: KafkaConfig, partitions: Sequence[Partition], near: Mapping[Partition, int] | None = None
) -> dict[Partition, LogBounds]:
    """Return the bounds of each partition's log. Raises SourceUnavailable where one is not reported in time.

    `near`: offsets from which the end is looked for, where the log has them. Default: its beginning.

    The end is the high watermark of a fetch, because the embedded broker answers a request for the end wrongly.
    """
    if not partitions:
        return {}
    keys = [TopicPartition(*partition) for partition in partitions]
    consumer = BoundedConsumer(**consumer_settings(config))
    try:
        await consumer.start()
        consumer.assign(keys)
        firsts = await consumer.beginning_offsets(keys)
        for key in keys:
            consumer.seek(key, max(firsts[key], (near or {}).get(Partition(*key), 0)))
        deadline = time.monotonic() + BOUNDS_LIMIT_S
        while any(consumer.highwater(key) is None for key in keys):
            try:
                await consumer.getmany(timeout_ms=100, max_records=1)
            except kafka.OffsetOutOfRangeError:  # the topic was made anew
                for key in keys:
                    consumer.seek(key, firsts[key])
            if time.monotonic() > deadline:
                raise SourceUnavailable(f"no end of {', '.join(map(str, partitions))} within {BOUNDS_LIMIT_S:.0f} s")
        return {Partition(*key): LogBounds(firsts[key], consumer.highwater(key)) for key in keys}
    finally:
        await stop(consumer)
