"""Signed links in notifications: an operator answers an alert with two clicks, without a token.

Input: the database's key, an alert, an act and a time at which the link expires. Output: a token for
`[console] public_url` + `/links/TOKEN`, and its check. Invariant: pure. A token is good for one act on one alert, and
until it expires. `store/links.py` keeps the key, and the nonces of used links, so that each serves once.

Token: VERSION.ALERT.ACT.EXPIRES.NONCE.SIGNATURE, of letters that a URL needs no escape for. The signature is
HMAC-SHA256 of all that precedes it.
"""

from __future__ import annotations

import base64
import hmac
import re
import secrets
from typing import NamedTuple

from monitor.clock import from_us
from monitor.errors import Conflict, NotFound

ACTS = ("acknowledge", "label-fault", "label-normal")
"""Acts that a link can ask for."""
KEY_BYTES = 32
VALID_FOR_US = 7 * 86_400 * 1_000_000
"""From the notification to the end of its links."""

_VERSION = "v1"
_TOKEN = re.compile(
    rf"(?P<payload>{_VERSION}\.(\d{{1,10}})\.({'|'.join(ACTS)})\.(\d{{1,18}})\.([\w-]{{16,32}}))\.(?P<signature>[\w-]{{43}})",
    re.ASCII,
)


class Link(NamedTuple):
    """A token that was verified."""

    alert_id: int
    act: str
    """One of `ACTS`."""
    nonce: str
    """Different in each link. `store.links.use_nonce` refuses it the second time."""


def sign(key: bytes, alert_id: int, act: str, expires_us: int, nonce: str | None = None) -> str:
    """Return the token of a new link. `expires_us`: processing time. `nonce`: default random."""
    if act not in ACTS:
        raise ValueError(f"{act} is no act of a link")
    payload = f"{_VERSION}.{alert_id}.{act}.{expires_us}.{nonce or secrets.token_urlsafe(12)}"
    return f"{payload}.{_signature(key, payload)}"


def verify(key: bytes, token: str, now_us: int) -> Link:
    """Check a token. Raises NotFound for one that this database did not sign, and Conflict for one that has expired."""
    match = _TOKEN.fullmatch(token)
    if match is None or not hmac.compare_digest(_signature(key, match["payload"]), match["signature"]):
        raise NotFound("this link; copy all of it from the notification, or open the alert's page")
    _, alert_id, act, expires_us, nonce, _ = match.groups()
    if now_us >= int(expires_us):
        raise Conflict(f"the link expired at {from_us(int(expires_us)):%Y-%m-%d %H:%M} UTC; open the alert's page")
    return Link(int(alert_id), act, nonce)


def _signature(key: bytes, payload: str) -> str:
    digest = hmac.digest(key, payload.encode(), "sha256")
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
