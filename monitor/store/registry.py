"""The registry of model versions: publish, promote, roll back, reject, with aliases and a history.

Input: a version or an operator's decision, inside its transaction. Output: states, aliases, activations and rows of
`model_event`.
Invariant: the alias `champion` names the version in state `champion`, and both name the fleet's last activation. A
version that is `rejected` or `shadow` is not activated. Rows of `model_event` are only added.

Each act is safe to repeat: a second call with the same version, actor and `at_us` changes nothing, even if somebody
else has acted in between. A caller whose COMMIT was not answered repeats it.

- *Promote*: the version decides windows that end after every decided one. The former champion becomes `previous`.
- *Roll back*: `previous` becomes champion, and the champion becomes `previous` in state `rolled_back`. Windows that it
  has decided keep its scores. Its alerts are marked, because `rolled_back_us` of their version is set.
- *Roll back again*: the first roll-back is undone. The version returns as champion, and the mark goes. Two roll-backs
  restore states and aliases, and leave two events.
- The daemon does not promote a version that a person rolled back, even if a training finds the same one again.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Unpack

from sqlalchemy import text

from monitor.clock import from_us
from monitor.errors import NotFound, WrongState
from monitor.store import acts, assets, leases, versions
from monitor.store.versions import FOREVER_AGO_US, Activation
from monitor.types import Alias, ModelCheckKind, ModelEvent, ModelState

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from sqlalchemy import Connection, Row

    from monitor.store.acts import Actor
    from monitor.store.versions import NewVersion

Verdict = dict[str, Any]
"""The gate's verdict, as a JSON object."""
KEPT_CHECKS = 100
"""Measurements kept of a fleet and kind. A nightly drill fills them in three months."""

_EVENT_OF = {
    ModelState.CANDIDATE: ModelEvent.PROPOSED,
    ModelState.SHADOW: ModelEvent.SHADOWED,
    ModelState.REJECTED: ModelEvent.REJECTED,
}

_VERSION = text("SELECT id, version, fleet, state, pruned_us, path FROM model_version WHERE version = :version")
_CHAMPION = text("""
    SELECT id, version, fleet, state, pruned_us, path FROM model_version WHERE fleet = :fleet AND state = 'champion'
""")
_SET_STATE = text("UPDATE model_version SET state = :state WHERE id = :id")
_SET_VERDICT = text("UPDATE model_version SET gate_verdict = :verdict WHERE id = :id")
_ROLL_BACK = text("UPDATE model_version SET state = 'rolled_back', rolled_back_us = :at_us WHERE id = :id")


# ---------------------------------------------------------------- acts


def publish(
    connection: Connection,
    *,
    state: ModelState,
    verdict: Verdict | None,
    actor: Actor,
    at_us: int,
    note: str = "",
    lease: tuple[str, int] | None = None,
    **new: Unpack[NewVersion],
) -> None:
    """Insert a trained version that decides nothing yet: a candidate, a shadow, or one that the gate rejected.

    A training may find a version that exists. Then its state and verdict are replaced, except of a champion and of a
    version that was rolled back. Raises Conflict if it belongs to another fleet, Fenced when the lease is lost.
    """
    if lease is not None:
        leases.check(connection, *lease)
    row = _insert(connection, actor, at_us, **new)
    if row.state in (ModelState.CHAMPION, ModelState.ROLLED_BACK):
        return
    if _is_done(connection, row.id, _EVENT_OF[state], actor, at_us):
        return
    connection.execute(_SET_STATE, {"id": row.id, "state": state})
    _set_verdict(connection, row.id, verdict)
    if state == ModelState.REJECTED:
        _drop_challenger(connection, row.id)
    else:
        _move_alias(connection, new["fleet"], Alias.CHALLENGER, row.id, at_us)
    record(connection, _EVENT_OF[state], row, actor, at_us, note=note, detail=_why(verdict))


