"""Every setting, variable, command, option, error and exit code is documented.

README.md is for the first hour. deploy/monitor.toml is the reference of the settings, and itself a valid file.
"""

from __future__ import annotations

import importlib
import re
import shutil
import tomllib
from contextlib import suppress
from pathlib import Path
from typing import Any

import click
import pytest

from monitor import errors
from monitor.cli import COMMANDS, main
from monitor.config import load, parse
from tests.docs.entries import error_classes, leaves, settings

ROOT = Path(__file__).resolve().parents[2]
REFERENCE = ROOT / "deploy" / "monitor.toml"


def readme() -> str:
    return (ROOT / "README.md").read_text("utf-8")


# ---------------------------------------------------------------- settings


def explained() -> set[tuple[str, ...]]:
    """Every setting in the reference, those in comments included: `# key = value` counts, prose does not."""
    found: set[tuple[str, ...]] = set()

    def walk(value: Any, path: tuple[str, ...]) -> None:
        if isinstance(value, list) and value and isinstance(value[0], dict):
            value = value[0]
        if isinstance(value, dict) and path[-2:] != ("fields", "enum"):  # whose keys are the user's words
            for key, each in value.items():
                walk(each, (*path, key))
        elif path[:2] == ("fleet", "sensor"):  # [fleet.sensor.NAME]: the name is the user's
            found.add((*path[:2], *path[3:]))
        else:
            found.add(path)

    heading = ""
    for line in REFERENCE.read_text("utf-8").splitlines():
        if line.removeprefix("# ").startswith("["):  # in a comment: a table that may be left out
            heading = line.removeprefix("# ")
            continue
        with suppress(tomllib.TOMLDecodeError):  # prose
            walk(tomllib.loads(f"{heading}\n{line.removeprefix('#').lstrip()}"), ())
    # One table explains both: [fleet.fields] has the keys of [kafka.fields].
    return found | {("fleet", *path[1:]) for path in found if path[:2] == ("kafka", "fields")}


@pytest.mark.parametrize("path", [".".join(path) for path, _ in settings()])
def test_every_setting_is_explained_in_the_reference(path: str) -> None:
    known = {".".join(found) for found in explained()}
    assert path in known, (
        f"deploy/monitor.toml says nothing of {path}; add `{path.rpartition('.')[2]} = …` with a comment"
    )


def test_the_reference_explains_no_setting_that_is_gone() -> None:
    gone = {".".join(path) for path in explained()} - {".".join(path) for path, _ in settings()}
    assert not gone, f"deploy/monitor.toml explains {', '.join(sorted(gone))}, which no code reads"


def test_the_reference_is_a_valid_configuration(tmp_path: Path) -> None:
    shutil.copy(REFERENCE, tmp_path / "monitor.toml")
    assert load(tmp_path / "monitor.toml", environ={}).fleets


def test_the_defaults_written_in_the_reference_are_the_defaults() -> None:
    """A key in a comment shows its default, unless the comment says it is an example ("e.g.")."""
    text = REFERENCE.read_text("utf-8")
    minimal = {"kafka": {"bootstrap": "b:9092", "topics": ["t"]}, "fleet": [{"name": "x", "interval": "10m"}]}
    default = parse(minimal)
    checked = 0
    for section, model in (("kafka", default.kafka), ("log", default.log), ("http", default.http)):
        body = re.split(rf"^#?\s?\[{section}\]$", text, flags=re.MULTILINE)[1].split("\n[")[0]
        for key, value in re.findall(r"^# ?(\w+) = (\S+)(?!.*e\.g\.)", body, flags=re.MULTILINE):
            shown = tomllib.loads(f"v = {value}")["v"]
            changed = parse(minimal | {section: {**minimal.get(section, {}), key: shown}})  # type: ignore[dict-item]
            assert getattr(getattr(changed, section), key) == getattr(model, key), f"{section}.{key} is not {shown!r}"
            checked += 1
    assert checked


def test_the_readme_says_how_variables_override_the_file() -> None:
    for word in ("MONITOR_KAFKA__BOOTSTRAP", "_FILE", "MONITOR_CONFIG"):
        assert word in readme()


# ---------------------------------------------------------------- commands


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_is_there_and_light(name: str) -> None:
    command = getattr(importlib.import_module(f"monitor.cli.{name}"), name)
    assert isinstance(command, click.Command)
    assert command.get_short_help_str(200).endswith(".")


def test_every_command_is_in_the_readme() -> None:
    text = readme()
    missing = [" ".join(path) for path, _ in leaves(main) if f"monitor {' '.join(path)}" not in text]
    assert not missing, f"README.md says nothing of: {', '.join(missing)}"


def test_every_option_explains_itself() -> None:
    mute = [
        f"{' '.join(path)} {parameter.opts[0]}"
        for path, command in leaves(main)
        for parameter in command.params
        if isinstance(parameter, click.Option) and not parameter.help
    ]
    assert not mute


def test_every_command_takes_a_configuration() -> None:
    without = [
        " ".join(path) for path, command in leaves(main) if not any("--config" in p.opts for p in command.params)
    ]
    assert without == ["demo", "init", "bench"], "only these bring or write a configuration of their own"


# ---------------------------------------------------------------- errors


@pytest.mark.parametrize("kind", error_classes(), ids=lambda kind: kind.__name__)
def test_every_error_is_drawn_in_the_tree_with_its_exit_code(kind: type[errors.MonitorError]) -> None:
    [line] = [line for line in (errors.__doc__ or "").splitlines() if re.search(rf"\b{kind.__name__}\b", line)] or [""]
    assert line, f"monitor/errors.py does not draw {kind.__name__} in its tree"
    drawn = re.search(r"exit (\d)", line)
    assert kind.exit_code == (int(drawn[1]) if drawn else 1)
    assert kind.__doc__
    assert not kind.__doc__.strip().endswith("."), "the docstring is the first half of the message"


def test_every_error_that_ends_a_command_is_in_the_readme() -> None:
    text = readme()
    missing = [
        (kind.__doc__ or "").strip()
        for kind in error_classes()
        if kind.exit_code != 1 and (kind.__doc__ or "").strip() not in text
    ]
    assert not missing, f"README.md does not say what to do about: {', '.join(missing)}"


def test_the_exit_codes_are_in_the_readme() -> None:
    codes = {kind.exit_code for kind in error_classes()} | {0, 2}
    rows = dict(re.findall(r"^\|\s*`?(\d+)`?\s*\|\s*(.+?)\s*\|", readme(), flags=re.MULTILINE))
    assert {str(code) for code in codes} <= rows.keys(), "README.md needs a table of exit codes: | 0 | done |"


# ---------------------------------------------------------------- maps


@pytest.mark.parametrize("package", ["models", "training", "lifecycle", "evaluation", "replay", "benchmark", "service"])
def test_a_packages_map_names_every_module_and_no_other(package: str) -> None:
    drawn = importlib.import_module(f"monitor.{package}").__doc__ or ""
    rows = re.findall(r"^    (\S.*?)  ", drawn, flags=re.MULTILINE)
    named = {name for row in rows for name in row.split()}
    folder = ROOT / "monitor" / package
    modules = {path.stem for path in folder.iterdir() if path.suffix == ".py" or path.is_dir()}
    modules -= {"__init__", "__pycache__"}
    assert {name.removesuffix(".py").removesuffix("/") for name in named} == modules
