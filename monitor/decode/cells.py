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
_THOUSANDS = re.compile(r"([-+]?\d{1,3})(?:((?:,\d{3})+)(?:\.(\d+))?|((?:\.\d{3})+)(?:,(\d+))?)", re.ASCII)
_UNIT = re.compile(r"([-+]?[\d.,]+)(?:[  ](\S{1,6})|(%|°[CF]?))")
_BEGIN = re.compile(r"[-+]?[.,]?\d", re.ASCII)
_UNITS: Final = frozenset(
    (
        *("%", "°c", "°f", "°", "℃", "℉", "degc", "degf", "c", "f", "k", "bar", "mbar", "pa", "hpa", "kpa", "mpa"),
        *("psi", "v", "mv", "kv", "a", "ma", "w", "kw", "mw", "wh", "kwh", "mwh", "va", "kva", "hz", "khz", "mhz"),
        *("rpm", "mm", "cm", "m", "km", "µm", "um", "l", "ml", "l/h", "l/s", "m3", "m³", "m/s", "m/s2", "m/s²", "mm/s"),
        *("km/h", "g", "kg", "t", "nm", "n", "kn", "ppm", "ppb", "lx", "lux", "db", "dbm", "dba", "ohm", "ω", "kω"),
        *("µs/cm", "ph", "l/min", "m3/h", "m³/h", "kg/h", "1/min", "µg/m3", "µg/m³", "%rh"),
    )
)
"""Units behind a number and a blank, without case."""
_TAGGED: Final = frozenset(
    ("N", "S", "BOOL", "$numberDouble", "$numberInt", "$numberLong", "$numberDecimal")
)
"""Names of a value that is alone in its object: DynamoDB, MongoDB."""
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
        return number_of_text(text)


def _float32(number: float) -> float:
    return float(np.float32(number))


def is_number_text(text: str, *, is_whole_allowed: bool) -> bool:
    """Return whether a text is a number, with a decimal sign unless whole numbers are allowed.

    A whole number in a text is as often an identifier.
    """
    text = text.strip()
    if number_of_text(text) is None:
        return False
    return is_whole_allowed or "." in text or "," in text or not text.lstrip("+-").isdigit()


def number_of_text(text: str) -> float | None:
    """Return the number that a text is, perhaps with signs of thousands or a usual unit behind it.

    A single comma is a decimal comma: "1,234" is 1.234. With a point behind it ("1,234.5") it is not.
    """
    if len(text) > 64 or _BEGIN.match(text) is None:
        return None
    if _NUMBER.fullmatch(text):
        return float(text.replace(",", "."))
    if (unit := _UNIT.fullmatch(text)) is not None:
        return number_of_text(unit[1]) if unit[3] or unit[2].casefold() in _UNITS else None
    if (parts := _THOUSANDS.fullmatch(text)) is None:
        return None
    first, commas, after_point, points, after_comma = parts.groups(default="")
    if not after_point and not after_comma and len(commas + points) == 4:
        return None
    return float(f"{first}{(commas + points).replace(',', '').replace('.', '')}.{after_point + after_comma or 0}")


def begins_with_number(text: str) -> bool:
    """Return whether a text begins like a number."""
    return _BEGIN.match(text.strip()) is not None


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
    if len(cell) == 1 and (only := next(iter(cell))) in _TAGGED:
        return None if isinstance(cell[only], (dict, list)) else only
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
