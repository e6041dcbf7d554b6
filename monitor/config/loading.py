"""File and environment → tree.

Input: monitor.toml (or the file named by `-c` or $MONITOR_CONFIG) and MONITOR_* variables. MONITOR_KAFKA__BOOTSTRAP
sets kafka.bootstrap, MONITOR_FLEET__0__WINDOW the first fleet's window, and MONITOR_KAFKA__PASSWORD_FILE names a file
with the value. Output: `Config`. Invariant: file and environment are read once, and all problems are reported at once.
"""

from __future__ import annotations

import os
import re
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from monitor.config.database_url import has_password, resolve_url
from monitor.config.file_permissions import insecure_mode
from monitor.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from monitor.config.problems import Problem, SettingPath
    from monitor.config.tree import Config

DEFAULT_FILE = "monitor.toml"
ENV_PREFIX = "MONITOR_"
ENV_FILE = "MONITOR_CONFIG"
MAX_FILE_BYTES = 1024 * 1024
MAX_DEPTH = 16
"""Levels of tables and lists in the file."""
_INDEX = re.compile(r"[0-9]{1,4}")


def load(path: str | os.PathLike[str] | None = None, environ: Mapping[str, str] | None = None) -> Config:
    """Read the configuration. Raises ConfigError with all problems, one per line."""
    environ = os.environ if environ is None else environ
    file = Path(path or environ.get(ENV_FILE) or DEFAULT_FILE)
    tree = _read(file)
    return parse(tree, source=file, environ=environ, insecure=insecure_mode(file))


def store_url(path: str | os.PathLike[str] | None = None, environ: Mapping[str, str] | None = None) -> str:
    """Read only the database's URL: it is quick, and works if another table has an error. Raises ConfigError."""
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


def sensor_texts(path: str | os.PathLike[str] | None, fleet: str) -> dict[str, dict[str, str]]:
    """Read only unit and description of a fleet's sensors, by name: `{"unit": …, "description": …}`, or empty texts.

    It is quick, and an error in the file is not its business. Raises ConfigError for a file that cannot be read.
    """
    tables = _read(Path(path or os.environ.get(ENV_FILE) or DEFAULT_FILE)).get("fleet", [])
    found: dict[str, dict[str, str]] = {}
    for table in tables if isinstance(tables, list) else ():
        sensors = table.get("sensor") if isinstance(table, dict) and table.get("name") == fleet else None
        for name, each in sensors.items() if isinstance(sensors, dict) else ():
            texts = {key: each.get(key) if isinstance(each, dict) else None for key in ("unit", "description")}
            found[name] = {key: text if isinstance(text, str) else "" for key, text in texts.items()}
    return found


def reference_file() -> Path:
    """Return the path of the file that explains every setting: in the installed package, or in deploy/ of a clone."""
    packaged = Path(__file__).with_name("reference.toml")
    return packaged if packaged.is_file() else Path(__file__).parents[2] / "deploy" / "monitor.toml"


def _read(file: Path) -> dict[str, Any]:
    try:
        with file.open("rb") as opened:
            content = opened.read(MAX_FILE_BYTES + 1)
        text = content.decode("utf-8")
    except FileNotFoundError:
        raise ConfigError(f"there is no file {file}; name one with -c or ${ENV_FILE}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file} cannot be read: {error}") from error
    if len(content) > MAX_FILE_BYTES:
        raise ConfigError(f"{file} has more than {MAX_FILE_BYTES // 1024} KiB: it is no configuration")
    try:
        tree = tomllib.loads(text.replace("\r\n", "\n"))
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{file} is not TOML: {error}") from error
    except RecursionError:
        tree = None
    except ValueError:  # int() of more than 4,300 digits
        raise ConfigError(f"{file} is not TOML: it has a number with thousands of digits") from None
    if tree is None or _depth(tree) > MAX_DEPTH:
        raise ConfigError(f"{file} nests values more than {MAX_DEPTH} deep; the settings need three levels")
    return tree


def _depth(tree: object) -> int:
    """Return the levels of tables and lists. Without recursion: the file may be deeper than Python's stack."""
    level, depth = [tree], 0
    while level := [part for part in level if isinstance(part, dict | list)]:
        depth += 1
        level = [inner for part in level for inner in (part.values() if isinstance(part, dict) else part)]
    return depth


def parse(
    tree: dict[str, Any],
    *,
    source: Path | None = None,
    environ: Mapping[str, str] | None = None,
    insecure: str | None = None,
) -> Config:
    """Turn a tree of plain values into `Config`. Relative paths start at the folder of `source`. Raises ConfigError.

    `insecure`: the reason why the source may contain no secret (`insecure_mode`), or None.
    """
    from pydantic import ValidationError

    from monitor.config.problems import cross_table_problems, from_pydantic
    from monitor.config.tree import Config

    problems: list[Problem] = list(_readable_secrets(tree, insecure)) if insecure else []
    origin: dict[str, str] = {}
    for name in sorted(environ or ()):
        if name.startswith(ENV_PREFIX) and name != ENV_FILE:
            problems += _apply_variable(tree, origin, name, (environ or {})[name])
    folder = (source.parent if source else Path()).resolve()
    config = None
    try:
        config = Config.model_validate(tree, context={"folder": folder})
    except ValidationError as error:
        problems += from_pydantic(error)
    problems += cross_table_problems(tree)
    if config is None or problems:
        raise ConfigError(_report(problems, source, origin))
    config._path = source.resolve() if source else None
    return config


