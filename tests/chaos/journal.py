"""The database writes down by itself who moved which offset, when and in which transaction. Triggers in, problems out.

Independent of the engine: it sees what arrived, not what was meant. From it follow I5 (offsets and epochs never fall)
and I7 (no row from a fenced writer: a save comes from the connection of the partition's owner, and on PostgreSQL each
row of results carries the number of a transaction that moved that very partition's offset). It also keeps who held the
outbox's lease when, for I6.
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
    CREATE TABLE nemesis_backend (backend TEXT, owner TEXT, PRIMARY KEY (backend, owner));
    CREATE TABLE nemesis_journal (
        id BIGSERIAL PRIMARY KEY, at DOUBLE PRECISION, xid BIGINT, backend TEXT, topic TEXT, partition INT, owner TEXT,
        old_epoch INT, epoch INT, old_next BIGINT, next_offset BIGINT, counters TEXT
    );
    CREATE FUNCTION nemesis_backend() RETURNS TEXT LANGUAGE sql AS
        $$ SELECT pid || ' ' || backend_start FROM pg_stat_activity WHERE pid = pg_backend_pid() $$;
    CREATE FUNCTION nemesis_note() RETURNS TRIGGER LANGUAGE plpgsql AS $$
        DECLARE me TEXT := nemesis_backend();
        BEGIN
            INSERT INTO nemesis_journal (at, xid, backend, topic, partition, owner,
                old_epoch, epoch, old_next, next_offset, counters)
            VALUES (extract(epoch FROM clock_timestamp()), txid_current(), me, NEW.topic, NEW.partition, NEW.owner,
                CASE TG_OP WHEN 'UPDATE' THEN OLD.epoch END, NEW.epoch,
                CASE TG_OP WHEN 'UPDATE' THEN OLD.next_offset END, NEW.next_offset, NEW.counters);
            IF TG_OP = 'INSERT' OR OLD.epoch <> NEW.epoch THEN
                INSERT INTO nemesis_backend VALUES (me, NEW.owner) ON CONFLICT DO NOTHING;
            END IF;
            RETURN NULL;
        END $$;
    CREATE TRIGGER nemesis AFTER INSERT OR UPDATE ON source_partition FOR EACH ROW EXECUTE FUNCTION nemesis_note();
    CREATE FUNCTION nemesis_beat() RETURNS TRIGGER LANGUAGE plpgsql AS $$
        BEGIN
            INSERT INTO nemesis_backend VALUES (nemesis_backend(), NEW.owner) ON CONFLICT DO NOTHING;
            RETURN NULL;
        END $$;
    CREATE TRIGGER nemesis AFTER INSERT OR UPDATE ON daemon FOR EACH ROW EXECUTE FUNCTION nemesis_beat();
    CREATE TABLE nemesis_lease (id BIGSERIAL PRIMARY KEY, at DOUBLE PRECISION, epoch INT, holder TEXT);
    CREATE FUNCTION nemesis_hold() RETURNS TRIGGER LANGUAGE plpgsql AS $$
        BEGIN
            IF NEW.name = 'outbox' AND (TG_OP = 'INSERT' OR OLD.epoch <> NEW.epoch) THEN
                INSERT INTO nemesis_lease (at, epoch, holder)
                VALUES (extract(epoch FROM clock_timestamp()), NEW.epoch, NEW.holder);
            END IF;
            RETURN NULL;
        END $$;
    CREATE TRIGGER nemesis AFTER INSERT OR UPDATE ON lease FOR EACH ROW EXECUTE FUNCTION nemesis_hold();
    CREATE TABLE nemesis_letter (xid BIGINT);
    CREATE FUNCTION nemesis_post() RETURNS TRIGGER LANGUAGE plpgsql AS $$
        BEGIN
            INSERT INTO nemesis_letter VALUES (txid_current());
            RETURN NULL;
        END $$;
    CREATE TRIGGER nemesis AFTER INSERT ON outbox FOR EACH ROW EXECUTE FUNCTION nemesis_post();
"""
_SQLITE = """
    CREATE TABLE nemesis_journal (
        id INTEGER PRIMARY KEY, at REAL, backend TEXT, topic TEXT, partition INT, owner TEXT,
        old_epoch INT, epoch INT, old_next INT, next_offset INT, counters TEXT
    );
    CREATE TRIGGER nemesis_insert AFTER INSERT ON source_partition BEGIN
        INSERT INTO nemesis_journal (at, topic, partition, owner, epoch, next_offset, counters) VALUES
            ((julianday('now') - 2440587.5) * 86400, NEW.topic, NEW.partition, NEW.owner, NEW.epoch, NEW.next_offset,
             NEW.counters);
    END;
    CREATE TRIGGER nemesis_update AFTER UPDATE ON source_partition BEGIN
        INSERT INTO nemesis_journal (at, topic, partition, owner, old_epoch, epoch, old_next, next_offset, counters)
        VALUES ((julianday('now') - 2440587.5) * 86400, NEW.topic, NEW.partition, NEW.owner,
            OLD.epoch, NEW.epoch, OLD.next_offset, NEW.next_offset, NEW.counters);
    END;
    CREATE TABLE nemesis_lease (id INTEGER PRIMARY KEY, at REAL, epoch INT, holder TEXT);
    CREATE TRIGGER nemesis_first AFTER INSERT ON lease WHEN NEW.name = 'outbox' BEGIN
        INSERT INTO nemesis_lease (at, epoch, holder) VALUES
            ((julianday('now') - 2440587.5) * 86400, NEW.epoch, NEW.holder);
    END;
    CREATE TRIGGER nemesis_next AFTER UPDATE ON lease WHEN NEW.name = 'outbox' AND OLD.epoch <> NEW.epoch BEGIN
        INSERT INTO nemesis_lease (at, epoch, holder) VALUES
            ((julianday('now') - 2440587.5) * 86400, NEW.epoch, NEW.holder);
    END;
"""
READ = (
    "SELECT id, at, topic, partition, owner, old_epoch, epoch, old_next, next_offset, backend, counters"
    " FROM nemesis_journal ORDER BY id"
)

