"""Operators' actions, for the command line, the console and its API alike.

Input: an open database, the arguments of the action, and the clock of processing time. Output: the result. Invariant:
each action is one transaction, and each refusal is an error that states the remedy.
"""

from __future__ import annotations

import asyncio
import platform
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from monitor.errors import CheckpointDamaged, CheckpointUnavailable, NotFound, WrongState
from monitor.models import checkpoint_files, misfit
from monitor.printable import normal_name
from monitor.store import (
    accepted,
    acts,
    assets,
    daemons,
    jobs,
    labels,
    life,
    links,
    maintenance_windows,
    registry,
    shelves,
    versions,
)
from monitor.store.acts import Actor
from monitor.store.matching import Target, Window

if TYPE_CHECKING:
    from monitor.clock import Clock
    from monitor.config import Config
    from monitor.links import Link
    from monitor.store.accepted import Acceptance
    from monitor.store.engine import AsyncStore
    from monitor.store.versions import Activation
    from monitor.types import JobView, Label, VersionInfo

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


async def request_retraining(
    store: AsyncStore, clock: Clock, fleet: str, *, by: str, note: str = ""
) -> Requested:
    """Queue a training job. Raises Conflict, which names the active job, or NotFound, which names the known fleets."""
    await _check_known(store, fleet)
    return await _request(store, clock, fleet, by, jobs.RETRAIN, note)


async def request_drill(store: AsyncStore, clock: Clock, fleet: str, *, by: str, note: str = "") -> Requested:
    """Queue a drill of the champion. Its result is stored, and opens or closes the alert `drill_failed`.

    Raises Conflict, which names the active drill, NotFound for a fleet that is unknown or has no champion.
    """
    await _check_known(store, fleet)
    if await store.read(versions.champion, fleet) is None:
        raise NotFound(f"a champion of {fleet} to drill; monitor models list shows the versions")
    return await _request(store, clock, fleet, by, jobs.DRILL, note)


async def _check_known(store: AsyncStore, fleet: str) -> None:
    known = await store.read(assets.fleets)
    if fleet not in known:
        raise NotFound(f"fleet {fleet}; the database knows {', '.join(known) or 'none yet: start the daemon once'}")


async def _request(store: AsyncStore, clock: Clock, fleet: str, by: str, kind: str, note: str) -> Requested:
    now_us = clock.now_us()
    job = await store.run(jobs.request, fleet, by, now_us, kind, note=acts.clean_note(note))
    return Requested(job, await store.read(daemons.count_alive, now_us))


async def accept_normal(
    store: AsyncStore,
    clock: Clock,
    fleet: str,
    asset: str | None,
    from_us: int,
    to_us: int,
    *,
    actor: Actor,
    note: str = "",
    history_us: int | None = None,
) -> tuple[Acceptance, Requested]:
    """Accept (from_us, to_us] as normal, of an asset or of all of a fleet, and queue the training that learns it.

    `history_us`: the fleet's `retrain.history`. Raises ConfigError for times that cannot be accepted, NotFound, and
    Conflict for a time that is labelled fault, or while the fleet has a training job. Then nothing is accepted.
    """
    now_us = clock.now_us()
    call = (fleet, asset, from_us, to_us, note, actor, now_us, history_us)
    accepted_time = await store.run(accepted.accept_normal, *call)
    return accepted_time, Requested(accepted_time.job, await store.read(daemons.count_alive, now_us))


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


# ---------------------------------------------------------------- model versions


async def promote_version(
    store: AsyncStore,
    clock: Clock,
    config: Config,
    version: str,
    *,
    actor: Actor,
    note: str = "",
    overrule: bool = False,
) -> Activation:
    """Make a version the champion of its fleet, for windows that no daemon has decided.

    Its checkpoint is verified first. Running daemons follow within seconds. `overrule`: also one that the gate
    rejected. Raises NotFound, and Conflict for a version that must not or cannot decide: then nothing has changed.
    """
    found = await store.read(versions.find, version)
    if found.pruned_at is None:  # the registry refuses a pruned one, and says when it was
        await _verify(store, config, found)
    return await store.run(
        registry.promote,
        found.fleet,
        version,
        actor=actor,
        at_us=clock.now_us(),
        note=note,
        overrule=overrule,
    )


async def roll_back(
    store: AsyncStore, clock: Clock, config: Config, fleet: str, *, actor: Actor, note: str = ""
) -> Activation:
    """Return to the fleet's version before the champion, for windows that no daemon has decided.

    Its checkpoint is verified first. The alerts of the former champion are marked. A second roll-back undoes the first.
    Raises NotFound, and Conflict: then nothing has changed.
    """
    await _check_known(store, fleet)
    target = await store.read(registry.previous_version, fleet)
    await _verify(store, config, await store.read(versions.find, target))
    return await store.run(registry.roll_back, fleet, actor=actor, at_us=clock.now_us(), note=note, to=target)


async def reject_version(store: AsyncStore, clock: Clock, version: str, *, actor: Actor, note: str = "") -> None:
    """Reject a version that waits for a decision. Raises NotFound, Conflict for one that decides or has decided."""
    await store.run(registry.reject, version, actor=actor, at_us=clock.now_us(), note=note)


async def _verify(store: AsyncStore, config: Config, found: VersionInfo) -> None:
    """Raise WrongState for a version whose checkpoint is not intact and here, or does not fit its fleet."""
    fleet = next((fleet for fleet in config.fleets if fleet.name == found.fleet), None)
    if fleet is None:
        known = ", ".join(each.name for each in config.fleets)
        raise WrongState(
            f"version {found.version} belongs to fleet {found.fleet}, and {config.path} has only {known}. Use the"
            " configuration of the daemon"
        )
    path = Path(found.path)
    try:
        files = await asyncio.to_thread(checkpoint_files.read, path)
        stored = (await store.read(assets.fleets)).get(fleet.name)
        length = None if fleet.window is None else fleet.length
        reason = misfit.reason_of_card(files.card, length, fleet.sensors or stored)
    except CheckpointUnavailable as error:
        raise WrongState(
            f"the checkpoint of {found.version} cannot be read on this machine ({platform.node()}):"
            f" {error.detail}. The champion stays; use a machine that has the folder {path.parent}, like the daemon's"
        ) from error
    except CheckpointDamaged as error:
        raise WrongState(
            f"the checkpoint of {found.version} is damaged, and the champion stays: {error.detail}."
            f" Restore {path} from a backup, or train anew with monitor retrain {found.fleet}"
        ) from error
    if (files.card["version"], files.card.get("fleet")) != (found.version, found.fleet):
        holds = f"{files.card['version']} of fleet {files.card.get('fleet')}"
        raise WrongState(f"{path} holds {holds}, not {found.version} of {found.fleet}; the champion stays")
    if reason is not None:
        remedy = f"the champion stays, and monitor retrain {found.fleet} trains anew"
        raise WrongState(f"version {found.version} {reason}; {remedy}")
