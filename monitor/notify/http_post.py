"""One HTTP POST to a configured address, for all channels that speak HTTP.

Input: a body and headers. Output: None when the receiver took it (2xx), else a `Failure` with the reason.
Invariant: a request ends within `webhook_limit_s` seconds, even if the server hangs. It goes only to an address that
`addresses.py` allows, follows no redirect and uses no proxy of the environment. URL and token are secrets: no returned
text and no log line holds them.

The host is resolved here. Each of its addresses is checked, and the request is sent to the checked address itself, with
the host's name in the `Host` header and in TLS. Letting the HTTP client resolve the name a second time would allow DNS
rebinding: the second answer could be an address that was never checked.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import logging
import os
import re
import socket
import ssl
from contextlib import AsyncExitStack, suppress
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from threading import Thread
from types import MappingProxyType
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import httpx

import monitor
from monitor.notify.addresses import forbidden_reason, is_loopback
from monitor.notify.failure import Failure
from monitor.timing import DEFAULT_TIMING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from monitor.config import NotifyConfig
    from monitor.timing import Timing

# They log URLs and response headers, and a redirect's `Location` may repeat a secret of the URL.
for _name in ("httpx", "httpcore"):
    logging.getLogger(_name).setLevel(logging.WARNING)

ANSWER_BYTES = 1024
"""Bytes read of a failure's response body. The body of a success is not read."""
QUOTED_CHARACTERS = 200
"""Characters of a response body that a reason quotes."""
LONGEST_RETRY_AFTER_S = 86_400.0
_RETRIABLE_4XX = (408, 425, 429)
"""Client errors that mean "not now" (RFC 9110, 8470, 6585). The others mean that the request itself is refused."""


class _ForbiddenAddress(Exception):
    """The host resolves to an address that no request is sent to"""


class HttpPost:
    """The address of one channel. `path`: added to that of its URL."""

    def __init__(self, config: NotifyConfig, timing: Timing = DEFAULT_TIMING, path: str = "") -> None:
        parts = urlsplit(config.url)
        self._scheme = parts.scheme
        self._host = parts.hostname or ""
        default_port = 443 if parts.scheme == "https" else 80
        self._port = parts.port or default_port
        self._target = ((parts.path.rstrip("/") + path if path else parts.path) or "/") + (
            f"?{parts.query}" if parts.query else ""
        )
        self._token = config.token.get_secret_value() if config.token else None
        self._is_loopback_only = parts.scheme == "http" and not config.allow_http
        self._limit_s = timing.webhook_limit_s
        self._tls = ssl.create_default_context()
        host = f"[{self._host}]" if ":" in self._host else self._host
        self._headers = {
            "Host": host if self._port == default_port else f"{host}:{self._port}",
            "Accept": "*/*",
            "Accept-Encoding": "identity",  # a compressed body could not be bounded by the bytes received
            "Connection": "close",
            "Content-Type": "application/json",
            "User-Agent": f"monitor/{monitor.__version__}",
        }
        if self._token:
            self._headers["Authorization"] = f"Bearer {self._token}"

    async def post(self, body: bytes, headers: Mapping[str, str] = MappingProxyType({})) -> Failure | None:
        """Send once; None = it arrived. A header's value must be printable ASCII, as keys of notifications are."""
        try:
            async with asyncio.timeout(self._limit_s):
                return await self._send_to_first_reachable(body, headers)
        except (TimeoutError, httpx.TimeoutException):
            return Failure(f"no answer within {self._limit_s:g} s")
        except _ForbiddenAddress as error:
            return Failure(str(error), is_refusal=True)
        except (OSError, UnicodeError, httpx.HTTPError, httpx.InvalidURL) as error:  # UnicodeError: a host like "a..b"
            return self._failure_of(error)

    async def _send_to_first_reachable(self, body: bytes, headers: Mapping[str, str]) -> Failure | None:
        """Send to the host's first allowed address that accepts a connection."""
        loop = asyncio.get_running_loop()
        deadline_s = loop.time() + self._limit_s
        addresses = await _resolve(self._host, self._port)
        first_error: Exception | None = None
        for n_tried, address in enumerate(addresses):
            # A share of the time left: the next address may be the one that answers.
            connect_s = max(0.001, (deadline_s - loop.time()) / (len(addresses) - n_tried))
            try:
                self._check(address)
                return await self._post(address, body, headers, connect_s)
            except (_ForbiddenAddress, httpx.ConnectError, httpx.ConnectTimeout) as error:
                if first_error is None or isinstance(first_error, _ForbiddenAddress):
                    first_error = error
        raise first_error or OSError("the host has no address")

    def _check(self, address: str) -> None:
        """Raise _ForbiddenAddress for an address that no request is sent to."""
        why = forbidden_reason(address)
        if why is None and self._is_loopback_only and not is_loopback(address):
            why = "is another machine, and http would go there unencrypted; set allow_http = true"
        if why is not None:
            raise _ForbiddenAddress(f"{self._host} resolves to {address}, which {why}")

    async def _post(
        self, address: str, body: bytes, headers: Mapping[str, str], connect_s: float
    ) -> Failure | None:
        url = httpx.URL(scheme=self._scheme, host=address, port=self._port, raw_path=self._target.encode())
        timeout = httpx.Timeout(None, connect=connect_s)
        async with AsyncExitStack() as stack:

            async def close_at_exit(event: str, info: Mapping[str, Any]) -> None:
                # httpcore leaves the socket open when a TLS handshake is cancelled.
                if event == "connection.connect_tcp.complete":
                    stack.push_async_callback(info["return_value"].aclose)

            client = await stack.enter_async_context(
                httpx.AsyncClient(verify=self._tls, trust_env=False, follow_redirects=False, timeout=timeout)
            )
            # `sni_hostname`: the name that TLS verifies, where the URL has the address.
            extensions = {"sni_hostname": self._host, "trace": close_at_exit}
            response = await stack.enter_async_context(
                client.stream("POST", url, content=body, headers=self._headers | dict(headers), extensions=extensions)
            )
            if response.is_success:
                return None
            quoted = self._redact(await _beginning(response)) if response.is_error else ""
        if response.status_code < 400:
            reason = f"HTTP {response.status_code}: redirects are not followed; correct the url"
            return Failure(reason, is_refusal=True)
        is_refusal = response.is_client_error and response.status_code not in _RETRIABLE_4XX
        reason = f"HTTP {response.status_code}" + (f": {quoted}" if quoted else "")
        return Failure(reason, is_refusal, _retry_after_s(response.headers.get("Retry-After")))

    def _failure_of(self, error: Exception) -> Failure:
        """Describe an error of the connection, in the words of the operating system or of TLS where possible."""
        cause = _os_error(error)
        if isinstance(cause, ssl.SSLCertVerificationError):
            return Failure(f"the certificate is not trusted: {cause.verify_message}", is_refusal=True)
        if isinstance(cause, ssl.SSLError | socket.gaierror):
            return Failure(cause.strerror or repr(cause))
        if cause is not None and cause.errno is not None:  # asyncio replaces `strerror` by a text of its own
            return Failure(os.strerror(cause.errno))
        return Failure(self._redact(str(error).encode()) or type(error).__name__)

    def _redact(self, raw: bytes) -> str:
        """Return the text on one line, cut short, without the secrets that a receiver may have echoed."""
        text = re.sub(r"[^\x20-\x7e\xa1-\uffff]+", " ", raw.decode("utf-8", "replace")).strip()
        for secret in filter(None, (self._token, self._target if len(self._target) > 1 else None)):
            text = text.replace(secret, "…")
        return text[:QUOTED_CHARACTERS]


