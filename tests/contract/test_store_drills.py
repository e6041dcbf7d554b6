"""Stored drills and their alert: one open alert of a fleet, notified, closed by the next good drill."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from monitor.errors import Fenced, NotFound
from monitor.store import drills, leases, registry
from monitor.store.outbox import Channel
from monitor.types import AlertState, ModelCheckKind, Severity
from tests.contract.steps import FLEET, HOME, SAVED_US, VERSION, own, publish, rows_of

if TYPE_CHECKING:
    from monitor.store.engine import AsyncStore
    from monitor.types import DataAlertChange

BLIND = "v1 detects 0 of 480 injected faults"
DAY_US = 24 * 3_600_000_000
CHANNEL = Channel("duty")


async def drill(
    store: AsyncStore, problem: str | None, day: int = 0, version: str = VERSION, **more: Any
) -> list[DataAlertChange]:
    facts = {"topic": HOME.topic, "pipeline": "monitor", "requested_by": "the daemon", "channels": (CHANNEL,)}
    return await store.run(
        drills.record, {"fleet": FLEET, "version": version, "day": day}, problem=problem, severity=Severity.CRITICAL,
        message=f"the drill of {FLEET}: {problem}", at_us=SAVED_US + day * DAY_US, **(facts | more),
    )  # fmt: skip


async def alerts(store: AsyncStore) -> list[tuple[str, str, str, str]]:
    return [(row["class"], row["kind"], row["state"], row["message"]) for row in await store.read(rows_of, "alert")]


async def test_a_bad_drill_opens_one_alert_that_a_good_one_closes(store: AsyncStore) -> None:
    await own(store, first=300)
    [opened] = await drill(store, BLIND)
    assert (opened.state, opened.fleet, opened.from_offset) == (AlertState.FIRING, FLEET, 300)
    [again] = await drill(store, "v1 detects 1 of 480", day=1)
    assert not again.is_transition
    assert await alerts(store) == [("data", "drill_failed", "firing", f"the drill of {FLEET}: v1 detects 1 of 480")]
    [closed] = await drill(store, None, day=2)
    assert closed.state is AlertState.CLOSED
    assert await drill(store, None, day=3) == []
    steps = [json.loads(row["body"])["step"] for row in await store.read(rows_of, "outbox")]
    assert steps == ["firing", "closed"]


async def test_a_second_alert_of_the_same_offset_is_another_one(store: AsyncStore) -> None:
    await own(store)
    for day, problem in enumerate((BLIND, None, BLIND, None, BLIND)):
        await drill(store, problem, day)
    rows = await store.read(rows_of, "alert")
    assert [row["state"] for row in rows] == ["closed", "closed", "firing"]
    assert len({row["from_offset"] for row in rows}) == 3


async def test_a_repeated_drill_changes_nothing(store: AsyncStore) -> None:
    await own(store)
    await drill(store, BLIND)
    before = await store.read(rows_of, "alert"), await store.read(rows_of, "outbox")
    assert await drill(store, BLIND) == []
    assert (await store.read(rows_of, "alert"), await store.read(rows_of, "outbox")) == before
    assert len(await store.read(registry.checks, ModelCheckKind.DRILL, FLEET)) == 1


async def test_a_drill_is_kept_with_its_result(store: AsyncStore) -> None:
    await own(store)
    await drill(store, None, day=4)
    found = await store.read(registry.latest_check, ModelCheckKind.DRILL, FLEET)
    assert found is not None
    assert (found.version, found.problem, found.requested_by, found.result["day"]) == (VERSION, None, "the daemon", 4)


async def test_drills_need_the_lease_and_a_registered_version(store: AsyncStore) -> None:
    await own(store)
    epoch = await store.run(leases.acquire, "training", "me", 60.0)
    await drill(store, None, lease=("training", epoch))
    with pytest.raises(Fenced):
        await drill(store, BLIND, day=1, lease=("training", epoch + 1))
    with pytest.raises(NotFound, match="v9"):
        await drill(store, BLIND, day=1, version="v9")
    assert await alerts(store) == []


async def test_the_baseline_is_the_first_good_drill_of_a_version(store: AsyncStore) -> None:
    await own(store)
    await publish(store, "v2")
    for day, (version, problem) in enumerate([("v1", None), ("v1", None), ("v1", BLIND), ("v2", None), ("v2", None)]):
        await drill(store, problem, day, version)

    async def day_of(version: str, day: int) -> int | None:
        found = await store.read(drills.baseline, FLEET, version, SAVED_US + day * DAY_US)
        return None if found is None else found.result["day"]

    assert await day_of("v1", 5) == 0
    assert await day_of("v2", 5) == 3
    assert await day_of("v3", 5) == 4  # a new version: the last good one
    assert await day_of("v3", 30) is None
