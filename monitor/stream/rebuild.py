"""The way back: after a claim, records that are saved already fill the windows again, and emit nothing.

Enters: batches from the rewind offset up to the next offset. Leaves: lanes as they were when that offset was saved. The
law: what was stored stays as it is. A window that comes out a second time is dropped; it is a defect, told and counted,
as is a digest that differs: stopping would help nobody, and a restart would come here again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from monitor import logs, metrics
from monitor.stream import recovery
from monitor.stream.shard import in_slices

if TYPE_CHECKING:
    from collections.abc import Sequence

    from monitor.stream.shard import PartitionState
    from monitor.types import RecordBatch

log = logs.get("rebuild")


def take(state: PartitionState, saved: RecordBatch) -> None:
    """Fill the windows from records below the next offset. Whatever they led to is in the database."""
    metrics.rebuilt_records.inc(len(saved))
    state.rewind.mark(int(saved.offsets[0]), state.lanes)
    reached = saved.next_offset
    if state.expected is not None:
        n_before = int(np.searchsorted(saved.offsets, state.expected.offset))
        _refill(state, saved.rows(slice(0, n_before)))
        if reached >= state.expected.offset:
            _compare(state)
        saved = saved.rows(slice(n_before, None))
    _refill(state, saved)
    if reached >= state.next_offset:
        end(state)


def end(state: PartitionState) -> None:
    """What comes next is new. Again is no harm."""
    if state.is_rebuilt:
        return
    _compare(state)
    state.is_rebuilt = True
    log.info("rebuilt", partition=str(state.partition), from_offset=state.rewind.offset, next_offset=state.next_offset)


def _refill(state: PartitionState, saved: RecordBatch) -> None:
    for readings in state.decoder.decode(saved).readings if len(saved) else ():
        lane = state.lanes.get(readings.fleet)
        if lane is None:
            continue
        for part in in_slices(readings):
            again = lane.refill(part)
            if len(again) and not state.is_reconfigured(readings.fleet):
                name, cell = lane.assets.names[again.asset[0]], int(again.start[0])
                _say(state, [readings.fleet], int(part.offset[-1]), emitted=len(again), first=f"{name} at cell {cell}")


def _compare(state: PartitionState) -> None:
    """The windows must be what they were when this offset was saved."""
    expected, state.expected = state.expected, None
    if expected is None:
        return
    found = recovery.digest_of(state.lanes, state.rewind.offset, state.rewind.max_cell)
    fleets = [each for each in recovery.differing(expected.value, found) if each in state.lanes]
    if fleets := [fleet for fleet in fleets if not state.is_reconfigured(fleet)]:
        _say(state, fleets, expected.offset)


def _say(state: PartitionState, fleets: Sequence[str], at_offset: int, **facts: object) -> None:
    if state.is_excused:
        return
    state.is_excused = True
    metrics.digest_mismatches.inc()
    log.error(
        "rebuild_differs",
        partition=str(state.partition),
        fleets=fleets,
        at_offset=at_offset,
        **facts,
        meaning="unfinished windows are not what they were before the restart: a defect, please report it; "
        "windows that begin after this are right",
    )
