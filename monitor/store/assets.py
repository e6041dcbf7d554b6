"""Fleets and assets: ids, the sensors of a fleet, each asset's partition, and the state that a restart needs.

Invariant: an asset belongs to the partition that first sent a reading of it. Its windows exist only there.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from sqlalchemy import bindparam, text

from monitor.store.alerts import contributions_of
from monitor.types import AlertChange, AlertState, Partition, Severity

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from sqlalchemy import Connection, Row

_CHUNK = 5_000  # bound parameters in one statement; SQLite and PostgreSQL both stop at 32,767

# ---------------------------------------------------------------- fleets

_PUT_FLEET = text("INSERT INTO fleet (name, sensors) VALUES (:fleet, NULL) ON CONFLICT (name) DO NOTHING")
_PUT_SENSORS = text("UPDATE fleet SET sensors = :sensors WHERE name = :fleet AND sensors IS NULL")
_SENSORS = text("SELECT sensors FROM fleet WHERE name = :fleet")
_FLEETS = text("SELECT name, sensors FROM fleet ORDER BY name")


def register_sensors(connection: Connection, fleet: str, sensors: Sequence[str]) -> tuple[str, ...]:
    """Store a fleet's sensors unless it has some already, and return the stored ones. The first writer wins."""
    ensure_fleet(connection, fleet)
    connection.execute(_PUT_SENSORS, {"fleet": fleet, "sensors": json.dumps(list(sensors))})
    return tuple(json.loads(connection.execute(_SENSORS, {"fleet": fleet}).scalar_one()))


_EXTEND = text("UPDATE fleet SET sensors = :new WHERE name = :fleet AND (sensors = :old OR sensors IS NULL)")
_HAS_CHAMPION = text("SELECT 1 FROM model_version WHERE fleet = :fleet AND state = 'champion'")
_CHAMPIONS = text("SELECT fleet FROM model_version WHERE state = 'champion'")


def extend_sensors(connection: Connection, fleet: str, sensors: Sequence[str]) -> tuple[str, ...]:
    """Add those of these sensors that a fleet's list lacks at its end, and return the list.

    Sensors that another daemon added meanwhile stay before them.
    """
    ensure_fleet(connection, fleet)
    while True:
        old = connection.execute(_SENSORS, {"fleet": fleet}).scalar_one()
        stored = json.loads(old) if old is not None else []
        merged = [*stored, *(name for name in sensors if name not in stored)]
        if len(merged) == len(stored):
            return tuple(stored)
        changed = connection.execute(_EXTEND, {"fleet": fleet, "old": old, "new": json.dumps(merged)})
        if changed.rowcount == 1:
            return tuple(merged)


def grow_sensors(connection: Connection, fleet: str, sensors: Sequence[str]) -> tuple[tuple[str, ...], bool]:
    """Extend a fleet's list while no model uses it. Return the list, and whether it is still growing."""
    if connection.execute(_HAS_CHAMPION, {"fleet": fleet}).first() is None:
        return extend_sensors(connection, fleet, sensors), True
    stored = connection.execute(_SENSORS, {"fleet": fleet}).scalar_one()
    return tuple(json.loads(stored)) if stored is not None else (), False


def with_champion(connection: Connection) -> frozenset[str]:
    """Return the fleets of which a model is the champion: their lists grow by trainings alone."""
    return frozenset(connection.execute(_CHAMPIONS).scalars())


def fleets(connection: Connection) -> dict[str, tuple[str, ...] | None]:
    """Return every fleet in the database with its sensors. None = not registered yet."""
    return {name: None if known is None else tuple(json.loads(known)) for name, known in connection.execute(_FLEETS)}


def ensure_fleet(connection: Connection, fleet: str) -> None:
    """Insert the fleet's row unless it exists."""
    connection.execute(_PUT_FLEET, {"fleet": fleet})


# ---------------------------------------------------------------- assets


class Registration(NamedTuple):
    """An asset's id and its partition."""

    id: int
    partition: Partition


NOT_ADMITTED = 1 << 62
"""`since_offset` of an asset that is not admitted yet: after every record."""

_PUT_ASSET = text("""
    INSERT INTO asset (fleet, name, topic, partition, since_offset)
    VALUES (:fleet, :name, :topic, :partition, :since_offset)
    ON CONFLICT (fleet, name) DO NOTHING
""")
_ADMIT = text("UPDATE asset SET since_offset = :since_offset WHERE id = :id")
_FIND = text("SELECT name, id, topic, partition FROM asset WHERE fleet = :fleet AND name IN :names").bindparams(
    bindparam("names", expanding=True)
)


def register(
    connection: Connection,
    fleet: str,
    names: Sequence[str],
    partition: Partition,
    waiting: Collection[str] = (),
) -> dict[str, Registration]:
    """Return the registration of each name. A new name is registered to `partition`, for good.

    The caller puts readings of an asset of another partition into quarantine, as `wrong_partition`. `waiting`: new
    names that the next commit admits (`admit`). Without that commit they stay unadmitted.
    """
    unique = sorted(set(names))  # one order for all writers: no deadlock between partitions with the same new names
    if not unique:
        return {}
    ensure_fleet(connection, fleet)
    found = find(connection, fleet, unique)
    if new := [name for name in unique if name not in found]:
        here = {"fleet": fleet, "topic": partition.topic, "partition": partition.number}
        rows = [here | {"name": name, "since_offset": NOT_ADMITTED if name in waiting else 0} for name in new]
        connection.execute(_PUT_ASSET, rows)
        found |= find(connection, fleet, new)
    return found


