"""The operators' queries: equal results on both databases."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from monitor.clock import from_us
from monitor.errors import MonitorError, NotFound
from monitor.store import assets, daemons, jobs, quarantine, registry, versions
from monitor.store.acts import MONITOR, Actor
from monitor.store.engine import AsyncStore
from monitor.store.reader import Reader, open_reader
from monitor.types import AlertState, Counters, Partition, Quarantined, Severity
from tests.contract.steps import FLEET, HOME, INTERVAL_US, LENGTH, NAN, VERSION, change, own

if TYPE_CHECKING:
    from collections.abc import Iterator

MORE = {"quantity": "value", "onset": None}
"""Keys of a sensor in an alert, beside the peak's figures."""


def at(cell: int) -> datetime:
    return from_us(cell * INTERVAL_US)


def iso(cell: int) -> str:
    return at(cell).isoformat().replace("+00:00", "Z")


@pytest.fixture
def reader(url: str) -> Iterator[Reader]:
    """A database with rows in every table, open for reading."""
    asyncio.run(fill(url))
    with open_reader(url) as opened:
        yield opened


async def fill(url: str) -> None:
    async with AsyncStore(url, owner=True) as store:
        owner = await own(store)
        await store.run(assets.register_sensors, FLEET, ["power", "pitch"])
        await store.run(versions.activate, FLEET, VERSION, -(2**62))
        names = {"R80711": 0.5, "R80712": 0.25, "r80_13": NAN}
        await owner.score(8, **names)
        opened = change(13, 13, AlertState.FIRING, asset=0, peak=2.5, severity=Severity.CRITICAL)
        await owner.save(owner.step(await owner.rows(names | {"R80711": 2.5}, 9, alerts=[opened])))
        first = [change(14, 14, AlertState.FIRING, asset=1), change(14, 15, AlertState.CLOSED, asset=1)]
        rows = await owner.rows(names, 11, alerts=first)
        await owner.save(owner.step(rows, log_end=200, counters=Counters(records=30)))
        bad = [
            Quarantined(HOME, 101, "not_json: Expecting value", b"{'a'", 1_000_000),
            Quarantined(Partition("other", 3), 7, "late: by 3 h", b"\x81\xa1a", 0),
        ]
        await store.run(quarantine.insert, bad, 9_000_000)
        await store.run(assets.register, "pumps", ["R80711", "P1"], Partition("pumps", 0))
        await store.run(jobs.request, FLEET, "ann", 5_000_000)
        await store.run(
            daemons.heartbeat, owner="host:1", pipeline="monitor", started_us=0, now_us=1_000_000, status="lag 0"
        )


# ---------------------------------------------------------------- alerts


def test_alerts_are_listed_newest_first(reader: Reader) -> None:
    second, first = reader.alerts()
    expected = {
        "asset": "R80711",
        "fleet": FLEET,
        "state": "firing",
        "severity": "critical",
        "opened_at": iso(13),
        "closed_at": None,
        "peak_score": 2.5,
        "sensors": [
            {"name": "power", "share": 0.75, "expected": 1800.0, "actual": 0.0} | MORE,
            {"name": "pitch", "share": 0.25, "expected": 2.0, "actual": None} | MORE,
        ],
        "version": VERSION,
        "acknowledged_by": None,
        "label": None,
        "peak_at": iso(13),
        "updated_at": iso(13),
        "n_anomalous": 3,
        "class": "process",
        "kind": None,
        "topic": None,
        "partition": None,
        "from_offset": None,
        "subject": None,
        "n_records": None,
        "message": None,
        "acknowledged_at": None,
        "label_note": None,
        "suppressed_by": None,
        "is_flapping": False,
        "sensor": None,
        "clearing": None,
        "closed_by_hand_at": None,
        "rolled_back_at": None,
        "pipeline_state": "firing",
    }
    assert {name: first[name] for name in expected} == expected
    assert first.keys() - expected.keys() == {"id", "incident_id"}
    assert (second["asset"], second["state"], second["closed_at"]) == ("R80712", "closed", iso(15))


