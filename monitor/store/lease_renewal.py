"""A lease that one daemon acquires and renews in a loop. `store/leases.py` defines leases.

Invariant: `Lease.epoch` only suggests that work may start. `leases.check`, inside the transaction, permits a write.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from secrets import token_hex
from typing import TYPE_CHECKING

from monitor import logs
from monitor.errors import MonitorError, StoreUnavailable
from monitor.store import leases
from monitor.timing import DEFAULT_TIMING

if TYPE_CHECKING:
    from monitor.clock import Clock
    from monitor.store.engine import AsyncStore
    from monitor.timing import Timing

log = logs.get("lease")


class Lease:
    """One lease, acquired and renewed while `loop` runs."""

    def __init__(
        self, store: AsyncStore, name: str, owner: str, clock: Clock, timing: Timing = DEFAULT_TIMING
    ) -> None:
        self.name = name
        self.epoch: int | None = None
        """Epoch under which this process holds the lease, as far as it knows. None = another's."""
        self._store = store
        # Two containers may share a host name and a process id. A lease must not be shared.
        self._holder = f"{owner}:{token_hex(4)}"
        self._clock = clock
        self._timing = timing

    @property
    def fencing_token(self) -> tuple[str, int]:
        """Arguments for `leases.check`, which refuses them while the lease is another's."""
        return self.name, self.epoch or 0

    async def acquire(self) -> bool:
        """Acquire or renew the lease. Return True if this process holds it. Raises StoreUnavailable: unknown."""
        before = self.epoch
        self.epoch = await self._store.run(leases.acquire, self.name, self._holder, self._timing.lease_ttl_s)
        if self.epoch is not None and self.epoch != before:
            log.debug("lease_taken", lease=self.name, epoch=self.epoch)
        return self.epoch is not None

    async def loop(self) -> None:
        """Hold the lease until cancelled. Then release it, so that no daemon waits for its end."""
        try:
            while True:
                with suppress(StoreUnavailable):
                    await self.acquire()
                await self._clock.sleep(self._timing.lease_renew_every_s)
        finally:
            if self.epoch is not None:
                with suppress(MonitorError, TimeoutError):
                    async with asyncio.timeout(self._timing.lease_release_limit_s):
                        await self._store.run(leases.release, self.name, self._holder, self.epoch)

    def mark_lost(self, epoch: int) -> None:
        """Note that work under this epoch was fenced."""
        if self.epoch == epoch:
            self.epoch = None
