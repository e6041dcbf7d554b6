"""The outbox: notifications are written with the alert's change, then sent under a lease at least once."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import text

from monitor.errors import Fenced, InvariantBroken
from monitor.store import leases, outbox
from monitor.store.outbox import Channel, Notification
from monitor.types import AlertChange, AlertState, Severity
from tests.contract.steps import FLEET, INTERVAL_US, Owner, change, own, rows_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from monitor.store.engine import AsyncStore

NOW_US = 1_700_000_000_000_000
HOUR_US = 3_600_000_000
DAY_US = 24 * HOUR_US
DUTY = Channel("duty")
PAGER = Channel("pager", Severity.CRITICAL)
FIRING, RECOVERING, CLOSED = AlertState.FIRING, AlertState.RECOVERING, AlertState.CLOSED
GRAVE = {"severity": Severity.CRITICAL, "peak": 4.0}


async def alert(owner: Owner, *changes: AlertChange, to: Sequence[Channel] = (DUTY,), asset: str = "a") -> None:
    """Commit changes of one asset's alerts, each in a commit of its own."""
    for each in changes:
        rows = await owner.rows({asset: 2.0}, each.at_us // INTERVAL_US, alerts=[each])
        await owner.save(owner.step(rows, channels=to, at_us=NOW_US))


async def outbox_rows(store: AsyncStore) -> list[dict[str, Any]]:
    rows = await store.read(rows_of, "outbox")
    return sorted(rows, key=lambda row: row["id"])


async def keys(store: AsyncStore) -> list[str]:
    return [row["dedup_key"] for row in await outbox_rows(store)]


async def steps(store: AsyncStore, channel: str = "duty") -> list[str]:
    return [row["dedup_key"].rpartition(":")[2] for row in await outbox_rows(store) if row["channel"] == channel]


async def acquire_lease(store: AsyncStore, holder: str = "me") -> int:
    epoch = await store.run(leases.acquire, outbox.LEASE, holder, 600.0)
    assert epoch is not None
    return epoch


async def due(store: AsyncStore, now_us: int = NOW_US, channel: str = "duty") -> Notification | None:
    return await store.read(outbox.next_due, channel, now_us)


async def key_due(store: AsyncStore, now_us: int = NOW_US, channel: str = "duty") -> str | None:
    waiting = await due(store, now_us, channel)
    return waiting.key if waiting else None


def key(step: str, opened: int = 12, asset: str = "a", channel: str = "duty") -> str:
    return f"{channel}:{FLEET}/{asset}:{opened * INTERVAL_US}:{step}"


# ---------------------------------------------------------------- write


async def test_no_channel_means_no_notification(store: AsyncStore) -> None:
    await alert(await own(store), change(12, 12, FIRING), change(12, 13, CLOSED), to=())
    assert await outbox_rows(store) == []
    assert len(await store.read(rows_of, "alert_transition")) == 2


async def test_opening_worsening_and_closing_are_notified(store: AsyncStore) -> None:
    await alert(
        await own(store),
        change(12, 12, FIRING),
        change(12, 13, FIRING, is_transition=False, peak=2.5),
        change(12, 14, FIRING, is_transition=False, **GRAVE),
        change(12, 15, FIRING, is_transition=False, **(GRAVE | {"peak": 5.0})),
        change(12, 16, RECOVERING, **GRAVE),
        change(12, 17, FIRING, **GRAVE),
        change(12, 18, RECOVERING, **GRAVE),
        change(12, 19, CLOSED, **GRAVE),
    )
    assert await keys(store) == [key("firing"), key("critical"), key("closed")]


async def test_firing_again_as_critical_is_notified_once(store: AsyncStore) -> None:
    await alert(
        await own(store), change(12, 12, FIRING), change(12, 13, RECOVERING), change(12, 14, FIRING, **GRAVE)
    )
    assert await steps(store) == ["firing", "critical"]


async def test_a_critical_opening_is_notified_once(store: AsyncStore) -> None:
    await alert(await own(store), change(12, 12, FIRING, **GRAVE), change(12, 13, FIRING, **GRAVE))
    assert await steps(store) == ["firing"]


async def test_a_channel_gets_its_minimum_severity_and_above(store: AsyncStore) -> None:
    owner = await own(store)
    both = (DUTY, PAGER)
    await alert(owner, change(12, 12, FIRING), change(12, 13, CLOSED), to=both)
    assert (await steps(store), await steps(store, "pager")) == (["firing", "closed"], [])
    worse = change(20, 21, FIRING, **GRAVE)
    await alert(owner, change(20, 20, FIRING), worse, change(20, 22, CLOSED, **GRAVE), to=both)
    assert await steps(store, "pager") == ["critical", "closed"]
    assert await steps(store) == ["firing", "closed", "firing", "critical", "closed"]


@pytest.mark.parametrize(
    ("fleets", "expected"), [(["*"], True), (["turb*"], True), (["turbines", "x"], True), (["pumps"], False)]
)
def test_a_channel_gets_only_its_fleets(fleets: list[str], expected: bool) -> None:
    assert Channel("x", fleets=fleets).wants(change(1, 1, FIRING)) is expected


@pytest.mark.parametrize(("late_us", "expected"), [(-HOUR_US, True), (0, True), (DAY_US, True), (DAY_US + 1, False)])
def test_a_channel_gets_only_recent_changes(late_us: int, expected: bool) -> None:
    """A topic read from its beginning has old alerts, which must not ring a phone."""
    happened = change(1, 1, FIRING)
    assert Channel("x", max_age_us=DAY_US).is_recent(happened, happened.at_us + late_us) is expected
    assert Channel("x").is_recent(happened, happened.at_us + late_us)


@pytest.mark.parametrize(("max_age_us", "expected"), [(10 * DAY_US, [False, True]), (None, [True, True])])
def test_history_before_the_first_start_is_told_to_nobody(max_age_us: int | None, expected: list[bool]) -> None:
    """An alert of the history may even close after the start. Whoever has every change sent gets it."""
    channel = Channel("x", max_age_us=max_age_us, first_started_us=12 * INTERVAL_US)
    changes = [change(11, 13, CLOSED), change(12, 13, FIRING)]
    assert [channel.is_recent(each, 14 * INTERVAL_US) for each in changes] == expected


async def test_an_old_opening_is_not_notified_nor_is_its_end(store: AsyncStore) -> None:
    recent = Channel("pager", max_age_us=NOW_US - 13 * INTERVAL_US)
    await alert(await own(store), change(12, 12, FIRING), change(12, 13, CLOSED), to=(DUTY, recent))
    assert (await steps(store), await steps(store, "pager")) == (["firing", "closed"], [])


async def test_the_payload_describes_the_alert(store: AsyncStore) -> None:
    await alert(await own(store), change(12, 14, FIRING, peak=2.5), change(12, 15, CLOSED, peak=2.5))
    opened, closed = (json.loads(row["body"]) for row in await outbox_rows(store))
    [row] = await store.read(rows_of, "alert")
    assert opened.pop("incident") == row["incident_id"]
    assert opened == {
        "key": key("firing"),
        "step": "firing",
        "text": f"a (turbines) is anomalous: alert {row['id']} since 1970-01-01 02:00 UTC, score up to 2.5 "
        "where 1.0 is the threshold, most of it power's",
        "id": row["id"],
        "class": "process",
        "fleet": FLEET,
        "asset": "a",
        "state": "firing",
        "severity": "warning",
        "opened_at": "1970-01-01T02:00:00Z",
        "closed_at": None,
        "at": "1970-01-01T02:20:00Z",
        "peak_score": 2.5,
        "peak_at": "1970-01-01T02:20:00Z",
        "n_anomalous": 3,
        "sensors": [
            {"name": "power", "share": 0.75, "expected": 1800.0, "actual": 0.0, "quantity": "value"},
            {"name": "pitch", "share": 0.25, "expected": 2.0, "actual": None, "quantity": "value"},
        ],
        "version": "v1",
        "clearing": None,
    }
    assert (closed["step"], closed["id"], closed["closed_at"]) == ("closed", row["id"], "1970-01-01T02:30:00Z")


async def test_names_and_numbers_outside_json_are_escaped(store: AsyncStore) -> None:
    name = 'Türe 7:/"%\n'
    await alert(await own(store), change(12, 12, FIRING, peak=float("inf")), asset=name)
    [row] = await outbox_rows(store)
    assert json.loads(row["body"])["asset"] == name
    assert json.loads(row["body"])["peak_score"] is None
    assert row["dedup_key"].isascii()
    assert row["dedup_key"].isprintable()
    assert row["dedup_key"] == f"duty:{FLEET}/T%C3%BCre%207:/%22%25%0A:{12 * INTERVAL_US}:firing"


async def test_a_rolled_back_commit_writes_no_notification(store: AsyncStore) -> None:
    owner = await own(store)
    await alert(owner, change(12, 12, FIRING))
    twice = await owner.rows({"a": 2.0}, 12, alerts=[change(12, 13, CLOSED)])  # the window exists already
    with pytest.raises(InvariantBroken):
        await store.save(owner.step(twice, channels=(DUTY,)))
    assert await steps(store) == ["firing"]


async def test_a_repeated_commit_writes_no_second_notification(store: AsyncStore) -> None:
    owner = await own(store)
    step = owner.step(await owner.rows({"a": 2.0}, 12, alerts=[change(12, 12, FIRING)]), channels=(DUTY,))
    await store.save(step)
    assert (await store.save(step)).was_done
    assert await steps(store) == ["firing"]


async def test_a_key_is_written_once(store: AsyncStore) -> None:
    await alert(await own(store), change(12, 12, FIRING))
    copy = "INSERT INTO outbox (dedup_key, channel, body, created_us, next_try_us) SELECT dedup_key, 'x', '', 0, 0"
    with pytest.raises(InvariantBroken):
        await store.run(lambda connection: connection.execute(text(f"{copy} FROM outbox")))


async def test_the_same_alert_has_the_same_key_in_another_database(store: AsyncStore) -> None:
    """After a restored backup the alerts have other ids, but no phone rings twice."""
    owner = await own(store)
    await alert(owner, change(3, 3, FIRING), change(3, 4, CLOSED), to=())  # uses up an id
    await alert(owner, change(12, 12, FIRING))
    assert await keys(store) == [key("firing")]
    [waiting] = await outbox_rows(store)
    assert json.loads(waiting["body"])["id"] == 2


# ---------------------------------------------------------------- send


async def test_oldest_notifications_are_sent_first(store: AsyncStore) -> None:
    owner = await own(store)
    await alert(owner, change(12, 12, FIRING), change(12, 13, CLOSED), change(20, 20, FIRING))
    epoch = await acquire_lease(store)
    sent = []
    while waiting := await due(store):
        body = await store.run(outbox.start_attempt, epoch, waiting.key)
        assert body is not None
        sent.append(json.loads(body)["key"])
        await store.run(outbox.mark_delivered, waiting.key, NOW_US)
    assert sent == [key("firing"), key("closed"), key("firing", opened=20)]
    outcomes = {(row["attempts"], row["delivered_us"], row["error"]) for row in await outbox_rows(store)}
    assert outcomes == {(1, NOW_US, None)}


async def test_channels_have_separate_notifications(store: AsyncStore) -> None:
    await alert(await own(store), change(12, 12, FIRING, **GRAVE), to=(DUTY, PAGER))
    epoch = await acquire_lease(store)
    await store.run(outbox.mark_failed, epoch, key("firing"), "down", NOW_US + HOUR_US)
    assert await due(store) is None
    assert await key_due(store, channel="pager") == key("firing", channel="pager")


async def test_a_failed_notification_holds_up_only_its_own_alert(store: AsyncStore) -> None:
    owner = await own(store)
    await alert(owner, change(12, 12, FIRING), change(12, 13, CLOSED), change(20, 20, FIRING))
    epoch = await acquire_lease(store)
    await store.run(outbox.start_attempt, epoch, key("firing"))
    await store.run(outbox.mark_failed, epoch, key("firing"), "HTTP 503", NOW_US + 60_000_000)
    assert await key_due(store) == key("firing", opened=20)
    waiting = await due(store, NOW_US + 60_000_000)
    assert waiting == Notification(key("firing"), NOW_US, 1, NOW_US + 60_000_000, "HTTP 503")


async def test_alerts_of_one_time_but_two_assets_are_separate(store: AsyncStore) -> None:
    owner = await own(store)
    await alert(owner, change(12, 12, FIRING), asset="a")
    await alert(owner, change(12, 12, FIRING), asset="b")
    epoch = await acquire_lease(store)
    await store.run(outbox.mark_failed, epoch, key("firing"), "down", NOW_US + HOUR_US)
    assert await key_due(store) == key("firing", asset="b")


async def test_a_clock_set_back_delays_no_notification(store: AsyncStore) -> None:
    await alert(await own(store), change(12, 12, FIRING))
    epoch = await acquire_lease(store)
    await store.run(outbox.mark_failed, epoch, key("firing"), "down", NOW_US + HOUR_US)
    assert await due(store, NOW_US + 1) is None
    assert await key_due(store, NOW_US - DAY_US) == key("firing")


async def test_an_attempt_without_an_outcome_is_visible(store: AsyncStore) -> None:
    """After a kill between sending and storing, it is sent again with the same key, and the sender knows."""
    await alert(await own(store), change(12, 12, FIRING))
    await store.run(outbox.start_attempt, await acquire_lease(store), key("firing"))
    waiting = await due(store)
    assert waiting is not None
    assert (waiting.key, waiting.attempts, waiting.error) == (key("firing"), 1, outbox.OUTCOME_UNKNOWN)


async def test_a_former_holder_cannot_start_or_fail_an_attempt(store: AsyncStore, other_store: AsyncStore) -> None:
    await alert(await own(store), change(12, 12, FIRING))
    mine = await acquire_lease(store)
    await store.run(lambda connection: connection.execute(text("UPDATE lease SET until_us = 0")))
    yours = await acquire_lease(other_store, "you")
    with pytest.raises(Fenced):
        await store.run(outbox.start_attempt, mine, key("firing"))
    with pytest.raises(Fenced):
        await store.run(outbox.mark_failed, mine, key("firing"), "late", NOW_US + HOUR_US)
    [row] = await outbox_rows(store)
    assert (row["attempts"], row["error"]) == (0, None)
    assert await other_store.run(outbox.start_attempt, yours, key("firing")) is not None


async def test_a_delivery_by_a_former_holder_is_not_repeated(store: AsyncStore, other_store: AsyncStore) -> None:
    await alert(await own(store), change(12, 12, FIRING))
    await store.run(outbox.start_attempt, await acquire_lease(store), key("firing"))
    await store.run(lambda connection: connection.execute(text("UPDATE lease SET until_us = 0")))
    yours = await acquire_lease(other_store, "you")
    await store.run(outbox.mark_delivered, key("firing"), NOW_US)
    assert await other_store.run(outbox.start_attempt, yours, key("firing")) is None
    await other_store.run(outbox.mark_delivered, key("firing"), NOW_US + 1)
    [row] = await outbox_rows(store)
    assert (row["attempts"], row["delivered_us"]) == (1, NOW_US)


async def test_notifications_are_due_when_a_channel_recovers(store: AsyncStore) -> None:
    owner = await own(store)
    await alert(owner, change(12, 12, FIRING, **GRAVE), to=(DUTY, PAGER))
    await alert(owner, change(12, 12, FIRING), asset="b")
    epoch = await acquire_lease(store)
    for each in (key("firing"), key("firing", channel="pager")):
        await store.run(outbox.mark_failed, epoch, each, "down", NOW_US + HOUR_US)
    await store.run(outbox.mark_failed, epoch, key("firing", asset="b"), "no", outbox.ABANDONED_US)
    await store.run(outbox.make_due, "duty")
    waits = {row["dedup_key"]: row["next_try_us"] for row in await outbox_rows(store)}
    assert waits[key("firing")] == outbox.DUE_NOW_US
    assert waits[key("firing", asset="b")] == outbox.ABANDONED_US
    assert waits[key("firing", channel="pager")] == NOW_US + HOUR_US


async def test_an_abandoned_notification_holds_up_no_other(store: AsyncStore) -> None:
    await alert(await own(store), change(12, 12, FIRING), change(12, 13, CLOSED))
    epoch = await acquire_lease(store)
    await store.run(outbox.mark_failed, epoch, key("firing"), "refused: HTTP 404", outbox.ABANDONED_US)
    assert await key_due(store, NOW_US + 100 * DAY_US) == key("closed")
    assert (await outbox_rows(store))[0]["error"] == "refused: HTTP 404"


# ---------------------------------------------------------------- maintenance


async def test_delivered_and_abandoned_notifications_are_pruned(store: AsyncStore) -> None:
    owner = await own(store)
    for asset in "abcd":
        await alert(owner, change(12, 12, FIRING), asset=asset)
    old, fresh, waiting, given_up = (key("firing", asset=asset) for asset in "abcd")
    await store.run(outbox.mark_delivered, old, NOW_US)
    await store.run(outbox.mark_delivered, fresh, NOW_US + DAY_US)
    epoch = await acquire_lease(store)
    await store.run(outbox.mark_failed, epoch, waiting, "down", NOW_US + DAY_US)
    await store.run(outbox.mark_failed, epoch, given_up, "no", outbox.ABANDONED_US)
    assert await store.run(outbox.prune, NOW_US) == 0
    assert await store.run(outbox.prune, NOW_US + 1) == 2
    assert set(await keys(store)) == {fresh, waiting}


async def test_notifications_to_removed_channels_are_abandoned(store: AsyncStore) -> None:
    await alert(await own(store), change(12, 12, FIRING, **GRAVE), to=(DUTY, PAGER))
    assert await store.run(outbox.abandon_unknown, ["duty"], NOW_US) == []  # the channel may come back
    assert await store.run(outbox.abandon_unknown, ["duty"], NOW_US + 1) == [key("firing", channel="pager")]
    assert await store.run(outbox.abandon_unknown, ["duty"], NOW_US + 1) == []
    assert await due(store, channel="pager") is None
    assert await key_due(store) == key("firing")
