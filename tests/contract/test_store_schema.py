"""Migrations create the tables of tables.py in both directions, and another revision is refused."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import stat
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Connection, inspect, text
from sqlalchemy.ext.asyncio import AsyncEngine

from monitor.clock import SystemClock
from monitor.errors import ConfigError, InvariantBroken, NotFound, SchemaMismatch, StoreDamaged, StoreInUse
from monitor.store import daemons, jobs, registry, schema, sqlite, versions
from monitor.store.engine import AsyncStore
from monitor.store.migrations import HEAD
from monitor.store.reader import open_reader
from monitor.store.tables import metadata
from monitor.store.url import parse
from monitor.types import Alias

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


def publish_three(connection: Connection) -> None:
    for fleet, version in (("pumps", "a"), ("pumps", "b"), ("pumps", "c"), ("fans", "d")):
        new = {"version": version, "fleet": fleet, "path": f"/{version}", "trained_us": 7, "card": {}, "metrics": {}}
        versions.publish(connection, **new)
        versions.activate(connection, fleet, version, len(version) + ord(version))
    connection.execute(text("UPDATE model_version SET state = 'rolled_back', rolled_back_us = 9 WHERE version = 'a'"))
    connection.execute(text("UPDATE model_version SET state = 'rejected' WHERE version = 'b'"))
    for kind in ("retrain", "drill"):
        jobs.request(connection, "pumps", "maria", 8, kind)


async def test_the_registry_of_a_database_in_use_follows_from_it(url: str) -> None:
    async with AsyncStore(url) as store:
        await store.run(publish_three)
    assert await schema.downgrade(url, "0005") == (HEAD, "0005")
    assert await schema.upgrade(url) == ("0005", HEAD)
    async with AsyncStore(url) as store:
        assert await store.read(registry.aliases, "pumps") == {Alias.CHAMPION: "c", Alias.PREVIOUS: "b"}
        assert await store.read(registry.aliases, "fans") == {Alias.CHAMPION: "d"}
        states = {each.version: each.state for each in await store.read(versions.list_all)}
        assert states == {"a": "retired", "b": "candidate", "c": "champion", "d": "champion"}
        job = await store.read(jobs.active, "pumps")
        assert job is not None
        assert (job.kind, job.reason, job.requested_by) == ("retrain", "", "maria")
        assert [each.from_window_end_us for each in await store.read(versions.activations, "pumps")] == [98, 99, 100]


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


async def test_an_upgrade_beside_a_running_daemon_is_refused(server_url: str) -> None:
    async def heartbeat(now_us: int) -> None:
        async with AsyncStore(server_url) as store:
            await store.run(
                daemons.heartbeat, owner="a:1:ff", pipeline="monitor", started_us=1, now_us=now_us, status="working"
            )

    now_us = SystemClock().now_us()
    await heartbeat(now_us)
    assert await schema.upgrade(server_url) == (HEAD, HEAD)  # nothing to do: no reason to stop anybody
    with pytest.raises(StoreInUse, match=r"daemon a:1:ff sent a heartbeat \d+ s ago; stop every daemon first"):
        await schema.downgrade(server_url, "0001")
    await heartbeat(now_us - 2 * daemons.STALE_US)
    assert await schema.downgrade(server_url, "0001") == (HEAD, "0001")
    assert await schema.upgrade(server_url) == ("0001", HEAD)


async def test_an_upgrade_does_not_wait_for_the_end_of_its_connection(
    server_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    dispose = AsyncEngine.dispose

    async def endless(engine: AsyncEngine) -> None:
        await dispose(engine)
        await asyncio.sleep(600)

    monkeypatch.setattr(schema, "CLOSE_LIMIT_S", 0.5)
    monkeypatch.setattr(AsyncEngine, "dispose", endless)
    async with asyncio.timeout(30):
        assert await schema.downgrade(server_url, "0001") == (HEAD, "0001")


def test_a_database_of_another_program_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "other.db"
    with closing(sqlite3.connect(path)) as other:
        other.execute("CREATE TABLE notes (text)")
    url = f"sqlite:///{path}"
    with pytest.raises(StoreDamaged, match="1 tables of another program, such as notes"):
        asyncio.run(schema.upgrade(url))
    with closing(sqlite3.connect(path)) as other:
        assert other.execute("SELECT name FROM sqlite_master").fetchall() == [("notes",)]
        other.execute("CREATE TABLE alembic_version (version_num)")
        other.execute("INSERT INTO alembic_version VALUES ('ae1027a6acf4')")
        other.commit()
    for opens in (lambda: asyncio.run(schema.upgrade(url)), lambda: open_reader(url)):
        with pytest.raises(SchemaMismatch, match=r'revision "ae1027a6acf4" of another program; correct store\.url'):
            opens()


def test_a_new_file_obeys_the_umask_and_is_private(tmp_path: Path) -> None:
    for umask, mode in ((0o022, 0o640), (0o077, 0o600)):
        path = tmp_path / f"{umask:o}.db"
        before = os.umask(umask)
        try:
            asyncio.run(schema.upgrade(f"sqlite:///{path}"))
        finally:
            os.umask(before)
        assert {stat.S_IMODE(each.stat().st_mode) for each in tmp_path.glob(f"{umask:o}.db*")} == {mode}


def test_a_file_with_two_names_is_refused(tmp_path: Path) -> None:
    path, other = tmp_path / "monitor.db", tmp_path / "other.db"
    asyncio.run(schema.upgrade(f"sqlite:///{path}"))
    other.hardlink_to(path)
    for each in (path, other):
        with pytest.raises(ConfigError, match=r"has 2 names \(hard links\)"):
            asyncio.run(schema.upgrade(f"sqlite:///{each}"))
    other.unlink()
    assert asyncio.run(schema.upgrade(f"sqlite:///{path}")) == (HEAD, HEAD)
