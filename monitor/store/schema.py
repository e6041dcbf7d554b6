"""The schema revision of a database: read, check, upgrade and downgrade.

Invariant: the daemon creates tables only in a new SQLite file. A database with data is migrated by an operator, with
`monitor db upgrade`, while no daemon runs on it.
"""

from __future__ import annotations

import asyncio
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import inspect, text

from monitor.errors import InvariantBroken, SchemaMismatch
from monitor.store import postgresql, sqlite
from monitor.store.error_mapping import driver_errors, map_errors
from monitor.store.migrations import HEAD, mismatch
from monitor.store.url import parse

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from monitor.store.url import Address

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

    Raises StoreLocked while a daemon runs on the SQLite file.
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
            async with server.begin() as connection:
                return await connection.run_sync(_migrate, revision)
        finally:
            await server.dispose()


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


def _migrate(connection: Connection, revision: str) -> tuple[str | None, str | None]:
    from alembic import command
    from alembic.config import Config

    if connection.dialect.name == "postgresql":
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _UPGRADE_LOCK})
    before = current_revision(connection)
    if before is not None and before > HEAD:
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
