"""Bytes → one object of JSON or MessagePack, within limits. The fields are not interpreted here.

Input: the value of a record. Output: its fields, or a DecodeError (not_json, not_msgpack, wrong_type, not_finite,
too_deep, too_many_fields). Invariant: the reason never depends on how deep the caller's stack is.

Of a key that stands twice in one object the last value counts, as in every parser. The value that it replaces must be
well-formed, and counts towards no limit.
"""

from __future__ import annotations

import json
import re
from typing import Any, Final, NoReturn

import msgspec
import numpy as np

from monitor.decode.formatting import describe_value, quote
from monitor.errors import DecodeError

MAX_DEPTH: Final = 16
"""Levels of objects and lists. The record itself is the first."""
MAX_FIELDS: Final = 2_000
"""Fields of all objects of a record together."""
FLOAT32_LIMIT: Final = 3.4028235677973366e38
"""The smallest number that float32 rounds to infinity: its largest value plus half a step."""
PARSE_ERRORS: Final = (msgspec.MsgspecError, ValueError, TypeError, OverflowError, RecursionError)
"""Errors of msgspec over malformed bytes. UnicodeDecodeError is a ValueError, a list as a key raises TypeError, and an
integer of 5,000 digits ValueError."""

_json = msgspec.json.Decoder()
_msgpack = msgspec.msgpack.Decoder()
_CONTAINERS = {dict, list}
_TOO_DEEP = f"too_deep: the record is nested deeper than {MAX_DEPTH} levels"


def parse_json(value: bytes) -> dict[str, Any]:
    """Return the object that JSON text holds."""
    if not value:
        raise DecodeError("not_json: the record is empty")
    try:
        fields = _json.decode(value)
    except RecursionError:
        raise DecodeError(_TOO_DEEP) from None
    except PARSE_ERRORS as problem:
        if _is_deep_json(value):
            raise DecodeError(_TOO_DEEP) from None
        _explain_bad_json(value, problem)
    return check_limits(fields)


def _explain_bad_json(value: bytes, problem: Exception) -> NoReturn:
    """Raise the reason why msgspec refused a text.

    Python's parser accepts NaN and 1e999, which come from a broken sensor. The reason then names the field.
    """
    try:
        fields = json.loads(value.decode())
    except RecursionError:
        raise DecodeError(_TOO_DEEP) from None
    except ValueError:
        begins = quote(value[:24].decode(errors="replace"))
        raise DecodeError(
            f"not_json: {problem}; the record begins with {begins}; check the producer and kafka.format"
        ) from problem
    name = _find_not_finite(check_limits(fields))
    if name is not None:
        raise DecodeError(
            f"not_finite: {quote(name)} is NaN, infinite or too large; send null where a value is missing"
        ) from problem
    raise DecodeError(f"not_json: {problem}") from problem


def _find_not_finite(value: object, name: str = "") -> str | None:
    """Return the name of the first field with a number that is not finite in float32."""
    if isinstance(value, float):
        return name if not abs(value) < FLOAT32_LIMIT else None
    if not isinstance(value, (dict, list)):
        return None
    inside = value.items() if isinstance(value, dict) else ((name, item) for item in value)
    return next((found for n, v in inside if (found := _find_not_finite(v, n)) is not None), None)


def parse_msgpack(value: bytes) -> dict[str, Any]:
    """Return the map that MessagePack holds."""
    try:
        fields = _msgpack.decode(value)
    except RecursionError:
        raise DecodeError(_TOO_DEEP) from None
    except PARSE_ERRORS as problem:
        if _is_deep_msgpack(value):
            raise DecodeError(_TOO_DEEP) from None
        begins = describe_value(value)
        raise DecodeError(
            f"not_msgpack: {problem}; the record begins with {begins}; check the producer and kafka.format"
        ) from problem
    return check_limits(fields)