def test_alerts_of_a_rolled_back_version_are_marked(reader: Reader, url: str) -> None:
    """The mark follows the version: it goes when the roll-back is undone."""

    async def roll_back(at_us: int) -> None:
        async with AsyncStore(url) as store:
            await store.run(registry.roll_back, FLEET, actor=Actor("eva", "cli"), at_us=at_us)

    async def promote() -> None:
        facts: dict[str, Any] = {"path": "p", "trained_us": 1, "card": {}, "metrics": {}}
        async with AsyncStore(url) as store:
            for at_us, version in enumerate(("earlier", VERSION), 1):
                acted: dict[str, Any] = {"actor": MONITOR, "at_us": at_us}
                await store.run(registry.publish_and_promote, version=version, fleet=FLEET, **facts, **acted)

    asyncio.run(promote())
    [first, second] = reader.alerts()
    assert (first["rolled_back_at"], second["rolled_back_at"]) == (None, None)
    asyncio.run(roll_back(3_000_000))
    marked = from_us(3_000_000).isoformat().replace("+00:00", "Z")
    assert [row["rolled_back_at"] for row in reader.alerts(limit=5)] == [marked, marked]
    assert reader.alert(first["id"])["rolled_back_at"] == marked
    asyncio.run(roll_back(4_000_000))
    assert [row["rolled_back_at"] for row in reader.alerts()] == [None, None]


@pytest.mark.parametrize(
    ("only", "expected"),
    [
        ({"asset": "R80711"}, ["R80711"]),
        ({"asset": "R807*"}, ["R80712", "R80711"]),
        ({"asset": "R8071?"}, ["R80712", "R80711"]),
        ({"asset": "r807*"}, []),
        ({"asset": "R8071[12]"}, []),
        ({"asset": "R8_7*"}, []),
        ({"asset": "R8%"}, []),
        ({"asset": "' OR 1=1 --"}, []),
        ({"fleet": "pumps"}, []),
        ({"fleet": FLEET, "state": "open"}, ["R80711"]),
        ({"state": "closed"}, ["R80712"]),
        ({"state": "recovering"}, []),
        ({"since": at(14)}, ["R80712"]),
        ({"until": at(14)}, ["R80711"]),
        ({"since": at(13), "until": at(15)}, ["R80712", "R80711"]),
        ({"limit": 1}, ["R80712"]),
        ({"limit": 0}, []),
    ],
    ids=str,
)
def test_alerts_are_filtered(reader: Reader, only: dict[str, str], expected: list[str]) -> None:
    assert [alert["asset"] for alert in reader.alerts(**only)] == expected  # type: ignore[arg-type]


def test_one_alert_has_its_transitions(reader: Reader) -> None:
    newest = reader.alerts(asset="R80712")[0]
    shown = reader.alert(newest["id"])
    assert shown.items() >= newest.items()
    assert [(step["state"], step["at"]) for step in shown["transitions"]] == [("firing", iso(14)), ("closed", iso(15))]


def test_an_unknown_alert_is_not_found(reader: Reader) -> None:
    with pytest.raises(NotFound, match="alert 999"):
        reader.alert(999)


# ---------------------------------------------------------------- scores


def test_scores_are_in_order_of_time(reader: Reader) -> None:
    rows = list(reader.scores("R80711", FLEET))
    assert rows[1] == {
        "asset": "R80711",
        "fleet": FLEET,
        "start": iso(9),
        "end": iso(9 + LENGTH),
        "score": 2.5,
        "verdict": "anomalous",
        "version": VERSION,
        "n_present": LENGTH,
    }
    assert [row["start"] for row in rows] == [iso(8), iso(9), iso(11)]
    unscored = list(reader.scores("r80_13"))
    assert {(row["score"], row["verdict"], row["version"]) for row in unscored} == {(None, "unscored", None)}


