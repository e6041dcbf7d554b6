"""Reading the database from worker threads, each with a connection of its own.

Input: a function of a `Reader`. Output: its result. Invariant: a failure of the database closes the connection, and the
next call opens another. So the console outlives a database that is away, restored from a backup, or upgraded.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, TypeVar

from monitor.errors import ConfigError, Conflict, NotFound, StoreUnavailable
from monitor.store.reader import open_reader
from monitor.store.url import parse

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from monitor.store.reader import Reader

T = TypeVar("T")

N_READERS = 3
"""Connections, which PostgreSQL grants to few."""
MAX_WAITING = 64
"""Calls that wait for a connection. Further ones are refused: an answer after a minute serves nobody."""

CLOSE_LIMIT_S = 1.0

FileId = tuple[int, int] | None
"""Device and inode of a SQLite file."""


def file_id(path: Path | None) -> FileId:
    """Return the identity of a SQLite file, to notice one that was replaced. None = there is none, or no file."""
    try:
        found = None if path is None else path.stat()
    except OSError:
        return None
    return None if found is None else (found.st_dev, found.st_ino)


class ReaderPool:
    """Connections for reading, opened when they are needed."""

    def __init__(self, url: str, *, n_readers: int = N_READERS) -> None:
        path = parse(url).path
        self._idle = [_Worker(url, path) for _ in range(n_readers)]
        self._all = tuple(self._idle)
        self._waiting: list[asyncio.Future[_Worker]] = []

    async def read(self, fn: Callable[[Reader], T]) -> T:
        """Return `fn(reader)`, run in a thread. Raises what it raises, and StoreUnavailable, SchemaMismatch, …"""
        worker = await self._take()
        task = asyncio.wrap_future(worker.thread.submit(worker.call, fn))
        task.add_done_callback(lambda done: self._put_back(worker, done))
        # The thread goes on after the caller was cancelled, so the worker comes back when the thread is done.
        return await asyncio.shield(task)

    async def _take(self) -> _Worker:
        if self._idle:
            return self._idle.pop()  # the last one used: the others need not open a connection
        if len(self._waiting) >= MAX_WAITING:
            raise StoreUnavailable("too many requests wait for it; try again in a moment")
        turn: asyncio.Future[_Worker] = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        try:
            return await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self._hand_on(turn.result())
            else:
                self._waiting.remove(turn)
            raise

    def _put_back(self, worker: _Worker, done: asyncio.Future[Any]) -> None:
        if not done.cancelled():
            done.exception()  # marks it as retrieved: its caller may be cancelled
        self._hand_on(worker)

    def _hand_on(self, worker: _Worker) -> None:
        while self._waiting:
            turn = self._waiting.pop(0)
            if not turn.done():
                turn.set_result(worker)
                return
        self._idle.append(worker)

    async def close(self) -> None:
        """Close every connection. One that hangs is left to the end of the process."""
        closing = [asyncio.wrap_future(worker.thread.submit(worker.close)) for worker in self._all]
        await asyncio.wait(closing, timeout=CLOSE_LIMIT_S)
        for worker in self._all:
            worker.thread.shutdown(wait=False)


class _Worker:
    """A thread and its connection. All methods but the constructor run in the thread."""

    def __init__(self, url: str, path: Path | None) -> None:
        self.thread = ThreadPoolExecutor(1, "console-reader")
        self._url = url
        self._path = path
        self._reader: Reader | None = None
        self._file: FileId = None

    def call(self, fn: Callable[[Reader], T]) -> T:
        reader = self._open()
        try:
            result = fn(reader)
            if isinstance(result, Iterator):  # rows are read here: a connection belongs to its thread
                result = list(result)  # type: ignore[assignment]
        except (NotFound, Conflict, ConfigError):
            raise
        except BaseException:
            self.close()
            raise
        return result

    def _open(self) -> Reader:
        file = file_id(self._path)
        if self._reader is not None and file != self._file:  # the file was replaced, as by a restored backup
            self.close()
        if self._reader is None:
            try:
                self._reader = open_reader(self._url)
            except NotFound as error:
                raise StoreUnavailable(error.detail) from error
            self._file = file
        return self._reader

    def close(self) -> None:
        reader, self._reader = self._reader, None
        if reader is not None:
            reader.close()
