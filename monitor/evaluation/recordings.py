"""A file for replay: the part to learn from, the part to replay, and the labels, which neither of the two sees.

Enters a `Recording`; leave record batches and labelled events. The law: a label column is taken off before anything
else happens, and comes back only to be compared with alerts.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from monitor.evaluation.compare import Event
from monitor.recordings import as_records
from monitor.types import Partition

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from monitor.recordings import Recording
    from monitor.types import RecordBatch


@dataclass(frozen=True, slots=True)
class Split:
    """A recording, cut where learning ends."""

    head: Recording
    """To learn from; without labels."""
    rest: Recording
    """To replay; without labels."""
    from_us: int
    """Event time at which the rest begins."""
    events: tuple[Event, ...] | None
    """Labelled in the rest; None = the recording has no labels."""


def split(recording: Recording, *, rows: int | None, until_us: int | None, interval_us: int) -> Split:
    """Cut a recording after its first `rows` readings in order of time, or at `until_us`; None = no head."""
    order = np.argsort(recording.ts_us, kind="stable")
    recording = recording.rows(order)
    if rows is None:
        rows = 0 if until_us is None else int(np.searchsorted(recording.ts_us, until_us))
    head, rest = recording.rows(slice(0, rows)), recording.rows(slice(rows, None))
    from_us = int(rest.ts_us[0]) if len(rest) else int(recording.ts_us[-1]) + 1
    events = None if rest.label is None else tuple(events_of(rest, interval_us))
    return Split(replace(head, label=None), replace(rest, label=None), from_us, events)


def events_of(recording: Recording, interval_us: int) -> Iterator[Event]:
    """The labelled events of each asset: runs of labelled readings. A reading stands for one interval."""
    if recording.label is None:
        return
    for number, asset in enumerate(recording.assets):
        mine = np.flatnonzero(recording.asset == number)
        is_fault = np.concatenate(([0], recording.label[mine] != 0, [0])).astype(np.int8)
        edges = np.flatnonzero(np.diff(is_fault))
        for first, beyond in edges.reshape(-1, 2).tolist():
            ts_us = recording.ts_us[mine]
            yield Event(asset, int(ts_us[first]), int(ts_us[beyond - 1]) + interval_us)


class Feed:
    """Recordings as the records of one topic: a partition per asset, so that no asset waits for another.

    Several recordings of one asset follow each other in its partition, in the order given.
    """

    def __init__(self, topic: str) -> None:
        self.topic = topic
        self.n_readings = 0
        self._numbers: dict[str, int] = {}
        self._parts: list[tuple[int, Recording]] = []

    @property
    def partitions(self) -> tuple[Partition, ...]:
        """One for each asset so far."""
        return tuple(Partition(self.topic, number) for number in self._numbers.values())

    def add(self, recording: Recording) -> None:
        """Take in a recording."""
        for one in recording.per_asset():
            if len(one):
                number = self._numbers.setdefault(one.assets[0], len(self._numbers))
                self._parts.append((number, one))
                self.n_readings += len(one)

    def batches(self, *, block: int = 256) -> Iterator[RecordBatch]:
        """The records, all partitions together in order of event time. `block`: readings in a record."""
        streams = [
            self._partition(number, [one for mine, one in self._parts if mine == number], block)
            for number in self._numbers.values()
        ]
        return heapq.merge(*streams, key=_begins_us)

    def _partition(self, number: int, parts: Sequence[Recording], block: int) -> Iterator[RecordBatch]:
        base = 0
        for part in parts:
            end = base
            for batch in as_records(part, block=block, partition=Partition(self.topic, number)):
                moved = replace(batch, offsets=batch.offsets + base)
                end = moved.next_offset
                yield moved
            base = end


def context(head: Recording, length: int) -> Recording:
    """The last readings of each asset that a window reaching back from the first reading behind `head` needs."""
    kept = [np.flatnonzero(head.asset == number)[-(length - 1) :] for number in range(len(head.assets))]
    return head.rows(np.sort(np.concatenate(kept)))


def joined(first: Recording, second: Recording) -> Recording:
    """Two parts of one recording as one."""
    return replace(
        second,
        ts_us=np.concatenate((first.ts_us, second.ts_us)),
        values=np.concatenate((first.values, second.values)),
        asset=np.concatenate((first.asset, second.asset)),
        label=None,
    )


def _begins_us(batch: RecordBatch) -> int:
    return int(batch.timestamps_us[0])
