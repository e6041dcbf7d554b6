"""The river, whole: from a record in Kafka to rows in the database. Read this first.

    source → decode → window → score → decide → save

One task runs it. A partition goes through four moments: it is *assigned* and claimed in the database under a new
epoch; it is *rebuilt* by reading again from the rewind offset, which fills the windows and emits nothing; it *flows*,
one transaction per batch; it is *revoked* and forgotten. The truth is the offset in our database: it moves in the
same transaction as the results, only for the owner of the epoch, and only from where it stood. So a kill at any point
loses nothing and doubles nothing.
"""

from __future__ import annotations

import asyncio
from collections import deque
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from monitor import logs, metrics
from monitor.decode import AssetIndex
from monitor.errors import TRANSIENT_ERRORS, Fenced, ModelsChanged, QuarantineLimit, dependency_of
from monitor.kafka import Assigned, Gap, Revoked
from monitor.store import assets, partitions
from monitor.stream import rebuild, recovery
from monitor.stream.outcome import Step, gap_commit
from monitor.stream.recovery import Rewind
from monitor.stream.shard import Lane, PartitionState, decoder_for, in_slices, schemas_of, without
from monitor.stream.window import NEVER
from monitor.types import AlertState, RecordBatch

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Sequence

    from monitor.clock import Clock
    from monitor.config import Config
    from monitor.decode import FleetSchema
    from monitor.errors import MonitorError
    from monitor.kafka import Event, Source
    from monitor.store.assets import KnownAsset
    from monitor.store.commit import Commit
    from monitor.store.engine import AsyncStore
    from monitor.store.outbox import Channel
    from monitor.stream.score import Scorer
    from monitor.types import DataAlertChange, Int32, Partition, Readings, Scores

log = logs.get("pipeline")
T = TypeVar("T")

FENCED_WAIT_S = 6.0
"""Two heartbeats: time for the group to say whose partition it is."""
CRASHES = 3
"""Claims in a row without a save that may be chance."""
MARK_EVERY_S = 1.0
"""How often Kafka hears how far we are."""
LIMIT_WINDOW = 10_000
"""Records over which the share of quarantined ones is judged …"""
LIMIT_STEP = 100
"""Smaller batches are counted together."""
LIMIT_MINIMUM = 1_000
"""… and how many there must be before it is."""
HARMLESS = (
    "no_fleet:",
    "late:",
    "wrong_partition:",
    "too_many_assets:",
    "too_many_new_assets:",
    "too_large_batch:",
    "corrupt_batch:",
)
"""Reasons that say nothing about the format: a shared topic, a gateway that sends its backlog, a key that moved, a
producer that invents names, one that sends bombs: they must not stop the assets that are real."""


