"""The operators' read-only access to the database, open within milliseconds.

Input: a database URL. Output: a `Reader`, whose queries are in `queries/`. SQLite is read through the standard library:
SQLAlchemy's import alone costs 0.4 s, of the half second that a command may take to start. PostgreSQL is read through
`AsyncStore`.
"""

from __future__ import annotations

import re
import sqlite3
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from monitor.errors import NotFound, SchemaMismatch
from monitor.store.error_mapping import to_monitor_error
from monitor.store.migrations import mismatch
from monitor.store.queries import Reader
from monitor.store.url import Address, parse

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Iterator, Mapping
    from pathlib import Path

__all__ = ["Reader", "open_reader"]

_ROWS_AT_ONCE = 256


def open_reader(url: str) -> Reader:
    """Open a database for reading. Raises NotFound (no such file), SchemaMismatch, ConfigError, StoreUnavailable."""
    address = parse(url)
    if address.path is None:
        return PostgresqlReader(url)
    if not address.path.exists():
        raise NotFound(f"no database at {address}; start the daemon, or check store.url")
    return SqliteReader(address, address.path)


class SqliteReader(Reader):
    """A SQLite file, read through the standard library while a daemon may write."""

    def __init__(self, address: Address, path: Path) -> None:
        self._address = address
        self._connection = _connect(address, path)

    def fetch(self, sql: str, values: Mapping[str, object] | None = None) -> Iterator[Mapping[str, Any]]:
        """Run one SELECT and yield its rows one by one."""
        with self._mapped_errors():
            cursor = self._connection.execute(sql, values or {})
            names = [column[0] for column in cursor.description]
            rows = cursor.fetchmany(_ROWS_AT_ONCE)
        while rows:
            # Outside of the mapping: a consumer that stops early closes this generator, perhaps after the connection.
            yield from (dict(zip(names, row, strict=True)) for row in rows)
            with self._mapped_errors():
                rows = cursor.fetchmany(_ROWS_AT_ONCE)

    @contextmanager
    def _mapped_errors(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise to_monitor_error(error, self._address, is_lost=isinstance(error, sqlite3.OperationalError)) from error

    def glob(self, column: str, value: str) -> str:
        """Return a GLOB condition, which is case-sensitive."""
        return f"{column} GLOB :{value}"

    def pattern(self, glob: str) -> str:
        """Escape all but `*` and `?`."""
        return glob.replace("[", "[[]")

    def first_word(self, column: str) -> str:
        """Return an expression with `instr`."""
        return f"substr({column}, 1, instr({column} || ':', ':') - 1)"

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
            # A user without write access to the folder cannot use the journal. There is none now: no daemon writes.
            connection = sqlite3.connect(f"{uri}&immutable=1", uri=True, isolation_level=None)
            revision = _revision(connection)
    except sqlite3.Error as error:
        raise to_monitor_error(error, address, is_lost=isinstance(error, sqlite3.OperationalError)) from error
    if (reason := mismatch(revision)) is not None:
        connection.close()
        raise SchemaMismatch(f"{address}: {reason}")
    return connection


def _revision(connection: sqlite3.Connection) -> str | None:
    if not connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'alembic_version'").fetchone():
        return None
    row = connection.execute("SELECT version_num FROM alembic_version").fetchone()
    return None if row is None else str(row[0])


class PostgresqlReader(Reader):
    """A PostgreSQL database, read through `AsyncStore` with an event loop of its own."""

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
        """Run one SELECT. Return all its rows."""
        from sqlalchemy import Connection, text

        def rows(connection: Connection) -> list[Mapping[str, Any]]:
            return [dict(row) for row in connection.execute(text(sql), values or {}).mappings()]

        return self._runner.run(self._store.read(rows))

    def glob(self, column: str, value: str) -> str:
        """Return a LIKE condition, which is case-sensitive in PostgreSQL."""
        return f"{column} LIKE :{value} ESCAPE '!'"

    def pattern(self, glob: str) -> str:
        """Escape all but `*` and `?`."""
        return re.sub(r"[!%_]", r"!\g<0>", glob).replace("*", "%").replace("?", "_")

    def first_word(self, column: str) -> str:
        """Return an expression with `split_part`."""
        return f"split_part({column}, ':', 1)"

    def close(self) -> None:
        """Close."""
        self._runner.run(self._store.__aexit__(None, None, None))
        self._runner.close()
