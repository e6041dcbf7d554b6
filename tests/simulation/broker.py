"""A simulated Kafka with its worst behaviour: retention, frequent rebalances, members that notice them late.

`Broker` holds the logs and the owner of each partition. A `MemberSource` is the view of one process: it notices a
rebalance some time later, or when it is resumed, and until then returns records that it had fetched. So two members
own one partition for a while, and a member may lose a partition and get it back without noticing.

`MemberSource` keeps the invariants of `monitor.kafka.consumer_group`. No record of a partition is returned before
`seek`. Records that were fetched before a `seek`, an assignment or a revocation are dropped. Offsets follow each other.
Records that retention removed are reported as a `Gap` and skipped.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_left
from collections import Counter, deque
from operator import itemgetter
from typing import TYPE_CHECKING

from monitor.errors import SourceUnavailable
from monitor.kafka import Assigned, Event, Gap, Revoked
from monitor.types import RecordBatch
from tests.fakes import batch_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from random import Random

    from monitor.types import Partition
    from tests.fakes import Record
    from tests.simulation.clockwork import Process
    from tests.simulation.fault_plan import FaultPlan

IDLE_S = 0.8
"""Longest wait of an empty poll."""


class PartitionLog:
    """The log of one partition: all records, the number of written ones, and the first offset after retention."""

    def __init__(self, records: Sequence[Record]) -> None:
        self.records = records
        self.n_written = 0
        self.first_kept = records[0][0] if records else 0

    @property
    def end(self) -> int:
        """Offset after the last written record."""
        return self.records[self.n_written - 1][0] + 1 if self.n_written else self.first_kept

    def place(self, offset: int) -> int:
        """Return the index of the first record at or after an offset."""
        return bisect_left(self.records, offset, key=itemgetter(0))

    def fetch(self, offset: int, limit: int) -> Sequence[Record]:
        place = self.place(offset)
        return self.records[place : min(place + limit, self.n_written)]


class Broker:
    """The logs, and one consumer group."""

    def __init__(self, logs: Mapping[Partition, Sequence[Record]], rng: Random, fault_plan: FaultPlan) -> None:
        self.logs = {partition: PartitionLog(records) for partition, records in logs.items()}
        self.members: list[MemberSource] = []
        self.owner: dict[Partition, MemberSource | None] = dict.fromkeys(logs)
        self.committed: dict[Partition, int] = {}
        self.lost: dict[Partition, list[tuple[int, int]]] = {partition: [] for partition in logs}
        """Reported gaps, as [from, to)."""
        self.counts: Counter[str] = Counter()
        self.trace: Callable[[str], None] | None = None
        self.rng = rng
        self.fault_plan = fault_plan

    def join(self, member: MemberSource) -> None:
        self.members.append(member)
        self.rebalance()

    def leave(self, member: MemberSource) -> None:
        """Remove a member that left or whose session expired."""
        if member in self.members:
            self.members.remove(member)
            self.rebalance()

    def rebalance(self) -> None:
        """Assign every partition to some member. Each member notices it at its own time."""
        self.counts["rebalances"] += 1
        rng, before = self.rng, dict(self.owner)
        for partition in self.owner:
            self.owner[partition] = rng.choice(self.members) if self.members else None
        if self.trace is not None:
            self.trace("broker: rebalance " + str({str(p): str(owner) for p, owner in self.owner.items()}))
        is_eager = rng.random() < 0.6
        for member in self._affected(before):
            had = [p for p, owner in before.items() if owner is member]
            has = [p for p, owner in self.owner.items() if owner is member]
            stays = [] if is_eager else [p for p in has if p in had]
            member.rebalanced(
                tuple(p for p in had if p not in stays),
                tuple(p for p in has if p not in stays),
            )

    def _affected(self, before: dict[Partition, MemberSource | None]) -> list[MemberSource]:
        affected = list(self.members)
        affected += [owner for owner in before.values() if owner is not None and owner not in affected]
        return list(dict.fromkeys(affected))

    def write(self, partition: Partition, n: int) -> None:
        log = self.logs[partition]
        log.n_written = min(log.n_written + n, len(log.records))

    def remove_before(self, partition: Partition, offset: int) -> None:
        """Retention."""
        log = self.logs[partition]
        if offset > log.first_kept:
            log.first_kept = min(offset, log.end)
            self.counts["retention"] += 1
            if self.trace is not None:
                self.trace(f"broker: {partition} now begins at {log.first_kept}")


class MemberSource:
    """A member of the group, as seen by one process. A `Source`."""

    is_exhausted = False

    def __init__(self, broker: Broker, process: Process) -> None:
        self._broker = broker
        self._process = process
        self._rng = broker.rng
        self._pending: deque[tuple[float, Event]] = deque()
        self._assigned: dict[Partition, None] = {}
        self._expected: dict[Partition, int] = {}
        self._fetched: dict[Partition, Sequence[Record]] = {}
        self._is_paused = False

    def __str__(self) -> str:
        return self._process.name

    # ------------------------------------------------------------------ rebalances

    def rebalanced(self, revoked: tuple[Partition, ...], assigned: tuple[Partition, ...]) -> None:
        """Notice a rebalance, later."""
        at_s = max(self._now_s(), self._pending[-1][0] if self._pending else 0.0)
        if revoked:
            at_s += self._rng.random() * self._broker.fault_plan.notice_s
            self._pending.append((at_s, Revoked(revoked)))
        if assigned:
            at_s += self._rng.random() * self._broker.fault_plan.notice_s
            self._pending.append((at_s, Assigned(assigned)))

    def _due_events(self) -> list[Event]:
        events: list[Event] = []
        while self._pending and self._pending[0][0] <= self._now_s():
            _, event = self._pending.popleft()
            assert isinstance(event, Assigned | Revoked)
            for partition in event.partitions:
                self._expected.pop(partition, None)
                if isinstance(event, Assigned):
                    self._assigned[partition] = None
                    self._assign(partition)
                    self._broker.counts["assignments"] += 1
                else:
                    self._assigned.pop(partition, None)
            events.append(event)
        return events

    def _assign(self, partition: Partition) -> None:
        """Handle the assignment: the partition is paused, and its fetched records are dropped."""
        self._fetched.pop(partition, None)

    # ------------------------------------------------------------------ Source

    async def poll(self) -> Sequence[Event]:
        plan = self._broker.fault_plan
        await self._process.pause(self._rng.random() * 0.05)
        events = self._due_events()
        if not events and self._rng.random() < plan.replaced and self._assigned:
            return self._replace_consumer()
        if not self._is_paused:
            for partition in self._started_partitions():
                if self._rng.random() >= plan.empty_poll:
                    events += self._records_of(partition)
        if not events:
            await self._process.pause(self._rng.random() * IDLE_S)
        if self._broker.trace is not None:
            for event in events:
                text = f"{event.partition} {event.offsets.tolist()}" if isinstance(event, RecordBatch) else str(event)
                self._broker.trace(f"{self}: {text}")
        return events

    def _started_partitions(self) -> list[Partition]:
        ours = [partition for partition in self._assigned if partition in self._expected]
        self._rng.shuffle(ours)
        return ours

    def _records_of(self, partition: Partition) -> list[Event]:
        """Return fetched records, or fetch. Fetched records stay available after retention and rebalances."""
        log, most = self._broker.logs[partition], self._broker.fault_plan.max_records
        events: list[Event] = []
        if not self._fetched.get(partition):
            at = self._expected[partition]
            if at < log.first_kept:
                self._broker.lost[partition].append((at, log.first_kept))
                self._broker.counts["reported gaps"] += 1
                events.append(Gap(partition, at, log.first_kept))
                at = self._expected[partition] = log.first_kept
            self._fetched[partition] = log.fetch(at, self._rng.randint(1, 3 * most))
        records = self._fetched[partition][: self._rng.randint(1, most)]
        if records:
            self._fetched[partition] = self._fetched[partition][len(records) :]
            self._expected[partition] = records[-1][0] + 1
            events.append(batch_of(partition, records))
        return events

    def _replace_consumer(self) -> list[Event]:
        """Replace a consumer that was unusable. The new one gets the partitions of this member."""
        self._broker.counts["consumers replaced"] += 1
        ours = tuple(self._assigned)
        self._assigned.clear()
        self._expected.clear()
        self._fetched.clear()
        self._pending.clear()
        has = tuple(p for p, owner in self._broker.owner.items() if owner is self)
        self.rebalanced((), has)
        return [Revoked(ours)]

    async def first_offset(self, partition: Partition, start: str) -> int:
        assert start == "earliest"
        await self._process.pause(self._rng.random() * 0.05)
        if self._rng.random() < self._broker.fault_plan.broker_unavailable:
            self._broker.counts["broker unavailable"] += 1
            raise SourceUnavailable("simulated")
        return self._broker.logs[partition].first_kept

    def seek(self, partition: Partition, offset: int) -> None:
        if self._broker.trace is not None:
            self._broker.trace(f"{self}: seek {partition} to {offset}, assigned {list(map(str, self._assigned))}")
        if partition in self._assigned:
            self._expected[partition] = offset
            self._fetched.pop(partition, None)

    def pause(self) -> None:
        self._is_paused = True

    def resume(self) -> None:
        self._is_paused = False

    def end_offset(self, partition: Partition) -> int | None:
        return self._broker.logs[partition].end if partition in self._assigned else None

    def commit_lag(self, offsets: dict[Partition, int]) -> None:
        self._broker.committed |= {p: offset for p, offset in offsets.items() if p in self._assigned}

    async def close(self) -> None:
        """Nothing is open."""

    def _now_s(self) -> float:
        return asyncio.get_running_loop().time()
