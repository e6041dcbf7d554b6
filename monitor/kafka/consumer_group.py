"""The live source: a member of the consumer group, and the checks that keep it healthy.

Input: topics, and for each assigned partition the offset to read from. Output: events (see `monitor.kafka`).
Invariant: a consumer that misbehaves is replaced by a new one. Its partitions are reported as revoked.
"""

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
from monitor.kafka.broker_watch import BrokerWatch
from monitor.kafka.client import as_batch, consumer_settings, stop
from monitor.kafka.embedded_broker import is_embedded
from monitor.kafka.error_mapping import map_kafka_errors, refusal_for
from monitor.kafka.log_reader import log_bounds, partitions_of
from monitor.timing import DEFAULT_TIMING
from monitor.types import Partition

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from aiokafka import ConsumerRecord

    from monitor.config import KafkaConfig
    from monitor.timing import Timing
    from monitor.types import RecordBatch

    Polled = dict[TopicPartition, list[ConsumerRecord[bytes, bytes]]]

log = logs.get("source")

EMBEDDED_SESSION_S = 10.0
"""Longest session with the embedded broker, which delays a new group by half a session."""
RESTART_WAIT_S = 1.0
"""Between two attempts to join the group while the broker is unavailable."""
MAX_REFUSALS = 3
"""Refusals within `Timing.refused_after_s` that are final."""


class MembershipStatus(NamedTuple):
    """Our membership in the consumer group, as last reported to this client."""

    is_member: bool
    """The group has assigned our partitions, and no rebalance is under way."""
    assigned: frozenset[Partition]
    unreachable_since_s: float | None
    """Monotonic seconds at which the broker stopped answering. None if it answers."""


