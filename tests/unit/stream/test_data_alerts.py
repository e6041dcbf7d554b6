"""Alerts about lost and rejected records: one for each cause, independent of the batches, and closed in time."""

from __future__ import annotations

import json
from contextlib import suppress
from random import Random
from typing import TYPE_CHECKING, Any

import pytest

from monitor.clock import from_us
from monitor.kafka import Gap
from monitor.store.engine import AsyncStore
from monitor.store.outbox import Channel
from monitor.store.reader import open_reader
from monitor.types import Partition
from tests.unit.stream.plant import BEGIN, P0, Plant, S, limited_config, reading

if TYPE_CHECKING:
    from pathlib import Path

    from tests.fakes import Record

HOUR_S = 3600
DAY_US = 24 * HOUR_S * S
MINUTE = {"interval": "1m", "lateness": "2m", "max_gap": "1m"}


def data_alerts(folder: Path) -> list[dict[str, Any]]:
    """Return the data alerts, the oldest first, each with its transitions."""
    with open_reader(f"sqlite:///{folder}/monitor.db") as reader:
        found = [reader.alert(row["id"]) for row in reader.alerts(alert_class="data")]
    return sorted(found, key=lambda alert: (alert["kind"], alert["partition"], alert["from_offset"]))


def notifications(folder: Path) -> list[dict[str, Any]]:
    with open_reader(f"sqlite:///{folder}/monitor.db") as reader:
        return [json.loads(row["body"]) for row in reader.fetch("SELECT body FROM outbox ORDER BY id")]


def at(hour: float) -> str:
    return from_us(int((BEGIN + hour * HOUR_S) * S)).isoformat().replace("+00:00", "Z")


def numbered(*records: tuple[str, float]) -> list[Record]:
    """Make records of (asset, second), in order."""
    return [reading(offset, *record) for offset, record in enumerate(records)]


def hours(*plan: tuple[float, str]) -> list[Record]:
    """Make records of (hour, asset), in order."""
    return numbered(*((asset, BEGIN + hour * HOUR_S) for hour, asset in plan))


def steps_of(alert: dict[str, Any]) -> list[tuple[str, str, int]]:
    return [(step["state"], step["at"], step["n_records"]) for step in alert["transitions"]]


# ---------------------------------------------------------------- asset_limit


async def test_a_producer_that_invents_names_is_one_alert(store: AsyncStore, tmp_path: Path) -> None:
    log = numbered(*(("T_real" if i % 10 == 0 else f"T{i:05d}", BEGIN + i / 10) for i in range(20_000)))
    plant = Plant(limited_config(tmp_path, max_assets=5), store, {P0: log}, batch=500, channels=[Channel("duty")])
    await plant.run()
    [alert] = data_alerts(tmp_path)
    assert (alert["kind"], alert["fleet"], alert["asset"]) == ("asset_limit", "turbines", None)
    assert (alert["state"], alert["severity"]) == ("firing", "warning")
    assert (alert["topic"], alert["partition"], alert["from_offset"]) == ("plant", 0, 5)
    assert alert["n_records"] == 20_000 - 2_000 - 4
    assert alert["message"].startswith(
        "17,996 records of assets that turbines does not take went to quarantine, the first at offset 5: too_many_asset"
    )
    assert "raise the fleet's max_assets" in alert["message"]
    assert [notification["step"] for notification in notifications(tmp_path)] == ["firing"]


async def test_an_asset_limit_closes_after_an_hour_and_the_next_is_new(
    store: AsyncStore, tmp_path: Path
) -> None:
    plan = [(minute / 60, "P1") for minute in range(0, 160, 3)] + [(0, "T1")]
    plan += [(0.1, "T2"), (0.6, "T3"), (2.6, "T4")]
    config, channels = limited_config(tmp_path, max_assets=1, **MINUTE), [Channel("duty")]
    log = hours(*sorted(plan))
    plant = Plant(config, store, {P0: log}, batch=3, channels=channels)
    await plant.run()
    first, second = data_alerts(tmp_path)
    offset_of = {record[2]: record[0] for record in log}
    assert (first["from_offset"], second["from_offset"]) == (offset_of[b"T2"], offset_of[b"T4"])
    assert steps_of(first) == [("firing", at(0.1), 1), ("closed", at(1.6), 2)]
    assert (first["opened_at"], first["closed_at"], first["n_records"]) == (at(0.1), at(1.6), 2)
    assert steps_of(second) == [("firing", at(2.6), 1)]
    told = [(notification["key"], notification["at"]) for notification in notifications(tmp_path)]
    assert told == [
        (f"duty:data:asset_limit/plant/0:{first['from_offset']}:firing", at(0.1)),
        (f"duty:data:asset_limit/plant/0:{first['from_offset']}:closed", at(1.6)),
        (f"duty:data:asset_limit/plant/0:{second['from_offset']}:firing", at(2.6)),
    ]


