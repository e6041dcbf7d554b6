"""The schema revision of a database: read, check, upgrade and downgrade.

Invariant: the daemon creates tables only in a new SQLite file. A database with data is migrated by an operator, with
`monitor db upgrade`, while no daemon runs on it: a SQLite file is locked, and in PostgreSQL the heartbeats are asked.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import inspect, text

from monitor.errors import InvariantBroken, SchemaMismatch, StoreDamaged, StoreInUse
from monitor.store import daemons, postgresql, sqlite
from monitor.store.error_mapping import driver_errors, map_errors
from monitor.store.migrations import HEAD, is_own, mismatch
from monitor.store.url import parse

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from monitor.store.url import Address

CLOSE_LIMIT_S = 5.0
"""For the end of a connection after the migration is committed."""
_LATEST_HEARTBEAT = text("SELECT owner, heartbeat_us FROM daemon ORDER BY heartbeat_us DESC LIMIT 1")
_UPGRADE_LOCK = 0x6D6F6E69746F72  # "monitor"


def current_revision(connection: Connection) -> str | None:
    """Return the database's revision. None = it has no tables of monitor."""
    if not inspect(connection).has_table("alembic_version"):
        return None
    revision: str | None = connection.execute(text("SELECT version_num FROM alembic_version")).scalar_one_or_none()
    return revision


def check_schema(connection: Connection) -> None:
    """Raise SchemaMismatch unless the database has the revision that this program needs."""
    if (reason := mismatch(current_revision(connection))) is not None:
        raise SchemaMismatch(reason)


async def upgrade(url: str) -> tuple[str | None, str | None]:
    """Migrate a database to HEAD and return its revision before and after. Creates a missing SQLite file.

    Raises StoreLocked while a daemon runs on a SQLite file, and StoreInUse while one runs on PostgreSQL and the tables
    would change.
    """
    return await _migrate_alone(url, "head")


async def downgrade(url: str, revision: str) -> tuple[str | None, str | None]:
    """Downgrade a database to an older revision, "base" = no tables. Later columns and tables are dropped."""
    return await _migrate_alone(url, revision)


async def _migrate_alone(url: str, revision: str) -> tuple[str | None, str | None]:
    address = parse(url)
    with sqlite.lock_file(address.path) if address.path is not None else nullcontext():
        return await migrate(address, revision)


async def migrate(address: Address, revision: str = "head") -> tuple[str | None, str | None]:
    """Migrate to `revision` in one transaction. The caller owns a SQLite file (`sqlite.lock_file`)."""
    with map_errors(address, driver_errors(address)):
        if address.path is not None:
            return await asyncio.to_thread(_migrate_file, address.path, revision)
        server = postgresql.new_engine(address.url, timeout_s=3600)  # rewriting a table of scores takes long
        try:
            async with server.connect() as connection:
                async with connection.begin():
                    await connection.run_sync(_check_is_unused, address, revision)
                    revisions = await connection.run_sync(_migrate, revision)
                # It is committed: a proxy that swallows the end of the connection must not delay the answer.
                with suppress(TimeoutError):
                    async with asyncio.timeout(CLOSE_LIMIT_S):
                        await connection.close()
            return revisions
        finally:
            with suppress(TimeoutError):
                async with asyncio.timeout(CLOSE_LIMIT_S):
                    await server.dispose()


def _check_is_unused(connection: Connection, address: Address, revision: str) -> None:
    """Raise StoreInUse if a daemon sent a heartbeat lately and the revision would change."""
    before = current_revision(connection)
    if before is None or before == (HEAD if revision == "head" else revision):
        return
    latest = connection.execute(_LATEST_HEARTBEAT).one_or_none()
    age_s = 0.0 if latest is None else time.time() - latest.heartbeat_us / 1e6
    if latest is not None and abs(age_s) < daemons.STALE_US / 1e6:
        raise StoreInUse(
            f"{address}: daemon {latest.owner} sent a heartbeat {max(0.0, age_s):.0f} s ago; stop every daemon first, "
            f"or wait {daemons.STALE_US // 1_000_000} s if it was killed"
        )


def _migrate_file(path: Path, revision: str) -> tuple[str | None, str | None]:
    # SQLite alters a table by building a new one: foreign keys are off meanwhile, and checked at the end.
    file = sqlite.new_engine(path, timeout_s=30, foreign_keys=False)
    try:
        with file.begin() as connection:
            revisions = _migrate(connection, revision)
            if broken := connection.execute(text("PRAGMA foreign_key_check")).all():
                raise InvariantBroken(f"the migration would leave {len(broken)} rows pointing nowhere; nothing changed")
            return revisions
    finally:
        file.dispose()


def _check_is_empty(connection: Connection) -> None:
    """Raise StoreDamaged if a file without our tables has others: it belongs to another program."""
    if others := [name for name in inspect(connection).get_table_names() if name != "alembic_version"]:
        raise StoreDamaged(f"the file has {len(others)} tables of another program, such as {others[0]}")


def _migrate(connection: Connection, revision: str) -> tuple[str | None, str | None]:
    from alembic import command
    from alembic.config import Config

    if connection.dialect.name == "postgresql":
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _UPGRADE_LOCK})
    before = current_revision(connection)
    if before is None and connection.dialect.name == "sqlite":
        _check_is_empty(connection)
    elif not is_own(before):
        check_schema(connection)
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations").replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    if revision == "head":
        command.upgrade(config, revision)
    else:
        command.downgrade(config, revision)
    return before, current_revision(connection)
