"""The pipeline, from a record in Kafka to rows in the database. Read this file first.

    source → decode → window → score → decide → commit

Input: events of a source. Output: one transaction per batch. Invariant: the *next offset* of a partition in our
database is the truth. It moves in the transaction of the results, only for the owner of the partition's epoch, and only
from the value that this owner read. So a kill at any point loses no result and stores none twice.

One task handles one event after the other:

- *assigned*: claim the partition in the database under a new epoch, which fences the former owner. Read again from the
  *rewind offset*, the oldest record that an asset's unfinished windows need. Records below the next offset only
  rebuild windows, which must then have the digest that was stored with them (`recovery.py`).
- *batch*: all stages, then one commit.
- *gap*: retention deleted records. Continue behind them, with an alert of class `data`.
- *revoked*: drop the state of the partition.

Four things interrupt a batch, and none of them commits a part of it:

- An *outage* of the database, the broker or a checkpoint: keep the batch, pause the source, retry (`reader.py`).
- *Fenced*: another daemon claimed the partition, or stored other sensors. Claim it again while the group assigns it.
- *ModelsChanged*: another daemon activated a model version. Load it, claim again, and so score the batch again.
- *SensorsChanged*: a record has a new sensor, and no model exists yet, or a new model knows further sensors. Claim
  again, with windows of the longer list: the records that they need are read again.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from monitor import logs, metrics
from monitor.errors import Fenced, ModelsChanged, SensorsChanged
from monitor.kafka import Assigned, Gap, Revoked
from monitor.store import partitions
from monitor.stream.hooks import PipelineHooks
from monitor.stream.outcome import BatchOutcome, QuarantineShare
from monitor.stream.partition import PartitionState
from monitor.stream.readability import Readability
from monitor.stream.reader import SourceReader
from monitor.stream.registrar import Registrar
from monitor.stream.score import BatchGate
from monitor.stream.shard import AdmittedReadings
from monitor.timing import Timing
from monitor.types import RecordBatch

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator, Sequence

    from monitor.clock import Clock
    from monitor.config import Config
    from monitor.kafka import Source
    from monitor.kafka.schema_registry import SchemaRegistry
    from monitor.store.engine import AsyncStore
    from monitor.store.outbox import Channel
    from monitor.stream.score import Scorer
    from monitor.types import Partition

log = logs.get("pipeline")

CRASHES = 3
"""Crashes in a row, of owners that committed nothing, that are still taken for chance."""


class Pipeline:
    """All stages between a source and a store. `run` returns after `stop`, or when the source is exhausted."""

    def __init__(
        self,
        config: Config,
        source: Source,
        store: AsyncStore,
        scorer: Scorer,
        *,
        owner: str,
        clock: Clock,
        channels: Sequence[Channel] = (),
        reload_models: Callable[[], Awaitable[None]] | None = None,
        schemas: SchemaRegistry | None = None,
        gate: BatchGate | None = None,
        hooks: PipelineHooks | None = None,
        timing: Timing | None = None,
    ) -> None:
        """`owner`: name of this process in the claims. `channels`: receivers of notifications about alerts.

        `reload_models`: load the versions that another daemon activated into the scorer. `schemas`: the registry that
        records name.
        """
        self.config = config
        self.source = source
        self.store = store
        self.scorer = scorer
        self.owner = owner
        self.clock = clock
        self.channels = channels
        self.reload_models = reload_models
        self.schemas = schemas
        self.gate = gate or BatchGate()
        self.hooks = hooks or PipelineHooks()
        self.timing = timing or Timing()
        self.partitions: dict[Partition, PartitionState] = {}
        self.in_hand_since_s: float | None = None
        """Start of the batch in hand, in the clock's monotonic seconds. None = no batch."""
        self._stopping = asyncio.Event()
        self.reader = SourceReader(source, clock, self.timing, self._stopping)
        self.registrar = Registrar(config, store, self.reader, is_limited=self.hooks.enforces_limits)
        self._quarantine_share = QuarantineShare(config.kafka.max_quarantine_share)
        self.readability = Readability(config)
        self._unscored: dict[str, str | None] = {}
        """By fleet, the reason why its latest windows have no score. None = they are scored."""
        self._lag_committed_s = 0.0
        self._sensors_read_s = -1e18

    # ------------------------------------------------------------------ events

    async def run(self) -> None:
        """Process events until told to stop. The batch in hand is finished, and no other one is begun."""
        self.gate.is_running = True
        await self.registrar.load_sensors()
        while not self._stopping.is_set() and not self.source.is_exhausted:
            await self.reader.poll()
            while not self._stopping.is_set() and (event := self.reader.next_event()) is not None:
                await self._handle_event(event)

    def stop(self) -> None:
        """Finish the batch in hand, then let `run` return."""
        self._stopping.set()

    @property
    def unscored(self) -> list[str]:
        """Fleets whose latest windows have no score."""
        return [fleet for fleet, reason in self._unscored.items() if reason is not None]

    async def _handle_event(self, event: Assigned | Revoked | Gap | RecordBatch) -> None:
        async with self.gate.exclusive():
            if self.gate.may_have_new_sensors:
                self.gate.may_have_new_sensors = False
                await self.registrar.load_sensors(self.partitions.values())
            match event:
                case Assigned(partitions=assigned):
                    for partition in assigned:
                        await self._while_owner(partition, self._claim(partition))
                case Revoked(partitions=revoked):
                    for partition in revoked:
                        self.partitions.pop(partition, None)
                case Gap(partition=partition):
                    await self._while_owner(partition, self._skip_gap(event))
                case RecordBatch(partition=partition):
                    self.in_hand_since_s = self.clock.monotonic_s()
                    await self._while_owner(partition, self._process_batch(event))
                    self.in_hand_since_s = None

    # ------------------------------------------------------------------ a batch

    async def _process_batch(self, batch: RecordBatch) -> None:
        """Process the new records. Those below the next offset have been committed before, and only rebuild windows."""
        state = self.partitions.get(batch.partition)
        if state is None:
            return
        state.last_read_s = self.clock.monotonic_s()
        if self.schemas is not None:
            batch = await self.reader.call(self.schemas.complete, batch)
        if state.has_former_sensors:
            raise SensorsChanged("another partition, or a new model, has further sensors")
        if batch.offsets[0] < state.next_offset or not state.rebuild.is_done:
            batch = state.rebuild_windows(batch)
            if not len(batch):
                return
        for part in [batch] if state.n_claims <= CRASHES else self._single_records(state, batch):
            if not state.is_over:
                await self._process_part(state, part)

    async def _process_part(self, state: PartitionState, batch: RecordBatch) -> None:
        """Pass a batch through all stages, and commit the outcome in one transaction.

        1. Decode the records into readings, by fleet. Unreadable records go to quarantine.
        2. Register new assets of each fleet, up to its limit. Those of another partition go to quarantine.
        3. Add the readings to the windows of the shard, score the finished ones, decide on alerts.
        4. Update the alerts about lost and rejected records. Stop if too many records are unreadable.
        5. Commit results, alerts, notifications, quarantine and the offset.
        """
        state.recovery.remember(int(batch.offsets[0]), state.decoder.newest_stamp_us)
        decoded = state.decoder.decode(batch)
        if state.decoder.learnt or self.registrar.unstored:
            await self._learn_sensors(state)
        if any(notice.kind == "new_sensor" for notice in decoded.notices):
            await self._look_for_sensors(state)
        outcome = BatchOutcome(batch, decoded.quarantined, decoded.n_tombstones, self.registrar.unstored.copy())
        for of_fleet in decoded.readings:
            readings = self.hooks.select(state, of_fleet)
            if not len(readings.offset):
                continue
            shard = state.shards.get(readings.fleet) or state.begin_shard(readings.fleet)
            admitted = AdmittedReadings(readings)
            if shard.has_new_assets:
                admitted = await self.registrar.admit(shard, readings, state.partition)
            result = await shard.process(admitted, partial(self.reader.call, self.scorer.score))
            outcome.results.append(result)
            if result.quarantined:
                outcome.quarantine(result.quarantined)
            if any(reason != self._unscored.get(readings.fleet) for reason in result.unscored_reasons):
                self._report_unscored(readings.fleet, result.unscored_reasons)
        outcome.data_alerts = state.take_sensor_alerts(outcome.results) + state.data_alerts.update(
            outcome.results, batch, state.shards, quarantined=outcome.quarantined, notices=decoded.notices
        )
        if self.hooks.enforces_limits:
            self._quarantine_share.check(outcome)
        await self._commit(state, outcome)

    async def _commit(self, state: PartitionState, outcome: BatchOutcome) -> None:
        log_end = self.source.end_offset(state.partition)
        commit = outcome.commit(self.config.kafka.group, state, self.clock, log_end=log_end, channels=self.channels)
        began_s = self.clock.monotonic_s()
        saved = await self.reader.call(self.store.save, commit)
        outcome.report(commit, self.clock, took_s=self.clock.monotonic_s() - began_s)
        if saved.was_done:
            metrics.commits_found_done.inc()
            log.warning(
                "commit_resolved",
                partition=str(state.partition),
                next_offset=commit.new_next,
                meaning="the answer to a COMMIT was lost; it had succeeded, and was not repeated",
            )
        state.advance(commit)
        self._quarantine_share.committed()
        self.readability.committed(outcome)
        self.registrar.stored(outcome.learnt)
        state.is_over = not self.hooks.on_commit(state, commit, outcome.batch)
        if state.is_over and all(each.is_over for each in self.partitions.values()):
            self.stop()
        if (now_s := self.clock.monotonic_s()) - self._lag_committed_s >= self.timing.lag_commit_every_s:
            self._lag_committed_s = now_s
            self.source.commit_lag({partition: each.next_offset for partition, each in self.partitions.items()})

    def _single_records(self, state: PartitionState, batch: RecordBatch) -> Iterator[RecordBatch]:
        """Yield the batch record by record: several owners in a row ended without a commit.

        So all records before one that kills the process are committed, and the next start logs its offset. No record is
        skipped: the crashes may be chance, and the next start may have a larger machine.
        """
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

    async def _learn_sensors(self, state: PartitionState) -> None:
        """Share sensors that the partition's decoder learnt with the other partitions, and begin their shards."""
        await self.registrar.learn(state, self.partitions.values())
        for fleet, sensors in self.registrar.unstored.items():
            if fleet not in state.shards:
                state.begin_shard(fleet)
            log.info("sensors_learnt", fleet=fleet, sensors=list(sensors))

    async def _look_for_sensors(self, state: PartitionState) -> None:
        """Begin the shards again if a training has added the new sensors to the list."""
        if (now_s := self.clock.monotonic_s()) - self._sensors_read_s >= self.timing.sensors_read_every_s:
            self._sensors_read_s = now_s
            await self.registrar.load_sensors(self.partitions.values())
            if state.has_former_sensors:
                raise SensorsChanged("a training has learnt further sensors")

    def _report_unscored(self, fleet: str, reasons: Sequence[str | None]) -> None:
        """Log a reason once, when it changes: windows without a score are many."""
        for reason in reasons:
            if reason != self._unscored.get(fleet):
                self._unscored[fleet] = reason
                if reason is not None:
                    log.warning("unscored", fleet=fleet, reason=reason)

    # ------------------------------------------------------------------ a partition

    async def _claim(self, partition: Partition) -> None:
        """Claim a partition in the database, and begin to read at its rewind offset."""
        group, start = self.config.kafka.group, self.config.kafka.start
        claim = await self.reader.call(self.store.run, partitions.claim, group, partition, self.owner)
        if claim.next_offset is None:
            first = await self.reader.call(self.source.first_offset, partition, start)
            await self.reader.call(self.store.run, partitions.set_start, group, partition, claim.epoch, first)
            claim = replace(claim, next_offset=first, rewind_offset=first)
        known = await self.registrar.known_assets(partition)
        # Sensors that another daemon has learnt since our start must be known before its records are read again.
        await self.registrar.load_sensors(self.partitions.values())
        schemas, make_decider = self.registrar.schemas, self.hooks.make_decider
        state = PartitionState(partition, claim, known, self.config, schemas, self.timing, make_decider)
        state.last_read_s = self.clock.monotonic_s()
        self.partitions[partition] = state
        self.reader.discard_batches(partition)
        self.source.seek(partition, state.recovery.oldest.offset)
        metrics.claims.inc()
        log.info(
            "partition_claimed",
            partition=str(partition),
            epoch=state.epoch,
            next_offset=state.next_offset,
            rebuild_from=state.recovery.oldest.offset,
        )

    async def _skip_gap(self, gap: Gap) -> None:
        """Continue behind records that retention removed."""
        state = self.partitions.get(gap.partition)
        if state is None:
            return
        state.rebuild.skip_check()
        facts = {"partition": str(gap.partition), "from_offset": gap.from_offset, "to_offset": gap.to_offset}
        if gap.to_offset <= state.next_offset:
            why = "retention removed records that were read before; windows unfinished at the restart have holes"
            log.warning("rebuild_incomplete", **facts, meaning=why)
            return
        why = "retention removed them before they were read; windows there have holes"
        log.error("records_lost", **facts, meaning=why)
        group, now_us = self.config.kafka.group, self.clock.now_us()
        commit = state.gap_commit(group, gap.to_offset, at_us=now_us, channels=self.channels)
        await self.reader.call(self.store.save, commit)
        metrics.count_alerts(commit.data_alerts)
        metrics.gaps.inc()
        metrics.gap_records.inc(commit.new_next - commit.old_next)
        state.advance(commit)
        state.rebuild.end(state.next_offset, state.shards)  # the records that it would read again are gone

    async def _while_owner(self, partition: Partition, work: Awaitable[None]) -> None:
        """Do the work. If another owner claimed the partition, drop our state, and claim it again while it is ours."""
        while True:
            try:
                return await work
            except ModelsChanged as error:
                log.info("scoring_again", partition=str(partition), why=error.detail)
                metrics.rescored_batches.inc()
                self.partitions.pop(partition, None)
                if self.reload_models is not None:
                    await self.reader.call(self.reload_models)
                work = self._claim(partition)
                continue
            except SensorsChanged as error:
                log.info("sensors_changed", partition=str(partition), why=error.detail, doing="claiming it again")
                self.partitions.pop(partition, None)
                work = self._claim(partition)
                continue
            except Fenced as error:
                log.warning("fenced", partition=str(partition), detail=error.detail)
                metrics.fenced.inc()
            self.partitions.pop(partition, None)
            await self.clock.sleep(self.timing.fenced_wait_s)
            await self.reader.poll()
            if self.reader.is_revoked(partition) or self._stopping.is_set():
                return None
            # If another daemon set the sensors of a fleet, every shard begins again with those. This partition is the
            # last: its claim may be fenced again, and the next attempt finds no change that it would repeat.
            others = sorted(self.partitions) if await self.registrar.load_sensors() else []
            work = self._claim_all([*others, partition])

    async def _claim_all(self, ours: Sequence[Partition]) -> None:
        for partition in ours:
            await self._claim(partition)
