"""The gate before every route: host, size, time, login, CSRF, and the headers of every answer.

Input: a request. Output: the route's answer, or a refusal. Invariant: a route is reached only by somebody with the
scope `read`, one that changes something only with the scope `act` and a CSRF token, and both only under a known host
name. A new route cannot forget it. `OPEN_PATHS` is the whole list of exceptions.
"""

from __future__ import annotations

import asyncio
import re
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl, quote, urlsplit

from fastapi import Request
from starlette.datastructures import MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.responses import RedirectResponse

from monitor.console.problems import API, answer_to, problem
from monitor.console.security import CSRF_FIELD, CSRF_HEADER, FLASH_COOKIE, HEADERS, Refused
from monitor.errors import MonitorError

if TYPE_CHECKING:
    from starlette.datastructures import Headers
    from starlette.responses import Response
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from monitor.console.security import Who
    from monitor.console.state import Console

OPEN_PATHS = ("/static/", "/login", "/links/", "/live")
"""Paths without a login: no data of the plant, or a link that is its own key."""
UNWATCHED = ("/static/", "/live")
"""Paths that are the same for everybody."""
READING = ("GET", "HEAD", "OPTIONS")
MAX_BODY_BYTES = 64 * 1024
MAX_FIELDS = 64
"""Fields of a form."""
BODY_LIMIT_S = 10.0
"""For a whole body, also one that arrives byte by byte."""
ANSWER_LIMIT_S = 60.0
"""For a whole answer, also to a client that reads slowly. Streams of events have limits of their own."""
EVENTS = "/events"
FORM = "application/x-www-form-urlencoded"


class Gate:
    """ASGI middleware."""

    def __init__(self, app: ASGIApp, console: Console) -> None:
        self._app = app
        self._console = console

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request in, or refuse it."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":  # no WebSockets here
            await send({"type": "websocket.close", "code": 1000})
            return
        scope.setdefault("state", {})
        if scope["method"] == "HEAD":  # as GET; the server leaves the body out
            scope = dict(scope, method="GET")
        request = Request(scope, receive)
        answer = _Answer(request, send)
        try:
            async with asyncio.timeout(None if scope["path"] == EVENTS else ANSWER_LIMIT_S):
                try:
                    receive = await self._admit(request)
                except MonitorError as error:
                    await _refusal(request, error)(scope, receive, answer.send)
                else:
                    await self._app(scope, receive, answer.send)
        except TimeoutError:
            if not answer.is_started:
                late = problem(request, 503, "the answer took too long; ask for less, or try again")
                await late(scope, receive, answer.send)

    async def _admit(self, request: Request) -> Receive:
        """Check a request, and return the `receive` of the route. Raises Refused, StoreUnavailable."""
        self._check_host(request.headers)
        path: str = request.scope["path"]  # as the router sees it: `request.url` drops some signs
        is_open = path.startswith(OPEN_PATHS)
        if path.startswith(UNWATCHED):
            return request.receive
        sender = await self._find(request, is_open=is_open)
        request.state.who = sender
        if sender is None and not is_open:
            raise Refused(401, "log in, or send a token in the header Authorization")
        if request.method in READING:
            return request.receive
        if sender is not None and not is_open and not sender.may("act"):
            raise Refused(403, f"needs the scope act, and {sender.name} has {sender.scope}")
        if sender is None or sender.needs_csrf:
            _check_origin(request.headers)
        body = await _read_body(request)
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        request.state.form = _fields(body) if kind == FORM else {}
        if sender is not None and sender.needs_csrf and not is_open:
            code = request.headers.get(CSRF_HEADER) or request.state.form.get(CSRF_FIELD, "")
            if not self._console.access.is_csrf(code, sender):
                raise Refused(403, "the page is from before a restart or a login; load it again and repeat")
        return _replayed(body, request.receive)

    def _check_host(self, headers: Headers) -> None:
        """Refuse unknown host names: a foreign page could point its own at this address (DNS rebinding)."""
        hosts = headers.getlist("host")
        name = re.sub(r":\d*$", "", hosts[0]).lower() if len(hosts) == 1 else ""
        if name not in self._console.config.console.host_names:
            raise Refused(421, "this host name is not the console's; add it to [console] hosts")

    async def _find(self, request: Request, *, is_open: bool) -> Who | None:
        peer = request.client.host if request.client else ""
        try:
            return await self._console.access.find(request.headers, request.cookies, peer)
        except MonitorError:
            if is_open:
                return None
            raise


