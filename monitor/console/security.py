"""Rights in the console.

Input: a request. Output: `Who`, with one of three scopes. Invariant: rights come from a token in the database, from the
name that a trusted proxy sends, or, on a console that only this machine reaches and that has no tokens, from being
here. `gate.py` refuses every other request before a route sees it.

    Authorization: Bearer TOKEN     programs. Needs no CSRF token: no browser sends it by itself
    the session cookie              a browser in which a token was entered
    [console] user_header           a browser behind a proxy that logs people in
    nothing                         a browser on this machine, acts under the login name of the console's process
"""

from __future__ import annotations

import hmac
import re
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import TYPE_CHECKING, Any, NamedTuple

from fastapi import Depends, Request

from monitor.config.console import SCOPES
from monitor.control import Actor
from monitor.errors import MonitorError
from monitor.store.tokens import hash_token

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from starlette.datastructures import Headers

    from monitor.clock import Clock
    from monitor.config.console import ConsoleConfig
    from monitor.console.signing import Signer

    Tokens = list[dict[str, Any]]

SESSION_COOKIE = "monitor_session"
FLASH_COOKIE = "monitor_flash"
CSRF_HEADER = "x-csrf-token"
CSRF_FIELD = "csrf"
TOKENS_KEPT_S = 2.0
"""For so long tokens are not read again, so a revoked one works that long."""
MAX_FAILURES, FAILURES_WITHIN_S = 10, 60.0
"""Wrong tokens from one address, after which its tokens are refused for a while."""
MAX_ADDRESSES = 1024
"""Addresses of which failures are remembered."""


POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    # Nothing to other sites. Not `no-referrer`: browsers then send `Origin: null` with the console's own forms.
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "X-Frame-Options": "DENY",
}
"""Of every answer."""


class Refused(MonitorError):
    """The console refuses this"""

    def __init__(self, status: int, detail: str, retry_after_s: int | None = None) -> None:
        super().__init__(detail)
        self.status = status
        self.retry_after_s = retry_after_s


@dataclass(frozen=True, slots=True)
class Who:
    """The sender of a request."""

    name: str
    """Stands in the history of this person's acts."""
    scope: str
    by: str
    """token, session, proxy, local."""
    session: str = ""
    """Random part of a session; "" without one."""
    token_id: int | None = None

    def may(self, scope: str) -> bool:
        """Return whether the rights include this scope."""
        return SCOPES.index(self.scope) >= SCOPES.index(scope)

    @property
    def needs_csrf(self) -> bool:
        """True where a browser sends the credentials by itself."""
        return self.by != "token"


class Flash(NamedTuple):
    """A message about the last act, shown once."""

    kind: str
    """done, error."""
    text: str


# ---------------------------------------------------------------- for routes


def who(request: Request) -> Who:
    """Return the sender of a request that the gate let in."""
    found: Who = request.state.who
    return found


def scope(needed: str) -> Any:
    """Return a dependency that gives the sender, or refuses (403) a smaller scope."""

    def check(request: Request) -> Who:
        found = who(request)
        if not found.may(needed):
            raise Refused(403, f"needs the scope {needed}, and {found.name} has {found.scope}")
        return found

    return Depends(check)


def actor(request: Request, via: str) -> Actor:
    """Return the acting person, for the history. `via`: console, api, link."""
    return Actor(who(request).name, via)


def csrf_token(request: Request) -> str:
    """Return the value of the hidden field `csrf` of a form on the page, or of the header X-CSRF-Token."""
    return _csrf(request.app.state.console.signer, who(request))


def flash(request: Request) -> Flash | None:
    """Return the message of the act that led to this page. The answer removes it from the browser."""
    text = request.cookies.get(FLASH_COOKIE)
    if text is None:
        return None
    request.state.flash_is_shown = True
    found = request.app.state.console.signer.open("flash", text)
    return None if found is None else Flash(str(found["kind"]), str(found["text"]))


# ---------------------------------------------------------------- for the gate


