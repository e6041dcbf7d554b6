"""Restored state of a partition: assets, last windows, recent verdicts and open alerts."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
from sqlalchemy import text

from monitor.evaluation.assess import bare_scores
from monitor.service.maintenance import prune_scores
from monitor.store import assets
from monitor.stream.alerting import AlertPolicy, Decider, PastVerdict
from monitor.types import AlertState, Contribution, Partition
from tests.contract.steps import CONTRIBUTIONS, FLEET, HOME, INTERVAL_US, LENGTH, change, own

if TYPE_CHECKING:
    from monitor.store.assets import KnownAsset
    from monitor.store.engine import AsyncStore

POLICY = AlertPolicy(confirm=2, among=3, recover=4)


async def restored(store: AsyncStore, partition: Partition = HOME) -> dict[str, KnownAsset]:
    known = await store.read(assets.restore, partition)
    return {asset.name: asset for asset in known.get(FLEET, [])}


async def test_an_empty_partition_restores_nothing(store: AsyncStore) -> None:
    assert await store.read(assets.restore, HOME) == {}


@pytest.mark.parametrize("seed", range(4))
async def test_a_restart_at_any_time_leads_to_the_same_alerts(store: AsyncStore, seed: int) -> None:
    """With unscored windows, silent assets, retention that deletes all scores, and a second partition."""
    random = np.random.default_rng(seed)
    owner, neighbour = await own(store), await own(store, Partition("plant.readings", 1))
    names = [f"a{number}" for number in range(6)]
    await owner.score(0, **dict.fromkeys(names, 0.5))
    ids = [owner.ids[name] for name in names]
    living, n_alerts = Decider(FLEET, POLICY), 0
    for cell in range(1, 60):
        present = np.flatnonzero(random.random(6) < 0.6).astype(np.int32)
        if not len(present):
            continue
        score = random.choice([0.5, 0.5, 2.0, np.nan], len(present)).astype(np.float32)
        end_us = np.full(len(present), (cell + LENGTH) * INTERVAL_US)
        restored_ = Decider(FLEET, POLICY)
        for number, asset in enumerate((await restored(store)).values()):
            assert asset.id == ids[number]
            past = (PastVerdict(*verdict) for verdict in asset.recent)
            restored_.restore(number, past, asset.open_alert, asset.closed_us)
        changes = living.decide(bare_scores(score, present), end_us)
        again = restored_.decide(bare_scores(score, present), end_us)
        assert [replace(each, contributions=()) for each in again] == changes
        n_alerts += len(changes)
        rows = await owner.rows({names[number]: float(each) for number, each in zip(present, score, strict=True)}, cell)
        known = {int(np.flatnonzero(present == number)[0]): past for number, past in living.recent(present).items()}
        mine = [replace(each, asset=int(np.flatnonzero(present == each.asset)[0])) for each in changes]
        await owner.save(owner.step(replace(rows, recent=known, alerts=mine)))
        await neighbour.score(cell, other=5.0)
        if cell % 20 == 0:
            await prune_scores(store, dict.fromkeys(await store.read(assets.fleets), (cell + 100) * INTERVAL_US))
    assert n_alerts > 10


async def test_an_open_alert_is_restored_unchanged(store: AsyncStore) -> None:
    owner = await own(store)
    fired = change(12, 12, AlertState.FIRING, asset=1)
    await owner.save(owner.step(await owner.rows({"a": 0.5, "b": 2.0}, 8, alerts=[fired])))
    recovering = change(12, 13, AlertState.RECOVERING, asset=1, peak=7.5, peak_us=12 * INTERVAL_US, n_anomalous=4)
    await owner.save(owner.step(await owner.rows({"a": 0.5, "b": 0.5}, 9, alerts=[recovering])))
    known = await store.read(assets.restore, HOME)
    first, second = known[FLEET]
    assert first.open_alert is None
    assert second.open_alert == change(
        12, 13, AlertState.RECOVERING, asset=1, peak=7.5, peak_us=12 * INTERVAL_US, n_anomalous=4, is_transition=False
    )
    assert second.open_alert.contributions == CONTRIBUTIONS
    assert second.closed_us is None


async def test_an_open_alert_keeps_its_onset(store: AsyncStore) -> None:
    pitch, valve = Contribution("pitch", 0.9, 2.0, 8.0), Contribution("valve", 0.1, 1.0, None)
    owner = await own(store)
    await owner.score(8, a=0.5)
    fired = replace(change(13, 13, AlertState.FIRING, asset=0), contributions=CONTRIBUTIONS, onset=(pitch, valve))
    await owner.save(owner.step(await owner.rows({"a": 2.5}, 9, alerts=[fired])))
    kept = (await restored(store))["a"].open_alert
    assert kept is not None
    assert kept.onset == (pitch, valve)
    assert kept.contributions == (*CONTRIBUTIONS, replace(valve, share=0.0, expected=None, actual=None))


async def test_a_closed_alert_leaves_only_its_closing_time(store: AsyncStore) -> None:
    owner = await own(store)
    steps = [(AlertState.FIRING, 12), (AlertState.RECOVERING, 13), (AlertState.CLOSED, 14)]
    alerts = [change(12, at, state) for state, at in steps]
    await owner.save(owner.step(await owner.rows({"a": 2.0}, 8, alerts=alerts)))
    known = await restored(store)
    assert known["a"].open_alert is None
    assert known["a"].closed_us == 14 * INTERVAL_US


async def test_recent_verdicts_without_an_anomaly_are_dropped(store: AsyncStore) -> None:
    owner = await own(store)
    await owner.save(owner.step(await owner.rows({"a": 2.0}, 8, recent={0: [25]})))
    assert (await restored(store))["a"].recent == ((12, True),)
    await owner.score(9, a=0.5)
    known = await restored(store)
    assert (known["a"].last_start_us, known["a"].recent) == (9 * INTERVAL_US, ())


async def test_a_restart_does_not_read_scores(store: AsyncStore) -> None:
    """There may be millions. Reading them back took minutes for assets with rare records."""
    owner = await own(store)
    await owner.save(owner.step(await owner.rows({"a": 2.0}, 8, recent={0: [25]})))
    plan = "EXPLAIN QUERY PLAN " if store.address.is_sqlite else "EXPLAIN "
    plan_rows = await store.read(
        lambda c: c.execute(text(plan + assets._RESTORE.text), {"topic": HOME.topic, "partition": 0}).all()
    )
    assert "last_window" in str(plan_rows)
    assert "score" not in str(plan_rows).replace("peak_score", "")
