"""The console's HTTP server: uvicorn with limits for everything a client can hold.

Input: the configuration. Output: answers until SIGTERM or Ctrl-C, then an end within seconds. Invariant: a client that
sends or reads slowly loses its connection, and the others are answered.
"""

from __future__ import annotations

import asyncio
import ctypes
import errno
import socket
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from monitor import logs
from monitor.console.app import create_app
from monitor.errors import ConfigError, MonitorError
from monitor.service.shutdown import stop_on_signals
from monitor.timing import DEFAULT_TIMING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from monitor.config import Config
    from monitor.console.state import Console
    from monitor.timing import Timing

log = logs.get("console")

MAX_CONNECTIONS = 400
"""At once, streams of events included. Further ones are closed."""
MAX_REQUESTS = 300
"""At once, streams included. Further ones are answered with 503."""
MAX_HEAD_BYTES = 16 * 1024
HEAD_LIMIT_S = 10.0
"""For a whole request line with its headers, also one that arrives byte by byte."""
KEEP_ALIVE_S = 15
"""For which a silent connection stays open between two requests."""
M_ARENA_MAX = -8
"""Of malloc.h."""
GRACE_S = 3
"""For requests in hand during a stop."""


async def serve(
    config: Config, *, on_ready: Callable[[str], None] = lambda _url: None, timing: Timing = DEFAULT_TIMING
) -> None:
    """Serve until a signal. `on_ready` gets the console's address.

    Raises ConfigError if the address cannot be used, or if other machines reach it and there is no token.
    """
    _share_heap()
    listener = _listen(config)
    with listener:
        app = create_app(config)
        console: Console = app.state.console
        await _check_access(console)
        server = _Server(
            uvicorn.Config(
                app,
                http=_Protocol,
                ws="none",
                loop="asyncio",
                lifespan="on",
                log_config=None,
                access_log=False,
                server_header=False,
                proxy_headers=False,  # `security.py` decides whom to believe
                limit_concurrency=MAX_REQUESTS,
                timeout_keep_alive=KEEP_ALIVE_S,
                timeout_graceful_shutdown=GRACE_S,
                h11_max_incomplete_event_size=MAX_HEAD_BYTES,
            ),
            console,
        )
        stopping = stop_on_signals(timing)
        watcher = asyncio.create_task(_stop_at(stopping, server))
        log.info("console_listens", listen=config.console.listen)
        on_ready(address_of(config))
        try:
            await server.serve([listener])
        finally:
            watcher.cancel()
        log.info("console_stopped")


def address_of(config: Config) -> str:
    """Return the address for a browser on this machine."""
    host, port = config.console.address
    shown = {"0.0.0.0": "localhost", "::": "localhost"}.get(host, f"[{host}]" if ":" in host else host)  # noqa: S104
    return f"http://{shown}:{port}/"


def _share_heap() -> None:
    """Let all threads allocate from one heap. By default each has its own, which never shrinks: 7 MB more (glibc)."""
    with suppress(OSError, AttributeError):  # another C library
        ctypes.CDLL(None).mallopt(M_ARENA_MAX, 1)


def _listen(config: Config) -> socket.socket:
    host, port = config.console.address
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=128)
    except OSError as error:
        is_taken = error.errno == errno.EADDRINUSE
        why = "is in use, perhaps by another console" if is_taken else f"cannot be used ({error.strerror})"
        raise ConfigError(f'console.listen: "{config.console.listen}" {why}; choose another address') from error


async def _check_access(console: Console) -> None:
    """Refuse to listen for other machines while no login is possible."""
    settings = console.config.console
    if not settings.allow_remote or settings.is_private or settings.user_header:
        return
    with suppress(MonitorError):  # the database may come later, and without it nobody comes in
        if await console.read(lambda reader: reader.console_tokens()):
            return
        raise ConfigError(
            f'console.listen: other machines reach "{settings.listen}", and there is no token yet; '
            "make one: monitor console token add NAME --scope act"
        )


async def _stop_at(stopping: asyncio.Event, server: uvicorn.Server) -> None:
    await stopping.wait()
    server.should_exit = True


class _Server(uvicorn.Server):
    """A server that leaves signals to its caller, and ends the streams of events before it waits for its requests."""

    def __init__(self, config: uvicorn.Config, console: Console) -> None:
        super().__init__(config)
        self._console = console

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Capture none."""
        yield

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop."""
        self._console.events.close()
        await super().shutdown(sockets)


class _Protocol(H11Protocol):
    """A connection with a time limit for the head of each request."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Accept a connection, or close it if there are too many."""
        super().connection_made(transport)
        if len(self.connections) > MAX_CONNECTIONS:
            transport.abort()
            return
        # asyncio sets it only for sockets that name TCP as their protocol, which an own listener's do not. Without it
        # head and body, two packets, are 40 ms apart.
        transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._set_deadline()

    def data_received(self, data: bytes) -> None:
        """Read a part of a request."""
        super().data_received(data)
        self._set_deadline()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        self._clear_deadline()
        super().connection_lost(exc)

    def _set_deadline(self) -> None:
        cycle: Any = self.cycle  # None before the first request
        if cycle is not None and not cycle.response_complete:
            self._clear_deadline()  # the request is here: `gate.py` limits its body and its answer
        elif self._deadline is None:
            self._deadline = self.loop.call_later(HEAD_LIMIT_S, self.transport.abort)

    def _clear_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
