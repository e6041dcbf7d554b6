"""A web server that records requests and answers as a test says: with a code, late, byte by byte, or never."""

from __future__ import annotations

import socket
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Any, NamedTuple

Answer = Callable[[socket.socket], None]
SECRET_PATH = "/T0/hunter2?x=1"


class Request(NamedTuple):
    line: str
    headers: dict[str, str]
    body: bytes


class WebhookServer:
    """A web server that gives `answers` in order, then `default`."""

    def __init__(self, tls: Any = None) -> None:
        self.requests: list[Request] = []
        self.answers: deque[Answer] = deque()
        self.default: Answer = answer_with(204)
        self.n_connections = 0
        self.over = threading.Event()
        self._tls = tls
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._server.getsockname()[1]
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    def url(self, scheme: str = "http", host: str = "127.0.0.1", path: str = SECRET_PATH) -> str:
        return f"{scheme}://{host}:{self.port}{path}"

    @property
    def keys(self) -> list[str]:
        return [request.headers["idempotency-key"] for request in self.requests]

    def close(self) -> None:
        self.over.set()
        with suppress(OSError):
            self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()
        for thread in self._threads:
            thread.join(5)
            assert not thread.is_alive()

    def expect_closed(self, limit_s: float) -> None:
        """Assert that the sender closes every connection within `limit_s`."""
        until = time.monotonic() + limit_s
        for thread in self._threads[1:]:
            thread.join(max(0.0, until - time.monotonic()))
            assert not thread.is_alive(), "the connection is still open"

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._server.accept()
            except OSError:
                return
            self.n_connections += 1
            thread = threading.Thread(target=self._serve, args=(connection,), daemon=True)
            self._threads.append(thread)
            thread.start()

    def _serve(self, plain: socket.socket) -> None:
        with suppress(OSError, ValueError), plain:
            connection = self._tls.wrap_socket(plain, server_side=True) if self._tls else plain
            with connection, connection.makefile("rb") as incoming:
                line = incoming.readline().decode().strip()
                if not line:  # the sender was killed before it sent anything
                    return
                headers = {}
                while header := incoming.readline().decode().strip():
                    name, _, value = header.partition(": ")
                    headers[name.lower()] = value
                body = incoming.read(int(headers.get("content-length", 0)))
                answer = self.answers.popleft() if self.answers else self.default
                self.requests.append(Request(line, headers, body))
                answer(connection)


def answer_with(code: int, body: bytes = b"", **headers: str) -> Answer:
    lines = [f"HTTP/1.1 {code} Any", *(f"{name.replace('_', '-')}: {value}" for name, value in headers.items())]
    raw = "\r\n".join([*lines, f"Content-Length: {len(body)}", "", ""]).encode() + body
    return lambda connection: connection.sendall(raw)


def until_closed(first: bytes = b"", then: bytes = b"") -> Answer:
    """Send the beginning of an answer, then `then` again and again; return when the sender closes the connection."""

    def answer(connection: socket.socket) -> None:
        connection.sendall(first)
        connection.settimeout(0.02)
        while True:
            try:
                if not connection.recv(1):
                    return
            except TimeoutError:
                if then:
                    connection.sendall(then)

    return answer


HANGS = until_closed()
DRIPS = until_closed(b"HTTP/1.1 200 OK\r\nX-Long: ", b"a")
DRIPS_A_BODY = until_closed(b"HTTP/1.1 500 Oh\r\nContent-Length: 1000\r\n\r\n", b"a")
DRIPS_HEADERS = until_closed(b"HTTP/1.1 200 OK\r\n", b"X: y\r\n")
