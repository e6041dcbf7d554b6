"""Scores: one row per (asset, window start), written once, never changed. The hot path of the database."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
from sqlalchemy import text

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
    _note_last(connection, columns["asset_id"], columns["start_us"], recent)


_ON_CONFLICT = """
    ON CONFLICT (asset_id) DO UPDATE SET start_us = excluded.start_us, recent = excluded.recent
"""
_NOTE_LAST = text(f"""
    INSERT INTO last_window (asset_id, start_us, recent)
    SELECT * FROM unnest(CAST(:asset_id AS INTEGER[]), CAST(:start_us AS BIGINT[]), CAST(:recent AS TEXT[]))
    {_ON_CONFLICT}
""")  # noqa: S608 - constants


def _note_last(connection: Connection, asset_id: Int32, start_us: Int64, recent: Mapping[int, Sequence[int]]) -> None:
    """Keep each asset's last window and recent verdicts where a restart looks. Rows in order of time."""
    asset, place = np.unique(asset_id, return_inverse=True)
    last = np.zeros(len(asset), np.int64)
    last[place] = start_us  # the last one stays
    words = {number: json.dumps(verdicts) for number, verdicts in recent.items()}
    ids = asset.tolist()
    values = {"asset_id": ids, "start_us": last.tolist(), "recent": [words.get(number) for number in ids]}
    if connection.dialect.name == "sqlite":
        bulk.insert(connection, "last_window", values, _ON_CONFLICT)
    else:
        connection.execute(_NOTE_LAST, values)


# ---------------------------------------------------------------- retention

_PRUNE = text("""
    DELETE FROM score WHERE start_us < :before_us AND start_us <= (
        SELECT MAX(start_us) FROM (SELECT start_us FROM score ORDER BY start_us LIMIT :limit) AS oldest
    )
""")


def prune(connection: Connection, before_us: int, limit: int = 10_000) -> int:
    """Delete windows that start before `before_us`, about `limit` at most; return how many. 0 = done.

    In small steps, each in a transaction of its own, so that the river never waits long for the lock.
    """
    return connection.execute(_PRUNE, {"before_us": before_us, "limit": limit}).rowcount


_NEWEST_END = text("""
    SELECT MAX(end_us) FROM asset JOIN last_window ON last_window.asset_id = asset.id
    JOIN score ON score.start_us = last_window.start_us AND score.asset_id = asset.id
    WHERE fleet = :fleet
""")


def newest_end_us(connection: Connection, fleet: str) -> int | None:
    """End of the fleet's latest stored window: a new champion may decide only what ends after it."""
    end_us: int | None = connection.execute(_NEWEST_END, {"fleet": fleet}).scalar_one()
    return end_us
