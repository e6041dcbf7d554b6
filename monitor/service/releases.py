"""The loop that ends shelves and maintenance windows, and notifies alerts that still fire.

Input: the answers of operators in the database, which any process may write. Output: ended rows and notifications
(`store/releases.py`). Invariant: an operator's act takes effect within `releases_every_s` and a transaction.

Of several daemons the holder of the lease `outbox` works. The lease saves work: a release is notified once in any case.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from monitor import logs
from monitor.errors import MonitorError
from monitor.store import releases
from monitor.timing import DEFAULT_TIMING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from monitor.clock import Clock
    from monitor.store.engine import AsyncStore
    from monitor.store.lease_renewal import Lease
    from monitor.store.outbox import Channel
    from monitor.timing import Timing

log = logs.get("releases")


class Releases:
    """Ends shelves and windows in time, while `loop` runs."""

    def __init__(
        self,
        store: AsyncStore,
        channels: Sequence[Channel],
        clock: Clock,
        lease: Lease | None,
        timing: Timing = DEFAULT_TIMING,
    ) -> None:
        """`lease`: the one named `outbox.LEASE`, which another loop renews. None = no notifications."""
        self._store = store
        self._channels = channels
        self._clock = clock
        self._lease = lease
        self._timing = timing

    async def loop(self) -> None:
        """Look for something to end, until cancelled."""
        while True:
            try:
                await self.run_once()
            except MonitorError as error:
                log.debug("releases_wait", detail=error.detail)
            await self._clock.sleep(self._timing.releases_every_s)

    async def run_once(self) -> list[int]:
        """End shelves and windows in time, and return the alerts that are notified again. Raises StoreUnavailable."""
        if self._lease is not None and self._lease.epoch is None:
            return []
        now_us = self._clock.now_us()
        if not await self._store.read(releases.is_due, self._channels, now_us):
            return []
        released = await self._store.run(releases.release, self._channels, now_us)
        if released:
            log.info("alerts_resumed", alerts=released, meaning="no longer shelved or in maintenance, and still firing")
        return released
