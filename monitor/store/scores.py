"""Scores: one row per (asset, window start), written once, never changed. The hot path of the database."""

from __future__ import annotations

import json
from collections import Counter
from typing import TYPE_CHECKING

import numpy as np
from sqlalchemy import bindparam, text

from monitor.store import bulk

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sqlalchemy import Connection

    from monitor.store.bulk import Array
    from monitor.store.partitions import FleetRows
    from monitor.types import Int32, Int64

_TYPES = {
    "start_us": ">i8",
    "asset_id": ">i4",
    "end_us": ">i8",
    "score": ">f4",
    "verdict": ">i2",
    "version_id": ">i4",
    "n_present": ">i4",
    "first_offset": ">i8",
    "last_offset": ">i8",
}
_LARGEST = float(np.finfo(np.float32).max)


def insert(
    connection: Connection,
    asset_id: Int32,
    version_id: Sequence[int | None],
    rows: FleetRows,
    recent: Mapping[int, Sequence[int]],
) -> None:
    """Insert the windows of `rows`. A key that is there already raises: two writers, or one that forgot.

    `recent`: by id, the verdicts that a restart must know; none for the others.
    NaN is stored as NULL. An infinite score is stored as the largest float32: JSON and people can read that.
    """
    order = np.lexsort((asset_id, rows.start_us))  # the key's order: appends stay at the end of the B-tree
    version = np.array([0 if each is None else each for each in version_id], np.int32)
    columns: dict[str, Array] = {
        "start_us": rows.start_us[order],
        "asset_id": asset_id[order],
        "end_us": rows.end_us[order],
        "score": np.clip(rows.score[order], -_LARGEST, _LARGEST),
        "verdict": rows.verdict[order],
        "version_id": version[order],
        "n_present": rows.n_present[order],
        "first_offset": rows.first_offset[order],
        "last_offset": rows.last_offset[order],
    }
    if connection.dialect.name == "sqlite":
        values = {name: column.tolist() for name, column in columns.items()}  # the driver binds NaN as NULL
        values["version_id"] = [each or None for each in values["version_id"]]
        bulk.insert(connection, "score", values)
    else:
        nulls = {"score": np.isnan(columns["score"]), "version_id": columns["version_id"] == 0}
        bulk.copy(connection, "score", columns, _TYPES, nulls)
    length_us = int(rows.end_us[0] - rows.start_us[0])  # all windows of a lane are equally long
    _note_last(connection, columns["asset_id"], columns["start_us"], length_us, recent)


_ON_CONFLICT = """
    ON CONFLICT (asset_id) DO UPDATE
    SET start_us = excluded.start_us, end_us = excluded.end_us, recent = excluded.recent
"""
_NOTE_LAST = text(f"""
    INSERT INTO last_window (asset_id, start_us, end_us, recent)
    SELECT asset_id, start_us, start_us + CAST(:length_us AS BIGINT), recent
    FROM unnest(CAST(:asset_id AS INTEGER[]), CAST(:start_us AS BIGINT[]), CAST(:recent AS TEXT[]))
        AS last (asset_id, start_us, recent)
    {_ON_CONFLICT}
""")  # noqa: S608 - constants


def _note_last(
    connection: Connection, asset_id: Int32, start_us: Int64, length_us: int, recent: Mapping[int, Sequence[int]]
) -> None:
    """Keep each asset's last window and recent verdicts where a restart looks. Rows in order of time."""
    asset, place = np.unique(asset_id, return_inverse=True)
    last = np.zeros(len(asset), np.int64)
    last[place] = start_us  # the last one stays
    words = {number: json.dumps(verdicts) for number, verdicts in recent.items()}
    ids = asset.tolist()
    values = {"asset_id": ids, "start_us": last.tolist(), "recent": [words.get(number) for number in ids]}
    if connection.dialect.name == "sqlite":
        bulk.insert(connection, "last_window", values | {"end_us": (last + length_us).tolist()}, _ON_CONFLICT)
    else:
        connection.execute(_NOTE_LAST, values | {"length_us": length_us})


# ---------------------------------------------------------------- retention

_NEWEST = text("""
    SELECT fleet, MAX(COALESCE(end_us, start_us)) AS newest_us
    FROM asset JOIN last_window ON last_window.asset_id = asset.id GROUP BY fleet
""")


def newest_us(connection: Connection) -> dict[str, int]:
    """End of each fleet's latest window, pruned or not: a new champion may decide only what ends after it."""
    return {row.fleet: row.newest_us for row in connection.execute(_NEWEST)}


_THROUGH = text("""
    SELECT MAX(start_us) FROM (
        SELECT start_us FROM score WHERE start_us >= :from_us AND start_us < :before_us ORDER BY start_us LIMIT :limit
    ) AS next
""")
_PRUNE = text("""
    DELETE FROM score WHERE start_us >= :from_us AND start_us <= :through_us
        AND asset_id IN (SELECT id FROM asset WHERE fleet IN :fleets)
    RETURNING (SELECT fleet FROM asset WHERE id = asset_id)
""").bindparams(bindparam("fleets", expanding=True))


def prune(
    connection: Connection, fleets: Sequence[str], from_us: int, before_us: int, limit: int = 10_000
) -> tuple[Counter[str], int]:
    """Delete the fleets' windows that start in [from_us, before_us), as far as about `limit` rows of any fleet reach;
    return how many by fleet, and where to go on. At `before_us` it is done.

    In small steps, each in a transaction of its own, so that the river never waits long for the lock.
    """
    step = {"from_us": from_us, "before_us": before_us, "limit": limit}
    through_us: int | None = connection.execute(_THROUGH, step).scalar_one()
    if through_us is None:
        return Counter(), before_us
    deleted = connection.execute(_PRUNE, {"fleets": list(fleets), "from_us": from_us, "through_us": through_us})
    return Counter(deleted.scalars()), through_us + 1
