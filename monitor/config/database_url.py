"""URLs of databases, read by one parser for the connection, for checks and for display.

Input: `[store] url`. Output: its parts, an absolute URL, or a form without secrets. Invariant: everything between `://`
and the last `@` is the login, whatever a generated password contains, and no message repeats it. The standard library
and SQLAlchemy end a password at other characters, and would take its rest for the host.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import quote, unquote

if TYPE_CHECKING:
    from pathlib import Path

OPTIONS = ("host", "port", "ssl")
_SERVER = re.compile(
    r"(?P<host>\[[0-9A-Fa-f:.%]+\]|[^\s:/?#\[\]]*)(?::(?P<port>\d{0,5}))?(?P<database>/[^?]*)?(?:\?(?P<options>.*))?"
)
_PLAIN_USER = re.compile(r"[\w.-]{1,64}")
_FORM = '"postgresql://user@host/database"'


@dataclass(frozen=True, slots=True)
class PostgresqlUrl:
    """The parts of a PostgreSQL URL."""

    user: str | None
    password: str | None = field(repr=False)
    server: str
    """Host and port, as they were written."""
    database: str
    """With its slash."""
    options: tuple[str, ...]

    @property
    def driver_url(self) -> str:
        """The URL for SQLAlchemy with asyncpg: the login is percent-encoded, so that every parser agrees."""
        login = "" if self.user is None else quote(self.user, safe="")
        if self.password is not None:
            login += f":{quote(self.password, safe='')}"
        options = f"?{'&'.join(self.options)}" if self.options else ""
        return f"postgresql+asyncpg://{login}{'' if self.user is None else '@'}{self.server}{self.database}{options}"


def split_postgresql(url: str) -> PostgresqlUrl:
    """Split a URL. The login may be percent-encoded or not. Raises ValueError, which repeats nothing of the login."""
    login, at, server = url.partition("://")[2].rpartition("@")
    parts = _SERVER.fullmatch(server)
    if parts is None or int(parts["port"] or 0) > 65535:
        raise ValueError(f"has no host and port that can be read; write {_FORM}")
    # `sslmode`, libpq's name of the option, is the common one.
    options = [option.replace("sslmode=", "ssl=", 1) for option in (parts["options"] or "").split("&") if option]
    if unknown := {option.partition("=")[0] for option in options} - {*OPTIONS}:
        raise ValueError(f"has the unknown option {', '.join(sorted(unknown))}; there are {', '.join(OPTIONS)}")
    user, colon, password = login.partition(":")
    return PostgresqlUrl(
        unquote(user) if at else None,
        unquote(password) if colon else None,
        server[: parts.end("port") if parts["port"] is not None else parts.end("host")],
        parts["database"] or "",
        tuple(options),
    )


def resolve_url(url: str, folder: Path) -> str:
    """Check a database URL and make a relative SQLite path absolute, starting from `folder`. Raises ValueError."""
    scheme, separator, rest = url.partition("://")
    if scheme == "sqlite" and separator:
        path = rest.partition("?")[0].removeprefix("/")
        if not rest.startswith("/") or path in ("", ":memory:"):
            raise ValueError('needs a file: "sqlite:///monitor.db" or "sqlite:////var/lib/monitor.db"')
        if "\0" in path:
            raise ValueError("has a NUL character")
        return f"sqlite:///{(folder / path).resolve()}"
    if scheme == "postgresql" and separator:
        if not split_postgresql(url).database.strip("/"):
            raise ValueError(f"names no database; write {_FORM}")
        return url
    raise ValueError(f'is not offered; use "sqlite:///monitor.db" or {_FORM}')


def has_password(url: str) -> bool:
    """Return True if a URL holds a password. One that cannot be read holds one if anything stands before an `@`."""
    try:
        return split_postgresql(url).password is not None
    except ValueError:
        return "@" in url


def mask_url(url: str) -> str:
    """Return a database URL without its password. A user name is shown only where it surely is one."""
    scheme, separator, rest = url.partition("://")
    login, at, server = rest.rpartition("@")
    if not at or scheme.startswith("sqlite"):
        return url
    user, colon, _ = login.partition(":")
    is_plain = _PLAIN_USER.fullmatch(user) is not None
    shown = f"{user}{':***' if colon else ''}" if is_plain else "***"
    return f"{scheme}{separator}{shown}@{server}"
