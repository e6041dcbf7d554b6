"""Kafka's key → the text that it holds.

Input: the bytes of a key. Output: the same text without the quotes of JSON, the envelope of Kafka Connect or the frame
of a schema registry, and the object that the key may be. Invariant: pure. A key that is nothing of these is UTF-8 text.
"""

from __future__ import annotations

import json
import re
from typing import Any

from monitor.decode.names import TIME_NAMES, plain

_UUID = re.compile("[0-9a-fA-F]{8}-?(?:[0-9a-fA-F]{4}-?){3}[0-9a-fA-F]{12}")


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


def is_usable_key(key: bytes | None) -> bool:
    """Return whether a key names an asset. An object without a single name does not, nor does a random UUID.

    A UUID only spreads the records over the partitions.
    """
    if not key or (key[:1] == b"{" and isinstance(value := key_object(key), dict) and _name_in(value) is None):
        return False
    text = key_text(key)
    return text is not None and _UUID.fullmatch(text) is None


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
    """Return the asset's name in an object: its only text or whole number besides times.

    Of several, each could tell two assets of one name apart: a site, a line.
    """
    names = [v for n, v in fields.items() if (isinstance(v, str) or type(v) is int) and plain(n) not in TIME_NAMES]
    return str(names[0]) if len(names) == 1 else None


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
