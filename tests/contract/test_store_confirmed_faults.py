"""Confirmed faults with their kept evidence, on both databases: which are remembered, in which order, and for ever."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from sqlalchemy import text

from monitor.store import labels, scores
from monitor.store.acts import Actor
from monitor.store.confirmed_faults import confirmed_faults
from monitor.store.evidence_chunks import joined
from monitor.types import AlertState, EvidencePart, Label
from tests.contract.steps import FLEET, INTERVAL_US, LENGTH, change, own, rows_of

if TYPE_CHECKING:
    from monitor.store.engine import AsyncStore
    from tests.contract.steps import Owner

ANN = Actor("ann", "cli")


async def alert(owner: Owner, opened: int) -> None:
    """Open and close an alert with evidence, each in an incident of its own."""
    cells = np.arange(opened - LENGTH, opened + 8)
    values = np.full((len(cells), 1), opened, np.float32)
    evidence = EvidencePart(
        asset=0,
        opened_us=opened * INTERVAL_US,
        sensors=("power",),
        cell_us=cells * INTERVAL_US,
        values=values,
        expected=values,
        end_us=(cells[-1:] + 1) * INTERVAL_US,
        score=np.array([2.0], np.float32),
        limit=4 * LENGTH,
    )
    rows = await owner.rows({"T1": 2.0}, opened - LENGTH)
    steps = [change(opened, opened, AlertState.FIRING), change(opened, opened + 8, AlertState.CLOSED)]
    await owner.save(owner.step(replace(rows, alerts=steps, evidence=[evidence])))


async def say(store: AsyncStore, alert_id: int, label: Label | None, note: str = "") -> None:
    await store.run(labels.label_alert, alert_id, label, note, ANN, 0)


async def test_the_last_confirmed_faults_come_first(store: AsyncStore) -> None:
    owner = await own(store)
    for opened in (200, 400, 600, 800):
        await alert(owner, opened)
    for number, label in ((3, Label.FAULT), (1, Label.FAULT), (2, Label.NORMAL), (4, Label.IGNORE)):
        await say(store, number, label, "bearing")
    found = await store.read(confirmed_faults, FLEET, 20)
    assert [each.alert for each in found] == [1, 3]
    assert [each.alert for each in await store.read(confirmed_faults, FLEET, 1)] == [1]
    assert await store.read(confirmed_faults, FLEET, 0) == []
    assert await store.read(confirmed_faults, "pumps", 20) == []
    assert (found[0].asset, found[0].opened_us, found[0].note) == ("T1", 200 * INTERVAL_US, "bearing")
    evidence = joined(found[0].chunks)
    assert evidence is not None
    assert (evidence.values == 200).all()
    await say(store, 1, None)
    assert [each.alert for each in await store.read(confirmed_faults, FLEET, 20)] == [3]


async def test_a_flapping_fault_is_remembered_once(store: AsyncStore) -> None:
    owner = await own(store)
    for opened in (200, 400, 600):
        await alert(owner, opened)
        await say(store, opened // 200, Label.FAULT)

    def gather(connection) -> None:  # type: ignore[no-untyped-def]
        connection.execute(text("UPDATE alert SET incident_id = 1"))
        connection.execute(text("UPDATE alert SET peak_score = CASE WHEN id = 2 THEN 9.0 ELSE 2.0 END"))

    await store.run(gather)
    assert [each.alert for each in await store.read(confirmed_faults, FLEET, 20)] == [2]


async def test_retention_keeps_confirmed_faults(store: AsyncStore) -> None:
    owner = await own(store)
    await alert(owner, 200)
    await say(store, 1, Label.FAULT)
    assert await store.read(rows_of, "score") != []
    before = await store.read(confirmed_faults, FLEET, 20)
    await store.run(scores.prune, [FLEET], 0, 10**6 * INTERVAL_US, 10_000)
    assert await store.read(rows_of, "score") == []
    assert await store.read(confirmed_faults, FLEET, 20) == before
    assert before[0].chunks
