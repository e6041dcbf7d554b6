"""The waits at the daemon's start, and the deregistration at its end."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack, suppress
from functools import partial
from typing import Any

import pytest

from monitor.config import Config, parse
from monitor.errors import CheckpointUnavailable, MonitorError, QuarantineLimit, StoreUnavailable
from monitor.lifecycle.champions import WindowChanged
from monitor.retry import retry_transient
from monitor.service import daemon
from monitor.service.health import Health
from monitor.service.heartbeat import Heartbeat
from monitor.service.shutdown import StopRequested
from monitor.store import daemons
from tests.fakes import FakeClock, RecordedLog


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch) -> RecordedLog:
    log = RecordedLog()
    monkeypatch.setattr(daemon, "log", log)
    return log


async def test_the_start_logs_each_cause_of_an_outage_once_and_shows_it(log: RecordedLog) -> None:
    health = Health()
    database = StoreUnavailable("connection refused")
    one, two = (CheckpointUnavailable(f"/{name}: No such file", f"Waiting for {name}") for name in ("v1", "v2"))
    outages: list[MonitorError] = [database, database, one, one, two]
    shown = []

    async def work() -> str:
        shown.append(health._waits_for)
        if outages:
            raise outages.pop(0)
        return "done"

    pause = partial(asyncio.sleep, 0)
    assert await retry_transient(work, pause=pause, observer=daemon._StartOutage(health)) == "done"
    assert shown == [None, database, database, one, one, two]
    assert health._waits_for is None
    assert [line["error"] for line in log.of("database_away")] == ["connection refused"]
    logged = [line["error"] for line in log.of("checkpoint_away")]
    assert logged == ["/v1: No such file. Waiting for v1", "/v2: No such file. Waiting for v2"]


class TransactionRecorder:
    """Records the transactions that are asked for."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []

    async def run(self, *work: Any) -> None:
        self.calls.append(work)


@pytest.mark.parametrize(
    ("error", "is_deliberate"),
    [
        (None, True),
        (StopRequested(), True),
        (QuarantineLimit("600 of the last 1000 records"), True),
        (WindowChanged("pumps", 144, "pca-1"), True),
        (MemoryError(), False),
        (KeyError("a defect"), False),
    ],
    ids=lambda value: type(value).__name__,
)
async def test_a_crash_is_remembered_for_the_next_owner(error: BaseException | None, is_deliberate: bool) -> None:
    store: Any = TransactionRecorder()
    nothing: Any = None
    heartbeat = Heartbeat(nothing, store, "host:1", FakeClock(), nothing)
    with suppress(BaseException):
        async with AsyncExitStack() as stack:
            stack.push_async_exit(heartbeat.deregister)
            if error is not None:
                raise error
    assert store.calls == [(daemons.deregister, "host:1", is_deliberate)]


async def test_changed_windows_start_it_anew(log: RecordedLog, monkeypatch: pytest.MonkeyPatch) -> None:
    config = parse(
        {
            "kafka": {"bootstrap": "b:9092", "topics": ["t"]},
            "fleet": [{"name": name, "interval": "1m", "window": "auto", "assets": name} for name in ("pumps", "fans")],
        }
    )
    seen = []

    async def work(config: Config, *_: object) -> None:
        seen.append([fleet.length for fleet in config.fleets])
        if len(seen) < 3:
            raise WindowChanged("pumps", 90 * len(seen), f"pca-{len(seen)}")
        raise StopRequested

    monkeypatch.setattr(daemon, "_run", work)
    monkeypatch.setattr(daemon, "stop_on_signals", lambda _timing: asyncio.Event())
    await daemon.run(config)
    assert seen == [[64, 64], [90, 64], [180, 64]]
    assert [(line["fleet"], line["cells"]) for line in log.of("window_changed")] == [("pumps", 90), ("pumps", 180)]


async def test_two_tasks_may_find_changed_windows_at_once() -> None:
    async def find(fleet: str) -> None:
        raise WindowChanged(fleet, 144, "pca-1")

    with pytest.raises(WindowChanged):
        async with daemon._BackgroundTasks(find("pumps"), find("fans")):
            await asyncio.sleep(60)
