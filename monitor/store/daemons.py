"""Registered daemons and their heartbeats, in processing time. Commands ask here if a daemon is running."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import text

if TYPE_CHECKING:
    from sqlalchemy import Connection

STALE_US = 30_000_000
"""Age of a heartbeat from which a daemon counts as dead. A daemon sends one every few seconds."""

_HEARTBEAT = text("""
    INSERT INTO daemon (owner, pipeline, started_us, heartbeat_us, status)
    VALUES (:owner, :pipeline, :started_us, :now_us, :status)
    ON CONFLICT (owner) DO UPDATE
    SET started_us = excluded.started_us, heartbeat_us = excluded.heartbeat_us, status = excluded.status
""")
_DEREGISTER = text("DELETE FROM daemon WHERE owner = :owner")
_DELETE_STALE = text("DELETE FROM daemon WHERE heartbeat_us < :before_us")
_COUNT_ALIVE = text("SELECT COUNT(*) FROM daemon WHERE heartbeat_us >= :since_us")
_RESET_CLAIMS = text("UPDATE source_partition SET n_claims = 0 WHERE owner = :owner")


def heartbeat(connection: Connection, *, owner: str, pipeline: str, started_us: int, now_us: int, status: str) -> None:
    """Register the daemon, or renew its registration. `status`: one sentence for an operator."""
    values = {"owner": owner, "pipeline": pipeline, "started_us": started_us, "now_us": now_us, "status": status}
    connection.execute(_HEARTBEAT, values)


def deregister(connection: Connection, owner: str, is_meant: bool = True) -> None:
    """Remove the daemon.

    `is_meant`: it ends by a stop, or by an error that states the remedy. Otherwise its claims keep counting: the next
    owner may die of the same record.
    """
    connection.execute(_DEREGISTER, {"owner": owner})
    if is_meant:
        connection.execute(_RESET_CLAIMS, {"owner": owner})


def delete_stale(connection: Connection, before_us: int) -> int:
    """Remove daemons whose last heartbeat was before `before_us` and return their number."""
    return connection.execute(_DELETE_STALE, {"before_us": before_us}).rowcount


def count_alive(connection: Connection, now_us: int) -> int:
    """Count the daemons with a fresh heartbeat."""
    n: int = connection.execute(_COUNT_ALIVE, {"since_us": now_us - STALE_US}).scalar_one()
    return n
