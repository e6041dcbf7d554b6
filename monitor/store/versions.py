"""Model versions and their activations: which version decides which windows of a fleet.

An activation has a boundary in event time: the version decides windows that end after it, in a replay as it did live.
Invariant: a version is published before it is activated, and a decided window keeps its version.
"""

from __future__ import annotations

import hashlib
import json
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple, TypedDict, Unpack

from sqlalchemy import bindparam, text

from monitor.clock import from_us
from monitor.errors import InvariantBroken, ModelsChanged, NotFound, WrongState
from monitor.store import assets, scores
from monitor.types import VersionInfo

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sqlalchemy import Connection, Row

_IDS = text("SELECT version, id FROM model_version WHERE version IN :versions").bindparams(
    bindparam("versions", expanding=True)
)


def ids(connection: Connection, version: Sequence[str | None]) -> list[int | None]:
    """Return the id of each version, in order. None stays None. Raises InvariantBroken for an unpublished version."""
    if not (named := {name for name in version if name is not None}):
        return [None] * len(version)
    known: dict[str | None, int | None] = {None: None}
    known |= {row.version: row.id for row in connection.execute(_IDS, {"versions": sorted(named)})}
    if missing := named - known.keys():
        raise InvariantBroken(f"scores by versions that were never published: {', '.join(sorted(missing))}")
    return [known[name] for name in version]


# ---------------------------------------------------------------- publish and activate


FOREVER_AGO_US = -(1 << 62)
"""Boundary of a fleet's first version: no version before it decides anything."""


class Activation(NamedTuple):
    """A boundary: `version` decides windows that end after `from_window_end_us`, until the next activation."""

    from_window_end_us: int
    version: str


_PUBLISH = text("""
    INSERT INTO model_version (version, fleet, state, path, trained_us, card, metrics)
    VALUES (:version, :fleet, 'candidate', :path, :trained_us, :card, :metrics)
    ON CONFLICT (version) DO NOTHING
    RETURNING id
""")

_FLEET_OF = text("SELECT fleet FROM model_version WHERE version = :version")
_RESTORE = text("""
    UPDATE model_version SET path = :path, pruned_us = NULL WHERE version = :version AND pruned_us IS NOT NULL
""")


class NewVersion(TypedDict):
    """A trained version, as keyword arguments."""

    version: str
    fleet: str
    path: str
    trained_us: int
    card: Mapping[str, Any]
    metrics: Mapping[str, float]


def publish(connection: Connection, **new: Unpack[NewVersion]) -> bool:
    """Insert a version as a candidate, unless it exists. Return whether it is new.

    A pruned version that was trained again has a checkpoint again. Raises Conflict if it belongs to another fleet.
    """
    assets.ensure_fleet(connection, new["fleet"])
    documents = {name: json.dumps(new[name], allow_nan=False) for name in ("card", "metrics")}
    is_new = connection.execute(_PUBLISH, {**new, **documents}).one_or_none() is not None
    owner = connection.execute(_FLEET_OF, {"version": new["version"]}).scalar_one()
    if owner != new["fleet"]:
        raise WrongState(f"version {new['version']} belongs to {owner}")
    if not is_new:
        connection.execute(_RESTORE, {"version": new["version"], "path": new["path"]})
    return is_new


# PostgreSQL: an activation waits for the commits under way, and later commits wait for it. A lock on the fleet's row
# would not do: there new readers overtake a waiting writer, and busy commits kept it waiting (measured: 30 s).
_LOCK_EXCLUSIVE = text("SELECT pg_advisory_xact_lock(:key)")
_LOCK_SHARED = text("SELECT pg_advisory_xact_lock_shared(:key)")
_LOCK_ROW = text("UPDATE fleet SET activation_seq = activation_seq WHERE name = :fleet")
_NEXT_SEQ = text("UPDATE fleet SET activation_seq = activation_seq + 1 WHERE name = :fleet")
_SEQ = text("SELECT activation_seq FROM fleet WHERE name = :fleet")
_RETIRE = text("UPDATE model_version SET state = 'retired' WHERE fleet = :fleet AND state = 'champion'")
_PROMOTE = text("""
    UPDATE model_version SET state = 'champion', rolled_back_us = NULL WHERE version = :version AND fleet = :fleet
    RETURNING id
""")
_LAST_FROM = text("SELECT MAX(from_window_end_us) FROM model_activation WHERE fleet = :fleet")
_ACTIVATE = text("""
    INSERT INTO model_activation (fleet, from_window_end_us, version_id) VALUES (:fleet, :from_us, :version_id)
    ON CONFLICT (fleet, from_window_end_us) DO UPDATE SET version_id = excluded.version_id
""")
_ACTIVATIONS = text("""
    SELECT from_window_end_us, version, path, pruned_us
    FROM model_activation JOIN model_version ON model_version.id = version_id
    WHERE model_activation.fleet = :fleet ORDER BY from_window_end_us
""")
_SEQS = text("SELECT name, activation_seq FROM fleet")


