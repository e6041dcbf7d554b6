"""A source over records in memory.

Input: batches in order. Output: one assignment of all partitions, then the batches. Invariant: all records are there
from the start, so nothing is paused, sought or waited for.
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from monitor.kafka import Assigned, Event

if TYPE_CHECKING:
    from collections.abc import Sequence

    from monitor.types import Partition, RecordBatch


class MemorySource:
    """A log in memory, for files, replay and tests. A `Source`."""

    def __init__(
        self, batches: Iterable[RecordBatch] | AsyncIterable[RecordBatch], partitions: Iterable[Partition]
    ) -> None:
        self._batches = aiter(batches if isinstance(batches, AsyncIterable) else _as_async(batches))
        self._events: deque[Event] = deque([Assigned(tuple(partitions))])
        self.is_exhausted = False

    async def poll(self) -> Sequence[Event]:
        if self._events:
            return [self._events.popleft()]
        try:
            return [await anext(self._batches)]
        except StopAsyncIteration:
            self.is_exhausted = True
            return []

    async def first_offset(self, partition: Partition, start: str) -> int:  # noqa: ARG002  (the log begins at 0)
        return 0

    def seek(self, partition: Partition, offset: int) -> None:
        """Do nothing: the records are handed out once, from the first."""

    def pause(self) -> None:
        """Do nothing: no records come without `poll`."""

    def resume(self) -> None:
        """Do nothing."""

    def end_offset(self, partition: Partition) -> int | None:  # noqa: ARG002  (unknown until the last batch)
        return None

    def commit_lag(self, offsets: dict[Partition, int]) -> None:
        """Do nothing: there is no group."""

    async def close(self) -> None:
        """Close the iterator of the records: it may hold a consumer."""
        await _close(self._batches)


async def _as_async(batches: Iterable[RecordBatch]) -> AsyncIterator[RecordBatch]:
    for batch in batches:
        yield batch


@asynccontextmanager
async def iterate(batches: AsyncIterable[RecordBatch]) -> AsyncIterator[AsyncIterator[RecordBatch]]:
    """Provide an iterator over records that is closed at the end, also where not all of them are read."""
    iterator = aiter(batches)
    try:
        yield iterator
    finally:
        await _close(iterator)


async def _close(batches: AsyncIterator[RecordBatch]) -> None:
    if isinstance(batches, AsyncGenerator):
        await batches.aclose()
