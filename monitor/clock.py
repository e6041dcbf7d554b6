"""Processing time as an argument, and conversions of event time.

Input: the machine's clocks. Output: a `Clock` for every object that waits or measures; tests pass a
`tests.fakes.FakeClock`. Invariant: only this module and the owners of timers read the machine's clocks.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from typing import Protocol

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def to_us(moment: datetime) -> int:
    """Convert an aware datetime to µs since 1970."""
    return (moment - EPOCH) // timedelta(microseconds=1)


def from_us(us: int) -> datetime:
    """Convert µs since 1970 to an aware UTC datetime."""
    return EPOCH + timedelta(microseconds=us)


def iso_seconds(us: int) -> str:
    """Format µs since 1970 as ISO 8601 in UTC, to the second."""
    return from_us(int(us)).isoformat(timespec="seconds")


class Clock(Protocol):
    """The operations of time that a loop may use."""

    def now_us(self) -> int:
        """Return the processing time, µs since 1970. May jump when the machine's clock is set."""
        ...

    def monotonic_s(self) -> float:
        """Return seconds since an arbitrary start. Never jumps: for durations and deadlines."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Wait that long; other tasks run meanwhile."""
        ...


class SystemClock:
    """The machine's clock."""

    def now_us(self) -> int:
        """Return the processing time, µs since 1970."""
        return time.time_ns() // 1000

    def monotonic_s(self) -> float:
        """Return seconds since an arbitrary start."""
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        """Wait that long; other tasks run meanwhile."""
        import asyncio  # 50 ms, which operators' commands save

        await asyncio.sleep(seconds)
