from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from monitor.lifecycle import champions, job_runner, scheduler
from monitor.store.engine import AsyncStore
from tests.fakes import RecordedLog
from tests.unit.lifecycle.checkpoints import DaemonParts

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator
    from pathlib import Path


@pytest.fixture(autouse=True)
def log(monkeypatch: pytest.MonkeyPatch) -> RecordedLog:
    """The log lines of the room."""
    log = RecordedLog()
    monkeypatch.setattr(champions, "log", log)
    monkeypatch.setattr(scheduler, "log", log)
    monkeypatch.setattr(job_runner, "log", log)
    return log


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[AsyncStore]:
    async with AsyncStore(f"sqlite:///{tmp_path}/monitor.db", owner=True) as store:
        yield store


@pytest.fixture
def daemon(store: AsyncStore) -> Iterator[Callable[..., DaemonParts]]:
    """Make daemons over `store`. Their scoring threads end with the test."""
    made: list[DaemonParts] = []

    def make(*args: Any, **kwargs: Any) -> DaemonParts:
        made.append(DaemonParts(store, *args, **kwargs))
        return made[-1]

    yield make
    for each in made:
        each.scorer.close()
