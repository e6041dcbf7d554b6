"""Daemons and their heartbeats, so that a command can say whether anybody is at work. Processing time."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import text

if TYPE_CHECKING:
    from sqlalchemy import Connection

STALE_US = 30_000_000
"""A daemon that has not been heard of for this long is taken for dead; it beats every few seconds."""

_BEAT = text("""
    INSERT INTO daemon (owner, pipeline, started_us, heartbeat_us, status)
    VALUES (:owner, :pipeline, :started_us, :now_us, :status)
    ON CONFLICT (owner) DO UPDATE
    SET started_us = excluded.started_us, heartbeat_us = excluded.heartbeat_us, status = excluded.status
""")
_LEAVE = text("DELETE FROM daemon WHERE owner = :owner")
_FORGET = text("DELETE FROM daemon WHERE heartbeat_us < :before_us")
_N_ALIVE = text("SELECT COUNT(*) FROM daemon WHERE heartbeat_us >= :since_us")
_NOT_DEAD = text("UPDATE source_partition SET n_claims = 0 WHERE owner = :owner")


def beat(connection: Connection, *, owner: str, pipeline: str, started_us: int, now_us: int, status: str) -> None:
    """Say "alive"; `status` is one sentence for a human."""
    values = {"owner": owner, "pipeline": pipeline, "started_us": started_us, "now_us": now_us, "status": status}
    connection.execute(_BEAT, values)


def leave(connection: Connection, owner: str, is_meant: bool = True) -> None:
    """Say goodbye. `is_meant`: a stop, or an error that says what to do; else who comes next may die of the same."""
    connection.execute(_LEAVE, {"owner": owner})
    if is_meant:
        connection.execute(_NOT_DEAD, {"owner": owner})


def forget(connection: Connection, before_us: int) -> int:
    """Remove daemons last heard of before `before_us`; return how many."""
    return connection.execute(_FORGET, {"before_us": before_us}).rowcount


def n_alive(connection: Connection, now_us: int) -> int:
    """Count the daemons heard of lately."""
    n: int = connection.execute(_N_ALIVE, {"since_us": now_us - STALE_US}).scalar_one()
    return n
