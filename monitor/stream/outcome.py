"""Outcome of a batch of records, collected until one transaction stores it.

Input: the results of each stage for the batch. Output: a `Commit`. Invariant: every record of the batch is counted
under exactly one of accepted, quarantined, late, duplicate, tombstones. A record with readings of several assets is
late if one of them is, else quarantined if a part of it was refused, and a duplicate only if all its readings are.
"""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import dataclass, field, replace
from operator import attrgetter
from typing import TYPE_CHECKING

import numpy as np

from monitor import metrics
from monitor.errors import QuarantineLimit
from monitor.store.commit import Commit
from monitor.stream.data_alerts import log_changes
from monitor.types import SAMPLE_BYTES, Counters, Quarantined

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from monitor.clock import Clock
    from monitor.store.outbox import Channel
    from monitor.stream.partition import PartitionState
    from monitor.stream.shard import ShardResult
    from monitor.types import DataAlertChange, RecordBatch

ROWS_KEPT = 10_000
"""Rows in quarantine of each partition and reason before they are thinned out …"""
ROWS_SAMPLED = 100
"""… to one in so many."""
LIMIT_WINDOW = 10_000
"""Records over which the share of quarantined ones is measured …"""
LIMIT_STEP = 100
"""Smaller batches are counted together."""
LIMIT_MINIMUM = 1_000
"""… and the smallest number of records for a share."""
REASONS_NOT_COUNTED = (
    "no_fleet:",
    "no_reading:",
    "empty:",
    "late:",
    "wrong_partition:",
    "too_many_assets:",
    "too_large_batch:",
    "corrupt_batch:",
)
"""Reasons that do not question the format: a shared topic, heartbeats and events, a gateway that sends its backlog, a
key that moved, a producer that invents names or sends decompression bombs. They must not stop the monitoring of the
other assets."""


@dataclass(slots=True)
class BatchOutcome:
    """All that one batch of one partition led to."""

    batch: RecordBatch
    quarantined: list[Quarantined]
    """Refused records: first those that the decoder could not read."""
    n_tombstones: int
    learnt: Mapping[str, tuple[str, ...]]
    """By fleet, sensors that the database does not have yet."""
    results: list[ShardResult] = field(default_factory=list)
    data_alerts: Sequence[DataAlertChange] = ()
    counters: Counters = field(default_factory=Counters)
    """Of this batch alone. Complete once `commit` has counted."""

    def quarantine(self, reasons: Mapping[int, str]) -> None:
        """Quarantine records, each under one reason: the first, or that it is late. `reasons`: by offset."""
        batch = self.batch
        place_of = {record.offset: place for place, record in enumerate(self.quarantined)} if self.quarantined else {}
        for offset, reason in reasons.items():
            place = place_of.get(offset)
            if place is not None:
                if reason.startswith("late:"):
                    self.quarantined[place] = replace(self.quarantined[place], reason=reason)
                continue
            row = int(np.searchsorted(batch.offsets, offset))
            sample = (batch.values[row] or b"")[:SAMPLE_BYTES]
            at_us = max(int(batch.timestamps_us[row]), 0)
            self.quarantined.append(Quarantined(batch.partition, offset, reason, sample, at_us))

    def _duplicates(self) -> set[int]:
        """Return the offsets of the records of which every reading of every fleet is a duplicate."""
        found = {offset for result in self.results for offset in result.duplicate}
        for result in self.results if found and len(self.results) > 1 else ():
            here = np.isin(list(found), result.readings.offset)
            found -= {offset for offset, is_here in zip(list(found), here, strict=True) if is_here} - result.duplicate
        return found

    def commit(
        self,
        pipeline: str,
        state: PartitionState,
        clock: Clock,
        *,
        log_end: int | None,
        channels: Sequence[Channel] = (),
    ) -> Commit:
        """Count the records by fate, move the recovery point, and return the transaction."""
        at_us, new_next = clock.now_us(), self.batch.next_offset
        snapshots = state.recovery.update(new_next, state.shards, clock)
        late = {offset for result in self.results for offset in result.late}
        bad = {record.offset for record in self.quarantined} - late
        duplicate = self._duplicates() - bad - late
        n_records = len(self.batch.offsets)
        self.counters = Counters(
            records=n_records,
            accepted=n_records - self.n_tombstones - len(bad) - len(late) - len(duplicate),
            quarantined=len(bad),
            late=len(late),
            duplicate=len(duplicate),
            tombstones=self.n_tombstones,
            readings=sum(len(result.readings.offset) for result in self.results),
            windows=sum(len(result.rows.score) for result in self.results),
            scored=sum(int(np.count_nonzero(~np.isnan(result.rows.score))) for result in self.results),
            reasons=dict(Counter(record.word for record in self.quarantined)),
        )
        total = replace(state.counters)
        total.add(self.counters)
        rows = {result.rows.fleet: result.rows for result in self.results}
        for fleet, sensors in self.learnt.items():
            rows[fleet] = replace(rows.get(fleet) or state.shards[fleet].rows(), sensors=sensors)
        return Commit(
            pipeline=pipeline,
            partition=state.partition,
            epoch=state.epoch,
            old_next=state.next_offset,
            new_next=new_next,
            rewind_offset=state.recovery.oldest.offset,
            rewind_state=state.stored_state,
            digest=state.recovery.digest,
            snapshots=snapshots,
            counters=total,
            at_us=at_us,
            log_end=log_end,
            fleets=[rows[fleet] for fleet in sorted(rows)],
            quarantined=_sampled(self.quarantined, state.counters.reasons) if self.quarantined else (),
            data_alerts=self.data_alerts,
            channels=channels,
        )

    def report(self, commit: Commit, clock: Clock, *, took_s: float) -> None:
        """Count and log the commit. `took_s`: duration of the transaction."""
        oldest_us = int(self.batch.timestamps_us[0])
        metrics.count_saved(
            self.counters,
            (*(change for rows in commit.fleets for change in rows.alerts), *commit.data_alerts),
            took_s=took_s,
            latency_s=max(0, clock.now_us() - oldest_us) / 1e6 if oldest_us > 0 else None,
        )
        log_changes(commit.data_alerts)


