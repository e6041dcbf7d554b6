"""Times on which alerts and people have a say in training, on both databases."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import text

from monitor import control
from monitor.errors import ConfigError, Conflict, NotFound, WrongState
from monitor.store import alerts, assets, labels, training_times
from monitor.store.acts import Actor
from monitor.types import AlertState, Label
from tests.contract.steps import FLEET, HOME, INTERVAL_US, change, count, own, rows_of
from tests.fakes import FakeClock

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from monitor.store.accepted import Acceptance
    from monitor.store.engine import AsyncStore
    from tests.contract.steps import Owner

ANN = Actor("ann", "cli")
Found = tuple[float, float, str, str]


async def with_alerts(store: AsyncStore, *spans: tuple[int, int | None]) -> Owner:
    """Register asset `a`, with alerts from a cell to a cell. None = open."""
    owner = await own(store)
    await owner.score(8, a=2.0)
    for opened, closed in spans:
        await store.run(alerts.write_change, owner.ids["a"], change(opened, opened, AlertState.FIRING))
        if closed is not None:
            await store.run(alerts.write_change, owner.ids["a"], change(opened, closed, AlertState.CLOSED))
    return owner


async def found(store: AsyncStore) -> list[Found]:
    """Return first and last cell of each judged time of asset `a`, its reason, and the row behind it."""
    times = (await store.read(training_times.judged_times, FLEET)).get("a", [])
    return [
        (-(-each.from_us // INTERVAL_US), -(-each.to_us // INTERVAL_US), each.reason, f"{each.source} {each.id}")
        for each in times
    ]


async def label(store: AsyncStore, first: int, last: int, word: Label, at_us: int) -> None:
    times = first * INTERVAL_US, last * INTERVAL_US
    await store.run(labels.label_interval, FLEET, "a", *times, word, "", ANN, at_us)


async def test_alerts_say_whether_they_are_open(store: AsyncStore) -> None:
    await with_alerts(store, (12, 15), (20, None))
    closed, open_ = (await store.read(training_times.judged_times, FLEET))["a"]
    assert (closed.reason, closed.source, closed.id) == ("unlabelled", "alert", 1)
    assert (open_.reason, open_.source, open_.id) == ("open", "alert", 2)
    assert (closed.from_us, closed.to_us) == (12 * INTERVAL_US - 1, 15 * INTERVAL_US)
    assert open_.since_us == 20 * INTERVAL_US
    assert open_.to_us > 10**6 * INTERVAL_US
    assert await store.read(training_times.judged_times, "pumps") == {}


MAINTENANCE = """
    INSERT INTO maintenance (fleet, asset, from_us, to_us, reason, actor, made_us)
    VALUES ('*', 'a', :from, :to, 'oil', 'ann', 0)
