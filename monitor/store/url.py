"""`[store].url` → an `Address`. Invariant: no message contains a password.

This module imports nothing slow, because every read command imports it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

from monitor.errors import ConfigError

_SQLITE = re.compile(r"sqlite(?:\+\w+)?:///(?P<path>[^?]+)")
_POSTGRESQL = re.compile(r"postgres(?:ql)?(?:\+\w+)?(?P<rest>://.+)")
_OPTIONS = {"host", "port", "ssl"}
_PASSWORD = re.compile(r"(://[^:/@]*):[^@]*@")


@dataclass(frozen=True, slots=True)
class Address:
    """A database: either a SQLite file (`path`) or a PostgreSQL URL."""

    url: str = field(repr=False)
    """For SQLAlchemy, password included."""
    path: Path | None
    """The SQLite file. None = PostgreSQL."""

    @property
    def is_sqlite(self) -> bool:
        """True for a SQLite file, which one daemon owns. False for PostgreSQL, which many share."""
        return self.path is not None

    def __str__(self) -> str:
        return str(self.path) if self.path is not None else _PASSWORD.sub(r"\1:***@", self.url)


def parse(url: str) -> Address:
    """Parse a database URL. Raises ConfigError for anything but a SQLite file or PostgreSQL."""
    if match := _SQLITE.fullmatch(url):
        path = Path(match["path"])
        if path.name == ":memory:":
            raise ConfigError(
                "store.url: a database in memory would lose every offset; name a file, as in sqlite:///monitor.db"
            )
        return Address(f"sqlite:///{path}", path)
    if match := _POSTGRESQL.fullmatch(url):
        server, _, options = match["rest"].partition("?")
        return Address(f"postgresql+asyncpg{server}{_options(options)}", None)
    shown = _PASSWORD.sub(r"\1:***@", url)
    raise ConfigError(f"store.url: cannot use {shown!r}; write sqlite:///monitor.db or postgresql://user@host/database")


def _options(options: str) -> str:
    if not options:
        return ""
    # `sslmode`, libpq's name of the option, is the common one.
    known = [option.replace("sslmode=", "ssl=", 1) for option in options.split("&")]
    if unknown := {option.partition("=")[0] for option in known} - _OPTIONS:
        raise ConfigError(
            f"store.url: unknown option {', '.join(sorted(unknown))}; there are {', '.join(sorted(_OPTIONS))}"
        )
    return f"?{'&'.join(known)}"
