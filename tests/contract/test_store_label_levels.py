"""Judged alerts as a threshold learns from them, on both databases: their order, their levels, and new labels."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
from sqlalchemy import text

from monitor.explain import Evidence
from monitor.store import label_levels, labels
from monitor.store.acts import Actor
from monitor.types import AlertState, EvidencePart, JudgedAlert, Label
from tests.contract.steps import FLEET, INTERVAL_US, LENGTH, change, own

if TYPE_CHECKING:
    from collections.abc import Sequence

    from monitor.store.engine import AsyncStore
    from tests.contract.steps import Owner

ANN = Actor("ann", "cli")
CLOSED, FIRING = AlertState.CLOSED, AlertState.FIRING
POLICY = (FLEET, 3, 5, INTERVAL_US)


def evidence(opened: int, scores: Sequence[float]) -> EvidencePart:
    """Return the cells of an alert, one window each."""
    cells = np.arange(opened - 1, opened - 1 + len(scores))
    values = np.zeros((len(scores), 1), np.float32)
    return EvidencePart(
        asset=0,
        opened_us=opened * INTERVAL_US,
        sensors=("power",),
        cell_us=cells * INTERVAL_US,
        values=values,
        expected=values,
        end_us=(cells + 1) * INTERVAL_US,
        score=np.array(scores, np.float32),
        limit=4 * LENGTH,
    )


async def alert(owner: Owner, opened: int, scores: Sequence[float] = ()) -> None:
    """Open and close an alert, with the evidence of its scores."""
    rows = await owner.rows({"T1": 2.0}, opened - LENGTH)
    steps = [change(opened, opened, FIRING), change(opened, opened + 8, CLOSED)]
    await owner.save(owner.step(replace(rows, alerts=steps, evidence=[evidence(opened, scores)] if scores else [])))


async def say(store: AsyncStore, alert_id: int, label: Label | None) -> None:
    await store.run(labels.label_alert, alert_id, label, "", ANN, 0)


async def test_judged_alerts_are_in_order_of_their_labels(store: AsyncStore) -> None:
    owner = await own(store)
    for opened in (20, 40, 60, 80):
        await alert(owner, opened, (2.0, 1.5, 1.25, 3.0) if opened == 40 else ())
    await say(store, 3, Label.NORMAL)
    await say(store, 2, Label.FAULT)
    await say(store, 1, Label.IGNORE)
    weak, strong = JudgedAlert(False, 1.0), JudgedAlert(True, 1.5)
    assert await store.read(label_levels.judged_alerts, *POLICY) == [weak, strong]
    await say(store, 3, None)
    await say(store, 3, Label.NORMAL)
    assert await store.read(label_levels.judged_alerts, *POLICY) == [strong, weak]
    await say(store, 2, None)
    assert await store.read(label_levels.judged_alerts, *POLICY) == [weak]
    assert await store.read(label_levels.judged_alerts, "pumps", *POLICY[1:]) == []


async def test_levels_are_multiples_of_the_calibrated(store: AsyncStore) -> None:
    owner = await own(store)
    await alert(owner, 20, (2.0, 1.5, 1.25, 3.0))
    await say(store, 1, Label.FAULT)
    for card, level in (('{"labels": {"factor": 2.0}}', 3.0), ('{"labels": null}', 1.5), ("[]", 1.5), ("no", 1.5)):
        await store.run(lambda connection, card=card: connection.execute(
            text("UPDATE model_version SET card = :card"), {"card": card}))  # fmt: skip
        assert await store.read(label_levels.judged_alerts, *POLICY) == [JudgedAlert(True, level)]


async def test_retention_changes_no_level(store: AsyncStore) -> None:
    owner = await own(store)
    await alert(owner, 20, (2.0, 1.5, 1.25, 3.0))
    await say(store, 1, Label.FAULT)
    await store.run(lambda connection: connection.execute(text("DELETE FROM score")))
    assert await store.read(label_levels.judged_alerts, *POLICY) == [JudgedAlert(True, 1.5)]


async def test_only_the_newest_judged_alerts_are_read(store: AsyncStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(label_levels, "MAX_JUDGED", 2)
    owner = await own(store)
    for n, opened in enumerate((20, 40, 60), start=1):
        await alert(owner, opened)
        await say(store, n, Label.FAULT if n == 3 else Label.NORMAL)
    assert await store.read(label_levels.judged_alerts, *POLICY) == [JudgedAlert(False, 1.0), JudgedAlert(True, 1.0)]


async def test_new_labels_are_counted_by_fleet(store: AsyncStore) -> None:
    owner = await own(store)
    assert await store.read(label_levels.new_labels, 0) == (0, {})
    await alert(owner, 20)
    await say(store, 1, Label.FAULT)
    await say(store, 1, None)
    await store.run(labels.label_interval, FLEET, "T1", 1, 2, Label.NORMAL, "", ANN, 0)
    newest, found = await store.read(label_levels.new_labels, 0)
    assert found == {FLEET: 2}, "a labelled time is no judged alert"
    assert await store.read(label_levels.new_labels, newest) == (newest, {})


def scored(scores: Sequence[float], ends: Sequence[int]) -> Evidence:
    """Return evidence with scores of windows that end at these cells."""
    nothing = np.zeros((0, 1), np.float32)
    times = np.array(ends, np.int64) * INTERVAL_US
    return Evidence(("power",), times[:0], nothing, nothing, times, np.array(scores, np.float32))


@pytest.mark.parametrize(
    ("scores", "ends", "level"),
    [
        ((1, 2, 3, 4, 5), (1, 2, 3, 4, 5), 3),
        ((5, 1, 1, 1, 4, 3), (1, 2, 3, 4, 5, 6), 1),
        ((5, 1, 1, 3, 4), (1, 2, 3, 4, 5), 3),
        ((5, 4, 3), (1, 5, 9), 0),  # thinned out: of no five windows in a row are three left
        ((9, 9), (1, 2), 0),
        ((), (), 0),
    ],
)
def test_a_level_is_that_of_the_alert_policy(scores: Sequence[float], ends: Sequence[int], level: float) -> None:
    assert label_levels.level_of(scored(scores, ends), 3, 5, INTERVAL_US) == level


def test_an_alert_without_evidence_has_no_level() -> None:
    assert label_levels.level_of(None, 3, 5, INTERVAL_US) == 0.0
