"""The short simulation: some seeds without a violation, each mutation caught, and a fake database that is no fiction.

The long one is `python -m tests.simulation --seeds 10000 --jobs 2`.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest

from monitor.errors import MonitorError
from monitor.store.engine import AsyncStore
from tests.oracle.check import QUERIES, StoredRows, stored_rows
from tests.simulation.__main__ import vacuous
from tests.simulation.database import FUNCTIONS
from tests.simulation.judge import rows_of
from tests.simulation.mutations import MUTATIONS
from tests.simulation.world import World, run

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

N_SEEDS = 100
DATA_ALERTS = """
    SELECT kind, topic, partition, from_offset, fleet, state, n_anomalous, message,
        (SELECT COUNT(*) FROM alert_transition WHERE alert_id = alert.id)
    FROM alert WHERE class = 'data'
"""


def test_whatever_befalls_the_replicas_the_tables_are_the_oracles() -> None:
    outcomes = [run(seed) for seed in range(N_SEEDS)]
    violations = [f"seed {outcome.seed}: {text}" for outcome in outcomes for text in outcome.violations]
    assert violations == []
    assert vacuous(sum((outcome.counts for outcome in outcomes), Counter())) == []


@pytest.mark.parametrize("name", MUTATIONS)
def test_a_protocol_without_one_of_its_rules_is_caught(name: str) -> None:
    assert any(run(seed, MUTATIONS[name]).violations for seed in range(300))


def recorded(seed: int) -> World:
    world = World(seed)
    world.database.history = []
    world.live()
    return world


def test_the_same_seed_is_the_same_run() -> None:
    once, again = recorded(7), recorded(7)
    assert once.outcome == again.outcome
    assert once.database.history is not None
    assert again.database.history is not None
    assert [(fn, alike(outcome)) for fn, *_, outcome in once.database.history] == [
        (fn, alike(outcome)) for fn, *_, outcome in again.database.history
    ]


def test_the_fake_database_answers_as_sqlite_does(tmp_path: Path) -> None:
    """Until every function and every refusal was met."""
    wanted = {fn.__name__ for fn in FUNCTIONS} - {"learn", "homes_of"}  # as a part of save; only where names are many
    wanted |= {"Fenced", "ModelsChanged", "resolved", "compared alerts", "compared letters", "gaps", "snapshots"}
    wanted |= {"compared records_lost alerts", "compared asset_limit alerts", "data alerts over"}
    met: Counter[str] = Counter()
    seed = 0
    while wanted - met.keys() or seed < 4:
        world = recorded(seed)
        history = world.database.history or []
        tables, letters, data_alerts = asyncio.run(replay(history, f"sqlite:///{tmp_path}/{seed}.db"))
        assert letters == set(world.database.letter)
        assert data_alerts == {
            (kind, *where, offset, row.change.fleet, row.change.state, row.change.n_records, row.change.message,
             len(row.transitions))
            for (kind, where, offset), row in world.database.data_alert.items()
        }  # fmt: skip
        assert sorted_rows(tables) == sorted_rows(rows_of(world))
        met.update(fn.__name__ for fn, *_ in history)
        met.update(type(outcome).__name__ for *_, outcome in history)
        met += world.counts
        seed += 1


async def replay(history: list[Any], url: str) -> tuple[StoredRows, set[str], set[tuple[Any, ...]]]:
    """Do to a real database what was done to the fake one; each answer must be the same."""
    assert len(history) > 20
    async with AsyncStore(url, owner=True) as store:
        for number, (fn, args, kwargs, outcome) in enumerate(history):
            try:
                answer = await store.run(fn, *args, **kwargs)
            except MonitorError as error:
                answer = error
            assert alike(answer) == alike(outcome), f"call {number}, {fn.__name__}{args}"
        tables = await store.read(lambda c: stored_rows(lambda sql: c.exec_driver_sql(sql).all()))
        named = dict(await store.read(lambda c: c.exec_driver_sql("SELECT id, version FROM model_version").all()))
        letters = set(await store.read(lambda c: c.exec_driver_sql("SELECT dedup_key FROM outbox").scalars().all()))
        data_alerts = {tuple(row) for row in await store.read(lambda c: c.exec_driver_sql(DATA_ALERTS).all())}
    tables.scores = [(*row[:8], named.get(row[8])) for row in tables.scores]
    return tables, letters, data_alerts


def alike(outcome: Any) -> Any:
    """An answer without what does not matter: the words of an error, the kind of a sequence."""
    if isinstance(outcome, MonitorError):
        return type(outcome)
    if hasattr(outcome, "snapshots"):
        return str(outcome.counters), outcome.epoch, outcome.next_offset, outcome.rewind_offset, outcome.rewind_state, \
            outcome.digest, sorted(outcome.snapshots)  # fmt: skip
    return outcome


def sorted_rows(rows: StoredRows) -> dict[str, list[str]]:
    return {name: sorted(str(comparable(row)) for row in getattr(rows, name)) for name in QUERIES}


def comparable(row: Sequence[Any]) -> tuple[Any, ...]:
    return tuple(field.replace('": ', '":').replace(", ", ",") if isinstance(field, str) else field for field in row)
