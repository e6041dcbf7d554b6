"""Kafka, live: a member of the consumer group, and the watch that keeps it healthy."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from typing import TYPE_CHECKING, Any, NamedTuple

from aiokafka import ConsumerRebalanceListener, TopicPartition
from aiokafka import errors as kafka

from monitor import logs, metrics
from monitor.errors import SourceRefused, SourceUnavailable
from monitor.kafka import Assigned, Event, Gap, Revoked
from monitor.kafka.bounded_consumer import BoundedConsumer, CorruptBatch
from monitor.kafka.client import STOP_LIMIT_S, as_batch, as_refusal, consumer_settings, map_kafka_errors, stop
from monitor.kafka.embedded_broker import is_embedded
from monitor.kafka.log_reader import log_bounds, partitions_of
from monitor.types import Partition

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from aiokafka import ConsumerRecord

    from monitor.config import KafkaConfig
    from monitor.types import RecordBatch

log = logs.get("source")

POLL_S = 0.2
"""Longest silence of one poll: how fast a stop is noticed."""
PING_AFTER_S = 5.0
"""Silence after which the broker is asked whether it is still there."""
REFUSED_S = 120.0
"""Three refusals within so long are meant."""
DAMAGED_WAIT_S = 10.0
"""A batch with a wrong checksum is fetched again after so long; the partition's records behind it wait as long."""
STALL_S = 30.0
"""Records are waiting and none arrives for so long: the consumer is bricked, build another."""


class MembershipStatus(NamedTuple):
    """How we stand in the consumer group, as far as we know ourselves."""

    is_member: bool
    """The group has told us what is ours, and does not divide anew just now."""
    assigned: frozenset[Partition]
    unreachable_since_s: float | None
    """Since when the broker has not answered, monotonic seconds; None = it answers."""


