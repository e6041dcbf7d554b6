"""Where records come from: a Kafka consumer group (`group.py`), what Kafka holds now (`history.py`), or `memory.py`.

Enters: a partition to begin at an offset. Leaves: what happened, in order: partitions assigned or revoked, batches of
records. The law: **an offset handed out follows the last one handed out**; the truth of where to begin is in our
database, and what is committed to Kafka only shows lag.

Beside them `client.py` (settings, and what errors mean), `login.py` (credentials) and `identity.py` (a lasting name).

The rules that aiokafka 0.14 taught (each was measured): the assignment callback only pauses and enqueues · `getmany`
is never cancelled and never given a deserialiser · after any exception every partition is sought again ·
`auto_offset_reset` is "none", so that a jump is seen · a consumer that misbehaves is replaced, not repaired.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from monitor.types import Partition, RecordBatch

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(frozen=True, slots=True)
class Assigned:
    """These partitions are ours now. They stay silent until `seek`."""

    partitions: tuple[Partition, ...]


@dataclass(frozen=True, slots=True)
class Revoked:
    """These partitions are no longer ours."""

    partitions: tuple[Partition, ...]


@dataclass(frozen=True, slots=True)
class Gap:
    """Records between two offsets are gone from the log (retention was faster than we were)."""

    partition: Partition
    from_offset: int
    to_offset: int


Event = Assigned | Revoked | Gap | RecordBatch


class Source(Protocol):
    """A log that can be read from any offset."""

    async def poll(self) -> Sequence[Event]:
        """Wait a little for something to happen; return it in order. An empty list means silence."""

    async def first_offset(self, partition: Partition, start: str) -> int:
        """Return where a partition begins that was never read before. `start`: earliest or latest."""

    def seek(self, partition: Partition, offset: int) -> None:
        """Hand out this partition's records from here on."""

    def pause(self) -> None:
        """Hand out nothing for now, but stay a member: `poll` must still be called."""

    def resume(self) -> None:
        """Go on after `pause`."""

    def end_offset(self, partition: Partition) -> int | None:
        """Return the end of the partition's log as last heard; None = not heard yet."""

    def commit_lag(self, offsets: dict[Partition, int]) -> None:
        """Tell the outside how far we are. Never waited for, never trusted."""

    @property
    def is_exhausted(self) -> bool:
        """Whether nothing will ever come again: the end of a file or of a range."""

    async def close(self) -> None:
        """Leave. Safe to call twice."""
