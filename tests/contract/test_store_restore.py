"""What a partition knew comes back: assets, last windows, the verdicts that decide, the open alert."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

import numpy as np
import pytest

from monitor.store import assets, scores
from monitor.types import AlertState, Partition
from tests.contract.steps import BLAME, FLEET, HOME, INTERVAL_US, LENGTH, NAN, change, own

if TYPE_CHECKING:
    from monitor.store.assets import KnownAsset
    from monitor.store.engine import AsyncStore

MEMORY = 3


async def restored(store: AsyncStore, partition: Partition = HOME, memory: int = MEMORY) -> dict[str, KnownAsset]:
    known = await store.read(assets.restore, partition, memory)
    return {asset.name: asset for asset in known.get(FLEET, [])}


def verdicts(*pairs: tuple[int, bool]) -> tuple[tuple[int, bool], ...]:
    return tuple(((cell + LENGTH) * INTERVAL_US, is_anomalous) for cell, is_anomalous in pairs)


async def test_an_empty_partition_knows_nothing(store: AsyncStore) -> None:
    assert await store.read(assets.restore, HOME, MEMORY) == {}


@pytest.mark.parametrize("seed", range(3))
async def test_a_restart_finds_what_the_partition_knew(store: AsyncStore, seed: int) -> None:
    """Against a model in memory, with holes, unscored windows, silent assets, and a neighbour that must not leak in."""
    random = np.random.default_rng(seed)
    owner, neighbour = await own(store), await own(store, Partition("plant.readings", 1))
    scored: dict[str, list[tuple[int, bool]]] = defaultdict(list)
    last: dict[str, int] = {}
    names = [f"a{number}" for number in range(6)]
    for cell in range(25):
        present = [name for name in names if random.random() < 0.6 and not (name == "a5" and cell > 8)]
        scores = {
            name: NAN if random.random() < 0.3 else float(random.choice([0.5, 0.5, 0.5, 2.0])) for name in present
        }
        await owner.score(cell, **scores)
        await neighbour.score(cell, stranger=5.0)
        for name, score in scores.items():
            last[name] = cell
            if not np.isnan(score):
                scored[name].append((cell, score >= 1))
    known = await restored(store)
    assert list(known) == sorted(known, key=lambda name: known[name].id)
    assert known.keys() == set(last)
    for name, asset in known.items():
        assert asset.id == owner.ids[name]
        assert asset.last_start_us == last[name] * INTERVAL_US
        was_anomalous = any(is_anomalous for _, is_anomalous in scored[name])
        assert asset.recent == (verdicts(*scored[name][-MEMORY:]) if was_anomalous else ())
    assert sum(bool(asset.recent) for asset in known.values()) >= 2


async def test_an_open_alert_comes_back_as_it_was_left(store: AsyncStore) -> None:
    owner = await own(store)
    fired = change(12, 12, AlertState.FIRING, asset=1)
    await owner.save(owner.step(owner.rows({"a": 0.5, "b": 2.0}, 8, alerts=[fired])))
    recovering = change(12, 13, AlertState.RECOVERING, asset=1, peak=7.5, peak_us=12 * INTERVAL_US, n_anomalous=4)
    await owner.save(owner.step(owner.rows({"a": 0.5, "b": 0.5}, 9, alerts=[recovering])))
    known = await store.read(assets.restore, HOME, MEMORY)
    first, second = known[FLEET]
    assert first.open_alert is None
    assert second.open_alert == change(
        12, 13, AlertState.RECOVERING, asset=1, peak=7.5, peak_us=12 * INTERVAL_US, n_anomalous=4, is_transition=False
    )
    assert second.open_alert.blame == BLAME
    assert second.closed_us is None


async def test_a_closed_alert_leaves_only_the_time_it_closed(store: AsyncStore) -> None:
    owner = await own(store)
    steps = [(AlertState.FIRING, 12), (AlertState.RECOVERING, 13), (AlertState.CLOSED, 14)]
    alerts = [change(12, at, state) for state, at in steps]
    await owner.save(owner.step(owner.rows({"a": 2.0}, 8, alerts=alerts)))
    known = await restored(store)
    assert known["a"].open_alert is None
    assert known["a"].closed_us == 14 * INTERVAL_US


async def test_pruned_scores_do_not_disturb_a_restart(store: AsyncStore) -> None:
    owner = await own(store)
    for cell in range(6):
        await owner.score(cell, a=2.0)
    assert await store.run(scores.prune, 10 * INTERVAL_US) == 6
    known = await restored(store)
    assert (known["a"].last_start_us, known["a"].recent) == (5 * INTERVAL_US, ())
