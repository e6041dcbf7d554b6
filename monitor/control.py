"""Operators' actions, for the command line, the console and its API alike.

Input: an open database, the arguments of the action, and the clock of processing time. Output: the result. Invariant:
each action is one transaction, and each refusal is an error that states the remedy.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from monitor.errors import NotFound
from monitor.printable import normal_name
from monitor.store import assets, daemons, jobs, labels, life, links, maintenance_windows, shelves
from monitor.store.acts import Actor
from monitor.store.matching import Target, Window

if TYPE_CHECKING:
    from monitor.clock import Clock
    from monitor.links import Link
    from monitor.store.engine import AsyncStore
    from monitor.types import JobView, Label

__all__ = ["Actor", "Maintenance", "Requested", "ShelfTarget"]


@dataclass(frozen=True, slots=True)
class ShelfTarget:
    """Alerts to shelve: one, or all that match."""

    alert_id: int | None = None
    fleet: str | None = None
    asset: str | None = None
    """Name or glob."""
    sensor: str | None = None
    """Only alerts blamed on this sensor."""


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


# ---------------------------------------------------------------- answers to alerts


async def use_link(store: AsyncStore, clock: Clock, link: Link, *, actor: Actor, note: str = "") -> None:
    """Do what the link of a notification is for, once. A refused or failed act leaves it usable.

    Raises NotFound, or Conflict for a link that was used and for what the act itself refuses.
    """
    await store.run(links.use, link, note, actor, clock.now_us())


async def acknowledge(store: AsyncStore, clock: Clock, alert_id: int, *, actor: Actor, note: str = "") -> None:
    """Acknowledge an open alert. It ends with the alert, and when the alert becomes much worse or fires again.

    Raises NotFound, or Conflict for an alert that is closed or acknowledged.
    """
    await store.run(life.acknowledge, alert_id, note, actor, clock.now_us())


async def unacknowledge(store: AsyncStore, clock: Clock, alert_id: int, *, actor: Actor, note: str = "") -> None:
    """Take an acknowledgement back. Raises NotFound, or Conflict where there is none."""
    await store.run(life.unacknowledge, alert_id, note, actor, clock.now_us())


async def shelve(
    store: AsyncStore, clock: Clock, target: ShelfTarget, *, until: str, reason: str, actor: Actor
) -> int:
    """Shelve alerts: no notifications until an end. Return the shelf's id.

    `until`: a duration or time ("7d", "2026-01-31T08:00Z"), "recovered", "worse:2x", or "5x/1d" (more than so many
    alerts in so long), or several joined by " or ". Raises NotFound, ConfigError for an `until` that cannot be read or
    an empty reason, Conflict.
    """
    wanted = Target(target.alert_id, target.fleet, target.asset, target.sensor)
    return await store.run(shelves.shelve, wanted, until, reason, actor, clock.now_us())


async def unshelve(store: AsyncStore, clock: Clock, shelf_id: int, *, actor: Actor, note: str = "") -> None:
    """End a shelf. Raises NotFound, Conflict for one that has ended."""
    await store.run(shelves.end_by_hand, shelf_id, note, actor, clock.now_us())


async def label_alert(
    store: AsyncStore, clock: Clock, alert_id: int, label: Label | None, *, actor: Actor, note: str = ""
) -> None:
    """Label an alert, or remove its label. Raises NotFound, Conflict for an alert that is not of class `process`."""
    await store.run(labels.label_alert, alert_id, label, note, actor, clock.now_us())


async def label_interval(
    store: AsyncStore,
    clock: Clock,
    fleet: str | None,
    asset: str,
    from_us: int,
    to_us: int,
    label: Label,
    *,
    actor: Actor,
    note: str = "",
) -> int:
    """Label a time of an asset (from_us, to_us] in event time. Return the label's id. Raises NotFound, ConfigError."""
    return await store.run(
        labels.label_interval, fleet, asset, from_us, to_us, label, note, actor, clock.now_us()
    )


async def remove_interval_label(store: AsyncStore, clock: Clock, label_id: int, *, actor: Actor) -> None:
    """Take a label back. Raises NotFound, Conflict."""
    await store.run(labels.remove_interval_label, label_id, actor, clock.now_us())


async def close_alert(store: AsyncStore, clock: Clock, alert_id: int, *, reason: str, actor: Actor) -> None:
    """Close an alert by hand. It opens again if it fires again or becomes much worse. Raises NotFound, Conflict."""
    await store.run(life.close, alert_id, reason, actor, clock.now_us())


@dataclass(frozen=True, slots=True)
class Maintenance:
    """A time in which assets are scored and nobody is notified: once, or recurring."""

    fleet: str
    """Name or glob."""
    asset: str
    """Name or glob."""
    from_us: int
    to_us: int | None
    """None = recurs without an end."""
    reason: str
    cron: str | None = None
    """Start of each occurrence."""
    duration_us: int | None = None
    timezone: str = "UTC"


async def plan_maintenance(store: AsyncStore, clock: Clock, plan: Maintenance, *, actor: Actor) -> int:
    """Plan a maintenance window and return its id. Raises ConfigError, NotFound for a fleet that does not exist."""
    window = Window(
        plan.fleet, normal_name(plan.asset), plan.from_us, plan.to_us, plan.cron, plan.duration_us, plan.timezone
    )
    return await store.run(maintenance_windows.plan, window, plan.reason, actor, clock.now_us())


async def end_maintenance(store: AsyncStore, clock: Clock, maintenance_id: int, *, actor: Actor) -> None:
    """Cancel a maintenance window, or end it now. Raises NotFound, Conflict."""
    await store.run(maintenance_windows.end, maintenance_id, actor, clock.now_us())
