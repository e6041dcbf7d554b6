"""Recovery of a partition: the offset from which a restart reads again, the rebuild, and the check of its result.

Input: the shards of a partition, every few seconds. Output: the *rewind offset*, at or before the oldest record that an
asset needs. A *digest* of the needed cells at an offset, which a rebuild must reproduce. *Snapshots* of silent and slow
assets: without them one asset that sends no more would make a restart read all records since. Invariant: no result
depends on this module. It decides how much is read again, and whether a defect is noticed.
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
    from monitor.types import Int64, Partition, RecordBatch

log = logs.get("rebuild")

UPDATE_SHARE = 0.02
"""Share of the time that updates may take: each goes through all windows, and large fleets have many."""
MAX_MARKS = 1024
"""Offsets kept for each partition at which a rebuild may begin. Fewer only make a restart read a little more."""
SILENT_AFTER = 50_000
"""Records of others after which an asset counts as silent: about a second of reading again."""
ROUNDS = 4
"""An asset is silent only if every other one could have sent so often meanwhile …"""
SLOWER = 4
"""… and slow if its needed records reach back so many times as far as those of half of the others."""
BYTES_PER_RECORD = 64
"""Size of the snapshots for each record of the log: far less than its scores take."""


class Mark(NamedTuple):
    """State of the decoder before the record at an offset."""

    offset: int
    newest_stamp_us: int
    """See `Decoder.newest_stamp_us`."""


class RecoveryPoint:
    """The offset from which a restart of one partition would read again."""

    def __init__(self, begin: Mark, update_every_s: float) -> None:
        self.oldest = begin
        """At or before the oldest record still needed. Its offset is the rewind offset."""
        self.digest: Digest | None = None
        """Of the latest update."""
        self._later: deque[Mark] = deque()
        self._update_every_s = update_every_s
        self._update_at_s = -1e18
        self._snapshot_at = -1 << 62
        """Offset before which no further snapshot is taken."""

    def remember(self, offset: int, newest_stamp_us: int) -> None:
        """Remember the state of the decoder before the record at this offset."""
        self._later.append(Mark(offset, newest_stamp_us))
        if len(self._later) >= MAX_MARKS:  # the oldest record is still needed: keep every other of the rest
            self._later = deque(list(self._later)[1::2])

    def update(self, next_offset: int, shards: Mapping[str, Shard], clock: Clock) -> list[Snapshot]:
        """Move to the oldest record that an asset needs. The shards have all records below `next_offset`.

        Returns snapshots of assets that are silent or slow, for the same transaction.
        """
        began_s = clock.monotonic_s()
        if began_s < self._update_at_s:
            return []
        needed = {fleet: shard.needed_offsets() for fleet, shard in shards.items()}
        snapshots = []
        if next_offset >= self._snapshot_at:
            snapshots = self._take_snapshots(next_offset, shards, needed)
        oldest = min((int(each.min()) for each in needed.values() if len(each)), default=next_offset)
        while self._later and self._later[0].offset <= oldest:
            self.oldest = self._later.popleft()
        self.digest = Digest(next_offset, digest_of(shards))
        took_s = clock.monotonic_s() - began_s
        self._update_at_s = began_s + max(self._update_every_s, took_s / UPDATE_SHARE)
        return snapshots

    def _take_snapshots(
        self, next_offset: int, shards: Mapping[str, Shard], needed: dict[str, Int64]
    ) -> list[Snapshot]:
        """Take snapshots of the assets that would make a restart read too far back. Updates `needed`.

        An asset is silent if others have sent `SILENT_AFTER` records since its last one. It is slow if its needed
        records reach back `SLOWER` times as far as those of half of the assets that are not silent. The next snapshot
        waits, so that snapshots take no more than `BYTES_PER_RECORD`.
        """
        reach = {fleet: next_offset - each for fleet, each in needed.items()}
        silence = {fleet: next_offset - shards[fleet].last_offsets(len(each)) for fleet, each in needed.items()}
        silent_after = max(SILENT_AFTER, ROUNDS * sum(len(each) for each in needed.values()))
        others = [each[(each > 0) & (silence[fleet] <= silent_after)] for fleet, each in reach.items()]
        usual = np.concatenate(others) if others else np.empty(0)
        farthest = max(silent_after, SLOWER * int(np.median(usual))) if len(usual) else silent_after
        snapshots = []
        for fleet, each in reach.items():
            due = np.flatnonzero((each > farthest) | ((each > silent_after) & (silence[fleet] > silent_after)))
            if len(due):
                snapshots.append(shards[fleet].take_snapshot(next_offset, due))
                needed[fleet] = shards[fleet].needed_offsets()
        if snapshots:
            n_bytes = sum(len(each.state) for each in snapshots)
            self._snapshot_at = next_offset + max(SILENT_AFTER, n_bytes // BYTES_PER_RECORD)
        return snapshots

    def skip_to(self, to_offset: int, shards: Mapping[str, Shard], newest_stamp_us: int) -> list[Snapshot]:
        """Move behind a gap in the log. Return snapshots of the windows that could not be rebuilt any more."""
        alive = {fleet: np.flatnonzero(shard.windower.newest > NEVER) for fleet, shard in shards.items()}
        snapshots = [shards[fleet].take_snapshot(to_offset, assets) for fleet, assets in alive.items() if len(assets)]
        self.oldest = Mark(to_offset, newest_stamp_us)
        self._later.clear()
        self.digest = None
        return snapshots


class Rebuild:
    """The records below the next offset, read again after a claim to fill the unfinished windows.

    Stored results stay as they are. A window that is emitted again is dropped. A digest that differs is a defect that
    is logged and counted once: stopping would help nobody, and a restart would come to the same state.
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
        self._point.remember(int(batch.offsets[0]), decoder.newest_stamp_us)
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
                shard.refill(part)

    def _compare(self, shards: Mapping[str, Shard]) -> None:
        expected, self._expected = self._expected, None
        if expected is None:
            return
        fleets = differing_fleets(expected.value, digest_of(shards))
        same = {name for name, shard in shards.items() if not (shard.is_reconfigured or shard.is_widened)}
        if fleets := [each for each in fleets if each in same]:
            self._report(fleets, expected.offset)

    def _report(self, fleets: Sequence[str], at_offset: int) -> None:
        if self._is_excused:
            return
        self._is_excused = True
        metrics.digest_mismatches.inc()
        log.error(
            "rebuild_differs",
            partition=str(self._partition),
            fleets=fleets,
            at_offset=at_offset,
            meaning="unfinished windows are not what they were before the restart: a defect, please report it; "
            "windows that begin after this are right",
        )


def digest_of(shards: Mapping[str, Shard]) -> str:
    """Return the digests that a rebuild must reproduce here. JSON: fleet → digest."""
    digests = {fleet: shard.digest() for fleet, shard in sorted(shards.items())}
    return msgspec.json.encode({fleet: digest for fleet, digest in digests.items() if digest is not None}).decode()


def differing_fleets(before: str, after: str) -> list[str]:
    """Return the fleets whose windows differ between two digests of `digest_of`."""
    was: dict[str, str] = msgspec.json.decode(before)
    now: dict[str, str] = msgspec.json.decode(after)
    return [fleet for fleet, digest in was.items() if digest != now.get(fleet)]
