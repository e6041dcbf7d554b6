"""The short simulation: some seeds without a violation, and each mutation noticed.

The long one is `python -m tests.simulation --seeds 10000 --jobs 2`.
"""

from __future__ import annotations

import asyncio
import gc
import itertools
from collections import Counter

import pytest

from monitor.store import leases
from tests.simulation.__main__ import vacuous
from tests.simulation.clockwork import SimulatedLoop
from tests.simulation.mutations import MUTATIONS
from tests.simulation.simulation import Simulation, run
from tests.simulation.store import Database

N_SEEDS = 100
GARBAGE_SEED = 42
"""Here a replica dies while an activation waits for its lock. Once, the garbage collector released that lock."""


def test_stored_rows_are_those_of_the_oracle() -> None:
    outcomes = [run(seed) for seed in range(N_SEEDS)]
    violations = [f"seed {outcome.seed}: {text}" for outcome in outcomes for text in outcome.violations]
    assert violations == []
    assert vacuous(sum((outcome.counts for outcome in outcomes), Counter())) == []


@pytest.mark.parametrize("name", MUTATIONS)
def test_a_protocol_without_one_rule_is_noticed(name: str) -> None:
    assert any(run(seed, MUTATIONS[name]).violations for seed in range(300))


def recorded(seed: int) -> Simulation:
    simulation = Simulation(seed)
    simulation.database.history = []
    simulation.run()
    simulation.database.close()
    return simulation


@pytest.mark.parametrize("seed", [7, GARBAGE_SEED])
def test_garbage_collection_does_not_change_a_run(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    gc.disable()
    once = recorded(seed)
    gc.freeze()  # else each collection visits all objects of torch
    select, steps = SimulatedLoop.select, itertools.count()

    def collect_and_select(loop: SimulatedLoop, timeout: float | None) -> list[object]:
        if next(steps) % 20 == 0:
            gc.collect()
        return select(loop, timeout)

    monkeypatch.setattr(SimulatedLoop, "select", collect_and_select)
    try:
        again = recorded(seed)
    finally:
        gc.unfreeze()
        gc.enable()
    assert once.outcome == again.outcome
    assert once.database.history
    assert once.database.history == again.database.history


def test_a_lease_ends_by_the_simulated_clock() -> None:
    database = Database()
    held: list[int | None] = []

    async def two_daemons() -> None:
        for holder, wait_s in (("a", 9.0), ("b", 2.0), ("b", 0.0)):
            held.append(database.transact(leases.acquire, "training", holder, 10.0))
            await asyncio.sleep(wait_s)

    SimulatedLoop().run(two_daemons())
    database.close()
    assert held == [1, None, 2]
