"""Leases: exclusive rights of one daemon, for a limited time by the database's clock.

An expired lease is free for all. Each change of its holder raises its epoch, which is the fencing token.

Invariant: each transaction of work under a lease calls `check` first. Then it writes only while the lease is held, even
if the process was suspended before.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import text

from monitor.errors import Fenced

if TYPE_CHECKING:
    from sqlalchemy import Connection, TextClause

# SQLite's clock is that of the only machine with the file, in ms. PostgreSQL's now() is the start of the transaction:
# a transaction that waited for the row would compare with a time in the past.
_NOW_US = {
    "sqlite": "CAST(ROUND((julianday('now') - 2440587.5) * 86400000.0) AS INTEGER) * 1000",
    "postgresql": "CAST(EXTRACT(EPOCH FROM clock_timestamp()) * 1000000 AS BIGINT)",
}
_ROW_LOCK = {"sqlite": "", "postgresql": "FOR SHARE"}  # a writing transaction on SQLite is alone anyway


def _dialects(sql: str) -> dict[str, TextClause]:
    return {name: text(sql.format(now_us=now_us, row_lock=_ROW_LOCK[name])) for name, now_us in _NOW_US.items()}


_ACQUIRE = _dialects("""
    INSERT INTO lease (name, holder, epoch, until_us) VALUES (:name, :holder, 1, {now_us} + :ttl_us)
    ON CONFLICT (name) DO UPDATE SET
        epoch = CASE WHEN lease.holder = excluded.holder THEN lease.epoch ELSE lease.epoch + 1 END,
        holder = excluded.holder, until_us = {now_us} + :ttl_us
    WHERE lease.holder = excluded.holder OR lease.until_us <= {now_us}
    RETURNING epoch
""")
_RELEASE = text("UPDATE lease SET until_us = 0 WHERE name = :name AND holder = :holder AND epoch = :epoch")
_CHECK = _dialects("""
    SELECT holder, epoch, until_us > {now_us} AS is_held FROM lease WHERE name = :name {row_lock}
""")


def acquire(connection: Connection, name: str, holder: str, ttl_s: float) -> int | None:
    """Acquire the lease for `ttl_s` from now, or renew it and return its epoch. None = another daemon holds it.

    Acquiring it from another holder raises its epoch: work under the former epoch is fenced. Renewing keeps the epoch,
    even after the lease expired, if no other daemon acquired it since: a long training survives a short outage.
    `holder` is unique per process: two processes of one name would share the lease.
    """
    values = {"name": name, "holder": holder, "ttl_us": round(ttl_s * 1e6)}
    epoch: int | None = connection.execute(_ACQUIRE[connection.dialect.name], values).scalar_one_or_none()
    return epoch


def release(connection: Connection, name: str, holder: str, epoch: int) -> None:
    """Release the lease, so that no daemon waits for its end. No effect if another holds it."""
    connection.execute(_RELEASE, {"name": name, "holder": holder, "epoch": epoch})


def check(connection: Connection, name: str, epoch: int) -> None:
    """Assert that the lease is held under `epoch`, and keep it from changing hands until the transaction ends.

    First statement of a transaction that writes. Raises Fenced if the lease expired or changed hands: roll back.
    """
    row = connection.execute(_CHECK[connection.dialect.name], {"name": name}).one_or_none()
    if row is None or row.epoch != epoch or not row.is_held:
        verb = "holds" if row is not None and row.is_held else "held"
        state = "it is gone" if row is None else f"{row.holder} {verb} it under epoch {row.epoch}"
        raise Fenced(f"lease {name}: epoch {epoch} is over, {state}")
