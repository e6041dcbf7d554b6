"""Bytes → one object of JSON or MessagePack, within limits; nothing in it is understood yet.

The law: whatever the bytes, an object or a DecodeError (not_json, not_msgpack, wrong_type, not_finite, too_deep,
too_many_fields), and which of them never depends on how deep the caller stands. Of a key that stands twice in one
object the last value counts, as in every parser; a value that it replaces must be well-formed, and counts for no limit.
"""

from __future__ import annotations

import json
import re
from typing import Any, Final, NoReturn

import msgspec
import numpy as np

from monitor.decode.formatting import describe, quote
from monitor.errors import DecodeError

MAX_DEPTH: Final = 16
"""Levels of objects and lists, the record itself being the first."""
MAX_FIELDS: Final = 2_000
"""Of all objects of a record together."""
FLOAT32_LIMIT: Final = 3.4028235677973366e38
"""The smallest number that float32 rounds to infinity: its largest value plus half a step."""
UNREADABLE: Final = (msgspec.MsgspecError, ValueError, TypeError, OverflowError, RecursionError)
"""What msgspec raises over bytes that are no document: UnicodeDecodeError is a ValueError, a list as a key a TypeError,
an integer of 5,000 digits a ValueError."""

_json = msgspec.json.Decoder()
_msgpack = msgspec.msgpack.Decoder()
_CONTAINERS = {dict, list}
_SURELY_PARSED: Final = 400
"""Levels that no parser gives up at, wherever it was called from: Python's limit is 1,000, its callers included."""
_TEXTS = re.compile(rb'"(?:[^"\\]|\\.)*+"?', re.DOTALL)
_MSGPACK_HEADS = bytes((*range(0x80, 0xA0), *range(0xDC, 0xE0)))
"""What lists and maps begin with."""


def open_json(value: bytes) -> dict[str, Any]:
    """The object that JSON text holds."""
    if not value:
        raise DecodeError("not_json: the record is empty")
    try:
        fields = _json.decode(value)
    except RecursionError:
        raise DecodeError(_TOO_DEEP) from None
    except UNREADABLE as problem:
        if _json_is_deep(value):
            raise DecodeError(_TOO_DEEP) from None
        _lenient(value, problem)
    return _within_limits(fields)


def _lenient(value: bytes, problem: Exception) -> NoReturn:
    """Read again what msgspec refused: NaN and 1e999 are a broken sensor, and are to be named as one."""
    try:
        fields = json.loads(value.decode())
    except RecursionError:
        raise DecodeError(_TOO_DEEP) from None
    except ValueError:
        begins = quote(value[:24].decode(errors="replace"))
        msg = f"not_json: {problem}; the record begins with {begins}; check the producer and kafka.format"
        raise DecodeError(msg) from problem
    culprit = _not_finite(_within_limits(fields))
    if culprit is not None:
        msg = f"not_finite: {quote(culprit)} is NaN, infinite or too large; send null where a value is missing"
        raise DecodeError(msg) from problem
    msg = f"not_json: {problem}"
    raise DecodeError(msg) from problem


def _not_finite(value: object, name: str = "") -> str | None:
    """The first field that holds a number which is none."""
    if isinstance(value, float):
        return name if not abs(value) < FLOAT32_LIMIT else None
    if not isinstance(value, (dict, list)):
        return None
    inside = value.items() if isinstance(value, dict) else ((name, item) for item in value)
    return next((found for n, v in inside if (found := _not_finite(v, n)) is not None), None)


def open_msgpack(value: bytes) -> dict[str, Any]:
    """The map that MessagePack holds."""
    try:
        fields = _msgpack.decode(value)
    except RecursionError:
        raise DecodeError(_TOO_DEEP) from None
    except UNREADABLE as problem:
        if _msgpack_is_deep(value):
            raise DecodeError(_TOO_DEEP) from None
        msg = f"not_msgpack: {problem}; the record begins with {describe(value)}; check the producer and kafka.format"
        raise DecodeError(msg) from problem
    return _within_limits(fields)


def _within_limits(fields: object) -> dict[str, Any]:
    if not isinstance(fields, dict):
        msg = f"wrong_type: the record is {describe(fields)}; send one object (a map) per record"
        raise DecodeError(msg)
    n_fields = 0
    level: list[Any] = [fields]
    for _ in range(MAX_DEPTH):
        n_fields += sum(len(part) for part in level if type(part) is dict)
        inside = (part.values() if type(part) is dict else part for part in level)
        # Most lists hold numbers, thousands of them: they are looked through without a line of Python each.
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
        msg = f"too_many_fields: the record has {n_fields} fields; at most {MAX_FIELDS} are read"
        raise DecodeError(msg)
    for name in fields:
        if not isinstance(name, str):
            msg = f"wrong_type: the field name {describe(name)} is not a text"
            raise DecodeError(msg)
    return fields


# ---------------------------------------------------------------- deep nonsense

_TOO_DEEP = f"too_deep: the record is nested deeper than {MAX_DEPTH} levels"


def _json_is_deep(value: bytes) -> bool:
    """Whether something that is no JSON is nested so deep that a parser may have given up before it saw that."""
    if value.count(b"[") + value.count(b"{") < _SURELY_PARSED:
        return False
    marks = np.frombuffer(_TEXTS.sub(b"", value), np.uint8)
    step = np.isin(marks, tuple(b"[{")).astype(np.int64) - np.isin(marks, tuple(b"]}"))
    return bool(np.cumsum(step).max(initial=0) > MAX_DEPTH)


def _msgpack_is_deep(value: bytes) -> bool:
    """The same for something that is no MessagePack: walk its heads, as far as they go."""
    if len(value) - len(value.translate(None, _MSGPACK_HEADS)) < _SURELY_PARSED:
        return False
    at, left = 0, [1]
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
        elif head in _PAYLOAD:
            at += _PAYLOAD[head]
        elif head in _SIZED:
            width, extra = _SIZED[head]
            at += width + extra + int.from_bytes(value[at : at + width], "big")
        elif head >= 0xDC and head < 0xE0:
            width = 2 if head % 2 == 0 else 4
            left.append(int.from_bytes(value[at : at + width], "big") * (2 if head >= 0xDE else 1))
            at += width
    return False


_PAYLOAD = {0xCA: 4, 0xCB: 8, 0xCC: 1, 0xCD: 2, 0xCE: 4, 0xCF: 8, 0xD0: 1, 0xD1: 2, 0xD2: 4, 0xD3: 8} | {
    0xD4 + i: 1 + (1 << i) for i in range(5)
}
"""MessagePack: head → bytes behind it. Numbers, and extensions of fixed size."""
_SIZED = {0xC4: (1, 0), 0xC5: (2, 0), 0xC6: (4, 0), 0xC7: (1, 1), 0xC8: (2, 1), 0xC9: (4, 1)} | {
    0xD9 + i: (1 << i, 0) for i in range(3)
}
"""Head → width of the size behind it, and what else there is: bytes, extensions, texts."""
