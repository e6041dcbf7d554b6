"""Retention of scores: each fleet has its own clock, and only scores are deleted."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import TYPE_CHECKING

import numpy as np
import pytest
from sqlalchemy import text

from monitor.config import parse
from monitor.replay.offsets import RunSummary, summarize_run
from monitor.service.maintenance import Maintenance, expiry_by_fleet, prune_scores
from monitor.store import burn, results, schema, scores, versions
from monitor.store.engine import AsyncStore
from monitor.store.reader import open_reader
from monitor.types import AlertState
from tests.contract.steps import INTERVAL_US, LENGTH, change, own, publish, rows_of
from tests.fakes import FakeClock

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from tests.contract.steps import Owner

KEEP = 10
"""Cells from the end of a window, whose start is `LENGTH` cells earlier."""
LEFT = KEEP - LENGTH
CONFIG = parse(
    {
        "kafka": {"bootstrap": "b:9092", "topics": ["t"]},
        "store": {"keep_scores": "100m"},
        "fleet": [
            {"name": name, "interval": "10m", "sensors": ["a"], "assets": f"{name}*"} for name in ("fast", "slow")
        ],
    }
)


class RequestedMaintenance:
    """Maintenance that runs on request, long after its last run."""

    def __init__(self, store: AsyncStore) -> None:
        self._clock = FakeClock()
        self._maintenance = Maintenance(CONFIG, store, self._clock, None)

    async def run(self) -> None:
        self._clock.advance(86_400)
        await self._maintenance.run_once()


async def save(owner: Owner, fleet: str, *cells: int) -> None:
    for cell in cells:
        await owner.save(owner.step(await owner.rows({fleet: 0.5}, cell, fleet=fleet)))


def stored(connection: Connection) -> dict[str, list[int]]:
    found: dict[str, list[int]] = {}
    rows = "SELECT fleet, start_us FROM score JOIN asset ON asset.id = asset_id ORDER BY start_us"
    for fleet, start_us in connection.execute(text(rows)):
        found.setdefault(fleet, []).append(start_us // INTERVAL_US)
    return found


# ---------------------------------------------------------------- the clock of a fleet


async def test_a_stopped_fleet_keeps_its_scores_and_delays_no_other(store: AsyncStore) -> None:
    owner, maintenance = await own(store), RequestedMaintenance(store)
    await maintenance.run()
    await save(owner, "slow", *range(20))
    await save(owner, "fast", *range(15, 100, 5))
    await maintenance.run()
    left = {"slow": list(range(19 - LEFT, 20)), "fast": [90, 95]}
    assert await store.read(stored) == left
    await maintenance.run()
    assert await store.read(stored) == left
    await save(owner, "fast", 100)
    await maintenance.run()
    assert await store.read(stored) == left | {"fast": [95, 100]}


async def test_a_fleet_that_catches_up_keeps_its_scores(store: AsyncStore) -> None:
    owner, maintenance = await own(store), RequestedMaintenance(store)
    for cell in range(0, 40, 4):
        await save(owner, "fast", 1000 + cell)
        await save(owner, "slow", cell)
        await maintenance.run()
        kept = [each for each in range(0, cell + 1, 4) if each >= cell - LEFT]
        assert await store.read(stored) == {"fast": [1000 + each for each in kept], "slow": kept}


async def test_fleets_at_any_distance_keep_their_own_scores(store: AsyncStore) -> None:
    random = np.random.default_rng(0)
    owner, maintenance = await own(store), RequestedMaintenance(store)
    at = {"a": 0, "b": 7, "c": 60}
    written: dict[str, list[int]] = {fleet: [] for fleet in at}
    for _ in range(40):
        for fleet in at:
            if random.random() < 0.6:
                at[fleet] += int(random.integers(1, 8))
                await save(owner, fleet, at[fleet])
                written[fleet].append(at[fleet])
        await maintenance.run()
        assert await store.read(stored) == {
            fleet: [cell for cell in cells if cell >= cells[-1] - LEFT] for fleet, cells in written.items() if cells
        }


@pytest.mark.parametrize("saved_us", [100 * INTERVAL_US, 1], ids=["now", "a clock of 1970"])
async def test_a_window_of_the_future_is_nobodys_clock(store: AsyncStore, saved_us: int) -> None:
    """One asset of the year 2099: `db prune` deleted the scores of all others, and no new model decided anything."""
    owner = await own(store)
    far = 4_000_000_000_000_000 // INTERVAL_US
    for cell in (60, 90):
        rows = await owner.rows({"s1": 0.5, "s2": 0.5, "s3": 0.5}, cell, fleet="slow")
        await owner.save(owner.step(rows, at_us=saved_us))
    await owner.save(owner.step(await owner.rows({"s9": 0.5}, far, fleet="slow"), at_us=saved_us))
    newest_us = (90 + LENGTH) * INTERVAL_US
    assert await store.read(scores.newest_us) == {"slow": newest_us}
    before = await expiry_by_fleet(store, timedelta(minutes=200))
    assert before == {"slow": newest_us - 20 * INTERVAL_US}
    await prune_scores(store, before)
    assert await store.read(stored) == {"slow": [90, 90, 90, far]}
    for version in ("s1", "s2"):
        await publish(store, version, "slow")
        activated = await store.run(versions.activate, "slow", version, versions.FOREVER_AGO_US)
        assert activated.from_window_end_us == newest_us


async def test_pruning_in_steps_passes_over_other_fleets(store: AsyncStore) -> None:
    owner = await own(store)
    for cell in range(6):
        await save(owner, "slow", cell)
        await save(owner, "fast", cell)
    at_us, beyond_us, steps = INTERVAL_US, 5 * INTERVAL_US, []
    while at_us < beyond_us:
        deleted, at_us = await store.run(scores.prune, ["fast"], at_us, beyond_us, 3)
        steps.append(dict(deleted))
    assert steps == [{"fast": 2}, {"fast": 2}, {}], "two starts in each step"
    assert await store.read(stored) == {"slow": [0, 1, 2, 3, 4, 5], "fast": [0, 5]}


async def test_an_operator_prunes_while_a_daemon_commits(store: AsyncStore, other_store: AsyncStore) -> None:
    owner = await own(store)
    await save(owner, "fast", *range(20))
    busy = asyncio.create_task(save(owner, "fast", *range(20, 40)))
    n = 0
    while not busy.done():
        n += (await prune_scores(other_store, {"fast": 25 * INTERVAL_US})).total()
    await busy
    n += (await prune_scores(other_store, {"fast": 25 * INTERVAL_US})).total()
    assert n == 25
    assert await store.read(stored) == {"fast": list(range(25, 40))}


# ---------------------------------------------------------------- kept rows


async def test_retention_keeps_the_boundary_between_models(store: AsyncStore) -> None:
    """Even without any score of a fleet, decided windows keep their version."""
    owner = await own(store)
    await publish(store, "s1", "slow")
    await store.run(versions.activate, "slow", "s1", 0)
    await save(owner, "slow", 8)
    await prune_scores(store, {"slow": 1000 * INTERVAL_US})
    assert await store.read(stored) == {}
    assert await store.read(scores.newest_us) == {"slow": (8 + LENGTH) * INTERVAL_US}
    await publish(store, "s2", "slow")
    activated = await store.run(versions.activate, "slow", "s2", versions.FOREVER_AGO_US)
    assert activated.from_window_end_us == (8 + LENGTH) * INTERVAL_US
    assert len(await store.read(rows_of, "model_activation")) == 2


async def test_a_migrated_database_knows_its_newest_windows(url: str) -> None:
    """The upgrade reads the end from the scores. Without them, the last window's start serves as the boundary."""
    async with AsyncStore(url, owner=True) as store:
        owner = await own(store)
        await save(owner, "slow", 8)
        await save(owner, "fast", 8, 20)
        await prune_scores(store, {"slow": 1000 * INTERVAL_US})
    await schema.downgrade(url, "0001")
    await schema.upgrade(url)
    async with AsyncStore(url, owner=True) as store:
        known = await store.read(scores.newest_us)
    assert known == {"slow": 8 * INTERVAL_US, "fast": (20 + LENGTH) * INTERVAL_US}


