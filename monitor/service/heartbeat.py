"""The daemon's heartbeat: its row in the database, and its progress in the log.

Input: the counters of the pipeline. Output: an updated row every two seconds, so that commands know a daemon is alive,
and a `progress` line every thirty seconds in which records were saved. Invariant: a heartbeat that fails delays
nothing.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING

from monitor import logs
from monitor.errors import MonitorError, StoreUnavailable
from monitor.lifecycle.champions import WindowChanged
from monitor.service.shutdown import StopRequested
from monitor.store import daemons
from monitor.timing import DEFAULT_TIMING
from monitor.types import Counters

if TYPE_CHECKING:
    from monitor.clock import Clock
    from monitor.service.health import Health
    from monitor.store.engine import AsyncStore
    from monitor.stream.pipeline import Pipeline
    from monitor.timing import Timing

log = logs.get("daemon")


class Heartbeat:
    """Reports that the daemon is alive, and how far its pipeline is."""

    def __init__(
        self,
        pipeline: Pipeline,
        store: AsyncStore,
        owner: str,
        clock: Clock,
        health: Health,
        timing: Timing = DEFAULT_TIMING,
    ) -> None:
        self._pipeline = pipeline
        self._store = store
        self._owner = owner
        self._clock = clock
        self._health = health
        self._timing = timing
        self._started_us = clock.now_us()

    async def loop(self) -> None:
        """Send heartbeats until cancelled."""
        logged_at_s, logged = self._clock.monotonic_s(), 0
        while True:
            progress = self.progress()
            try:
                await self.send(", ".join(f"{name} {value}" for name, value in progress.items()) or "starting")
            except StoreUnavailable as error:
                log.debug("pulse_missed", error=error.detail)
            now_s, records = self._clock.monotonic_s(), progress.get("records", 0)
            if now_s - logged_at_s >= self._timing.progress_every_s and records != logged:
                logged_at_s, logged = now_s, records
                log.info("progress", **progress)
            await self._clock.sleep(self._timing.heartbeat_every_s)

    async def send(self, status: str) -> None:
        """Update the daemon's row. Raises StoreUnavailable."""
        await self._store.run(
            daemons.heartbeat,
            owner=self._owner,
            pipeline=self._pipeline.config.kafka.group,
            started_us=self._started_us,
            now_us=self._clock.now_us(),
            status=status,
        )
        self._health.database_answered()

    async def deregister(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        """Delete the daemon's row, so that a request for a retraining can report that no daemon runs.

        An asynchronous exit callback. After a defect the claims of the partitions keep counting: their next owner then
        reads record by record, in case a record kills the process.
        """
        expected = (MonitorError, StopRequested, WindowChanged, asyncio.CancelledError)
        is_deliberate = error is None or isinstance(error, expected)
        with suppress(MonitorError, TimeoutError):
            async with asyncio.timeout(self._timing.deregister_limit_s):
                await self._store.run(daemons.deregister, self._owner, is_deliberate)

    def progress(self) -> dict[str, int]:
        """Return the counters of the present partitions, and their lag in records; {} = no partition yet."""
        states = self._pipeline.partitions.values()
        if not states:
            return {}
        total = Counters()
        lag = 0
        for state in states:
            total.add(state.counters)
            end = self._pipeline.source.end_offset(state.partition)
            lag += max(0, (end or 0) - state.next_offset)
        names = ("records", "readings", "windows", "scored", "quarantined", "late", "duplicate")
        return {"partitions": len(states), "lag": lag} | {name: getattr(total, name) for name in names}