def admit(connection: Connection, since: Mapping[int, int]) -> None:
    """Store the offset of each asset's first accepted record, by id. Call it in the commit of that record."""
    connection.execute(_ADMIT, [{"id": number, "since_offset": offset} for number, offset in since.items()])


def find(connection: Connection, fleet: str, names: Sequence[str]) -> dict[str, Registration]:
    """Return the registration of each name that has one."""
    found: dict[str, Registration] = {}
    for first in range(0, len(names), _CHUNK):
        rows = connection.execute(_FIND, {"fleet": fleet, "names": list(names[first : first + _CHUNK])})
        found |= {row.name: Registration(row.id, Partition(row.topic, row.partition)) for row in rows}
    return found


_ALL_NAMES = text("SELECT fleet, name FROM asset ORDER BY id")


def names(connection: Connection) -> list[tuple[str, str]]:
    """Return (fleet, name) of all assets."""
    return [(row.fleet, row.name) for row in connection.execute(_ALL_NAMES)]


_NAMES = text("SELECT topic, partition, name FROM asset WHERE fleet = :fleet ORDER BY id")


def names_by_partition(connection: Connection, fleet: str) -> dict[str, list[str]]:
    """Return the names of the fleet's assets by partition, as "topic/partition"."""
    found: dict[str, list[str]] = {}
    for topic, partition, name in connection.execute(_NAMES, {"fleet": fleet}):
        found.setdefault(str(Partition(topic, partition)), []).append(name)
    return found


# ---------------------------------------------------------------- the state that a restart needs


@dataclass(frozen=True, slots=True)
class KnownAsset:
    """Stored state of an asset, sufficient to continue scoring and alerting."""

    id: int
    name: str
    last_start_us: int | None
    """Start of its last stored window. None = none yet."""
    recent: tuple[tuple[int, bool], ...]
    """Its last scored verdicts (end_us, is_anomalous), oldest first. Empty when none of them is anomalous."""
    open_alert: AlertChange | None
    """With `asset` = this asset's index in the list of its fleet."""
    closed_us: int | None
    """Closing time of its last closed alert."""
    since_offset: int = 0
    """Offset of its first accepted record."""
    last_end_us: int | None = None
    """End of its last stored window. None = none yet, or of a database from before schema 0002."""


_RESTORE = text("""
    SELECT asset.id, asset.fleet, asset.name, asset.since_offset,
        last_window.start_us AS last_start_us, last_window.end_us AS last_end_us, last_window.recent,
        (SELECT MAX(closed_us) FROM alert WHERE asset_id = asset.id AND state = 'closed') AS closed_us,
        alert.opened_us, alert.updated_us, alert.state, alert.severity, alert.peak_score, alert.peak_us,
        alert.n_anomalous, alert.sensors, alert.clearing, alert.version
    FROM asset
    LEFT JOIN last_window ON last_window.asset_id = asset.id
    LEFT JOIN alert ON alert.asset_id = asset.id AND alert.state <> 'closed'
    WHERE asset.topic = :topic AND asset.partition = :partition
    ORDER BY asset.id
""")


def restore(connection: Connection, partition: Partition) -> dict[str, list[KnownAsset]]:
    """Return the partition's assets by fleet, each with its recent verdicts and its open alert.

    Scores are not read: there are many, and retention may have deleted them.
    """
    rows = connection.execute(_RESTORE, {"topic": partition.topic, "partition": partition.number})
    known: dict[str, list[KnownAsset]] = {}
    for row in rows:
        assets = known.setdefault(row.fleet, [])
        recent = json.loads(row.recent or "[]")
        assets.append(
            KnownAsset(
                id=row.id,
                name=row.name,
                last_start_us=row.last_start_us,
                recent=tuple((packed // 2, packed % 2 == 1) for packed in recent),
                open_alert=None if row.opened_us is None else _alert(row, len(assets)),
                closed_us=row.closed_us,
                since_offset=row.since_offset,
                last_end_us=row.last_end_us,
            )
        )
    return known


def _alert(row: Row[tuple[object, ...]], index: int) -> AlertChange:
    peak, onset = contributions_of(row.sensors)
    return AlertChange(
        fleet=row.fleet,
        asset=index,
        opened_us=row.opened_us,
        at_us=row.updated_us,
        state=AlertState(row.state),
        severity=Severity(row.severity),
        peak_score=row.peak_score,
        peak_us=row.peak_us,
        n_anomalous=row.n_anomalous,
        contributions=peak,
        version=row.version,
        is_transition=False,
        clearing=None if row.clearing is None else tuple(json.loads(row.clearing)),
        onset=onset,
    )