"""


async def test_the_newest_label_and_maintenance_come_first(store: AsyncStore) -> None:
    await with_alerts(store, (12, 20))
    for number, (first, last, word) in enumerate(
        ((14, 16, Label.NORMAL), (15, 16, Label.IGNORE), (30, 32, Label.FAULT))
    ):
        await label(store, first, last, word, number)

    def plan(connection: Connection) -> None:
        times = {"from": 18 * INTERVAL_US + 1, "to": 19 * INTERVAL_US + 1}
        connection.execute(text(MAINTENANCE), times)

    await store.run(plan)
    assert await found(store) == [
        (12, 14, "unlabelled", "alert 1"), (14, 15, "accepted", "label 1"), (15, 16, "ignore", "label 2"),
        (16, 18, "unlabelled", "alert 1"), (18, 19, "maintenance", "maintenance 1"), (19, 20, "unlabelled", "alert 1"),
        (30, 32, "fault", "label 3"),
    ]  # fmt: skip


async def test_a_fault_that_is_labelled_later_wins(store: AsyncStore) -> None:
    await with_alerts(store, (12, 20))
    await store.run(labels.label_alert, 1, Label.IGNORE, "", ANN, 1)
    await label(store, 10, 16, Label.NORMAL, 2)
    assert await found(store) == [(10, 16, "accepted", "label 1"), (16, 20, "ignore", "alert 1")]
    await store.run(labels.label_alert, 1, Label.FAULT, "", ANN, 3)
    assert await found(store) == [(10, 12, "accepted", "label 1"), (12, 20, "fault", "alert 1")]
    await store.run(labels.label_alert, 1, Label.NORMAL, "", ANN, 4)
    assert await found(store) == [(10, 12, "accepted", "label 1"), (12, 20, "normal", "alert 1")]


async def test_a_shelf_leaves_out_its_alert_or_its_time(store: AsyncStore) -> None:
    await with_alerts(store, (12, None))
    clock = FakeClock(14 * INTERVAL_US)
    week = control.ShelfTarget(alert_id=1)
    await control.shelve(store, clock, week, until="7d", reason="known", actor=ANN)
    assert [each[2:] for each in await found(store)] == [("shelved", "shelf 1")]
    await control.unshelve(store, clock, 1, actor=ANN)
    # It covers the alert that it was made for, also when it has ended.
    assert [each[2:] for each in await found(store)] == [("shelved", "shelf 1")]

    pattern = control.ShelfTarget(asset="a*")
    await control.shelve(store, clock, pattern, until="7d", reason="belt", actor=ANN)
    clock.advance(2 * INTERVAL_US / 1e6)
    await control.unshelve(store, clock, 2, actor=ANN)
    assert await found(store) == [
        (12, 14, "shelved", "shelf 1"), (14, 16, "shelved", "shelf 2"),
        (16, -(-(1 << 62) // INTERVAL_US), "shelved", "shelf 1"),
    ]  # fmt: skip


# ---------------------------------------------------------------- accepted normal


async def accept(store: AsyncStore, first: int, last: int, asset: str | None = "a", **more: int) -> Acceptance:
    clock = FakeClock(100 * INTERVAL_US)
    times = first * INTERVAL_US, last * INTERVAL_US
    done, _ = await control.accept_normal(store, clock, FLEET, asset, *times, actor=ANN, note="new belt", **more)
    return done


async def test_an_acceptance_is_a_label_and_a_training(store: AsyncStore) -> None:
    await with_alerts(store, (12, 20))
    done = await accept(store, 10, 18)
    assert await found(store) == [(10, 18, "accepted", "label 1"), (18, 20, "unlabelled", "alert 1")]
    assert (done.label_ids, done.assets, done.job.state) == ([1], ["a"], "queued")
    [job] = await store.read(rows_of, "job")
    assert (job["reason"], job["note"], job["requested_by"]) == ("operator", "new belt", "ann")
    assert json.loads(job["detail"])["accept_normal"] == {
        "from": "1970-01-01T01:40:00+00:00", "to": "1970-01-01T03:00:00+00:00", "asset": "a", "n_assets": 1,
        "labels": [1],
    }  # fmt: skip
    [act] = await store.read(rows_of, "act")
    assert (act["act"], act["actor"], act["note"]) == ("label", "ann", "new belt")


async def test_an_acceptance_is_of_all_assets_or_of_none(store: AsyncStore) -> None:
    await with_alerts(store, (12, 20))
    await store.run(assets.register, FLEET, ["b"], HOME)
    assert (await accept(store, 10, 18, None)).assets == ["a", "b"]
    with pytest.raises(Conflict, match=r"is queued, asked for by ann; nothing was accepted"):
        await accept(store, 18, 20)
    assert await store.read(count, ["interval_label"]) == {"interval_label": 2}


async def test_a_confirmed_fault_is_not_accepted(store: AsyncStore) -> None:
    await with_alerts(store, (12, 20))
    await store.run(labels.label_alert, 1, Label.FAULT, "", ANN, 1)
    with pytest.raises(WrongState, match=r"alert 1 says that a had a fault .*: monitor alerts label 1 normal"):
        await accept(store, 18, 40)
    await label(store, 50, 60, Label.FAULT, 2)
    with pytest.raises(WrongState, match=r"label 1 says that a had a fault .*: monitor alerts unlabel 1"):
        await accept(store, 40, 51)
    assert await store.read(count, ["job"]) == {"job": 0}
    assert (await accept(store, 20, 50)).label_ids == [2]


@pytest.mark.parametrize(
    ("first", "last", "asset", "more", "message"),
    [
        (18, 10, "a", {}, "swap the two times"),
        (10, 101, "a", {}, "in the future.*--accept-normal 1970-01-01T01:40:00.00:00 now"),
        (10, 18, "A", {}, "asset A of fleet"),
        (1, 18, "a", {"history_us": INTERVAL_US}, r"before the history of a training, which begins at 1970.*history"),
    ],
)
async def test_a_time_that_cannot_be_accepted_is_refused(
    store: AsyncStore, first: int, last: int, asset: str, more: dict[str, int], message: str
) -> None:
    await with_alerts(store, (12, 20))
    with pytest.raises((ConfigError, NotFound), match=message):
        await accept(store, first, last, asset, **more)
    assert await store.read(count, ["interval_label", "job"]) == {"interval_label": 0, "job": 0}
