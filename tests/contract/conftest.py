"""Fixtures of the store contract, which runs on SQLite and PostgreSQL. Each store must return its connections."""

from __future__ import annotations

import asyncio
import itertools
import shutil
from typing import TYPE_CHECKING

import pytest

from monitor.store import schema
from monitor.store.engine import AsyncStore

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from tests.servers import PostgresServer

_numbers = itertools.count(1)


@pytest.fixture(params=["sqlite", "postgresql"])
def empty_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A database without tables."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'monitor.db'}"
    url: str = request.getfixturevalue("postgres").url()
    return url


@pytest.fixture(scope="session")
def migrated_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A SQLite file with all tables, to be copied: a migration takes longer than most tests."""
    file = tmp_path_factory.mktemp("migrated") / "monitor.db"
    asyncio.run(schema.upgrade(f"sqlite:///{file}"))
    return file


@pytest.fixture(scope="session")
def migrated_database(postgres: PostgresServer) -> str:
    """A PostgreSQL database with all tables, to be copied."""
    url = postgres.url()
    asyncio.run(schema.upgrade(url))
    return url


@pytest.fixture
def file(migrated_file: Path, tmp_path: Path) -> Path:
    """A SQLite file with all tables."""
    return shutil.copy(migrated_file, tmp_path / "monitor.db")


@pytest.fixture
def server_url(migrated_database: str, postgres: PostgresServer) -> str:
    """A PostgreSQL database with all tables."""
    server, _, template = migrated_database.rpartition("/")
    name = f"copy_{next(_numbers)}"
    postgres.execute(f"CREATE DATABASE {name} TEMPLATE {template}")
    return f"{server}/{name}"


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest) -> str:
    """A database with all tables."""
    if request.param == "sqlite":
        return f"sqlite:///{request.getfixturevalue('file')}"
    url: str = request.getfixturevalue("server_url")
    return url


@pytest.fixture
async def store(url: str) -> AsyncIterator[AsyncStore]:
    """The daemon's store."""
    async with AsyncStore(url, owner=True) as opened:
        yield opened
        assert opened.n_checked_out == 0, "a connection was left checked out"


@pytest.fixture
async def other_store(url: str, store: AsyncStore) -> AsyncIterator[AsyncStore]:
    """A second process on the same database: another daemon on PostgreSQL, an operator's command on SQLite."""
    async with AsyncStore(url) as opened:
        yield opened
        assert opened.n_checked_out == 0, "a connection was left checked out"