class KafkaSource:
    """A member of the consumer group. Implements `Source`. Only one task may call `poll`."""

    is_exhausted = False

    def __init__(
        self,
        config: KafkaConfig,
        topics: Iterable[str],
        *,
        client_id: str = "monitor",
        static_member_id: str | None = None,
        leave_on_close: bool = True,
        timing: Timing = DEFAULT_TIMING,
    ) -> None:
        """`client_id`: the same for all daemons of one database, so that others are recognised.

        `static_member_id`: from membership.py, the same after a restart. None: a new member each time.

        `leave_on_close`: give the partitions back at the end. False where no other process could take them.
        """
        self._config = config
        self._topics = sorted(set(topics))
        self._client_id = client_id
        self._static_member_id = static_member_id
        self._leave_on_close = leave_on_close
        self._timing = timing
        self._consumer: BoundedConsumer | None = None
        self._listener: _RebalanceListener | None = None
        self._watch = BrokerWatch(config.bootstrap, timing)
        self._events: deque[Event] = deque()
        self._expected: dict[TopicPartition, int] = {}
        """The next offset of each partition that was sought since its assignment."""
        self._ends: dict[Partition, int] = {}
        """Ends of the partitions that existed when the daemon started. Later partitions are read from their start."""
        self._fetch: asyncio.Task[Polled] | None = None
        self._sought: set[TopicPartition] = set()
        """Partitions that were sought during the present fetch."""
        self._corrupt: set[TopicPartition] = set()
        """Partitions that wait for another fetch of a corrupt batch."""
        self._is_paused = False
        self._is_embedded = False
        self._is_outdated = False
        """True if the consumer must be replaced to get the partitions of a new topic."""
        self._refusals: deque[float] = deque(maxlen=MAX_REFUSALS)
        self._side_tasks: set[asyncio.Task[None]] = set()

    # ---------------------------------------------------------------- the source

    async def start(self) -> None:
        """Join the group. Raises SourceUnavailable or SourceRefused."""
        embedded = self._is_embedded = await asyncio.to_thread(is_embedded, self._config.bootstrap)
        with map_kafka_errors(self._config.bootstrap):
            consumer = BoundedConsumer(**consumer_settings(self._config), **self._group_settings(embedded=embedded))
            try:
                await consumer.start()
                listener = _RebalanceListener(consumer, self._events)
                consumer.subscribe(self._topics, listener=listener)
            except BaseException:
                await stop(consumer)
                raise
        self._consumer, self._listener = consumer, listener

    def _group_settings(self, *, embedded: bool) -> dict[str, Any]:
        session_s = self._config.session_timeout.total_seconds()
        if embedded:
            session_s = min(session_s, EMBEDDED_SESSION_S)
        return {
            "client_id": self._client_id,
            "group_id": self._config.group,
            "group_instance_id": None if embedded else self._static_member_id,
            "session_timeout_ms": int(session_s * 1000),
            "heartbeat_interval_ms": int(min(3.0, session_s / 5) * 1000),
            # Time that a joining member waits for a dead one whose session has not ended yet.
            "rebalance_timeout_ms": 10_000,
            "max_poll_interval_ms": 300_000,
            # Age at which the list of partitions is read again: for topics made later, and for further partitions.
            "metadata_max_age_ms": int(self._timing.source_watch_every_s * 1000),
        }

    def topics_found(self) -> None:
        """Read topics that did not exist when the consumer joined.

        Kafka assigns them by itself. The embedded broker repeats a member's former assignment.
        """
        self._is_outdated = self._is_embedded

    async def poll(self) -> Sequence[Event]:
        if self._is_outdated:
            self._is_outdated = False
            await self._drop_consumer("a topic was created, and the embedded broker assigns it to new members only")
        if self._consumer is None:
            await self._restart()
        consumer = self._consumer
        if consumer is None or self._events:
            return self._drain_events()
        fetch = await self._finished_fetch(consumer)
        if fetch is None:
            await self._check_health(consumer, has_records=False)
            return self._drain_events()
        sought, self._sought = self._sought, set()
        polled = await self._result_of(fetch, consumer)
        events = self._drain_events()  # assignments and revocations come before the records
        for key, records in polled.items():
            if key in sought:  # these records were fetched from the position before the seek
                self._consumer_seek(key)
            elif (batch := self._as_batch(key, records)) is not None:
                events.append(batch)
        await self._check_health(consumer, has_records=bool(polled))
        return events

    async def record_end_offsets(self) -> None:
        """Remember the present ends of the logs, which `latest` refers to. Raises SourceUnavailable."""
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
            return  # revoked meanwhile; the event follows
        self._expected[key] = offset
        self._consumer_seek(key)
        if not self._is_paused:
            self._consumer.resume(key)

    def pause(self) -> None:
        self._is_paused = True
        if self._consumer is not None:
            self._consumer.pause(*self._consumer.assignment())

    def resume(self) -> None:
        self._is_paused = False
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
        """The state of our membership in the group."""
        consumer, listener, since_s = self._consumer, self._listener, self._watch.unreachable_since_s
        if consumer is None or listener is None:
            return MembershipStatus(is_member=False, assigned=frozenset(), unreachable_since_s=since_s)
        assigned = frozenset(Partition(*key) for key in consumer.assignment())
        return MembershipStatus(listener.is_member, assigned, since_s)

    def commit_lag(self, offsets: dict[Partition, int]) -> None:
        if self._consumer is None or not offsets:
            return
        ours = {TopicPartition(*partition): offset for partition, offset in offsets.items()}
        ours = {key: offset for key, offset in ours.items() if key in self._consumer.assignment()}
        if ours:  # aiokafka refuses an empty commit, which a rebalance leads to
            self._in_background(self._commit(self._consumer, ours))

    async def close(self) -> None:
        consumer, self._consumer = self._consumer, None
        for task in tuple(self._side_tasks):
            task.cancel()
        if consumer is not None:
            if self._leave_on_close:
                # aiokafka 0.14 leaves the group only if the member has no static id.
                consumer._coordinator._group_instance_id = None
            await self._stop(consumer)

    # ---------------------------------------------------------------- fetching

    async def _finished_fetch(self, consumer: BoundedConsumer) -> asyncio.Task[Polled] | None:
        """Return the present fetch if it is finished, else None.

        While a group forms, `getmany` takes longer than its timeout. It must not be cancelled, so it runs in a task
        that outlasts this poll.
        """
        if self._fetch is None:
            self._fetch = asyncio.create_task(consumer.getmany(timeout_ms=int(self._timing.poll_limit_s * 1000)))
        await asyncio.wait({self._fetch}, timeout=2 * self._timing.poll_limit_s)
        if not self._fetch.done():
            return None
        fetch, self._fetch = self._fetch, None
        return fetch

    async def _result_of(self, fetch: asyncio.Task[Polled], consumer: BoundedConsumer) -> Polled:
        """Return the records of a finished fetch, or no records after an error, which is handled here."""
        try:
            return fetch.result()
        except kafka.NoOffsetForPartitionError:
            # A partition was assigned and not sought yet, and `auto_offset_reset` is "none".
            await asyncio.sleep(self._timing.poll_limit_s / 10)
        except kafka.OffsetOutOfRangeError as error:
            await self._skip_gap(error)
        except CorruptBatch as error:
            self._pause_corrupt(consumer, error)
        except kafka.KafkaError as error:
            await self._handle_error(consumer, error)
        return {}

    def _as_batch(self, key: TopicPartition, records: list[ConsumerRecord[bytes, bytes]]) -> RecordBatch | None:
        """Return the records as a batch, or None if they do not continue those before."""
        expected = self._expected.get(key)
        if expected is None:
            return None  # fetched before the partition was assigned
        if records[0].offset < expected:
            log.warning(
                "unexpected_offset", partition=f"{key.topic}/{key.partition}", got=records[0].offset, want=expected
            )
            self.seek(Partition(*key), expected)
            return None
        self._expected[key] = records[-1].offset + 1
        return as_batch(Partition(*key), records)

    def _consumer_seek(self, key: TopicPartition) -> None:
        if self._consumer is not None and key in self._consumer.assignment() and key in self._expected:
            self._consumer.seek(key, self._expected[key])
            if self._fetch is not None:
                self._sought.add(key)

    def _seek_all(self) -> None:
        """Seek all partitions again: an exception in `getmany` loses the records that it read of other partitions."""
        for key in self._expected:
            self._consumer_seek(key)

    def _drain_events(self) -> list[Event]:
        events = list(self._events)
        self._events.clear()
        for event in events:
            if isinstance(event, Revoked | Assigned):
                for partition in event.partitions:
                    self._expected.pop(TopicPartition(*partition), None)
        return events

    # ---------------------------------------------------------------- errors

    async def _skip_gap(self, error: kafka.OffsetOutOfRangeError) -> None:
        """Skip records that retention deleted. Raises SourceRefused if a log is shorter than the offsets read."""
        lost = [Partition(*key) for key in error.args[0]] if error.args and isinstance(error.args[0], dict) else []
        lost = [partition for partition in lost if TopicPartition(*partition) in self._expected]
        try:
            with map_kafka_errors(self._config.bootstrap):
                bounds = await log_bounds(self._config, lost)
        except SourceUnavailable as unavailable:
            self._watch.unreachable(unavailable)
            return  # the next poll raises the same error
        for partition in lost:
            expected, (first, end) = self._expected[TopicPartition(*partition)], bounds[partition]
            if expected > end:
                raise SourceRefused(
                    f"{partition} ends at offset {end}, but we have read up to {expected}. The topic was probably "
                    f"deleted and created again: read it from its start with another [kafka] group (now "
                    f"{self._config.group!r}) and an empty database"
                )
            if expected < first:  # otherwise the partition was sought again since the error
                self._events.append(Gap(partition, expected, first))
                self.seek(partition, first)
        self._seek_all()

    def _pause_corrupt(self, consumer: BoundedConsumer, corrupt: CorruptBatch) -> None:
        """Pause the partition of a corrupt batch for a while. The others go on.

        Nothing is skipped: the disk may be repaired, or another replica may have the batch.
        """
        key = TopicPartition(*corrupt.partition)
        log.error(
            "corrupt_batch",
            partition=str(corrupt.partition),
            offset=corrupt.offset,
            error=str(corrupt),
            doing=f"fetching it again every {self._timing.damaged_batch_wait_s:.0f} s; nothing behind it is read",
            fix="let another replica lead the partition, or delete its records up to there (kafka-delete-records)",
        )
        if key in consumer.assignment():
            consumer.pause(key)
            self._corrupt.add(key)
            self._in_background(self._resume_corrupt(key))
        self._seek_all()

    async def _resume_corrupt(self, key: TopicPartition) -> None:
        await asyncio.sleep(self._timing.damaged_batch_wait_s)
        self._corrupt.discard(key)
        if not self._is_paused and key in self._expected and self._consumer and key in self._consumer.assignment():
            self._consumer.resume(key)

    async def _handle_error(self, consumer: BoundedConsumer, error: kafka.KafkaError) -> None:
        """Poll again, replace the consumer, or raise SourceRefused.

        A member that was accepted before may be refused by a broker's mistake. Its consumer is unusable afterwards, so
        it is replaced, and only repeated refusals are final.
        """
        refusal = refusal_for(error)
        if refusal is not None:
            self._refusals.append(time.monotonic())
            is_final = (
                len(self._refusals) == MAX_REFUSALS
                and self._refusals[-1] - self._refusals[0] < self._timing.refused_after_s
            )
            if is_final or not consumer.assignment():
                raise refusal from error
        log.warning("poll_failed", error=repr(error))
        if refusal is not None:
            await self._drop_consumer("the broker refused a member that it had let in")
        elif self._watch.failed_too_often():
            await self._drop_consumer("the same kind of error came three times in ten seconds")
        else:
            self._seek_all()
            await asyncio.sleep(self._timing.poll_limit_s)

    # ---------------------------------------------------------------- health

    async def _check_health(self, consumer: BoundedConsumer, *, has_records: bool) -> None:
        if has_records or self._is_paused:
            self._watch.answered(records_wait=False)
        elif self._watch.should_ping():
            self._in_background(self._ping(consumer))
        if self._watch.is_stalled():
            stalled_s = self._timing.consumer_stalled_after_s
            await self._drop_consumer(f"records are waiting and none came for {stalled_s:.0f} s")

    async def _ping(self, consumer: BoundedConsumer) -> None:
        """Request the ends of our logs. They show that the broker answers, and whether it has undelivered records."""
        reading = [key for key in self._expected if key in consumer.assignment()]
        try:
            async with asyncio.timeout(self._timing.consumer_stop_limit_s):
                # The end for readers. The high watermark also counts transaction markers and open transactions.
                ends = await consumer.end_offsets(list(reading)) if reading else {}
                healthy = [key for key in reading if key not in self._corrupt]
                behind = [key for key in healthy if ends[key] > await consumer.position(key)]
                if not reading:
                    await consumer.topics()
        except (kafka.KafkaError, kafka.IllegalStateError, TimeoutError, OSError) as error:
            self._watch.unreachable(error)
            return
        self._watch.answered(records_wait=bool(behind) and not self._is_paused)

    async def _commit(self, consumer: BoundedConsumer, offsets: dict[TopicPartition, int]) -> None:
        # Only a lag marker: after a failure (rebalance, moving coordinator) the next commit corrects it.
        with contextlib.suppress(kafka.KafkaError, kafka.IllegalOperation, TimeoutError, OSError):
            await consumer.commit(offsets)

    def _in_background(self, work: Any) -> None:
        task = asyncio.ensure_future(work)
        self._side_tasks.add(task)
        task.add_done_callback(self._side_tasks.discard)

    # ---------------------------------------------------------------- the consumer

    async def _drop_consumer(self, reason: str) -> None:
        """Stop the consumer and report its partitions as revoked. The next poll makes another."""
        log.warning("consumer_replaced", reason=reason)
        metrics.consumers_replaced.inc()
        consumer, self._consumer = self._consumer, None
        if consumer is None:
            return
        ours = tuple(Partition(*key) for key in consumer.assignment())
        await self._stop(consumer)
        self._events.append(Revoked(ours))
        self._watch = BrokerWatch(self._config.bootstrap, self._timing)

    async def _restart(self) -> None:
        try:
            await self.start()
        except SourceUnavailable as error:
            self._watch.unreachable(error)
            await asyncio.sleep(RESTART_WAIT_S)
        else:
            self._watch.answered(records_wait=False)

    async def _stop(self, consumer: BoundedConsumer) -> None:
        fetch, self._fetch = self._fetch, None
        await stop(consumer, self._timing.consumer_stop_limit_s)
        _end_membership(consumer)
        if fetch is not None:
            fetch.cancel()  # its consumer is stopped
            with contextlib.suppress(asyncio.CancelledError, kafka.KafkaError, kafka.ConsumerStoppedError):
                await fetch


