"""A log in memory."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterable, AsyncIterator, Iterable
from typing import TYPE_CHECKING

from monitor.kafka import Assigned, Event

if TYPE_CHECKING:
    from collections.abc import Sequence

    from monitor.types import Partition, RecordBatch


class MemorySource:
    """A log in memory: for files, for replay and for tests. All of it is there from the start."""

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

    async def first_offset(self, partition: Partition, start: str) -> int:  # noqa: ARG002  (a log in memory begins at 0)
        return 0

    def seek(self, partition: Partition, offset: int) -> None:
        """Nothing to do: the log is handed out once, from its start."""

    def pause(self) -> None:
        """Nothing to do: nothing comes without `poll`."""

    def resume(self) -> None:
        """Nothing to do."""

    def end_offset(self, partition: Partition) -> int | None:  # noqa: ARG002  (unknown until it is reached)
        return None

    def commit_lag(self, offsets: dict[Partition, int]) -> None:
        """Nobody else looks."""

    async def close(self) -> None:
        """Nothing is open."""


async def _as_async(batches: Iterable[RecordBatch]) -> AsyncIterator[RecordBatch]:
    for batch in batches:
        yield batch
