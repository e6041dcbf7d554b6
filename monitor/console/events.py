"""Live pages: a stream of the topics that have changed (server-sent events).

Input: a look at cheap figures of the database each second, once for all viewers. Output: events `changed` with the
names of topics, whose parts of the page the browser then fetches again. Invariant: a viewer costs a set of at most
`len(TOPICS)` words, however slow it is and however long it stays.
"""

from __future__ import annotations

import asyncio
import json
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from fastapi import APIRouter, Request
from starlette.responses import Response

from monitor import logs
from monitor.console.security import Refused, Who, who
from monitor.errors import MonitorError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from starlette.types import Message, Receive, Scope, Send

    from monitor.clock import Clock

log = logs.get("console")

router = APIRouter(include_in_schema=False)

TOPICS = {"alerts": 1.0, "scores": 10.0, "models": 2.0, "ingestion": 10.0, "database": 1.0}
"""Topic → least time between two events of it, in seconds. database: it went away or came back."""
LOOK_EVERY_S = 1.0
HEARTBEAT_S = 15.0
"""Between two lines on a silent stream, so that proxies keep it and a dead client is noticed."""
SEND_LIMIT_S = 10.0
"""For one event. A client that does not read for longer is dropped; it connects again by itself."""
STREAM_LIMIT_S = 3600.0
"""Age at which a stream ends, and the client connects again."""
MAX_STREAMS = 200


class Events:
    """The watcher of the database, and the streams that it wakes."""

    def __init__(self, read_changes: Callable[[], Awaitable[dict[str, Any]]], clock: Clock, boot: str) -> None:
        """`boot`: a word for this process. Ids of another one mean that everything may have changed."""
        self._read_changes = read_changes
        self._clock = clock
        self._boot = boot
        self._seen: dict[str, Any] = {}
        self._number = 0
        self._changed_at: dict[str, int] = dict.fromkeys(TOPICS, 0)
        """Number of the last event of each topic."""
        self._told_s: dict[str, float] = {}
        self._streams: set[_Stream] = set()
        self.is_closing = False

    @property
    def id(self) -> str:
        """Id of the newest event. A page that carries it to `/events?since=ID` misses none."""
        return f"{self._boot}-{self._number}"

    @property
    def n_streams(self) -> int:
        """Streams that are open."""
        return len(self._streams)

    def version(self, topic: str) -> int:
        """Return a number that rises when a topic changes."""
        return self._changed_at[topic]

    async def watch(self) -> None:
        """Look for changes until cancelled. With no viewer, look rarely."""
        while True:
            await self.look()
            await self._clock.sleep(LOOK_EVERY_S)

    async def look(self) -> None:
        """Compare the database with the last look, and wake the streams."""
        if not self._streams and self._seen:
            return  # a stream that opens asks what it missed
        try:
            found = {**await self._read_changes(), "database": ("here",)}
        except MonitorError as error:
            found = {**self._seen, "database": ("away", str(error))}
        now_s = self._clock.monotonic_s()
        topics = {
            topic
            for topic, every_s in TOPICS.items()
            if found.get(topic) != self._seen.get(topic) and now_s - self._told_s.get(topic, -every_s) >= every_s
        }
        is_first = not self._seen
        self._seen.update({topic: found.get(topic) for topic in (topics or found if is_first else topics)})
        if topics and not is_first:
            self._tell(topics, now_s)

    def _tell(self, topics: set[str], now_s: float) -> None:
        self._number += 1
        for topic in topics:
            self._changed_at[topic] = self._number
            self._told_s[topic] = now_s
        for stream in self._streams:
            stream.add(topics)

    def missed_since(self, event_id: str) -> set[str]:
        """Return the topics that changed after an event."""
        boot, _, number = event_id.rpartition("-")
        if boot != self._boot or not number.isdecimal():
            return set(TOPICS)
        return {topic for topic, at in self._changed_at.items() if at > int(number[:18])}

    def close(self) -> None:
        """End every stream, so that the server can stop."""
        self.is_closing = True
        for stream in self._streams:
            stream.wake.set()

    def open(self, stream: _Stream) -> None:
        """Add a stream. Raises Refused if there are too many."""
        if len(self._streams) >= MAX_STREAMS:
            raise Refused(503, f"{MAX_STREAMS} pages are live already; this one must be loaded again by hand", 30)
        self._streams.add(stream)

    def drop(self, stream: _Stream) -> None:
        """Remove a stream."""
        self._streams.discard(stream)


class _Stream(Response):
    """One client."""

    def __init__(self, events: Events, is_allowed: Callable[[], Awaitable[bool]], missed: set[str]) -> None:
        self.wake = asyncio.Event()
        self.status_code = 200
        self.background = None
        self._events = events
        self._is_allowed = is_allowed
        self._pending: set[str] = set()
        if missed:
            self.add(missed)

    def add(self, topics: set[str]) -> None:
        """Let the client know of these topics, once, however often they change meanwhile."""
        self._pending |= topics
        self.wake.set()

    async def __call__(self, _scope: Scope, receive: Receive, send: Send) -> None:
        """Send until the client leaves, reads too slowly, loses its rights, or the server stops."""
        gone = asyncio.create_task(_until_gone(receive))
        gone.add_done_callback(lambda _: self.wake.set())
        headers = [(b"content-type", b"text/event-stream; charset=utf-8"), (b"x-accel-buffering", b"no")]
        try:
            async with asyncio.timeout(STREAM_LIMIT_S):
                await send({"type": "http.response.start", "status": 200, "headers": headers})
                await self._send(send, "retry: 3000\n\n")
                while not gone.done() and not self._events.is_closing:
                    await self._send_pending(send)
                    with suppress(TimeoutError):
                        async with asyncio.timeout(HEARTBEAT_S):
                            await self.wake.wait()
                            continue
                    if not await self._is_allowed():
                        break
                    await self._send(send, ": \n\n")
            await send({"type": "http.response.body", "body": b""})
        except TimeoutError:
            pass  # the server closes the connection
        finally:
            gone.cancel()
            self._events.drop(self)

    async def _send_pending(self, send: Send) -> None:
        self.wake.clear()
        topics, self._pending = sorted(self._pending), set()
        if topics:
            await self._send(send, f"id: {self._events.id}\nevent: changed\ndata: {json.dumps(topics)}\n\n")

    async def _send(self, send: Send, text: str) -> None:
        async with asyncio.timeout(SEND_LIMIT_S):
            await send({"type": "http.response.body", "body": text.encode(), "more_body": True})


async def _until_gone(receive: Receive) -> None:
    while True:
        message: Message = await receive()
        if message["type"] == "http.disconnect":
            return


@router.get("/events")
async def events(request: Request, since: str = "") -> Response:
    """Answer with the stream of changes. `since`: id of the last event that the client knows."""
    console = request.app.state.console
    sender: Who = who(request)
    known = request.headers.get("last-event-id") or since
    missed = console.events.missed_since(known) if known else set()

    async def is_allowed() -> bool:
        return bool(await console.access.is_current(sender))

    stream = _Stream(console.events, is_allowed, missed)
    console.events.open(stream)
    return stream
