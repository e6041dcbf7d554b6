"""Evidence in the database: chunks in the transaction of their alert, joined, read back, and deleted with the alert."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from sqlalchemy import text

from monitor.errors import InvariantBroken
from monitor.store import evidence as evidence_rows
from monitor.store.reader import open_reader
from monitor.types import AlertState, EvidencePart
from tests.contract.steps import INTERVAL_US, LENGTH, change, count, own

if TYPE_CHECKING:
    from monitor.explain import Evidence
    from monitor.store.engine import AsyncStore
    from tests.contract.steps import Owner

SENSORS = ("power", "pitch")
OPENED = 10
"""Cell at which the window ends that opened and fired the alert."""


def part(first: int, last: int, *, opened: int = OPENED, **changes: Any) -> EvidencePart:
    """Return the cells [first, last), each the end of a window."""
    cells = np.arange(first, last)
    values = np.stack([cells, cells % 3], axis=1).astype(np.float32)
    return EvidencePart(
        **{
            "asset": 0,
            "opened_us": opened * INTERVAL_US,
            "sensors": SENSORS,
            "cell_us": cells * INTERVAL_US,
            "values": values,
            "expected": values + 1,
            "end_us": (cells[cells >= opened - 1] + 1) * INTERVAL_US,
            "score": cells[cells >= opened - 1].astype(np.float32),
            "limit": 4 * LENGTH,
        }
        | changes
    )


async def fire(owner: Owner) -> None:
    """Score windows before an alert, and open it."""
    await owner.score(OPENED - LENGTH - 3, T1=0.25)
    await owner.score(OPENED - LENGTH - 2, T1=float("nan"))
    await owner.score(OPENED - LENGTH - 1, T1=0.5)
    starts = tuple((OPENED - LENGTH - k) * INTERVAL_US for k in range(LENGTH, 0, -1))
    first = part(OPENED - LENGTH, OPENED, earlier_start_us=starts)
    rows = await owner.rows({"T1": 2.0}, OPENED - LENGTH)
    await owner.save(
        owner.step(replace(rows, alerts=[change(OPENED, OPENED, AlertState.FIRING)], evidence=[first]))
    )


async def go_on(owner: Owner, cell: int, state: AlertState | None = None) -> None:
    """Score the window that ends with this cell."""
    rows = await owner.rows({"T1": 2.0}, cell + 1 - LENGTH)
    changes = [] if state is None else [change(OPENED, cell + 1, state)]
    await owner.save(owner.step(replace(rows, alerts=changes, evidence=[part(cell, cell + 1)])))


def read(url: str) -> Evidence:
    with open_reader(url) as reader:
        found = reader.evidence(1)
    assert found is not None
    return found


async def test_evidence_is_read_as_it_was_written(store: AsyncStore, url: str) -> None:
    owner = await own(store)
    await fire(owner)
    await go_on(owner, OPENED)
    found = await asyncio.to_thread(read, url)
    cells = np.arange(OPENED - LENGTH, OPENED + 1)
    assert found.sensors == SENSORS
    assert found.cell_us.tolist() == (cells * INTERVAL_US).tolist()
    assert found.values.tolist() == [[cell, cell % 3] for cell in cells]
    assert (found.expected == found.values + 1).all()
    ends = [OPENED - 3, OPENED - 1, OPENED, OPENED + 1]  # the second window before it has no score
    assert found.end_us.tolist() == [end * INTERVAL_US for end in ends]
    assert found.score.tolist() == [0.25, 0.5, OPENED - 1, OPENED]


async def test_many_chunks_become_one(store: AsyncStore, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evidence_rows, "MAX_CHUNKS", 3)
    owner = await own(store)
    await fire(owner)
    numbers = []
    for cell in range(OPENED, OPENED + 9):
        await go_on(owner, cell)
        numbers.append((await store.read(count, ["evidence"]))["evidence"])
    assert numbers[:4] == [2, 3, 4, 1]
    assert max(numbers) == 4
    found = await asyncio.to_thread(read, url)
    assert found.cell_us.tolist() == [cell * INTERVAL_US for cell in range(OPENED - LENGTH, OPENED + 9)]


async def test_chunks_of_a_closed_alert_become_one(store: AsyncStore, url: str) -> None:
    owner = await own(store)
    await fire(owner)
    for cell in range(OPENED, OPENED + 3):
        await go_on(owner, cell)
    await go_on(owner, OPENED + 3, AlertState.CLOSED)
    assert await store.read(count, ["evidence"]) == {"evidence": 1}
    n_cells = await store.read(lambda c: c.execute(text("SELECT n_cells FROM evidence")).scalar_one())
    assert n_cells == len((await asyncio.to_thread(read, url)).cell_us) == LENGTH + 4


async def test_a_sensor_that_came_later_is_missing_before(store: AsyncStore, url: str) -> None:
    owner = await own(store)
    await fire(owner)
    wider = np.array([[1, 2, 3]], np.float32)
    rows = await owner.rows({"T1": 2.0}, OPENED + 1 - LENGTH)
    more = part(OPENED, OPENED + 1, sensors=(*SENSORS, "heat"), values=wider, expected=wider)
    await owner.save(owner.step(replace(rows, evidence=[more])))
    found = await asyncio.to_thread(read, url)
    assert found.sensors == (*SENSORS, "heat")
    assert np.isnan(found.values[:-1, 2]).all()
    assert found.values[-1].tolist() == [1, 2, 3]


async def test_a_commit_done_twice_adds_its_evidence_once(store: AsyncStore) -> None:
    owner = await own(store)
    await fire(owner)
    rows = await owner.rows({"T1": 2.0}, OPENED + 1 - LENGTH)
    step = owner.step(replace(rows, evidence=[part(OPENED, OPENED + 1)]))
    await store.save(step)
    assert (await store.save(step)).was_done
    assert await store.read(count, ["evidence"]) == {"evidence": 2}


async def test_evidence_needs_an_alert(store: AsyncStore) -> None:
    owner = await own(store)
    rows = await owner.rows({"T1": 2.0}, 0)
    with pytest.raises(InvariantBroken, match="evidence of an alert that does not exist"):
        await owner.save(owner.step(replace(rows, evidence=[part(0, LENGTH)])))


async def test_evidence_is_deleted_with_its_alert(store: AsyncStore) -> None:
    owner = await own(store)
    await fire(owner)
    await store.run(lambda c: c.execute(text("DELETE FROM alert WHERE id = 1")) and None)
    assert await store.read(count, ["evidence"]) == {"evidence": 0}


async def test_similar_alerts_have_their_labels(store: AsyncStore, url: str) -> None:
    owner = await own(store)
    names = ("T1", "T2", "T3", "T4")
    rows = await owner.rows(dict.fromkeys(names, 2.0), OPENED - LENGTH)
    errors = np.zeros((4, LENGTH, 2), np.float32)
    errors[[0, 1], :, 0], errors[2, :, 1], errors[3, :, 0] = 5, 5, -5
    changes = [change(OPENED, OPENED, AlertState.FIRING, asset=number) for number in range(4)]
    parts = []
    for number in range(3):  # the fourth has no evidence
        each = part(OPENED - LENGTH, OPENED, asset=number)
        parts.append(replace(each, expected=each.values - errors[number]))
    await owner.save(owner.step(replace(rows, alerts=changes, evidence=parts)))
    await store.run(lambda c: c.execute(text("UPDATE alert SET label = 'fault' WHERE id = 2")) and None)

    def similar() -> list[dict[str, Any]]:
        with open_reader(url) as reader:
            assert reader.similar(4) == []
            return reader.similar(1)

    found = await asyncio.to_thread(similar)
    assert [(row["id"], row["asset"], row["label"]) for row in found] == [(2, "T2", "fault"), (3, "T3", None)]
    assert found[0]["similarity"] == pytest.approx(1.0)
    assert found[1]["similarity"] < 0.2
    assert set(found[0]) == {"id", "asset", "opened_at", "label", "label_note", "similarity"}


async def test_the_models_spread_comes_with_the_evidence(store: AsyncStore, url: str) -> None:
    owner = await own(store)
    await fire(owner)
    card = json.dumps({"spread": {"power": 0.5}})
    await store.run(lambda c: c.execute(text("UPDATE model_version SET card = :card"), {"card": card}) and None)
    found = await asyncio.to_thread(read, url)
    assert found.spread is not None
    assert found.spread[0] == 0.5
    assert np.isnan(found.spread[1])


async def test_an_alert_about_the_data_has_no_evidence(store: AsyncStore, url: str) -> None:
    await own(store)

    def none(url: str) -> bool:
        with open_reader(url) as reader:
            return reader.evidence(1) is None and reader.evidence(2**40) is None

    assert await asyncio.to_thread(none, url)
