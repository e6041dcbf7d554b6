"""Scores: one row per (asset, window start), inserted once and never updated. The hot path of the database."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from sqlalchemy import text

from monitor.store import bulk, score_hours

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Callable, Sequence

    from sqlalchemy import Connection

    from monitor.store.bulk import Array
    from monitor.store.commit import FleetRows

    PruneStep = Callable[[Connection, Sequence[str], int, int], tuple[Counter[str], int]]

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


def insert(connection: Connection, rows: FleetRows, version_id: Sequence[int | None]) -> None:
    """Insert the windows of one shard, and update the last window of each asset and its hours.

    `version_id`: [N], as in the database. A key that exists already raises: two writers, or one that lost its state.
    NaN is stored as NULL. An infinite score is stored as the largest float32, which JSON can represent.
    """
    asset_id = rows.asset_ids[rows.asset]
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
    _update_last_windows(connection, rows, columns)
    score_hours.add(connection, columns)


_ON_CONFLICT = """
    ON CONFLICT (asset_id) DO UPDATE
    SET start_us = excluded.start_us, end_us = excluded.end_us, recent = excluded.recent
"""
_PUT_LAST = text(f"""
    INSERT INTO last_window (asset_id, start_us, end_us, recent)
    SELECT asset_id, start_us, start_us + CAST(:length_us AS BIGINT), recent
    FROM unnest(CAST(:asset_id AS INTEGER[]), CAST(:start_us AS BIGINT[]), CAST(:recent AS TEXT[]))
        AS last (asset_id, start_us, recent)
    {_ON_CONFLICT}
""")  # noqa: S608 - constants


def _update_last_windows(connection: Connection, rows: FleetRows, columns: dict[str, Array]) -> None:
    """Store each asset's last window and recent verdicts, for a restart. `columns`: sorted by time."""
    length_us = int(rows.end_us[0] - rows.start_us[0])  # all windows of a shard are equally long
    asset, place = np.unique(columns["asset_id"], return_inverse=True)
    last = np.zeros(len(asset), np.int64)
    last[place] = columns["start_us"]  # of several rows of an asset the last one remains
    recent = {int(rows.asset_ids[index]): json.dumps(verdicts) for index, verdicts in rows.recent.items()}
    ids = asset.tolist()
    values = {"asset_id": ids, "start_us": last.tolist(), "recent": [recent.get(number) for number in ids]}
    if connection.dialect.name == "sqlite":
        bulk.insert(connection, "last_window", values | {"end_us": (last + length_us).tolist()}, _ON_CONFLICT)
    else:
        connection.execute(_PUT_LAST, values | {"length_us": length_us})


# ---------------------------------------------------------------- retention

_LAST_WINDOWS = text("""
    SELECT fleet, COALESCE(end_us, start_us) AS end_us FROM asset JOIN last_window ON last_window.asset_id = asset.id
    ORDER BY fleet, 2
""")
_BEFORE = text("""
    SELECT end_us FROM score JOIN asset ON asset.id = asset_id
    WHERE fleet = :fleet AND start_us <= :horizon_us AND end_us <= :horizon_us ORDER BY start_us DESC LIMIT 1
""")
_SAVED = text("SELECT MAX(saved_us) FROM source_partition")
AHEAD_US = 3_600_000_000
"""A window that ends more than an hour after the latest commit, and after the latest windows of half of the assets, is
in the future: its asset's clock is wrong."""


class NewestWindows(NamedTuple):
    """The ends of a fleet's latest windows."""

    newest_us: int
    """Of all that are not in the future."""
    horizon_us: int
    """The future begins after this."""


def newest_windows(connection: Connection) -> dict[str, NewestWindows]:
    """Return the end of each fleet's latest window, pruned or not. One asset with a wrong clock does not set it.

    The latest commit tells the time. Where the clock of that commit was behind, half of the assets tell it.
    """
    saved_us = connection.execute(_SAVED).scalar_one() or 0
    ends: dict[str, list[int]] = {}
    for row in connection.execute(_LAST_WINDOWS):
        ends.setdefault(row.fleet, []).append(row.end_us)
    found = {}
    for fleet, of_fleet in ends.items():
        horizon_us = max(saved_us, of_fleet[(len(of_fleet) - 1) // 2]) + AHEAD_US
        latest_us = max(end_us for end_us in of_fleet if end_us <= horizon_us)
        if of_fleet[-1] > horizon_us:  # an asset that leapt into the future may have later windows before its leap
            values = {"fleet": fleet, "horizon_us": horizon_us}
            latest_us = max(latest_us, connection.execute(_BEFORE, values).scalar() or latest_us)
        found[fleet] = NewestWindows(latest_us, horizon_us)
    return found


def newest_us(connection: Connection) -> dict[str, int]:
    """Return the end of each fleet's latest window that is not in the future."""
    return {fleet: found.newest_us for fleet, found in newest_windows(connection).items()}

def prune(
    connection: Connection, fleets: Sequence[str], from_us: int, before_us: int, limit: int = 10_000
) -> tuple[Counter[str], int]:
    """Delete the fleets' windows that start in [from_us, before_us), in the range of the next `limit` rows.

    Returns the number of deleted rows by fleet, and the start of the next step. `before_us` = done. Each step is a
    transaction of its own, so that the pipeline never waits long for the lock.
    """
    return bulk.delete_step(connection, "score", "start_us", fleets, from_us, before_us, limit)
