"""Tokens of the console: access from other machines, each with a scope. Times are processing time.

Invariant: the database has only their hashes. A token has 256 random bits, so one round of SHA-256 is enough: there is
nothing to guess.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from typing import TYPE_CHECKING, NamedTuple

from sqlalchemy import text

from monitor.errors import ConfigError, Conflict, NotFound

if TYPE_CHECKING:
    from sqlalchemy import Connection

PREFIX = "monitor_"
"""Of each token, so that scanners for secrets recognise it."""


class NewToken(NamedTuple):
    """A token that was made just now."""

    token: str
    """Shown once."""
    name: str
    scope: str
    expires_us: int | None


def hash_token(token: str) -> str:
    """Return the form in which a token is stored."""
    return hashlib.sha256(token.encode()).hexdigest()


_ADD = text("""
    INSERT INTO console_token (name, hash, scope, made_us, expires_us)
    VALUES (:name, :hash, :scope, :now_us, :expires_us)
    ON CONFLICT DO NOTHING
""")
_REVOKE = text("UPDATE console_token SET revoked_us = :now_us WHERE name = :name AND revoked_us IS NULL")
_IS_KNOWN = text("SELECT 1 FROM console_token WHERE name = :name")


def add(connection: Connection, name: str, scope: str, now_us: int, expires_us: int | None) -> NewToken:
    """Make a token. Raises ConfigError for a name that cannot be used, Conflict for one that is taken."""
    if not re.fullmatch(r"[A-Za-z0-9_.@-]{1,64}", name):
        raise ConfigError(f"{name!r} cannot name a token: use up to 64 letters, digits, and . _ - @")
    token = PREFIX + secrets.token_urlsafe(32)
    values = {"name": name, "hash": hash_token(token), "scope": scope, "now_us": now_us, "expires_us": expires_us}
    if connection.execute(_ADD, values).rowcount != 1:
        raise Conflict(f"there is a token {name}; names stay in the history, so choose another")
    return NewToken(token, name, scope, expires_us)


def revoke(connection: Connection, name: str, now_us: int) -> None:
    """End a token. Raises NotFound, or Conflict for one that was revoked before."""
    if connection.execute(_REVOKE, {"name": name, "now_us": now_us}).rowcount == 1:
        return
    if connection.execute(_IS_KNOWN, {"name": name}).one_or_none() is None:
        raise NotFound(f"token {name}; `monitor console token list` shows them")
    raise Conflict(f"token {name} was revoked before")
