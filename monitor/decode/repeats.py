"""Keys that stand twice in one object: the parsers keep the last silently, so the keys are counted.

Enters: a record, and what was parsed of it. Leaves: whether some key stands twice. The law: exact. In JSON every key
brings one colon, and all other colons stand in texts; without the escape of a colon, raw and parsed colons are equally
many if and only if no key was dropped. In MessagePack every map says how many entries it has.
"""

from __future__ import annotations

import itertools
import json
from collections import Counter
from operator import getitem, itemgetter
from typing import TYPE_CHECKING, Any, Final

import msgspec
import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from monitor.types import Bool, Int64

ESCAPED_COLON: Final = b"\\u003"
"""How an escaped colon begins; nothing else that is escaped can become one."""
_COLON: Final = ord(":")
_CONTAINERS: Final = {dict, list}
_LONG: Final = 1_000
"""Characters from which on a vector is faster than a loop."""
_SENSORS_KEY: Final = b"\xa7sensors"

_raw_map = msgspec.msgpack.Decoder(dict[Any, msgspec.Raw])
_raw_list = msgspec.msgpack.Decoder(list[msgspec.Raw])


# ---------------------------------------------------------------- one record


def repeated_json(value: bytes, fields: dict[str, Any]) -> str | None:
    """The key that stands twice in some object of the JSON text that `fields` was parsed from; None = no key does."""
    if value.count(b":") == n_colons(fields) and ESCAPED_COLON not in value:
        return None
    found: list[str] = []

    def look(pairs: list[tuple[str, object]]) -> None:
        if not found and len(dict(pairs)) < len(pairs):
            found.append(Counter(name for name, _ in pairs).most_common(1)[0][0])

    json.loads(value.decode(), object_pairs_hook=look, parse_int=str, parse_float=str)
    return found[0] if found else None


def n_colons(fields: Any) -> int:
    """Keys of all objects, and colons in all texts."""
    n, rest = 0, [fields]
    while rest:
        part = rest.pop()
        if type(part) is dict:
            n += len(part) + colons_in(part)
            part = part.values()
        kinds = set(map(type, part))
        if str in kinds:
            n += colons_in(item for item in part if type(item) is str)
        if not _CONTAINERS.isdisjoint(kinds):
            rest.extend(item for item in part if type(item) in _CONTAINERS)
    return n


def repeated_msgpack(value: bytes, fields: dict[Any, Any]) -> tuple[int, int] | None:
    """Of a map with a key twice: how many entries it says it has, and how many are different. None = there is none."""
    rest: list[tuple[Any, msgspec.Raw | bytes]] = [(fields, value)]
    while rest:
        part, raw = rest.pop()
        if type(part) is dict:
            items: Sequence[msgspec.Raw] = list(_raw_map.decode(raw).values())
            if (n_entries := _n_entries(bytes(raw))) != len(items):
                return n_entries, len(items)
            part = part.values()
        else:
            items = _raw_list.decode(raw)
        rest.extend((p, r) for p, r in zip(part, items, strict=True) if type(p) is dict or _holds_containers(p))
    return None


def _holds_containers(part: object) -> bool:
    return type(part) is list and not _CONTAINERS.isdisjoint(map(type, part))


def _n_entries(raw: bytes) -> int:
    """What the head of a map says."""
    if raw[0] < 0x90:
        return raw[0] & 0x0F
    return int.from_bytes(raw[1 : 3 if raw[0] == 0xDE else 5], "big")


def colons_in(texts: Iterable[str]) -> int:
    """Colons in all the texts together."""
    joined = "".join(texts)
    if len(joined) < _LONG:
        return joined.count(":")
    return int(np.count_nonzero(np.frombuffer(joined.encode(), np.uint8) == _COLON))


# ---------------------------------------------------------------- many records


def may_repeat_json(values: Sequence[bytes], n_expected: int) -> bool:
    """Whether a key may stand twice in any of these: False is certain.

    `n_expected`: in all of them together, keys and colons in texts, counted at most once. No record has fewer colons
    than it should, so if all have as many as they should, each has.
    """
    joined = b"".join(values)
    n = np.count_nonzero(np.frombuffer(joined, np.uint8) == _COLON)
    return n != n_expected or (b"\\" in joined and ESCAPED_COLON in joined)


def repeats_json(values: Sequence[bytes], expected: Int64) -> Bool:
    """[N], where a key may stand twice; expected: [N], as above, per record."""
    found = np.fromiter(map(bytes.count, values, itertools.repeat(b":")), np.int64, len(values))
    differs: Bool = found != expected
    return differs | np.fromiter((ESCAPED_COLON in value for value in values), np.bool_, len(values))


def top_entries(values: Sequence[bytes]) -> Int64:
    """[N], how many entries the MessagePack map of each record says it has; -1 = look closer."""
    heads = np.fromiter(map(itemgetter(0), values), np.int64, len(values))
    return _entries(heads, values, np.zeros(len(values), np.int64))


def sensor_entries(values: Sequence[bytes]) -> Int64:
    """[N], the same for the map under the key "sensors".

    Where the eight bytes of that key stand by chance within a number or a text, no head of a map can follow: what
    follows a number is a text or the end, and what follows a piece of a text continues it, or makes the map longer
    than any record's.
    """
    places = np.fromiter(map(bytes.find, values, itertools.repeat(_SENSORS_KEY)), np.int64, len(values))
    at = places + len(_SENSORS_KEY)
    try:
        heads = np.fromiter(map(getitem, values, at.tolist()), np.int64, len(values))
    except IndexError:
        heads = np.array([value[i] if i < len(value) else 0 for value, i in zip(values, at.tolist(), strict=True)])
    return np.where(places < 0, -1, _entries(heads, values, at))


def _entries(heads: Int64, values: Sequence[bytes], at: Int64) -> Int64:
    """[N], what the head of each map, at its place in the record, says."""
    n = np.where(heads >> 4 == 0x8, heads & 0x0F, -1)
    for row in np.flatnonzero(heads == 0xDE).tolist():  # more than 15 entries
        n[row] = int.from_bytes(values[row][at[row] + 1 : at[row] + 3], "big")
    return n
