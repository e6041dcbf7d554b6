"""The configuration that the reason of a refused record proposes: one that reads the record.

Input: the objects of the record. Output: a place, or a part of a sentence. Invariant: pure. A place is proposed only if
it leads to a value that can be used there, and texts are escaped as TOML needs it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from monitor.decode.cells import begins_with_number, is_number_text
from monitor.decode.formatting import describe_value, quote, toml
from monitor.decode.names import (
    ASSET_NAMES,
    NEUTRAL_NAMES,
    SENSOR_NAMES,
    TIME_NAMES,
    VALUE_NAMES,
    WEAK_ASSET_NAMES,
    plain,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from monitor.decode.shapes import Found, Path, Scope
    from monitor.decode.timestamps import TimeParser

_MAX_DEPTH: Final = 6
_MAX_LEAVES: Final = 500
_NO_ASSETS: Final = frozenset(
    (
        *("cmd", "command", "event", "eventtype", "type", "kind", "topic", "method", "action", "specversion"),
        *("message", "msg"),
    )
)
"""Names of texts that are rarely an asset's."""
_STATES: Final = frozenset(("on", "off", "true", "false", "ok", "open", "closed", "high", "low", "alarm", "running"))


def fix_of_text(cell: object) -> str:
    """Return the configuration that gives a text in a sensor a meaning. "" = there is none."""
    if not isinstance(cell, str) or len(cell) > 64:
        return ""
    if begins_with_number(cell):
        return f"; send the number alone, or where it means no reading: [kafka.fields] missing = [{toml(cell)}]"
    return f"; give it a number: [kafka.fields] enum = {{ {toml(cell)} = 1 }}, or missing = [{toml(cell)}]"


def unread_number(fields: dict[str, Any]) -> str | None:
    """Return what in a record looks like measurements that are not read. None = nothing does."""
    for path, value in _leaves(fields):
        name = ".".join(path)
        if plain(path[-1]) in TIME_NAMES or "time" in plain(path[-1]):
            continue
        if isinstance(value, list) and any(type(each) in (int, float, list) for each in value[:64]):
            return f"{quote(name)} is {describe_value(value)} numbers; send an object of name: number"
        if isinstance(value, list) and any(isinstance(each, dict) for each in value[:64]):
            inner = next((unread_number(each) for each in value[:64] if isinstance(each, dict)), None)
            if inner is not None:
                return inner
        if plain(path[-1]) in _NUMERIC and isinstance(value, (int, float)) and not isinstance(value, bool):
            return f"{quote(name)} is {describe_value(value)}; send it as a field with the sensor's name"
        if isinstance(value, str) and len(value) <= 64 and begins_with_number(value) and not is_time_text(value):
            return f"{quote(name)} is {describe_value(value)}; send the number alone"
    return None


_NUMERIC: Final = frozenset(("asdouble", "asint", *VALUE_NAMES))


def is_time_text(text: str) -> bool:
    """Return whether a text looks like a date, a time, an address or a version rather than like a measurement."""
    return any(text.count(sign) >= 2 for sign in ".:-/") or ":" in text


def asset_place(scopes: Sequence[Scope], times: TimeParser) -> str | None:
    """Return the field of the record that names its asset best. None = no field does."""
    fields = scopes[0].fields
    if scopes[0].path != ():
        return None
    has_value = any(plain(name) in VALUE_NAMES for name in fields)
    ranked = []
    for at, (name, value) in enumerate(fields.items()):
        short = plain(name)
        if not isinstance(value, str) or not 0 < len(value.strip()) <= 64 or "." in name:
            continue
        if short in TIME_NAMES or short in NEUTRAL_NAMES or short in _NO_ASSETS:
            continue
        if has_value and short in SENSOR_NAMES:
            continue
        if is_number_text(value, is_whole_allowed=short not in ASSET_NAMES and short not in WEAK_ASSET_NAMES):
            continue
        if value.strip().casefold() in _STATES or begins_with_unit(value) or looks_like_time(value, times):
            continue
        ranked.append((ASSET_NAMES.get(short, 1000 + WEAK_ASSET_NAMES.get(short, 1000)), at, name))
    return min(ranked)[2] if ranked else None


def begins_with_unit(text: str) -> bool:
    """Return whether a text is a number with something behind it."""
    return begins_with_number(text) and " " in text.strip()


def time_place(scopes: Sequence[Scope], times: TimeParser) -> str | None:
    """Return the path of a value that is a time, the one with the most telling name."""
    ranked = []
    for depth, scope in enumerate(scopes):
        for at, (path, value) in enumerate(_leaves(scope.fields)):
            if looks_like_time(value, times):
                name = plain(path[-1])
                is_told = any(word in name for word in ("time", "date", "when", "stamp")) or name.endswith(("at", "ts"))
                ranked.append((not is_told, depth, len(path), at, ".".join(path)))
    return min(ranked)[4] if ranked else None


def looks_like_time(value: object, times: TimeParser) -> bool:
    """Return whether a value is a time of this century."""
    if isinstance(value, (bool, list, dict)) or value is None or (isinstance(value, str) and len(value) < 8):
        return False
    try:
        us = times.parse_us(value)
    except ValueError:
        return False
    return 946_684_800_000_000 < us < 4_102_444_800_000_000


def place_apart(first: Found, second: Found) -> str | None:
    """Return the path of a field that tells two readings of one record apart: a text, or an identifying number."""
    numbers: str | None = None
    for one, other in zip(first.scopes, second.scopes, strict=False):
        if one.fields is other.fields:
            break
        others = dict(_leaves(other.fields))
        for path, value in _leaves(one.fields):
            if value == others.get(path) or path not in others or path[-1] in first.used:
                continue
            short = plain(path[-1])
            if isinstance(value, str) and 0 < len(value) <= 128 and short not in TIME_NAMES:
                if not is_number_text(value, is_whole_allowed=False):
                    return ".".join(path)
            elif type(value) is int and short.endswith(("id", "no", "nr", "number", "num", "index", "serial")):
                numbers = numbers or ".".join(path)
    return numbers


def _leaves(fields: dict[str, Any], path: Path = ()) -> Iterator[tuple[Path, Any]]:
    """Yield the fields of an object and of the objects in it."""
    for name, value in list(fields.items())[:_MAX_LEAVES]:
        if isinstance(value, dict) and len(path) < _MAX_DEPTH:
            yield from _leaves(value, (*path, name))
        else:
            yield (*path, name), value
