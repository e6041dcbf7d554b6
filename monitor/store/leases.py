"""Leases: what only one daemon may do at a time, and who does it. The database's clock decides, never ours.

A lease that ran out is anybody's; each change of hands raises its epoch. Law: who works under a lease says `check`
first in each of its transactions; then what it writes is written while the lease is its own, however long it had been
asleep before.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import text

from monitor.errors import Fenced

if TYPE_CHECKING:
    from sqlalchemy import Connection, TextClause

# SQLite's clock is that of the only machine that has the file, in ms. PostgreSQL's now() is the transaction's start:
# a transaction that waited for the row would judge by a time gone by.
_NOW_US = {
    "sqlite": "CAST(ROUND((julianday('now') - 2440587.5) * 86400000.0) AS INTEGER) * 1000",
    "postgresql": "CAST(EXTRACT(EPOCH FROM clock_timestamp()) * 1000000 AS BIGINT)",
}
_HOLD = {"sqlite": "", "postgresql": "FOR SHARE"}  # a writing transaction on SQLite is alone anyway


def _dialects(sql: str) -> dict[str, TextClause]:
    return {name: text(sql.format(now_us=now_us, hold=_HOLD[name])) for name, now_us in _NOW_US.items()}


_TAKE = _dialects("""
    INSERT INTO lease (name, holder, epoch, until_us) VALUES (:name, :holder, 1, {now_us} + :ttl_us)
    ON CONFLICT (name) DO UPDATE SET
        epoch = CASE WHEN lease.holder = excluded.holder THEN lease.epoch ELSE lease.epoch + 1 END,
        holder = excluded.holder, until_us = {now_us} + :ttl_us
    WHERE lease.holder = excluded.holder OR lease.until_us <= {now_us}
    RETURNING epoch
""")
_RELEASE = text("UPDATE lease SET until_us = 0 WHERE name = :name AND holder = :holder AND epoch = :epoch")
_CHECK = _dialects("""
    SELECT holder, epoch, until_us > {now_us} AS is_held FROM lease WHERE name = :name {hold}
""")


def take(connection: Connection, name: str, holder: str, ttl_s: float) -> int | None:
    """Take the lease for `ttl_s` from now, or renew it; return its epoch. None = somebody else holds it.

    Taking it from another raises its epoch: work begun under the former one is fenced. Renewing keeps the epoch, also
    when it had run out and nobody else took it: then nothing happened in between, and a long training need not die of
    a short outage. `holder` is unique per process: two that share a name share the lease.
    """
    values = {"name": name, "holder": holder, "ttl_us": round(ttl_s * 1e6)}
    epoch: int | None = connection.execute(_TAKE[connection.dialect.name], values).scalar_one_or_none()
    return epoch


def release(connection: Connection, name: str, holder: str, epoch: int) -> None:
    """Give the lease up, so that nobody has to wait for its end. No harm if it is ours no more."""
    connection.execute(_RELEASE, {"name": name, "holder": holder, "epoch": epoch})


def check(connection: Connection, name: str, epoch: int) -> None:
    """Make sure that the lease is still held under `epoch`, and stays so until the transaction ends.

    First statement of a transaction that writes. Raises Fenced when the lease ran out or changed hands: roll back.
    """
    row = connection.execute(_CHECK[connection.dialect.name], {"name": name}).one_or_none()
    if row is None or row.epoch != epoch or not row.is_held:
        word = "holds" if row is not None and row.is_held else "held"
        stands = "it is gone" if row is None else f"{row.holder} {word} it under epoch {row.epoch}"
        raise Fenced(f"lease {name}: epoch {epoch} is over, {stands}")
