"""What `[store].url` names. A string enters, an `Address` leaves; no password ever leaves in a message.

Imports nothing heavy: operators' read commands pass through here.
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
    """As SQLAlchemy wants it, password and all."""
    path: Path | None
    """The SQLite file; None = PostgreSQL."""

    @property
    def is_sqlite(self) -> bool:
        """Whether one daemon owns it, as opposed to many sharing it."""
        return self.path is not None

    def __str__(self) -> str:
        return str(self.path) if self.path is not None else _PASSWORD.sub(r"\1:***@", self.url)


def parse(url: str) -> Address:
    """Read a database URL. Raises ConfigError for anything but a SQLite file or PostgreSQL."""
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
    # libpq's word for encryption is the one that people know.
    known = [option.replace("sslmode=", "ssl=", 1) for option in options.split("&")]
    if unknown := {option.partition("=")[0] for option in known} - _OPTIONS:
        raise ConfigError(
            f"store.url: unknown option {', '.join(sorted(unknown))}; there are {', '.join(sorted(_OPTIONS))}"
        )
    return f"?{'&'.join(known)}"