def lock_states(connection: Connection, fleet: str) -> None:
    """Let nobody else change the state of a version of the fleet until the transaction ends. Commits go on."""
    connection.execute(_LOCK_ROW, {"fleet": fleet})


def lock_activations(connection: Connection, fleet: str) -> None:
    """Wait for commits of the fleet's scores that are under way, and let no other begin until the transaction ends."""
    # The row before the lock, as in a commit that registers sensors: one order, no deadlock.
    lock_states(connection, fleet)
    if connection.dialect.name == "postgresql":
        connection.execute(_LOCK_EXCLUSIVE, {"key": _lock_key(fleet)})


def activate(connection: Connection, fleet: str, version: str, from_window_end_us: int) -> Activation:
    """Make `version` the champion for windows that end after a boundary. The former champion retires.

    The registry (`store/registry.py`) calls this with the aliases and events that belong to it.

    Returns the activation with its actual boundary: `from_window_end_us`, or later. It lies after every window that any
    daemon has decided, and not before the last boundary. On the last boundary it replaces a version that has decided
    nothing. Windows and boundaries in the future do not count (`scores.newest_windows`): an asset whose clock is years
    ahead must not keep a new champion from deciding.

    Daemons need no message to agree on the boundary. Each commit asserts, under a lock shared with other commits, the
    sequence number of the activations that chose its versions (`check_activation_seq`). So every window committed
    before lies before the boundary. A commit under way with the former champion is refused, and its windows are scored
    again. Raises NotFound.
    """
    lock_activations(connection, fleet)
    raise_activation_seq(connection, fleet)
    connection.execute(_RETIRE, {"fleet": fleet})
    version_id = connection.execute(_PROMOTE, {"fleet": fleet, "version": version}).scalar_one_or_none()
    if version_id is None:
        raise NotFound(f"version {version} of {fleet}")
    last_from = connection.execute(_LAST_FROM, {"fleet": fleet}).scalar_one()
    decided = scores.newest_windows(connection).get(fleet)
    if decided is not None and last_from is not None and last_from > decided.horizon_us:
        last_from = None
    newest_us = None if decided is None else decided.newest_us
    from_us = max(us for us in (from_window_end_us, last_from, newest_us) if us is not None)
    connection.execute(_ACTIVATE, {"fleet": fleet, "from_us": from_us, "version_id": version_id})
    return Activation(from_us, version)


def raise_activation_seq(connection: Connection, fleet: str) -> None:
    """Refuse all scores under way, and let every daemon read the activations anew. Under `lock_activations`."""
    connection.execute(_NEXT_SEQ, {"fleet": fleet})


def check_activation_seq(connection: Connection, fleet: str, seq: int) -> None:
    """Assert that no version of the fleet was activated since `seq`, and prevent it until the transaction ends.

    Raises ModelsChanged.
    """
    if connection.dialect.name == "postgresql":  # SQLite has one writer at a time
        connection.execute(_LOCK_SHARED, {"key": _lock_key(fleet)})
    now = connection.execute(_SEQ, {"fleet": fleet}).scalar_one()
    if now != seq:
        raise ModelsChanged(f"{fleet}: these windows were scored by activation {seq}, and {now} holds")


def _lock_key(fleet: str) -> int:
    """Return the key of a fleet's activation lock: a signed 64-bit integer, as PostgreSQL requires."""
    return int.from_bytes(hashlib.sha256(f"activation of {fleet}".encode()).digest()[:8], signed=True)


# ---------------------------------------------------------------- look up


class FleetActivations(NamedTuple):
    """A fleet's activations at one moment."""

    seq: int
    """Number of activations so far, replaced ones included."""
    activations: list[tuple[int, str, str]]
    """(from_window_end_us, version, the checkpoint's folder), earliest boundary first."""
    pruned: frozenset[str] = frozenset()
    """Those without a checkpoint (`store/pruning.py`)."""


def activation_history(connection: Connection, fleet: str) -> FleetActivations:
    """Return the fleet's activations, consistent with `activation_seqs`."""
    seq = connection.execute(_SEQ, {"fleet": fleet}).scalar_one_or_none()
    rows = connection.execute(_ACTIVATIONS, {"fleet": fleet}).all()
    pruned = frozenset(row.version for row in rows if row.pruned_us is not None)
    return FleetActivations(seq or 0, [(row.from_window_end_us, row.version, row.path) for row in rows], pruned)


