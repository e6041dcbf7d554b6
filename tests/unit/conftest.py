"""Files that several rooms of the unit tests copy."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from tests import console_database

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="session")
def registry_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database with versions of all states in two fleets, drills and receipts, to be copied."""
    path = tmp_path_factory.mktemp("registry") / "monitor.db"
    with ThreadPoolExecutor(1) as pool:  # a test may run in an event loop
        pool.submit(console_database.fill, path, n_assets=24).result()
    return path