# A row of results must be of a transaction that moved the offset of the partition it belongs to.
_STRAY = {
    "score": """
        SELECT count(*) FROM score JOIN asset ON asset.id = score.asset_id
        WHERE NOT EXISTS (
            SELECT 1 FROM nemesis_journal j WHERE j.xid % 4294967296 = score.xmin::text::bigint
            AND j.topic = asset.topic AND j.partition = asset.partition AND j.next_offset > j.old_next)""",
    "quarantine": """
        SELECT count(*) FROM quarantine q WHERE NOT EXISTS (
            SELECT 1 FROM nemesis_journal j WHERE j.xid % 4294967296 = q.xmin::text::bigint
            AND j.topic = q.topic AND j.partition = q.partition AND j.next_offset > j.old_next)""",
    "alert_transition": """
        SELECT count(*) FROM alert_transition t WHERE NOT EXISTS (
            SELECT 1 FROM nemesis_journal j WHERE j.xid % 4294967296 = t.xmin::text::bigint
            AND j.next_offset > j.old_next)""",
    "gap": """
        SELECT count(*) FROM gap g WHERE NOT EXISTS (
            SELECT 1 FROM nemesis_journal j WHERE j.xid % 4294967296 = g.xmin::text::bigint
            AND j.topic = g.topic AND j.partition = g.partition AND j.next_offset > j.old_next)""",
    "outbox": """
        SELECT count(*) FROM nemesis_letter l WHERE NOT EXISTS (
            SELECT 1 FROM nemesis_journal j WHERE j.xid = l.xid AND j.next_offset > j.old_next)""",
}


def install_sqlite(path: Path) -> None:
    """Put the triggers into a database that has its tables."""
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.executescript(_SQLITE)


def postgresql_ddl() -> str:
    """Return what to execute in a database that has its tables."""
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
    """JSON, as the partition has them now."""

    @property
    def n_windows(self) -> int:
        """Windows of this partition so far."""
        return int(json.loads(self.counters).get("windows", 0))

    @property
    def is_claim(self) -> bool:
        return self.old_epoch != self.epoch

    @property
    def is_save(self) -> bool:
        return self.old_next is not None and self.next_offset != self.old_next


def moves(fetch: Callable[[str], Sequence[Any]]) -> list[Move]:
    """Read the journal, in the order in which things happened."""
    return [Move(row[1], (row[2], row[3]), *row[4:]) for row in fetch(READ)]


def problems(fetch: Callable[[str], Sequence[Any]], *, is_postgresql: bool) -> list[str]:
    """Name what must not be in the journal."""
    found = []
    epoch: dict[tuple[str, int], int] = {}
    owner: dict[tuple[str, int], str] = {}
    of_backend: dict[str, set[str]] = {}
    if is_postgresql:
        for backend, whose in fetch("SELECT backend, owner FROM nemesis_backend"):
            of_backend.setdefault(backend, set()).add(whose)
        found += [f"I7: connection {each} served {whose}" for each, whose in of_backend.items() if len(whose) > 1]
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
            found.append(f"I7: {where} is {move.owner}'s, and {writers} moved it to {move.next_offset}")
        epoch[where] = move.epoch
    if is_postgresql:
        for table, sql in _STRAY.items():
            [(n_stray,)] = fetch(sql)
            if n_stray:
                found.append(f"I7: {n_stray} rows of {table} are of no transaction that moved their partition's offset")
    return found
