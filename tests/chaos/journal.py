"""Database triggers that record each change of an offset with owner, time and transaction, and checks on them.

Independent of monitor: they record the statements that reached the database. They prove I5 (offsets and epochs only
rise) and I7 (no row from a fenced writer: a commit comes over the connection of the partition's owner, and on
PostgreSQL each row of results has the id of a transaction that moved the offset of its partition). They also record the
holders of the outbox's lease, for I6.
"""

from __future__ import annotations

import contextlib
import json
import sqlite3
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

_POSTGRESQL = """
    CREATE TABLE chaos_backend (backend TEXT, owner TEXT, PRIMARY KEY (backend, owner));
    CREATE TABLE chaos_journal (
        id BIGSERIAL PRIMARY KEY, at DOUBLE PRECISION, xid BIGINT, backend TEXT, topic TEXT, partition INT, owner TEXT,
        old_epoch INT, epoch INT, old_next BIGINT, next_offset BIGINT, counters TEXT
    );
    CREATE FUNCTION chaos_backend() RETURNS TEXT LANGUAGE sql AS
        $$ SELECT pid || ' ' || backend_start FROM pg_stat_activity WHERE pid = pg_backend_pid() $$;
    CREATE FUNCTION chaos_move() RETURNS TRIGGER LANGUAGE plpgsql AS $$
        DECLARE me TEXT := chaos_backend();
        BEGIN
            INSERT INTO chaos_journal (at, xid, backend, topic, partition, owner,
                old_epoch, epoch, old_next, next_offset, counters)
            VALUES (extract(epoch FROM clock_timestamp()), txid_current(), me, NEW.topic, NEW.partition, NEW.owner,
                CASE TG_OP WHEN 'UPDATE' THEN OLD.epoch END, NEW.epoch,
                CASE TG_OP WHEN 'UPDATE' THEN OLD.next_offset END, NEW.next_offset, NEW.counters);
            IF TG_OP = 'INSERT' OR OLD.epoch <> NEW.epoch THEN
                INSERT INTO chaos_backend VALUES (me, NEW.owner) ON CONFLICT DO NOTHING;
            END IF;
            RETURN NULL;
        END $$;
    CREATE TRIGGER chaos AFTER INSERT OR UPDATE ON source_partition FOR EACH ROW EXECUTE FUNCTION chaos_move();
    CREATE FUNCTION chaos_heartbeat() RETURNS TRIGGER LANGUAGE plpgsql AS $$
        BEGIN
            INSERT INTO chaos_backend VALUES (chaos_backend(), NEW.owner) ON CONFLICT DO NOTHING;
            RETURN NULL;
        END $$;
    CREATE TRIGGER chaos AFTER INSERT OR UPDATE ON daemon FOR EACH ROW EXECUTE FUNCTION chaos_heartbeat();
    CREATE TABLE chaos_lease (id BIGSERIAL PRIMARY KEY, at DOUBLE PRECISION, epoch INT, holder TEXT);
    CREATE FUNCTION chaos_lease_change() RETURNS TRIGGER LANGUAGE plpgsql AS $$
        BEGIN
            IF NEW.name = 'outbox' AND (TG_OP = 'INSERT' OR OLD.epoch <> NEW.epoch) THEN
                INSERT INTO chaos_lease (at, epoch, holder)
                VALUES (extract(epoch FROM clock_timestamp()), NEW.epoch, NEW.holder);
            END IF;
            RETURN NULL;
        END $$;
    CREATE TRIGGER chaos AFTER INSERT OR UPDATE ON lease FOR EACH ROW EXECUTE FUNCTION chaos_lease_change();
    CREATE TABLE chaos_outbox (xid BIGINT);
    CREATE FUNCTION chaos_outbox_insert() RETURNS TRIGGER LANGUAGE plpgsql AS $$
        BEGIN
            INSERT INTO chaos_outbox VALUES (txid_current());
            RETURN NULL;
        END $$;
    CREATE TRIGGER chaos AFTER INSERT ON outbox FOR EACH ROW EXECUTE FUNCTION chaos_outbox_insert();
"""
_SQLITE = """
    CREATE TABLE chaos_journal (
        id INTEGER PRIMARY KEY, at REAL, backend TEXT, topic TEXT, partition INT, owner TEXT,
        old_epoch INT, epoch INT, old_next INT, next_offset INT, counters TEXT
    );
    CREATE TRIGGER chaos_insert AFTER INSERT ON source_partition BEGIN
        INSERT INTO chaos_journal (at, topic, partition, owner, epoch, next_offset, counters) VALUES
            ((julianday('now') - 2440587.5) * 86400, NEW.topic, NEW.partition, NEW.owner, NEW.epoch, NEW.next_offset,
             NEW.counters);
    END;
    CREATE TRIGGER chaos_update AFTER UPDATE ON source_partition BEGIN
        INSERT INTO chaos_journal (at, topic, partition, owner, old_epoch, epoch, old_next, next_offset, counters)
        VALUES ((julianday('now') - 2440587.5) * 86400, NEW.topic, NEW.partition, NEW.owner,
            OLD.epoch, NEW.epoch, OLD.next_offset, NEW.next_offset, NEW.counters);
    END;
    CREATE TABLE chaos_lease (id INTEGER PRIMARY KEY, at REAL, epoch INT, holder TEXT);
    CREATE TRIGGER chaos_first AFTER INSERT ON lease WHEN NEW.name = 'outbox' BEGIN
        INSERT INTO chaos_lease (at, epoch, holder) VALUES
            ((julianday('now') - 2440587.5) * 86400, NEW.epoch, NEW.holder);
    END;
    CREATE TRIGGER chaos_next AFTER UPDATE ON lease WHEN NEW.name = 'outbox' AND OLD.epoch <> NEW.epoch BEGIN
        INSERT INTO chaos_lease (at, epoch, holder) VALUES
            ((julianday('now') - 2440587.5) * 86400, NEW.epoch, NEW.holder);
    END;
"""
READ = (
    "SELECT id, at, topic, partition, owner, old_epoch, epoch, old_next, next_offset, backend, counters"
    " FROM chaos_journal ORDER BY id"
)