async def test_alerts_without_scores_are_no_evidence(store: AsyncStore) -> None:
    """A stopped fleet keeps older scores, for which the other fleet has none."""
    threshold = {"alarms_per_week": 1.0, "step_s": 600.0, "n_episodes": 0, "weeks": 1.0}
    owner = await own(store)
    await publish(store, "f1", "fast")
    await store.run(versions.activate, "fast", "f1", versions.FOREVER_AGO_US)
    await save(owner, "slow", 0)
    for cell in range(40):
        ends = cell + LENGTH
        life = AlertState.FIRING, AlertState.CLOSED
        alerts = [change(ends, ends, state, fleet="fast", version="f1") for state in life if cell in (5, 30)]
        await owner.save(owner.step(await owner.rows({"fast": 0.5}, cell, fleet="fast", version=["f1"], alerts=alerts)))
    await prune_scores(store, {"slow": 0, "fast": 20 * INTERVAL_US})
    found = await store.read(
        lambda connection: burn.budget_report(burn.fetch_through(connection), "fast", "f1", threshold)
    )
    assert found is not None
    assert len(await store.read(rows_of, "alert")) == 2
    assert found.own.weeks == found.recent.weeks == pytest.approx(20 / 1008)
    assert (found.own.n_alarms, found.recent.n_alarms) == (1, 1)
    assert found.from_us == (20 + LENGTH - 1) * INTERVAL_US


async def test_a_replay_is_compared_with_the_kept_scores(store: AsyncStore, url: str) -> None:
    owner = await own(store)
    await save(owner, "slow", *range(5))
    await save(owner, "fast", *range(5, 15))
    names = {("slow", "slow"), ("fast", "fast")}

    def summary(since_us: dict[str, int] | None = None) -> RunSummary:
        with open_reader(url) as reader:
            return summarize_run(reader, CONFIG, results.FIRST_US, results.LAST_US, names, since_us)

    fresh = {"slow": 0, "fast": 9 * INTERVAL_US}
    again = await asyncio.to_thread(summary, fresh)
    await prune_scores(store, fresh)
    live = await asyncio.to_thread(summary)
    assert live == again
    assert (live.windows, live.first_us) == (11, fresh)
