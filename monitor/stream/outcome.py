"""What a batch of records led to, gathered until one transaction takes it all.

Enters: what each stage made of the batch. Leaves: a `Commit`. The law: every record of the batch is counted under
exactly one of accepted, quarantined, late, duplicate, tombstones.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, field, replace
from operator import attrgetter
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from monitor.store.commit import Commit, FleetRows, MissingRange
from monitor.types import SAMPLE_BYTES, Counters, Quarantined, Verdict

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from monitor.store.commit import Snapshot
    from monitor.store.outbox import Channel
    from monitor.stream.shard import Lane, PartitionState
    from monitor.stream.window import Pushed
    from monitor.types import AlertChange, DataAlertChange, Int32, Int64, Readings, RecordBatch, Scores

T = TypeVar("T", bound=np.generic)

ROWS_KEPT = 10_000
"""Rows in quarantine that each partition and reason has before they are thinned out …"""
ROWS_SAMPLED = 100
"""… to one in so many."""


@dataclass(slots=True)
class _LaneRows:
    scores: list[Scores] = field(default_factory=list)
    alerts: list[AlertChange] = field(default_factory=list)
    let_in: dict[int, int] = field(default_factory=dict)


class Step:
    """One batch of one partition on its way through the river."""

    def __init__(self, batch: RecordBatch) -> None:
        self.batch = batch
        self.quarantined: list[Quarantined] = []
        self.kept_out: dict[str, dict[int, str]] = {}
        """By fleet: offset → why this record's asset was not let in."""
        self.data_alerts: list[DataAlertChange] = []
        self.learnt: dict[str, tuple[str, ...]] = {}
        self.counters = Counters(records=len(batch))
        self._rows: dict[str, _LaneRows] = {}
        self._useless: dict[int, int] = defaultdict(int)
        """Offset → readings of that record which were duplicates."""
        self._readings_of: dict[int, int] = defaultdict(int)
        """The same for all its readings; kept for records that had a duplicate, and for those at the ends of slices."""
        self._late: set[int] = set()

    def reject(self, records: Iterable[Quarantined]) -> None:
        """Put records, or readings of them, into quarantine."""
        self.quarantined.extend(records)

    def keep_out(self, fleet: str, reasons: dict[int, str]) -> None:
        """Quarantine records of new assets; reasons: by offset."""
        self.kept_out[fleet] = reasons
        self.quarantined.extend(self._quarantine(offset, reason) for offset, reason in reasons.items())

    def let_in(self, lane: Lane, since: Mapping[int, int]) -> None:
        """Write down, with the rest, since which record new assets are in; since: by lane index."""
        if since:
            self._rows.setdefault(lane.config.name, _LaneRows()).let_in.update(since)

    def count_bad(self, harmless: tuple[str, ...]) -> int:
        """Count the records in quarantine for any other reason than these."""
        return len({record.offset for record in self.quarantined if not record.reason.startswith(harmless)})

    def refuse_assets(self, lane: Lane, readings: Readings, foreign: Int32) -> None:
        """Quarantine readings of assets whose home is another partition."""
        rows = np.flatnonzero(np.isin(readings.asset, foreign))
        for offset, asset in dict(
            zip(readings.offset[rows].tolist(), readings.asset[rows].tolist(), strict=True)
        ).items():
            name = lane.assets.names[asset]
            self.quarantined.append(
                self._quarantine(
                    offset,
                    f'wrong_partition: asset "{name}" is read from another partition; key its records by the asset, '
                    "so that all of them go to one partition",
                )
            )

    def add(
        self, lane: Lane, readings: Readings, pushed: Pushed, scores: Scores, changes: Iterable[AlertChange]
    ) -> None:
        """Take in what a slice of readings led to."""
        rows = self._rows.setdefault(readings.fleet, _LaneRows())
        rows.alerts.extend(changes)
        if len(scores.windows):
            rows.scores.append(scores)
        self.counters.readings += len(readings)
        self.counters.windows += len(scores.windows)
        self.counters.scored += int(np.count_nonzero(~np.isnan(scores.score)))
        if len(pushed.late):
            self._reject_late(lane, readings, pushed.late)
        if len(readings):
            self._count_duplicates(readings, pushed.duplicate)

    def commit(
        self,
        pipeline: str,
        state: PartitionState,
        *,
        at_us: int,
        log_end: int | None,
        snapshots: Sequence[Snapshot] = (),
        channels: Sequence[Channel] = (),
    ) -> Commit:
        """Close the account and make the transaction of it."""
        self._close_account()
        total = replace(state.counters)
        total.add(self.counters)
        in_order = sorted(self.quarantined, key=attrgetter("offset"))  # they came fleet by fleet, and slice by slice
        kept = list(_worth_a_row(in_order, state.counters.reasons))
        return Commit(
            pipeline=pipeline,
            partition=state.partition,
            epoch=state.epoch,
            old_next=state.next_offset,
            new_next=self.batch.next_offset,
            rewind_offset=state.rewind.offset,
            rewind_state=state.rewind_state(),
            digest=state.rewind.digest,
            snapshots=snapshots,
            counters=total,
            at_us=at_us,
            log_end=log_end,
            fleets=[self._fleet_rows(fleet, state.lanes[fleet]) for fleet in sorted(self._rows | self.learnt)],
            quarantined=kept,
            data_alerts=self.data_alerts,
            channels=channels,
        )

    # ------------------------------------------------------------------ inside

    def _fleet_rows(self, fleet: str, lane: Lane) -> FleetRows:
        rows = self._rows.get(fleet, _LaneRows())
        asset = _joined([scores.windows.asset for scores in rows.scores], np.int32)
        start = _joined([scores.windows.start for scores in rows.scores], np.int64)
        score = _joined([scores.score for scores in rows.scores], np.float32)
        verdict = np.where(score >= 1.0, Verdict.ANOMALOUS, Verdict.NORMAL)
        verdict[np.isnan(score)] = Verdict.UNSCORED
        return FleetRows(
            fleet=fleet,
            asset_ids=lane.ids,
            asset=asset,
            start_us=start * lane.config.interval_us,
            end_us=lane.end_us(start),
            score=score,
            verdict=verdict.astype(np.int8),
            version=[version for scores in rows.scores for version in scores.version],
            n_present=_joined([scores.windows.n_present for scores in rows.scores], np.int32),
            first_offset=_joined([scores.windows.first_offset for scores in rows.scores], np.int64),
            last_offset=_joined([scores.windows.last_offset for scores in rows.scores], np.int64),
            alerts=rows.alerts,
            sensors=self.learnt.get(fleet),
            recent=lane.decider.recent(asset),
            admitted=rows.let_in,
            activation_seq=min((seq for each in rows.scores if (seq := each.activation_seq) is not None), default=None),
        )

    def _reject_late(self, lane: Lane, readings: Readings, late: Int64) -> None:
        watermark = lane.windower.max_cell - lane.config.lateness_cells
        for row in late.tolist():
            offset = int(readings.offset[row])
            if offset in self._late:
                continue
            self._late.add(offset)
            behind_s = (watermark - int(readings.cell[row])) * lane.config.interval.total_seconds()
            self.quarantined.append(
                self._quarantine(
                    offset,
                    f"late: {lane.assets.names[readings.asset[row]]}'s reading came {behind_s:g} s behind the "
                    "watermark; raise the fleet's lateness "
                    f"(now {lane.config.lateness.total_seconds():g} s) if this is usual",
                )
            )

    def _count_duplicates(self, readings: Readings, duplicate: Int64) -> None:
        for offset in readings.offset[duplicate].tolist():
            self._useless[offset] += 1
        # A block at either end of the slice may go on in another one, where none of it need be a duplicate.
        edges = {int(readings.offset[0]), int(readings.offset[-1])}
        touched = np.array(sorted(edges.union(readings.offset[duplicate].tolist())))
        counts = np.searchsorted(readings.offset, touched, "right") - np.searchsorted(readings.offset, touched)
        for offset, n in zip(touched.tolist(), counts.tolist(), strict=True):
            self._readings_of[offset] += n

    def _close_account(self) -> None:
        bad = {record.offset for record in self.quarantined} - self._late
        duplicate = {
            offset for offset, n in self._useless.items() if n == self._readings_of[offset] and offset not in self._late
        }
        duplicate -= bad
        counters = self.counters
        counters.quarantined, counters.late, counters.duplicate = len(bad), len(self._late - bad), len(duplicate)
        counters.accepted = (
            counters.records - counters.quarantined - counters.late - counters.duplicate - counters.tombstones
        )
        counters.reasons = dict(Counter(record.word for record in self.quarantined))

    def _quarantine(self, offset: int, reason: str) -> Quarantined:
        row = int(np.searchsorted(self.batch.offsets, offset))
        return Quarantined(
            partition=self.batch.partition,
            offset=offset,
            reason=reason,
            sample=(self.batch.values[row] or b"")[:SAMPLE_BYTES],
            at_us=max(int(self.batch.timestamps_us[row]), 0),
        )


