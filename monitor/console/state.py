"""The parts that every request of the console uses.

Input: the configuration. Output: `Console`, which routes find as `request.app.state.console`. Invariant: reading goes
through `read` and writing through `act`, so no route blocks the event loop or holds a connection.
"""

from __future__ import annotations

import asyncio
import getpass
import os
import secrets
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeVar

from monitor.console.events import Events
from monitor.console.reading import FileId, ReaderPool, file_id
from monitor.console.security import Access
from monitor.console.signing import Signer
from monitor.console.static import StaticFiles
from monitor.errors import NotFound, StoreUnavailable
from monitor.store.engine import AsyncStore
from monitor.store.url import parse

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from monitor.clock import Clock
    from monitor.config import Config
    from monitor.store.reader import Reader

P = ParamSpec("P")
T = TypeVar("T")


class Console:
    """Configuration, clock, database and rights of one console."""

    def __init__(self, config: Config, clock: Clock, *, owner: str | None = None) -> None:
        """`owner`: name under which people on this machine act. Default: the login name of the process."""
        self.config = config
        self.clock = clock
        self.signer = Signer()
        self.static = StaticFiles()
        self.kept: dict[Any, tuple[int, Any]] = {}
        """Parts of pages that serve other viewers, too: see `pages.view.Ask`."""
        self._readers = ReaderPool(config.store.url)
        self._store: AsyncStore | None = None
        self._path = parse(config.store.url).path
        self._file: FileId = None
        self._opening = asyncio.Lock()

        async def read_tokens() -> list[dict[str, Any]]:
            return await self.read(lambda reader: reader.console_hashes())

        async def read_changes() -> dict[str, Any]:
            return await self.read(lambda reader: reader.changes())

        self.access = Access(config.console, clock, self.signer, read_tokens, owner or _login_name())
        self.events = Events(read_changes, clock, secrets.token_hex(4))

    async def read(self, fn: Callable[[Reader], T]) -> T:
        """Return `fn(reader)`, run in a thread with a connection of its own.

        Raises what `fn` raises; StoreUnavailable, also where there is no database yet; SchemaMismatch.
        """
        return await self._readers.read(fn)

    async def act(
        self, fn: Callable[Concatenate[AsyncStore, Clock, P], Awaitable[T]], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Return `fn(store, clock, …)`, a function of `control`. Raises what it raises, and as `read`."""
        return await fn(await self._open_store(), self.clock, *args, **kwargs)

    async def _open_store(self) -> AsyncStore:
        """Return the database. A file that was replaced, as by a restored backup, is opened anew."""
        async with self._opening:
            file = file_id(self._path)
            if self._store is not None and file != self._file:
                await self._close_store()
            if self._store is None:
                store = AsyncStore(self.config.store.url)
                try:
                    await store.__aenter__()
                except NotFound as error:
                    raise StoreUnavailable(error.detail) from error
                self._store, self._file = store, file
            return self._store

    async def _close_store(self) -> None:
        store, self._store = self._store, None
        if store is not None:
            await store.__aexit__(None, None, None)

    async def close(self) -> None:
        """Close every connection."""
        self.events.close()
        await self._close_store()
        await self._readers.close()


def _login_name() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError, ImportError):  # in a container the user may have only a number
        return f"uid {os.getuid()}"