async def _resolve(host: str, port: int) -> list[str]:
    """Return the addresses of a host, in the resolver's order. Raises OSError, UnicodeError.

    The resolver cannot be interrupted, and may take longer than the limit of a stop. So it runs in a daemon thread,
    which a stop can abandon. The event loop would wait for a thread of its executor.
    """
    found: concurrent.futures.Future[list[str]] = concurrent.futures.Future()

    def resolve() -> None:
        try:
            entries = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as error:
            found.set_exception(error)
        else:
            found.set_result([str(address[0]) for *_, address in entries])

    found.set_running_or_notify_cancel()
    Thread(target=resolve, name=f"resolve {host}", daemon=True).start()
    return await asyncio.wrap_future(found)


async def _beginning(response: httpx.Response) -> bytes:
    """Return the first ANSWER_BYTES of the body, or less where the connection ends before."""
    body = b""
    with suppress(httpx.TransportError):
        async for chunk in response.aiter_raw():
            body += chunk
            if len(body) >= ANSWER_BYTES:
                break
    return body[:ANSWER_BYTES]


def _os_error(error: BaseException) -> OSError | None:
    """Return the first error of the operating system, the resolver or TLS among an error and its causes."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and cause.errno is not None:
            return cause
        cause = cause.__cause__ or cause.__context__
    return None


def _retry_after_s(header: str | None) -> float | None:
    """Parse Retry-After: seconds or a date (RFC 9110, section 10.2.3). None = absent or not understood."""
    if header is None:
        return None
    if header.strip().isdecimal():
        return min(float(header), LONGEST_RETRY_AFTER_S)
    try:
        at = parsedate_to_datetime(header)
    except ValueError:
        return None
    at = at if at.tzinfo else at.replace(tzinfo=UTC)
    return min(max(0.0, (at - datetime.now(UTC)).total_seconds()), LONGEST_RETRY_AFTER_S)