class KafkaSource:
    """A member of the consumer group. `poll` is its only loop; one task calls it."""

    def __init__(
        self,
        config: KafkaConfig,
        topics: Iterable[str],
        *,
        static_member_id: str | None = None,
        leave_on_close: bool = True,
    ) -> None:
        """`static_member_id`: from membership.py, the same after a restart. None = a new member each time.

        `leave_on_close`: give the partitions back at the end. False where no other process could take them.
        """
        self._config = config
        self._static_member_id = static_member_id
        self._leave_on_close = leave_on_close
        self._topics = sorted(set(topics))
        self._events: deque[Event] = deque()
        self._expected: dict[TopicPartition, int] = {}
        self._ends: dict[Partition, int] = {}
        """Of the partitions that existed when the daemon started; what was created since is read from its start."""
        self._is_held = False
        self._fetch: asyncio.Task[dict[TopicPartition, list[ConsumerRecord[bytes, bytes]]]] | None = None
        self._sought: set[TopicPartition] = set()
        """Partitions sought while a fetch was under way."""
        self._damaged: set[TopicPartition] = set()
        """Partitions that wait for a batch to be what it was."""
        self._consumer: BoundedConsumer | None = None
        self._listener: _PauseAndTell | None = None
        self._watch = _Watch()
        self._side_tasks: set[asyncio.Task[None]] = set()
        self._refusals: deque[float] = deque(maxlen=3)

    is_exhausted = False

    async def start(self) -> None:
        """Join the group. Raises SourceUnavailable or SourceRefused."""
        # The embedded broker lets a group wait for half a session before anybody may begin.
        is_demo = await asyncio.to_thread(is_embedded, self._config.bootstrap)
        with map_kafka_errors(self._config.bootstrap):
            session_s = min(self._config.session_timeout.total_seconds(), 10.0 if is_demo else 1800.0)
            consumer = BoundedConsumer(
                **consumer_settings(self._config),
                group_id=self._config.group,
                group_instance_id=None if is_demo else self._static_member_id,
                session_timeout_ms=int(session_s * 1000),
                heartbeat_interval_ms=int(min(3.0, session_s / 5) * 1000),
                rebalance_timeout_ms=10_000,  # so long a joining member waits for one that died and is not given up yet
                max_poll_interval_ms=300_000,
            )
            try:
                await consumer.start()
                listener = _PauseAndTell(consumer, self._events)
                consumer.subscribe(self._topics, listener=listener)
            except BaseException:
                await stop(consumer)
                raise
        self._consumer, self._listener = consumer, listener

    async def poll(self) -> Sequence[Event]:
        if self._consumer is None:
            await self._restart()
        consumer = self._consumer
        if consumer is None or self._events:
            return self._drain_events()
        if self._fetch is None:
            self._fetch = asyncio.create_task(consumer.getmany(timeout_ms=int(POLL_S * 1000)))
        # While a group forms, `getmany` waits beyond its timeout; it must not be cancelled, so it waits by itself.
        await asyncio.wait({self._fetch}, timeout=2 * POLL_S)
        if not self._fetch.done():
            await self._look_after(consumer, heard=False)
            return self._drain_events()
        fetch, self._fetch = self._fetch, None
        sought, self._sought = self._sought, set()
        try:
            polled = fetch.result()
        except kafka.NoOffsetForPartitionError:
            polled = {}  # assigned, and not begun yet: `auto_offset_reset` is "none"
            await asyncio.sleep(POLL_S / 10)
        except kafka.OffsetOutOfRangeError as error:
            await self._meet_gap(error)
            polled = {}
        except CorruptBatch as error:
            self._wait_for(consumer, error)
            polled = {}
        except kafka.KafkaError as error:
            await self._after_error(consumer, error)
            polled = {}
        events = self._drain_events()  # what the callbacks said comes before the records
        for key, records in polled.items():
            if key in sought:  # it was sought while these were on their way: they continue from somewhere else
                self._consumer_seek(key)
                continue
            batch = self._as_batch(key, records)
            if batch is not None:
                events.append(batch)
        await self._look_after(consumer, heard=bool(polled))
        return events

    async def record_end_offsets(self) -> None:
        """Fix what "latest" means: where the logs end now, before training reads them. Raises SourceUnavailable."""
        if self._ends:
            return
        with map_kafka_errors(self._config.bootstrap):
            bounds = await log_bounds(self._config, await partitions_of(self._config, self._topics))
        self._ends = {partition: end for partition, (_, end) in bounds.items()}

    async def first_offset(self, partition: Partition, start: str) -> int:
        if start == "latest" and partition in self._ends:
            return self._ends[partition]
        with map_kafka_errors(self._config.bootstrap):
            return (await log_bounds(self._config, [partition]))[partition].first

    def seek(self, partition: Partition, offset: int) -> None:
        key = TopicPartition(*partition)
        if self._consumer is None or key not in self._consumer.assignment():
            return  # revoked meanwhile; the event is on its way
        self._expected[key] = offset
        self._consumer_seek(key)
        if not self._is_held:
            self._consumer.resume(key)

    def pause(self) -> None:
        self._is_held = True
        if self._consumer is not None:
            self._consumer.pause(*self._consumer.assignment())

    def resume(self) -> None:
        self._is_held = False
        if self._consumer is not None:
            self._consumer.resume(*(self._consumer.assignment() & self._expected.keys()))

    def end_offset(self, partition: Partition) -> int | None:
        key = TopicPartition(*partition)
        if self._consumer is None or key not in self._consumer.assignment():
            return None
        end: int | None = self._consumer.highwater(key)
        return end

    @property
    def membership(self) -> MembershipStatus:
        """Say how we stand in the group."""
        consumer, listener = self._consumer, self._listener
        if consumer is None or listener is None:
            return MembershipStatus(
                is_member=False, assigned=frozenset(), unreachable_since_s=self._watch.unreachable_since_s
            )
        assigned = frozenset(Partition(*key) for key in consumer.assignment())
        return MembershipStatus(listener.is_member, assigned, self._watch.unreachable_since_s)

    def commit_lag(self, offsets: dict[Partition, int]) -> None:
        if self._consumer is None or not offsets:
            return
        ours = {TopicPartition(*partition): offset for partition, offset in offsets.items()}
        ours = {key: offset for key, offset in ours.items() if key in self._consumer.assignment()}
        self._in_background(self._commit(self._consumer, ours))

    async def close(self) -> None:
        consumer, self._consumer = self._consumer, None
        for task in tuple(self._side_tasks):
            task.cancel()
        if consumer is not None:
            if self._leave_on_close:
                # aiokafka 0.14 leaves the group only for members without a lasting name.
                consumer._coordinator._group_instance_id = None
            await self._stop(consumer)

    # -- inside

    def _consumer_seek(self, key: TopicPartition) -> None:
        if self._consumer is not None and key in self._consumer.assignment() and key in self._expected:
            self._consumer.seek(key, self._expected[key])
            if self._fetch is not None:
                self._sought.add(key)

    def _drain_events(self) -> list[Event]:
        events = list(self._events)
        self._events.clear()
        for event in events:
            if isinstance(event, Revoked | Assigned):
                for partition in event.partitions:
                    self._expected.pop(TopicPartition(*partition), None)
        return events

    def _as_batch(self, key: TopicPartition, records: list[ConsumerRecord[bytes, bytes]]) -> RecordBatch | None:
        expected = self._expected.get(key)
        if expected is None:
            return None  # prefetched before the partition was ours
        if records[0].offset < expected:
            log.warning(
                "unexpected_offset", partition=f"{key.topic}/{key.partition}", got=records[0].offset, want=expected
            )
            self.seek(Partition(*key), expected)
            return None
        self._expected[key] = records[-1].offset + 1
        return as_batch(Partition(*key), records)

    async def _meet_gap(self, error: kafka.OffsetOutOfRangeError) -> None:
        """Step over records that retention removed; refuse a log that is shorter than what we have read."""
        lost = [Partition(*key) for key in error.args[0]] if error.args and isinstance(error.args[0], dict) else []
        lost = [partition for partition in lost if TopicPartition(*partition) in self._expected]
        try:
            with map_kafka_errors(self._config.bootstrap):
                bounds = await log_bounds(self._config, lost)
        except SourceUnavailable as unavailable:
            self._watch.is_away(self._config.bootstrap, unavailable)
            return  # the next poll comes here again
        for partition in lost:
            wanted, (first, end) = self._expected[TopicPartition(*partition)], bounds[partition]
            if wanted > end:
                raise SourceRefused(
                    f"{partition} ends at offset {end}, but we have read up to {wanted}. The topic was probably "
                    f"deleted and created again: read it from its start with another [kafka] group (now "
                    f"{self._config.group!r}) and an empty database"
                )
            if wanted < first:  # else the error was about a position that was sought away from since
                self._events.append(Gap(partition, wanted, first))
                self.seek(partition, first)
        self._seek_again()

    async def _after_error(self, consumer: BoundedConsumer, error: kafka.KafkaError) -> None:
        """A refusal of somebody who was let in before may be a broker's slip, and bricks the consumer all the same."""
        refused = as_refusal(error)
        if refused is not None:
            self._refusals.append(time.monotonic())
            is_repeated = len(self._refusals) == 3 and self._refusals[-1] - self._refusals[0] < REFUSED_S
            if is_repeated or not consumer.assignment():
                raise refused from error
        log.warning("poll_failed", error=repr(error))
        if refused is not None:
            await self._drop_consumer("the broker refused a member that it had let in")
        elif self._watch.failed_too_often():
            await self._drop_consumer("the same kind of error came three times in ten seconds")
        else:
            self._seek_again()
            await asyncio.sleep(POLL_S)

    def _wait_for(self, consumer: BoundedConsumer, damaged: CorruptBatch) -> None:
        """Let the other partitions go on. Nothing is stepped over: a disk may be mended, another replica be right."""
        key = TopicPartition(*damaged.partition)
        log.error(
            "corrupt_batch",
            partition=str(damaged.partition),
            offset=damaged.offset,
            error=str(damaged),
            doing=f"fetching it again every {DAMAGED_WAIT_S:.0f} s; nothing behind it is read",
            fix="let another replica lead the partition, or delete its records up to there (kafka-delete-records)",
        )
        if key in consumer.assignment():
            consumer.pause(key)
            self._damaged.add(key)
            self._in_background(self._fetch_again(key))
        self._seek_again()

    async def _fetch_again(self, key: TopicPartition) -> None:
        await asyncio.sleep(DAMAGED_WAIT_S)
        self._damaged.discard(key)
        if not self._is_held and key in self._expected and self._consumer and key in self._consumer.assignment():
            self._consumer.resume(key)

    def _seek_again(self) -> None:
        """An exception in `getmany` loses the records it had drained from other partitions."""
        for key in self._expected:
            self._consumer_seek(key)

    async def _look_after(self, consumer: BoundedConsumer, *, heard: bool) -> None:
        if heard or self._is_held:
            self._watch.heard(self._config.bootstrap)
        elif self._watch.should_ping():
            self._in_background(self._ping(consumer))
        if self._watch.is_stalled():
            await self._drop_consumer(f"records are waiting and none came for {STALL_S:.0f} s")

    async def _ping(self, consumer: BoundedConsumer) -> None:
        """Ask for the ends of our logs: is the broker there, and does it hold records we are not given?"""
        reading = [key for key in self._expected if key in consumer.assignment()]
        try:
            async with asyncio.timeout(STOP_LIMIT_S):
                # What readers may see ends here; the high watermark also counts markers and open transactions.
                ends = await consumer.end_offsets(list(reading)) if reading else {}
                waiting = [key for key in reading if key not in self._damaged]
                behind = [key for key in waiting if ends[key] > await consumer.position(key)]
                if not reading:
                    await consumer.topics()
        except (kafka.KafkaError, kafka.IllegalStateError, TimeoutError, OSError) as error:
            self._watch.is_away(self._config.bootstrap, error)
            return
        self._watch.answered(self._config.bootstrap, records_wait=bool(behind) and not self._is_held)

    async def _commit(self, consumer: BoundedConsumer, offsets: dict[TopicPartition, int]) -> None:
        # A lag marker: a failure (rebalance, coordinator moving) is made good by the next one.
        with contextlib.suppress(kafka.KafkaError, kafka.IllegalOperation, TimeoutError, OSError):
            await consumer.commit(offsets)

    def _in_background(self, work: Any) -> None:
        task = asyncio.ensure_future(work)
        self._side_tasks.add(task)
        task.add_done_callback(self._side_tasks.discard)

    async def _drop_consumer(self, why: str) -> None:
        log.warning("consumer_replaced", reason=why)
        metrics.consumers_replaced.inc()
        consumer, self._consumer = self._consumer, None
        if consumer is None:
            return
        ours = tuple(Partition(*key) for key in consumer.assignment())
        await self._stop(consumer)
        self._events.append(Revoked(ours))
        self._watch = _Watch()

    async def _stop(self, consumer: BoundedConsumer) -> None:
        fetch, self._fetch = self._fetch, None
        await stop(consumer)
        _end_membership(consumer)
        if fetch is not None:
            fetch.cancel()  # its consumer is gone
            with contextlib.suppress(asyncio.CancelledError, kafka.KafkaError, kafka.ConsumerStoppedError):
                await fetch

    async def _restart(self) -> None:
        try:
            await self.start()
        except SourceUnavailable as error:
            self._watch.is_away(self._config.bootstrap, error)
            await asyncio.sleep(1.0)
        else:
            self._watch.answered(self._config.bootstrap, records_wait=False)


