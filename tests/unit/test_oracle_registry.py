"""The oracle of the registry: it agrees with an honest registry, and notices each tampered row."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from monitor.store import registry
from monitor.store.acts import MONITOR, Actor
from monitor.store.engine import AsyncStore
from monitor.types import ModelState
from tests.oracle.registry import activation_problems, registry_problems

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence
    from pathlib import Path

    from sqlalchemy import Connection

EVA = Actor("eva", "cli")
SCORE = (
    "INSERT INTO score (asset_id, start_us, end_us, verdict, version_id, n_present, first_offset, last_offset)"
    " SELECT 1, 0, 60, 1, id, 1, 0, 0 FROM model_version WHERE version = '{}'"
)


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[AsyncStore]:
    """A history with each kind of act: v1, v2 and v3 were champions, v4 was rejected, v5 is in shadow."""
    async with AsyncStore(f"sqlite:///{tmp_path}/monitor.db", owner=True) as store:
        for number, (version, state) in enumerate(
            {
                "v1": ModelState.CANDIDATE, "v2": ModelState.CANDIDATE, "v3": ModelState.CANDIDATE,
                "v4": ModelState.REJECTED, "v5": ModelState.SHADOW,
            }.items()
        ):  # fmt: skip
            new: dict[str, Any] = {"version": version, "fleet": "pumps", "path": "p", "trained_us": 1, "card": {}}
            verdict = {"passed": state != ModelState.REJECTED, "why": "drawn"}
            call: dict[str, Any] = {"state": state, "verdict": verdict, "actor": MONITOR, "at_us": number}
            await store.run(registry.publish, metrics={}, **call, **new)
        for at_us, version in ((10, "v1"), (20, "v2"), (30, "v3")):
            await store.run(registry.promote, "pumps", version, actor=EVA, at_us=at_us, after_us=at_us)
        await store.run(registry.roll_back, "pumps", actor=EVA, at_us=40)
        await execute(store, "INSERT INTO asset (id, fleet, name, topic, partition) VALUES (1, 'pumps', 'P1', 't', 0)")
        yield store


async def execute(store: AsyncStore, sql: str) -> None:
    await store.run(lambda connection: connection.exec_driver_sql(sql))


async def problems(store: AsyncStore) -> list[str]:
    def ask(connection: Connection) -> list[str]:
        def fetch(sql: str) -> Sequence[Any]:
            return connection.exec_driver_sql(sql).all()

        return [*registry_problems(fetch), *activation_problems(fetch)]

    return await store.read(ask)


async def test_an_honest_registry_has_no_problem(store: AsyncStore) -> None:
    await execute(store, SCORE.format("v2"))
    assert await problems(store) == []


@pytest.mark.parametrize(
    ("statement", "problem"),
    [
        (SCORE.format("v4"), "v4 decided windows, and was never the champion"),
        (SCORE.format("v5"), "v5 decided windows, and was never the champion"),
        (SCORE.format("v1"), "windows that end at 60 were scored by version v1, not by v2"),
        ("UPDATE model_alias SET version_id = 1 WHERE alias = 'champion'", "champion is v1, by its history v2"),
        ("DELETE FROM model_alias WHERE alias = 'previous'", "previous is None, by its history v3"),
        ("UPDATE model_version SET state = 'retired' WHERE version = 'v3'", "v3 is retired, by its history rolled"),
        ("UPDATE model_version SET rolled_back_us = NULL", "v3 has the mark of a roll-back None"),
        ("DELETE FROM model_activation WHERE from_window_end_us = 10", "None is active from 10, by its history v1"),
        ("UPDATE model_activation SET version_id = 4 WHERE from_window_end_us = 30", "v4 is active from 30"),
        ("DELETE FROM model_event WHERE event = 'rolled_back'", "champion is v2, by its history v3"),
        ("UPDATE model_event SET event = 'rejected', detail = NULL WHERE version_id = 1 AND event = 'proposed'",
         "v1 was rejected, and was promoted"),
        ("UPDATE model_version SET pruned_us = 5 WHERE version = 'v4'", "v4 was pruned without an event"),
    ],
)  # fmt: skip
async def test_a_tampered_registry_is_noticed(store: AsyncStore, statement: str, problem: str) -> None:
    await execute(store, statement)
    assert any(problem in each for each in await problems(store)), await problems(store)