def check_limits(fields: object) -> dict[str, Any]:
    """Return the fields if they are an object within the limits of depth and number, with texts as names."""
    if not isinstance(fields, dict):
        raise DecodeError(f"wrong_type: the record is {describe_value(fields)}; send one object (a map) per record")
    n_fields = 0
    level: list[Any] = [fields]
    for _ in range(MAX_DEPTH):
        n_fields += sum(len(part) for part in level if type(part) is dict)
        inside = (part.values() if type(part) is dict else part for part in level)
        # Most lists hold thousands of numbers: the set operation skips them without a line of Python for each.
        level = [
            inner
            for items in inside
            if not _CONTAINERS.isdisjoint(map(type, items))
            for inner in items
            if type(inner) in _CONTAINERS
        ]
        if not level:
            break
    else:
        raise DecodeError(_TOO_DEEP)
    if n_fields > MAX_FIELDS:
        raise DecodeError(f"too_many_fields: the record has {n_fields} fields; at most {MAX_FIELDS} are read")
    for name in fields:
        if not isinstance(name, str):
            raise DecodeError(f"wrong_type: the field name {describe_value(name)} is not a text")
    return fields


# ---------------------------------------------------------------- the depth of malformed records

# Whether a parser stops at the depth of a record, or at malformed bytes behind it, depends on the depth of the caller's
# stack. So the depth of a malformed record is measured here, and its reason is the same wherever it is decoded.

_SAFE_DEPTH: Final = 400
"""Levels that every parser reads, wherever it was called from. Python's limit is 1,000, the callers included."""
_JSON_TEXT = re.compile(rb'"(?:[^"\\]|\\.)*+"?', re.DOTALL)
_CONTAINER_HEADS = bytes((*range(0x80, 0xA0), *range(0xDC, 0xE0)))
"""MessagePack: first bytes of lists and maps."""
_FIXED_BYTES = {0xCA: 4, 0xCB: 8, 0xCC: 1, 0xCD: 2, 0xCE: 4, 0xCF: 8, 0xD0: 1, 0xD1: 2, 0xD2: 4, 0xD3: 8} | {
    0xD4 + i: 1 + (1 << i) for i in range(5)
}
"""MessagePack: first byte → number of bytes behind it, for numbers and extensions of fixed size."""
_LENGTH_BYTES = {0xC4: (1, 0), 0xC5: (2, 0), 0xC6: (4, 0), 0xC7: (1, 1), 0xC8: (2, 1), 0xC9: (4, 1)} | {
    0xD9 + i: (1 << i, 0) for i in range(3)
}
"""MessagePack: first byte → width of the length behind it, and further bytes. For bytes, extensions and texts."""


def _is_deep_json(value: bytes) -> bool:
    """Return whether malformed JSON is nested deeper than `MAX_DEPTH`, by its brackets outside texts."""
    if value.count(b"[") + value.count(b"{") < _SAFE_DEPTH:
        return False
    marks = np.frombuffer(_JSON_TEXT.sub(b"", value), np.uint8)
    step = np.isin(marks, tuple(b"[{")).astype(np.int64) - np.isin(marks, tuple(b"]}"))
    return bool(np.cumsum(step).max(initial=0) > MAX_DEPTH)


def _is_deep_msgpack(value: bytes) -> bool:
    """Return whether malformed MessagePack is nested deeper than `MAX_DEPTH`, by the heads of its values."""
    if len(value) - len(value.translate(None, _CONTAINER_HEADS)) < _SAFE_DEPTH:
        return False
    at, left = 0, [1]  # left: per open container, the values that are still to come
    while left and at < len(value):
        if len(left) > MAX_DEPTH + 1:
            return True
        if not left[-1]:
            left.pop()
            continue
        left[-1] -= 1
        head, at = value[at], at + 1
        if 0x80 <= head < 0xA0:
            left.append((head & 0x0F) * (2 if head < 0x90 else 1))
        elif 0xA0 <= head < 0xC0:
            at += head & 0x1F
        elif head in _FIXED_BYTES:
            at += _FIXED_BYTES[head]
        elif head in _LENGTH_BYTES:
            width, extra = _LENGTH_BYTES[head]
            at += width + extra + int.from_bytes(value[at : at + width], "big")
        elif head >= 0xDC and head < 0xE0:
            width = 2 if head % 2 == 0 else 4
            left.append(int.from_bytes(value[at : at + width], "big") * (2 if head >= 0xDE else 1))
            at += width
    return False