class _Answer:
    """Adds the headers that every answer has."""

    def __init__(self, request: Request, send: Send) -> None:
        self._request = request
        self._send = send
        self.is_started = False

    async def send(self, message: Message) -> None:
        """Send a part of the answer."""
        if message["type"] == "http.response.start":
            self.is_started = True
            headers = MutableHeaders(scope=message)
            for name, value in HEADERS.items():
                headers.setdefault(name, value)
            headers.setdefault("Cache-Control", "no-store")
            if getattr(self._request.state, "flash_is_shown", False):
                headers.append("Set-Cookie", f"{FLASH_COOKIE}=; Max-Age=0; Path=/; HttpOnly; SameSite=Strict")
        await self._send(message)


def _refusal(request: Request, error: MonitorError) -> Response:
    """Return the answer to a request that was not let in: the login page for a browser that shows a page."""
    is_page = request.method == "GET" and "text/html" in request.headers.get("accept", "")
    is_script = "authorization" in request.headers or "fragment" in request.query_params
    is_script = is_script or request.url.path.startswith(API)
    if isinstance(error, Refused) and error.status == 401 and is_page and not is_script:
        wanted = request.url.path + (f"?{request.url.query}" if request.url.query else "")
        return RedirectResponse(f"/login?next={quote(wanted, safe='')}", 303)
    return answer_to(request, error)


def _check_origin(headers: Headers) -> None:
    """Refuse requests that another site makes a browser send."""
    site, origins = headers.get("sec-fetch-site"), headers.getlist("origin")
    is_foreign = site not in (None, "same-origin", "none") or len(origins) > 1
    if origins and urlsplit(origins[0]).netloc.lower() != headers.get("host", "").lower():
        is_foreign = True
    if is_foreign:
        raise Refused(403, "another site sent this request")


async def _read_body(request: Request) -> bytes:
    """Return the whole body. Raises Refused for one that is too long or too slow."""
    length = request.headers.get("content-length", "0")
    if not length.isdecimal() or int(length[:20]) > MAX_BODY_BYTES:
        raise Refused(413, f"a request has at most {MAX_BODY_BYTES // 1024} KiB")
    body = bytearray()
    try:
        async with asyncio.timeout(BODY_LIMIT_S):
            async for part in request.stream():
                body += part
                if len(body) > MAX_BODY_BYTES:
                    raise Refused(413, f"a request has at most {MAX_BODY_BYTES // 1024} KiB")
    except TimeoutError:
        raise Refused(408, f"the request took longer than {BODY_LIMIT_S:g} s to arrive") from None
    except ClientDisconnect:
        raise Refused(400, "the request ended early") from None
    return bytes(body)


def _fields(body: bytes) -> dict[str, str]:
    try:
        pairs = parse_qsl(body.decode(), keep_blank_values=True, max_num_fields=MAX_FIELDS, errors="strict")
    except ValueError:
        raise Refused(400, "the form cannot be read") from None
    return dict(pairs)


def _replayed(body: bytes, receive: Receive) -> Receive:
    """Return a `receive` that gives the body once, and then what the connection says."""
    parts = [body]

    async def again() -> Message:
        if parts:
            return {"type": "http.request", "body": parts.pop(), "more_body": False}
        return await receive()

    return again
