"""The common part of all queries: a SELECT on either database, its conditions, and the format of its results."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, Self

from monitor.clock import from_us, to_us

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from datetime import datetime

Row = dict[str, Any]
MAX_ID = 2**31 - 1
"""The largest id of PostgreSQL."""
MAX_INT = 2**63 - 1
"""The largest number of both databases."""


class RowReader(ABC):
    """A database, open for reading."""

    @abstractmethod
    def fetch(self, sql: str, values: Mapping[str, object] | None = None) -> Iterable[Mapping[str, Any]]:
        """Run one SELECT with `:name` for a value. Raises StoreUnavailable, SchemaMismatch."""


class Backend(RowReader):
    """A `RowReader` with patterns, for operators. A context manager."""

    @abstractmethod
    def glob(self, column: str, value: str) -> str:
        """Return the condition that `column` matches the pattern bound as `:value`. Bind the result of `pattern`."""

    @abstractmethod
    def pattern(self, glob: str) -> str:
        """Translate `*` and `?` into the syntax that the condition of `glob` compares with."""

    @abstractmethod
    def first_word(self, column: str) -> str:
        """Return the expression for the text before the first colon."""

    @abstractmethod
    def close(self) -> None:
        """Close."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()


class Where:
    """A WHERE clause of the conditions whose value is not None. Their text is constant. Only values are input."""

    def __init__(self) -> None:
        self._conditions: list[str] = []
        self.values: dict[str, object] = {}

    def add(self, condition: str, **value: object) -> None:
        """Add a condition, unless its value is None."""
        if None not in value.values():
            self._conditions.append(condition)
            self.values |= value

    def __str__(self) -> str:
        return f"WHERE {' AND '.join(self._conditions)}" if self._conditions else ""


def limited(limit: int | None) -> str:
    """Return the LIMIT clause. None = all rows."""
    return "" if limit is None else f" LIMIT {min(int(limit), MAX_INT)}"


def us(moment: datetime | None) -> int | None:
    """Return µs since 1970, as in the tables."""
    return None if moment is None else to_us(moment)


def iso(us: int | None) -> str | None:
    """Return ISO 8601 in UTC, without a fraction if it is zero."""
    if us is None:
        return None
    try:
        return from_us(us).isoformat().replace("+00:00", "Z")
    except OverflowError:  # the boundary of a fleet's first champion, before all times
        return None


def number(value: float | None) -> float | None:
    """Return a stored float32 with its seven digits. None for infinity and NaN, which JSON lacks."""
    if value is None or not math.isfinite(value):
        return None
    return float(f"{value:.7g}")


def with_times(row: Mapping[str, Any], names: Mapping[str, str]) -> Row:
    """Return a row with its times in ISO 8601 under new names. `names`: column of µs → name."""
    return {names.get(name, name): iso(value) if name in names else value for name, value in row.items()}