class Pipeline:
    """Everything between a source and a store. `run` returns after `stop`, or when the source is exhausted."""

    def __init__(
        self, config: Config, source: Source, store: AsyncStore, scorer: Scorer, *, owner: str, clock: Clock
    ) -> None:
        self.config = config
        self.source = source
        self.store = store
        self.scorer = scorer
        self.owner = owner
        self.clock = clock
        self.schemas = schemas_of(config)
        self.partitions: dict[Partition, PartitionState] = {}
        self.reload_models: Callable[[], Awaitable[None]] | None = None
        """Brings the scorer up to what the database says, when another daemon activated a version."""
        self.limits_assets = True
        """Whether `max_assets` and `max_new_assets_per_min` count. Not where it is known whom live let in."""
        self.channels: Sequence[Channel] = ()
        """Who is told of alerts. A replay tells nobody."""
        self.in_hand_since_s: float | None = None
        """When the batch in hand was taken, by the clock's monotonic seconds; None = none is."""
        self.waits_for: MonitorError | None = None
        """What keeps the batch in hand; waiting helps."""
        self._fleets = {fleet.name: fleet for fleet in config.fleets}
        self._sensors_saved: set[str] = set()
        """Fleets whose sensors are listed in the configuration, or known to the database."""
        self._unscored: dict[str, str | None] = {}
        """Why windows of a fleet have no score, as said last."""
        self._backlog: deque[Event] = deque()
        self._gate = asyncio.Lock()
        self._stopping = asyncio.Event()
        self._marked_at = 0.0
        self._recent_records: deque[tuple[int, int]] = deque()
        """(records, quarantined) of the latest batches."""

    # ------------------------------------------------------------------ the story

    async def run(self) -> None:
        """Move records until told to stop. What is in hand is finished, nothing new is taken."""
        await self._recall_sensors()
        while not self._stopping.is_set() and not self.source.is_exhausted:
            self._backlog.extend(await self.source.poll())
            while self._backlog and not self._stopping.is_set():
                await self._meet(self._backlog.popleft())

    async def _meet(self, event: Event) -> None:
        async with self._gate:
            match event:
                case Assigned(partitions=ours):
                    for partition in ours:
                        await self._claim(partition)
                case Revoked(partitions=lost):
                    for partition in lost:
                        self.partitions.pop(partition, None)
                case Gap(partition=partition):
                    await self._unless_fenced(partition, self._step_over(event))
                case RecordBatch(partition=partition):
                    self.in_hand_since_s = self.clock.monotonic_s()
                    await self._unless_fenced(partition, self._take(event))
                    self.in_hand_since_s = None

    async def _take(self, batch: RecordBatch) -> None:
        """A batch may begin below the next offset: that part was saved before, and only fills the windows again."""
        state = self.partitions.get(batch.partition)
        if state is None:
            return
        n_saved = int(np.searchsorted(batch.offsets, state.next_offset))
        if n_saved:
            rebuild.take(state, batch.rows(slice(0, n_saved)))
        if n_saved < len(batch):
            rebuild.end(state)
            for part in self._portions(state, batch.rows(slice(n_saved, None))):
                await self._advance(state, part)

    def _portions(self, state: PartitionState, batch: RecordBatch) -> Iterator[RecordBatch]:
        """Yield the batch; record by record where one owner after the other ended without a save, so that the partition
        comes to a record that kills the process and names it. Nothing is left out: it may be chance, and the next start
        a larger machine.
        """
        if state.n_claims <= CRASHES:
            yield batch
            return
        log.warning(
            "crash_loop",
            partition=str(state.partition),
            from_offset=state.next_offset,
            to_offset=batch.next_offset,
            claims=state.n_claims,
            doing="one record at a time: one that kills the process is where the next start begins",
        )
        for row in range(len(batch)):
            if not self._stopping.is_set():
                yield batch.rows(slice(row, row + 1))

    async def _advance(self, state: PartitionState, batch: RecordBatch) -> None:
        """One batch through the river, and one transaction."""
        state.rewind.mark(int(batch.offsets[0]), state.lanes)
        step = Step(batch)
        for readings in self._decode(state, batch, step):
            lane = self._lane(state, readings.fleet)
            ours = await self._at_home(state, lane, readings, step)
            step.data_alerts += state.data_alerts.limit(lane, step.kept_out.get(readings.fleet, {}), ours, batch)
            for part in in_slices(ours):
                pushed = lane.windower.push(part)
                lane.newest_offset = int(part.offset[-1]) if len(part) else lane.newest_offset
                ends = lane.end_us(pushed.windows.start)
                scores = await self._persist(self.scorer.score, pushed.windows, ends, lane.sensors)
                self._say_if_unscored(readings.fleet, scores)
                changes = lane.decider.decide(scores, ends)
                step.add(lane, part, pushed, scores, changes)
        step.data_alerts += state.data_alerts.go_on(batch, self._fleets)
        recent = self._judge_quarantine(step)
        await self._save(state, step)
        self._recent_records = recent

    def stop(self) -> None:
        """Finish the batch in hand, then let `run` return."""
        self._stopping.set()

    @asynccontextmanager
    async def between_batches(self) -> AsyncIterator[None]:
        """Hold the river between two batches: models change hands here, so that no window sees half of a change."""
        async with self._gate:
            yield

    @property
    def unscored(self) -> list[str]:
        """Fleets whose latest windows have no score."""
        return [fleet for fleet, reason in self._unscored.items() if reason is not None]

    def _say_if_unscored(self, fleet: str, scores: Scores) -> None:
        """Once per change: a reason is news, a window without a score is not."""
        if len(scores.windows) and scores.unscored_reason != self._unscored.get(fleet):
            self._unscored[fleet] = scores.unscored_reason
            if scores.unscored_reason is not None:
                log.warning("unscored", fleet=fleet, reason=scores.unscored_reason)

    # ------------------------------------------------------------------ decode

    def _decode(self, state: PartitionState, batch: RecordBatch, step: Step) -> list[Readings]:
        decoded = state.decoder.decode(batch)
        for schema in self.schemas:
            if schema.sensors is not None and schema.name not in self._sensors_saved:
                step.learnt[schema.name] = schema.sensors
                self._lane(state, schema.name)
                log.info("sensors_learnt", fleet=schema.name, sensors=list(schema.sensors))
        step.reject(decoded.quarantined)
        step.counters.tombstones = decoded.n_tombstones
        return [readings for readings in decoded.readings if len(readings)]

    async def _at_home(self, state: PartitionState, lane: Lane, readings: Readings, step: Step) -> Readings:
        """Register new assets that are let in; keep out the others, and those that another partition speaks for."""
        since: dict[str, int] = {}
        admission = state.decoder.admissions.get(readings.fleet)
        if admission is not None and admission.is_asked:
            names = admission.strangers()
            homes = await self._persist(self.store.read, assets.find, readings.fleet, names) if names else {}
            elsewhere = admission.live_elsewhere([n for n, home in homes.items() if home.partition != state.partition])
            step.refuse_assets(lane, readings, elsewhere)
            readings, since, reasons = admission.let_in(without(readings, elsewhere), step.batch)
            step.keep_out(readings.fleet, reasons)
        new = lane.assets.names[len(lane.ids) :]
        if new:
            work = (assets.register, readings.fleet, new, state.partition, frozenset(since))
            homes = await self._persist(self.store.run, *work)
            ids = [homes[name].id if homes[name].partition == state.partition else -1 for name in new]
            lane.ids = np.concatenate((lane.ids, np.array(ids, dtype=np.int32)))
            lane.since = np.concatenate((lane.since, np.zeros(len(new), dtype=np.int64)))
        step.let_in(lane, lane.let_in(since))
        foreign: Int32 = np.flatnonzero(lane.ids < 0).astype(np.int32)
        if not len(foreign):
            return readings
        step.refuse_assets(lane, readings, foreign)
        return without(readings, foreign)

    def _judge_quarantine(self, step: Step) -> deque[tuple[int, int]]:
        """Stop where too many cannot be read. Return what to remember once the batch is saved: it may come again."""
        recent = deque(self._recent_records)
        n, n_bad = len(step.batch), step.count_bad(HARMLESS)
        is_suspect = n_bad > 0
        if recent and recent[-1][0] < LIMIT_STEP:
            before, bad_before = recent.pop()
            n, n_bad = n + before, n_bad + bad_before
        recent.append((n, n_bad))
        while sum(n for n, _ in recent) - recent[0][0] >= LIMIT_WINDOW:
            recent.popleft()
        total, n_bad = (sum(column) for column in zip(*recent, strict=True))
        if is_suspect and total >= LIMIT_MINIMUM and n_bad > self.config.kafka.max_quarantine_share * total:
            raise QuarantineLimit(
                f"{n_bad} of the last {total} records, most recently {step.batch.partition} offset "
                f"{step.quarantined[-1].offset}: {step.quarantined[-1].reason}. Nothing of this batch was saved. "
                "Correct [kafka] format or the fleet's settings, or raise [kafka] max_quarantine_share"
            )
        return recent

    # ------------------------------------------------------------------ save

    async def _save(self, state: PartitionState, step: Step) -> None:
        commit = step.commit(
            self.config.kafka.group,
            state,
            at_us=self.clock.now_us(),
            log_end=self.source.end_offset(state.partition),
            snapshots=state.rewind.look(step.batch.next_offset, state.lanes, self.clock),
            channels=self.channels,
        )
        began_s = self.clock.monotonic_s()
        saved = await self._persist(self.store.save, commit)
        self._count(step, commit, took_s=self.clock.monotonic_s() - began_s)
        _say_of_data(commit.data_alerts)
        if saved.was_done:
            metrics.commits_found_done.inc()
            log.warning(
                "commit_resolved",
                partition=str(state.partition),
                next_offset=commit.new_next,
                meaning="the answer to a COMMIT was lost; it had succeeded, and was not repeated",
            )
        state.next_offset, state.n_claims = commit.new_next, 0
        state.counters = commit.counters
        self._sensors_saved.update(step.learnt)
        now = self.clock.monotonic_s()
        if now - self._marked_at >= MARK_EVERY_S:
            self._marked_at = now
            self.source.commit_lag({partition: each.next_offset for partition, each in self.partitions.items()})

    def _count(self, step: Step, commit: Commit, took_s: float) -> None:
        oldest_us = int(step.batch.timestamps_us[0])
        metrics.count_saved(
            step.counters,
            (*(change for rows in commit.fleets for change in rows.alerts), *commit.data_alerts),
            took_s=took_s,
            latency_s=max(0, self.clock.now_us() - oldest_us) / 1e6 if oldest_us > 0 else None,
        )

    async def _persist(self, work: Callable[..., Awaitable[T]], /, *args: object) -> T:
        """Do it, however long the other side is away: hold the batch, take no more, stay in the group.

        All partitions wait, also where only one fleet's checkpoint is away: half of the batch is in the windows, so to
        go on with another partition would mean to drop this one, claim it again and rebuild it at each try. And a
        folder that is away is away for every fleet.
        """
        away_since, what = None, ""
        try:
            while True:
                try:
                    done = await work(*args)
                except TRANSIENT_ERRORS as error:
                    if self._stopping.is_set():
                        raise
                    self.waits_for = error
                    if away_since is None:
                        away_since = self.clock.monotonic_s()
                        what = dependency_of(error)
                        log.warning(f"{what}_away", error=error.detail, doing="holding the batch, waiting")
                        self.source.pause()
                    self._backlog.extend(await self.source.poll())
                    await self.clock.sleep(0.5)
                else:
                    return done
        finally:  # also when it ends as Fenced: a source left held is silent for ever
            if away_since is not None:
                self.waits_for = None
                log.info(f"{what}_back", after_s=round(self.clock.monotonic_s() - away_since, 1))
                self.source.resume()

    # ------------------------------------------------------------------ claim, rebuild, lose

    async def _open(self, partition: Partition) -> None:
        """Claim a partition and begin at its rewind offset."""
        group, start = self.config.kafka.group, self.config.kafka.start
        claim = await self._persist(self.store.run, partitions.claim, group, partition, self.owner)
        if claim.next_offset is None:
            first = await self._persist(self.source.first_offset, partition, start)
            await self._persist(self.store.run, partitions.set_start, group, partition, claim.epoch, first)
            next_offset = rewind_offset = first
        else:
            next_offset, rewind_offset = claim.next_offset, claim.rewind_offset or 0
        known = await self._persist(self.store.read, assets.restore, partition)
        max_cell = claim.rewind_state.get("max_cell", {})
        indexes = {fleet: AssetIndex(asset.name for asset in of_fleet) for fleet, of_fleet in known.items()}
        decoder = decoder_for(self.config, self.schemas, indexes)
        if self.limits_assets:
            admitted = claim.rewind_state.get("admission", {})
            for schema in self.schemas:
                since = [asset.since_offset for asset in known.get(schema.name, [])]
                decoder.guard(schema.name, since, admitted.get(schema.name, ()), next_offset)
        # What another daemon learnt since we started must be known before its records fill our windows again.
        await self._recall_sensors(of_unknown=True)
        begins = Rewind(rewind_offset, max_cell)
        state = PartitionState(partition, claim.epoch, next_offset, begins, claim.counters, decoder)
        state.continue_from(claim)
        for schema in self.schemas:
            if schema.sensors is not None:
                self._add_lane(state, schema, known.get(schema.name, []), max_cell.get(schema.name, NEVER))
        for snapshot in claim.snapshots:
            if snapshot.fleet in state.lanes:
                recovery.restore(state.lanes[snapshot.fleet], snapshot)
        self.partitions[partition] = state
        # What was polled before this moment continues from somewhere else.
        self._backlog = deque(event for event in self._backlog if not _is_of(event, partition))
        self.source.seek(partition, rewind_offset)
        metrics.claims.inc()
        log.info(
            "partition_claimed",
            partition=str(partition),
            epoch=claim.epoch,
            next_offset=next_offset,
            rebuild_from=rewind_offset,
        )

    async def _step_over(self, gap: Gap) -> None:
        state = self.partitions.get(gap.partition)
        if state is None:
            return
        state.expected, state.is_excused = None, True  # a rebuild over a hole cannot find what was there
        facts = {"partition": str(gap.partition), "from_offset": gap.from_offset, "to_offset": gap.to_offset}
        if gap.to_offset <= state.next_offset:
            why = "retention removed records that were read before; windows unfinished at the restart have holes"
            log.warning("rebuild_incomplete", **facts, meaning=why)
        else:
            why = "retention removed them before they were read; windows there have holes"
            log.error("records_lost", **facts, meaning=why)
            group, now_us = self.config.kafka.group, self.clock.now_us()
            commit = gap_commit(group, state, gap.to_offset, at_us=now_us, channels=self.channels)
            await self._persist(self.store.save, commit)
            metrics.count_alerts(commit.data_alerts)
            metrics.gaps.inc()
            metrics.gap_records.inc(gap.to_offset - state.next_offset)
            state.next_offset, state.n_claims = gap.to_offset, 0
            rebuild.end(state)  # nothing is left of what it would read again

    async def _claim(self, partition: Partition) -> None:
        await self._unless_fenced(partition, self._open(partition))

    async def _unless_fenced(self, partition: Partition, work: Awaitable[None]) -> None:
        """Do it. If another owner took the partition: forget what we hold, and claim it again while it is ours."""
        while True:
            try:
                return await work
            except ModelsChanged as error:
                log.info("scoring_again", partition=str(partition), why=error.detail)
                metrics.rescored_batches.inc()
                self.partitions.pop(partition, None)
                if self.reload_models is not None:
                    await self._persist(self.reload_models)
                work = self._open(partition)
                continue
            except Fenced as error:
                log.warning("fenced", partition=str(partition), detail=error.detail)
                metrics.fenced.inc()
            self.partitions.pop(partition, None)
            await self.clock.sleep(FENCED_WAIT_S)
            self._backlog.extend(await self.source.poll())
            is_lost = any(isinstance(event, Revoked) and partition in event.partitions for event in self._backlog)
            if is_lost or self._stopping.is_set():
                return None
            # If somebody else taught a fleet its sensors, every lane begins again with those.
            ours = {*self.partitions, partition} if await self._recall_sensors() else {partition}
            work = self._open_all(sorted(ours))

    async def _open_all(self, ours: list[Partition]) -> None:
        for partition in ours:
            await self._open(partition)

    # ------------------------------------------------------------------ lanes

    def _lane(self, state: PartitionState, fleet: str) -> Lane:
        if fleet not in state.lanes:  # its sensors were learnt just now
            schema = next(schema for schema in self.schemas if schema.name == fleet)
            self._add_lane(state, schema, [], NEVER)
        return state.lanes[fleet]

    def _add_lane(self, state: PartitionState, schema: FleetSchema, known: list[KnownAsset], max_cell: int) -> None:
        index = state.decoder.assets[self.schemas.index(schema)]
        lane = state.lanes[schema.name] = Lane(self._fleets[schema.name], schema, index, self.config.kafka)
        is_other = state.is_reconfigured(schema.name)
        if is_other and known:  # else it has no past here
            log.info("reconfigured", fleet=schema.name, partition=str(state.partition), doing="new windows from here")
        # Cells of another interval are other numbers; the watermark comes back with the first readings.
        lane.resume(known, NEVER if is_other else max_cell)

    async def _recall_sensors(self, *, of_unknown: bool = False) -> bool:
        """Take the sensors that the database knows: learnt once, they hold for good. Return whether any changed.

        `of_unknown`: only for fleets of which we know none yet.
        """
        if of_unknown and all(schema.sensors is not None for schema in self.schemas):
            return False
        known = await self._persist(self.store.read, assets.fleets)
        changed = False
        for schema, fleet in zip(self.schemas, self.config.fleets, strict=True):
            if of_unknown and schema.sensors is not None:
                continue
            sensors = fleet.sensors or known.get(fleet.name)
            if sensors is not None:
                self._sensors_saved.add(fleet.name)
                changed |= schema.sensors != sensors
                schema.sensors = sensors
        return changed


def _say_of_data(changes: Iterable[DataAlertChange]) -> None:
    for change in changes:
        facts = {"partition": str(change.partition), "records": change.n_records}
        if change.is_transition and change.state is AlertState.CLOSED:
            log.info(f"{change.kind}_over", fleet=change.fleet, **facts)
        elif change.is_transition:
            log.warning(change.kind, fleet=change.fleet, **facts, meaning=change.message)


def _is_of(event: Event, partition: Partition) -> bool:
    return isinstance(event, RecordBatch) and event.partition == partition
