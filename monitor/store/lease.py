"""What only one daemon does at a time, and whether that is us. `store/leases.py` says what a lease is.

Law: to hold a lease is a reason to begin; only `leases.check`, inside the transaction, is a reason to write.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from secrets import token_hex
from typing import TYPE_CHECKING

from monitor import logs
from monitor.errors import MonitorError, StoreUnavailable
from monitor.store import leases

if TYPE_CHECKING:
    from monitor.clock import Clock
    from monitor.store.engine import AsyncStore

log = logs.get("lease")

TTL_S = 15.0
"""After the death of a holder another takes over within so long."""
RENEW_EVERY_S = 5.0
RELEASE_S = 0.5
"""A database that hangs must not hold up our stopping; then the lease simply runs out."""


class Lease:
    """One lease, taken and renewed for as long as `loop` runs."""

    def __init__(self, store: AsyncStore, name: str, owner: str, clock: Clock) -> None:
        self.name = name
        self.epoch: int | None = None
        """Under which it is ours, as far as we know; None = another's."""
        self._store = store
        # Two containers may share a host's name and a process number; a lease may not be shared.
        self._holder = f"{owner}:{token_hex(4)}"
        self._clock = clock

    @property
    def under(self) -> tuple[str, int]:
        """What `leases.check` asks for; while the lease is another's, what it refuses."""
        return self.name, self.epoch or 0

    async def look(self) -> bool:
        """Take it or renew it; say whether it is ours. Raises StoreUnavailable: then nobody knows."""
        before = self.epoch
        self.epoch = await self._store.run(leases.take, self.name, self._holder, TTL_S)
        if self.epoch is not None and self.epoch != before:
            log.debug("lease_taken", lease=self.name, epoch=self.epoch)
        return self.epoch is not None

    async def loop(self) -> None:
        """Hold it until cancelled; then give it up, so that nobody waits for its end."""
        try:
            while True:
                with suppress(StoreUnavailable):
                    await self.look()
                await self._clock.sleep(RENEW_EVERY_S)
        finally:
            if self.epoch is not None:
                with suppress(MonitorError, TimeoutError):
                    async with asyncio.timeout(RELEASE_S):
                        await self._store.run(leases.release, self.name, self._holder, self.epoch)

    def lost(self, epoch: int) -> None:
        """Somebody was told Fenced under this epoch."""
        if self.epoch == epoch:
            self.epoch = None
