"""The other end of a webhook: it writes down each letter that comes, and is not always well.

Enters: POSTs on 127.0.0.1. Leaves: `arrivals`, in order. Now and then, at moments of the seed's, a letter is answered
5xx, or late, or taken without an answer, or nothing is said until the sender gives up; or for some seconds whoever
comes is turned away. The law: what came whole is written down before it is answered.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import threading
import time
from dataclasses import dataclass
from typing import Literal

from tests.servers import free_port

Answer = Literal["heard", "refused", "unanswered"]
MOODS = ("error", "busy", "hang_up", "hang", "down", "slow", "slow")
ANSWERS: dict[str, Answer] = {"": "heard", "slow": "heard", "error": "refused", "busy": "refused"}
STATUS = {"error": "500 Oh", "busy": "503 Busy\r\nRetry-After: 1"}
PAUSE_S = (0.5, 5.0)
"""Between two moods: each costs the sender at least a second of rest."""
DOWN_S = SLOW_S = (0.5, 4.0)


@dataclass(frozen=True, slots=True)
class Arrival:
    """One letter that came whole."""

    at: float
    """Seconds since 1970."""
    key: str
    body: bytes
    answer: Answer
    """heard: with a 2xx, if the sender is still there. refused: with a 5xx. unanswered: no word."""


class Receiver:
    """One web server; its loop runs in a thread of its own. Context manager."""

    def __init__(self, seed: int) -> None:
        self.port = free_port()
        self.arrivals: list[Arrival] = []
        self.n_turned_away = 0
        """Connections that were cut before anything was read."""
        self.is_calm = False
        """All is taken and answered from now on, but for the very first."""
        self._rng = random.Random(f"receiver/{seed}")
        self._next_mood_at = self._down_until = 0.0
        self._ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()), daemon=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/alerts"

    def __enter__(self) -> Receiver:
        self._thread.start()
        assert self._ready.wait(10)
        return self

    def __exit__(self, *_exc: object) -> None:
        self._loop.call_soon_threadsafe(self._closing.set)
        self._thread.join(10)

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
        if not self.is_calm and time.monotonic() < self._down_until:
            self.n_turned_away += 1
            writer.transport.abort()
            return
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            await self._take(reader, writer)
        writer.close()

    async def _take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in head[1:])}
        body = await reader.readexactly(int(headers["content-length"]))
        mood = self._mood()
        answer: Answer = ANSWERS.get(mood, "unanswered")
        self.arrivals.append(Arrival(time.time(), headers["idempotency-key"], body, answer))
        if mood == "down":
            self._down_until = time.monotonic() + self._rng.uniform(*DOWN_S)
        elif mood == "hang":
            await reader.read()  # until the sender has had enough
        elif mood != "hang_up":
            if mood == "slow":
                await asyncio.sleep(self._rng.uniform(*SLOW_S))
            writer.write(f"HTTP/1.1 {STATUS.get(mood, '204 Taken')}\r\nContent-Length: 0\r\n\r\n".encode())
            await writer.drain()

    def _mood(self) -> str:
        """How this letter is met; "" = well. The first meets an error: a short run must see one come again, too."""
        is_first = not self._next_mood_at
        if not is_first and (self.is_calm or time.monotonic() < self._next_mood_at):
            return ""
        self._next_mood_at = time.monotonic() + self._rng.uniform(*PAUSE_S)
        return "error" if is_first else self._rng.choice(MOODS)