@pytest.mark.parametrize(
    ("only", "cells"),
    [
        ({"since": at(13)}, [9, 11]),
        ({"until": at(13)}, [8]),
        ({"since": at(13), "until": at(15)}, [9]),
        ({"since": at(12) + timedelta(microseconds=1), "until": at(13)}, []),
        ({"since": at(99)}, []),
        ({"limit": 2}, [9, 11]),
        ({"limit": 1, "until": at(15)}, [9]),
        ({"verdict": "anomalous"}, [9]),
        ({"verdict": "normal", "limit": 1}, [11]),
    ],
    ids=str,
)
def test_scores_are_filtered_by_the_end_of_their_window(
    reader: Reader, only: dict[str, str], cells: list[int]
) -> None:
    found = reader.scores("R80711", FLEET, **only)  # type: ignore[arg-type]
    assert [row["start"] for row in found] == [iso(cell) for cell in cells]


def test_an_ambiguous_asset_needs_its_fleet(reader: Reader) -> None:
    with pytest.raises(NotFound, match="fleets pumps, turbines"):
        list(reader.scores("R80711"))
    assert list(reader.scores("R80711", "pumps")) == []
    assert list(reader.scores("unknown")) == []


def test_scored_windows_of_a_fleet_are_in_order_of_time(reader: Reader) -> None:
    found = list(reader.scored_windows(FLEET))
    assert found
    assert {asset for asset, _, _ in found} == {"R80711", "R80712"}, "r80_13 was never scored"
    ends = [end_us for _, end_us, _ in found]
    assert ends == sorted(ends)
    assert all(isinstance(score, float) for _, _, score in found)
    half = from_us(ends[len(ends) // 2])
    before, behind = list(reader.scored_windows(FLEET, until=half)), list(reader.scored_windows(FLEET, since=half))
    assert before + behind == found
    assert list(reader.scored_windows("pumps")) == []


def test_days_after_the_requested_end_are_not_read(reader: Reader, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    fetch = type(reader).fetch

    def spy(self: Reader, sql: str, values: Any = None) -> Any:
        asked.append((values or {}).get("high", 0))
        return fetch(self, sql, values)

    monkeypatch.setattr(type(reader), "fetch", spy)
    _, until_us, _ = next(reader.scored_windows(FLEET))
    asked.clear()
    assert list(reader.scored_windows(FLEET, until=from_us(until_us))) == []
    assert 0 < max(asked) <= until_us + 1


# ---------------------------------------------------------------- quarantine, models, ingestion


def test_quarantine_has_position_reason_and_sample(reader: Reader) -> None:
    late, bad = reader.quarantine()
    assert bad == {
        "topic": HOME.topic,
        "partition": 0,
        "offset": 101,
        "reason": "not_json: Expecting value",
        "sample": "{'a'",
        "at": "1970-01-01T00:00:01Z",
    }
    assert late["sample"] == "\\x81\\xa1a"
    assert late["at"] == "1970-01-01T00:00:09Z"  # without a timestamp of Kafka: the time of the commit


@pytest.mark.parametrize(
    ("only", "offsets"),
    [
        ({"reason": "not_json"}, [101]),
        ({"reason": "notXjson"}, []),
        ({"topic": "other"}, [7]),
        ({"until": datetime(1970, 1, 1, 0, 0, 5, tzinfo=UTC)}, [101]),
        ({"since": datetime(1970, 1, 1, 0, 0, 5, tzinfo=UTC)}, [7]),
        ({"limit": 1}, [7]),
    ],
    ids=str,
)
def test_quarantine_is_filtered(reader: Reader, only: dict[str, str], offsets: list[int]) -> None:
    assert [record["offset"] for record in reader.quarantine(**only)] == offsets  # type: ignore[arg-type]


def test_models_have_state_and_boundary(reader: Reader) -> None:
    assert reader.models() == [
        {
            "fleet": FLEET,
            "asset": None,
            "version": VERSION,
            "state": "champion",
            "trained_at": "1970-01-01T00:00:00Z",
            "metrics": {"loss": 0.5},
            "decides_after": None,  # from before all times
            "path": "/checkpoints/v1",
            "derived_from": None,
            "aliases": [],
            "gate_verdict": None,
            "why": None,
            "rolled_back_at": None,
            "pruned_at": None,
        }
    ]
    assert reader.models(fleet="pumps") == []


def test_jobs_and_ingestion_state_are_listed(reader: Reader) -> None:
    [job] = reader.jobs(fleet=FLEET)
    assert (job["state"], job["requested_by"], job["requested_at"]) == ("queued", "ann", "1970-01-01T00:00:05Z")
    assert reader.jobs(limit=0) == []
    assert reader.fleets() == [
        {"fleet": "pumps", "sensors": None, "assets": 2},
        {"fleet": FLEET, "sensors": ["power", "pitch"], "assets": 3},
    ]
    assert [(row["asset"], row["last_start"]) for row in reader.assets(fleet="pumps")] == [
        ("P1", None),
        ("R80711", None),
    ]
    assert {row["last_start"] for row in reader.assets(fleet=FLEET)} == {iso(11)}
    [partition] = reader.partitions()
    assert (partition["next_offset"], partition["log_end"], partition["lag"]) == (130, 200, 70)
    assert partition["counters"]["records"] == 30
    [daemon] = reader.daemons()
    assert (daemon["owner"], daemon["heartbeat_at"]) == ("host:1", "1970-01-01T00:00:01Z")


def test_a_reader_cannot_write(reader: Reader) -> None:
    with pytest.raises(MonitorError, match=r"read.?only"):
        list(reader.fetch("UPDATE fleet SET sensors = NULL RETURNING name"))


def test_a_number_beyond_the_database_finds_nothing(reader: Reader) -> None:
    huge = 10**20
    for alert_id in (huge, -huge, 2**63, 2**63 - 1, -(2**63)):
        with pytest.raises(NotFound, match=str(alert_id)):
            reader.alert(alert_id)
    assert len(reader.alerts(limit=huge)) == len(reader.alerts())
    assert len(list(reader.scores("R80711", FLEET, limit=huge))) == len(list(reader.scores("R80711", FLEET)))
    assert len(reader.quarantine(limit=huge)) == len(reader.quarantine())


@pytest.mark.parametrize(
    ("sort", "expected"),
    [
        ("opened", ["R80712", "R80711"]),
        ("peak", ["R80711", "R80712"]),
        ("lasted", ["R80712", "R80711"]),
        ("severity", ["R80711", "R80712"]),
        ("asset", ["R80711", "R80712"]),
    ],
)
def test_alerts_have_an_order_of_choice(sort: str, expected: list[str], reader: Reader) -> None:
    assert [alert["asset"] for alert in reader.alerts(sort=sort)] == expected
    assert [alert["asset"] for alert in reader.alerts(sort=sort, limit=1)] == expected[:1]


def test_quarantine_is_counted_by_reason(reader: Reader) -> None:
    late = {"reason": "late", "records": 1, "oldest_at": "1970-01-01T00:00:09Z", "newest_at": "1970-01-01T00:00:09Z"}
    broken = {"reason": "not_json", "records": 1, "oldest_at": "1970-01-01T00:00:01Z"}
    assert reader.quarantine_counts() == [late, broken | {"newest_at": "1970-01-01T00:00:01Z"}]
    assert reader.quarantine_counts(reason="late") == [late]
    assert reader.quarantine_counts(topic="nowhere") == []


def test_screens_count_alerts_windows_and_assets(reader: Reader) -> None:
    assert reader.open_counts() == [{"class": "process", "severity": "critical", "is_acknowledged": False, "n": 1}]
    assert list(reader.open_by_asset(FLEET)) == ["R80711"]
    ends = reader.asset_ends(FLEET)
    assert list(ends) == ["R80711", "R80712", "r80_13"]
    assert reader.newest_windows() == {FLEET: max(end for end in ends.values() if end is not None)}
    assert reader.asset_ends("pumps") == {"P1": None, "R80711": None}
    hours = reader.windows_by_hour(0, 10 * 3_600_000_000)
    total = {name: sum(row[name] for row in hours.values()) for name in ("n", "n_anomalous", "n_unscored")}
    counted = reader.window_counts()[FLEET]
    assert total["n"] == counted["n"] == len([w for a in ends for w in reader.scores(a, FLEET)])
    assert counted["n_scored"] == total["n"] - total["n_unscored"]
    assert all(type(value) is int for row in hours.values() for value in row.values())
    assert reader.gaps(5) == []
