"""Operators' actions and the errors of refused ones."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from monitor import control
from monitor.errors import Conflict, NotFound
from monitor.store import assets, daemons, jobs
from monitor.store.engine import AsyncStore
from tests.fakes import FakeClock

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

FLEET = "turbines"


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[AsyncStore]:
    async with AsyncStore(f"sqlite:///{tmp_path / 'monitor.db'}", owner=True) as opened:
        yield opened
        assert opened.n_checked_out == 0


async def test_a_retraining_is_queued_without_a_daemon(store: AsyncStore) -> None:
    await store.run(assets.ensure_fleet, FLEET)
    requested = await control.request_retraining(store, FakeClock(), FLEET, by="ann")
    assert (requested.job.state, requested.job.requested_by, requested.n_daemons) == ("queued", "ann", 0)
    assert await control.job(store, requested.job.id) == requested.job


async def test_a_running_daemon_is_counted(store: AsyncStore) -> None:
    clock = FakeClock()
    await store.run(assets.ensure_fleet, FLEET)
    alive = {"owner": "me", "pipeline": "monitor", "started_us": 0, "now_us": clock.now_us(), "status": "lag 0"}
    await store.run(daemons.heartbeat, **alive)
    clock.advance(5)
    assert (await control.request_retraining(store, clock, FLEET, by="ann")).n_daemons == 1


async def test_a_second_request_names_the_running_job(store: AsyncStore) -> None:
    await store.run(assets.ensure_fleet, FLEET)
    await control.request_retraining(store, FakeClock(), FLEET, by="ann")
    await store.run(jobs.start_next, "me", 1)
    with pytest.raises(Conflict, match="is running, 0% done, asked for by ann"):
        await control.request_retraining(store, FakeClock(), FLEET, by="bob")


async def test_an_unknown_fleet_is_refused_with_the_known_ones(store: AsyncStore) -> None:
    with pytest.raises(NotFound, match="none yet"):
        await control.request_retraining(store, FakeClock(), FLEET, by="ann")
    await store.run(assets.ensure_fleet, "pumps")
    with pytest.raises(NotFound, match="the database knows pumps"):
        await control.request_retraining(store, FakeClock(), FLEET, by="ann")
