"""Problems of a configuration as sentences that an operator can act on.

Input: pydantic's errors, or the raw tree. Output: pairs of a setting's path and a sentence, with the nearest valid name
in it. Invariant: no sentence contains a secret.
"""

from __future__ import annotations

import json
from datetime import timedelta
from typing import TYPE_CHECKING, Any, get_args

from pydantic import BaseModel, ValidationError

from monitor.config.tree import Config, is_glob
from monitor.config.values import format_duration, parse_names
from monitor.printable import escape_unprintable

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from pydantic_core import ErrorDetails

SettingPath = tuple[str | int, ...]
Problem = tuple[SettingPath, str]

SECRET_KEYS = frozenset((
    "key_password", "password", "registry_password", "registry_url", "secret", "token", "token_command", "url",
))  # fmt: skip
"""Keys whose values are never shown."""
TABLE_ARRAYS = {"fleet": "fleet", "notify": "channel"}
"""Tables with double brackets → the noun for one of them."""
_PATTERN_HELP = {
    "bootstrap": 'is not a broker address; write "host:9092" or "host1:9092,host2:9092"',
    "name": "is not a fleet name; use 1 to 64 of a–z, 0–9, _ and -",
    "device": 'is not a device; use "auto", "cpu", "cuda", "cuda:0" or "mps"',
}
_CHANNEL_HELP = "is not a channel's name; use 1 to 64 of a–z, 0–9, ., _ and -"
_LIMITS = {"ge": "at least", "gt": "more than", "le": "at most", "lt": "less than"}
_TYPES = {
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "string": "text in quotes",
    "tuple": "a list",
    "path": "a path in quotes",
    "model": "a table",
}


# ---------------------------------------------------------------- paths


