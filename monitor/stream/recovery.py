"""Recovery of a partition: the offset from which a restart reads again, the rebuild, and the check of its result.

Input: the shards of a partition, every few seconds. Output: the *rewind offset*, that of the oldest record an
unfinished window still needs. A *digest* of the windows at an offset, which a rebuild must reproduce. *Snapshots* of
silent shards: without them one silent fleet would make a restart read a day of the other fleets again. Invariant: no
result depends on this module. It decides how much is read again, and whether a defect is noticed.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, NamedTuple

import msgspec
import numpy as np

from monitor import logs, metrics
from monitor.store.commit import Digest
from monitor.stream.window import NEVER, in_slices

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from monitor.clock import Clock
    from monitor.decode import Decoder
    from monitor.store.commit import Snapshot
    from monitor.stream.shard import Shard
    from monitor.types import Partition, RecordBatch

log = logs.get("rebuild")

UPDATE_SHARE = 0.02
"""Share of the time that updates may take: each goes through all windows, and large fleets have many."""
MAX_WATERMARKS = 1024
"""Watermarks kept for each partition. Fewer only make a restart read a little more."""
SILENT_AFTER = 50_000
"""Records of the other fleets after which a shard counts as silent: about a second of reading again."""


class WatermarkAt(NamedTuple):
    """The newest cell of each fleet before the record at an offset."""

    offset: int
    max_cell: Mapping[str, int]


class RecoveryPoint:
    """The offset from which a restart of one partition would read again, and the watermarks there."""

    def __init__(self, offset: int, max_cell: Mapping[str, int], update_every_s: float) -> None:
        self.oldest = WatermarkAt(offset, max_cell)
        """Of the oldest record still needed. Its offset is the rewind offset."""
        self.digest: Digest | None = None
        """Of the latest update, for a rebuild from the offset of that update."""
        self._later: deque[WatermarkAt] = deque()
        self._update_every_s = update_every_s
        self._update_at_s = -1e18

    def remember(self, offset: int, shards: Mapping[str, Shard]) -> None:
        """Remember the watermarks before the record at this offset."""
        self._later.append(WatermarkAt(offset, {fleet: each.windower.max_cell for fleet, each in shards.items()}))
        if len(self._later) >= MAX_WATERMARKS:  # the oldest record is still needed: keep every other of the rest
            self._later = deque(list(self._later)[1::2])

    def update(self, next_offset: int, shards: Mapping[str, Shard], clock: Clock) -> list[Snapshot]:
        """Move to the oldest record that an unfinished window needs. The shards have all records below `next_offset`.

        Returns snapshots of the shards that became silent since the last update, for the same transaction.
        """
        began_s = clock.monotonic_s()
        if began_s < self._update_at_s:
            return []
        snapshots = []
        oldest = next_offset
        for shard in shards.values():
            needed = shard.needed_offset()
            if needed is None:
                continue
            if next_offset - max(needed, shard.newest_offset) > SILENT_AFTER:
                snapshots.append(shard.take_snapshot(next_offset))
                needed = next_offset
            oldest = min(oldest, needed)
        while self._later and self._later[0].offset <= oldest:
            self.oldest = self._later.popleft()
        self.digest = Digest(next_offset, digest_of(shards, self.oldest))
        took_s = clock.monotonic_s() - began_s
        self._update_at_s = began_s + max(self._update_every_s, took_s / UPDATE_SHARE)
        return snapshots

    def skip_to(self, to_offset: int, shards: Mapping[str, Shard]) -> list[Snapshot]:
        """Move behind a gap in the log. Return snapshots of the windows that could not be rebuilt any more."""
        snapshots = [each.take_snapshot(to_offset) for each in shards.values() if each.needed_offset() is not None]
        self.oldest = WatermarkAt(to_offset, {fleet: each.windower.max_cell for fleet, each in shards.items()})
        self._later.clear()
        self.digest = None
        return snapshots


class Rebuild:
    """The records below the next offset, read again after a claim to fill the unfinished windows.

    Stored results stay as they are. A window that is emitted again is dropped. It is a defect that is logged and
    counted once, as is a digest that differs: stopping would help nobody, and a restart would come to the same state.
    """

    def __init__(self, partition: Partition, next_offset: int, point: RecoveryPoint, expected: Digest | None) -> None:
        """`expected`: the digest that the windows must have at its offset. None = none is stored."""
        self.is_done = point.oldest.offset >= next_offset
        """Whether the unfinished windows are those of before the restart."""
        self._partition = partition
        self._next_offset = next_offset
        self._point = point
        self._expected = None if self.is_done else expected
        self._is_excused = False
        """Whether a difference is expected: records are gone, or one was reported already."""

    def fill(self, batch: RecordBatch, decoder: Decoder, shards: Mapping[str, Shard]) -> None:
        """Fill the windows from committed records."""
        metrics.rebuilt_records.inc(len(batch))
        self._point.remember(int(batch.offsets[0]), shards)
        reached = batch.next_offset
        if self._expected is not None:
            n_before = int(np.searchsorted(batch.offsets, self._expected.offset))
            self._refill(batch.rows(slice(0, n_before)), decoder, shards)
            if reached >= self._expected.offset:
                self._compare(shards)
            batch = batch.rows(slice(n_before, None))
        self._refill(batch, decoder, shards)
        if reached >= self._next_offset:
            self.end(self._next_offset, shards)

    def skip_check(self) -> None:
        """Accept any result: retention removed records that the rebuild needs."""
        self._expected, self._is_excused = None, True

    def end(self, next_offset: int, shards: Mapping[str, Shard]) -> None:
        """Compare with the stored digest, once: the next record is new."""
        if self.is_done:
            return
        self._compare(shards)
        self.is_done = True
        partition, begin = str(self._partition), self._point.oldest.offset
        log.info("rebuilt", partition=partition, from_offset=begin, next_offset=next_offset)

    def _refill(self, batch: RecordBatch, decoder: Decoder, shards: Mapping[str, Shard]) -> None:
        for readings in decoder.decode(batch).readings if len(batch) else ():
            shard = shards.get(readings.fleet)
            if shard is None:
                continue
            for part in in_slices(readings):
                again = shard.refill(part)
                if len(again) and not shard.is_reconfigured:
                    first = f"{shard.assets.names[again.asset[0]]} at cell {int(again.start[0])}"
                    self._report([readings.fleet], int(part.offset[-1]), emitted=len(again), first=first)

    def _compare(self, shards: Mapping[str, Shard]) -> None:
        expected, self._expected = self._expected, None
        if expected is None:
            return
        fleets = differing_fleets(expected.value, digest_of(shards, self._point.oldest))
        if fleets := [each for each in fleets if each in shards and not shards[each].is_reconfigured]:
            self._report(fleets, expected.offset)

    def _report(self, fleets: Sequence[str], at_offset: int, **facts: object) -> None:
        if self._is_excused:
            return
        self._is_excused = True
        metrics.digest_mismatches.inc()
        log.error(
            "rebuild_differs",
            partition=str(self._partition),
            fleets=fleets,
            at_offset=at_offset,
            **facts,
            meaning="unfinished windows are not what they were before the restart: a defect, please report it; "
            "windows that begin after this are right",
        )


def digest_of(shards: Mapping[str, Shard], rewind: WatermarkAt) -> str:
    """Return the digests that a rebuild from this rewind offset must reproduce here. JSON: fleet → digest."""
    digests = {
        fleet: shard.digest(rewind.offset, rewind.max_cell.get(fleet, NEVER)) for fleet, shard in sorted(shards.items())
    }
    return msgspec.json.encode({fleet: digest for fleet, digest in digests.items() if digest is not None}).decode()


def differing_fleets(before: str, after: str) -> list[str]:
    """Return the fleets whose windows differ between two digests of `digest_of`."""
    was: dict[str, str] = msgspec.json.decode(before)
    now: dict[str, str] = msgspec.json.decode(after)
    return [fleet for fleet, digest in was.items() if digest != now.get(fleet)]
