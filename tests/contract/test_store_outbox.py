"""The outbox: who is told of what, in the transaction that made it true; then sent under a lease, never forgotten."""

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
    """Save changes of one asset's alerts, each in a step of its own."""
    for each in changes:
        rows = await owner.rows({asset: 2.0}, each.at_us // INTERVAL_US, alerts=[each])
        await owner.save(owner.step(rows, channels=to, at_us=NOW_US))


async def letters(store: AsyncStore) -> list[dict[str, Any]]:
    rows = await store.read(rows_of, "outbox")
    return sorted(rows, key=lambda row: row["id"])


async def keys(store: AsyncStore) -> list[str]:
    return [row["dedup_key"] for row in await letters(store)]


async def steps(store: AsyncStore, channel: str = "duty") -> list[str]:
    return [row["dedup_key"].rpartition(":")[2] for row in await letters(store) if row["channel"] == channel]


async def hold(store: AsyncStore, holder: str = "me") -> int:
    epoch = await store.run(leases.acquire, outbox.LEASE, holder, 600.0)
    assert epoch is not None
    return epoch


async def due(store: AsyncStore, now_us: int = NOW_US, channel: str = "duty") -> Notification | None:
    return await store.read(outbox.next_due, channel, now_us)


async def key_due(store: AsyncStore, now_us: int = NOW_US, channel: str = "duty") -> str | None:
    letter = await due(store, now_us, channel)
    return letter.key if letter else None


def key(step: str, opened: int = 12, asset: str = "a", channel: str = "duty") -> str:
    return f"{channel}:{FLEET}/{asset}:{opened * INTERVAL_US}:{step}"


# ---------------------------------------------------------------- written


async def test_without_a_channel_nothing_is_written(store: AsyncStore) -> None:
    await alert(await own(store), change(12, 12, FIRING), change(12, 13, CLOSED), to=())
    assert await letters(store) == []
    assert len(await store.read(rows_of, "alert_transition")) == 2


async def test_people_are_told_that_it_opened_got_worse_and_is_over(store: AsyncStore) -> None:
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


async def test_it_may_fire_again_and_get_worse_at_once(store: AsyncStore) -> None:
    await alert(
        await own(store), change(12, 12, FIRING), change(12, 13, RECOVERING), change(12, 14, FIRING, **GRAVE)
    )
    assert await steps(store) == ["firing", "critical"]


async def test_an_alert_that_is_critical_from_the_start_is_told_once(store: AsyncStore) -> None:
    await alert(await own(store), change(12, 12, FIRING, **GRAVE), change(12, 13, FIRING, **GRAVE))
    assert await steps(store) == ["firing"]


async def test_a_channel_hears_only_what_is_grave_enough(store: AsyncStore) -> None:
    owner = await own(store)
    both = (DUTY, PAGER)
    await alert(owner, change(12, 12, FIRING), change(12, 13, CLOSED), to=both)
    assert (await steps(store), await steps(store, "pager")) == (["firing", "closed"], [])
    worse = change(20, 21, FIRING, **GRAVE)
    await alert(owner, change(20, 20, FIRING), worse, change(20, 22, CLOSED, **GRAVE), to=both)
    assert await steps(store, "pager") == ["critical", "closed"]
    assert await steps(store) == ["firing", "closed", "firing", "critical", "closed"]


@pytest.mark.parametrize(
    ("fleets", "hears"), [(["*"], True), (["turb*"], True), (["turbines", "x"], True), (["pumps"], False)]
)
def test_a_channel_hears_of_its_fleets_only(fleets: list[str], hears: bool) -> None:
    assert Channel("x", fleets=fleets).wants(change(1, 1, FIRING)) is hears


@pytest.mark.parametrize(("late_us", "hears"), [(-HOUR_US, True), (0, True), (DAY_US, True), (DAY_US + 1, False)])
def test_what_happened_long_ago_is_history_and_not_news(late_us: int, hears: bool) -> None:
    """A topic read from its beginning has old alerts, and nobody wants their phone to ring for each."""
    happened = change(1, 1, FIRING)
    assert Channel("x", max_age_us=DAY_US).is_recent(happened, happened.at_us + late_us) is hears
    assert Channel("x").is_recent(happened, happened.at_us + late_us)


async def test_history_is_written_to_nobody(store: AsyncStore) -> None:
    recent = Channel("pager", max_age_us=NOW_US - 13 * INTERVAL_US)
    await alert(await own(store), change(12, 12, FIRING), change(12, 13, CLOSED), to=(DUTY, recent))
    assert (await steps(store), await steps(store, "pager")) == (["firing", "closed"], ["closed"])


async def test_a_letter_says_what_happened(store: AsyncStore) -> None:
    await alert(await own(store), change(12, 14, FIRING, peak=2.5), change(12, 15, CLOSED, peak=2.5))
    opened, closed = (json.loads(row["body"]) for row in await letters(store))
    [row] = await store.read(rows_of, "alert")
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
            {"name": "power", "share": 0.75, "expected": 1800.0, "actual": 0.0},
            {"name": "pitch", "share": 0.25, "expected": 2.0, "actual": None},
        ],
        "version": "v1",
    }
    assert (closed["step"], closed["id"], closed["closed_at"]) == ("closed", row["id"], "1970-01-01T02:30:00Z")


