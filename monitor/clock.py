"""Time as an argument. Event time comes from records; this is the other one, ours.

Law: outside this file and the loops that own a timer nobody asks what time it is; who needs to know is handed a
`Clock`, and a test hands in another (`tests.fakes.FakeClock`).
"""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from typing import Protocol

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def to_us(moment: datetime) -> int:
    """Turn an aware datetime into µs since 1970."""
    return (moment - EPOCH) // timedelta(microseconds=1)


def from_us(us: int) -> datetime:
    """Turn µs since 1970 into an aware UTC datetime."""
    return EPOCH + timedelta(microseconds=us)


class Clock(Protocol):
    """What a loop may ask of time."""

    def now_us(self) -> int:
        """Processing time, µs since 1970. May jump when the machine's clock is set."""
        ...

    def monotonic_s(self) -> float:
        """Seconds from an arbitrary start; never jumps. For durations and deadlines."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Wait."""
        ...


class SystemClock:
    """The machine's own clock."""

    def now_us(self) -> int:
        """Processing time, µs since 1970."""
        return time.time_ns() // 1000

    def monotonic_s(self) -> float:
        """Seconds from an arbitrary start."""
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        """Wait."""
        import asyncio  # 50 ms that an operator's command does not pay

        await asyncio.sleep(seconds)