class Access:
    """Finds the sender of a request."""

    def __init__(
        self,
        config: ConsoleConfig,
        clock: Clock,
        signer: Signer,
        read_tokens: Callable[[], Awaitable[Tokens]],
        owner: str,
    ) -> None:
        """`owner`: login name of this process."""
        self._config = config
        self._clock = clock
        self._signer = signer
        self._read_tokens = read_tokens
        self._owner = owner
        self._proxies = [ip_network(proxy) for proxy in config.trusted_proxies]
        self._tokens: Tokens | None = None
        self._tokens_at_s = 0.0
        self._accepted: set[str] = set()
        """Hashes of tokens that were right: of them there are no more than tokens."""
        self._failures: dict[str, list[float]] = {}
        """Times of the last wrong tokens by address, the address that failed last at the end."""

    async def find(self, headers: Headers, cookies: Mapping[str, str], peer: str) -> Who | None:
        """Return the sender. None = a login is needed. Raises Refused for wrong credentials, StoreUnavailable.

        `peer`: address of the other end of the connection.
        """
        if (authorization := headers.get("authorization")) is not None:
            kind, _, token = authorization.partition(" ")
            if kind.lower() != "bearer":
                raise Refused(401, "the header Authorization must be `Bearer TOKEN`")
            return await self.check_token(token.strip(), self.client_address(headers, peer))
        if (named := self._named_by_proxy(headers, peer)) is not None:
            return named
        tokens = await self._current_tokens()
        if (cookie := cookies.get(SESSION_COOKIE)) is not None and (found := self._of_session(cookie, tokens)):
            return found
        if not tokens and self._config.is_private and self._is_here(headers, peer):
            return Who(self._owner, "admin", "local")
        return None

    async def check_token(self, token: str, client: str) -> Who:
        """Return the holder of a token. Raises Refused, also after too many wrong ones from one address.

        A token that was right before is not locked out: many people may share the address of a proxy.
        """
        now_s = self._clock.monotonic_s()
        failures = [at_s for at_s in self._failures.get(client, []) if now_s - at_s < FAILURES_WITHIN_S]
        given, found = hash_token(token), None
        if len(failures) >= MAX_FAILURES and given not in self._accepted:
            wait_s = int(failures[0] + FAILURES_WITHIN_S - now_s) + 1
            raise Refused(429, f"too many wrong tokens; wait {wait_s} s", wait_s)
        for row in await self._current_tokens():
            if _is_equal(given, row["hash"]):  # all are compared, so the time does not tell which one is near
                found = row
        if found is None or not self._is_valid(found):
            self._failures.pop(client, None)
            self._failures[client] = [*failures, now_s]
            while len(self._failures) > MAX_ADDRESSES:
                del self._failures[next(iter(self._failures))]
            raise Refused(401, "this token is unknown, has expired or was revoked")
        self._accepted.add(given)
        return Who(found["name"], found["scope"], "token", token_id=found["id"])

    async def is_current(self, found: Who) -> bool:
        """Return whether rights that were found earlier still hold, for answers that last."""
        if found.token_id is None:
            return not await self._current_tokens() if found.by == "local" else True
        return any(row["id"] == found.token_id and self._is_valid(row) for row in await self._current_tokens())

    def new_session(self, found: Who, nonce: str) -> str:
        """Return the session cookie for a token that was entered."""
        expires_us = self._clock.now_us() + int(self._config.session.total_seconds() * 1e6)
        return self._signer.seal("session", {"token": found.token_id, "nonce": nonce, "expires_us": expires_us})

    def is_csrf(self, code: str, found: Who) -> bool:
        """Compare a CSRF token in constant time."""
        return _is_equal(code, _csrf(self._signer, found))

    def client_address(self, headers: Headers, peer: str) -> str:
        """Return the address of the browser: the peer's, or the one from a trusted proxy."""
        forwarded = headers.getlist("x-forwarded-for")
        if forwarded and self._is_proxy(peer):
            return forwarded[-1].rpartition(",")[2].strip()[:64] or peer
        return peer

    def _named_by_proxy(self, headers: Headers, peer: str) -> Who | None:
        if not self._config.user_header or not self._is_proxy(peer):
            return None
        names = headers.getlist(self._config.user_header)
        if len(names) != 1:  # none, or one that a browser has smuggled in beside the proxy's
            return None
        if not re.fullmatch(r"[\x21-\x7e\xa0-\xff]{1,128}", names[0]):
            raise Refused(401, f"the header {self._config.user_header} has no usable name")
        return Who(names[0], self._config.user_scope, "proxy")

    def _is_proxy(self, peer: str) -> bool:
        address = _address(peer)
        return address is not None and any(address in network for network in self._proxies)

    def _is_here(self, headers: Headers, peer: str) -> bool:
        """Return whether the request came without a proxy."""
        is_forwarded = any(name in headers for name in ("forwarded", "x-forwarded-for", "x-real-ip", "via"))
        address = _address(peer)
        return not is_forwarded and address is not None and address.is_loopback

    def _of_session(self, cookie: str, tokens: Tokens) -> Who | None:
        session = self._signer.open("session", cookie)
        if session is None or session["expires_us"] <= self._clock.now_us():
            return None
        for row in tokens:
            if row["id"] == session["token"] and self._is_valid(row):
                return Who(row["name"], row["scope"], "session", session["nonce"], row["id"])
        return None

    def _is_valid(self, row: dict[str, Any]) -> bool:
        is_over = row["expires_us"] is not None and row["expires_us"] <= self._clock.now_us()
        return not is_over and row["revoked_us"] is None

    async def _current_tokens(self) -> Tokens:
        """Return all tokens, the ended ones too. An unreachable database leaves the last known ones."""
        now_s = self._clock.monotonic_s()
        if self._tokens is None or now_s - self._tokens_at_s >= TOKENS_KEPT_S:
            try:
                self._tokens = await self._read_tokens()
            except MonitorError:
                if self._tokens is None:
                    raise
            self._tokens_at_s = now_s
        return self._tokens


def _csrf(signer: Signer, found: Who) -> str:
    return signer.mac("csrf", found.by, found.name, found.session)


def _address(text: str) -> IPv4Address | IPv6Address | None:
    try:
        return ip_address(text)
    except ValueError:
        return None


def _is_equal(left: str, right: str) -> bool:
    return hmac.compare_digest(left.encode(), right.encode())