def _report(problems: list[Problem], source: Path | None, origin: Mapping[str, str]) -> str:
    """List the problems in the order of the settings, each with the variable that set the value."""
    from monitor.config.problems import dotted, sort_key

    lines = []
    for path, sentence in sorted(problems, key=lambda problem: sort_key(problem[0])):
        key = dotted(path)
        lines.append(f"{key}: {sentence}" + (f" (from {origin[key]})" if key in origin else ""))
    count = "one problem" if len(lines) == 1 else f"{len(lines)} problems"
    return "\n  ".join([f"{source or 'it'} has {count}", *dict.fromkeys(lines)])


# ---------------------------------------------------------------- variables


def _apply_variable(tree: dict[str, Any], origin: dict[str, str], name: str, value: str) -> Iterator[Problem]:
    """Write one variable into the tree, and its name into `origin`. Yield its problem, if it has one.

    Variables of other programs are ignored: for a service called monitor Kubernetes sets MONITOR_SERVICE_HOST.
    """
    from monitor.config.problems import SECRET_KEYS, dotted, table_at

    path: SettingPath = tuple(
        int(part) if _INDEX.fullmatch(part) else part for part in name.removeprefix(ENV_PREFIX).lower().split("__")
    )
    if len(path) == 1 and path[0] != "device":
        yield from _misspelt(name, str(path[0]))
        return
    *parents, key = path
    known = table_at(tuple(parents)).model_fields
    if isinstance(key, str) and key not in known and key.removesuffix("_file") in known:
        key = key.removesuffix("_file")
        try:
            value = _secret(name, value) if key in SECRET_KEYS else Path(value).read_text("utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            yield (*parents, key), f"{name} names a file that cannot be read: {error}"
            return
        except ValueError as error:
            yield (*parents, key), str(error)
            return
    table = _table_in(tree, tuple(parents))
    if table is None:
        yield (f"${name}",), f"there is no {dotted(tuple(parents))} to set {dotted(path)} in"
    elif isinstance(table, dict) and isinstance(key, str):
        table[key] = value
        origin[dotted((*parents, key))] = name


def _misspelt(name: str, word: str) -> Iterator[Problem]:
    """Yield a problem if a variable without a section resembles a setting's."""
    from monitor.config.problems import TABLE_ARRAYS, nearest, variable_name

    section = next((key for key in ("kafka", "store", "log", *TABLE_ARRAYS) if word.startswith(f"{key}_")), None)
    if section:
        meant = variable_name((section, word.removeprefix(f"{section}_")))
    elif near := nearest(word, ["device"]):
        meant = variable_name((near,))
    else:
        return
    yield (f"${name}",), f"unknown variable; did you mean {meant}?"


def _table_in(tree: dict[str, Any], path: SettingPath) -> Any:
    """Return the raw value at a path and create missing tables on the way; None if a table array is too short."""
    from monitor.config.problems import TABLE_ARRAYS

    at: Any = tree
    for part in path:
        if isinstance(at, list) and isinstance(part, int) and part <= len(at):
            at.extend([{}] if part == len(at) else [])
            at = at[part]
        elif isinstance(at, dict) and isinstance(part, str):
            at = at.setdefault(part, [] if part in TABLE_ARRAYS else {})
        else:
            return None
    return at


# ---------------------------------------------------------------- secrets


def _secret(name: str, path: str) -> str:
    """Read a secret from the file that a variable names. Raises OSError, or ValueError if others can read the file."""
    if insecure := insecure_mode(Path(path)):
        raise ValueError(f"{name} names {path}, which {insecure}")
    return Path(path).read_text("utf-8").strip()


def _readable_secrets(tree: dict[str, Any], insecure: str) -> Iterator[Problem]:
    """Yield the secrets in a file that others can read."""
    kafka, store = tree.get("kafka"), tree.get("store")
    problem = f"stands in a file that {insecure}, or use"
    for key in ("password", "key_password", "registry_password"):
        if isinstance(kafka, dict) and kafka.get(key):
            yield ("kafka", key), f"{problem} MONITOR_KAFKA__{key.upper()}_FILE"
    channels = tree.get("notify")
    for i, channel in enumerate(channels if isinstance(channels, list) else []):
        if not isinstance(channel, dict):
            continue
        # The address of Apprise holds the password; that of a webhook may, and the operator knows it.
        for key in ("token", "secret", *(("url",) if channel.get("kind") == "apprise" else ())):
            if channel.get(key):
                yield ("notify", i, key), f"{problem} MONITOR_NOTIFY__{i}__{key.upper()}_FILE"
    url = store.get("url") if isinstance(store, dict) else None
    if isinstance(url, str) and has_password(url):
        yield ("store", "url"), f"holds a password and {problem} MONITOR_STORE__URL_FILE"