class QuarantineShare:
    """Share of quarantined records among the latest ones. Too high a share stops the daemon."""

    def __init__(self, largest: float) -> None:
        """`largest`: `[kafka] max_quarantine_share`. 1 = stop when no record can be read, of any topic."""
        self._largest = largest
        self._recent: deque[tuple[int, int]] = deque()
        """(records, quarantined) of the latest committed batches."""
        self._with_batch = self._recent
        self._readable: set[str] = set()
        """Topics of which some record could be read."""

    def check(self, outcome: BatchOutcome) -> None:
        """Add a batch. Raises QuarantineLimit where the share is too high.

        The batch counts once it is committed (`committed`): until then it may come again.
        """
        bad = {each.offset for each in outcome.quarantined if not each.reason.startswith(REASONS_NOT_COUNTED)}
        recent = deque(self._recent)
        n, n_bad = len(outcome.batch.offsets), len(bad)
        is_suspect = n_bad > 0
        if recent and recent[-1][0] < LIMIT_STEP:
            before, bad_before = recent.pop()
            n, n_bad = n + before, n_bad + bad_before
        recent.append((n, n_bad))
        while sum(n for n, _ in recent) - recent[0][0] >= LIMIT_WINDOW:
            recent.popleft()
        total, n_bad = (sum(column) for column in zip(*recent, strict=True))
        topic = outcome.batch.partition.topic
        is_over = n_bad > self._largest * total if self._largest < 1 else n_bad == total and self._readable <= {topic}
        if is_suspect and total >= LIMIT_MINIMUM and is_over:
            last = outcome.quarantined[-1]
            raise QuarantineLimit(
                f"{n_bad} of the last {total} records, most recently {last.partition} offset {last.offset}: "
                f"{last.reason}. Nothing of this batch was saved. "
                "Correct [kafka] format or the fleet's settings, or raise [kafka] max_quarantine_share"
            )
        if n_bad < total:
            self._readable.add(topic)
        self._with_batch = recent

    def committed(self) -> None:
        """Count the batch that was checked last."""
        self._recent = self._with_batch


def _sampled(records: Iterable[Quarantined], before: Mapping[str, int]) -> list[Quarantined]:
    """Return the first rows of each reason, then one in so many, by offset. `before`: by reason, earlier records.

    A producer that sends unusable records for a week must not fill the disk. The counters count all of them. Which
    rows are kept follows from the log alone.
    """
    counts = Counter(before)
    kept = []
    for record in sorted(records, key=attrgetter("offset")):  # they came fleet by fleet
        counts[record.word] += 1
        if counts[record.word] <= ROWS_KEPT or counts[record.word] % ROWS_SAMPLED == 0:
            kept.append(record)
    return kept