def publish_and_promote(
    connection: Connection,
    *,
    actor: Actor,
    at_us: int,
    verdict: Verdict | None = None,
    note: str = "",
    lease: tuple[str, int] | None = None,
    event: ModelEvent = ModelEvent.PROMOTED,
    **new: Unpack[NewVersion],
) -> Activation:
    """Insert a version and make it the champion, in one transaction.

    `event`: `derived` for a version with another threshold of the champion, which no gate judges. Raises what `publish`
    and `promote` raise.
    """
    if lease is not None:
        leases.check(connection, *lease)
    _insert(connection, actor, at_us, is_trained=event != ModelEvent.DERIVED, **new)
    return promote(
        connection, new["fleet"], new["version"], actor=actor, at_us=at_us, note=note, event=event, verdict=verdict
    )


def promote(
    connection: Connection,
    fleet: str,
    version: str,
    *,
    actor: Actor,
    at_us: int,
    note: str = "",
    lease: tuple[str, int] | None = None,
    event: ModelEvent = ModelEvent.PROMOTED,
    verdict: Verdict | None = None,
    after_us: int = FOREVER_AGO_US,
    overrule: bool = False,
) -> Activation:
    """Make a version the champion for windows that end after every decided one, and not before `after_us`.

    `overrule`: promote one that the gate rejected. The event says so. `verdict`: replaces the stored one; None keeps
    it. No effect on the champion. Raises NotFound, Fenced, and Conflict for a version of another fleet, one that was
    pruned or rejected, and for the daemon one that was rolled back.
    """
    if lease is not None:
        leases.check(connection, *lease)
    versions.lock_activations(connection, fleet)
    row = _version_of(connection, fleet, version)
    if _is_done(connection, row.id, event, actor, at_us):
        return _last_activation(connection, fleet)
    if verdict is not None:
        _set_verdict(connection, row.id, verdict)
    if row.state == ModelState.CHAMPION:
        return _last_activation(connection, fleet)
    _check_may_decide(row, actor, overrule=overrule or bool(verdict and verdict.get("passed")))
    former = connection.execute(_CHAMPION, {"fleet": fleet}).one_or_none()
    active = versions.activate(connection, fleet, version, after_us)
    _drop_challenger(connection, row.id)
    _move_champion(connection, fleet, row.id, former, at_us)
    detail: dict[str, object] = {"from_window_end_us": active.from_window_end_us}
    if former is not None:
        detail["former"] = former.version
    if verdict is not None:
        detail["passed"] = bool(verdict.get("passed"))
    if row.state == ModelState.REJECTED and overrule:
        detail["overruled"] = True
    record(connection, event, row, actor, at_us, note=note, detail=detail)
    return active


def roll_back(
    connection: Connection, fleet: str, *, actor: Actor, at_us: int, note: str = "", to: str | None = None
) -> Activation:
    """Make the version with the alias `previous` the champion, for windows that end after every decided one.

    Rolling back to a version that was rolled back undoes it. `to`: the version that the caller has seen there. Raises
    Conflict where there is no previous version, or another than `to`.
    """
    versions.lock_activations(connection, fleet)
    target = previous_version(connection, fleet)
    former = connection.execute(_CHAMPION, {"fleet": fleet}).one()
    row = _version_of(connection, fleet, target)
    if _is_done(connection, row.id, ModelEvent.ROLLED_BACK, actor, at_us):
        return _last_activation(connection, fleet)
    if to is not None and to != target:
        raise WrongState(f"{former.version} became the champion of {fleet} just now; look at it, and ask again")
    _check_may_decide(row, actor, overrule=True)
    active = versions.activate(connection, fleet, row.version, FOREVER_AGO_US)
    is_undone = row.state == ModelState.ROLLED_BACK
    if not is_undone:
        connection.execute(_ROLL_BACK, {"id": former.id, "at_us": at_us})
    _drop_challenger(connection, row.id)
    _move_champion(connection, fleet, row.id, former, at_us)
    detail: dict[str, object] = {"from_window_end_us": active.from_window_end_us, "to": row.version}
    if is_undone:
        detail["undone"] = True
    record(connection, ModelEvent.ROLLED_BACK, former, actor, at_us, note=note, detail=detail)
    return active


