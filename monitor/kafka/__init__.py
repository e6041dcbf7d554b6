"""Kafka: records for the pipeline, from a consumer group or from the log as it is now.

Input: `[kafka]`, and for each partition the offset to read from. Output: events in order: partitions assigned or
revoked, batches of records, gaps. Invariant: the records of a partition are handed out in the order of their offsets,
without repetition, from the offset of the last `seek`. The offset to start from is in our database. The one committed
to Kafka only shows the lag.

    consumer_group.py     the live source: a member of the consumer group
    broker_watch.py       when to ping the broker and when to replace the consumer
    log_reader.py         every record of the log outside the group, for training and replay
    group_members.py      the members of the group, of any program
    sample.py             the oldest and the newest records of each partition
    schema_registry.py    the schemas that the records of a batch name
    record_format.py      what the wire formats need, and its check
    memory.py             a source over records in memory, for files and tests
    bounded_consumer.py   aiokafka's consumer with limits on memory (decompressors: decompression.py)
    client.py             settings of all clients (certificates, passwords and tokens: auth.py)
    error_mapping.py      aiokafka's errors → ours
    membership.py         the static member id of a daemon
    embedded_broker.py    the broker of the demo

Rules for aiokafka 0.14, each from a measured failure: the assignment callback only pauses and enqueues · `getmany` is
never cancelled and gets no deserialiser · after any exception all partitions are sought again · `auto_offset_reset` is
"none", so that a gap is noticed · a consumer that misbehaves is replaced.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from monitor.types import Partition, RecordBatch

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(frozen=True, slots=True)
class Assigned:
    """These partitions are ours from now on. They deliver nothing before `seek`."""

    partitions: tuple[Partition, ...]


@dataclass(frozen=True, slots=True)
class Revoked:
    """These partitions are no longer ours."""

    partitions: tuple[Partition, ...]


@dataclass(frozen=True, slots=True)
class Gap:
    """The records `[from_offset, to_offset)` are gone: retention deleted them before they were read."""

    partition: Partition
    from_offset: int
    to_offset: int


Event = Assigned | Revoked | Gap | RecordBatch


class Source(Protocol):
    """A log that can be read from any offset."""

    async def poll(self) -> Sequence[Event]:
        """Wait a short time for events and return them in order, or an empty list."""

    async def first_offset(self, partition: Partition, start: str) -> int:
        """Return the offset at which a partition that was never read begins. `start`: earliest or latest."""

    def seek(self, partition: Partition, offset: int) -> None:
        """Deliver this partition's records from `offset` on."""

    def pause(self) -> None:
        """Deliver no records until `resume`. `poll` must still be called, to stay a member of the group."""

    def resume(self) -> None:
        """Deliver records again after `pause`."""

    def end_offset(self, partition: Partition) -> int | None:
        """Return the end of the partition's log as last reported, or None if it is not known yet."""

    def commit_lag(self, offsets: dict[Partition, int]) -> None:
        """Commit offsets to Kafka in the background, so that other tools see the lag. Errors are ignored."""

    @property
    def is_exhausted(self) -> bool:
        """True once no event will ever follow: the end of a file or of a range of offsets."""

    async def close(self) -> None:
        """Leave the group and close all connections. A second call does nothing."""
