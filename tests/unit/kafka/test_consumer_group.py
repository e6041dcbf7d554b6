"""The group member over a consumer with scripted answers. Real brokers are in tests/integration."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka import TopicPartition
from aiokafka import errors as kafka
from structlog.testing import capture_logs

from monitor.config import KafkaConfig
from monitor.errors import SourceRefused
from monitor.kafka import Assigned, Gap, Revoked
from monitor.kafka.bounded_consumer import CorruptBatch
from monitor.kafka.consumer_group import KafkaSource
from monitor.kafka.log_reader import LogBounds
from monitor.timing import DEFAULT_TIMING
from monitor.types import Partition, RecordBatch

P = Partition("plant", 0)
KEY = TopicPartition(*P)


def records(*offsets: int) -> list[Any]:
    return [SimpleNamespace(offset=offset, timestamp=None, key=b"a", value=b"{}", headers=()) for offset in offsets]


class QueuedConsumer:
    """A consumer that returns or raises the next of `answers`, and waits while there is none."""

    def __init__(self) -> None:
        self.answers: asyncio.Queue[Any] = asyncio.Queue()
        self.sought: list[int] = []
        self.paused: set[TopicPartition] = set()
        self.committed: list[dict[TopicPartition, int]] = []
        self._coordinator = SimpleNamespace()

    def assignment(self) -> set[TopicPartition]:
        return {KEY}

    def seek(self, _key: TopicPartition, offset: int) -> None:
        self.sought.append(offset)

    def pause(self, *keys: TopicPartition) -> None:
        self.paused.update(keys)

    def resume(self, *keys: TopicPartition) -> None:
        self.paused.difference_update(keys)

    async def getmany(self, **_how: Any) -> dict[TopicPartition, list[Any]]:
        answer = await self.answers.get()
        if isinstance(answer, Exception):
            raise answer
        return {KEY: answer}

    async def commit(self, offsets: dict[TopicPartition, int]) -> None:
        self.committed.append(offsets)

    async def stop(self) -> None: ...


@pytest.fixture
async def consumer() -> QueuedConsumer:
    return QueuedConsumer()


@pytest.fixture
async def source(consumer: QueuedConsumer) -> Any:
    timing = replace(DEFAULT_TIMING, poll_limit_s=0.01, damaged_batch_wait_s=0.0)
    member = KafkaSource(KafkaConfig(bootstrap="nowhere:1", topics=("plant",)), ["plant"], timing=timing)
    member._consumer = consumer  # type: ignore[assignment]
    member._events.append(Assigned((P,)))
    assert await member.poll() == [Assigned((P,))]
    yield member
    await member.close()


def bounds(monkeypatch: pytest.MonkeyPatch, first: int, end: int) -> None:
    async def fixed_bounds(*_: Any) -> dict[Partition, LogBounds]:
        return {P: LogBounds(first, end)}

    monkeypatch.setattr("monitor.kafka.consumer_group.log_bounds", fixed_bounds)


def offsets(events: Any) -> list[int]:
    return [int(offset) for event in events if isinstance(event, RecordBatch) for offset in event.offsets]


async def test_a_partition_delivers_nothing_before_it_is_sought(source: KafkaSource, consumer: QueuedConsumer) -> None:
    consumer.answers.put_nowait(records(5, 6))
    assert offsets(await source.poll()) == []


async def test_records_come_in_order_and_may_have_holes(source: KafkaSource, consumer: QueuedConsumer) -> None:
    source.seek(P, 5)
    consumer.answers.put_nowait(records(5, 7))
    consumer.answers.put_nowait(records(8))
    assert offsets([*await source.poll(), *await source.poll()]) == [5, 7, 8]


async def test_a_poll_returns_while_the_fetch_waits_for_the_group(source: KafkaSource) -> None:
    async with asyncio.timeout(2):
        assert await source.poll() == []
        assert await source.poll() == []


async def test_records_fetched_before_a_seek_are_dropped(source: KafkaSource, consumer: QueuedConsumer) -> None:
    source.seek(P, 5)
    await source.poll()  # a fetch is under way
    source.seek(P, 0)
    consumer.answers.put_nowait(records(20, 21))
    assert offsets(await source.poll()) == []
    assert consumer.sought == [5, 0, 0]
    consumer.answers.put_nowait(records(0))
    assert offsets(await source.poll()) == [0]


async def test_records_that_retention_deleted_are_a_gap(
    source: KafkaSource, consumer: QueuedConsumer, monkeypatch: pytest.MonkeyPatch
) -> None:
    bounds(monkeypatch, 30, 50)
    source.seek(P, 5)
    consumer.answers.put_nowait(kafka.OffsetOutOfRangeError({KEY: 5}))
    assert await source.poll() == [Gap(P, 5, 30)]
    assert consumer.sought[-1] == 30


async def test_an_offset_in_the_log_is_no_gap(
    source: KafkaSource, consumer: QueuedConsumer, monkeypatch: pytest.MonkeyPatch
) -> None:
    bounds(monkeypatch, 0, 50)
    source.seek(P, 5)
    consumer.answers.put_nowait(kafka.OffsetOutOfRangeError({KEY: 99}))
    assert await source.poll() == []
    assert set(consumer.sought) == {5}


async def test_a_log_shorter_than_the_offset_read_is_refused(
    source: KafkaSource, consumer: QueuedConsumer, monkeypatch: pytest.MonkeyPatch
) -> None:
    bounds(monkeypatch, 0, 3)
    source.seek(P, 5)
    consumer.answers.put_nowait(kafka.OffsetOutOfRangeError({KEY: 5}))
    with pytest.raises(SourceRefused, match="deleted and created again"):
        await source.poll()


async def test_a_corrupt_batch_pauses_only_its_partition(source: KafkaSource, consumer: QueuedConsumer) -> None:
    source.seek(P, 5)
    with capture_logs() as lines:
        for _ in range(3):
            consumer.answers.put_nowait(CorruptBatch(P, 6))
            assert await source.poll() == []
            assert consumer.paused == {KEY}
            await asyncio.sleep(0.001)
            assert consumer.paused == set()
    assert consumer.sought == [5, 5, 5, 5]
    assert source._consumer is consumer, "not replaced: another would get it too"
    assert [(each["event"], each["offset"]) for each in lines] == [("corrupt_batch", 6)] * 3
    consumer.answers.put_nowait(records(5, 6))
    assert offsets(await source.poll()) == [5, 6]


async def test_a_refusal_before_the_first_assignment_is_final(source: KafkaSource, consumer: QueuedConsumer) -> None:
    consumer.assignment = set  # type: ignore[method-assign, assignment]
    consumer.answers.put_nowait(kafka.TopicAuthorizationFailedError("plant"))
    with pytest.raises(SourceRefused, match="grant READ"):
        await source.poll()


async def test_a_members_third_refusal_is_final(
    source: KafkaSource, consumer: QueuedConsumer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A broker may answer one heartbeat with error 30 by mistake."""

    async def start() -> None:
        source._consumer = consumer  # type: ignore[assignment]

    monkeypatch.setattr(source, "start", start)
    for _ in range(2):
        consumer.answers.put_nowait(kafka.GroupAuthorizationFailedError("monitor"))
        assert await source.poll() == [Revoked((P,))]
        assert await source.poll() == []  # joins again
        source._events.append(Assigned((P,)))
        assert await source.poll() == [Assigned((P,))]
    consumer.answers.put_nowait(kafka.GroupAuthorizationFailedError("monitor"))
    with pytest.raises(SourceRefused, match="join the group"):
        await source.poll()


async def test_only_offsets_of_our_partitions_are_committed(source: Any, consumer: QueuedConsumer) -> None:
    """After a rebalance none may be left, and aiokafka raises ValueError for an empty commit."""
    source.commit_lag({Partition("plant", 7): 4711})
    source.commit_lag({P: 12, Partition("plant", 7): 4711})
    await asyncio.sleep(0)
    assert consumer.committed == [{KEY: 12}]
