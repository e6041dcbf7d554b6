"""Jobs that a command asks the running daemon for: wait for the end of one, with progress and the time left.

Input: a queued job. Output: the job at its end. Invariant: a command does not wait for a daemon that is not there.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from monitor import version_words, wording
from monitor.cli.progress import progress
from monitor.cli.terminal import Styled, echo
from monitor.clock import from_us
from monitor.errors import MonitorError

if TYPE_CHECKING:
    from monitor.clock import Clock
    from monitor.control import Requested
    from monitor.store.engine import AsyncStore
    from monitor.types import JobView

POLL_EVERY_S = 0.3
"""Time between two looks at the job."""
ALONE_FOR_S = 5.0
"""Time without a running daemon after which the wait ends: nobody would ever do the job."""


def tell_if_alone(requested: Requested) -> None:
    """Print that no daemon runs."""
    if requested.n_daemons == 0:
        echo(Styled("No daemon is running: the job waits until one starts (monitor run).", "yellow"), err=True)


async def end_of(job_id: int, store: AsyncStore, clock: Clock) -> JobView:
    """Wait for the end of a job, and return the job. It is not at its end if no daemon runs."""
    import asyncio

    from monitor import control

    left, n_alone = version_words.TimeLeft(), 0
    job = await control.job(store, job_id)
    with progress(job.fleet, line_every_s=0.0) as on_progress:
        while job.state in ("queued", "running") and n_alone * POLL_EVERY_S < ALONE_FOR_S:
            await asyncio.sleep(POLL_EVERY_S)
            job = await control.job(store, job_id)
            n_alone = 0 if await control.count_daemons(store, clock) else n_alone + 1
            text = f"{job.state}: {job.message}" if job.message else job.state
            on_progress(job.progress, text + _left(left, job, clock))
    return job


def _left(left: version_words.TimeLeft, job: JobView, clock: Clock) -> str:
    """Format the time that a job still needs, to ten seconds: a finer one would change at each look."""
    now = from_us(clock.now_us())
    raw = job.eta(now)
    seconds = left.update(None if raw is None else raw.total_seconds(), now.timestamp())
    return "" if seconds is None else f", about {wording.duration(max(10, round(seconds, -1)))} left"


def check_done(job: JobView) -> None:
    """Raise MonitorError for a job that failed, or that no daemon carries out."""
    if job.state in ("queued", "running"):
        fate = "the job stays queued" if job.state == "queued" else "the next one starts it again"
        raise MonitorError(
            f"job {job.id} for {job.fleet}: no daemon is running, and {fate}. Start one with `monitor run`"
        )
    if job.state == "failed":
        raise MonitorError(f"job {job.id} for {job.fleet} failed: {job.message}")
