"""A relay between daemon and PostgreSQL, on 127.0.0.1, that can lose the answer to a COMMIT.

It parses the client's messages (PostgreSQL's protocol, version 3) and so knows the COMMIT of a transaction that moved
an offset. `cut_next` breaks the connection there. "after": the database commits, and the answer is lost. "before": the
COMMIT is lost. Invariant: without a request nothing is changed or delayed, and no byte is ever added.
"""

from __future__ import annotations

import asyncio
import contextlib
import struct
import time
from typing import TYPE_CHECKING, Literal

from tests.servers import LoopbackServer

if TYPE_CHECKING:
    from collections.abc import Coroutine

MOVES_AN_OFFSET = b"UPDATE source_partition"
SSL_REQUEST = 80877103
CHUNK = 1 << 16


class Proxy(LoopbackServer):
    """One relay."""

    def __init__(self, port: int) -> None:
        super().__init__()
        self._server_port = port
        self.cut_next: Literal["", "after", "before"] = ""
        self.n_cut_after = 0
        """COMMITs that the database executed and whose answer the daemon did not get."""
        self.n_cut_before = 0
        self._stalled_until = 0.0

    def stall(self, seconds: float) -> None:
        """Pass nothing on: the database seems to hang."""
        self._stalled_until = time.monotonic() + seconds

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            to_server = await asyncio.open_connection("127.0.0.1", self._server_port)
            await _Relay(self, reader, writer, *to_server).run()

    async def wait_for_end_of_stall(self) -> None:
        while (left := self._stalled_until - time.monotonic()) > 0:  # noqa: ASYNC110  # it may be prolonged
            await asyncio.sleep(min(left, 0.1))


class _Relay:
    """One connection of a daemon."""

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
        self._drops_answers = False
        """Answers of the database are not passed on any more."""
        self._answered = asyncio.Event()
        self._prepared: dict[bytes, bool] = {}
        """By name of a prepared statement: True if it moves an offset."""
        self._moved_offset = False
        """By the open transaction."""

    async def run(self) -> None:
        ways: list[Coroutine[None, None, None]] = [self._relay_requests(), self._relay_answers()]
        tasks = [asyncio.create_task(way) for way in ways]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            self._to_client.transport.abort()
            self._to_server.transport.abort()

    async def _relay_answers(self) -> None:
        while data := await self._server.read(CHUNK):
            await self._proxy.wait_for_end_of_stall()
            self._answered.set()
            if not self._drops_answers:
                self._to_client.write(data)
                await self._to_client.drain()

    async def _relay_requests(self) -> None:
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
                await self._proxy.wait_for_end_of_stall()
                if self._ends_offset_move(kind, body) and self._proxy.cut_next:
                    await self._cut(kind + head + body)
                    return
                await self._pass_on(kind + head + body)

    async def _pass_on(self, data: bytes) -> None:
        self._to_server.write(data)
        await self._to_server.drain()

    def _ends_offset_move(self, kind: bytes, body: bytes) -> bool:
        if kind == b"P":  # Parse: name, text
            name, text = body.split(b"\0")[:2]
            self._prepared[name] = MOVES_AN_OFFSET in text and b"next_offset" in text
        elif kind == b"B":  # Bind: portal, statement
            self._moved_offset |= self._prepared.get(body.split(b"\0")[1], False)
        elif kind == b"Q" and body.upper().startswith(b"ROLLBACK"):
            self._moved_offset = False
        elif kind == b"Q" and body.upper().startswith(b"COMMIT"):
            ends_move, self._moved_offset = self._moved_offset, False
            return ends_move
        return False

    async def _cut(self, commit: bytes) -> None:
        how, self._proxy.cut_next = self._proxy.cut_next, ""
        if how == "before":
            self._proxy.n_cut_before += 1
            return
        self._drops_answers = True
        self._answered.clear()
        await self._pass_on(commit)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._answered.wait(), 10)
            self._proxy.n_cut_after += 1
