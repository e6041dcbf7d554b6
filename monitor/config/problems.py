"""What was wrong with a configuration → sentences an operator can act on.

Enters: pydantic's errors, or the raw tree. Leaves: `path → sentence`, the nearest valid name in it.
Law: no secret is ever part of a sentence.
"""

from __future__ import annotations

import json
from datetime import timedelta
from typing import TYPE_CHECKING, Any, get_args

from pydantic import BaseModel, ValidationError

from monitor.config.tree import Config, is_glob
from monitor.config.values import format_duration, parse_names

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from pydantic_core import ErrorDetails

SECRET = frozenset({"key_password", "password", "token", "token_command", "url"})
"""Keys whose values are never shown."""
LISTED = {"fleet": "fleet", "notify": "channel"}
"""Tables with double brackets, and what each is."""

Path_ = tuple[str | int, ...]
Problem = tuple[Path_, str]

REMOVED: dict[Path_, str] = {
    ("model", "scope"): "it had no effect",
    ("retrain", "promote"): "it had no effect",
}
"""Settings of former versions, the last two parts of their paths, and why they are gone."""


_PATTERN_HELP = {
    "bootstrap": 'is not a broker address; write "host:9092" or "host1:9092,host2:9092"',
    "name": "is not a fleet name; use 1 to 64 of a–z, 0–9, _ and -",
    "device": 'is not a device; use "auto", "cpu", "cuda", "cuda:0" or "mps"',
}
_CHANNEL_HELP = "is not a channel's name; use 1 to 64 of a–z, 0–9, ., _ and -"
_LIMIT = {"ge": "at least", "gt": "more than", "le": "at most", "lt": "less than"}
_WANTED = {
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "string": "text in quotes",
    "tuple": "a list",
    "path": "a path in quotes",
    "model": "a table",
}


def nearest(name: str, valid: Sequence[str]) -> str | None:
    """Find the valid name that was probably meant."""
    from difflib import get_close_matches  # 10 ms, and only for the unlucky

    found = get_close_matches(name.lower(), valid, n=1, cutoff=0.6)
    return found[0] if found else None


def quoted(names: Sequence[str]) -> str:
    """List names as they are written in the file."""
    return ", ".join(f'"{name}"' for name in names)


def spell(path: Path_) -> str:
    """Write a path as people do: fleet[0].model.architecture."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text


def place(path: Path_) -> tuple[int, int]:
    """Where a path stands among the settings, to sort by."""
    sections = list(Config.model_fields)
    section = sections.index(str(path[0])) if path and path[0] in sections else -1
    return section, path[1] if len(path) > 1 and isinstance(path[1], int) else -1


def from_pydantic(error: ValidationError) -> Iterator[Problem]:
    """Translate each of pydantic's errors."""
    for detail in error.errors(include_url=False):
        path = detail["loc"]
        if detail["type"] == "several":
            for key, sentence in detail["ctx"]["problems"].items():
                yield (*path, *(int(part) if part.isdigit() else part for part in key.split("."))), sentence
        elif not _is_echo(detail):
            yield path, _sentence(detail)


def _is_echo(detail: ErrorDetails) -> bool:
    """Whether it repeats what is reported already: a default made from, a list short of, something bad."""
    return detail["type"] == "default_factory_not_called" or (detail["type"] == "too_short" and bool(detail["input"]))


def _sentence(detail: ErrorDetails) -> str:
    kind, path, context = detail["type"], detail["loc"], detail.get("ctx", {})
    key, value = str(path[-1]) if path else "", _shown(path, detail["input"])
    if kind == "extra_forbidden":
        if why := REMOVED.get(path[-2:]):
            return f"removed, as {why}; delete the line"
        valid = list(model_at(path[:-1]).model_fields)
        meant = nearest(key, valid)
        return f'unknown key; did you mean "{meant}"?' if meant else f"unknown key; known here: {', '.join(valid)}"
    if kind == "missing":
        if key == "fleet":
            return "missing; add at least one [[fleet]] table"
        return f"missing; set it in the file{'' if 'fleet' in path else f' or as {variable(path)}'}"
    if kind == "not_offered":
        meant, offered = nearest(str(detail["input"]), context["offered"]), quoted(context["offered"])
        return f"{value} is not offered; " + (f'did you mean "{meant}" of {offered}?' if meant else f"use {offered}")
    if kind == "string_pattern_mismatch":
        help_ = _CHANNEL_HELP if path[0] == "notify" else _PATTERN_HELP.get(key, "is not valid")
        return f"{value} {help_}"
    if kind == "value_error":
        return f"{value} {context['error']}".strip()
    if key in LISTED and kind == "tuple_type":
        return f"needs double brackets: write [[{key}]], once for each {LISTED[key]}"
    for limit, words in _LIMIT.items():
        if limit in context:
            bound = context[limit]
            bound = format_duration(bound) if isinstance(bound, timedelta) else bound
            return f"{value} is out of range; use {words} {bound}"
    if kind in ("too_short", "string_too_short"):
        return "is empty; add at least one [[fleet]] table" if key == "fleet" else "is empty"
    wanted = _WANTED.get(kind.partition("_")[0], "")
    return f"{value} is not {wanted}" if wanted else f"{value}: {detail['msg']}"