def _end_membership(consumer: BoundedConsumer) -> None:
    """A consumer given up while its stop hung must not go on joining: under our name it would throw us out."""
    for task in ("_coordination_task", "_heartbeat_task", "_commit_refresh_task"):
        alive = getattr(consumer._coordinator, task, None)
        if alive is not None and not alive.done():
            alive.cancel()


class _PauseAndTell(ConsumerRebalanceListener):  # type: ignore[misc]  # aiokafka ships no types
    """While these callbacks run no heartbeat is sent, and what they raise is swallowed: so they do next to nothing."""

    def __init__(self, consumer: BoundedConsumer, events: deque[Event]) -> None:
        self._consumer = consumer
        self._events = events
        self.is_member = False
        """Whether the group has told us what is ours; no while it divides anew."""

    async def on_partitions_revoked(self, revoked: set[TopicPartition]) -> None:
        self.is_member = False
        if revoked:
            self._events.append(Revoked(tuple(Partition(*key) for key in sorted(revoked))))

    async def on_partitions_assigned(self, assigned: set[TopicPartition]) -> None:
        self._consumer.pause(*assigned)  # first: the fetcher must not run ahead of our seek
        self.is_member = True
        if assigned:
            self._events.append(Assigned(tuple(Partition(*key) for key in sorted(assigned))))


