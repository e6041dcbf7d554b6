"""The server that receives webhooks, records each request, and sometimes fails.

Input: POSTs on 127.0.0.1. Output: `arrivals`, in order. At moments that the seed decides, a request is answered with
5xx or late, or its connection is closed or kept open without an answer, or for some seconds all connections are
aborted. Invariant: a complete request is recorded before it is answered.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from dataclasses import dataclass
from typing import Literal

from tests.servers import LoopbackServer

Answer = Literal["accepted", "refused", "unanswered"]
FAULTS = ("error", "busy", "hang_up", "hang", "down", "slow", "slow")
ANSWERS: dict[str, Answer] = {"": "accepted", "slow": "accepted", "error": "refused", "busy": "refused"}
STATUS = {"error": "500 Oh", "busy": "503 Busy\r\nRetry-After: 1"}
PAUSE_S = (0.5, 5.0)
"""Between two faults. After each the sender waits for at least a second."""
DOWN_S = SLOW_S = (0.5, 4.0)


@dataclass(frozen=True, slots=True)
class Arrival:
    """One complete request."""

    at: float
    """Seconds since 1970."""
    key: str
    body: bytes
    answer: Answer
    """accepted: 2xx, if the sender still waits. refused: 5xx. unanswered: none."""


class WebhookReceiver(LoopbackServer):
    """One web server on 127.0.0.1."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.arrivals: list[Arrival] = []
        self.n_aborted = 0
        """Connections that were aborted before anything was read."""
        self.is_healthy = False
        """Accept everything from now on, except the very first request."""
        self._rng = random.Random(f"receiver/{seed}")
        self._next_fault_at = self._down_until = 0.0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/alerts"

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if not self.is_healthy and time.monotonic() < self._down_until:
            self.n_aborted += 1
            writer.transport.abort()
            return
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            await self._answer(reader, writer)

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in head[1:])}
        body = await reader.readexactly(int(headers["content-length"]))
        fault = self._fault()
        answer: Answer = ANSWERS.get(fault, "unanswered")
        self.arrivals.append(Arrival(time.time(), headers["idempotency-key"], body, answer))
        if fault == "down":
            self._down_until = time.monotonic() + self._rng.uniform(*DOWN_S)
        elif fault == "hang":
            await reader.read()  # until the sender closes the connection
        elif fault != "hang_up":
            if fault == "slow":
                await asyncio.sleep(self._rng.uniform(*SLOW_S))
            writer.write(f"HTTP/1.1 {STATUS.get(fault, '204 Taken')}\r\nContent-Length: 0\r\n\r\n".encode())
            await writer.drain()

    def _fault(self) -> str:
        """Return the fault for this request; "" = none. The first request fails, so that a short run has a retry."""
        is_first = not self._next_fault_at
        if not is_first and (self.is_healthy or time.monotonic() < self._next_fault_at):
            return ""
        self._next_fault_at = time.monotonic() + self._rng.uniform(*PAUSE_S)
        return "error" if is_first else self._rng.choice(FAULTS)
