"""How a question is put, whichever database it is put to, and how its answer looks."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, Self

from monitor.clock import from_us, to_us

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from datetime import datetime

Row = dict[str, Any]


class Door(ABC):
    """A database, open for reading. A context manager."""

    @abstractmethod
    def fetch(self, sql: str, values: Mapping[str, object] | None = None) -> Iterable[Mapping[str, Any]]:
        """Run one SELECT; `:name` stands for a value. Raises StoreUnavailable, SchemaMismatch."""

    @abstractmethod
    def glob(self, column: str, value: str) -> str:
        """Return the condition that `column` matches the pattern bound as `:value` (see `pattern`)."""

    @abstractmethod
    def pattern(self, glob: str) -> str:
        """Translate `*` and `?` into what `glob` compares with."""

    @abstractmethod
    def close(self) -> None:
        """Close."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()


class Where:
    """Conditions that apply only when their value was given. Their text is ours; only values come from outside."""

    def __init__(self) -> None:
        self._conditions: list[str] = []
        self.values: dict[str, object] = {}

    def add(self, condition: str, **value: object) -> None:
        """Let only rows through for which this holds; without its value it says nothing."""
        if None not in value.values():
            self._conditions.append(condition)
            self.values |= value

    def __str__(self) -> str:
        return f"WHERE {' AND '.join(self._conditions)}" if self._conditions else ""


def limited(limit: int | None) -> str:
    """Return the end of a statement that asks for so many rows; None = all."""
    return "" if limit is None else f" LIMIT {int(limit)}"


def us(moment: datetime | None) -> int | None:
    """Return µs since 1970, as the tables have it."""
    return None if moment is None else to_us(moment)


def iso(us: int | None) -> str | None:
    """Return ISO 8601 in UTC, fractions only where there are any."""
    if us is None:
        return None
    try:
        return from_us(us).isoformat().replace("+00:00", "Z")
    except OverflowError:  # "since for ever", as the first champion's boundary
        return None


def number(value: float | None) -> float | None:
    """Return a stored float32 with the digits it has; JSON knows no infinity and no NaN."""
    if value is None or not math.isfinite(value):
        return None
    return float(f"{value:.7g}")
