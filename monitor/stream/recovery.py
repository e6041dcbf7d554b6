"""Where a restart of a partition begins to read again, and how it knows that it came to the same state.

Enters: the lanes of a partition, now and then. Leaves: the *rewind offset*, the oldest record that an unfinished window
still needs; a *digest* of the windows at an offset, which a rebuild that comes to this offset must find; and
*snapshots* of lanes that fell silent, so that one silent fleet does not make a restart read a day of the others again.

The law: nothing here changes a result. It decides how much is read again, and whether somebody notices a defect.
"""

from __future__ import annotations

import hashlib
import io
from collections import deque
from dataclasses import fields, replace
from typing import TYPE_CHECKING, NamedTuple

import msgspec
import numpy as np

from monitor.store.commit import Digest, Snapshot
from monitor.stream.window import NEVER, WindowerState

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from monitor.clock import Clock
    from monitor.config import FleetConfig
    from monitor.config.kafka import KafkaConfig
    from monitor.stream.shard import Lane

LOOK_EVERY_S = 2.0
"""How often the rewind point is looked for …"""
LOOK_SHARE = 0.02
"""… and how much of the time that may take: it goes through all windows, and large fleets have many."""
MAX_MARKS = 1024
"""Marks kept; fewer only make a restart read a little more."""
SILENT_AFTER = 50_000
"""Records of the other fleets after which a lane counts as silent: about a second of reading again."""


class _Mark(NamedTuple):
    """The state of a partition's watermarks before the record at an offset."""

    offset: int
    max_cell: Mapping[str, int]


class Taken(NamedTuple):
    """A lane's latest snapshot."""

    at_offset: int
    max_cell: int


class Rewind:
    """Where a restart of one partition would begin."""

    def __init__(self, offset: int, max_cell: Mapping[str, int]) -> None:
        self.digest: Digest | None = None
        """Of the latest look; holds for the rewind offset of that look."""
        self._marks = deque([_Mark(offset, max_cell)])
        self._look_at_s = -1e18

    @property
    def offset(self) -> int:
        """The oldest record that is still needed."""
        return self._marks[0].offset

    @property
    def max_cell(self) -> Mapping[str, int]:
        """By fleet, the newest cell before that record."""
        return self._marks[0].max_cell

    def mark(self, offset: int, lanes: Mapping[str, Lane]) -> None:
        """Remember the watermarks as they are before the record at this offset."""
        self._marks.append(_Mark(offset, {fleet: lane.windower.max_cell for fleet, lane in lanes.items()}))
        if len(self._marks) > MAX_MARKS:  # something holds the first one: keep every other of the rest
            first = self._marks.popleft()
            self._marks = deque([first, *list(self._marks)[1::2]])

    def look(self, next_offset: int, lanes: Mapping[str, Lane], clock: Clock) -> list[Snapshot]:
        """Forget marks that no unfinished window needs any more; every record below `next_offset` is in the lanes.

        Return the lanes that fell silent since the last look, to be saved in the same transaction.
        """
        began_s = clock.monotonic_s()
        if began_s < self._look_at_s:
            return []
        snapshots = []
        oldest = next_offset
        for lane in lanes.values():
            needed = lane.needed_offset()
            if needed is None:
                continue
            if next_offset - max(needed, lane.newest_offset) > SILENT_AFTER:
                snapshots.append(_snapshot(lane, next_offset))
                needed = next_offset
            oldest = min(oldest, needed)
        while len(self._marks) > 1 and self._marks[1].offset <= oldest:
            self._marks.popleft()
        self.digest = Digest(next_offset, digest_of(lanes, self.offset, self.max_cell))
        took_s = clock.monotonic_s() - began_s
        self._look_at_s = began_s + max(LOOK_EVERY_S, took_s / LOOK_SHARE)
        return snapshots

    def leap(self, to_offset: int, lanes: Mapping[str, Lane]) -> list[Snapshot]:
        """Begin at `to_offset`: what lies before it is gone from the log. Return what could not be rebuilt any more."""
        snapshots = [_snapshot(lane, to_offset) for lane in lanes.values() if lane.needed_offset() is not None]
        self._marks.clear()
        self.mark(to_offset, lanes)
        self.digest = None
        return snapshots