def reject(
    connection: Connection,
    version: str,
    *,
    actor: Actor,
    at_us: int,
    note: str = "",
    lease: tuple[str, int] | None = None,
    verdict: Verdict | None = None,
) -> None:
    """Reject a candidate or shadow. No effect on one that is rejected. Raises NotFound, Conflict, Fenced."""
    if lease is not None:
        leases.check(connection, *lease)
    versions.lock_states(connection, _version(connection, version).fleet)
    row = _version(connection, version)  # read under the lock: another operator may promote it at this moment
    if row.state == ModelState.REJECTED:
        return
    if row.state not in (ModelState.CANDIDATE, ModelState.SHADOW):
        raise WrongState(f"version {version} is {row.state}; only a candidate or a shadow can be rejected")
    connection.execute(_SET_STATE, {"id": row.id, "state": ModelState.REJECTED})
    if verdict is not None:
        _set_verdict(connection, row.id, verdict)
    _drop_challenger(connection, row.id)
    record(connection, ModelEvent.REJECTED, row, actor, at_us, note=note, detail=_why(verdict))


def previous_version(connection: Connection, fleet: str) -> str:
    """Return the version that a roll-back returns to. Raises Conflict where there is none."""
    found = aliases(connection, fleet)
    if Alias.CHAMPION not in found:
        raise WrongState(f"{fleet} has no champion to roll back")
    if Alias.PREVIOUS not in found:
        raise WrongState(
            f"{fleet} has no version before {found[Alias.CHAMPION]}; monitor models list --fleet {fleet} shows its"
            " versions, and monitor models promote VERSION makes one of them the champion"
        )
    return found[Alias.PREVIOUS]


def _insert(
    connection: Connection, actor: Actor, at_us: int, *, is_trained: bool = True, **new: Unpack[NewVersion]
) -> Row[Any]:
    assets.ensure_fleet(connection, new["fleet"])
    versions.lock_states(connection, new["fleet"])
    is_new = versions.publish(connection, **new)
    row = _version(connection, new["version"])
    if is_new and is_trained:
        record(connection, ModelEvent.TRAINED, row, actor, at_us)
    return row


def _version(connection: Connection, version: str) -> Row[Any]:
    row = connection.execute(_VERSION, {"version": version}).one_or_none()
    if row is None:
        raise NotFound(f"version {version}; monitor models list shows the versions")
    return row


def _version_of(connection: Connection, fleet: str, version: str) -> Row[Any]:
    row = _version(connection, version)
    if row.fleet != fleet:
        raise WrongState(f"version {version} belongs to {row.fleet}, not {fleet}")
    return row


def _check_may_decide(row: Row[Any], actor: Actor, *, overrule: bool) -> None:
    """Raise Conflict for a version that must not become the champion."""
    if row.pruned_us is not None:
        at = f"{from_us(row.pruned_us):%Y-%m-%d}"
        raise WrongState(
            f"version {row.version} was pruned on {at}, its checkpoint is gone; monitor retrain {row.fleet} trains anew"
        )
    if row.state == ModelState.REJECTED and not overrule:
        raise WrongState(f"version {row.version} was rejected; monitor models show {row.version} says why")
    if row.state == ModelState.ROLLED_BACK and actor == acts.MONITOR:
        raise WrongState(
            f"version {row.version} was rolled back by hand and is not promoted again without a person;"
            f" monitor models promote {row.version} does it"
        )


def _set_verdict(connection: Connection, version_id: int, verdict: Verdict | None) -> None:
    document = None if verdict is None else json.dumps(verdict, allow_nan=False)
    connection.execute(_SET_VERDICT, {"id": version_id, "verdict": document})


def _why(verdict: Verdict | None) -> dict[str, object] | None:
    return {"why": verdict["why"]} if verdict and verdict.get("why") else None


# ---------------------------------------------------------------- aliases

