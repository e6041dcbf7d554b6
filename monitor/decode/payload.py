"""Bytes → objects of JSON or MessagePack, within limits. The fields are not interpreted here.

Input: the value of a record. Output: its fields, or a DecodeError (not_json, not_msgpack, wrong_type, too_deep,
too_many_fields). Invariant: the reason never depends on how deep the caller's stack is.

Of a key that stands twice in one object the last value counts, as in every parser. The value that it replaces must be
well-formed, and counts towards no limit.
"""

from __future__ import annotations

import re
from typing import Any, Final

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

MAX_DOCUMENTS: Final = 10_000
"""Objects of a record that is an array."""

_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_JSON_TEXT_OR_NUMBER = re.compile(
    rb'"(?:[^"\\]|\\.)*+"?|(?P<word>[-+]?\b(?i:nan|infinity|inf)\b(?![\w.]))|(?<![\d.])-?\d++(?:\.\d++)?[eE]\+?\d++',
    re.DOTALL,
)
"""A number begins where no digit stands before: 250,000 digits that were tried at each of them took 105 s."""
_json = msgspec.json.Decoder()
_msgpack = msgspec.msgpack.Decoder()
_CONTAINERS = {dict, list}
_TEXT_ONLY = {str}
_TOO_DEEP = f"too_deep: the record is nested deeper than {MAX_DEPTH} levels"


def parse_json(value: bytes) -> dict[str, Any]:
    """Return the object that JSON text holds."""
    return check_limits(_load_json(value))


def json_documents(value: bytes) -> list[dict[str, Any]]:
    """Return the objects of JSON text: one, or an array of them."""
    return _documents(_load_json(value))


def msgpack_documents(value: bytes) -> list[dict[str, Any]]:
    """Return the maps of MessagePack: one, or an array of them."""
    return _documents(_load_msgpack(value))


def _documents(found: Any) -> list[dict[str, Any]]:
    """Return the objects that a record holds: each within the limits, as is their number."""
    if type(found) is not list:
        return [check_limits(found)]
    if len(found) == 2 and type(found[1]) is dict and type(found[0]) in (int, float, str):  # Fluent Bit
        return [check_limits({"timestamp": found[0], **found[1]})]
    if not found or len(found) > MAX_DOCUMENTS or not all(type(each) is dict for each in found):
        raise DecodeError(
            f"wrong_type: the record is {describe_value(found)}; send one object (a map) per record, or an array of up "
            f"to {MAX_DOCUMENTS} objects"
        )
    return [check_limits(each) for each in found]


def _load_json(value: bytes) -> Any:
    value = value.removeprefix(_BYTE_ORDER_MARK)
    if not value:
        raise DecodeError("not_json: the record is empty")
    try:
        return _json.decode(value)
    except RecursionError:
        raise DecodeError(_TOO_DEEP) from None
    except PARSE_ERRORS as problem:
        if _is_deep_json(value):
            raise DecodeError(_TOO_DEEP) from None
        repaired = _without_bad_numbers(value)
        if repaired != value:
            try:
                return _json.decode(repaired)
            except (*PARSE_ERRORS, RecursionError):
                pass
        begins = quote(value[:24].decode(errors="replace"))
        raise DecodeError(
            f"not_json: {problem}; the record begins with {begins}; check the producer and kafka.format"
        ) from problem


def _without_bad_numbers(value: bytes) -> bytes:
    """Return JSON text with null for NaN and infinity in any spelling, and for numbers too large for a float.

    Python, JavaScript libraries and firmware write them where a sensor has no value. Texts stay as they are.
    """
    return _JSON_TEXT_OR_NUMBER.sub(_repair, value)


def _repair(found: re.Match[bytes]) -> bytes:
    token = found[0]
    if token[:1] == b'"':
        return token
    if found["word"] is not None:
        return b"null"
    return b"null" if abs(float(token)) == float("inf") else token


def _load_msgpack(value: bytes) -> Any:
    try:
        return _msgpack.decode(value)
    except RecursionError:
        raise DecodeError(_TOO_DEEP) from None
    except PARSE_ERRORS as problem:
        if _is_deep_msgpack(value):
            raise DecodeError(_TOO_DEEP) from None
        begins = describe_value(value)
        raise DecodeError(
            f"not_msgpack: {problem}; the record begins with {begins}; check the producer and kafka.format"
        ) from problem


def check_limits(fields: object) -> dict[str, Any]:
    """Return the fields if they are an object within the limits of depth and number, with texts as names."""
    if not isinstance(fields, dict):
        raise DecodeError(f"wrong_type: the record is {describe_value(fields)}; send one object (a map) per record")
    n_fields, has_text_names = 0, True
    level: list[Any] = [fields]
    for _ in range(MAX_DEPTH):
        for part in level:
            if type(part) is dict:
                n_fields += len(part)
                has_text_names = has_text_names and _TEXT_ONLY.issuperset(map(type, part))
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
    return fields if has_text_names else _with_text_names(fields)


def _with_text_names(fields: Any) -> Any:
    """Return the same value with texts for names that are not."""
    if type(fields) is list:
        return [_with_text_names(each) for each in fields]
    if type(fields) is not dict:
        return fields
    return {name if type(name) is str else repr(name): _with_text_names(value) for name, value in fields.items()}


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
