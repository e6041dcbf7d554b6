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

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Connection

    from monitor.store.partitions import FleetRows
    from monitor.types import Bool, Int32

    Column = np.ndarray[tuple[int], np.dtype[Any]]

COLUMNS = (
    "asset_id",
    "start_us",
    "end_us",
    "verdict",
    "n_present",
    "first_offset",
    "last_offset",
    "score",
    "version_id",
)
_INSERT = f"INSERT INTO score ({', '.join(COLUMNS)}) VALUES ({', '.join('?' * len(COLUMNS))})"  # noqa: S608 - constants

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
_LARGEST = float(np.finfo(np.float32).max)


def insert(connection: Connection, asset_id: Int32, version_id: Sequence[int | None], rows: FleetRows) -> None:
    """Insert the windows of `rows`. A key that is there already raises: two writers, or one that forgot.

    NaN is stored as NULL. An infinite score is stored as the largest float32: JSON and people can read that.
    """
    columns: dict[str, Column] = {
        "asset_id": asset_id,
        "start_us": rows.start_us,
        "end_us": rows.end_us,
        "verdict": rows.verdict,
        "n_present": rows.n_present,
        "first_offset": rows.first_offset,
        "last_offset": rows.last_offset,
        "score": np.clip(rows.score, -_LARGEST, _LARGEST),
    }
    if connection.dialect.name == "sqlite":
        # The driver binds NaN as NULL.
        values = [columns[name].tolist() for name in COLUMNS[:-1]]
        connection.exec_driver_sql(_INSERT, list(zip(*values, version_id, strict=True)))
        return
    columns["version_id"] = np.array([-1 if v is None else v for v in version_id], np.int32)
    source = io.BytesIO(_copy_format(columns))
    driver: Any = connection.connection.dbapi_connection  # SQLAlchemy's adapter; `run_async` hands us asyncpg's own
    driver.run_async(lambda raw: raw.copy_to_table("score", source=source, columns=COLUMNS, format="binary"))


def _copy_format(columns: dict[str, Column]) -> bytes:
    no_score = np.isnan(columns["score"])
    no_version = columns["version_id"] < 0
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

_OLD_ASSETS = text("""
    SELECT id FROM asset
    WHERE EXISTS (SELECT 1 FROM score WHERE score.asset_id = asset.id AND score.start_us < :before_us)
    ORDER BY id LIMIT 100
""")

_PRUNE = text("""
    DELETE FROM score WHERE asset_id = :asset_id AND start_us < :before_us AND start_us <= (
        SELECT MAX(start_us) FROM (
            SELECT start_us FROM score WHERE asset_id = :asset_id ORDER BY start_us LIMIT :limit
        ) AS oldest
    )
""")


def prune(connection: Connection, before_us: int, limit: int = 10_000) -> int:
    """Delete windows that start before `before_us`, at most about `limit` rows; return how many. 0 = done.

    Small steps, each in a transaction of its own, so that the river never waits long for the lock.
    """
    deleted = 0
    for (asset_id,) in connection.execute(_OLD_ASSETS, {"before_us": before_us}).all():
        values = {"asset_id": asset_id, "before_us": before_us, "limit": limit - deleted}
        deleted += connection.execute(_PRUNE, values).rowcount
        if deleted >= limit:
            break
    return deleted


_LAST_END = text("""
    SELECT MAX((SELECT end_us FROM score WHERE asset_id = asset.id ORDER BY start_us DESC LIMIT 1))
    FROM asset WHERE fleet = :fleet
""")


def last_end_us(connection: Connection, fleet: str) -> int | None:
    """End of the fleet's latest stored window: a new champion may decide only what ends after it."""
    end_us: int | None = connection.execute(_LAST_END, {"fleet": fleet}).scalar_one()
    return end_us
