"""A SQLite file: its connections, its threads and its lock.

A transaction runs as a whole in a thread, not statement by statement through an asynchronous driver. A commit has some
eighteen statements, and a change of thread for each cost 5 times the CPU of the commit itself (measured).

The journal is WAL with `synchronous=NORMAL`. A commit survives the death of the process (kill -9). A power cut may undo
the last commits, never half of one. As the offsets are in the same commits, the daemon then reads the same records
again: a power cut costs work, not data, for as long as Kafka keeps the records.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar

from sqlalchemy import Connection, Engine, create_engine, event

from monitor.errors import ConfigError, StoreLocked, StoreUnavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from sqlalchemy.engine.interfaces import DBAPIConnection

T = TypeVar("T")

THREAD_PREFIX = "store"
NEW_FILE_MODE = 0o640
"""Mode of a new database, less the umask. Its journal gets the same from SQLite."""


def new_engine(path: Path, timeout_s: float, *, foreign_keys: bool = True) -> Engine:
    """Return an engine whose transactions also contain DDL. `timeout_s`: limit of a wait for another writer."""
    engine = create_engine(
        f"sqlite:///{path}",
        hide_parameters=True,  # an error message with a thousand rows is useless
        # The driver's own BEGIN is deferred, comes late and leaves DDL out. `begin` below sends another.
        connect_args={"isolation_level": None, "timeout": timeout_s},
    )

    @event.listens_for(engine, "connect")
    def configure(connection: DBAPIConnection, _record: object) -> None:
        cursor = connection.cursor()
        cursor.execute("PRAGMA journal_mode=WAL")
        cursor.execute("PRAGMA synchronous=NORMAL")
        cursor.execute("PRAGMA journal_size_limit=67108864")
        cursor.execute(f"PRAGMA foreign_keys={'ON' if foreign_keys else 'OFF'}")
        cursor.close()

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        # IMMEDIATE: a deferred transaction that reads and then writes fails at once if another writer was faster, even
        # within the timeout.
        reads = connection.get_execution_options().get("monitor_reads", False)
        connection.exec_driver_sql("BEGIN" if reads else "BEGIN IMMEDIATE")

    return engine


class SqlitePool:
    """Transactions on one file: one writer at a time, in order of the calls. Readers do not wait for it."""

    def __init__(self, path: Path, timeout_s: float) -> None:
        self.engine = new_engine(path, timeout_s)
        self._writer = ThreadPoolExecutor(1, f"{THREAD_PREFIX}-writer")
        self._reader = ThreadPoolExecutor(2, f"{THREAD_PREFIX}-reader")

    async def transact(self, body: Callable[[Connection], T], *, reads: bool) -> T:
        """Run `body` in one transaction."""
        thread = self._reader if reads else self._writer
        return await asyncio.get_running_loop().run_in_executor(thread, self._transact, body, reads)

    def _transact(self, body: Callable[[Connection], T], reads: bool) -> T:
        with self.engine.connect() as connection:
            connection.execution_options(monitor_reads=reads)
            with connection.begin():
                return body(connection)

    async def close(self) -> None:
        """Close every connection."""
        self._writer.shutdown(wait=False, cancel_futures=True)
        self._reader.shutdown(wait=False, cancel_futures=True)
        self.engine.dispose()


def has_hanging_threads(grace_s: float) -> bool:
    """Return True if a thread of a closed pool still waits for a file that another process holds.

    It may wait until the timeout, and Python's exit would wait for it. `grace_s`: time for an idle thread to end.
    """
    threads = [thread for thread in threading.enumerate() if thread.name.startswith(THREAD_PREFIX)]
    for thread in threads:
        thread.join(grace_s)
    return any(thread.is_alive() for thread in threads)


@contextmanager
def lock_file(database: Path) -> Iterator[None]:
    """Own a database file within the context, and create it if it is missing.

    Raises StoreLocked at once if another process holds the lock on `<database>.lock`, and ConfigError for a file with
    several names. The operating system releases the lock at any end of the process. `<database>.lock` stays: if it were
    removed, two daemons could lock two files of one name.
    """
    path = database.with_name(database.name + ".lock")
    try:
        lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, NEW_FILE_MODE)
    except OSError as error:
        raise StoreUnavailable(f"{path}: {error.strerror}") from error
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = os.read(lock, 32).decode(errors="replace").strip()
            raise StoreLocked(f"{database} is in use by process {holder or 'unknown'}") from error
        _create_or_check(database)
        os.truncate(lock, 0)
        os.pwrite(lock, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        os.close(lock)


def _create_or_check(database: Path) -> None:
    """Create the file, or check that it has one name.

    The lock goes by the name, as SQLite's journal does: with a hard link two daemons would write two journals.
    """
    try:
        n_names = database.stat().st_nlink
    except FileNotFoundError:
        try:
            os.close(os.open(database, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, NEW_FILE_MODE))
        except OSError as error:
            raise StoreUnavailable(f"{database}: {error.strerror}") from error
        return
    if n_names > 1:
        raise ConfigError(
            f"store.url: {database} has {n_names} names (hard links), and SQLite would keep a journal for each and "
            "damage the file; remove the other names, or copy the file"
        )


def is_new(database: Path) -> bool:
    """Return True if the file is missing or empty: there is nothing to migrate."""
    return not database.exists() or database.stat().st_size == 0
