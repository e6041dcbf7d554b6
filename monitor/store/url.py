"""`[store].url` → an `Address`. Invariant: no message contains a password.

This module imports nothing slow, because every read command imports it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

from monitor.config.database_url import mask_url, split_postgresql
from monitor.errors import ConfigError

_SQLITE = re.compile(r"sqlite(?:\+\w+)?:///(?P<path>[^?]+)")
_POSTGRESQL = re.compile(r"postgres(?:ql)?(?:\+\w+)?://.+", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Address:
    """A database: either a SQLite file (`path`) or a PostgreSQL URL."""

    url: str = field(repr=False)
    """For SQLAlchemy, password included."""
    path: Path | None
    """The SQLite file. None = PostgreSQL."""
    shown: str
    """For messages: without the password."""

    @property
    def is_sqlite(self) -> bool:
        """True for a SQLite file, which one daemon owns. False for PostgreSQL, which many share."""
        return self.path is not None

    def __str__(self) -> str:
        return self.shown


def parse(url: str) -> Address:
    """Parse a database URL. Raises ConfigError for anything but a SQLite file or PostgreSQL."""
    if match := _SQLITE.fullmatch(url):
        path = Path(match["path"])
        if path.name == ":memory:":
            raise ConfigError(
                "store.url: a database in memory would lose every offset; name a file, as in sqlite:///monitor.db"
            )
        return Address(f"sqlite:///{path}", path, str(path))
    if _POSTGRESQL.fullmatch(url):
        try:
            return Address(split_postgresql(url).driver_url, None, mask_url(url))
        except ValueError as error:
            raise ConfigError(f"store.url: {error}") from None
    raise ConfigError(
        f"store.url: cannot use {mask_url(url)!r}; write sqlite:///monitor.db or postgresql://user@host/database"
    )