def dotted(path: SettingPath) -> str:
    """Return a path as it is shown: fleet[0].model.architecture."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text


def sort_key(path: SettingPath) -> tuple[int, int]:
    """Return the rank of a path in the order of the settings: its section, and its number in a table array."""
    sections = list(Config.model_fields)
    section = sections.index(str(path[0])) if path and path[0] in sections else -1
    return section, path[1] if len(path) > 1 and isinstance(path[1], int) else -1


def table_at(path: SettingPath) -> type[BaseModel]:
    """Return the class of the table at a path."""
    model: type[BaseModel] = Config
    for part in path:
        if isinstance(part, str) and part in model.model_fields:
            annotation = model.model_fields[part].annotation
            options = (annotation, *get_args(annotation))
            model = next((o for o in options if isinstance(o, type) and issubclass(o, BaseModel)), model)
    return model


def variable_name(path: SettingPath) -> str:
    """Return the name of the environment variable that sets a path."""
    return "MONITOR_" + "__".join(str(part).upper() for part in path)


def nearest(name: str, valid: Sequence[str]) -> str | None:
    """Return the valid name that was probably meant, or None."""
    from difflib import get_close_matches  # 10 ms, and only needed for an error

    found = get_close_matches(name.lower(), valid, n=1, cutoff=0.6)
    return found[0] if found else None


# ---------------------------------------------------------------- pydantic's errors


def from_pydantic(error: ValidationError) -> Iterator[Problem]:
    """Yield the problem of each error, except those that only follow from another."""
    for detail in error.errors(include_url=False):
        path = detail["loc"]
        if detail["type"] == "several":
            for key, sentence in detail["ctx"]["problems"].items():
                yield (*path, *(int(part) if part.isdigit() else part for part in key.split("."))), sentence
        elif not _is_consequence(detail):
            yield path, _sentence(detail)


def _is_consequence(detail: ErrorDetails) -> bool:
    """Return True for a default that depends on an invalid value, or a list too short without its invalid items."""
    return detail["type"] == "default_factory_not_called" or (detail["type"] == "too_short" and bool(detail["input"]))


def _sentence(detail: ErrorDetails) -> str:
    kind, path = detail["type"], detail["loc"]
    key, value = str(path[-1]) if path else "", _shown(path, detail["input"])
    if kind == "extra_forbidden":
        return _unknown_key(path, key)
    if kind == "missing":
        return _missing(path, key)
    if kind == "not_offered":
        return f"{value} {_not_offered(str(detail['input']), detail['ctx']['offered'])}"
    if kind == "string_pattern_mismatch":
        return f"{value} {_CHANNEL_HELP if path[0] == 'notify' else _PATTERN_HELP.get(key, 'is not valid')}"
    if kind == "value_error":
        return f"{value} {detail['ctx']['error']}".strip()
    if kind in ("too_short", "string_too_short"):
        return "is empty; add at least one [[fleet]] table" if key == "fleet" else "is empty"
    if key in TABLE_ARRAYS and kind == "tuple_type":
        return f"needs double brackets: write [[{key}]], once for each {TABLE_ARRAYS[key]}"
    if limit := _limit(detail.get("ctx", {})):
        return f"{value} is out of range; use {limit}"
    wanted = _TYPES.get(kind.partition("_")[0], "")
    return f"{value} is not {wanted}" if wanted else f"{value}: {detail['msg']}"


def _unknown_key(path: SettingPath, key: str) -> str:
    valid = list(table_at(path[:-1]).model_fields)
    meant = nearest(key, valid)
    return f'unknown key; did you mean "{meant}"?' if meant else f"unknown key; known here: {', '.join(valid)}"


def _missing(path: SettingPath, key: str) -> str:
    if key == "fleet":
        return "missing; add at least one [[fleet]] table"
    return f"missing; set it in the file{'' if 'fleet' in path else f' or as {variable_name(path)}'}"


def _not_offered(value: str, offered: Sequence[str]) -> str:
    meant, listed = nearest(value, offered), ", ".join(f'"{name}"' for name in offered)
    return "is not offered; " + (f'did you mean "{meant}" of {listed}?' if meant else f"use {listed}")


def _limit(context: Mapping[str, Any]) -> str | None:
    for key, words in _LIMITS.items():
        if key in context:
            bound = context[key]
            return f"{words} {format_duration(bound) if isinstance(bound, timedelta) else bound}"
    return None


def _shown(path: SettingPath, value: object) -> str:
    """Return the value as it was written, cut to 60 characters. Nothing that may be a secret is shown.

    A secret may also stand in the wrong place: a login in front of a broker's address, or a password as `username`.
    """
    if any(part in SECRET_KEYS for part in path) or (path[-1:] == ("username",) and not isinstance(value, str)):
        return "(hidden)"
    if value is None:
        return ""
    try:
        text = json.dumps(_without_secrets(value), ensure_ascii=False)
    except TypeError:
        text = f'"{value}"'
    except (ValueError, RecursionError):  # a whole number of more than 4,300 digits
        text = "a value of this length"
    text = escape_unprintable(text)
    return text if len(text) <= 60 else text[:57] + "…"


def _without_secrets(value: object) -> object:
    """Hide everything before an `@`, and the values of secret keys."""
    if isinstance(value, str):
        login, at, rest = value.rpartition("@")
        return f"***@{rest}" if at and login else value
    if isinstance(value, dict):
        secret = SECRET_KEYS | {"username"}
        return {key: "(hidden)" if key in secret else _without_secrets(each) for key, each in value.items()}
    return [_without_secrets(each) for each in value] if isinstance(value, list) else value


# ---------------------------------------------------------------- problems between tables


def cross_table_problems(tree: Mapping[str, Any]) -> Iterator[Problem]:
    """Yield problems between tables. The tree is raw, so that they are found even if a table has its own errors."""
    kafka, fleets = tree.get("kafka"), tree.get("fleet")
    topics = _names(kafka.get("topics")) if isinstance(kafka, dict) else []
    tables = [(i, f) for i, f in enumerate(fleets) if isinstance(f, dict)] if isinstance(fleets, list) else []
    first: dict[str, int] = {}
    for i, table in tables:
        name = table.get("name")
        if isinstance(name, str) and first.setdefault(name, i) != i:
            yield ("fleet", i, "name"), f'"{name}" is already the name of fleet[{first[name]}]; each needs its own'
        yield from _unknown_topics(i, table, topics)
        yield from _shadowed_fleet(i, table, [each for each in tables if each[0] < i], topics)
    if tables and all(_names(table.get("topics")) for _, table in tables):
        for topic in topics:
            if not any(topic in _names(table.get("topics")) for _, table in tables):
                yield ("kafka", "topics"), f'no fleet takes "{topic}"; add it to a fleet\'s topics or leave it out here'


def _unknown_topics(i: int, table: Mapping[str, Any], topics: list[str]) -> Iterator[Problem]:
    for topic in _names(table.get("topics")) if topics else []:
        if topic not in topics:
            meant = nearest(topic, topics)
            fix = f'did you mean "{meant}"?' if meant else "add it there"
            yield ("fleet", i, "topics"), f'"{topic}" is not among kafka.topics; {fix}'


def _shadowed_fleet(
    i: int, table: Mapping[str, Any], earlier: list[tuple[int, dict[str, Any]]], topics: list[str]
) -> Iterator[Problem]:
    """Yield a problem if an earlier fleet takes all assets of this one."""
    own_topics, own_assets = set(_names(table.get("topics")) or topics), _names(table.get("assets")) or ["*"]
    for j, other in earlier:
        other_topics = set(_names(other.get("topics")) or topics)
        if own_topics and own_topics <= other_topics and _covers(_names(other.get("assets")) or ["*"], own_assets):
            fix = "narrow that one or put this one before it"
            yield ("fleet", i, "assets"), f"gets nothing: fleet[{j}] takes all of these first; {fix}"
            return


def _covers(patterns: list[str], names: list[str]) -> bool:
    """Return True if each name or glob surely matches a pattern: the same, or a plain prefix and a star."""

    def matches(pattern: str, name: str) -> bool:
        prefix = pattern[:-1] if pattern.endswith("*") and not is_glob(pattern[:-1]) else None
        return pattern == name or (prefix is not None and name.startswith(prefix))

    return all(any(matches(pattern, name) for pattern in patterns) for name in names)


def _names(value: object) -> list[str]:
    try:
        names = parse_names(value)
    except ValueError:
        return []
    return [name for name in names if isinstance(name, str)] if isinstance(names, (list, tuple)) else []
