"""One letter, one POST. Enters: a key and a JSON body. Leaves: None = it arrived (2xx), or why not.

The standard library's HTTP client in a thread of its own: letters are rare, and a request that may look at the address
it connects to, follows nothing and reuses nothing needs no more than that. Law: after LIMIT_S it is over, whatever the
other end does; the thread is cut off from its socket, and one that waits for a name to be resolved is left behind.

Only the configured address is ever contacted, after a look at what its host resolves to (`addresses.py`): redirects are
refusals, proxies of the environment are not used. URL and token are secrets: no text from here holds them.
"""

from __future__ import annotations

import asyncio
import http.client
import re
import socket
import ssl
import time
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from threading import Thread
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import urlsplit

import monitor
from monitor.notify.addresses import is_loopback, why_never
from monitor.store.outbox import Channel
from monitor.types import Severity

if TYPE_CHECKING:
    from monitor.config import NotifyConfig

LIMIT_S = 5.0
"""For everything: name, connection, TLS, request, answer."""
ANSWER_BYTES = 1024
"""Read of an answer's body, and only if it is a failure."""
QUOTED = 200
"""Characters of it that are shown."""
LONGEST_RETRY_AFTER_S = 86_400.0
_TRY_AGAIN = (408, 425, 429)
"""4xx that mean "not now" (RFC 9110, 8470, 6585), not "not this"."""


class Failure(NamedTuple):
    """Why a letter did not arrive."""

    reason: str
    is_refusal: bool = False
    """The other end, or a rule of ours, will say so again until somebody changes something."""
    retry_after_s: float | None = None
    """What the other end asked for."""


TOO_LATE = Failure(f"no answer within {LIMIT_S:g} s")


class Webhook:
    """One channel's other end."""

    def __init__(self, config: NotifyConfig) -> None:
        parts = urlsplit(config.url)
        self.name = config.name
        age_us = None if config.max_age is None else config.max_age // timedelta(microseconds=1)
        self.channel = Channel(config.name, Severity(config.min_severity), config.fleets, age_us)
        """What is for us."""
        self.host = parts.hostname or ""
        self.is_tls = parts.scheme == "https"
        self.port = parts.port or (443 if self.is_tls else 80)
        self.is_loopback_only = not self.is_tls and not config.allow_http
        self.tls = ssl.create_default_context() if self.is_tls else None
        self._target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        self._token = config.token.get_secret_value() if config.token else None

    async def send(self, key: str, body: bytes) -> Failure | None:
        """Send once. `key` goes along as Idempotency-Key: who has seen it need not act again."""
        exchange = _Exchange(self, time.monotonic() + LIMIT_S)
        loop = asyncio.get_running_loop()
        done: asyncio.Future[Failure | None] = loop.create_future()

        def settle(failure: Failure | None, error: Exception | None) -> None:
            if done.done():
                return
            if error is not None:
                done.set_exception(error)
            else:
                done.set_result(failure)

        def work() -> None:
            failure, error = None, None
            try:
                failure = self._post(exchange, key, body)
            except Exception as e:  # noqa: BLE001 handed to the loop, which has the one `except`
                error = e
            with suppress(RuntimeError):  # the loop is closed: nobody waits any more
                loop.call_soon_threadsafe(settle, failure, error)

        Thread(target=work, name=f"notify-{self.name}", daemon=True).start()
        try:
            async with asyncio.timeout(LIMIT_S):
                return await done
        except TimeoutError:
            return TOO_LATE
        finally:
            exchange.cut()

    def _post(self, exchange: _Exchange, key: str, body: bytes) -> Failure | None:
        headers = {
            "Content-Type": "application/json",
            "Idempotency-Key": key,
            "User-Agent": f"monitor/{monitor.__version__}",
            "Connection": "close",
        }
        if self._token:
            headers["Authorization"] = f"Bearer {self._token}"
        try:
            exchange.request("POST", self._target, body, headers)
            with exchange.getresponse() as answer:
                if 200 <= answer.status < 300:
                    return None
                said = self._discreet(answer.read(ANSWER_BYTES)) if answer.status >= 400 else ""
        except _Never as error:
            return Failure(str(error), is_refusal=True)
        except TimeoutError:
            return TOO_LATE
        except ssl.SSLCertVerificationError as error:
            return Failure(f"the certificate is not trusted: {error.verify_message}", is_refusal=True)
        except (OSError, UnicodeError, http.client.HTTPException) as error:  # UnicodeError: a host like "a..b"
            return Failure(getattr(error, "strerror", None) or self._discreet(str(error).encode()) or repr(error))
        finally:
            exchange.close()
        if answer.status < 400:
            return Failure(f"HTTP {answer.status}: redirects are not followed; correct the url", is_refusal=True)
        wait_s = _seconds(answer.getheader("Retry-After"))
        is_refusal = answer.status < 500 and answer.status not in _TRY_AGAIN
        return Failure(f"HTTP {answer.status}" + (f": {said}" if said else ""), is_refusal, wait_s)

    def _discreet(self, raw: bytes) -> str:
        """What the other end said, on one line, without our secrets if it echoes them."""
        text = re.sub(r"[^\x20-\x7e\xa1-\uffff]+", " ", raw.decode("utf-8", "replace")).strip()
        for secret in filter(None, (self._token, self._target if len(self._target) > 1 else None)):
            text = text.replace(secret, "…")
        return text[:QUOTED]


