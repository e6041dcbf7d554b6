"""A running delivery loop whose time advances only when a test says so."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING

from monitor.timing import DEFAULT_TIMING
from tests.fakes import FakeClock

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from monitor.notify.deliver import Delivery


class ManualClock(FakeClock):
    """A clock that advances when a test says so. `sleep` only lets other tasks run."""

    advances_in_sleep = False
    n_renewals = 0
    jumped_s = 0.0
    """By which the wall clock was set, without time passing."""

    def now_us(self) -> int:
        return super().now_us() + round(self.jumped_s * 1e6)

    async def sleep(self, seconds: float) -> None:
        self.n_renewals += seconds == DEFAULT_TIMING.lease_renew_every_s
        if self.advances_in_sleep:
            self.advance(seconds)
        await asyncio.sleep(0)


@asynccontextmanager
async def running(delivery: Delivery) -> AsyncIterator[None]:
    """Run a daemon's delivery loop beside the body."""
    loop = asyncio.create_task(delivery.loop())
    try:
        yield
        assert not loop.done()
    finally:
        loop.cancel()
        with suppress(asyncio.CancelledError):
            await loop


async def wait_until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110 (the loop under test sets no event)
            await asyncio.sleep(0)
