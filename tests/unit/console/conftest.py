"""A console over the example database, reached without a socket."""

from __future__ import annotations

import asyncio
import shutil
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from monitor.config import load, parse
from monitor.console.app import create_app
from tests import console_database, example_database

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from fastapi import FastAPI


@pytest.fixture(scope="session")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The example database, to be copied."""
    path = tmp_path_factory.mktemp("console") / "monitor.db"
    asyncio.run(example_database.fill(path))
    return path


@pytest.fixture
def database(filled: Path, tmp_path: Path) -> Path:
    """A copy of the example database."""
    return shutil.copy(filled, tmp_path / "monitor.db")


@pytest.fixture
def make_app(database: Path) -> Callable[..., FastAPI]:
    """Make the console. Arguments: settings of `[console]`."""

    def make(**console: Any) -> FastAPI:
        config = parse(
            {
                "kafka": {"bootstrap": "b:9092", "topics": ["t"]},
                "fleet": [{"name": "turbines", "interval": "10m"}],
                "store": {"url": f"sqlite:///{database}"},
                "console": console,
            }
        )
        return create_app(config, owner="op")

    return make


@pytest.fixture
def registry_app(registry_file: Path, tmp_path: Path) -> FastAPI:
    """A console over a database with versions of all states, drills and receipts."""
    path = shutil.copy(registry_file, tmp_path / "monitor.db")
    (tmp_path / "monitor.toml").write_text(console_database.CONFIG.format(path=path))
    return create_app(load(tmp_path / "monitor.toml"), owner="op")


@pytest.fixture
def client() -> Callable[..., httpx.AsyncClient]:
    """Return a client of an application. `peer`: address from which it seems to come."""

    def make(app: FastAPI, peer: str = "127.0.0.1", host: str = "localhost:8420", **options: Any) -> httpx.AsyncClient:
        transport = httpx.ASGITransport(app, client=(peer, 4711), raise_app_exceptions=False)
        return httpx.AsyncClient(transport=transport, base_url=f"http://{host}", **options)

    return make