# ---------------------------------------------------------------- digest


def digest_of(lanes: Mapping[str, Lane], rewind_offset: int, max_cell: Mapping[str, int]) -> str:
    """Say what a rebuild from this rewind offset must find here: JSON, fleet → digest."""
    words = {}
    for fleet, lane in sorted(lanes.items()):
        if lane.windower.max_cell == NEVER:
            continue
        base = max_cell.get(fleet, NEVER)
        if lane.snapshot is not None and lane.snapshot.at_offset >= rewind_offset:
            base = lane.snapshot.max_cell
        words[fleet] = f"{lane.windower.cells_digest(lane.ids, base):016x}"
    return msgspec.json.encode(words).decode()


def differing(before: str, after: str) -> list[str]:
    """Name the fleets whose windows are not what they were."""
    was: dict[str, str] = msgspec.json.decode(before)
    now: dict[str, str] = msgspec.json.decode(after)
    return [fleet for fleet, word in was.items() if word != now.get(fleet)]


READING_LAW = 1
"""Raised by a release that reads records otherwise: what was refused before may then be a reading."""


def fingerprint(fleet: FleetConfig, kafka: KafkaConfig, sensors: Sequence[str]) -> str:
    """Name the settings that windows depend on, and those that decide which readings there are."""
    windows = (fleet.interval_us, fleet.length, fleet.stride, fleet.lateness_cells, fleet.max_gap_cells, tuple(sensors))
    readings = (fleet.assets, fleet.topics, kafka.format, kafka.max_record_bytes, str(kafka.max_skew), READING_LAW)
    said = (windows, readings)
    return hashlib.sha256(repr(said).encode()).hexdigest()[:8]


# ---------------------------------------------------------------- snapshots


def _snapshot(lane: Lane, at_offset: int) -> Snapshot:
    """Let the lane's part of a rebuild begin here. What was written down already is not written again."""
    is_same = lane.snapshot is not None and lane.newest_offset < lane.snapshot.at_offset
    lane.snapshot = Taken(at_offset, lane.windower.max_cell)
    return Snapshot(lane.config.name, at_offset, None if is_same else encode(lane))


def encode(lane: Lane) -> bytes:
    """Write a lane's unfinished windows down, assets by their ids in the database."""
    state = lane.windower.snapshot()
    out = io.BytesIO()
    columns = {field.name: getattr(state, field.name) for field in fields(state)}
    columns |= {"asset": lane.ids[state.asset], "cell_asset": lane.ids[state.cell_asset]}
    np.savez(out, fingerprint=np.array(lane.fingerprint), **columns)
    return out.getvalue()


def restore(lane: Lane, snapshot: Snapshot) -> None:
    """Take up a snapshot; one that was made with other settings is left alone."""
    if snapshot.state is None:
        raise ValueError("a snapshot without a state")
    with np.load(io.BytesIO(snapshot.state), allow_pickle=False) as columns:
        if str(columns["fingerprint"]) != lane.fingerprint:
            return
        state = WindowerState(
            max_cell=int(columns["max_cell"]),
            **{field.name: columns[field.name] for field in fields(WindowerState) if field.name != "max_cell"},
        )
    by_id = np.argsort(lane.ids, kind="stable")
    asset, cell_asset = (
        by_id[np.searchsorted(lane.ids, ids, sorter=by_id)] for ids in (state.asset, state.cell_asset)
    )
    lane.windower.restore(replace(state, asset=asset, cell_asset=cell_asset))
    lane.snapshot = Taken(snapshot.at_offset, state.max_cell)
