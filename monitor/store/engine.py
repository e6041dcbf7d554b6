"""The daemon's access to the database: one call, one transaction.

Input: a function of a `Connection`. Output: its result. Invariant: the caller of `run` or `save` learns that its
transaction is committed, that it is not, or `StoreUnavailable`. After `StoreUnavailable` the outcome may be unknown.
`save` may then be called again with the same Commit, whose compare-and-set finds the outcome. Cancelling the caller
does not interrupt its transaction, which runs in a task of its own, with its own time limits.
"""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack, suppress
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, Self, TypeVar

from monitor.errors import NotFound, StoreUnavailable
from monitor.store import partitions, schema, sqlite
from monitor.store.error_mapping import driver_errors, map_errors
from monitor.store.postgresql import PostgresqlPool
from monitor.store.sqlite import SqlitePool
from monitor.store.url import parse
from monitor.timing import DEFAULT_TIMING

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy import Connection

    from monitor.store.commit import Commit, Saved
    from monitor.timing import Timing

P = ParamSpec("P")
T = TypeVar("T")

TIMEOUT_S = 30.0
"""For one statement, and for waiting on the writer of a SQLite file; operators' commands have it, too."""


class AsyncStore:
    """One open database. An async context manager. Every connection is returned before it closes.

    owner=True is the daemon: on SQLite it locks the file and creates the tables in a new file. Other callers
    (operators' commands) find an existing database of the needed revision, or get an error that states the remedy.
    """

    def __init__(
        self, url: str, *, owner: bool = False, timeout_s: float = TIMEOUT_S, timing: Timing = DEFAULT_TIMING
    ) -> None:
        self.address = parse(url)
        self._owner = owner
        self._timeout_s = timeout_s
        self._driver_errors = driver_errors(self.address)
        self._running: set[asyncio.Task[Any]] = set()
        self._timing = timing
        self._grace_s = timing.cancel_grace_s
        self._stack = AsyncExitStack()
        self._pool: SqlitePool | PostgresqlPool

    async def __aenter__(self) -> Self:
        """Open. Raises StoreLocked, SchemaMismatch, NotFound, ConfigError, or StoreUnavailable (try again)."""
        async with AsyncExitStack() as stack:
            if self.address.path is not None:
                if self._owner:
                    stack.enter_context(sqlite.lock_file(self.address.path))
                    if sqlite.is_new(self.address.path):
                        await schema.migrate(self.address)
                elif sqlite.is_new(self.address.path):
                    raise NotFound(f"no database at {self.address}; start the daemon, or check store.url")
                self._pool = SqlitePool(self.address.path, self._timeout_s)
            else:
                self._pool = PostgresqlPool(self.address.url, self._timeout_s)
            stack.push_async_callback(self._close)
            await self.read(schema.check_schema)
            self._stack = stack.pop_all()
        return self

    async def __aexit__(self, *_exc: object) -> None:
        await self._stack.aclose()

    async def run(self, fn: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run `fn(connection, …)` in one transaction: commit if it returns, roll back if it raises."""
        return await self._transact(lambda connection: fn(connection, *args, **kwargs), reads=False)

    async def read(self, fn: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run `fn(connection, …)`, which must not write. Repeated once if the connection was lost."""

        def body(connection: Connection) -> T:
            return fn(connection, *args, **kwargs)

        try:
            return await self._transact(body, reads=True)
        except StoreUnavailable:
            return await self._transact(body, reads=True)

    async def save(self, commit: Commit) -> Saved:
        """Commit one step of a partition (`partitions.commit`) exactly once, even if the answer to COMMIT is lost.

        Raises Fenced, ModelsChanged, InvariantBroken, or StoreUnavailable: then keep the Commit and call again with the
        same one, any number of times.
        """
        try:
            return await self.run(partitions.commit, commit)
        except StoreUnavailable:
            # After a restart of the server each pooled connection fails once. If this one failed during COMMIT, the
            # second call finds the outcome.
            return await self.run(partitions.commit, commit)

    def shorten_grace(self) -> None:
        """Wait only a moment, from now on, for transactions of cancelled callers. For the stop of the process."""
        self._grace_s = self._timing.stopping_grace_s

    @property
    def n_checked_out(self) -> int:
        """Connections in use; 0 when no transaction runs."""
        return self._pool.engine.pool.checkedout()  # type: ignore[attr-defined, no-any-return] # QueuePool has it

    async def _transact(self, body: Callable[[Connection], T], *, reads: bool) -> T:
        """Await a transaction. If the caller is cancelled, let the transaction end before the cancellation goes on."""
        task = asyncio.create_task(self._pool.transact(body, reads=reads))
        self._running.add(task)
        task.add_done_callback(self._discard)
        with map_errors(self.address, self._driver_errors):
            try:
                return await asyncio.shield(task)
            except asyncio.CancelledError:
                _, hanging = await asyncio.wait({task}, timeout=self._grace_s)
                if hanging and self._grace_s == self._timing.stopping_grace_s:
                    self._grace_s = self._timing.hanging_grace_s
                raise

    def _discard(self, task: asyncio.Task[Any]) -> None:
        self._running.discard(task)
        if not task.cancelled():
            task.exception()  # marks it as retrieved: its caller may be cancelled

    async def _close(self) -> None:
        if self._running:
            await asyncio.wait(self._running, timeout=self._grace_s)
        for task in tuple(self._running):
            task.cancel()
        if self._running:  # ending a transaction in the server may hang as the transaction did
            await asyncio.wait(self._running, timeout=self._grace_s)
        with suppress(TimeoutError):
            async with asyncio.timeout(self._grace_s):
                await self._pool.close()
