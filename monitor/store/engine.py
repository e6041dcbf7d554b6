"""The daemon's door to the database. Functions of a `Connection` enter, their results leave; one call, one transaction.

Law: whoever calls `run` or `save` learns one of three things: it is committed, it is not, or `StoreUnavailable`.
After `StoreUnavailable` the outcome may be unknown, and `save` may be called again with the same Commit: its
compare-and-set tells the two apart. A cancelled caller never cuts a transaction in half: each one runs in a task of
its own, with time limits of its own.

SQLite: one writer at a time, one daemon per file. The journal is WAL with `synchronous=NORMAL`: a commit survives the
death of the process (kill -9); a power cut may take back the last commits, never half of one. As the offsets are in
the same commits, the daemon then reads the same records again: power loss costs work, not data, while Kafka keeps them.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
from contextlib import AsyncExitStack, contextmanager
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, Self, TypeVar

from sqlalchemy import event
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from monitor.errors import NotFound, StoreLocked, StoreUnavailable
from monitor.store import partitions, schema
from monitor.store.failures import driver_errors, translated
from monitor.store.url import Address, parse

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator
    from pathlib import Path

    from sqlalchemy import Connection
    from sqlalchemy.engine.interfaces import DBAPIConnection

    from monitor.store.partitions import Commit, Saved

P = ParamSpec("P")
T = TypeVar("T")

BUSY_TIMEOUT_S = 30.0
CONNECT_TIMEOUT_S = 10.0
CANCEL_GRACE_S = 5.0
"""How long a cancelled caller, or closing, waits for a transaction to reach its end."""


# ---------------------------------------------------------------- engines


def create(address: Address, *, timeout_s: float = BUSY_TIMEOUT_S, foreign_keys: bool = True) -> AsyncEngine:
    """Make an engine; nothing is opened yet. `timeout_s` bounds one statement."""
    if address.is_sqlite:
        return _sqlite(address, timeout_s, foreign_keys)
    driver_errors(address)  # says which extra to install before SQLAlchemy says something longer
    return create_async_engine(
        address.url,
        pool_size=4,
        max_overflow=4,
        pool_timeout=CONNECT_TIMEOUT_S,
        connect_args={
            "timeout": CONNECT_TIMEOUT_S,
            "command_timeout": timeout_s,  # ours, should the server be gone without a word
            "server_settings": {
                "application_name": "monitor",
                "timezone": "UTC",
                "statement_timeout": str(int(timeout_s * 1000)),
                "lock_timeout": str(int(timeout_s * 1000)),
                # A daemon that was stopped inside a transaction must not hold its partition's row for ever.
                "idle_in_transaction_session_timeout": str(int(timeout_s * 1000)),
            },
        },
    )


def _sqlite(address: Address, timeout_s: float, foreign_keys: bool) -> AsyncEngine:
    engine = create_async_engine(
        address.url,
        pool_size=4,
        max_overflow=4,
        pool_timeout=CONNECT_TIMEOUT_S,
        # The driver's own BEGIN is deferred, comes late and spares DDL: we send ours (see `begin` below).
        connect_args={"isolation_level": None, "timeout": timeout_s},
    )

    @event.listens_for(engine.sync_engine, "connect")
    def configure(connection: DBAPIConnection, _record: object) -> None:
        cursor = connection.cursor()
        cursor.execute("PRAGMA journal_mode=WAL")
        cursor.execute("PRAGMA synchronous=NORMAL")
        cursor.execute("PRAGMA journal_size_limit=67108864")
        cursor.execute(f"PRAGMA foreign_keys={'ON' if foreign_keys else 'OFF'}")
        cursor.close()

    @event.listens_for(engine.sync_engine, "begin")
    def begin(connection: Connection) -> None:
        # IMMEDIATE: a deferred transaction that reads and then writes fails at once when another writer was between,
        # whatever the busy timeout.
        reading = connection.get_execution_options().get("monitor_reads", False)
        connection.exec_driver_sql("BEGIN" if reading else "BEGIN IMMEDIATE")

    return engine


# ---------------------------------------------------------------- one daemon per file


@contextmanager
def exclusive(database: Path) -> Iterator[None]:
    """Hold `<database>.lock` for as long as the context lasts. Raises StoreLocked at once if another process holds it.

    The operating system drops the lock with the process, however it ends. The file stays: removing it would let two
    daemons lock two files of one name.
    """
    path = database.with_name(database.name + ".lock")
    try:
        lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise StoreUnavailable(f"{path}: {error.strerror}") from error
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = os.read(lock, 32).decode(errors="replace").strip()
            raise StoreLocked(f"{database} is in use by process {holder or 'unknown'}") from error
        os.truncate(lock, 0)
        os.pwrite(lock, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        os.close(lock)


def _is_new(database: Path) -> bool:
    return not database.exists() or database.stat().st_size == 0


# ---------------------------------------------------------------- the door


class AsyncStore:
    """One database, open. An async context manager; every connection goes back before it closes.

    owner=True is the daemon: on SQLite it takes the file for itself and creates the tables in a new file.
    Everyone else (an operator's command) finds a database that is there and current, or an error that says what to do.
    """

    def __init__(self, url: str, *, owner: bool = False, timeout_s: float = BUSY_TIMEOUT_S) -> None:
        self.address = parse(url)
        self._owner = owner
        self._timeout_s = timeout_s
        self._driver_errors = driver_errors(self.address)
        self._stack = AsyncExitStack()
        # Indexed by `reads`. SQLite's busy handler sleeps and polls, so writers of one process queue here instead.
        self._turns = (asyncio.Semaphore(1 if self.address.is_sqlite else 4), asyncio.Semaphore(4))
        self._under_way: set[asyncio.Task[Any]] = set()
        self.engine: AsyncEngine

    async def __aenter__(self) -> Self:
        """Open. Raises StoreLocked, SchemaMismatch, NotFound, ConfigError, or StoreUnavailable (try again)."""
        async with AsyncExitStack() as stack:
            if self.address.path is not None:
                await self._prepare_file(stack, self.address.path)
            self.engine = create(self.address, timeout_s=self._timeout_s)
            stack.push_async_callback(self.engine.dispose)
            stack.push_async_callback(self._settle)
            await self.read(schema.check_schema)
            self._stack = stack.pop_all()
        return self

    async def _prepare_file(self, stack: AsyncExitStack, path: Path) -> None:
        if not self._owner:
            if _is_new(path):
                raise NotFound(f"no database at {path}; start the daemon or check store.url")
            return
        stack.enter_context(exclusive(path))
        if _is_new(path):
            await schema.migrate(create(self.address, foreign_keys=False), self.address)

    async def __aexit__(self, *_exc: object) -> None:
        await self._stack.aclose()

    async def run(self, fn: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run `fn(connection, …)` in one transaction: commit if it returns, roll back if it raises."""
        return await self._to_the_end(self._transact(lambda connection: fn(connection, *args, **kwargs), reads=False))

    async def read(self, fn: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run `fn(connection, …)`, which must not write. A lost connection is replaced once, unseen."""

        def body(connection: Connection) -> T:
            return fn(connection, *args, **kwargs)

        try:
            return await self._to_the_end(self._transact(body, reads=True))
        except StoreUnavailable:
            return await self._to_the_end(self._transact(body, reads=True))

    async def save(self, commit: Commit) -> Saved:
        """Save one step of a partition (`partitions.save`): exactly once, also when the answer to COMMIT is lost.

        Raises Fenced, InvariantBroken, or StoreUnavailable: then hold the Commit and call again with the same one,
        as often as it takes.
        """
        try:
            return await self.run(partitions.save, commit)
        except StoreUnavailable:
            # Connections left over from before a restart of the server all fail once; and if this one died inside
            # COMMIT, the second try finds out.
            return await self.run(partitions.save, commit)

    async def _transact(self, body: Callable[[Connection], T], *, reads: bool) -> T:
        with translated(self.address, self._driver_errors):
            async with self._turns[reads], self._time_limit(), self.engine.connect() as connection:
                if reads:
                    await connection.execution_options(monitor_reads=True, postgresql_readonly=True)
                async with connection.begin():
                    return await connection.run_sync(body)

    def _time_limit(self) -> asyncio.Timeout:
        # The driver's own limits bound one statement; this one bounds a server that vanished between two.
        # A statement on a SQLite file cannot be abandoned half-way, its wait for the lock is bounded already.
        return asyncio.timeout(None if self.address.is_sqlite else 2 * self._timeout_s)

    async def _to_the_end(self, transaction: Coroutine[Any, Any, T]) -> T:
        """Await a transaction; when our caller is cancelled, let it finish before passing the cancellation on."""
        task = asyncio.create_task(transaction)
        self._under_way.add(task)
        task.add_done_callback(self._done)
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            await asyncio.wait({task}, timeout=CANCEL_GRACE_S)
            raise

    def _done(self, task: asyncio.Task[Any]) -> None:
        self._under_way.discard(task)
        if not task.cancelled():
            task.exception()  # seen: nobody may be left to hear it

    async def _settle(self) -> None:
        if self._under_way:
            await asyncio.wait(self._under_way, timeout=CANCEL_GRACE_S)
        for task in tuple(self._under_way):
            task.cancel()
        await asyncio.gather(*self._under_way, return_exceptions=True)
