"""Alerts of class `data` on both databases: one row each, notified like others, excluded from judgements of assets."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError

from monitor.errors import InvariantBroken, NotFound
from monitor.replay.digest import digest_of
from monitor.store import assets, burn, results, schema, training_times, versions
from monitor.store.engine import AsyncStore
from monitor.store.outbox import Channel
from monitor.store.reader import open_reader
from monitor.store.results import LAST_US
from monitor.types import AlertClass, AlertState, DataAlertChange, Severity
from tests.contract.steps import FLEET, HOME, INTERVAL_US, THRESHOLD, VERSION, change, own, rows_of

if TYPE_CHECKING:
    from sqlalchemy import Connection

FIRING, CLOSED = AlertState.FIRING, AlertState.CLOSED


def data(at: int, state: AlertState = FIRING, *, is_transition: bool = True, **changes: Any) -> DataAlertChange:
    facts: dict[str, Any] = {
        "kind": "asset_limit",
        "partition": HOME,
        "fleet": FLEET,
        "from_offset": 103,
        "opened_us": 12 * INTERVAL_US,
        "at_us": at * INTERVAL_US,
        "state": state,
        "severity": Severity.WARNING,
        "n_records": 5,
        "message": "5 records were kept out",
        "is_transition": is_transition,
    }
    return DataAlertChange(**(facts | changes))


LOST = {"kind": "records_lost", "fleet": None, "severity": Severity.CRITICAL, "message": "5 records are lost"}


async def save(store: AsyncStore, *changes: DataAlertChange, channels: tuple[Channel, ...] = ()) -> None:
    owner = await own(store)
    await owner.save(owner.step(data_alerts=changes, channels=channels))


async def test_two_faults_of_a_sensor_in_one_record_are_two_alerts(store: AsyncStore, url: str) -> None:
    sensor = {"kind": "stuck", "alert_class": AlertClass.SENSOR, "asset": "R1", "sensor": "wind", "subject": "R1/wind"}
    first, second = sensor | {"opened_us": 12 * INTERVAL_US}, sensor | {"opened_us": 30 * INTERVAL_US}
    changes = data(12, **first), data(14, CLOSED, **first), data(30, **second), data(31, is_transition=False, **second)
    await save(store, *changes, channels=(Channel("duty"),))
    rows = await store.read(rows_of, "alert")
    assert [(row["class"], row["state"], row["from_offset"]) for row in rows] == [
        ("sensor", "closed", None), ("sensor", "firing", None)
    ]  # fmt: skip
    sent = [json.loads(row["body"]) for row in await store.read(rows_of, "outbox")]
    assert [(body["class"], body["asset"], body["sensor"], body["kind"], body["step"]) for body in sent] == [
        ("sensor", "R1", "wind", "stuck", step) for step in ("firing", "closed", "firing")
    ]
    assert len({body["key"] for body in sent}) == 3
    assert sent[0]["text"].startswith(f"R1 ({FLEET}): stuck, alert")

    def found(**filters: Any) -> list[tuple[str, str | None, str | None]]:
        with open_reader(url) as reader:
            return [(row["class"], row["asset"], row["sensor"]) for row in reader.alerts(**filters)]

    assert await asyncio.to_thread(found, alert_class="sensor", asset="R*") == [("sensor", "R1", "wind")] * 2
    assert await asyncio.to_thread(found, alert_class="data") == []
    first_us, second_us = (12 * INTERVAL_US - 1, 14 * INTERVAL_US, "wind"), (30 * INTERVAL_US - 1, LAST_US, "wind")
    assert await store.read(training_times.sensor_times, FLEET) == {"R1": [first_us, second_us]}
    assert await store.read(training_times.judged_times, FLEET) == {}


async def test_an_alert_is_one_row_that_follows_its_changes(store: AsyncStore, url: str) -> None:
    later = {"n_records": 9, "message": "9 records were kept out"}
    await save(store, data(12), data(13, is_transition=False, **later), data(20, CLOSED, **later))
    [row] = await store.read(rows_of, "alert")
    assert (row["class"], row["asset_id"], row["peak_score"], row["version"]) == ("data", None, None, None)

    def shown() -> dict[str, Any]:
        with open_reader(url) as reader:
            return reader.alert(row["id"])

    found = await asyncio.to_thread(shown)
    expected = {
        "id": row["id"],
        "class": "data",
        "asset": None,
        "sensor": None,
        "fleet": FLEET,
        "state": "closed",
        "severity": "warning",
        "opened_at": "1970-01-01T02:00:00Z",
        "closed_at": "1970-01-01T03:20:00Z",
        "updated_at": "1970-01-01T03:20:00Z",
        "peak_score": None,
        "peak_at": None,
        "n_anomalous": None,
        "sensors": [],
        "version": None,
        "acknowledged_by": None,
        "label": None,
        "kind": "asset_limit",
        "topic": HOME.topic,
        "partition": HOME.number,
        "from_offset": 103,
        "subject": None,
        "n_records": 9,
        "message": "9 records were kept out",
        "transitions": [
            {"state": "firing", "severity": "warning", "at": "1970-01-01T02:00:00Z", "peak_score": None,
             "n_anomalous": None, "n_records": 5},
            {"state": "closed", "severity": "warning", "at": "1970-01-01T03:20:00Z", "peak_score": None,
             "n_anomalous": None, "n_records": 9},
        ],
    }  # fmt: skip
    assert {key: found[key] for key in expected} == expected


async def test_a_change_needs_an_open_alert_and_a_key_opens_once(store: AsyncStore) -> None:
    with pytest.raises(InvariantBroken, match="not open"):
        await save(store, data(13, CLOSED))
    await save(store, data(12), data(13, CLOSED))
    with pytest.raises((InvariantBroken, IntegrityError)):
        await save(store, data(12))
    assert len(await store.read(rows_of, "alert")) == 1


async def test_a_repeated_commit_opens_no_second_alert(store: AsyncStore) -> None:
    owner = await own(store)
    step = owner.step(data_alerts=[data(12)], channels=[Channel("duty")])
    await store.save(step)
    assert (await store.save(step)).was_done
    assert len(await store.read(rows_of, "alert")) == len(await store.read(rows_of, "outbox")) == 1


@pytest.mark.parametrize(
    ("channel", "expected"),
    [
        (Channel("x"), ["firing", "closed"]),
        (Channel("x", fleets=["pumps"]), []),
        (Channel("x", Severity.CRITICAL), []),
        (Channel("x", max_age_us=0), []),
    ],
    ids=["all", "another fleet", "grave only", "history"],
)
async def test_opening_and_closing_are_notified(
    store: AsyncStore, channel: Channel, expected: list[str]
) -> None:
    owner = await own(store)
    changes = [data(12), data(13, is_transition=False), data(14, CLOSED)]
    await owner.save(owner.step(data_alerts=changes, channels=[channel], at_us=99 * INTERVAL_US))
    rows = sorted(await store.read(rows_of, "outbox"), key=lambda row: row["id"])
    assert [row["dedup_key"] for row in rows] == [
        f"x:data:asset_limit/plant.readings/0:103:{step}" for step in expected
    ]


async def test_an_alert_of_a_whole_partition_reaches_all_channels(store: AsyncStore) -> None:
    await save(store, data(12, **LOST), channels=(Channel("x", fleets=["pumps"]), Channel("y", Severity.CRITICAL)))
    first, _ = (json.loads(row["body"]) for row in await store.read(rows_of, "outbox"))
    [row] = await store.read(rows_of, "alert")
    assert first.pop("incident") == row["incident_id"]
    assert first == {
        "key": "x:data:records_lost/plant.readings/0:103:firing",
        "step": "firing",
        "text": f"plant.readings/0: records_lost, alert {row['id']} opened. 5 records are lost",
        "id": row["id"],
        "class": "data",
        "kind": "records_lost",
        "fleet": None,
        "asset": None,
        "topic": "plant.readings",
        "partition": 0,
        "from_offset": 103,
        "subject": None,
        "n_records": 5,
        "message": "5 records are lost",
        "state": "firing",
        "severity": "critical",
        "opened_at": "1970-01-01T02:00:00Z",
        "closed_at": None,
        "at": "1970-01-01T02:00:00Z",
        "peak_score": None,
        "peak_at": None,
        "n_anomalous": None,
        "sensors": [],
        "version": None,
        "clearing": None,
        "sensor": None,
    }


# ---------------------------------------------------------------- excluded from judgements of assets


def test_budget_training_restart_and_digest_exclude_them(url: str) -> None:
    async def fill(*more: DataAlertChange) -> None:
        async with AsyncStore(url, owner=True) as store:
            owner = await own(store)
            if not more:
                await store.run(versions.activate, FLEET, VERSION, -(2**62))
                await owner.score(8, a=0.5)
                rows = await owner.rows({"a": 2.0}, 9, alerts=[change(12, 13, FIRING), change(12, 14, CLOSED)])
                await owner.save(owner.step(rows))
            await owner.save(owner.step(data_alerts=more))

    def seen() -> list[Any]:
        async def inside() -> list[Any]:
            async with AsyncStore(url) as store:
                return [await store.read(training_times.judged_times, FLEET), await store.read(assets.restore, HOME)]

        with open_reader(url) as reader:
            report = burn.budget_report(reader.fetch, FLEET, VERSION, THRESHOLD)
            return [report, digest_of(reader), list(results.alert_transitions(reader)), *asyncio.run(inside())]

    asyncio.run(fill())
    before = seen()
    assert all(before[:4]), "there are results to compare"
    asyncio.run(fill(data(13), data(13, **LOST), data(15, CLOSED, **LOST)))
    assert seen() == before


@pytest.mark.parametrize(
    ("only", "expected"),
    [
        ({}, ["records_lost", "asset_limit", None]),
        ({"alert_class": "data"}, ["records_lost", "asset_limit"]),
        ({"alert_class": "process"}, [None]),
        ({"fleet": FLEET}, ["asset_limit", None]),
        ({"asset": "a"}, [None]),
        ({"asset": "*"}, [None]),
        ({"state": "open", "alert_class": "data"}, ["asset_limit"]),
        ({"state": "closed"}, ["records_lost"]),
    ],
    ids=str,
)
def test_queries_filter_by_class(url: str, only: dict[str, Any], expected: list[str | None]) -> None:
    async def fill() -> None:
        async with AsyncStore(url, owner=True) as store:
            owner = await own(store)
            await owner.save(owner.step(await owner.rows({"a": 2.0}, 8, alerts=[change(12, 12, FIRING)])))
            lost = {**LOST, "opened_us": 14 * INTERVAL_US}
            changes = [data(13, opened_us=13 * INTERVAL_US), data(14, **lost), data(15, CLOSED, **lost)]
            await owner.save(owner.step(data_alerts=changes))

    asyncio.run(fill())
    with open_reader(url) as reader:
        assert [row["kind"] for row in reader.alerts(**only)] == expected
        with pytest.raises(NotFound):
            reader.alert(99)


# ---------------------------------------------------------------- migration


def test_migrations_keep_older_alerts_in_both_directions(url: str) -> None:
    async def fill() -> None:
        async with AsyncStore(url, owner=True) as store:
            owner = await own(store)
            await owner.save(owner.step(await owner.rows({"a": 2.0}, 8, alerts=[change(12, 12, FIRING)])))
            await owner.save(owner.step(data_alerts=[data(13)]))

    async def rows() -> tuple[list[Any], list[Any]]:
        def read(connection: Connection) -> tuple[list[Any], list[Any]]:
            columns = "asset_id, opened_us, state, peak_score, version"
            steps = "SELECT alert_id, seq, state, peak_score FROM alert_transition"
            return (
                [tuple(row) for row in connection.execute(text(f"SELECT {columns} FROM alert"))],
                [tuple(row) for row in connection.execute(text(steps))],
            )

        async with AsyncStore(url) as store:
            return await store.read(read)

    asyncio.run(fill())
    both, _ = asyncio.run(rows())
    assert len(both) == 2
    asyncio.run(schema.downgrade(url, "0001"))
    asyncio.run(schema.upgrade(url))
    of_assets, steps = asyncio.run(rows())
    assert of_assets == [row for row in both if row[0] is not None]
    assert len(of_assets) == len(steps) == 1

    async def second_open() -> None:
        async with AsyncStore(url, owner=True) as store:
            sql = "INSERT INTO alert (asset_id, opened_us, state, severity, updated_us, n_anomalous, sensors)"
            await store.run(lambda c: c.execute(text(f"{sql} SELECT asset_id, 1, 'firing', '', 1, 1, '' FROM alert")))

    with pytest.raises((InvariantBroken, IntegrityError)):  # the partial index was migrated, too
        asyncio.run(second_open())


async def test_any_subject_becomes_an_ascii_key_and_a_harmless_text(store: AsyncStore) -> None:
    """The key is an HTTP header."""
    changes = [data(12, subject=each, message=f"about {each}") for each in ("Kühler 3", "a:b", "\x1b]0;x\u202e")]
    await save(store, *changes, channels=(Channel("duty"),))
    rows = await store.read(rows_of, "outbox")
    assert len({row["dedup_key"] for row in rows}) == 3
    for row in rows:
        assert row["dedup_key"].isascii()
        assert row["dedup_key"].isprintable()
        assert row["body"].isprintable()
        assert json.loads(row["body"])["text"].isprintable()