def _worth_a_row(records: Iterable[Quarantined], before: Mapping[str, int]) -> Iterator[Quarantined]:
    """Keep of each partition and reason the first rows, then one in so many: a producer that sends nonsense for a week
    must not fill the disk. The counters count all of them; which rows are kept follows from the log alone.
    """
    counts = Counter(before)
    for record in records:
        counts[record.word] += 1
        if counts[record.word] <= ROWS_KEPT or counts[record.word] % ROWS_SAMPLED == 0:
            yield record


def gap_commit(
    pipeline: str, state: PartitionState, to_offset: int, *, at_us: int, channels: Sequence[Channel] = ()
) -> Commit:
    """Step over records that are gone: the offset moves, the gap is written down, people are told, and what is
    unfinished is written down too, as nobody can rebuild it any more.
    """
    lost = state.data_alerts.lost(state.next_offset, to_offset, at_us)
    snapshots = state.rewind.leap(to_offset, state.lanes)
    return Commit(
        pipeline=pipeline,
        partition=state.partition,
        epoch=state.epoch,
        old_next=state.next_offset,
        new_next=to_offset,
        rewind_offset=to_offset,
        rewind_state=state.rewind_state(),
        snapshots=snapshots,
        counters=state.counters,
        at_us=at_us,
        gaps=[MissingRange(state.next_offset, to_offset)],
        data_alerts=[lost],
        channels=channels,
    )


def _joined(parts: list[NDArray[T]], dtype: type[T]) -> NDArray[T]:
    if len(parts) == 1:
        return parts[0]
    return np.concatenate(parts) if parts else np.empty(0, dtype=dtype)
