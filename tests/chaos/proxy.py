"""Between daemon and PostgreSQL: a relay on 127.0.0.1 that can lose the answer to a COMMIT.

It reads what the client says (the frames of PostgreSQL's protocol, version 3) and knows which COMMIT ends a
transaction that moved an offset. `cut_next`: "after": the database commits, and the daemon never hears of it;
"before": the COMMIT never arrives. Either way the connection just breaks. `stall_s`: for so long nothing passes.
The law: nothing is ever changed or held back but on request, and never a byte invented.
"""

from __future__ import annotations

import asyncio
import contextlib
import struct
import threading
import time
from typing import TYPE_CHECKING, Literal

from tests.servers import free_port

if TYPE_CHECKING:
    from collections.abc import Coroutine

MOVES_AN_OFFSET = b"UPDATE source_partition"
SSL_REQUEST = 80877103
CHUNK = 1 << 16


class Proxy:
    """One relay; its loop runs in a thread of its own. Context manager."""

    def __init__(self, port: int) -> None:
        self._server_port = port
        self.port = free_port()
        self.cut_next: Literal["", "after", "before"] = ""
        self.n_cut_after = 0
        """COMMITs of saves that the database did and the daemon was not told of."""
        self.n_cut_before = 0
        self._stalled_until = 0.0
        self._ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()), daemon=True)

    def __enter__(self) -> Proxy:
        self._thread.start()
        assert self._ready.wait(10)
        return self

    def __exit__(self, *_exc: object) -> None:
        self._loop.call_soon_threadsafe(self._closing.set)
        self._thread.join(10)

    def stall(self, seconds: float) -> None:
        """Let nothing pass: the database is there and says nothing."""
        self._stalled_until = time.monotonic() + seconds

    # ------------------------------------------------------------------ inside

    async def _serve(self) -> None:
        self._loop, self._closing = asyncio.get_running_loop(), asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        server = await asyncio.start_server(self._meet, "127.0.0.1", self.port)
        self._ready.set()
        await self._closing.wait()
        server.close()
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _meet(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        with contextlib.suppress(OSError):
            to_server = await asyncio.open_connection("127.0.0.1", self._server_port)
            await _Relay(self, reader, writer, *to_server).run()
        writer.close()

    async def wait_out_a_stall(self) -> None:
        while (left := self._stalled_until - time.monotonic()) > 0:  # noqa: ASYNC110  # it may be prolonged
            await asyncio.sleep(min(left, 0.1))


class _Relay:
    """One connection of the daemon's."""

    def __init__(
        self,
        proxy: Proxy,
        client: asyncio.StreamReader,
        to_client: asyncio.StreamWriter,
        server: asyncio.StreamReader,
        to_server: asyncio.StreamWriter,
    ) -> None:
        self._proxy = proxy
        self._client, self._to_client = client, to_client
        self._server, self._to_server = server, to_server
        self._is_deaf = False
        """The database's answers are not passed on any more."""
        self._answered = asyncio.Event()
        self._prepared: dict[bytes, bool] = {}
        """Name of a prepared statement → whether it moves an offset."""
        self._is_save = False
        """The open transaction has moved an offset."""

    async def run(self) -> None:
        ways: list[Coroutine[None, None, None]] = [self._upwards(), self._downwards()]
        tasks = [asyncio.create_task(way) for way in ways]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            self._to_client.transport.abort()
            self._to_server.transport.abort()

    async def _downwards(self) -> None:
        while data := await self._server.read(CHUNK):
            await self._proxy.wait_out_a_stall()
            self._answered.set()
            if not self._is_deaf:
                self._to_client.write(data)
                await self._to_client.drain()

    async def _upwards(self) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError):
            while True:  # until the startup message: no type byte yet
                head = await self._client.readexactly(4)
                body = await self._client.readexactly(struct.unpack("!I", head)[0] - 4)
                await self._pass_on(head + body)
                if struct.unpack("!I", body[:4])[0] != SSL_REQUEST:
                    break
            while True:
                kind = await self._client.readexactly(1)
                head = await self._client.readexactly(4)
                body = await self._client.readexactly(struct.unpack("!I", head)[0] - 4)
                await self._proxy.wait_out_a_stall()
                if self._ends_a_save(kind, body) and self._proxy.cut_next:
                    await self._cut(kind + head + body)
                    return
                await self._pass_on(kind + head + body)

    async def _pass_on(self, data: bytes) -> None:
        self._to_server.write(data)
        await self._to_server.drain()

    def _ends_a_save(self, kind: bytes, body: bytes) -> bool:
        if kind == b"P":  # Parse: name, text
            name, text = body.split(b"\0")[:2]
            self._prepared[name] = MOVES_AN_OFFSET in text and b"next_offset" in text
        elif kind == b"B":  # Bind: portal, statement
            self._is_save |= self._prepared.get(body.split(b"\0")[1], False)
        elif kind == b"Q" and body.upper().startswith(b"ROLLBACK"):
            self._is_save = False
        elif kind == b"Q" and body.upper().startswith(b"COMMIT"):
            was_save, self._is_save = self._is_save, False
            return was_save
        return False

    async def _cut(self, commit: bytes) -> None:
        how, self._proxy.cut_next = self._proxy.cut_next, ""
        if how == "before":
            self._proxy.n_cut_before += 1
            return
        self._is_deaf = True
        self._answered.clear()
        await self._pass_on(commit)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._answered.wait(), 10)
            self._proxy.n_cut_after += 1