_MOVE_ALIAS = text("""
    INSERT INTO model_alias (fleet, alias, version_id, moved_us) VALUES (:fleet, :alias, :version_id, :at_us)
    ON CONFLICT (fleet, alias) DO UPDATE SET version_id = excluded.version_id, moved_us = excluded.moved_us
""")
_DROP_CHALLENGER = text("DELETE FROM model_alias WHERE alias = 'challenger' AND version_id = :id")
_ALIASES = text("""
    SELECT alias, version FROM model_alias JOIN model_version ON model_version.id = version_id
    WHERE model_alias.fleet = :fleet
""")
_LAST_ACTIVATION = text("""
    SELECT from_window_end_us, version FROM model_activation JOIN model_version ON model_version.id = version_id
    WHERE model_activation.fleet = :fleet ORDER BY from_window_end_us DESC LIMIT 1
""")


def aliases(connection: Connection, fleet: str) -> dict[Alias, str]:
    """Return the version that each alias of the fleet names."""
    return {Alias(row.alias): row.version for row in connection.execute(_ALIASES, {"fleet": fleet})}


def _move_alias(connection: Connection, fleet: str, alias: Alias, version_id: int, at_us: int) -> None:
    values = {"fleet": fleet, "alias": alias, "version_id": version_id, "at_us": at_us}
    connection.execute(_MOVE_ALIAS, values)


def _move_champion(connection: Connection, fleet: str, version_id: int, former: Row[Any] | None, at_us: int) -> None:
    _move_alias(connection, fleet, Alias.CHAMPION, version_id, at_us)
    if former is not None:
        _move_alias(connection, fleet, Alias.PREVIOUS, former.id, at_us)


def _drop_challenger(connection: Connection, version_id: int) -> None:
    """Remove the alias `challenger` from a version that was decided on."""
    connection.execute(_DROP_CHALLENGER, {"id": version_id})


def _last_activation(connection: Connection, fleet: str) -> Activation:
    return Activation(*connection.execute(_LAST_ACTIVATION, {"fleet": fleet}).one())


# ---------------------------------------------------------------- history

_PUT_EVENT = text("""
    INSERT INTO model_event (at_us, fleet, version_id, event, actor, via, note, detail)
    VALUES (:at_us, :fleet, :version_id, :event, :actor, :via, :note, :detail)
""")
_IS_DONE = text("""
    SELECT EXISTS (
        SELECT 1 FROM model_event
        WHERE version_id = :id AND event = :event AND actor = :actor AND via = :via AND at_us = :at_us
    )
""")
_EVENTS = """
    SELECT model_event.id, at_us, model_event.fleet, version, event, actor, via, note, detail
    FROM model_event LEFT JOIN model_version ON model_version.id = version_id
"""


@dataclass(frozen=True, slots=True)
class RegistryEvent:
    """An act on a version, as the history lists it."""

    id: int
    at: datetime
    """Processing time."""
    fleet: str
    version: str | None
    """None = about the fleet. Of a roll-back, the version that was rolled back."""
    event: str
    """types.ModelEvent."""
    actor: str
    via: str
    note: str
    detail: dict[str, Any]
    """Of a promotion or roll-back `from_window_end_us`. Of a promotion `former`, the champion before, `passed`, the
    verdict that came with it, and `overruled` where the gate had rejected it. Of a roll-back `to`, the champion after,
    and `undone` where it undid another. Of a verdict `why`. Of a pruning `n_scores`, the stored scores that name the
    version."""


def record(
    connection: Connection,
    event: ModelEvent,
    row: Row[Any],
    actor: Actor,
    at_us: int,
    *,
    note: str = "",
    detail: Mapping[str, object] | None = None,
) -> None:
    """Add an event about a version, for the modules that act on versions. `row`: its `id` and `fleet`."""
    values = {
        "at_us": at_us,
        "fleet": row.fleet,
        "version_id": row.id,
        "event": event,
        "actor": acts.clean_name(actor),
        "via": actor.via,
        "note": acts.clean_note(note),
        "detail": None if detail is None else json.dumps(detail),
    }
    connection.execute(_PUT_EVENT, values)


