"""Kafka as bad as it may be: logs that grow and lose their heads, a group that changes its mind, clients that lag.

`Broker` is the truth: the logs, and which member each partition is given to. A `MemberSource` is what one process
believes: it hears of a change some time later, or when it thaws, and until then goes on handing out what it had
fetched. So two members hold one partition for a while, and one may hold a partition that was its own, was another's
meanwhile, and is its own again.

What `MemberSource` keeps of `monitor.kafka.consumer_group` (the law of the protocol): nothing of a partition is handed
out before `seek`; what was fetched before a `seek`, an assignment or a revocation is dropped; each offset follows the
last one; records that retention took are told as a `Gap` and stepped over.
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
"""Longest silence of one poll."""


class PartitionLog:
    """One partition: all of its records, how many are written already, and from where on they are still there."""

    def __init__(self, records: Sequence[Record]) -> None:
        self.records = records
        self.n_written = 0
        self.first_kept = records[0][0] if records else 0

    @property
    def end(self) -> int:
        """The offset after the last record written."""
        return self.records[self.n_written - 1][0] + 1 if self.n_written else self.first_kept

    def place(self, offset: int) -> int:
        """Place in the list of the first record at or after an offset."""
        return bisect_left(self.records, offset, key=itemgetter(0))

    def fetch(self, offset: int, most: int) -> Sequence[Record]:
        place = self.place(offset)
        return self.records[place : min(place + most, self.n_written)]


class Broker:
    """The logs, and one consumer group."""

    def __init__(self, logs: Mapping[Partition, Sequence[Record]], rng: Random, fault_plan: FaultPlan) -> None:
        self.logs = {partition: PartitionLog(records) for partition, records in logs.items()}
        self.members: list[MemberSource] = []
        self.owner: dict[Partition, MemberSource | None] = dict.fromkeys(logs)
        self.committed: dict[Partition, int] = {}
        self.lost: dict[Partition, list[tuple[int, int]]] = {partition: [] for partition in logs}
        """Gaps that were told, as [from, to)."""
        self.counts: Counter[str] = Counter()
        self.tell: Callable[[str], None] | None = None
        self.rng = rng
        self.fault_plan = fault_plan

    def join(self, member: MemberSource) -> None:
        self.members.append(member)
        self.rebalance()

    def leave(self, member: MemberSource) -> None:
        """A member said goodbye, or was not heard for a session."""
        if member in self.members:
            self.members.remove(member)
            self.rebalance()

    def rebalance(self) -> None:
        """Give every partition to some member, and let the members hear of it, each in its own time."""
        self.counts["rebalances"] += 1
        rng, before = self.rng, dict(self.owner)
        for partition in self.owner:
            self.owner[partition] = rng.choice(self.members) if self.members else None
        if self.tell is not None:
            self.tell("broker: rebalance " + str({str(p): str(owner) for p, owner in self.owner.items()}))
        is_eager = rng.random() < 0.6
        for member in self._concerned(before):
            had = [p for p, owner in before.items() if owner is member]
            has = [p for p, owner in self.owner.items() if owner is member]
            stays = [] if is_eager else [p for p in has if p in had]
            member.hear(
                tuple(p for p in had if p not in stays),
                tuple(p for p in has if p not in stays),
            )

    def _concerned(self, before: dict[Partition, MemberSource | None]) -> list[MemberSource]:
        concerned = list(self.members)
        concerned += [owner for owner in before.values() if owner is not None and owner not in concerned]
        return list(dict.fromkeys(concerned))

    def write(self, partition: Partition, n: int) -> None:
        log = self.logs[partition]
        log.n_written = min(log.n_written + n, len(log.records))

    def remove_before(self, partition: Partition, offset: int) -> None:
        """Retention."""
        log = self.logs[partition]
        if offset > log.first_kept:
            log.first_kept = min(offset, log.end)
            self.counts["retention"] += 1
            if self.tell is not None:
                self.tell(f"broker: {partition} now begins at {log.first_kept}")


class MemberSource:
    """A member of the group, as one process sees it. A `Source`."""

    is_exhausted = False

    def __init__(self, broker: Broker, process: Process) -> None:
        self._broker = broker
        self._process = process
        self._rng = broker.rng
        self._news: deque[tuple[float, Event]] = deque()
        self._assigned: dict[Partition, None] = {}
        self._expected: dict[Partition, int] = {}
        self._fetched: dict[Partition, Sequence[Record]] = {}
        self._is_paused = False

    def __str__(self) -> str:
        return self._process.name

    # ------------------------------------------------------------------ what the group says

    def hear(self, revoked: tuple[Partition, ...], assigned: tuple[Partition, ...]) -> None:
        """Be told of a rebalance, later."""
        at_s = max(self._now_s(), self._news[-1][0] if self._news else 0.0)
        if revoked:
            at_s += self._rng.random() * self._broker.fault_plan.news_s
            self._news.append((at_s, Revoked(revoked)))
        if assigned:
            at_s += self._rng.random() * self._broker.fault_plan.news_s
            self._news.append((at_s, Assigned(assigned)))

    def _read_news(self) -> list[Event]:
        events: list[Event] = []
        while self._news and self._news[0][0] <= self._now_s():
            _, event = self._news.popleft()
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
        """The callback's moment: the partition is paused, and what was fetched of it is worth nothing."""
        self._fetched.pop(partition, None)

    # ------------------------------------------------------------------ Source

    async def poll(self) -> Sequence[Event]:
        plan = self._broker.fault_plan
        await self._process.pause(self._rng.random() * 0.05)
        events = self._read_news()
        if not events and self._rng.random() < plan.replaced and self._assigned:
            return self._replace_consumer()
        if not self._is_paused:
            for partition in self._handing_out():
                if self._rng.random() >= plan.silent_poll:
                    events += self._some_of(partition)
        if not events:
            await self._process.pause(self._rng.random() * IDLE_S)
        if self._broker.tell is not None:
            for event in events:
                said = f"{event.partition} {event.offsets.tolist()}" if isinstance(event, RecordBatch) else str(event)
                self._broker.tell(f"{self}: {said}")
        return events

    def _handing_out(self) -> list[Partition]:
        ours = [partition for partition in self._assigned if partition in self._expected]
        self._rng.shuffle(ours)
        return ours

    def _some_of(self, partition: Partition) -> list[Event]:
        """The rest of what was fetched, or a new fetch: it stays good when retention comes, or another owner."""
        log, most = self._broker.logs[partition], self._broker.fault_plan.most_records
        events: list[Event] = []
        if not self._fetched.get(partition):
            at = self._expected[partition]
            if at < log.first_kept:
                self._broker.lost[partition].append((at, log.first_kept))
                self._broker.counts["gaps told"] += 1
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
        """It was bricked: a new object takes its place in the group, and is given what the group says."""
        self._broker.counts["consumers replaced"] += 1
        ours = tuple(self._assigned)
        self._assigned.clear()
        self._expected.clear()
        self._fetched.clear()
        self._news.clear()
        has = tuple(p for p, owner in self._broker.owner.items() if owner is self)
        self.hear((), has)
        return [Revoked(ours)]

    async def first_offset(self, partition: Partition, start: str) -> int:
        assert start == "earliest"
        await self._process.pause(self._rng.random() * 0.05)
        if self._rng.random() < self._broker.fault_plan.broker_unavailable:
            self._broker.counts["broker away"] += 1
            raise SourceUnavailable("simulated")
        return self._broker.logs[partition].first_kept

    def seek(self, partition: Partition, offset: int) -> None:
        if self._broker.tell is not None:
            self._broker.tell(f"{self}: seek {partition} to {offset}, assigned {list(map(str, self._assigned))}")
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
