"""Acceptance of a time as normal: labels on it, and the training that learns it.

Input: a fleet, one of its assets or all of them, a time. Output: a label for each asset, and a queued job, in one
transaction. Invariant: an acceptance never hides a confirmed fault. A time that is labelled `fault` is refused, with
the way to take the label back.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from sqlalchemy import text

from monitor.clock import from_us as at
from monitor.clock import iso_seconds
from monitor.errors import ConfigError, Conflict, NotFound, WrongState
from monitor.printable import escape_unprintable, normal_name
from monitor.store import acts, assets, jobs, labels, training_times
from monitor.types import Label

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Connection

    from monitor.store.acts import Actor
    from monitor.types import JobView, JudgedTime

MAX_NAMED = 20
"""Labels and faults that are named one by one."""

_ASSETS = text("SELECT name FROM asset WHERE fleet = :fleet ORDER BY id")


class Acceptance(NamedTuple):
    """Labels that were put, and the job that learns from them."""

    label_ids: list[int]
    """In the order of the assets. `monitor alerts unlabel` takes them back."""
    assets: list[str]
    job: JobView


def accept_normal(
    connection: Connection,
    fleet: str,
    asset: str | None,
    from_us: int,
    to_us: int,
    note: str,
    actor: Actor,
    now_us: int,
    history_us: int | None,
) -> Acceptance:
    """Label (from_us, to_us] of an asset, or of each one of a fleet, as normal, and request a training.

    `history_us`: time that a training reads. None = not known. Raises ConfigError for times that cannot be accepted,
    NotFound, WrongState for a time that is labelled fault, and Conflict while the fleet has a training job.
    """
    names = _named(connection, fleet, asset)
    judged = training_times.judged_times(connection, fleet)
    _check_times(from_us, to_us, now_us)
    newest_us = training_times.newest_us(connection, fleet)
    if history_us is not None and newest_us is not None and from_us < newest_us - history_us:
        begin = at(newest_us - history_us).isoformat(timespec="minutes")
        raise ConfigError(
            f"from {iso_seconds(from_us)} is before the history of a training, which begins at {begin}; accept from "
            "there on, or set [fleet.retrain] history"
        )
    _check_no_fault(judged, names, from_us, to_us)
    note = acts.clean_note(note) or "accepted as normal"
    ids = [
        labels.label_interval(connection, fleet, name, from_us, to_us, Label.NORMAL, note, actor, now_us)
        for name in names
    ]
    detail = {
        "accept_normal": {
            "from": iso_seconds(from_us), "to": iso_seconds(to_us), "asset": None if asset is None else names[0],
            "n_assets": len(names), "labels": ids[:MAX_NAMED],
        }
    }  # fmt: skip
    try:
        job = jobs.request(connection, fleet, actor.name, now_us, note=note, detail=detail)
    except Conflict as error:
        raise Conflict(f"{error.detail or error}; nothing was accepted: accept it when the job has ended") from None
    return Acceptance(ids, names, job)


def _named(connection: Connection, fleet: str, asset: str | None) -> list[str]:
    known = list(assets.fleets(connection))
    if fleet not in known:
        shown = ", ".join(known) or "none yet: start the daemon once"
        raise NotFound(f"fleet {escape_unprintable(fleet)}; the database knows {shown}")
    names = list(connection.execute(_ASSETS, {"fleet": fleet}).scalars())
    if asset is None:
        if not names:
            raise NotFound(f"no asset of fleet {fleet} is known yet; start the daemon first")
        return names
    if normal_name(asset) not in names:
        raise NotFound(
            f"asset {escape_unprintable(asset)} of fleet {fleet}; monitor scores show names those with scores"
        )
    return [normal_name(asset)]


def _check_times(from_us: int, to_us: int, now_us: int) -> None:
    if to_us <= from_us:
        raise ConfigError(f"the accepted time ends at {iso_seconds(to_us)}, before it begins; swap the two times")
    if to_us > now_us:
        raise ConfigError(
            f"to {iso_seconds(to_us)} is in the future; what has not been seen cannot be accepted: write "
            f"--accept-normal {iso_seconds(from_us)} now"
        )


def _check_no_fault(
    judged: dict[str, list[JudgedTime]], names: Sequence[str], from_us: int, to_us: int
) -> None:
    faults = [
        (name, each)
        for name in names
        for each in judged.get(name, ())
        if each.reason == Label.FAULT and each.from_us < to_us and each.to_us > from_us
    ]
    if not faults:
        return
    name, first = faults[0]
    word = "label" if first.source == "alert" else "unlabel"
    undo = f"monitor alerts {word} {first.id}" + (" normal" if first.source == "alert" else "")
    more = f", and {len(faults) - 1} more" if len(faults) > 1 else ""
    raise WrongState(
        f"{first.source} {first.id} says that {name} had a fault from {iso_seconds(first.from_us)} to "
        f"{iso_seconds(min(first.to_us, to_us))}{more}; accept the time before or after it, or, if it was none: {undo}"
    )