# Counts of result rows that no transaction wrote which moved the offset of their partition.
_STRAY = {
    "score": """
        SELECT count(*) FROM score JOIN asset ON asset.id = score.asset_id
        WHERE NOT EXISTS (
            SELECT 1 FROM chaos_journal j WHERE j.xid % 4294967296 = score.xmin::text::bigint
            AND j.topic = asset.topic AND j.partition = asset.partition AND j.next_offset > j.old_next)""",
    "quarantine": """
        SELECT count(*) FROM quarantine q WHERE NOT EXISTS (
            SELECT 1 FROM chaos_journal j WHERE j.xid % 4294967296 = q.xmin::text::bigint
            AND j.topic = q.topic AND j.partition = q.partition AND j.next_offset > j.old_next)""",
    "alert_transition": """
        SELECT count(*) FROM alert_transition t WHERE NOT EXISTS (
            SELECT 1 FROM chaos_journal j WHERE j.xid % 4294967296 = t.xmin::text::bigint
            AND j.next_offset > j.old_next)""",
    "gap": """
        SELECT count(*) FROM gap g WHERE NOT EXISTS (
            SELECT 1 FROM chaos_journal j WHERE j.xid % 4294967296 = g.xmin::text::bigint
            AND j.topic = g.topic AND j.partition = g.partition AND j.next_offset > j.old_next)""",
    "outbox": """
        SELECT count(*) FROM chaos_outbox l WHERE NOT EXISTS (
            SELECT 1 FROM chaos_journal j WHERE j.xid = l.xid AND j.next_offset > j.old_next)""",
}


def install_sqlite(path: Path) -> None:
    """Create the triggers in a database with tables."""
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.executescript(_SQLITE)


def postgresql_ddl() -> str:
    """Return the SQL that creates the triggers in a database with tables."""
    return _POSTGRESQL


@dataclass(frozen=True, slots=True)
class Move:
    """One change of a partition's row."""

    at: float
    """Seconds since 1970."""
    partition: tuple[str, int]
    owner: str
    old_epoch: int | None
    epoch: int
    old_next: int | None
    next_offset: int | None
    backend: str | None
    counters: str
    """JSON, after the change."""

    @property
    def n_windows(self) -> int:
        """Number of windows of this partition so far."""
        return int(json.loads(self.counters).get("windows", 0))

    @property
    def is_claim(self) -> bool:
        return self.old_epoch != self.epoch

    @property
    def is_save(self) -> bool:
        return self.old_next is not None and self.next_offset != self.old_next


def moves(fetch: Callable[[str], Sequence[Any]]) -> list[Move]:
    """Read the journal in order of the changes."""
    return [Move(row[1], (row[2], row[3]), *row[4:]) for row in fetch(READ)]


def problems(fetch: Callable[[str], Sequence[Any]], *, is_postgresql: bool) -> list[str]:
    """Return the violations in the journal."""
    found = []
    epoch: dict[tuple[str, int], int] = {}
    owner: dict[tuple[str, int], str] = {}
    of_backend: dict[str, set[str]] = {}
    if is_postgresql:
        for backend, name in fetch("SELECT backend, owner FROM chaos_backend"):
            of_backend.setdefault(backend, set()).add(name)
        found += [f"I7: connection {each} served {names}" for each, names in of_backend.items() if len(names) > 1]
    for move in moves(fetch):
        where = move.partition
        if move.epoch < epoch.get(where, 0):
            found.append(f"I5: epoch of {where} fell from {epoch[where]} to {move.epoch}")
        if move.old_next is not None and (move.next_offset is None or move.next_offset < move.old_next):
            found.append(f"I5: offset of {where} fell from {move.old_next} to {move.next_offset}")
        if move.is_claim:
            if move.epoch != (move.old_epoch or 0) + 1:
                found.append(f"I5: epoch of {where} jumped from {move.old_epoch} to {move.epoch}")
            if move.old_next != move.next_offset:
                found.append(f"I7: a claim of {where} moved the offset from {move.old_next} to {move.next_offset}")
            owner[where] = move.owner
        elif move.owner != owner.get(where, move.owner):
            found.append(f"I7: {where} changed hands from {owner[where]} to {move.owner} without a claim")
        writers = of_backend.get(move.backend or "", set())
        if move.is_save and writers and move.owner not in writers:
            found.append(f"I7: {where} belongs to {move.owner}, and {writers} moved it to {move.next_offset}")
        epoch[where] = move.epoch
    if is_postgresql:
        for table, sql in _STRAY.items():
            [(n_stray,)] = fetch(sql)
            if n_stray:
                found.append(f"I7: {n_stray} rows of {table} are of no transaction that moved their partition's offset")
    return found
