"""The HTTP pages /live, /ready and /metrics, on the standard library's WSGI server.

Input: GET and HEAD requests. Output: the pages of `Health`, served by threads, so that they also answer while the event
loop hangs. Invariant: a client costs at most 16 connections, 8 KiB of memory each and one request's time limit, however
slowly it sends or reads, and a new connection is always answered: with too many, the client with the most loses its
oldest one.

The pages show figures and the names of topics, fleets and model versions: no readings, no addresses, no error texts, no
secrets. They are plain GETs without cookies or state. A foreign web page that reaches them through a visitor's browser
(DNS rebinding) learns those names at most. So there is no list of allowed hosts. The default is to serve nothing.
"""

from __future__ import annotations

import errno
import io
import json
import socket
import socketserver
import sys
import threading
import time
from collections import Counter
from contextlib import contextmanager, suppress
from http import HTTPStatus
from typing import IO, TYPE_CHECKING, Any, cast
from wsgiref.simple_server import ServerHandler, WSGIRequestHandler, WSGIServer

from monitor import logs
from monitor.errors import ConfigError
from monitor.timing import DEFAULT_TIMING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

    from monitor.config import HttpConfig
    from monitor.service.health import Health
    from monitor.timing import Timing

log = logs.get("health")

PATHS = ("/live", "/ready", "/metrics")
MAX_CONNECTIONS = 16
"""At once. For a further one another is closed."""
MAX_THREADS = 4 * MAX_CONNECTIONS
"""Threads of connections that are closed may need a moment to end. With so many, new ones are not accepted."""
MAX_REQUEST_BYTES = 8192
"""Limit of the request line and headers together. A longer request is dropped."""
SHUTDOWN_POLL_S = 0.1
"""Period at which the server thread looks for a shutdown and for connections past their deadline."""


@contextmanager
def pages(http: HttpConfig, health: Health, timing: Timing = DEFAULT_TIMING) -> Iterator[None]:
    """Serve the pages while the body runs. Raises ConfigError if the address cannot be used."""
    if http.address is None:
        yield
        return
    try:
        server = _Server(http.address, wsgi_application(health), timing.http_request_limit_s)
    except OSError as error:
        is_taken = error.errno == errno.EADDRINUSE
        why = "is in use, perhaps by another monitor" if is_taken else f"cannot be used ({error.strerror})"
        raise ConfigError(f'http.listen: "{http.listen}" {why}; choose another address, or "" for no pages') from error
    thread = threading.Thread(target=server.serve_forever, args=(SHUTDOWN_POLL_S,), name="http", daemon=True)
    thread.start()
    log.info("pages", listen=http.listen, paths=list(PATHS))
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def wsgi_application(health: Health) -> WSGIApplication:
    """Return the WSGI application (PEP 3333) that answers with the pages of `health`."""

    def application(request: WSGIEnvironment, start_response: StartResponse) -> list[bytes]:
        method, path = request["REQUEST_METHOD"], request["PATH_INFO"]
        if method not in ("GET", "HEAD"):
            status, kind, body = _refusal(HTTPStatus.METHOD_NOT_ALLOWED)
        elif path == "/metrics":
            status, (kind, body) = HTTPStatus.OK, health.metrics_page()
        elif path in PATHS:
            code, document = health.live_page() if path == "/live" else health.ready_page()
            status, kind = HTTPStatus(code), "application/json"
            body = json.dumps(document).encode() + b"\n"
        else:
            status, kind, body = _refusal(HTTPStatus.NOT_FOUND)
        start_response(f"{status.value} {status.phrase}", _headers(kind, body))
        return [] if method == "HEAD" else [body]

    return application


def _refusal(status: HTTPStatus) -> tuple[HTTPStatus, str, bytes]:
    text = f"{status.phrase}: send GET or HEAD, for /live, /ready or /metrics\n"
    return status, "text/plain; charset=utf-8", text.encode()


def _headers(kind: str, body: bytes) -> list[tuple[str, str]]:
    return [
        ("Content-Type", kind),
        ("Content-Length", str(len(body))),
        ("Cache-Control", "no-store"),
        ("X-Content-Type-Options", "nosniff"),
    ]


