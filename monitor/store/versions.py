"""Model versions, and the event time from which each of them decides.

Invariant: a version is published before it is activated.

An activation is dated in event time, by the end of a window: that a version decides "windows that end after X" holds
for a replay as it held live.
"""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any, NamedTuple

from sqlalchemy import bindparam, text

from monitor.clock import from_us
from monitor.errors import Conflict, InvariantBroken, ModelsChanged, NotFound
from monitor.store import assets, leases, scores
from monitor.types import VersionInfo

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sqlalchemy import Connection, Row

_IDS = text("SELECT version, id FROM model_version WHERE version IN :versions").bindparams(
    bindparam("versions", expanding=True)
)


def ids(connection: Connection, version: Sequence[str | None]) -> list[int | None]:
    """Translate versions into ids, keeping order and None."""
    if not (named := {name for name in version if name is not None}):
        return [None] * len(version)
    known: dict[str | None, int | None] = {None: None}
    known |= {row.version: row.id for row in connection.execute(_IDS, {"versions": sorted(named)})}
    if missing := named - known.keys():
        raise InvariantBroken(f"scores by versions that were never published: {', '.join(sorted(missing))}")
    return [known[name] for name in version]


# ---------------------------------------------------------------- publish and activate


FOREVER_AGO_US = -(1 << 62)
"""The first version of a fleet decides from here: there is none before it."""


class Activation(NamedTuple):
    """`version` decides windows that end after `from_window_end_us`, until the next activation."""

    from_window_end_us: int
    version: str


_PUBLISH = text("""
    INSERT INTO model_version (version, fleet, state, path, trained_us, card, metrics)
    VALUES (:version, :fleet, 'candidate', :path, :trained_us, :card, :metrics)
    ON CONFLICT (version) DO NOTHING
""")

_LIST = """
    SELECT version, fleet, state, trained_us, path, metrics,
        (SELECT MAX(from_window_end_us) FROM model_activation WHERE version_id = model_version.id) AS from_window_end_us
    FROM model_version
"""


def publish(
    connection: Connection,
    *,
    version: str,
    fleet: str,
    path: str,
    trained_us: int,
    card: Mapping[str, Any],
    metrics: Mapping[str, float],
) -> VersionInfo:
    """Enter a version as a candidate. The same version again changes nothing; of another fleet it is a Conflict."""
    assets.put_fleet(connection, fleet)
    connection.execute(
        _PUBLISH,
        {
            "version": version,
            "fleet": fleet,
            "path": path,
            "trained_us": trained_us,
            "card": json.dumps(card, allow_nan=False),
            "metrics": json.dumps(metrics, allow_nan=False),
        },
    )
    published = get(connection, version)
    if published.fleet != fleet:
        raise Conflict(f"version {version} belongs to {published.fleet}")
    return published


# PostgreSQL: an activation waits for the saves under way, and the saves that come then wait for it. Not by locking the
# fleet's row: there new readers overtake a waiting writer, and busy saves would keep it waiting (measured: 30 s).
_ACTIVATING = text("SELECT pg_advisory_xact_lock(:key)")
_SAVING = text("SELECT pg_advisory_xact_lock_shared(:key)")
_IN_TURN = text("UPDATE fleet SET activation_seq = activation_seq + 1 WHERE name = :fleet")
_SEQ = text("SELECT activation_seq FROM fleet WHERE name = :fleet")
_RETIRE = text("UPDATE model_version SET state = 'retired' WHERE fleet = :fleet AND state = 'champion'")
_CROWN = text("UPDATE model_version SET state = 'champion' WHERE version = :version AND fleet = :fleet RETURNING id")
_LAST_FROM = text("SELECT MAX(from_window_end_us) FROM model_activation WHERE fleet = :fleet")
_ACTIVATE = text("""
    INSERT INTO model_activation (fleet, from_window_end_us, version_id) VALUES (:fleet, :from_us, :version_id)
    ON CONFLICT (fleet, from_window_end_us) DO UPDATE SET version_id = excluded.version_id
""")
_CHAMPIONS = text("""
    SELECT from_window_end_us, version, path FROM model_activation JOIN model_version ON model_version.id = version_id
    WHERE model_activation.fleet = :fleet ORDER BY from_window_end_us
""")
_SEQS = text("SELECT name, activation_seq FROM fleet")


