"""Configuration files and databases for the commands, each test in a folder of its own."""

from __future__ import annotations

import asyncio
import json
import shutil
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner

from monitor.cli import main
from tests import console_database, example_database

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@pytest.fixture(autouse=True)
def _in_an_empty_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def runner() -> CliRunner:
    return CliRunner()


@pytest.fixture
def ask(runner: CliRunner) -> Callable[[str], Any]:
    """Return a function that runs a command and parses its JSON."""

    def run(command: str) -> Any:
        result = runner.invoke(main, [*command.split(), "--json"])
        assert result.exit_code == 0, result.output
        assert result.stderr == ""
        return json.loads(result.stdout)

    return run


@pytest.fixture
def show(runner: CliRunner) -> Callable[[str], str]:
    """Return a function that runs a command and returns its output."""

    def run(command: str) -> str:
        result = runner.invoke(main, command.split())
        assert result.exit_code == 0, result.output
        return result.stdout.replace("\xa0", " ")

    return run


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """Write monitor.toml. Its database does not exist yet."""
    file = tmp_path / "monitor.toml"
    fleet = '[[fleet]]\nname = "turbines"\ninterval = "10m"\n'
    file.write_text(f'kafka = {{bootstrap = "b:9092", topics = ["plant"]}}\n{fleet}')
    return file


@pytest.fixture(scope="session")
def _databases(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("databases")
    asyncio.run(example_database.create(folder / "empty.db"))
    asyncio.run(example_database.fill(folder / "filled.db"))
    return folder


@pytest.fixture
def empty(config: Path, _databases: Path) -> Path:
    """Add a database without rows."""
    shutil.copy(_databases / "empty.db", config.parent / "monitor.db")
    return config


@pytest.fixture
def filled(config: Path, _databases: Path) -> Path:
    """Add the example database."""
    shutil.copy(_databases / "filled.db", config.parent / "monitor.db")
    return config


@pytest.fixture
def registry(config: Path, registry_file: Path) -> Path:
    """Add a database with versions of all states in two fleets, and a configuration of both."""
    path = config.parent / "monitor.db"
    shutil.copy(registry_file, path)
    config.write_text(console_database.CONFIG.format(path=path))
    return config


@pytest.fixture
def with_data_alerts(filled: Path) -> Path:
    """Add the example database and two alerts about the data."""
    asyncio.run(example_database.add_data_alerts(filled.parent / "monitor.db"))
    return filled
