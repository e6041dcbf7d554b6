"""Fleets and assets: their names, ids and homes, the sensors a fleet has learnt, and what a partition knew of them.

An asset's home is the partition that spoke of it first; its windows live there and nowhere else.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from sqlalchemy import bindparam, text

from monitor.types import AlertChange, AlertState, Contribution, Partition, Severity

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from sqlalchemy import Connection, Row

_CHUNK = 5_000  # bound parameters in one statement; SQLite and PostgreSQL both stop at 32,767

# ---------------------------------------------------------------- fleets

_PUT_FLEET = text("INSERT INTO fleet (name, sensors) VALUES (:fleet, NULL) ON CONFLICT (name) DO NOTHING")
_LEARN = text("UPDATE fleet SET sensors = :sensors WHERE name = :fleet AND sensors IS NULL")
_SENSORS = text("SELECT sensors FROM fleet WHERE name = :fleet")
_FLEETS = text("SELECT name, sensors FROM fleet ORDER BY name")


def learn(connection: Connection, fleet: str, sensors: Sequence[str]) -> tuple[str, ...]:
    """Write down a fleet's sensors unless some are known; return those that hold. The first writer wins."""
    connection.execute(_PUT_FLEET, {"fleet": fleet})
    connection.execute(_LEARN, {"fleet": fleet, "sensors": json.dumps(list(sensors))})
    return tuple(json.loads(connection.execute(_SENSORS, {"fleet": fleet}).scalar_one()))


def fleets(connection: Connection) -> dict[str, tuple[str, ...] | None]:
    """Every fleet the database knows, with its sensors; None = not learnt yet."""
    return {name: None if known is None else tuple(json.loads(known)) for name, known in connection.execute(_FLEETS)}


def put_fleet(connection: Connection, fleet: str) -> None:
    """Make sure that the fleet has a row."""
    connection.execute(_PUT_FLEET, {"fleet": fleet})


# ---------------------------------------------------------------- assets


class Home(NamedTuple):
    """Where an asset lives."""

    id: int
    partition: Partition


_PUT_ASSET = text("""
    INSERT INTO asset (fleet, name, topic, partition, since_offset)
    VALUES (:fleet, :name, :topic, :partition, :since_offset)
    ON CONFLICT (fleet, name) DO NOTHING
""")
_LET_IN = text("UPDATE asset SET since_offset = :since_offset WHERE id = :id")
WAITING = 1 << 62
"""The `since_offset` of an asset that is not in yet: behind every record."""
_HOMES = text("SELECT name, id, topic, partition FROM asset WHERE fleet = :fleet AND name IN :names").bindparams(
    bindparam("names", expanding=True)
)


def resolve(
    connection: Connection,
    fleet: str,
    names: Sequence[str],
    partition: Partition,
    waiting: Collection[str] = (),
) -> dict[str, Home]:
    """Return id and home of each name; names never seen before get `partition` as their home, for good.

    An asset whose home is another partition is not ours: its readings here are quarantined as `wrong_partition`.
    `waiting`: of these the save that follows says since which record they are in (`let_in`); should it never come, they
    are not.
    """
    unique = sorted(set(names))  # one order for every writer: no deadlock between partitions that meet the same names
    if not unique:
        return {}
    put_fleet(connection, fleet)
    homes = homes_of(connection, fleet, unique)
    if new := [name for name in unique if name not in homes]:
        here = {"fleet": fleet, "topic": partition.topic, "partition": partition.number}
        rows = [here | {"name": name, "since_offset": WAITING if name in waiting else 0} for name in new]
        connection.execute(_PUT_ASSET, rows)
        homes |= homes_of(connection, fleet, new)
    return homes


def let_in(connection: Connection, since: Mapping[int, int]) -> None:
    """Write down since which record assets are in: id → offset. In the transaction that saves that record."""
    connection.execute(_LET_IN, [{"id": number, "since_offset": offset} for number, offset in since.items()])


def homes_of(connection: Connection, fleet: str, names: Sequence[str]) -> dict[str, Home]:
    """Return id and home of those names that have one."""
    homes: dict[str, Home] = {}
    for first in range(0, len(names), _CHUNK):
        rows = connection.execute(_HOMES, {"fleet": fleet, "names": list(names[first : first + _CHUNK])})
        homes |= {row.name: Home(row.id, Partition(row.topic, row.partition)) for row in rows}
    return homes


_NAMES = text("SELECT topic, partition, name FROM asset WHERE fleet = :fleet ORDER BY id")


def names(connection: Connection, fleet: str) -> dict[str, list[str]]:
    """Return the fleet's assets by their home, as "topic/partition"."""
    at: dict[str, list[str]] = {}
    for topic, partition, name in connection.execute(_NAMES, {"fleet": fleet}):
        at.setdefault(str(Partition(topic, partition)), []).append(name)
    return at


# ---------------------------------------------------------------- what a partition knew


@dataclass(frozen=True, slots=True)
class KnownAsset:
    """An asset as the database left it: enough to go on scoring and deciding."""

    id: int
    name: str
    last_start_us: int | None
    """Start of its last stored window; None = none yet."""
    recent: tuple[tuple[int, bool], ...]
    """Its last scored verdicts (end_us, is_anomalous), oldest first; empty when none of them is anomalous."""
    open_alert: AlertChange | None
    """With `asset` = this asset's place in the list of its fleet."""
    closed_us: int | None
    """When its last closed alert closed."""
    since_offset: int = 0
    """Of the record with its first reading that counts."""


_RESTORE = text("""
    SELECT asset.id, asset.fleet, asset.name, asset.since_offset,
        last_window.start_us AS last_start_us, last_window.recent,
        (SELECT MAX(closed_us) FROM alert WHERE asset_id = asset.id AND state = 'closed') AS closed_us,
        alert.opened_us, alert.updated_us, alert.state, alert.severity, alert.peak_score, alert.peak_us,
        alert.n_anomalous, alert.sensors, alert.version
    FROM asset
    LEFT JOIN last_window ON last_window.asset_id = asset.id
    LEFT JOIN alert ON alert.asset_id = asset.id AND alert.state <> 'closed'
    WHERE asset.topic = :topic AND asset.partition = :partition
    ORDER BY asset.id
""")


def restore(connection: Connection, partition: Partition) -> dict[str, list[KnownAsset]]:
    """Return the partition's assets by fleet, each with its recent verdicts and its open alert.

    Scores are not read: retention may have taken them, and there are many.
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
            )
        )
    return known


def _alert(row: Row[tuple[object, ...]], index: int) -> AlertChange:
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
        contributions=tuple(Contribution(**sensor) for sensor in json.loads(row.sensors)),
        version=row.version,
        is_transition=False,
    )
