"""The rule of kept checkpoints, and the marks of those that are not."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from monitor.errors import Conflict
from monitor.store import pruning, registry, versions
from monitor.store.acts import MONITOR, Actor
from monitor.types import ModelState, Partition
from tests.contract.steps import FLEET, INTERVAL_US, LENGTH, own

if TYPE_CHECKING:
    from monitor.store.engine import AsyncStore

NOW_US = 10_000
EVA = Actor("eva", "cli")


def facts(version: str) -> dict[str, Any]:
    return {"version": version, "fleet": FLEET, "path": f"/c/{version}", "trained_us": 1, "card": {}, "metrics": {}}


async def decided(store: AsyncStore, **after_us: int) -> None:
    """Publish versions, and promote each after a boundary."""
    for number, (version, boundary) in enumerate(after_us.items()):
        state = {"state": ModelState.CANDIDATE, "verdict": None, "actor": MONITOR, "at_us": number}
        await store.run(registry.publish, **state, **facts(version))
        await store.run(registry.promote, FLEET, version, actor=EVA, at_us=number, after_us=boundary)


async def never_decided(store: AsyncStore, *named: str, state: ModelState = ModelState.REJECTED) -> None:
    for version in named:
        await store.run(registry.publish, state=state, verdict=None, actor=MONITOR, at_us=1, **facts(version))


async def prunable(store: AsyncStore, keep: int, from_us: int | None) -> set[str]:
    return set(await store.read(pruning.prunable, FLEET, keep, from_us))


async def test_the_last_versions_and_the_aliases_are_kept(store: AsyncStore) -> None:
    await decided(store, v1=0, v2=100, v3=200, v4=300, v5=400)
    await never_decided(store, "r1", "r2")
    await never_decided(store, "c1", state=ModelState.CANDIDATE)
    # champion v5, previous v4, challenger c1; the others from new to old: r2, r1, v3, v2, v1
    assert await prunable(store, 2, 10**6) == {"v1", "v2", "v3"}
    assert await prunable(store, 4, 10**6) == {"v1"}
    assert await prunable(store, 5, 10**6) == set()


async def test_versions_of_stored_windows_are_kept(store: AsyncStore) -> None:
    await decided(store, v1=0, v2=100, v3=200, v4=300, v5=400)
    assert await prunable(store, 0, 200) == {"v1", "v2"}
    assert await prunable(store, 0, 199) == {"v1"}
    assert await prunable(store, 0, 0) == set()


async def test_a_version_that_returned_is_kept_for_its_last_windows(store: AsyncStore) -> None:
    await decided(store, v1=0, v2=100)
    for at_us, version, boundary in ((5, "v1", 200), (6, "v2", 300), (7, "v3", 400), (8, "v4", 500), (9, "v5", 600)):
        await never_decided(store, version, state=ModelState.CANDIDATE)
        await store.run(registry.promote, FLEET, version, actor=EVA, at_us=at_us, after_us=boundary)
    assert await prunable(store, 0, 250) == set()
    assert await prunable(store, 0, 300) == {"v1"}
    assert await prunable(store, 0, 400) == {"v1", "v2"}


async def test_scores_for_ever_keep_all_that_decided(store: AsyncStore) -> None:
    await decided(store, v1=0, v2=100, v3=200)
    await never_decided(store, "r1")
    assert await prunable(store, 0, None) == {"r1"}


async def test_a_shadow_is_kept(store: AsyncStore) -> None:
    await never_decided(store, "s1", state=ModelState.SHADOW)
    await never_decided(store, "s2", state=ModelState.SHADOW)
    assert await prunable(store, 0, None) == set()


async def test_a_mark_tells_the_scores_that_name_the_version(store: AsyncStore) -> None:
    owner = await own(store)
    await decided(store, v1=-(2**62))
    for cell in (8, 9, 10):
        await owner.score(cell, R80711=0.5)
    await decided(store, v2=0, v3=0, v4=0)
    rule = (FLEET, 0, 10**12)
    counts = await store.read(pruning.count_scores, FLEET, await store.read(pruning.prunable, *rule))
    assert counts == {"v1": 3, "v2": 0}
    seq = (await store.read(versions.activation_seqs))[FLEET]
    assert set(await store.run(pruning.mark, *rule, counts, NOW_US)) == {("v1", 3), ("v2", 0)}
    assert (await store.read(versions.activation_seqs))[FLEET] == seq + 1
    [event, *_] = await store.read(registry.events, version="v1")
    assert (event.event, event.detail, event.actor) == ("pruned", {"n_scores": 3}, "monitor")
    assert (await store.read(versions.activation_history, FLEET)).pruned == {"v1"}
    assert set(await store.read(pruning.marked, NOW_US)) == {("v1", "/checkpoints/v1"), ("v2", "/c/v2")}
    assert await store.read(pruning.marked, NOW_US - 1) == []
    assert await store.run(pruning.mark, *rule, counts, NOW_US + 1) == []


async def test_a_version_promoted_meanwhile_is_not_marked(store: AsyncStore) -> None:
    await decided(store, v1=0, v2=100, v3=200, v4=300)
    counts = await store.read(pruning.count_scores, FLEET, await store.read(pruning.prunable, FLEET, 0, 10**6))
    assert set(counts) == {"v1", "v2"}
    await store.run(registry.promote, FLEET, "v1", actor=EVA, at_us=50)
    found = await store.run(pruning.mark, FLEET, 0, 10**6, counts, NOW_US)
    assert [each.version for each in found] == ["v2"]
    with pytest.raises(Conflict, match="v2 was pruned"):
        await store.run(registry.promote, FLEET, "v2", actor=EVA, at_us=60)


async def test_a_partition_with_a_lag_keeps_its_versions(store: AsyncStore) -> None:
    """Another partition went on: the versions of its time stay until it has caught up."""
    owner = await own(store)
    await decided(store, v1=-(2**62))
    await owner.score(8, R80711=0.5)
    behind_us = (8 + LENGTH) * INTERVAL_US
    other = await own(store, Partition("t", 1))
    await other.score(10_000, other=0.5)
    now_us = 10**10
    caught_up = f"UPDATE source_partition SET saved_us = {now_us}, rewind_offset = NULL"
    await store.run(lambda c: c.exec_driver_sql(caught_up))
    stored_from_us = 9_000 * INTERVAL_US
    call = (FLEET, stored_from_us, now_us, 7)
    assert await store.read(pruning.needed_from_us, *call) == stored_from_us
    lag = f"UPDATE source_partition SET log_end = next_offset + 5 WHERE topic = '{owner.partition.topic}'"
    await store.run(lambda c: c.exec_driver_sql(lag))
    assert await store.read(pruning.needed_from_us, *call) == behind_us - 7
    gone = (FLEET, stored_from_us, now_us + pruning.LAGGING_US + 1, 7)
    assert await store.read(pruning.needed_from_us, *gone) == stored_from_us
    assert await store.read(pruning.needed_from_us, FLEET, None, now_us, 7) is None
