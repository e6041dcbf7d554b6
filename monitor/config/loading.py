"""File and environment → tree.

Enters: monitor.toml (or the file that `-c` or $MONITOR_CONFIG names) and MONITOR_* variables:
MONITOR_KAFKA__BOOTSTRAP sets kafka.bootstrap, MONITOR_FLEET__0__WINDOW the first fleet's window, and
MONITOR_KAFKA__PASSWORD_FILE reads the value from a file. Leaves: `Config`.
Law: read once, and every problem is reported at once.
"""

from __future__ import annotations

import os
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from monitor.config.file_permissions import insecure_mode
from monitor.config.values import mask_url, resolve_url
from monitor.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from monitor.config.problems import Problem
    from monitor.config.tree import Config

DEFAULT_FILE = "monitor.toml"
ENV_PREFIX = "MONITOR_"
ENV_FILE = "MONITOR_CONFIG"


def load(path: str | os.PathLike[str] | None = None, environ: Mapping[str, str] | None = None) -> Config:
    """Read the configuration. Raises ConfigError with all problems, one per line."""
    environ = os.environ if environ is None else environ
    file = Path(path or environ.get(ENV_FILE) or DEFAULT_FILE)
    tree = _read(file)
    return parse(tree, source=file, environ=environ, exposure=insecure_mode(file))


def store_url(path: str | os.PathLike[str] | None = None, environ: Mapping[str, str] | None = None) -> str:
    """Read nothing but where the database is: quick, and it works while another table has an error."""
    environ = os.environ if environ is None else environ
    file = Path(path or environ.get(ENV_FILE) or DEFAULT_FILE)
    name = f"{ENV_PREFIX}STORE__URL"
    store = _read(file).get("store", {})
    url = environ.get(name) or (store.get("url") if isinstance(store, dict) else None) or "sqlite:///monitor.db"
    try:
        if f"{name}_FILE" in environ:
            url = _secret(f"{name}_FILE", environ[f"{name}_FILE"])
        return resolve_url(str(url), file.parent.resolve())
    except ValueError as error:
        raise ConfigError(f"{file} has one problem\n  store.url: (hidden) {error}") from None
    except OSError as error:
        raise ConfigError(f"{name}_FILE names a file that cannot be read: {error}") from error


def _read(file: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(file.read_text("utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"there is no file {file}; name one with -c or ${ENV_FILE}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file} cannot be read: {error}") from error
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{file} is not TOML: {error}") from error


def parse(
    tree: dict[str, Any],
    *,
    source: Path | None = None,
    environ: Mapping[str, str] | None = None,
    exposure: str | None = None,
) -> Config:
    """Turn a tree of plain values into `Config`; relative paths are seen from the folder of `source`.

    `exposure`: why the source may hold no password (`private.insecure_mode`).
    """
    from pydantic import ValidationError

    from monitor.config.problems import across, from_pydantic
    from monitor.config.tree import Config

    problems: list[Problem] = list(_exposed(tree, exposure)) if exposure else []
    origin: dict[str, str] = {}
    for name in sorted(environ or ()):
        if name.startswith(ENV_PREFIX) and name != ENV_FILE:
            problems += _overlay(tree, origin, name, (environ or {})[name])
    folder = (source.parent if source else Path()).resolve()
    config = None
    try:
        config = Config.model_validate(tree, context={"folder": folder})
    except ValidationError as error:
        problems += from_pydantic(error)
    problems += across(tree)
    if config is None or problems:
        raise ConfigError(_report(problems, source, origin))
    config._path = source.resolve() if source else None
    return config


def _report(problems: list[Problem], source: Path | None, origin: Mapping[str, str]) -> str:
    """List the problems in the order of the settings, each with the variable that it came from."""
    from monitor.config.problems import place, spell

    lines = []
    for path, sentence in sorted(problems, key=lambda problem: place(problem[0])):
        key = spell(path)
        lines.append(f"{key}: {sentence}" + (f" (from {origin[key]})" if key in origin else ""))
    count = "one problem" if len(lines) == 1 else f"{len(lines)} problems"
    return "\n  ".join([f"{source or 'it'} has {count}", *dict.fromkeys(lines)])


def _overlay(tree: dict[str, Any], origin: dict[str, str], name: str, value: str) -> Iterator[Problem]:
    """Write one variable into the tree. Other programs' are left alone: Kubernetes makes MONITOR_SERVICE_HOST."""
    from monitor.config.problems import LISTED, SECRET, model_at, nearest, spell, variable

    path = tuple(int(part) if part.isdigit() else part for part in name.removeprefix(ENV_PREFIX).lower().split("__"))
    if len(path) == 1:
        word = str(path[0])
        sections = ("kafka", "store", "log", *LISTED)
        section = next((key for key in sections if word.startswith(f"{key}_")), None)
        meant = variable((section, word.removeprefix(f"{section}_"))) if section else None
        if meant is None and (near := nearest(word, ["device"])) and near != word:
            meant = variable((near,))
        if meant:
            yield (f"${name}",), f"unknown variable; did you mean {meant}?"
        if word != "device":
            return
    key, table = path[-1], model_at(path[:-1])
    if isinstance(key, str) and key not in table.model_fields and key.removesuffix("_file") in table.model_fields:
        key = key.removesuffix("_file")
        try:
            value = _secret(name, value) if key in SECRET else Path(value).read_text("utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            yield (*path[:-1], key), f"{name} names a file that cannot be read: {error}"
            return
        except ValueError as error:
            yield (*path[:-1], key), str(error)
            return
    at: Any = tree
    for part in path[:-1]:
        if isinstance(at, list) and isinstance(part, int) and part <= len(at):
            at.extend([{}] if part == len(at) else [])
            at = at[part]
        elif isinstance(at, dict) and isinstance(part, str):
            at = at.setdefault(part, [] if part in LISTED else {})
        else:
            yield (f"${name}",), f"there is no {spell(path[:-1])} to set {spell(path)} in"
            return
    if isinstance(at, dict) and isinstance(key, str):
        at[key] = value
        origin[spell((*path[:-1], key))] = name


def _secret(name: str, path: str) -> str:
    """Read a secret from the file that a variable names. Raises OSError, and ValueError where others can read it."""
    if exposure := insecure_mode(Path(path)):
        raise ValueError(f"{name} names {path}, which {exposure}")
    return Path(path).read_text("utf-8").strip()


def _exposed(tree: dict[str, Any], exposure: str) -> Iterator[Problem]:
    """Find passwords in a file that others can read."""
    kafka, store = tree.get("kafka"), tree.get("store")
    fix = f"stands in a file that {exposure}, or use"
    for key in ("password", "key_password"):
        if isinstance(kafka, dict) and kafka.get(key):
            yield ("kafka", key), f"{fix} MONITOR_KAFKA__{key.upper()}_FILE"
    channels = tree.get("notify")
    for i, channel in enumerate(channels if isinstance(channels, list) else []):
        if isinstance(channel, dict) and channel.get("token"):
            yield ("notify", i, "token"), f"{fix} MONITOR_NOTIFY__{i}__TOKEN_FILE"
    url = store.get("url") if isinstance(store, dict) else None
    if isinstance(url, str) and mask_url(url) != url:
        yield ("store", "url"), f"holds a password and {fix} MONITOR_STORE__URL_FILE"
