"""Fakes for tests: a clock that is moved by hand, a source with logs in memory, a logger that records.

Tests of other packages may use them, so the interfaces are stable.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_left
from collections import deque
from operator import itemgetter
from typing import TYPE_CHECKING, Any

import numpy as np

from monitor.kafka import Assigned, Event
from monitor.types import Partition, RecordBatch

if TYPE_CHECKING:
    from collections.abc import Sequence

Record = tuple[int, int, bytes | None, bytes | None]
"""(offset, Kafka's timestamp in µs or -1, key, value)."""


class FakeClock:
    """A `Clock` that advances only by `advance` and by `sleep`."""

    def __init__(self, now_us: int = 1_700_000_000_000_000) -> None:
        self._now_us = now_us
        self.slept_s: list[float] = []

    def now_us(self) -> int:
        """Processing time, µs since 1970."""
        return self._now_us

    def monotonic_s(self) -> float:
        """Seconds from an arbitrary start."""
        return self._now_us / 1e6

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        self._now_us += round(seconds * 1e6)

    async def sleep(self, seconds: float) -> None:
        """Let time pass, and other tasks run."""
        self.slept_s.append(seconds)
        self.advance(seconds)
        await asyncio.sleep(0)


def records_of(*pairs: tuple[bytes | None, bytes | None]) -> list[Record]:
    """Number (key, value) pairs from offset 0, without Kafka timestamps."""
    return [(offset, -1, key, value) for offset, (key, value) in enumerate(pairs)]


def batch_of(partition: Partition, records: Sequence[Record]) -> RecordBatch:
    """Make a batch of records in offset order."""
    return RecordBatch(
        partition=partition,
        offsets=np.array([offset for offset, *_ in records], dtype=np.int64),
        timestamps_us=np.array([at_us for _, at_us, *_ in records], dtype=np.int64),
        keys=[key for *_, key, _ in records],
        values=[value for *_, value in records],
    )


class LogSource:
    """A `Source` with logs in memory. Like Kafka's, they can be read from any offset, again and again."""

    def __init__(self, logs: dict[Partition, Sequence[Record]], batch: int = 100) -> None:
        self._logs = logs
        self._batch = batch
        self._position: dict[Partition, int] = {}
        """Index in the list, not an offset: logs may have gaps."""
        self._events: deque[Event] = deque([Assigned(tuple(logs))])
        self._is_paused = False
        self.lag_committed: dict[Partition, int] = {}

    @property
    def is_exhausted(self) -> bool:
        """True once every log was returned to its end."""
        return not self._events and all(self._position.get(p, -1) >= len(log) for p, log in self._logs.items())

    async def poll(self) -> Sequence[Event]:
        """Return one batch of each partition."""
        if self._events:
            return [self._events.popleft()]
        await asyncio.sleep(0)
        if self._is_paused:
            return []
        events: list[Event] = []
        for partition, position in self._position.items():
            records = self._logs[partition][position : position + self._batch]
            if records:
                events.append(batch_of(partition, records))
                self._position[partition] = position + len(records)
        return events

    def give(self, event: Event) -> None:
        """Add an assignment, a revocation or a gap."""
        self._events.append(event)

    async def first_offset(self, partition: Partition, start: str) -> int:
        """Return 0, or the end of the log."""
        return self._end(partition) if start == "latest" else 0

    def seek(self, partition: Partition, offset: int) -> None:
        """Read this partition from here on."""
        self._position[partition] = bisect_left(self._logs[partition], offset, key=itemgetter(0))

    def pause(self) -> None:
        """Return nothing until `resume`."""
        self._is_paused = True

    def resume(self) -> None:
        """Return batches again."""
        self._is_paused = False

    def end_offset(self, partition: Partition) -> int | None:
        """Return the end of the log."""
        return self._end(partition)

    def commit_lag(self, offsets: dict[Partition, int]) -> None:
        """Record the offsets."""
        self.lag_committed.update(offsets)

    async def close(self) -> None:
        """Nothing is open."""

    def _end(self, partition: Partition) -> int:
        log = self._logs[partition]
        return log[-1][0] + 1 if log else 0


class RecordedLog:
    """A logger that keeps level, event and facts of each line."""

    def __init__(self) -> None:
        self.lines: list[tuple[str, str, dict[str, Any]]] = []

    def debug(self, event: str, **facts: Any) -> None:
        """Record an event."""
        self.lines.append(("debug", event, facts))

    def info(self, event: str, **facts: Any) -> None:
        """Record an event."""
        self.lines.append(("info", event, facts))

    def warning(self, event: str, **facts: Any) -> None:
        """Record an event."""
        self.lines.append(("warning", event, facts))

    def error(self, event: str, **facts: Any) -> None:
        """Record an event."""
        self.lines.append(("error", event, facts))

    def of(self, event: str) -> list[dict[str, Any]]:
        """Return the facts of each line of an event."""
        return [facts for _, name, facts in self.lines if name == event]