class _Never(OSError):
    """The address is one that we do not connect to."""


class _Exchange(http.client.HTTPConnection):
    """A connection that looks where it goes, and can be cut from outside."""

    def __init__(self, webhook: Webhook, deadline: float) -> None:
        super().__init__(webhook.host, webhook.port)
        self.default_port = 443 if webhook.is_tls else 80  # else the Host header would name it
        self._webhook = webhook
        self._deadline = deadline
        self._reading: socket.socket | None = None
        """`sock` until the answer is read to its end; the library forgets `sock` before."""
        self._is_cut = False

    def connect(self) -> None:
        """Connect to the first address that answers, of those we connect to."""
        found = socket.getaddrinfo(self._webhook.host, self._webhook.port, type=socket.SOCK_STREAM)
        met: OSError | None = None
        for n_tried, (family, kind, protocol, _, address) in enumerate(found):
            try:
                self._may_go_to(str(address[0]))
                self._reach(socket.socket(family, kind, protocol), address, share=1 / (len(found) - n_tried))
            except OSError as error:
                met = error if met is None or isinstance(met, _Never) else met
            else:
                break
        else:
            raise met or OSError("the host has no address")
        if self._webhook.tls is not None:
            self.sock = self._webhook.tls.wrap_socket(
                self.sock, server_hostname=self._webhook.host, do_handshake_on_connect=False
            )
            self._rest()
            self.sock.do_handshake()
        self._rest()

    def _may_go_to(self, address: str) -> None:
        why = why_never(address)
        if why is None and self._webhook.is_loopback_only and not is_loopback(address):
            why = "is another machine, and http would go there unencrypted; set allow_http = true"
        if why is not None:
            raise _Never(f"{self._webhook.host} resolves to {address}, which {why}")

    def _reach(self, plain: socket.socket, address: tuple[object, ...], share: float) -> None:
        """Connect, within a share of the time left: the next address may be the one that answers."""
        try:
            plain.settimeout(max(0.001, share * (self._deadline - time.monotonic())))
            plain.connect(address)
        except BaseException:
            plain.close()
            raise
        self.sock = plain

    def _rest(self) -> None:
        """Give what follows the time that is left. Raises TimeoutError if we were cut while we were not looking."""
        self._reading = self.sock
        self.sock.settimeout(max(0.001, self._deadline - time.monotonic()))
        if self._is_cut:
            raise TimeoutError("timed out")

    def cut(self) -> None:
        """Wake the thread that reads or writes, from another one. What it was doing fails."""
        self._is_cut = True
        if self._reading is not None:
            with suppress(OSError):
                # Not SSLSocket's own, which would take the TLS state away from under the reader.
                socket.socket.shutdown(self._reading, socket.SHUT_RDWR)


def _seconds(retry_after: str | None) -> float | None:
    """Read Retry-After: seconds, or a date (RFC 9110, 10.2.3)."""
    if retry_after is None:
        return None
    if retry_after.strip().isdecimal():
        return min(float(retry_after), LONGEST_RETRY_AFTER_S)
    try:
        at = parsedate_to_datetime(retry_after)
    except ValueError:
        return None
    at = at if at.tzinfo else at.replace(tzinfo=UTC)
    return min(max(0.0, (at - datetime.now(UTC)).total_seconds()), LONGEST_RETRY_AFTER_S)