def _is_done(connection: Connection, version_id: int, event: ModelEvent, actor: Actor, at_us: int) -> bool:
    """Return whether this very call was committed before, and only its answer was lost."""
    values = {"id": version_id, "event": event, "actor": acts.clean_name(actor), "via": actor.via, "at_us": at_us}
    return bool(connection.execute(_IS_DONE, values).scalar_one())


def events(
    connection: Connection, fleet: str | None = None, *, version: str | None = None, limit: int = 100
) -> list[RegistryEvent]:
    """Return the newest events, newest first: of a fleet, of a version, or all."""
    wanted = {"model_event.fleet": fleet, "version": version}
    values: dict[str, Any] = {"limit": limit}
    where = []
    for number, (column, value) in enumerate(wanted.items()):
        if value is not None:
            where.append(f"{column} = :value{number}")
            values[f"value{number}"] = value
    clause = f"WHERE {' AND '.join(where)}" if where else ""
    rows = connection.execute(text(f"{_EVENTS} {clause} ORDER BY model_event.id DESC LIMIT :limit"), values)
    return [
        RegistryEvent(
            id=row.id, at=from_us(row.at_us), fleet=row.fleet, version=row.version, event=row.event, actor=row.actor,
            via=row.via, note=row.note, detail=json.loads(row.detail) if row.detail else {},
        )
        for row in rows
    ]  # fmt: skip


# ---------------------------------------------------------------- measurements

_PUT_CHECK = text("""
    INSERT INTO model_check (kind, fleet, version_id, at_us, requested_by, problem, result)
    VALUES (:kind, :fleet, :version_id, :at_us, :requested_by, :problem, :result)
""")
_CHECKS = text("""
    SELECT kind, model_check.fleet, version, at_us, requested_by, problem, result
    FROM model_check JOIN model_version ON model_version.id = version_id
    WHERE model_check.fleet = :fleet AND kind = :kind ORDER BY model_check.id DESC LIMIT :limit
""")
_FORGET_CHECKS = text("""
    DELETE FROM model_check WHERE fleet = :fleet AND kind = :kind AND id <= (
        SELECT id FROM model_check WHERE fleet = :fleet AND kind = :kind ORDER BY id DESC LIMIT 1 OFFSET :kept
    )
""")


@dataclass(frozen=True, slots=True)
class ModelCheck:
    """A measurement of a version after its training."""

    kind: str
    """types.ModelCheckKind."""
    fleet: str
    version: str
    at: datetime
    """Processing time."""
    requested_by: str
    problem: str | None
    """One sentence; None = it passed."""
    result: dict[str, Any]


def record_check(
    connection: Connection,
    kind: ModelCheckKind,
    version: str,
    *,
    at_us: int,
    requested_by: str,
    problem: str | None,
    result: Mapping[str, Any],
) -> None:
    """Store a measurement of a version. The fleet's oldest of this kind are removed. Raises NotFound."""
    row = _version(connection, version)
    values = {
        "kind": kind,
        "fleet": row.fleet,
        "version_id": row.id,
        "at_us": at_us,
        "requested_by": requested_by,
        "problem": problem,
        "result": json.dumps(result, allow_nan=False),
    }
    connection.execute(_PUT_CHECK, values)
    connection.execute(_FORGET_CHECKS, {"fleet": row.fleet, "kind": kind, "kept": KEPT_CHECKS})


def checks(connection: Connection, kind: ModelCheckKind, fleet: str, *, limit: int = KEPT_CHECKS) -> list[ModelCheck]:
    """Return the fleet's measurements of a kind, newest first."""
    rows = connection.execute(_CHECKS, {"kind": kind, "fleet": fleet, "limit": limit})
    return [
        ModelCheck(
            kind=row.kind, fleet=row.fleet, version=row.version, at=from_us(row.at_us), requested_by=row.requested_by,
            problem=row.problem, result=json.loads(row.result),
        )
        for row in rows
    ]  # fmt: skip


def latest_check(connection: Connection, kind: ModelCheckKind, fleet: str) -> ModelCheck | None:
    """Return the fleet's newest measurement of a kind. None = there is none."""
    return next(iter(checks(connection, kind, fleet, limit=1)), None)
