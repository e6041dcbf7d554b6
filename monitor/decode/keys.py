"""Kafka's key → the text that it holds.

Input: the bytes of a key. Output: the same text without the quotes of JSON, the envelope of Kafka Connect or the frame
of a schema registry, and the object that the key may be. Invariant: pure. A key that is nothing of these is UTF-8 text.
"""

from __future__ import annotations

import json
from typing import Any

from monitor.decode.names import ASSET_NAMES, WEAK_ASSET_NAMES, plain


def key_text(key: bytes) -> str | None:
    """Return the asset's name that a key holds. None = it is not text."""
    first = key[:1]
    if first == b"\x00":
        return _framed_text(key)
    if first in (b'"', b"{"):
        value = key_object(key)
        if isinstance(value, str):
            return value
        if isinstance(value, dict) and (name := _name_in(value)) is not None:
            return name
    try:
        return key.decode()
    except UnicodeDecodeError:
        return None


def names_an_asset(key: bytes) -> bool:
    """Return whether a key is text, or holds one. An object without a usable name holds none."""
    if key[:1] == b"{" and isinstance(value := key_object(key), dict):
        return _name_in(value) is not None
    return key_text(key) is not None


def key_object(key: bytes) -> Any:
    """Return the JSON value that a key is, without the envelope of Kafka Connect. None = it is no JSON."""
    if len(key) > 4096:
        return None
    try:
        value = json.loads(key.decode())
    except (ValueError, RecursionError):
        return None
    if isinstance(value, dict) and value.keys() == {"schema", "payload"}:
        return value["payload"]
    return value


def _name_in(fields: dict[str, Any]) -> str | None:
    """Return the asset's name in an object: the field of a usual name, or the only one."""
    texts = {plain(n): v for n, v in fields.items() if isinstance(v, str) or type(v) is int}
    for ranks in (ASSET_NAMES, WEAK_ASSET_NAMES):
        if named := sorted((ranks[name], value) for name, value in texts.items() if name in ranks):
            return str(named[0][1])
    return str(next(iter(texts.values()))) if len(fields) == len(texts) == 1 else None


def _framed_text(key: bytes) -> str | None:
    """Return the text behind a registry's frame: an Avro string, or a record of one, alone in the key."""
    body = key[5:]
    size, shift = 0, 0
    for at, byte in enumerate(body[:3]):
        size |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            text = body[at + 1 :]
            if size % 2 or size // 2 != len(text) or not text:
                return None
            try:
                return text.decode()
            except UnicodeDecodeError:
                return None
    return None
