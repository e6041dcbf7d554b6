"""A database that is locked, slow, restarted or missing: the error shows if waiting helps."""

from __future__ import annotations

import asyncio
import builtins
import os
import sqlite3
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import Connection, text

from monitor.errors import ConfigError, MonitorError, StoreDamaged, StoreLocked, StoreUnavailable
from monitor.store import assets, schema
from monitor.store.engine import AsyncStore
from monitor.store.reader import open_reader
from tests.contract.steps import FLEET, count, own
from tests.needs import need

if TYPE_CHECKING:
    from tests.servers import PostgresServer


def sleep(connection: Connection, seconds: float) -> None:
    connection.execute(text("SELECT pg_sleep(:seconds)"), {"seconds": seconds})


# ---------------------------------------------------------------- both databases


async def test_an_error_rolls_the_transaction_back(store: AsyncStore) -> None:
    def fails(connection: Connection) -> None:
        assets.ensure_fleet(connection, FLEET)
        raise ValueError("ours")

    with pytest.raises(ValueError, match="ours"):
        await store.run(fails)
    assert store.n_checked_out == 0
    assert await store.read(assets.fleets) == {}


async def test_wrong_sql_is_a_defect_and_not_an_outage(store: AsyncStore) -> None:
    with pytest.raises(MonitorError) as caught:
        await store.run(lambda connection: connection.execute(text("SELECT nonsense FROM fleet")).all())
    assert not caught.value.retriable


async def test_two_processes_that_read_then_write_take_turns(store: AsyncStore, other_store: AsyncStore) -> None:
    """A deferred transaction of SQLite would fail here at once with "database is locked"."""

    def adds_one(connection: Connection) -> None:
        known = assets.fleets(connection)
        time.sleep(0.01)
        assets.ensure_fleet(connection, f"fleet {len(known)} {id(connection)}")

    await asyncio.gather(*(each.run(adds_one) for _ in range(5) for each in (store, other_store)))
    assert len(await store.read(assets.fleets)) >= 5


async def test_readers_do_not_wait_for_a_writer(store: AsyncStore) -> None:
    """They do not see its uncommitted rows either."""
    inside = asyncio.Event()
    loop = asyncio.get_running_loop()

    def holds_the_lock(connection: Connection) -> None:
        assets.ensure_fleet(connection, FLEET)
        loop.call_soon_threadsafe(inside.set)
        if connection.dialect.name == "postgresql":
            sleep(connection, 0.5)
        else:
            time.sleep(0.5)

    writer = asyncio.create_task(store.run(holds_the_lock))
    await inside.wait()
    began = time.monotonic()
    assert await store.read(assets.fleets) == {}
    assert time.monotonic() - began < 0.4
    await writer
    assert await store.read(assets.fleets) == {FLEET: None}


async def test_closing_waits_for_transactions(url: str) -> None:
    store = AsyncStore(url, owner=True)
    loop = asyncio.get_running_loop()
    inside = asyncio.Event()

    def slow(connection: Connection) -> None:
        loop.call_soon_threadsafe(inside.set)
        if connection.dialect.name == "postgresql":
            sleep(connection, 0.3)
        else:
            time.sleep(0.3)
        assets.ensure_fleet(connection, FLEET)

    async with store:
        writer = asyncio.create_task(store.run(slow))
        await inside.wait()
    await writer
    async with AsyncStore(url) as again:
        assert await again.read(assets.fleets) == {FLEET: None}


# ---------------------------------------------------------------- a SQLite file


