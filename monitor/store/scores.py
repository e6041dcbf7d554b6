"""Scores: one row per (asset, window start), written once, never changed.

The hot path of the database. Columns enter as arrays and stay arrays for as long as the driver allows: PostgreSQL takes
them through COPY in its binary format, built by NumPy without a Python object per value; SQLite through one
`executemany`.
"""

from __future__ import annotations

import io
import itertools
from typing import TYPE_CHECKING, Any

import numpy as np
from sqlalchemy import text

from monitor.types import Verdict

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Connection

    from monitor.store.engine import AsyncStore
    from monitor.store.partitions import FleetRows
    from monitor.types import Bool, Int32

    Column = np.ndarray[tuple[int], np.dtype[Any]]

COLUMNS = (
    "start_us",
    "asset_id",
    "end_us",
    "verdict",
    "n_present",
    "first_offset",
    "last_offset",
    "score",
    "version_id",
)
_INSERT = f"INSERT INTO score ({', '.join(COLUMNS)}) VALUES ({', '.join('?' * (len(COLUMNS) - 1))}, NULLIF(?, -1))"  # noqa: S608 - constants

# PostgreSQL's binary COPY (its manual, COPY, "Binary Format"): a header, tuples of (field count, then length and bytes
# of each field, big-endian, length -1 = NULL), a trailer.
_COPY_HEADER = b"PGCOPY\n\xff\r\n\0" + bytes(8)
_COPY_TRAILER = b"\xff\xff"
_COPY_TYPES = {
    "asset_id": ">i4",
    "start_us": ">i8",
    "end_us": ">i8",
    "verdict": ">i2",
    "n_present": ">i4",
    "first_offset": ">i8",
    "last_offset": ">i8",
    "score": ">f4",
    "version_id": ">i4",
}
NO_VERSION = -1
_LARGEST = float(np.finfo(np.float32).max)


def insert(connection: Connection, asset_id: Int32, version_id: Sequence[int | None], rows: FleetRows) -> None:
    """Insert the windows of `rows`. A key that is there already raises: two writers, or one that forgot.

    NaN is stored as NULL. An infinite score is stored as the largest float32: JSON and people can read that.
    """
    order = np.lexsort((asset_id, rows.start_us))  # the key's order: appends stay at the end of the B-tree
    columns: dict[str, Column] = {
        "start_us": rows.start_us[order],
        "asset_id": asset_id[order],
        "end_us": rows.end_us[order],
        "verdict": rows.verdict[order],
        "n_present": rows.n_present[order],
        "first_offset": rows.first_offset[order],
        "last_offset": rows.last_offset[order],
        "score": np.clip(rows.score[order], -_LARGEST, _LARGEST),
        "version_id": np.array([NO_VERSION if v is None else v for v in version_id], np.int32)[order],
    }
    if connection.dialect.name == "sqlite":
        values = [columns[name].tolist() for name in COLUMNS]  # the driver binds NaN as NULL
        connection.exec_driver_sql(_INSERT, list(zip(*values, strict=True)))
    else:
        source = io.BytesIO(_copy_format(columns))
        driver: Any = connection.connection.dbapi_connection  # SQLAlchemy's adapter; run_async hands out asyncpg's own
        driver.run_async(lambda raw: raw.copy_to_table("score", source=source, columns=COLUMNS, format="binary"))
    _note_last(connection, columns)


_NOTE_SQLITE = """
    UPDATE asset SET last_start_us = MAX(COALESCE(last_start_us, ?1), ?1),
        last_anomalous_us = COALESCE(?2, last_anomalous_us)
    WHERE id = ?3
"""

_NOTE_POSTGRESQL = text("""
    UPDATE asset SET last_start_us = GREATEST(asset.last_start_us, fresh.last_start_us),
        last_anomalous_us = COALESCE(fresh.last_anomalous_us, asset.last_anomalous_us)
    FROM unnest(CAST(:last_start AS BIGINT[]), CAST(:last_anomalous AS BIGINT[]), CAST(:asset AS INTEGER[]))
        AS fresh (last_start_us, last_anomalous_us, asset_id)
    WHERE asset.id = fresh.asset_id
""")


def _note_last(connection: Connection, columns: dict[str, Column]) -> None:
    """Keep each asset's last window and last anomalous window beside its name, where a restart looks first."""
    asset, place = np.unique(columns["asset_id"], return_inverse=True)
    last_start = np.zeros(len(asset), np.int64)
    last_start[place] = columns["start_us"]  # in order of time: the last one stays
    last_anomalous: list[int | None] = [None] * len(asset)
    for row in np.flatnonzero(columns["verdict"] == Verdict.ANOMALOUS).tolist():
        last_anomalous[place[row]] = int(columns["start_us"][row])
    if connection.dialect.name == "sqlite":
        connection.exec_driver_sql(
            _NOTE_SQLITE, list(zip(last_start.tolist(), last_anomalous, asset.tolist(), strict=True))
        )
    else:
        values = {"last_start": last_start.tolist(), "last_anomalous": last_anomalous, "asset": asset.tolist()}
        connection.execute(_NOTE_POSTGRESQL, values)


def _copy_format(columns: dict[str, Column]) -> bytes:
    no_score = np.isnan(columns["score"])
    no_version = columns["version_id"] == NO_VERSION
    parts = [_COPY_HEADER]
    for without_score, without_version in itertools.product((False, True), repeat=2):
        chosen = (no_score == without_score) & (no_version == without_version)
        if chosen.any():
            nulls = [name for name, is_null in (("score", without_score), ("version_id", without_version)) if is_null]
            parts.append(_tuples(columns, chosen, nulls))
    parts.append(_COPY_TRAILER)
    return b"".join(parts)


def _tuples(columns: dict[str, Column], chosen: Bool, nulls: list[str]) -> bytes:
    """Tuples that all have the same columns NULL, as one structured array: no loop over rows."""
    layout: list[tuple[str, str]] = [("n_fields", ">i2")]
    for name in COLUMNS:
        layout.append((f"{name}_length", ">i4"))
        if name not in nulls:
            layout.append((name, _COPY_TYPES[name]))
    tuples = np.empty(int(chosen.sum()), np.dtype(layout))
    tuples["n_fields"] = len(COLUMNS)
    for name in COLUMNS:
        if name in nulls:
            tuples[f"{name}_length"] = -1
        else:
            tuples[f"{name}_length"] = np.dtype(_COPY_TYPES[name]).itemsize
            tuples[name] = columns[name][chosen]
    return tuples.tobytes()


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


async def prune_all(store: AsyncStore, before_us: int) -> int:
    """Delete all windows that start before `before_us`, step by step; return how many."""
    total = 0
    while n := await store.run(prune, before_us):
        total += n
    return total


_NEWEST_END = text("""
    SELECT MAX(end_us) FROM asset JOIN score ON start_us = last_start_us AND asset_id = asset.id WHERE fleet = :fleet
""")


def newest_end_us(connection: Connection, fleet: str) -> int | None:
    """End of the fleet's latest stored window: a new champion may decide only what ends after it."""
    end_us: int | None = connection.execute(_NEWEST_END, {"fleet": fleet}).scalar_one()
    return end_us
