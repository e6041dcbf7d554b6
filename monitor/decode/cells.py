"""One cell as a producer writes it → a number, missing, or unreadable.

Input: a JSON-like value. Output: a float, NaN where it is missing, None where it is neither. Invariant: pure, and the
same for every wire format and layout.
"""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from monitor.decode.payload import FLOAT32_LIMIT

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

MISSING_WORDS: Final = frozenset(
    (
        *("", "nan", "na", "n/a", "#n/a", "null", "none", "nil", "-", "--", "---", "?", "empty", "missing"),
        *("unavailable", "unknown", "undefined", "bad"),
    )
)
STATE_WORDS: Final = {"on": 1.0, "off": 0.0, "true": 1.0, "false": 0.0}
_NUMBER = re.compile(r"[-+]?(?:\d+(?:[.,]\d*)?|[.,]\d+)(?:[eE][-+]?\d{1,3})?", re.ASCII)
_WRAPPED: Final = (
    *("value", "Value", "v", "val", "doubleValue", "floatValue", "intValue", "longValue", "int64Value", "boolValue"),
    *("booleanValue", "stringValue", "double", "float", "int", "long", "boolean", "string", "decimal", "number"),
)
"""Names of the number in an object that holds one value, in this order."""


class CellReader:
    """Reads cells by the settings `enum` and `missing` of a fleet."""

    __slots__ = ("_enum", "_missing_texts", "missing")

    def __init__(self, enum: Mapping[str, float] | None = None, missing: Sequence[float | str] | None = None) -> None:
        self._enum = STATE_WORDS | {text.strip().casefold(): float(number) for text, number in (enum or {}).items()}
        given = missing or ()
        self.missing = frozenset(_float32(each) for each in given if not isinstance(each, str))
        """Numbers that mean "no reading", as 32-bit numbers."""
        texts = {each.strip().casefold() for each in given if isinstance(each, str)}
        self._missing_texts = MISSING_WORDS - self._enum.keys() | texts

    def read(self, cell: object) -> float | None:
        """Return the number of a cell. NaN = missing, None = neither a number nor missing."""
        kind = type(cell)
        if kind is dict:
            cell = unwrap(cell)  # type: ignore[arg-type]
            kind = type(cell)
        if kind is float or kind is int:
            number: float = cell  # type: ignore[assignment]
        elif cell is None:
            return math.nan
        elif kind is bool:
            return float(cell)  # type: ignore[arg-type]
        elif kind is str:
            found = self._read_text(cell.strip())  # type: ignore[attr-defined]
            if found is None:
                return None
            number = found
        else:
            return None
        if not -FLOAT32_LIMIT < number < FLOAT32_LIMIT:  # NaN is missing, infinity is unreadable
            return math.nan if number != number else None
        return math.nan if self.missing and _float32(number) in self.missing else float(number)

    def _read_text(self, text: str) -> float | None:
        word = text.casefold()
        if word in self._missing_texts:
            return math.nan
        if (state := self._enum.get(word)) is not None:
            return state
        if len(text) <= 64 and _NUMBER.fullmatch(text):
            return float(text.replace(",", "."))
        return None


def _float32(number: float) -> float:
    return float(np.float32(number))


def is_number_text(text: str, *, is_whole_allowed: bool) -> bool:
    """Return whether a text is a number, with a decimal sign unless whole numbers are allowed.

    A whole number in a text is as often an identifier.
    """
    text = text.strip()
    return len(text) <= 64 and _NUMBER.fullmatch(text) is not None and (is_whole_allowed or "." in text or "," in text)


def unwrap(cell: dict[str, Any]) -> object:
    """Return the value of an object that describes one value. None where its quality is bad.

    An object that is no such description is returned as it is.
    """
    name = value_name(cell)
    if name is None:
        return cell
    return None if is_bad(cell) else cell[name]


def value_name(cell: dict[str, Any]) -> str | None:
    """Return the name of the value in an object that describes one value."""
    if len(cell) > 12:
        return None
    for name in _WRAPPED:
        if name in cell and not isinstance(cell[name], (dict, list)):
            return name
    return None


def is_bad(cell: dict[str, Any]) -> bool:
    """Return whether an object says that its value cannot be trusted: OPC quality, Sparkplug's null."""
    if cell.get("q") is False or cell.get("isNull") is True or cell.get("is_null") is True:
        return True
    for name in ("quality", "Quality", "StatusCode", "Status"):
        word = cell.get(name)
        if isinstance(word, dict):
            word = word.get("Symbol")
        if isinstance(word, str) and word.casefold().startswith("bad"):
            return True
    return False
