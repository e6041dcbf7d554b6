"""Migrations create the tables of tables.py in both directions, and another revision is refused."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Connection, inspect, text

from monitor.errors import InvariantBroken, NotFound, SchemaMismatch
from monitor.store import schema, sqlite
from monitor.store.engine import AsyncStore
from monitor.store.migrations import HEAD
from monitor.store.reader import open_reader
from monitor.store.tables import metadata
from monitor.store.url import parse

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def difference(connection: Connection) -> list[Any]:
    context = MigrationContext.configure(connection, opts={"compare_type": True, "compare_server_default": True})
    return list(compare_metadata(context, metadata))


async def test_the_migrations_create_the_declared_tables(store: AsyncStore) -> None:
    assert await store.read(difference) == []
    assert await store.read(schema.current_revision) == HEAD


async def test_the_key_of_scores_begins_with_time(store: AsyncStore) -> None:
    """Alembic does not compare the order of a key, and the other order costs a commit several times more."""
    key = await store.read(lambda connection: inspect(connection).get_pk_constraint("score"))
    assert key["constrained_columns"] == ["start_us", "asset_id"]


async def test_a_migration_can_be_downgraded(url: str) -> None:
    assert await schema.downgrade(url, "base") == (HEAD, None)
    with pytest.raises(SchemaMismatch, match="no tables yet"):
        async with AsyncStore(url):
            pass
    assert await schema.upgrade(url) == (None, HEAD)
    assert await schema.upgrade(url) == (HEAD, HEAD)


async def test_concurrent_upgrades_do_not_collide(empty_url: str) -> None:
    if parse(empty_url).is_sqlite:
        await schema.upgrade(empty_url)
        return  # the file's lock permits one at a time
    assert sorted(await asyncio.gather(*(schema.upgrade(empty_url) for _ in range(3))), key=str) == [
        (HEAD, HEAD),
        (HEAD, HEAD),
        (None, HEAD),
    ]


async def test_a_daemon_creates_tables_only_in_a_new_file(empty_url: str) -> None:
    if parse(empty_url).is_sqlite:
        async with AsyncStore(empty_url, owner=True) as store:
            assert await store.read(schema.current_revision) == HEAD
    else:
        with pytest.raises(SchemaMismatch, match="monitor db upgrade"):
            async with AsyncStore(empty_url, owner=True):
                pass


def opened_by_a_daemon(url: str) -> None:
    async def run() -> None:
        async with AsyncStore(url, owner=True):
            pass

    asyncio.run(run())


def opened_by_a_command(url: str) -> None:
    async def run() -> None:
        async with AsyncStore(url):
            pass

    asyncio.run(run())


def opened_by_a_reader(url: str) -> None:
    open_reader(url).close()


@pytest.mark.parametrize("opens", [opened_by_a_daemon, opened_by_a_command, opened_by_a_reader])
@pytest.mark.parametrize(("revision", "hint"), [("0000", "monitor db upgrade"), ("9999", "upgrade the program")])
def test_another_revision_is_refused(empty_url: str, revision: str, hint: str, opens: Callable[[str], None]) -> None:
    asyncio.run(schema.upgrade(empty_url))
    asyncio.run(stamp(empty_url, revision))
    with pytest.raises(SchemaMismatch, match=hint):
        opens(empty_url)


async def stamp(url: str, revision: str) -> None:
    async with AsyncStore(url) as store:
        await store.run(
            lambda connection: (
                connection.execute(text(f"UPDATE alembic_version SET version_num = '{revision}'")) and None
            )
        )


@pytest.mark.parametrize("opens", [opened_by_a_command, opened_by_a_reader])
def test_only_a_daemon_creates_a_file(tmp_path: Path, opens: Callable[[str], None]) -> None:
    with pytest.raises(NotFound, match="start the daemon"):
        opens(f"sqlite:///{tmp_path / 'nothing.db'}")
    assert not (tmp_path / "nothing.db").exists()


async def test_a_migration_that_breaks_references_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:

    url = f"sqlite:///{tmp_path / 'monitor.db'}"
    await schema.upgrade(url)
    file = sqlite.new_engine(tmp_path / "monitor.db", 1, foreign_keys=False)
    with file.begin() as connection:
        connection.execute(text("INSERT INTO asset (fleet, name, topic, partition) VALUES ('gone', 'a', 't', 0)"))
    file.dispose()
    with pytest.raises(InvariantBroken, match="1 rows pointing nowhere"):
        await schema.upgrade(url)