async def test_names_and_numbers_that_json_or_a_header_cannot_carry_are_no_harm(store: AsyncStore) -> None:
    name = 'Türe 7:/"%\n'
    await alert(await own(store), change(12, 12, FIRING, peak=float("inf")), asset=name)
    [row] = await letters(store)
    assert json.loads(row["body"])["asset"] == name
    assert json.loads(row["body"])["peak_score"] is None
    assert row["dedup_key"].isascii()
    assert row["dedup_key"].isprintable()
    assert row["dedup_key"] == f"duty:{FLEET}/T%C3%BCre%207:/%22%25%0A:{12 * INTERVAL_US}:firing"


async def test_a_save_that_is_rolled_back_tells_nobody(store: AsyncStore) -> None:
    owner = await own(store)
    await alert(owner, change(12, 12, FIRING))
    twice = await owner.rows({"a": 2.0}, 12, alerts=[change(12, 13, CLOSED)])  # the window is there already
    with pytest.raises(InvariantBroken):
        await store.save(owner.step(twice, channels=(DUTY,)))
    assert await steps(store) == ["firing"]


async def test_a_step_that_was_saved_before_tells_nobody_again(store: AsyncStore) -> None:
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
    """A backup put back, the records read again: alerts have other ids, but nobody's phone rings twice."""
    owner = await own(store)
    await alert(owner, change(3, 3, FIRING), change(3, 4, CLOSED), to=())  # takes an id
    await alert(owner, change(12, 12, FIRING))
    assert await keys(store) == [key("firing")]
    [letter] = await letters(store)
    assert json.loads(letter["body"])["id"] == 2


# ---------------------------------------------------------------- sent


async def test_the_oldest_letter_goes_first(store: AsyncStore) -> None:
    owner = await own(store)
    await alert(owner, change(12, 12, FIRING), change(12, 13, CLOSED), change(20, 20, FIRING))
    epoch = await hold(store)
    sent = []
    while letter := await due(store):
        body = await store.run(outbox.start_attempt, epoch, letter.key)
        assert body is not None
        sent.append(json.loads(body)["key"])
        await store.run(outbox.mark_delivered, letter.key, NOW_US)
    assert sent == [key("firing"), key("closed"), key("firing", opened=20)]
    assert {(row["attempts"], row["delivered_us"], row["error"]) for row in await letters(store)} == {(1, NOW_US, None)}


async def test_channels_do_not_see_each_others_letters(store: AsyncStore) -> None:
    await alert(await own(store), change(12, 12, FIRING, **GRAVE), to=(DUTY, PAGER))
    epoch = await hold(store)
    await store.run(outbox.mark_failed, epoch, key("firing"), "down", NOW_US + HOUR_US)
    assert await due(store) is None
    assert await key_due(store, channel="pager") == key("firing", channel="pager")


async def test_a_letter_that_failed_waits_and_lets_other_alerts_pass_but_not_its_own(store: AsyncStore) -> None:
    owner = await own(store)
    await alert(owner, change(12, 12, FIRING), change(12, 13, CLOSED), change(20, 20, FIRING))
    epoch = await hold(store)
    await store.run(outbox.start_attempt, epoch, key("firing"))
    await store.run(outbox.mark_failed, epoch, key("firing"), "HTTP 503", NOW_US + 60_000_000)
    assert await key_due(store) == key("firing", opened=20)
    letter = await due(store, NOW_US + 60_000_000)
    assert letter == Notification(key("firing"), NOW_US, 1, NOW_US + 60_000_000, "HTTP 503")


async def test_letters_of_one_opening_time_but_two_assets_are_two_alerts(store: AsyncStore) -> None:
    owner = await own(store)
    await alert(owner, change(12, 12, FIRING), asset="a")
    await alert(owner, change(12, 12, FIRING), asset="b")
    epoch = await hold(store)
    await store.run(outbox.mark_failed, epoch, key("firing"), "down", NOW_US + HOUR_US)
    assert await key_due(store) == key("firing", asset="b")


async def test_a_clock_set_back_does_not_hold_a_letter_up(store: AsyncStore) -> None:
    await alert(await own(store), change(12, 12, FIRING))
    epoch = await hold(store)
    await store.run(outbox.mark_failed, epoch, key("firing"), "down", NOW_US + HOUR_US)
    assert await due(store, NOW_US + 1) is None
    assert await key_due(store, NOW_US - DAY_US) == key("firing")


