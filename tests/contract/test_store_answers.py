"""Operators' answers on both databases: acknowledgement, shelves, labels, closing by hand, maintenance, incidents."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from monitor import control
from monitor.control import Actor, Maintenance, ShelfTarget
from monitor.errors import ConfigError, Conflict, NotFound
from monitor.store import releases
from monitor.store.engine import AsyncStore
from monitor.store.outbox import Channel
from monitor.store.reader import open_reader
from monitor.types import AlertClass, AlertState, DataAlertChange, Label, Partition, Severity
from tests.contract.steps import FLEET, HOME, INTERVAL_US, change, own, rows_of
from tests.fakes import FakeClock

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from monitor.store.reader import Reader
    from tests.contract.steps import Owner

FIRING, RECOVERING, CLOSED = AlertState.FIRING, AlertState.RECOVERING, AlertState.CLOSED
ANN, BOB = Actor("ann", "cli"), Actor("bob", "console")
HOUR = 6
"""Cells."""
OPS = (Channel("ops"),)
PEOPLE = (Channel("people", by_incident=True),)


@dataclass
class Plant:
    """A partition with assets a and b. Their alerts change as a test says."""

    owner: Owner
    clock: FakeClock
    url: str
    cell: int = 100
    channels: tuple[Channel, ...] = OPS

    @property
    def store(self) -> AsyncStore:
        return self.owner.store

    async def commit(self, *changes: Any, **facts: Any) -> None:
        """Commit one window of each asset that ends at the latest change, and these changes."""
        self.cell = max(self.cell + 1, *(each.at_us // INTERVAL_US for each in changes if hasattr(each, "asset")), 0)
        alerts = [each for each in changes if not isinstance(each, DataAlertChange)]
        rows = await self.owner.rows({"a": 0.5, "b": 0.5}, self.cell - 4, alerts=alerts)
        data = [each for each in changes if isinstance(each, DataAlertChange)]
        step = self.owner.step(rows, data_alerts=data, channels=self.channels, at_us=self.clock.now_us(), **facts)
        await self.owner.save(step)

    async def fire(self, at: int, asset: int = 0, peak: float = 2.0) -> int:
        """Open an alert and return its id."""
        await self.commit(change(at, at, FIRING, asset=asset, peak=peak))
        return max(row["id"] for row in await self.store.read(rows_of, "alert"))

    async def read(self, query: Callable[[Reader], Any]) -> Any:
        """Run a query of operators."""

        def run() -> Any:
            with open_reader(self.url) as reader:
                return query(reader)

        return await asyncio.to_thread(run)

    async def alert(self, alert_id: int) -> Any:
        """Return an alert as operators see it."""
        return await self.read(lambda reader: reader.alert(alert_id))

    async def sent(self) -> list[str]:
        """Return the steps in the outbox, by asset."""
        keys = [row["dedup_key"] for row in await self.store.read(rows_of, "outbox", "1000 + id AS id, dedup_key")]
        return [key.split("/")[1].split(":")[0] + ":" + key.rpartition(":")[2].partition(".")[0] for key in keys]

    async def due(self) -> bool:
        """Return whether a release would change something."""
        return await self.store.read(releases.is_due, self.channels, self.clock.now_us())

    async def tick(self) -> list[int]:
        """Release what is over."""
        return await self.store.run(releases.release, self.channels, self.clock.now_us())


@pytest.fixture
async def plant(url: str) -> AsyncIterator[Plant]:
    async with AsyncStore(url, owner=True) as store:
        made = Plant(await own(store), FakeClock(), url)
        await made.commit()
        yield made


# ---------------------------------------------------------------- acknowledge


async def test_acknowledgement_ends_with_its_alert(plant: Plant) -> None:
    alert_id = await plant.fire(110)
    await control.acknowledge(plant.store, plant.clock, alert_id, actor=ANN, note="on my way")
    alert = await plant.alert(alert_id)
    assert (alert["acknowledged_by"], alert["state"]) == ("ann", "firing")
    await plant.commit(change(110, 115, CLOSED))
    alert = await plant.alert(alert_id)
    assert (alert["acknowledged_by"], alert["acknowledged_at"], alert["state"]) == (None, None, "closed")
    assert [(act["by"], act["via"], act["act"], act["note"]) for act in alert["acts"]] == [
        ("ann", "cli", "acknowledge", "on my way"), ("monitor", "daemon", "unacknowledge", "the alert closed")
    ]  # fmt: skip


async def test_illegal_acts_name_the_state(plant: Plant) -> None:
    alert_id = await plant.fire(110)
    store, clock = plant.store, plant.clock
    with pytest.raises(Conflict, match="is not acknowledged"):
        await control.unacknowledge(store, clock, alert_id, actor=ANN)
    await control.acknowledge(store, clock, alert_id, actor=ANN)
    with pytest.raises(Conflict, match="was acknowledged by ann"):
        await control.acknowledge(store, clock, alert_id, actor=BOB)
    await control.close_alert(store, clock, alert_id, reason="sensor swapped", actor=BOB)
    for act in (control.acknowledge, control.unacknowledge):
        with pytest.raises(Conflict, match="closed by hand"):
            await act(store, clock, alert_id, actor=ANN)
    with pytest.raises(Conflict, match="closed by hand"):
        await control.close_alert(store, clock, alert_id, reason="again", actor=ANN)
    for missing in (alert_id + 1, 2**40):
        with pytest.raises(NotFound, match="alerts list"):
            await control.acknowledge(store, clock, missing, actor=ANN)
    for text in ("", "  ", "x" * 1001):
        with pytest.raises(ConfigError):
            await control.close_alert(store, clock, alert_id, reason=text, actor=ANN)


async def test_one_of_two_operators_acknowledges(plant: Plant, url: str) -> None:
    alert_id = await plant.fire(110)
    async with AsyncStore(url) as other:
        results = await asyncio.gather(
            control.acknowledge(plant.store, plant.clock, alert_id, actor=ANN),
            control.acknowledge(other, plant.clock, alert_id, actor=BOB),
            return_exceptions=True,
        )
    assert sorted(isinstance(each, Conflict) for each in results) == [False, True]
    assert len((await plant.alert(alert_id))["acts"]) == 1


async def test_a_worse_alert_is_unacknowledged(plant: Plant) -> None:
    alert_id = await plant.fire(110, peak=2.0)
    await control.acknowledge(plant.store, plant.clock, alert_id, actor=ANN)
    await plant.commit(change(110, 111, FIRING, peak=3.9, is_transition=False))
    assert (await plant.alert(alert_id))["acknowledged_by"] == "ann"
    await plant.commit(change(110, 112, FIRING, peak=4.0, is_transition=False))
    alert = await plant.alert(alert_id)
    assert alert["acknowledged_by"] is None
    assert alert["acts"][-1]["note"] == "worse: peak 4.00 after 2.00"
    assert await plant.sent() == ["a:firing", "a:worse"]


async def test_an_alert_that_recovers_and_fires_stays_acknowledged(plant: Plant) -> None:
    alert_id = await plant.fire(110)
    await control.acknowledge(plant.store, plant.clock, alert_id, actor=ANN)
    await plant.commit(change(110, 111, RECOVERING), change(110, 112, FIRING))
    assert (await plant.alert(alert_id))["acknowledged_by"] == "ann"


# ---------------------------------------------------------------- close by hand


async def test_an_alert_closed_by_hand_opens_when_it_fires_again(plant: Plant) -> None:
    alert_id = await plant.fire(110)
    await control.close_alert(plant.store, plant.clock, alert_id, reason="known noise", actor=ANN)
    alert = await plant.alert(alert_id)
    assert (alert["state"], alert["pipeline_state"], alert["incident"]["closed_at"]) == (
        "closed", "firing", alert["closed_at"]
    )  # fmt: skip
    await plant.commit(change(110, 111, FIRING, n_anomalous=4, is_transition=False), change(110, 112, RECOVERING))
    assert (await plant.alert(alert_id))["state"] == "closed"
    assert await plant.due()
    await plant.tick()
    assert not await plant.due()
    await plant.commit(change(110, 113, FIRING))
    alert = await plant.alert(alert_id)
    assert (alert["state"], alert["incident"]["closed_at"]) == ("firing", None)
    assert [act["act"] for act in alert["acts"]] == ["close", "reopen"]
    assert await plant.sent() == ["a:firing", "a:closed", "a:reopened"]
    assert await plant.read(lambda reader: [row["id"] for row in reader.alerts(state="open")]) == [alert_id]


# ---------------------------------------------------------------- shelves


async def test_a_shelved_alert_is_not_notified_until_its_time_is_over(plant: Plant) -> None:
    await control.shelve(
        plant.store, plant.clock, ShelfTarget(asset="a"), until="2h", reason="being repaired", actor=ANN
    )
    alert_id = await plant.fire(110)
    await plant.commit(change(110, 111, FIRING, peak=4.0, severity=Severity.CRITICAL, is_transition=False))
    await plant.fire(112, asset=1)
    assert await plant.sent() == ["b:firing"]
    alert = await plant.alert(alert_id)
    assert (alert["suppressed_by"], [each["reason"] for each in alert["shelves"]]) == ("shelf", ["being repaired"])
    assert await plant.tick() == []
    plant.clock.advance(2 * 3600 + 1)
    assert await plant.tick() == [alert_id]
    assert await plant.tick() == []
    assert await plant.sent() == ["b:firing", "a:again"]
    [ended] = await plant.read(lambda reader: reader.shelves(is_active=False))
    assert ended["ended_why"] == "its time is over"


async def test_unshelving_notifies_firing_alerts(plant: Plant) -> None:
    alert_id = await plant.fire(110)
    shelf = await control.shelve(
        plant.store, plant.clock, ShelfTarget(alert_id), until="recovered", reason="later", actor=ANN
    )
    assert await plant.tick() == []
    await control.unshelve(plant.store, plant.clock, shelf, actor=BOB)
    assert await plant.tick() == [alert_id]
    with pytest.raises(Conflict, match="ended at"):
        await control.unshelve(plant.store, plant.clock, shelf, actor=BOB)
    with pytest.raises(NotFound, match="alerts shelves"):
        await control.unshelve(plant.store, plant.clock, shelf + 1, actor=BOB)


@pytest.mark.parametrize(
    ("target", "until", "error", "match"),
    [
        (ShelfTarget(asset="a"), "tomorrow", ConfigError, "cannot be read"),
        (ShelfTarget(asset="a"), "worse:0.5x", ConfigError, "no multiple"),
        (ShelfTarget(asset="a"), "-1h", ConfigError, "cannot be read"),
        (ShelfTarget(asset="a"), "2020-01-01", ConfigError, "over already"),
        (ShelfTarget(asset="a"), "900d", ConfigError, "longer than 366 days"),
        (ShelfTarget(asset="a"), "recovered", Conflict, "nothing can recover"),
        (ShelfTarget(asset="x*"), "1d", NotFound, "no asset matches"),
        (ShelfTarget(fleet="pumps"), "1d", NotFound, "the database knows turbines"),
        (ShelfTarget(), "1d", ConfigError, "name what to shelve"),
        (ShelfTarget(1, asset="a"), "1d", ConfigError, "not both"),
        (ShelfTarget(1), "1d", NotFound, "alert 1"),
    ],
)
async def test_a_meaningless_shelf_is_refused(
    plant: Plant, target: ShelfTarget, until: str, error: type[Exception], match: str
) -> None:
    with pytest.raises(error, match=match):
        await control.shelve(plant.store, plant.clock, target, until=until, reason="why", actor=ANN)


async def test_a_shelf_ends_when_it_gets_worse(plant: Plant) -> None:
    alert_id = await plant.fire(110, peak=2.0)
    await control.shelve(plant.store, plant.clock, ShelfTarget(alert_id), until="worse:2x", reason="r", actor=ANN)
    await plant.commit(change(110, 111, FIRING, peak=3.0, is_transition=False))
    assert await plant.tick() == []
    await plant.commit(change(110, 112, FIRING, peak=4.0, is_transition=False))
    assert await plant.tick() == [alert_id]
    assert (await plant.alert(alert_id))["shelves"][0]["ended_why"] == "worse: peak 4.00 after 2.00"


async def test_a_shelf_ends_with_too_many_alerts_within_a_time(plant: Plant) -> None:
    target = ShelfTarget(fleet=FLEET, asset="*")
    await control.shelve(plant.store, plant.clock, target, until="7d or 2x/1d", reason="r", actor=ANN)
    for at in (110, 120, 300, 310):
        await plant.fire(at)
        await plant.commit(change(at, at + 2, CLOSED))
    assert await plant.sent() == []
    await plant.fire(320)
    assert await plant.sent() == ["a:firing"]


async def test_a_shelf_ends_as_its_alert_closes(plant: Plant) -> None:
    alert_id = await plant.fire(110)
    await control.shelve(plant.store, plant.clock, ShelfTarget(alert_id), until="7d", reason="r", actor=ANN)
    await plant.commit(change(110, 115, CLOSED))
    assert (await plant.alert(alert_id))["shelves"][0]["ended_why"] == "the alert closed"
    assert await plant.sent() == ["a:firing", "a:closed"]  # whoever was told of it learns its end


# ---------------------------------------------------------------- maintenance


async def test_maintenance_suppresses_its_alerts(plant: Plant) -> None:
    plan = Maintenance(FLEET, "a", 108 * INTERVAL_US, 120 * INTERVAL_US, "overhaul")
    await control.plan_maintenance(plant.store, plant.clock, plan, actor=ANN)
    alert_id = await plant.fire(110)
    other = await plant.fire(111, asset=1)
    assert (await plant.alert(alert_id))["suppressed_by"] == "maintenance"
    assert await plant.read(lambda reader: [row["id"] for row in reader.alerts()]) == [other]
    every = await plant.read(lambda reader: [row["id"] for row in reader.alerts(show_suppressed=True)])
    assert every == [other, alert_id]
    assert await plant.tick() == []
    await plant.commit(change(110, 121, FIRING, is_transition=False))
    assert await plant.tick() == [alert_id]
    assert await plant.sent() == ["b:firing", "a:again"]


async def test_cancelled_maintenance_suppresses_nothing(plant: Plant) -> None:
    plan = Maintenance(FLEET, "*", 108 * INTERVAL_US, 120 * INTERVAL_US, "overhaul")
    number = await control.plan_maintenance(plant.store, FakeClock(0), plan, actor=ANN)
    await control.end_maintenance(plant.store, FakeClock(107 * INTERVAL_US), number, actor=ANN)
    assert (await plant.alert(await plant.fire(110)))["suppressed_by"] is None
    with pytest.raises(Conflict, match="has ended"):
        await control.end_maintenance(plant.store, plant.clock, number, actor=ANN)


# ---------------------------------------------------------------- flapping


async def test_the_fifth_alert_of_an_hour_flaps(plant: Plant) -> None:
    plant.channels = PEOPLE
    for at in (110, 111, 112, 113, 114, 115):
        await plant.commit(change(at, at, FIRING))
        await plant.commit(change(at, at, CLOSED))
    assert (await plant.sent()).count("a:flapping") == 1
    assert (await plant.sent()).count("a:firing") == 4
    alert_id = await plant.fire(116)
    assert (await plant.alert(alert_id))["is_flapping"]
    await plant.commit(change(116, 130, FIRING, is_transition=False))
    assert await plant.tick() == [alert_id]


async def test_the_fifth_alert_of_a_sensor_flaps(plant: Plant) -> None:
    plant.channels = PEOPLE

    async def step(opened: int, state: AlertState, at: int) -> None:
        opened_us, at_us = opened * INTERVAL_US, at * INTERVAL_US
        found = DataAlertChange(
            "stuck", HOME, FLEET, 100, opened_us, at_us, state, Severity.WARNING, 3, "stuck", True, "a/wind",
            AlertClass.SENSOR, "a", "wind",
        )  # fmt: skip
        await plant.commit(found)

    for at in (110, 111, 112, 113, 114, 115):
        await step(at, FIRING, at)
        await step(at, CLOSED, at)
    assert (await plant.sent()).count("plant.readings:flapping") == 1
    assert (await plant.sent()).count("plant.readings:firing") == 4
    await step(116, FIRING, 116)
    assert not await plant.due()
    plant.cell = 140
    await plant.commit()
    assert len(await plant.tick()) == 1


async def test_the_first_critical_alert_of_a_flapping_asset_is_told(plant: Plant) -> None:
    """With warnings alone nobody who gets only critical alerts knows that the asset flaps."""
    plant.channels = (*PEOPLE, Channel("pager", Severity.CRITICAL, by_incident=True))
    for at in (110, 111, 112, 113, 114):
        await plant.commit(change(at, at, FIRING))
        await plant.commit(change(at, at, CLOSED))
    grave = {"severity": Severity.CRITICAL, "peak": 4.0}
    for at in (115, 117):
        await plant.commit(change(at, at, FIRING))
        await plant.commit(change(at, at + 1, FIRING, **grave))
        await plant.commit(change(at, at + 1, CLOSED, **grave))
    pages = [row["dedup_key"] for row in await plant.store.read(rows_of, "outbox") if row["channel"] == "pager"]
    assert sorted(key.rpartition(":")[2] for key in pages) == ["closed", "critical"]
    assert (await plant.sent()).count("a:critical") == 2, "people and the pager, once"


# ---------------------------------------------------------------- incidents


async def test_overlapping_alerts_are_one_incident(plant: Plant) -> None:
    one, two = await plant.fire(110), await plant.fire(112, asset=1)
    incident = (await plant.alert(one))["incident"]
    assert (incident["alerts"], incident["assets"], incident["n_alerts"]) == ([one, two], ["a", "b"], 2)
    await plant.commit(change(110, 113, CLOSED))
    assert (await plant.alert(two))["incident"]["closed_at"] is None
    critical = change(112, 114, CLOSED, asset=1, severity=Severity.CRITICAL)
    await plant.commit(critical)
    incident = (await plant.alert(two))["incident"]
    assert (incident["severity"], incident["closed_at"]) == ("critical", "1970-01-01T19:00:00Z")
    three = await plant.fire(115)
    assert (await plant.alert(three))["incident_id"] != incident["id"]
    [closed] = await plant.read(lambda reader: reader.incidents(state="closed"))
    assert closed["id"] == incident["id"]


async def test_concurrent_commits_make_one_incident(plant: Plant, url: str) -> None:
    async with AsyncStore(url) as other:
        owner = await own(other, Partition(HOME.topic, 1), owner="you")
        rows = await owner.rows({"c": 0.5}, 106, alerts=[change(110, 110, FIRING)])
        await asyncio.gather(plant.fire(110), owner.save(owner.step(rows)))
    assert [row["n_alerts"] for row in await plant.store.read(rows_of, "incident")] == [2]


async def test_alerts_of_an_incident_may_take_a_step_at_one_moment(plant: Plant) -> None:
    """Their notifications once had one key: the commit, and the tick, would have failed for ever."""
    plant.channels = PEOPLE
    alerts = [await plant.fire(110), await plant.fire(111, asset=1)]
    for alert_id in alerts:
        await control.acknowledge(plant.store, plant.clock, alert_id, actor=ANN)
    worse = [change(110 + asset, 112, FIRING, asset=asset, peak=5.0, is_transition=False) for asset in (0, 1)]
    await plant.commit(*worse)
    await control.shelve(plant.store, plant.clock, ShelfTarget(fleet=FLEET), until="1h", reason="r", actor=ANN)
    plant.clock.advance(3601)
    assert await plant.tick() == alerts
    assert sorted(await plant.sent()) == ["a:again", "a:firing", "a:worse", "b:again", "b:worse"]


# ---------------------------------------------------------------- labels


async def test_labels_are_kept_with_who_said_them(plant: Plant) -> None:
    alert_id = await plant.fire(110)
    store, clock = plant.store, plant.clock
    await control.label_alert(store, clock, alert_id, Label.FAULT, actor=ANN, note="bearing \u202e worn")
    await control.label_alert(store, clock, alert_id, Label.FAULT, actor=ANN, note="bearing \u202e worn")
    await control.label_alert(store, clock, alert_id, None, actor=BOB)
    alert = await plant.alert(alert_id)
    assert alert["label"] is None
    assert [(act["by"], act["detail"]["label"], act["note"]) for act in alert["acts"]] == [
        ("ann", "fault", "bearing \\u202e worn"), ("bob", None, "")
    ]  # fmt: skip
    label = await control.label_interval(store, clock, None, "a", 0, 10, Label.IGNORE, actor=ANN)
    assert await plant.read(lambda reader: [each["label"] for each in reader.interval_labels(asset="a")]) == ["ignore"]
    await control.remove_interval_label(store, clock, label, actor=BOB)
    with pytest.raises(Conflict, match="taken back"):
        await control.remove_interval_label(store, clock, label, actor=BOB)
    with pytest.raises(NotFound, match="asset x"):
        await control.label_interval(store, clock, None, "x", 0, 10, Label.IGNORE, actor=ANN)