def activation_seqs(connection: Connection) -> dict[str, int]:
    """Return the number of activations by fleet. A daemon that knows a smaller number has a version to load."""
    return {row.name: row.activation_seq for row in connection.execute(_SEQS)}


def activations(connection: Connection, fleet: str) -> list[Activation]:
    """Return the fleet's activations, earliest boundary first."""
    return [Activation(from_us, version) for from_us, version, _ in activation_history(connection, fleet).activations]


_LIST = """
    SELECT id, version, fleet, state, trained_us, path, metrics, gate_verdict, rolled_back_us, pruned_us,
        (SELECT MAX(from_window_end_us) FROM model_activation WHERE version_id = model_version.id)
            AS from_window_end_us
    FROM model_version
"""
_ALIASES = text("SELECT version_id, alias FROM model_alias ORDER BY alias")


def champion(connection: Connection, fleet: str) -> VersionInfo | None:
    """Return the champion. None before the first activation."""
    champions = text(f"{_LIST} WHERE fleet = :fleet AND state = 'champion'")
    row = connection.execute(champions, {"fleet": fleet}).one_or_none()
    return None if row is None else _info(row, _aliases(connection))


def champion_sensors(connection: Connection, fleets: Sequence[str]) -> dict[str, tuple[str, tuple[str, ...]]]:
    """Return the champion of each fleet that has one, with the sensors on its card. Empty = the card does not say."""
    rows = connection.execute(text("SELECT fleet, version, card FROM model_version WHERE state = 'champion'"))
    return {
        fleet: (version, tuple(json.loads(card).get("sensors", ()))) for fleet, version, card in rows if fleet in fleets
    }


def champion_cards(connection: Connection, fleets: Sequence[str]) -> dict[str, tuple[str, dict[str, Any]]]:
    """Return the champion of each fleet that has one, with the part of its card that the database keeps."""
    rows = connection.execute(text("SELECT fleet, version, card FROM model_version WHERE state = 'champion'"))
    return {fleet: (version, json.loads(card)) for fleet, version, card in rows if fleet in fleets}


_CHAMPION_OR = text("SELECT fleet, version, card FROM model_version WHERE state = 'champion' OR version = :version")


def window_lengths(connection: Connection, version: str | None = None) -> dict[str, int]:
    """Return the length of the champion's windows, by fleet; of `version`, in its fleet.

    A card of an earlier release does not say.
    """
    found = {}
    rows = connection.execute(_CHAMPION_OR, {"version": version}).all()
    for fleet, _, card in sorted(rows, key=lambda row: row.version == version):
        with suppress(ValueError, TypeError, KeyError):  # unreadable: the usual length serves until a training
            found[fleet] = int(json.loads(card)["length"])
    return found


def list_all(connection: Connection, fleet: str | None = None) -> list[VersionInfo]:
    """Return all versions, newest first."""
    where = "" if fleet is None else "WHERE fleet = :fleet"
    rows = connection.execute(
        text(f"{_LIST} {where} ORDER BY trained_us DESC, id DESC"), {"fleet": fleet} if fleet else {}
    )
    named = _aliases(connection)
    return [_info(row, named) for row in rows]


def find(connection: Connection, version: str) -> VersionInfo:
    """Return a version. Raises NotFound."""
    row = connection.execute(text(f"{_LIST} WHERE version = :version"), {"version": version}).one_or_none()
    if row is None:
        raise NotFound(f"version {version}; monitor models list shows the versions")
    return _info(row, _aliases(connection))


def _aliases(connection: Connection) -> dict[int, tuple[str, ...]]:
    """Return the aliases of each version that has one, by its id."""
    found: dict[int, tuple[str, ...]] = {}
    for row in connection.execute(_ALIASES):
        found[row.version_id] = (*found.get(row.version_id, ()), row.alias)
    return found


def _info(row: Row[tuple[object, ...]], aliases: Mapping[int, tuple[str, ...]]) -> VersionInfo:
    return VersionInfo(
        version=row.version,
        fleet=row.fleet,
        state=row.state,
        trained_at=from_us(row.trained_us),
        path=row.path,
        from_window_end_us=row.from_window_end_us,
        metrics=json.loads(row.metrics),
        aliases=aliases.get(row.id, ()),
        verdict=json.loads(row.gate_verdict) if row.gate_verdict else None,
        rolled_back_at=None if row.rolled_back_us is None else from_us(row.rolled_back_us),
        pruned_at=None if row.pruned_us is None else from_us(row.pruned_us),
    )