async def test_a_try_that_never_ended_is_to_be_seen(store: AsyncStore) -> None:
    """Killed between sending and writing it down: the letter goes again, with the same key, and who sends it knows."""
    await alert(await own(store), change(12, 12, FIRING))
    await store.run(outbox.start_attempt, await hold(store), key("firing"))
    letter = await due(store)
    assert letter is not None
    assert (letter.key, letter.attempts, letter.error) == (key("firing"), 1, outbox.OUTCOME_UNKNOWN)


async def test_a_former_holder_sends_nothing_and_puts_nothing_off(store: AsyncStore, other_store: AsyncStore) -> None:
    await alert(await own(store), change(12, 12, FIRING))
    mine = await hold(store)
    await store.run(lambda connection: connection.execute(text("UPDATE lease SET until_us = 0")))
    yours = await hold(other_store, "you")
    with pytest.raises(Fenced):
        await store.run(outbox.start_attempt, mine, key("firing"))
    with pytest.raises(Fenced):
        await store.run(outbox.mark_failed, mine, key("firing"), "late", NOW_US + HOUR_US)
    [row] = await letters(store)
    assert (row["attempts"], row["error"]) == (0, None)
    assert await other_store.run(outbox.start_attempt, yours, key("firing")) is not None


async def test_what_a_former_holder_delivered_is_not_sent_again(store: AsyncStore, other_store: AsyncStore) -> None:
    await alert(await own(store), change(12, 12, FIRING))
    await store.run(outbox.start_attempt, await hold(store), key("firing"))
    await store.run(lambda connection: connection.execute(text("UPDATE lease SET until_us = 0")))
    yours = await hold(other_store, "you")
    await store.run(outbox.mark_delivered, key("firing"), NOW_US)
    assert await other_store.run(outbox.start_attempt, yours, key("firing")) is None
    await other_store.run(outbox.mark_delivered, key("firing"), NOW_US + 1)
    [row] = await letters(store)
    assert (row["attempts"], row["delivered_us"]) == (1, NOW_US)


async def test_when_a_channel_answers_again_nothing_waits_for_its_turn(store: AsyncStore) -> None:
    owner = await own(store)
    await alert(owner, change(12, 12, FIRING, **GRAVE), to=(DUTY, PAGER))
    await alert(owner, change(12, 12, FIRING), asset="b")
    epoch = await hold(store)
    for each in (key("firing"), key("firing", channel="pager")):
        await store.run(outbox.mark_failed, epoch, each, "down", NOW_US + HOUR_US)
    await store.run(outbox.mark_failed, epoch, key("firing", asset="b"), "no", outbox.ABANDONED_US)
    await store.run(outbox.make_due, "duty")
    waits = {row["dedup_key"]: row["next_try_us"] for row in await letters(store)}
    assert waits[key("firing")] == outbox.DUE_NOW_US
    assert waits[key("firing", asset="b")] == outbox.ABANDONED_US
    assert waits[key("firing", channel="pager")] == NOW_US + HOUR_US


async def test_a_letter_given_up_is_not_tried_and_holds_up_nobody(store: AsyncStore) -> None:
    await alert(await own(store), change(12, 12, FIRING), change(12, 13, CLOSED))
    await store.run(outbox.mark_failed, await hold(store), key("firing"), "refused: HTTP 404", outbox.ABANDONED_US)
    assert await key_due(store, NOW_US + 100 * DAY_US) == key("closed")
    assert (await letters(store))[0]["error"] == "refused: HTTP 404"


# ---------------------------------------------------------------- tidy


async def test_letters_are_pruned_when_they_are_done_with(store: AsyncStore) -> None:
    owner = await own(store)
    for asset in "abcd":
        await alert(owner, change(12, 12, FIRING), asset=asset)
    old, fresh, waiting, given_up = (key("firing", asset=asset) for asset in "abcd")
    await store.run(outbox.mark_delivered, old, NOW_US)
    await store.run(outbox.mark_delivered, fresh, NOW_US + DAY_US)
    epoch = await hold(store)
    await store.run(outbox.mark_failed, epoch, waiting, "down", NOW_US + DAY_US)
    await store.run(outbox.mark_failed, epoch, given_up, "no", outbox.ABANDONED_US)
    assert await store.run(outbox.prune, NOW_US) == 0
    assert await store.run(outbox.prune, NOW_US + 1) == 2
    assert set(await keys(store)) == {fresh, waiting}


async def test_letters_to_a_channel_that_is_gone_are_given_up_in_time(store: AsyncStore) -> None:
    await alert(await own(store), change(12, 12, FIRING, **GRAVE), to=(DUTY, PAGER))
    assert await store.run(outbox.abandon_unknown, ["duty"], NOW_US) == []  # it may come back
    assert await store.run(outbox.abandon_unknown, ["duty"], NOW_US + 1) == [key("firing", channel="pager")]
    assert await store.run(outbox.abandon_unknown, ["duty"], NOW_US + 1) == []
    assert await due(store, channel="pager") is None
    assert await key_due(store) == key("firing")