class _Watch:
    """Knows since when the broker is silent. Processing time only: nothing here reaches a result."""

    def __init__(self) -> None:
        self._last_heard = self._last_ping = time.monotonic()
        self.unreachable_since_s: float | None = None
        self._records_wait = False
        self._failures: deque[float] = deque(maxlen=3)

    def heard(self, bootstrap: str) -> None:
        self._last_heard = time.monotonic()
        self._records_wait = False
        self._back(bootstrap)

    def answered(self, bootstrap: str, *, records_wait: bool) -> None:
        if not records_wait:
            self._last_heard = time.monotonic()
        self._records_wait = records_wait
        self._back(bootstrap)

    def is_away(self, bootstrap: str, error: BaseException) -> None:
        self._records_wait = False
        if self.unreachable_since_s is None:
            self.unreachable_since_s = time.monotonic()
            said = "no answer" if isinstance(error, TimeoutError) else str(error) or repr(error)
            log.warning("broker_away", bootstrap=bootstrap, error=said, doing="waiting for it")

    def _back(self, bootstrap: str) -> None:
        if self.unreachable_since_s is not None:
            log.info("broker_back", bootstrap=bootstrap, after_s=round(time.monotonic() - self.unreachable_since_s, 1))
            self.unreachable_since_s = None

    def should_ping(self) -> bool:
        now = time.monotonic()
        if now - max(self._last_heard, self._last_ping) < PING_AFTER_S:
            return False
        self._last_ping = now
        return True

    def is_stalled(self) -> bool:
        return self._records_wait and time.monotonic() - self._last_heard > STALL_S

    def failed_too_often(self) -> bool:
        now = time.monotonic()
        self._failures.append(now)
        return len(self._failures) == 3 and now - self._failures[0] < 10.0
