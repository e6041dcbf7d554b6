"""Bytes → one object of JSON or MessagePack, within limits; nothing in it is understood yet.

The law: whatever the bytes, an object or a DecodeError (not_json, not_msgpack, wrong_type, not_finite, too_large).
"""

from __future__ import annotations

import json
from typing import Any, Final

import msgspec

from monitor.errors import DecodeError
from monitor.stream.decode.words import describe, quote

MAX_DEPTH: Final = 16
MAX_FIELDS: Final = 2_000
FLOAT32_LIMIT: Final = 3.4028235677973366e38
"""The smallest number that float32 rounds to infinity: its largest value plus half a step."""
UNREADABLE: Final = (msgspec.MsgspecError, ValueError, TypeError, OverflowError, RecursionError)
"""What msgspec raises over bytes that are no document: UnicodeDecodeError is a ValueError, a list as a key a TypeError,
an integer of 5,000 digits a ValueError."""

_json = msgspec.json.Decoder()
_msgpack = msgspec.msgpack.Decoder()
_NUMBERS = {int, float}


def open_json(value: bytes) -> dict[str, Any]:
    """The object that JSON text holds."""
    if not value:
        raise DecodeError("not_json: the record is empty")
    try:
        fields = _json.decode(value)
    except RecursionError:
        raise DecodeError(_too_deep()) from None
    except UNREADABLE as problem:
        fields = _lenient(value, problem)
    return _within_limits(fields)


def _lenient(value: bytes, problem: Exception) -> object:
    """Read again what msgspec refused: NaN and 1e999 are a broken sensor, and are to be named as one."""
    try:
        fields = json.loads(value.decode())
    except RecursionError:
        raise DecodeError(_too_deep()) from None
    except ValueError:
        begins = quote(value[:24].decode(errors="replace"))
        msg = f"not_json: {problem}; the record begins with {begins}; check the producer and kafka.format"
        raise DecodeError(msg) from problem
    culprit = _not_finite(fields, depth=0)
    if culprit is not None:
        msg = f"not_finite: {quote(culprit)} is NaN, infinite or too large; send null where a value is missing"
        raise DecodeError(msg) from problem
    msg = f"not_json: {problem}"
    raise DecodeError(msg) from problem


def _not_finite(value: object, depth: int, name: str = "") -> str | None:
    """The first field that holds a number which is none."""
    if isinstance(value, float):
        return name if not abs(value) < FLOAT32_LIMIT else None
    if depth > MAX_DEPTH or not isinstance(value, (dict, list)):
        return None
    inside = value.items() if isinstance(value, dict) else ((name, item) for item in value)
    return next((found for n, v in inside if (found := _not_finite(v, depth + 1, n)) is not None), None)


def open_msgpack(value: bytes) -> dict[str, Any]:
    """The map that MessagePack holds."""
    try:
        fields = _msgpack.decode(value)
    except RecursionError:
        raise DecodeError(_too_deep()) from None
    except UNREADABLE as problem:
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
        level = [
            inner
            for part in level
            for inner in (part.values() if type(part) is dict else part)
            if type(inner) is dict or (type(inner) is list and not _NUMBERS.issuperset(map(type, inner)))
        ]
        if not level:
            break
    else:
        raise DecodeError(_too_deep())
    if n_fields > MAX_FIELDS:
        msg = f"too_large: the record has {n_fields} fields; at most {MAX_FIELDS} are read"
        raise DecodeError(msg)
    for name in fields:
        if not isinstance(name, str):
            msg = f"wrong_type: the field name {describe(name)} is not a text"
            raise DecodeError(msg)
    return fields


def _too_deep() -> str:
    return f"too_large: the record is nested deeper than {MAX_DEPTH} levels"
