"""Events of the source in order, also while the pipeline waits for a dependency.

Input: a source. Output: its events, one at a time; the results of calls that may have to wait. Invariant: the source is
polled during every wait, so the consumer stays in its group, and it is never left paused.
"""

from __future__ import annotations

from collections import deque
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from monitor import logs
from monitor.errors import dependency_of
from monitor.kafka import Revoked
from monitor.retry import OutageObserver, retry_transient
from monitor.types import RecordBatch

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Awaitable, Callable

    from monitor.clock import Clock
    from monitor.errors import MonitorError
    from monitor.kafka import Event, Source
    from monitor.timing import Timing
    from monitor.types import Partition

log = logs.get("pipeline")
T = TypeVar("T")


class SourceReader(OutageObserver):
    """The queue of polled events, and the wait for a dependency."""

    def __init__(self, source: Source, clock: Clock, timing: Timing, stopping: asyncio.Event) -> None:
        self.source = source
        self.waits_for: MonitorError | None = None
        """The outage that holds the batch in hand; waiting helps."""
        self._clock = clock
        self._retry_s = timing.batch_retry_s
        self._stopping = stopping
        self._queue: deque[Event] = deque()
        self._outage_began_s = 0.0
        self._dependency = ""

    async def poll(self) -> None:
        """Append the next events of the source."""
        self._queue.extend(await self.source.poll())

    def next_event(self) -> Event | None:
        """Remove the oldest event. None = there is none."""
        return self._queue.popleft() if self._queue else None

    def discard_batches(self, partition: Partition) -> None:
        """Drop the batches of a partition that is claimed: it continues at another offset."""
        self._queue = deque(
            event for event in self._queue if not (isinstance(event, RecordBatch) and event.partition == partition)
        )

    def is_revoked(self, partition: Partition) -> bool:
        """Return whether the group has taken the partition away."""
        return any(isinstance(event, Revoked) and partition in event.partitions for event in self._queue)

    async def call(self, work: Callable[..., Awaitable[T]], /, *args: object) -> T:
        """Call until database, broker and checkpoint are available: hold the batch, take no other, stay in the group.

        All partitions wait, also where only one fleet's checkpoint is missing. Half of the batch is in the windows, so
        to continue with another partition would mean to drop this one, and to claim and rebuild it at each attempt.
        And a missing folder is missing for every fleet.
        """
        call = partial(work, *args)
        return await retry_transient(call, pause=self._poll_paused, observer=self, stop=self._stopping)

    async def _poll_paused(self) -> None:
        await self.poll()
        await self._clock.sleep(self._retry_s)

    def failed(self, error: MonitorError, n_failures: int) -> None:
        """Pause the source at the begin of an outage, and log it."""
        self.waits_for = error
        if n_failures == 1:
            self._outage_began_s = self._clock.monotonic_s()
            self._dependency = dependency_of(error)
            log.warning(f"{self._dependency}_away", error=error.detail, doing="holding the batch, waiting")
            self.source.pause()

    def ended(self) -> None:
        """Resume the source, also where the wait ended as Fenced: a source left paused would be silent for ever."""
        self.waits_for = None
        log.info(f"{self._dependency}_back", after_s=round(self._clock.monotonic_s() - self._outage_began_s, 1))
        self.source.resume()