async def lock_for(file: Path, seconds: float) -> None:
    """Hold a write transaction for a while, as another process would."""
    other = sqlite3.connect(file, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    await asyncio.sleep(seconds)
    other.execute("COMMIT")
    other.close()


def test_a_save_waits_for_another_writer(file: Path) -> None:
    async def run() -> None:
        async with AsyncStore(f"sqlite:///{file}", owner=True) as store:
            owner = await own(store)
            held = asyncio.create_task(lock_for(file, 0.5))
            await asyncio.sleep(0.05)
            began = time.monotonic()
            await owner.score(8, a=0.5)
            assert time.monotonic() - began > 0.3
            await held

    asyncio.run(run())


def test_a_save_behind_an_endless_writer_can_be_repeated(file: Path) -> None:
    async def run() -> None:
        async with AsyncStore(f"sqlite:///{file}", owner=True, timeout_s=0.1) as store:
            owner = await own(store)
            commit = owner.step(await owner.rows({"a": 0.5}, 8))
            held = asyncio.create_task(lock_for(file, 1.0))
            await asyncio.sleep(0.05)
            with pytest.raises(StoreUnavailable, match="locked"):
                await owner.save(commit)
            await held
            assert not (await owner.save(commit)).was_done
            assert await store.read(count, ["score"]) == {"score": 1}

    asyncio.run(run())


WRITES_UNTIL_KILLED = """
import asyncio, sys
from monitor.store.engine import AsyncStore
from tests.contract.steps import own

async def run():
    async with AsyncStore(sys.argv[1], owner=True) as store:
        owner = await own(store)
        while True:
            await owner.score(owner.next_offset // 10, **{f"a{n}": 0.5 for n in range(50)})
            print(owner.next_offset, flush=True)

asyncio.run(run())
"""


def test_commits_survive_kill_9(file: Path) -> None:
    url = f"sqlite:///{file}"
    with subprocess.Popen([sys.executable, "-c", WRITES_UNTIL_KILLED, url], stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        lines = [child.stdout.readline() for _ in range(20)]
        child.kill()
        reported = int([*lines, *child.stdout.readlines()][-1])
    with open_reader(url) as reader:
        [partition] = reader.partitions()
        [integrity] = reader.fetch("PRAGMA integrity_check")
        [stored] = reader.fetch("SELECT COUNT(*) AS n FROM score")
    assert integrity == {"integrity_check": "ok"}
    assert reported <= partition["next_offset"] <= reported + 10
    assert stored["n"] == (partition["next_offset"] - 100) // 10 * 50


def test_a_second_daemon_is_refused_with_the_holders_pid(file: Path) -> None:
    async def run() -> None:
        url = f"sqlite:///{file}"
        async with AsyncStore(url, owner=True):
            with pytest.raises(StoreLocked, match=f"in use by process {os.getpid()}"):
                async with AsyncStore(url, owner=True):
                    pass
            with pytest.raises(StoreLocked):
                await schema.upgrade(url)
            async with AsyncStore(url) as command:  # a command may write beside it
                await command.run(assets.ensure_fleet, FLEET)
        async with AsyncStore(url, owner=True):  # the lock ends with its owner
            pass

    asyncio.run(run())


def test_a_file_of_another_kind_is_no_outage(tmp_path: Path) -> None:
    path = tmp_path / "notes.db"
    path.write_text("these are my notes, not a database; " * 50)

    async def run() -> None:
        async with AsyncStore(f"sqlite:///{path}", owner=True):
            pass

    with pytest.raises(StoreDamaged, match=r"restore a backup.*not a database"):
        asyncio.run(run())
    with pytest.raises(StoreDamaged, match="not a database"):
        open_reader(f"sqlite:///{path}")


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    async def run() -> None:
        async with AsyncStore(f"sqlite:///{tmp_path / 'no' / 'monitor.db'}", owner=True):
            pass

    with pytest.raises(MonitorError, match=r"no/monitor\.db"):
        asyncio.run(run())


def test_a_read_only_folder_can_be_read() -> None:
    """A file without a daemon, in a folder where the journal's index cannot be created."""
    need(os.geteuid() == 0, "root, to become somebody else")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        url = f"sqlite:///{folder / 'monitor.db'}"
        asyncio.run(schema.upgrade(url))
        child = os.fork()
        if child == 0:
            status = 1
            try:
                os.setuid(65534)
                with open_reader(url) as reader:
                    status = 0 if reader.fleets() == [] else 2
            finally:
                os._exit(status)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


# ---------------------------------------------------------------- a PostgreSQL server


async def test_a_save_after_a_restart_of_the_server_succeeds(postgres: PostgresServer, server_url: str) -> None:
    async with AsyncStore(server_url, owner=True) as store:
        owner = await own(store)
        commit = owner.step(await owner.rows({"a": 0.5}, 8))
        await asyncio.gather(*(store.read(sleep, 0.05) for _ in range(4)))  # connections that the restart breaks
        await asyncio.to_thread(postgres.stop, "immediate")
        await asyncio.to_thread(postgres.start)
        await owner.save(commit)
        assert await store.read(count, ["score"]) == {"score": 1}
        assert store.n_checked_out == 0


async def test_a_save_during_an_outage_can_be_repeated(
    postgres: PostgresServer, server_url: str
) -> None:
    async with AsyncStore(server_url, owner=True) as store:
        owner = await own(store)
        commit = owner.step(await owner.rows({"a": 0.5}, 8))
        await asyncio.to_thread(postgres.stop)
        try:
            for _ in range(2):
                with pytest.raises(StoreUnavailable):
                    await owner.save(commit)
            with pytest.raises(StoreUnavailable):
                async with AsyncStore(server_url):
                    pass
        finally:
            await asyncio.to_thread(postgres.start)
        assert not (await owner.save(commit)).was_done


async def test_a_slow_statement_times_out(server_url: str) -> None:
    async with AsyncStore(server_url, owner=True, timeout_s=0.3) as store:
        began = time.monotonic()
        with pytest.raises(StoreUnavailable):
            await store.run(sleep, 20)
        assert time.monotonic() - began < 5
        assert store.n_checked_out == 0
        assert await store.read(assets.fleets) == {}


async def test_a_missing_database_is_a_configuration_error(server_url: str) -> None:
    with pytest.raises(ConfigError, match="does not exist"):
        async with AsyncStore(server_url + "_not"):
            pass


def test_a_missing_driver_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def importing(name: str, *args: Any, **kwargs: Any) -> Any:
        if name == "asyncpg":
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", importing)
    with pytest.raises(ConfigError, match=r"sensor-anomaly-monitor\[postgres\]"):
        AsyncStore("postgresql://monitor@db/monitor")
    assert "asyncpg" not in str(sys.exc_info())