async def test_rejected_assets_cannot_close_the_alert(store: AsyncStore, tmp_path: Path) -> None:
    """A thousand names, each with an event time of another year, are one notification."""
    rng = Random(1)
    wild = [reading(i, f"T{i}", BEGIN + (y := rng.uniform(-1e8, 1e8)), int((BEGIN + y) * S)) for i in range(1, 1000)]
    log = [reading(0, "T_real", BEGIN), *wild, reading(1000, "T_real", BEGIN + 1)]
    await Plant(limited_config(tmp_path, max_assets=1), store, {P0: log}, batch=7).run()
    [alert] = data_alerts(tmp_path)
    assert (alert["n_records"], alert["state"]) == (999, "firing")


def crowd(seed: int, n: int = 800) -> list[Record]:
    """Make a log of known and new assets, with bursts, quiet hours, disorder and wrong Kafka timestamps."""
    rng, hour, log = Random(seed), 0.0, []
    for offset in range(n):
        hour += rng.choice([0.001, 0.01, 0.05, 0.08, 0.08])
        new = [f"T{rng.randrange(50)}"] if offset // 80 % 2 else []
        asset = rng.choice(["T1", "T1", "T2", *new, "P1"])
        second = BEGIN + max(0.0, hour - rng.choice([0, 0, 0, 0.3, 2])) * HOUR_S
        log.append(reading(offset + offset // 40, asset, second, rng.choice([None, None, -1, 7, int(4e15)])))
    return log


@pytest.mark.parametrize("seed", range(6))
async def test_alerts_do_not_depend_on_batches_and_restarts(seed: int, tmp_path: Path) -> None:
    log, rng = crowd(seed), Random(seed)
    found = []
    for name, ends in (("one", [len(log)]), ("many", [*sorted(rng.sample(range(1, len(log)), 20)), len(log)])):
        folder = tmp_path / name
        folder.mkdir()
        async with AsyncStore(f"sqlite:///{folder}/monitor.db", owner=True) as store:
            for end in ends:
                config = limited_config(folder, max_assets=3, **MINUTE)
                batch, channels = rng.choice([1, 3, 50]), [Channel("duty", max_age_us=None)]
                await Plant(config, store, {P0: log[:end]}, batch, channels=channels).run()
        keys = [each["key"] for each in notifications(folder)]
        keys = [key for key in keys if ":asset_limit/" in key]
        limits = [alert | {"id": 0} for alert in data_alerts(folder) if alert["kind"] == "asset_limit"]
        found.append((limits, keys))
    assert found[0] == found[1]
    alerts, keys = found[0]
    assert len(alerts) > 2
    assert [alert["state"] for alert in alerts[:-1]] == ["closed"] * (len(alerts) - 1)
    assert len(keys) == sum(len(alert["transitions"]) for alert in alerts)


async def test_each_shard_has_its_own_alert(store: AsyncStore, tmp_path: Path) -> None:
    p1 = Partition("plant", 1)
    logs = {
        P0: numbered(*((f"T0{i}", BEGIN + i) for i in range(9))),
        p1: numbered(*((f"T1{i}", BEGIN + i) for i in range(9))),
    }
    await Plant(limited_config(tmp_path, max_assets=4), store, logs).run()
    assert [(alert["partition"], alert["n_records"]) for alert in data_alerts(tmp_path)] == [(0, 5), (1, 5)]


async def test_assets_admitted_by_a_raised_limit_close_the_alert(store: AsyncStore, tmp_path: Path) -> None:
    plan = [(0, "T1"), (0.1, "T2"), (0.2, "T3"), *((0.2 + step / 20, f"T{2 + step % 2}") for step in range(1, 24))]
    log = hours(*plan)
    await Plant(limited_config(tmp_path, max_assets=1, **MINUTE), store, {P0: log[:3]}).run()
    await Plant(limited_config(tmp_path, max_assets=9, **MINUTE), store, {P0: log}).run()
    [alert] = data_alerts(tmp_path)
    assert [(state, n) for state, _, n in steps_of(alert)] == [("firing", 1), ("closed", 2)]


# ---------------------------------------------------------------- records_lost


async def lose(plant: Plant, *gaps: tuple[int, int]) -> None:
    for gap in gaps:
        plant.source.give(Gap(P0, *gap))
        await plant.run()


async def test_lost_records_are_an_alert_in_the_transaction_of_the_gap(store: AsyncStore, tmp_path: Path) -> None:
    log = numbered(*(("T1", BEGIN + i) for i in range(10)))
    # Critical, of no fleet, and new although the records are old: every channel gets a notification.
    channel = Channel("duty", "critical", fleets=["pumps"], max_age_us=60 * S)  # type: ignore[arg-type]
    plant = Plant(limited_config(tmp_path), store, {P0: log}, channels=[channel])
    await plant.run()
    await lose(plant, (10, 25))
    [alert] = data_alerts(tmp_path)
    assert (alert["kind"], alert["fleet"]) == ("records_lost", None)
    assert (alert["state"], alert["severity"]) == ("firing", "critical")
    assert (alert["from_offset"], alert["n_records"], alert["peak_score"], alert["sensors"]) == (10, 15, None, [])
    assert "up to 15 records before they were read, the first at offset 10" in alert["message"]
    assert "retention.ms" in alert["message"]
    [notification] = notifications(tmp_path)
    assert (notification["step"], notification["kind"], notification["n_records"]) == ("firing", "records_lost", 15)
    assert notification["key"] == "duty:data:records_lost/plant/0:10:firing"


async def test_a_gap_that_is_not_committed_leaves_no_alert(store: AsyncStore, tmp_path: Path) -> None:
    plant = Plant(limited_config(tmp_path), store, {P0: numbered(*(("T1", BEGIN + i) for i in range(10)))})
    await plant.run()

    async def killed(_commit: object) -> None:
        raise KeyboardInterrupt

    plant.pipeline.store.save = killed  # type: ignore[method-assign, assignment]
    with suppress(KeyboardInterrupt):
        await lose(plant, (10, 25))
    assert data_alerts(tmp_path) == []


async def test_repeated_losses_are_one_alert(store: AsyncStore, tmp_path: Path) -> None:
    log = numbered(*(("T1", BEGIN + i) for i in range(10)))
    plant = Plant(limited_config(tmp_path), store, {P0: log})
    await plant.run()
    await lose(plant, (10, 25), (25, 30))
    again = Plant(limited_config(tmp_path), store, {P0: []})
    await lose(again, (30, 31))
    [alert] = data_alerts(tmp_path)
    assert (alert["from_offset"], alert["n_records"], len(alert["transitions"])) == (10, 21, 1)


async def test_a_loss_closes_with_the_first_record_of_a_day_later(store: AsyncStore, tmp_path: Path) -> None:
    plant = Plant(limited_config(tmp_path), store, {P0: []})
    now_us = plant.pipeline.clock.now_us()
    await lose(plant, (0, 5))
    stamps = [now_us - DAY_US, -1, now_us + DAY_US - 1, now_us + DAY_US + 7, now_us + 2 * DAY_US]
    log = [reading(5 + i, "T1", BEGIN + i, stamp) for i, stamp in enumerate(stamps)]
    for end in (3, 5):
        [alert] = data_alerts(tmp_path)
        assert alert["state"] == "firing"
        await Plant(limited_config(tmp_path), store, {P0: log[:end]}, batch=2).run()
    [alert] = data_alerts(tmp_path)
    assert (alert["state"], alert["closed_at"]) == (
        "closed",
        from_us(now_us + DAY_US + 7).isoformat().replace("+00:00", "Z"),
    )
    assert [step["state"] for step in alert["transitions"]] == ["firing", "closed"]


async def test_a_gap_in_committed_records_is_no_loss(store: AsyncStore, tmp_path: Path) -> None:
    log = numbered(*(("T1", BEGIN + i) for i in range(10)))
    await Plant(limited_config(tmp_path), store, {P0: log}).run()
    again = Plant(limited_config(tmp_path), store, {P0: log[8:]})
    again.source.give(Gap(P0, 7, 8))
    await again.run()
    assert data_alerts(tmp_path) == []


@pytest.mark.parametrize("value", [b"garbage", None])
@pytest.mark.parametrize("stamp_us", [300_000_000_000_000_000, (1 << 63) - 1])
async def test_an_impossible_timestamp_closes_no_alert(
    store: AsyncStore, tmp_path: Path, stamp_us: int, value: bytes | None
) -> None:
    await lose(Plant(limited_config(tmp_path), store, {P0: []}), (0, 5))
    await Plant(limited_config(tmp_path), store, {P0: [(5, stamp_us, b"T1", value)]}).run()
    assert [alert["state"] for alert in data_alerts(tmp_path)] == ["firing"]


async def test_an_alert_of_a_record_without_any_time_has_a_valid_one(store: AsyncStore, tmp_path: Path) -> None:
    log = [reading(0, "T1", BEGIN, 300_000_000_000_000_000), reading(1, "T2", BEGIN, 300_000_000_000_000_000)]
    await Plant(limited_config(tmp_path, max_assets=1), store, {P0: log}).run()
    [alert] = data_alerts(tmp_path)
    assert (alert["kind"], alert["opened_at"]) == ("asset_limit", at(0))


async def test_the_alert_of_a_deleted_fleet_is_closed(store: AsyncStore, tmp_path: Path) -> None:
    config = limited_config(tmp_path, max_assets=1)
    log = hours((0, "T1"), (0.1, "T2"), (0.2, "P1"))
    await Plant(config, store, {P0: log}).run()
    assert [(alert["fleet"], alert["state"]) for alert in data_alerts(tmp_path)] == [("turbines", "firing")]
    fleets = [config.fleet[0].model_copy(update={"name": "wind"}), config.fleet[1]]
    renamed = config.model_copy(update={"fleet": fleets})
    await Plant(renamed, store, {P0: [*log, reading(3, "P1", BEGIN + HOUR_S)]}).run()
    assert [(alert["fleet"], alert["state"]) for alert in data_alerts(tmp_path)] == [("turbines", "closed")]
