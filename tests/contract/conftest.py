"""Every store test runs twice: over a SQLite file and over PostgreSQL. A fixture ends by counting connections."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from monitor.store import schema
from monitor.store.engine import AsyncStore

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path


@pytest.fixture(params=["sqlite", "postgresql"])
def empty_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A database without tables."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'monitor.db'}"
    url: str = request.getfixturevalue("postgres").url()
    return url


@pytest.fixture
async def url(empty_url: str) -> str:
    """A database with our tables."""
    await schema.upgrade(empty_url)
    return empty_url


@pytest.fixture
async def store(url: str) -> AsyncIterator[AsyncStore]:
    """The daemon's store."""
    async with AsyncStore(url, owner=True) as opened:
        yield opened
        assert opened.n_checked_out == 0, "a connection was left checked out"


@pytest.fixture
async def other_store(url: str, store: AsyncStore) -> AsyncIterator[AsyncStore]:
    """A second process at the same database: another daemon on PostgreSQL, an operator's command on SQLite."""
    async with AsyncStore(url) as opened:
        yield opened
        assert opened.n_checked_out == 0, "a connection was left checked out"
