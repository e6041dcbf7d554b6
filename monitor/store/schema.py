"""The database's schema: which revision it has, which one we need, and the way there.

Law: the daemon creates tables only in a SQLite file that is new. Whatever holds data is migrated by a person, with
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
from monitor.store.failures import driver_errors, translated
from monitor.store.migrations import HEAD
from monitor.store.url import parse

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from monitor.store.url import Address

_UPGRADE_LOCK = 0x6D6F6E69746F72  # "monitor"


def current_revision(connection: Connection) -> str | None:
    """Return the revision the database has; None = no tables of ours."""
    if not inspect(connection).has_table("alembic_version"):
        return None
    revision: str | None = connection.execute(text("SELECT version_num FROM alembic_version")).scalar_one_or_none()
    return revision


def check_schema(connection: Connection) -> None:
    """Raise SchemaMismatch unless the database has the revision this program was written for."""
    revision = current_revision(connection)
    if revision is None:
        raise SchemaMismatch(f"it has no tables yet; this program needs revision {HEAD}")
    if revision != HEAD:
        hint = "" if revision < HEAD else "; it was written by a newer monitor: upgrade the program instead"
        raise SchemaMismatch(f"it has revision {revision}, this program needs {HEAD}{hint}")


async def upgrade(url: str, revision: str = "head") -> tuple[str | None, str | None]:
    """Migrate a database; return its revision before and after. Creates a SQLite file that is missing.

    Raises StoreLocked while a daemon runs on the SQLite file.
    """
    address = parse(url)
    with sqlite.owned(address.path) if address.path is not None else nullcontext():
        return await migrate(address, revision)


async def migrate(address: Address, revision: str = "head") -> tuple[str | None, str | None]:
    """Bring the database to `revision` in one transaction; the caller owns it."""
    with translated(address, driver_errors(address)):
        if address.path is not None:
            return await asyncio.to_thread(_migrate_file, address.path, revision)
        server = postgresql.engine(address.url, timeout_s=3600)  # rewriting a table of scores takes its time
        try:
            async with server.begin() as connection:
                return await connection.run_sync(_migrate, revision)
        finally:
            await server.dispose()


def _migrate_file(path: Path, revision: str) -> tuple[str | None, str | None]:
    # SQLite changes a table by building another one: foreign keys are off meanwhile, and checked at the end.
    file = sqlite.engine(path, timeout_s=30, foreign_keys=False)
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
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations").replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    if before is not None and revision not in ("head", HEAD) and revision < before:
        command.downgrade(config, revision)
    else:
        command.upgrade(config, revision)
    return before, current_revision(connection)
