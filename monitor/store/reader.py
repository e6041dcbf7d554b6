"""The operators' door: read-only, and open within milliseconds. A URL enters, a `Reader` leaves.

SQLite goes through the standard library (SQLAlchemy's import alone costs 0.4 s of the half second a command may take
to start); PostgreSQL through the daemon's door. The questions themselves are in `queries/`.
"""

from __future__ import annotations

import re
import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING, Any

from monitor.errors import NotFound, SchemaMismatch
from monitor.store.error_mapping import ours
from monitor.store.migrations import mismatch
from monitor.store.queries import Reader
from monitor.store.url import Address, parse

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Iterator, Mapping
    from pathlib import Path

__all__ = ["Reader", "open_reader"]


def open_reader(url: str) -> Reader:
    """Open a database for reading. Raises NotFound (no such file), SchemaMismatch, ConfigError, StoreUnavailable."""
    address = parse(url)
    if address.path is None:
        return PostgresqlReader(url)
    if not address.path.exists():
        raise NotFound(f"no database at {address}; start the daemon, or check store.url")
    return SqliteReader(address, address.path)


class SqliteReader(Reader):
    """A SQLite file through the standard library. It never writes, and a daemon may write meanwhile."""

    def __init__(self, address: Address, path: Path) -> None:
        self._address = address
        self._connection = _connect(address, path)

    def fetch(self, sql: str, values: Mapping[str, object] | None = None) -> Iterator[Mapping[str, Any]]:
        """Run one SELECT, row by row."""
        try:
            with closing(self._connection.execute(sql, values or {})) as cursor:
                names = [column[0] for column in cursor.description]
                for row in cursor:
                    yield dict(zip(names, row, strict=True))
        except sqlite3.Error as error:
            raise ours(error, self._address, is_lost=isinstance(error, sqlite3.OperationalError)) from error

    def glob(self, column: str, value: str) -> str:
        """SQLite has GLOB, which minds upper and lower case."""
        return f"{column} GLOB :{value}"

    def pattern(self, glob: str) -> str:
        """Only `*` and `?` are special."""
        return glob.replace("[", "[[]")

    def close(self) -> None:
        """Close."""
        self._connection.close()


def _connect(address: Address, path: Path) -> sqlite3.Connection:
    uri = f"{path.resolve().as_uri()}?mode=ro"
    try:
        connection = sqlite3.connect(uri, uri=True, timeout=30, isolation_level=None)
        try:
            revision = _revision(connection)
        except sqlite3.OperationalError:
            connection.close()
            if path.with_name(path.name + "-wal").exists():
                raise
            # Whoever may not write beside the file cannot take part in its journal. There is none now: nobody writes.
            connection = sqlite3.connect(f"{uri}&immutable=1", uri=True, isolation_level=None)
            revision = _revision(connection)
    except sqlite3.Error as error:
        raise ours(error, address, is_lost=isinstance(error, sqlite3.OperationalError)) from error
    if (why := mismatch(revision)) is not None:
        connection.close()
        raise SchemaMismatch(f"{address}: {why}")
    return connection


def _revision(connection: sqlite3.Connection) -> str | None:
    if not connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'alembic_version'").fetchone():
        return None
    row = connection.execute("SELECT version_num FROM alembic_version").fetchone()
    return None if row is None else str(row[0])


class PostgresqlReader(Reader):
    """A PostgreSQL database through the daemon's door, with an event loop of its own."""

    def __init__(self, url: str) -> None:
        import asyncio

        from monitor.store.engine import AsyncStore

        self._store = AsyncStore(url)
        self._runner: asyncio.Runner = asyncio.Runner()
        try:
            self._runner.run(self._store.__aenter__())
        except BaseException:
            self._runner.close()
            raise

    def fetch(self, sql: str, values: Mapping[str, object] | None = None) -> list[Mapping[str, Any]]:
        """Run one SELECT; all rows are there at once."""
        from sqlalchemy import Connection, text

        def rows(connection: Connection) -> list[Mapping[str, Any]]:
            return [dict(row) for row in connection.execute(text(sql), values or {}).mappings()]

        return self._runner.run(self._store.read(rows))

    def glob(self, column: str, value: str) -> str:
        """PostgreSQL's LIKE minds upper and lower case."""
        return f"{column} LIKE :{value} ESCAPE '!'"

    def pattern(self, glob: str) -> str:
        """Only `*` and `?` are special."""
        return re.sub(r"[!%_]", r"!\g<0>", glob).replace("*", "%").replace("?", "_")

    def close(self) -> None:
        """Close."""
        self._runner.run(self._store.__aexit__(None, None, None))
        self._runner.close()
