"""Kafka, at rest: every record that lies in the topics now, and where logs begin and end. For training and replay."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from aiokafka import TopicPartition
from aiokafka.admin import AIOKafkaAdminClient

from monitor.errors import SourceUnavailable
from monitor.kafka.bounded_consumer import BoundedConsumer
from monitor.kafka.client import as_batch, client_settings, consumer_settings, map_kafka_errors, stop
from monitor.types import Partition

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Mapping, Sequence

    from monitor.config import KafkaConfig
    from monitor.types import RecordBatch

BOUNDS_LIMIT_S = 30.0
"""How long a log may take to tell where it ends."""


class KafkaHistory:
    """Every record that lies in the topics now, read outside the group: for training and replay.

    It ends where the log ended when it was opened. `within`: only these partitions, and of each only the offsets
    [first, end) that are there.
    """

    def __init__(
        self, config: KafkaConfig, topics: Iterable[str], within: Mapping[Partition, tuple[int, int]] | None = None
    ) -> None:
        self._config = config
        self._topics = sorted(set(topics))
        self._within = within
        self.bounds: dict[Partition, LogBounds] = {}
        """Of what is read, once reading has begun."""

    async def __aiter__(self) -> AsyncIterator[RecordBatch]:
        with map_kafka_errors(self._config.bootstrap):
            there = await partitions_of(self._config, self._topics)
            wanted = [partition for partition in there if self._within is None or partition in self._within]
            bounds = await log_bounds(self._config, wanted)
            if self._within is not None:
                for partition, (first, end) in bounds.items():
                    lowest, beyond = self._within[partition]
                    bounds[partition] = LogBounds(max(first, lowest), min(end, beyond))
            self.bounds = bounds
            left = {TopicPartition(*p): end for p, (first, end) in bounds.items() if first < end}
            if not left:
                return
            consumer = BoundedConsumer(**consumer_settings(self._config))
            try:
                await consumer.start()
                consumer.assign(list(left))
                for key in left:
                    consumer.seek(key, bounds[Partition(*key)].first)
                while left:
                    polled = await consumer.getmany(*left, timeout_ms=1000)
                    for key, records in polled.items():
                        within = [record for record in records if record.offset < left[key]]
                        if within:
                            yield as_batch(Partition(*key), within)
                    for key in list(left):
                        # A log may end with records that readers never see (transaction markers, compaction).
                        if await consumer.position(key) >= left[key]:
                            del left[key]
            finally:
                await stop(consumer)


@dataclass(frozen=True, slots=True)
class LogBounds:
    """First offset kept, and the offset the next record will get."""

    first: int
    end: int

    def __iter__(self) -> Any:
        return iter((self.first, self.end))


async def partitions_of(config: KafkaConfig, topics: Iterable[str]) -> list[Partition]:
    """List the partitions of topics; a topic that does not exist has none."""
    # Not through a consumer: `partitions_for_topic` knows only the topics it has subscribed to, on Apache Kafka none.
    admin = AIOKafkaAdminClient(**client_settings(config))
    with map_kafka_errors(config.bootstrap):
        try:
            await admin.start()
            there = {each["topic"]: each["partitions"] for each in await admin.describe_topics()}
        finally:
            await admin.close()
    return [Partition(t, n) for t in topics for n in sorted(each["partition"] for each in there.get(t, ()))]


async def log_bounds(config: KafkaConfig, partitions: Sequence[Partition]) -> dict[Partition, LogBounds]:
    """Ask where each log begins and ends.

    The end is the high watermark of a real fetch: the embedded broker answers the question for the end wrongly.
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
            consumer.seek(key, firsts[key])
        deadline = time.monotonic() + BOUNDS_LIMIT_S
        while any(consumer.highwater(key) is None for key in keys):
            await consumer.getmany(timeout_ms=100, max_records=1)
            if time.monotonic() > deadline:
                raise SourceUnavailable(f"no end of {', '.join(map(str, partitions))} within {BOUNDS_LIMIT_S:.0f} s")
        return {Partition(*key): LogBounds(firsts[key], consumer.highwater(key)) for key in keys}
    finally:
        await stop(consumer)
