"""A recording for replay: its training head, its labelled events, and the rest as record batches.

Input: a `Recording`. Output: a `RecordingSplit`, and record batches of a `RecordingFeed`.
Invariant: the label column is removed first. Labels are used in neither training nor scoring, and are only compared
with the alerts.
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
class RecordingSplit:
    """A recording, cut where training ends."""

    head: Recording
    """Training data, without labels."""
    rest: Recording
    """Data to replay, without labels."""
    from_us: int
    """Event time at which the rest begins."""
    events: tuple[Event, ...] | None
    """Labelled events of the rest. None = the recording has no labels."""


def split_recording(
    recording: Recording, *, rows: int | None, until_us: int | None, interval_us: int
) -> RecordingSplit:
    """Cut a recording after its first `rows` readings by event time, or at `until_us`. Neither = the head is empty."""
    order = np.argsort(recording.ts_us, kind="stable")
    recording = recording.rows(order)
    if rows is None:
        rows = 0 if until_us is None else int(np.searchsorted(recording.ts_us, until_us))
    head, rest = recording.rows(slice(0, rows)), recording.rows(slice(rows, None))
    from_us = int(rest.ts_us[0]) if len(rest) else int(recording.ts_us[-1]) + 1
    events = None if rest.label is None else tuple(events_of(rest, interval_us))
    return RecordingSplit(replace(head, label=None), replace(rest, label=None), from_us, events)


def events_of(recording: Recording, interval_us: int) -> Iterator[Event]:
    """Yield the labelled events of each asset: runs of labelled readings, each of which lasts one interval."""
    if recording.label is None:
        return
    for number, asset in enumerate(recording.assets):
        rows = np.flatnonzero(recording.asset == number)
        is_fault = np.concatenate(([0], recording.label[rows] != 0, [0])).astype(np.int8)
        edges = np.flatnonzero(np.diff(is_fault))
        for first, end in edges.reshape(-1, 2).tolist():
            ts_us = recording.ts_us[rows]
            yield Event(asset, int(ts_us[first]), int(ts_us[end - 1]) + interval_us)


class RecordingFeed:
    """Recordings as the records of one topic, with one partition per asset so that no asset waits for another.

    Several recordings of one asset follow each other in its partition, in the order in which they were added.
    """

    def __init__(self, topic: str) -> None:
        self.topic = topic
        self.n_readings = 0
        self._numbers: dict[str, int] = {}
        self._parts: list[tuple[int, Recording]] = []

    @property
    def partitions(self) -> tuple[Partition, ...]:
        """One partition for each asset that was added."""
        return tuple(Partition(self.topic, number) for number in self._numbers.values())

    def add(self, recording: Recording) -> None:
        """Add a recording."""
        for one in recording.per_asset():
            if len(one):
                number = self._numbers.setdefault(one.assets[0], len(self._numbers))
                self._parts.append((number, one))
                self.n_readings += len(one)

    def batches(self, *, block: int = 256) -> Iterator[RecordBatch]:
        """Yield the records of all partitions in order of event time. `block`: readings in a record."""
        streams = [
            self._partition(number, [part for owner, part in self._parts if owner == number], block)
            for number in self._numbers.values()
        ]
        return heapq.merge(*streams, key=lambda batch: int(batch.timestamps_us[0]))

    def _partition(self, number: int, parts: Sequence[Recording], block: int) -> Iterator[RecordBatch]:
        base = 0
        for part in parts:
            end = base
            for batch in as_records(part, block=block, partition=Partition(self.topic, number)):
                shifted = replace(batch, offsets=batch.offsets + base)
                end = shifted.next_offset
                yield shifted
            base = end


def last_readings(head: Recording, length: int) -> Recording:
    """Return the last `length` − 1 readings of each asset, so that the next reading completes a window."""
    kept = [np.flatnonzero(head.asset == number)[-(length - 1) :] for number in range(len(head.assets))]
    return head.rows(np.sort(np.concatenate(kept)))


def concatenated(first: Recording, second: Recording) -> Recording:
    """Return two parts of one recording as one."""
    return replace(
        second,
        ts_us=np.concatenate((first.ts_us, second.ts_us)),
        values=np.concatenate((first.values, second.values)),
        asset=np.concatenate((first.asset, second.asset)),
        label=None,
    )