def across(tree: Mapping[str, Any]) -> Iterator[Problem]:
    """Find what is wrong between tables. Reads the raw tree: it speaks even when a table has errors of its own."""
    kafka, fleets = tree.get("kafka"), tree.get("fleet")
    known = _names(kafka.get("topics")) if isinstance(kafka, dict) else []
    tables = [(i, f) for i, f in enumerate(fleets)] if isinstance(fleets, list) else []
    tables = [(i, f) for i, f in tables if isinstance(f, dict)]
    first: dict[str, int] = {}
    for i, table in tables:
        name, topics = table.get("name"), _names(table.get("topics"))
        if isinstance(name, str) and first.setdefault(name, i) != i:
            yield ("fleet", i, "name"), f'"{name}" is already the name of fleet[{first[name]}]; each needs its own'
        for topic in topics if known else []:
            if topic not in known:
                meant = nearest(topic, known)
                fix = f'did you mean "{meant}"?' if meant else "add it there"
                yield ("fleet", i, "topics"), f'"{topic}" is not among kafka.topics; {fix}'
        for j, before in tables:
            if j >= i:
                break
            mine, theirs = set(topics or known), set(_names(before.get("topics")) or known)
            wanted, taken = (_names(t.get("assets")) or ["*"] for t in (table, before))
            if mine and mine <= theirs and _covers(taken, wanted):
                fix = "narrow that one or put this one before it"
                yield ("fleet", i, "assets"), f"gets nothing: fleet[{j}] takes all of these first; {fix}"
                break
    if tables and all(_names(table.get("topics")) for _, table in tables):
        for topic in known:
            if not any(topic in _names(table.get("topics")) for _, table in tables):
                yield ("kafka", "topics"), f'no fleet takes "{topic}"; add it to a fleet\'s topics or leave it out here'


def model_at(path: Path_) -> type[BaseModel]:
    """Find the table at a path."""
    model: type[BaseModel] = Config
    for part in path:
        if isinstance(part, str) and part in model.model_fields:
            annotation = model.model_fields[part].annotation
            options = (annotation, *get_args(annotation))
            model = next((o for o in options if isinstance(o, type) and issubclass(o, BaseModel)), model)
    return model


def variable(path: Path_) -> str:
    """Name the environment variable that sets a path."""
    return "MONITOR_" + "__".join(str(part).upper() for part in path)


def _covers(patterns: list[str], names: list[str]) -> bool:
    """Whether every name or glob is surely taken by one of the patterns (equal, or a plain prefix and a star)."""

    def takes(pattern: str, name: str) -> bool:
        prefix = pattern[:-1] if pattern.endswith("*") and not is_glob(pattern[:-1]) else None
        return pattern == name or (prefix is not None and name.startswith(prefix))

    return all(any(takes(pattern, name) for pattern in patterns) for name in names)


def _names(value: object) -> list[str]:
    try:
        names = parse_names(value)
    except ValueError:
        return []
    return [name for name in names if isinstance(name, str)] if isinstance(names, (list, tuple)) else []


def _shown(path: Path_, value: object) -> str:
    """The value as it was written, short; nothing of a secret."""
    if any(part in SECRET for part in path):
        return "(hidden)"
    if value is None:
        return ""
    try:
        text = json.dumps(value, ensure_ascii=False)
    except TypeError:
        text = f'"{value}"'
    return text if len(text) <= 60 else text[:57] + "…"