def _end_membership(consumer: BoundedConsumer) -> None:
    """Cancel the group tasks of a consumer whose stop hung: they would join again and fence our new member."""
    for name in ("_coordination_task", "_heartbeat_task", "_commit_refresh_task"):
        task = getattr(consumer._coordinator, name, None)
        if task is not None and not task.done():
            task.cancel()


class _RebalanceListener(ConsumerRebalanceListener):  # type: ignore[misc]  # aiokafka ships no types
    """Callbacks of the group. No heartbeat is sent meanwhile, and their errors are lost, so they only enqueue."""

    def __init__(self, consumer: BoundedConsumer, events: deque[Event]) -> None:
        self._consumer = consumer
        self._events = events
        self.is_member = False
        """True once the group has assigned our partitions. False during a rebalance."""

    async def on_partitions_revoked(self, revoked: set[TopicPartition]) -> None:
        self.is_member = False
        if revoked:
            self._events.append(Revoked(tuple(Partition(*key) for key in sorted(revoked))))

    async def on_partitions_assigned(self, assigned: set[TopicPartition]) -> None:
        self._consumer.pause(*assigned)  # first: the fetcher must not run ahead of our seek
        self.is_member = True
        if assigned:
            self._events.append(Assigned(tuple(Partition(*key) for key in sorted(assigned))))