class _Server(socketserver.ThreadingMixIn, WSGIServer):
    """A WSGI server with a thread and a deadline for each connection."""

    daemon_threads = True
    request_queue_size = MAX_CONNECTIONS

    def __init__(self, address: tuple[str, int], application: WSGIApplication, limit_s: float) -> None:
        self.wsgi = application
        self.address_family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        self._limit_s = limit_s
        self._deadlines: dict[socket.socket, float] = {}
        """Of the open connections, the oldest first."""
        self._clients: dict[socket.socket, str] = {}
        """Addresses of the connections whose threads run."""
        self.answering: set[socket.socket] = set()
        """Connections whose request arrived as a whole."""
        super().__init__(address, _Handler)

    def server_bind(self) -> None:
        """Bind without the reverse look-up of HTTPServer: a broken resolver would delay the start."""
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = str(self.server_address[0]), int(self.server_address[1])
        self.setup_environ()

    def process_request(self, request: Any, client_address: Any) -> None:
        """Answer in a new thread. With too many connections, the client with the most loses its oldest one.

        Slow clients must not keep a probe out, or anybody near could have the daemon restarted.
        """
        if len(self._clients) >= MAX_THREADS:
            self.shutdown_request(request)
            return
        if len(self._deadlines) >= MAX_CONNECTIONS:
            self._shut_down(self._least_wanted())
        self._deadlines[request] = time.monotonic() + self._limit_s
        self._clients[request] = client_address[0]
        super().process_request(request, client_address)

    def _least_wanted(self) -> socket.socket:
        """Return the connection to close: one without a whole request, of the client with the most, its oldest."""
        open_ones = list(self._deadlines.copy())
        candidates = [each for each in open_ones if each not in self.answering] or open_ones
        n_open = Counter(map(self._clients.get, open_ones))
        return max(candidates, key=lambda each: n_open[self._clients.get(each)])  # of equals, the first: the oldest

    def shutdown_request(self, request: Any) -> None:
        """Close a connection and forget it."""
        self._deadlines.pop(request, None)
        self._clients.pop(request, None)
        self.answering.discard(request)
        super().shutdown_request(request)

    def service_actions(self) -> None:
        """Shut down connections past their deadline."""
        now = time.monotonic()
        for connection, deadline in self._deadlines.copy().items():
            if now > deadline:
                self._shut_down(connection)

    def _shut_down(self, connection: socket.socket) -> None:
        """End a connection. Its thread reads the end of the stream, and closes it."""
        self._deadlines.pop(connection, None)
        with suppress(OSError):  # it was closed meanwhile
            connection.shutdown(socket.SHUT_RDWR)

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ARG002  (the base class's signature)
        """Log a failed request, unless the client closed the connection."""
        error = sys.exception()
        if not isinstance(error, OSError):
            log.error("page_failed", error=repr(error))


class _Handler(WSGIRequestHandler):
    """One request and one response per connection."""

    server: _Server
    server_version, sys_version = "monitor", ""

    def handle(self) -> None:
        """Read the request line and headers, and run the application."""
        # Read the whole head before parsing: the base class limits each line, but not their sum.
        self.rfile = io.BytesIO(self._head())
        self.raw_requestline = self.rfile.readline()
        self.server.answering.add(self.connection)
        if self.parse_request():
            out = cast("IO[bytes]", self.wfile)  # two stubs of the standard library disagree
            responder = _Responder(io.BytesIO(), out, sys.stderr, self.get_environ())
            responder.request_handler = self
            responder.run(self.server.wsgi)

    def _head(self) -> bytes:
        """Read to the blank line; b"" if the request is too long or ends before."""
        head = b""
        with self.rfile as received:
            while line := received.readline(MAX_REQUEST_BYTES - len(head)):
                head += line
                if line in (b"\r\n", b"\n"):
                    return head
        return b""

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:  # noqa: ARG002
        """Refuse a malformed request. The base class would repeat the client's bytes."""
        status, kind, body = _refusal(HTTPStatus(code))
        self.send_response(status)
        for name, value in _headers(kind, body):
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  (the base class's name)
        """Log nothing: a probe comes every second."""


class _Responder(ServerHandler):
    """Writes the application's response."""

    server_software = "monitor"
    request_handler: _Handler
    """The base class logs through it."""

    def log_exception(self, exc_info: tuple[type[BaseException], BaseException, TracebackType] | Any) -> None:
        """Log a defect of a page. The client gets status 500."""
        log.error("page_failed", error=repr(exc_info[1]))
