"""What an operator may do. Used by the command line, and later by the API and the console, alike.

Each verb is one transaction; each refusal is an error that says what to do instead. `clock` is processing time.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from monitor.errors import NotFound
from monitor.store import assets, daemons, jobs

if TYPE_CHECKING:
    from monitor.clock import Clock
    from monitor.store.engine import AsyncStore
    from monitor.types import JobView


@dataclass(frozen=True, slots=True)
class Requested:
    """A job that was queued, and whether anybody is there to do it."""

    job: JobView
    n_daemons: int
    """Daemons with a fresh heartbeat; 0 = the job waits until one starts."""


async def request_retraining(store: AsyncStore, clock: Clock, fleet: str, *, by: str) -> Requested:
    """Ask for a new model. Raises Conflict, naming the job under way, or NotFound, naming the fleets there are."""
    known = await store.read(assets.fleets)
    if fleet not in known:
        raise NotFound(f"fleet {fleet}; the database knows {', '.join(known) or 'none yet: start the daemon once'}")
    now_us = clock.now_us()
    job = await store.run(jobs.request, fleet, by, now_us)
    return Requested(job, await store.read(daemons.count_alive, now_us))


async def job(store: AsyncStore, job_id: int) -> JobView:
    """Return a job as it stands. Raises NotFound."""
    return await store.read(jobs.get, job_id)
