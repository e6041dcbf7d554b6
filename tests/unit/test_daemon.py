"""How the daemon waits at its start."""

from __future__ import annotations

import asyncio

import pytest

from monitor import daemon
from monitor.errors import CheckpointUnavailable, MonitorError, StoreUnavailable
from monitor.health import Health
from tests.unit.kept_log import Log


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch) -> Log:
    log = Log()
    monkeypatch.setattr(daemon, "log", log)
    monkeypatch.setattr(daemon, "OUTAGE_RETRY_S", 0.0)
    return log


async def test_each_thing_that_the_start_waits_for_is_told_once_and_shown_until_it_is_there(log: Log) -> None:
    health = Health()
    database = StoreUnavailable("connection refused")
    one, two = (CheckpointUnavailable(f"/{name}: No such file", f"Waiting for {name}") for name in ("v1", "v2"))
    outages: list[MonitorError] = [database, database, one, one, two]
    shown = []

    async def work() -> str:
        shown.append(health.waits_for)
        if outages:
            raise outages.pop(0)
        return "done"

    assert await daemon._despite_outages(work, asyncio.Event(), health) == "done"
    assert shown == [None, database, database, one, one, two]
    assert health.waits_for is None
    assert [line["error"] for line in log.of("database_away")] == ["connection refused"]
    told = [line["error"] for line in log.of("checkpoint_away")]
    assert told == ["/v1: No such file. Waiting for v1", "/v2: No such file. Waiting for v2"]
