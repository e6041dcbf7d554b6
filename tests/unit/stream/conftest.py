"""Fixtures of this folder: a database, and a recovery point that moves with every commit."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from monitor.store.engine import AsyncStore
from monitor.timing import DEFAULT_TIMING

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from monitor.timing import Timing


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[AsyncStore]:
    async with AsyncStore(f"sqlite:///{tmp_path}/monitor.db", owner=True) as opened:
        yield opened
        assert opened.n_checked_out == 0


@pytest.fixture
def eager(monkeypatch: pytest.MonkeyPatch) -> Timing:
    """The recovery point moves with every commit, not every two seconds."""
    monkeypatch.setattr("monitor.stream.recovery.UPDATE_SHARE", 1e9)
    return replace(DEFAULT_TIMING, rewind_look_every_s=-1.0)
