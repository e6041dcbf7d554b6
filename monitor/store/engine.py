"""The daemon's door to the database. Functions of a `Connection` enter, their results leave; one call, one transaction.

Law: whoever calls `run` or `save` learns one of three things: it is committed, it is not, or `StoreUnavailable`.
After `StoreUnavailable` the outcome may be unknown, and `save` may be called again with the same Commit: its
compare-and-set tells the two apart. A cancelled caller never cuts a transaction in half: each runs in a task of its
own, with time limits of its own.
"""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack, suppress
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, Self, TypeVar

from monitor.errors import NotFound, StoreUnavailable
from monitor.store import partitions, schema, sqlite
from monitor.store.error_mapping import driver_errors, translated
from monitor.store.postgresql import PostgresqlDoor
from monitor.store.sqlite import SqliteDoor
from monitor.store.url import parse

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy import Connection

    from monitor.store.partitions import Commit, Saved

P = ParamSpec("P")
T = TypeVar("T")

TIMEOUT_S = 30.0
CANCEL_GRACE_S = 5.0
"""How long a cancelled caller, or closing, waits for a transaction to reach its end."""
HURRIED_GRACE_S = 0.5
"""The same once the process was told to stop: a database that hangs must not hold that up. A transaction that is left
behind is committed or it is not; the next compare-and-set finds out.
"""
HANGING_GRACE_S = 0.05
"""And the same once one of them did hang: a stop that asks five times need not find out five times."""


class AsyncStore:
    """One database, open. An async context manager; every connection goes back before it closes.

    owner=True is the daemon: on SQLite it takes the file for itself and creates the tables in a new file.
    Everyone else (an operator's command) finds a database that is there and current, or an error that says what to do.
    """

    def __init__(self, url: str, *, owner: bool = False, timeout_s: float = TIMEOUT_S) -> None:
        self.address = parse(url)
        self._owner = owner
        self._timeout_s = timeout_s
        self._driver_errors = driver_errors(self.address)
        self._under_way: set[asyncio.Task[Any]] = set()
        self._grace_s = CANCEL_GRACE_S
        self._stack = AsyncExitStack()
        self._door: SqliteDoor | PostgresqlDoor

    async def __aenter__(self) -> Self:
        """Open. Raises StoreLocked, SchemaMismatch, NotFound, ConfigError, or StoreUnavailable (try again)."""
        async with AsyncExitStack() as stack:
            if self.address.path is not None:
                if self._owner:
                    stack.enter_context(sqlite.owned(self.address.path))
                    if sqlite.is_new(self.address.path):
                        await schema.migrate(self.address)
                elif sqlite.is_new(self.address.path):
                    raise NotFound(f"no database at {self.address}; start the daemon, or check store.url")
                self._door = SqliteDoor(self.address.path, self._timeout_s)
            else:
                self._door = PostgresqlDoor(self.address.url, self._timeout_s)
            stack.push_async_callback(self._close)
            await self.read(schema.check_schema)
            self._stack = stack.pop_all()
        return self

    async def __aexit__(self, *_exc: object) -> None:
        await self._stack.aclose()

    async def run(self, fn: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run `fn(connection, …)` in one transaction: commit if it returns, roll back if it raises."""
        return await self._to_the_end(lambda connection: fn(connection, *args, **kwargs), reads=False)

    async def read(self, fn: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run `fn(connection, …)`, which must not write. A lost connection is replaced once, unseen."""

        def body(connection: Connection) -> T:
            return fn(connection, *args, **kwargs)

        try:
            return await self._to_the_end(body, reads=True)
        except StoreUnavailable:
            return await self._to_the_end(body, reads=True)

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

    def hurry(self) -> None:
        """From now on wait only a moment for transactions whose callers were cancelled."""
        self._grace_s = HURRIED_GRACE_S

    @property
    def n_checked_out(self) -> int:
        """Connections in use; 0 whenever nothing runs."""
        return self._door.n_checked_out

    async def _transact(self, body: Callable[[Connection], T], *, reads: bool) -> T:
        with translated(self.address, self._driver_errors):
            return await self._door.transact(body, reads=reads)

    async def _to_the_end(self, body: Callable[[Connection], T], *, reads: bool) -> T:
        """Await a transaction; when our caller is cancelled, let it finish before passing the cancellation on."""
        task = asyncio.create_task(self._transact(body, reads=reads))
        self._under_way.add(task)
        task.add_done_callback(self._done)
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            _, hanging = await asyncio.wait({task}, timeout=self._grace_s)
            if hanging and self._grace_s == HURRIED_GRACE_S:
                self._grace_s = HANGING_GRACE_S
            raise

    def _done(self, task: asyncio.Task[Any]) -> None:
        self._under_way.discard(task)
        if not task.cancelled():
            task.exception()  # seen: nobody may be left to hear it

    async def _close(self) -> None:
        if self._under_way:
            await asyncio.wait(self._under_way, timeout=self._grace_s)
        for task in tuple(self._under_way):
            task.cancel()
        if self._under_way:  # ending one at the server's side may hang as the transaction did
            await asyncio.wait(self._under_way, timeout=self._grace_s)
        with suppress(TimeoutError):
            async with asyncio.timeout(self._grace_s):
                await self._door.close()