def activate(connection: Connection, fleet: str, version: str, from_window_end_us: int) -> Activation:
    """Make `version` the champion for windows that end after `from_window_end_us`, and after every window that is
    decided already, by whichever daemon; the old one retires. Returns what holds.

    Daemons agree on the boundary without meeting: each save asserts, under a lock shared with other saves, which
    state of the activations its versions were chosen by (`expect_seq`). So every window saved before this is behind the
    boundary, and a save that was under way with the former champion is refused, and scored again.
    A boundary before the last one would hand decided windows to another version: then the last one is taken, and the
    version before, which decided nothing yet, is replaced.
    """
    connection.execute(_IN_TURN, {"fleet": fleet})  # the row before the lock, as in a save that teaches sensors
    if connection.dialect.name == "postgresql":
        connection.execute(_ACTIVATING, {"key": _lock_of(fleet)})
    connection.execute(_RETIRE, {"fleet": fleet})
    version_id = connection.execute(_CROWN, {"fleet": fleet, "version": version}).scalar_one_or_none()
    if version_id is None:
        raise NotFound(f"version {version} of {fleet}")
    last_from = connection.execute(_LAST_FROM, {"fleet": fleet}).scalar_one()
    decided = scores.newest_us(connection).get(fleet)
    from_us = max(us for us in (from_window_end_us, last_from, decided) if us is not None)
    connection.execute(_ACTIVATE, {"fleet": fleet, "from_us": from_us, "version_id": version_id})
    return Activation(from_us, version)


def succeed(
    connection: Connection,
    *,
    version: str,
    fleet: str,
    path: str,
    trained_us: int,
    card: Mapping[str, Any],
    metrics: Mapping[str, float],
    lease: tuple[str, int] | None,
) -> Activation:
    """Publish a version and activate it after all that is decided; `lease`: its name and epoch, under which it was
    trained. Raises Fenced when that is over: another daemon trains now.
    """
    if lease is not None:
        leases.check(connection, *lease)
    publish(
        connection, version=version, fleet=fleet, path=path, trained_us=trained_us, card=card, metrics=metrics
    )
    return activate(connection, fleet, version, FOREVER_AGO_US)


def expect_seq(connection: Connection, fleet: str, seq: int) -> None:
    """Assert that nobody activated a version of the fleet since `seq`, and that nobody does before this transaction
    ends. Raises ModelsChanged.
    """
    if connection.dialect.name == "postgresql":  # SQLite has one writer at a time
        connection.execute(_SAVING, {"key": _lock_of(fleet)})
    now = connection.execute(_SEQ, {"fleet": fleet}).scalar_one()
    if now != seq:
        raise ModelsChanged(f"{fleet}: these windows were scored by activation {seq}, and {now} holds")


def _lock_of(fleet: str) -> int:
    """Number the lock of a fleet's activations: 64 bits, as PostgreSQL wants them."""
    return int.from_bytes(hashlib.sha256(f"activation of {fleet}".encode()).digest()[:8], signed=True)


# ---------------------------------------------------------------- look up


class FleetActivations(NamedTuple):
    """Who decides a fleet from when, as of one moment."""

    seq: int
    """How many activations there were."""
    activations: list[tuple[int, str, str]]
    """(from_window_end_us, version, the checkpoint's folder), earliest boundary first."""


def champions(connection: Connection, fleet: str) -> FleetActivations:
    """Return who decides the fleet's windows, consistent with `seqs`."""
    seq = connection.execute(_SEQ, {"fleet": fleet}).scalar_one_or_none()
    return FleetActivations(seq or 0, [tuple(row) for row in connection.execute(_CHAMPIONS, {"fleet": fleet})])


def seqs(connection: Connection) -> dict[str, int]:
    """By fleet, how many activations there were: whoever knows a smaller number has something to load."""
    return {row.name: row.activation_seq for row in connection.execute(_SEQS)}


def activations(connection: Connection, fleet: str) -> list[Activation]:
    """Return the fleet's activations, earliest boundary first."""
    return [Activation(from_us, version) for from_us, version, _ in champions(connection, fleet).activations]


def get(connection: Connection, version: str) -> VersionInfo:
    """Return a version. Raises NotFound."""
    row = connection.execute(text(f"{_LIST} WHERE version = :version"), {"version": version}).one_or_none()
    if row is None:
        raise NotFound(f"version {version}")
    return _info(row)


def champion(connection: Connection, fleet: str) -> VersionInfo | None:
    """Return the version that decides now; None before the first training."""
    row = connection.execute(text(f"{_LIST} WHERE fleet = :fleet AND state = 'champion'"), {"fleet": fleet})
    found = row.one_or_none()
    return None if found is None else _info(found)


def every(connection: Connection, fleet: str | None = None) -> list[VersionInfo]:
    """Return all versions, newest first."""
    where = "" if fleet is None else "WHERE fleet = :fleet"
    rows = connection.execute(
        text(f"{_LIST} {where} ORDER BY trained_us DESC, id DESC"), {"fleet": fleet} if fleet else {}
    )
    return [_info(row) for row in rows]


def _info(row: Row[tuple[object, ...]]) -> VersionInfo:
    return VersionInfo(
        version=row.version,
        fleet=row.fleet,
        state=row.state,
        trained_at=from_us(row.trained_us),
        path=row.path,
        from_window_end_us=row.from_window_end_us,
        metrics=json.loads(row.metrics),
    )
