"""Operators' actions, for the command line and later for the API and the console.

Input: an open database, the arguments of the action, and the clock of processing time. Output: the result. Invariant:
each action is one transaction, and each refusal is an error that states the remedy.
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
    """A queued job, and the number of daemons that can run it."""

    job: JobView
    n_daemons: int
    """Daemons with a fresh heartbeat; 0 = the job waits until one starts."""


async def request_retraining(store: AsyncStore, clock: Clock, fleet: str, *, by: str) -> Requested:
    """Queue a training job. Raises Conflict, which names the active job, or NotFound, which names the known fleets."""
    known = await store.read(assets.fleets)
    if fleet not in known:
        raise NotFound(f"fleet {fleet}; the database knows {', '.join(known) or 'none yet: start the daemon once'}")
    now_us = clock.now_us()
    job = await store.run(jobs.request, fleet, by, now_us)
    return Requested(job, await store.read(daemons.count_alive, now_us))


async def count_daemons(store: AsyncStore, clock: Clock) -> int:
    """Return the number of daemons with a fresh heartbeat."""
    return await store.read(daemons.count_alive, clock.now_us())


async def job(store: AsyncStore, job_id: int) -> JobView:
    """Return a job with its state and progress. Raises NotFound."""
    return await store.read(jobs.get, job_id)
