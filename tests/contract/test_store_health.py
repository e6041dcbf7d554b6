"""Alarm health from the database: the alerts that count, of which fleet, on both databases."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import text

from monitor.clock import from_us
from monitor.store import versions
from monitor.store.engine import AsyncStore
from monitor.store.reader import open_reader
from monitor.types import AlertClass, AlertState, DataAlertChange, Severity
from tests.contract.steps import FLEET, HOME, INTERVAL_US, SAVED_US, change, own

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from sqlalchemy import Connection

FIRING, CLOSED = AlertState.FIRING, AlertState.CLOSED


def at(cell: int) -> datetime:
    return from_us(cell * INTERVAL_US)


def about_data(cell: int, kind: str, **facts: Any) -> DataAlertChange:
    plain: dict[str, Any] = {
        "kind": kind,
        "partition": HOME,
        "fleet": None,
        "from_offset": cell,
        "opened_us": cell * INTERVAL_US,
        "at_us": cell * INTERVAL_US,
        "state": FIRING,
        "severity": Severity.WARNING,
        "n_records": 1,
        "message": "m",
        "is_transition": True,
    }
    return DataAlertChange(**(plain | facts))


@pytest.fixture
def health(url: str) -> Callable[..., Any]:
    """A call of the query. Alerts open at the cells 8 (three weeks open), 2000, 2100 (suppressed), 2103, 3000 …"""
    asyncio.run(fill(url))

    def call(*arguments: Any, **options: Any) -> Any:
        with open_reader(url) as reader:
            found = reader.alert_health(*arguments, **options)
            json.dumps(found, allow_nan=False)
            return found

    return call


async def fill(url: str) -> None:
    async with AsyncStore(url, owner=True) as store:
        owner = await own(store)
        first = [change(8, 8, FIRING)]
        await owner.save(owner.step(await owner.rows({"R1": 2.0, "R2": 0.5}, 4, alerts=first)))
        changes = [
            change(2000, 2000, FIRING, asset=1, severity=Severity.CRITICAL),
            change(2000, 2010, CLOSED, asset=1, severity=Severity.CRITICAL),
            change(2100, 2100, FIRING, asset=1),
            change(2100, 2102, CLOSED, asset=1),
            change(2103, 2103, FIRING, asset=1),
            change(8, 3030, CLOSED),
        ]
        sensor = {"alert_class": AlertClass.SENSOR, "fleet": FLEET, "asset": "R1", "sensor": "power"}
        data = [
            about_data(2500, "records_lost"),
            about_data(2501, "stuck", subject="R1/power", **sensor),
        ]
        await owner.save(owner.step(await owner.rows({"R1": 0.5, "R2": 0.5}, 3026, alerts=changes), data_alerts=data))
        await owner.save(owner.step(await owner.rows({"P1": 0.5}, 3026, fleet="pumps")))
        await store.run(answer)


def answer(connection: Connection) -> None:
    """Write answers of operators, as `control` does."""
    [first, second, third, fourth] = [
        row.id for row in connection.execute(text("SELECT id FROM alert WHERE class = 'process' ORDER BY opened_us"))
    ]
    insert = text("INSERT INTO act (at_us, actor, via, act, alert_id) VALUES (:at, 'ann', 'cli', :act, :alert)")
    for at_us, act, alert in (
        (SAVED_US + 90_000_000, "acknowledge", second),
        (SAVED_US + 900_000_000, "acknowledge", second),
        (SAVED_US, "shelve", third),
    ):
        connection.execute(insert, {"at": at_us, "act": act, "alert": alert})
    for values in ({"id": first, "label": "fault"}, {"id": fourth, "label": "normal"}):
        connection.execute(text("UPDATE alert SET label = :label WHERE id = :id"), values)
    connection.execute(text("UPDATE alert SET suppressed_by = 'shelf' WHERE id = :id"), {"id": third})


def test_health_counts_each_fleet_and_all(health: Callable[..., Any]) -> None:
    found = health(since=at(1900), until=at(3000))
    assert (found["from"], found["to"]) == ("1970-01-14T04:40:00Z", "1970-01-21T20:00:00Z")
    by_fleet = {each["fleet"]: each for each in found["fleets"]}
    assert list(by_fleet) == ["pumps", FLEET, None]
    turbines = by_fleet[FLEET]
    assert (turbines["assets"], turbines["alarms"], turbines["suppressed"], turbines["shelved"]) == (2, 3, 1, 1)
    assert turbines["by_class"] == {"process": 2, "sensor": 1}
    assert [each["subject"] for each in turbines["top"]] == ["R2", "R1 power"]
    assert by_fleet["pumps"]["alarms"] == 0
    assert by_fleet[None]["top"] == [{"subject": "plant.readings/0 records_lost", "alarms": 1, "share": 1.0}]
    assert (found["all"]["alarms"], found["all"]["assets"]) == (4, 3)
    assert [week["alarms"] for week in found["all"]["weeks"]] == [4, 0]


def test_alerts_that_began_before_are_stale_and_standing(health: Callable[..., Any]) -> None:
    [turbines] = health(FLEET, since=at(1900), until=at(3000))["fleets"]
    assert turbines["standing"] == 3
    assert len(turbines["stale_alerts"]) == 3, "the first, the sensor's, and the fourth, which nobody closed"
    after = health(FLEET, since=at(3040), until=at(3100))["all"]
    assert (after["alarms"], after["standing"], after["stale"]) == (0, 2, 2)


def test_answers_give_precision_and_time_to_acknowledge(health: Callable[..., Any]) -> None:
    turbines = health(FLEET, since=at(0), until=at(3000))["all"]
    assert turbines["acknowledged"] == {"alarms": 1, "share": 0.25, "median_s": 90}
    assert turbines["precision"] == {
        "judged": 2,
        "real": 1,
        "at_least": pytest.approx(0.0253, abs=1e-4),
        "confidence": 0.95,
        "any_time": {"judged": 2, "real": 1, "at_least": pytest.approx(0.0072, abs=1e-4), "confidence": 0.95},
    }
    later = health(FLEET, since=at(2000), until=at(3000))["all"]["precision"]
    assert (later["judged"], later["any_time"]["judged"]) == (1, 2)


def test_the_range_ends_with_the_newest_window(health: Callable[..., Any]) -> None:
    found = health(FLEET)
    assert found["to"] == "1970-01-22T01:00:00.000001Z"
    assert found["from"] == "1969-12-25T01:00:00.000001Z"
    earlier = health(FLEET, now=at(10))
    assert earlier["to"] == "1970-01-01T01:40:00Z", "later windows are in the future"


async def test_chattering_goes_by_the_champions_policy(url: str) -> None:
    threshold = {"step_s": 600.0, "confirm": 3, "recover": 6}
    async with AsyncStore(url, owner=True) as store:
        owner = await own(store)
        facts: Any = {"fleet": FLEET, "path": "p", "trained_us": 0, "metrics": {}, "card": {"threshold": threshold}}
        await store.run(versions.publish, version="v2", **facts)
        await store.run(versions.activate, FLEET, "v2", versions.FOREVER_AGO_US)
        steps = []
        for cell in (100, 126, 153):
            steps += [change(cell, cell, FIRING), change(cell, cell + 7, CLOSED)]
        await owner.save(owner.step(await owner.rows({"R1": 0.5}, 96, alerts=steps)))

    def read() -> Any:
        with open_reader(url) as reader:
            return reader.alert_health(FLEET, at(0), at(1000))["all"]

    assert (await asyncio.to_thread(read))["chattering_subjects"] == ["turbines/R1"]
