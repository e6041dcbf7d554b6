"""Alerts about single assets: late, ahead, refused, repeated, silent. Each names its asset."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import pytest

from monitor.decode import Decoder
from monitor.store.reader import open_reader
from monitor.stream.log_clock import LogClock
from monitor.types import Notice
from tests.fakes import LogSource, batch_of
from tests.unit.stream.plant import BEGIN, P0, Plant, S, limited_config, reading

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from monitor.store.engine import AsyncStore
    from monitor.types import RecordBatch
    from tests.fakes import Record

Moment = tuple[str, float, float]
"""(asset, event time, Kafka's timestamp), in seconds since BEGIN."""


def log_of(moments: Iterable[Moment]) -> list[Record]:
    return [
        reading(offset, asset, BEGIN + event_s, int((BEGIN + stamp_s) * S))
        for offset, (asset, event_s, stamp_s) in enumerate(moments)
    ]


def found(folder: Path) -> list[tuple[str, str, str]]:
    with open_reader(f"sqlite:///{folder}/monitor.db") as reader:
        rows = reader.alerts(alert_class="data")
    return sorted((row["kind"], row["subject"] or "", row["state"]) for row in rows)


def message_of(folder: Path, kind: str) -> str:
    with open_reader(f"sqlite:///{folder}/monitor.db") as reader:
        [message] = [row["message"] for row in reader.alerts(alert_class="data") if row["kind"] == kind]
    return str(message)


async def run(folder: Path, store: AsyncStore, log: list[Record], batch: int = 20) -> Any:
    return await Plant(limited_config(folder), store, {P0: log}, batch=batch).run()


async def test_an_asset_whose_readings_are_late_is_named(store: AsyncStore, tmp_path: Path) -> None:
    """T2's clock goes back by an hour after one reading of the hour ahead, and comes right later."""
    log = log_of(
        (asset, second - (3600 if asset == "T2" and 100 <= second < 200 else 0), second)
        for second in range(600)
        for asset in ("T1", "T2")
    )
    await run(tmp_path, store, log[:360])
    assert found(tmp_path) == [("late_flood", "T2", "firing")]
    message = message_of(tmp_path, "late_flood")
    assert message.startswith("T2: ")
    assert "raise the fleet's lateness" in message
    await run(tmp_path, store, log)
    assert found(tmp_path) == [("late_flood", "T2", "closed")]


async def test_an_asset_ahead_of_kafkas_clock_is_named(store: AsyncStore, tmp_path: Path) -> None:
    log = log_of(
        (asset, second + (8 * 3600 if asset == "T2" else 0), second) for second in range(100) for asset in ("T1", "T2")
    )
    pipeline = await run(tmp_path, store, log)
    assert found(tmp_path) == [("asset_ahead", "T2", "firing")]
    message = message_of(tmp_path, "asset_ahead")
    assert "Set the device's clock or its time zone" in message
    assert "is 8 hours after" in message
    assert pipeline.partitions[P0].data_alerts.subjects == {"asset_ahead": ["T2"]}


async def test_a_device_whose_records_are_refused_is_named(store: AsyncStore, tmp_path: Path) -> None:
    log = log_of((asset, second, second) for second in range(100) for asset in ("T1", "T2"))
    log = [(o, at, key, b'{"ts":"no time"}' if key == b"T2" and o > 100 else value) for o, at, key, value in log]
    await run(tmp_path, store, log)
    assert found(tmp_path) == [("asset_refused", "T2", "firing")]


async def test_repeated_readings_are_told(store: AsyncStore, tmp_path: Path) -> None:
    log = log_of((asset, second, second) for second in range(100) for asset in ("T1", "T2", "T2", "T2"))
    await run(tmp_path, store, log)
    assert found(tmp_path) == [("duplicate_flood", "T2", "firing")]


def plant_of(seconds: range, silent: range, *, also: Iterable[Moment] = ()) -> list[Moment]:
    moments = [
        (asset, second, second)
        for second in seconds
        for asset in ("T1", "T2", "T3")
        if asset != "T2" or second not in silent
    ]
    return sorted([*moments, *also], key=lambda moment: moment[2])


async def test_silence_is_told_within_a_quarter_of_an_hour(store: AsyncStore, tmp_path: Path) -> None:
    moments = plant_of(range(0, 6000, 10), range(1000, 5000))
    log = log_of(moments)
    n = sum(stamp < 1000 + 14 * 60 for *_, stamp in moments)
    plant = Plant(limited_config(tmp_path), store, {P0: log[:n]}, batch=20)
    await plant.run()
    assert found(tmp_path) == []
    plant.source = LogSource({P0: log[: n + 60]}, 20)
    plant.pipeline.source = plant.pipeline.reader.source = plant.source
    await plant.source.poll()
    plant.source.seek(P0, n)
    await plant.run()
    assert found(tmp_path) == [("asset_silent", "T2", "firing")]
    assert "T2 sends nothing any more. Others of the partition went on for 900 s" in message_of(
        tmp_path, "asset_silent"
    )
    await run(tmp_path, store, log)
    assert found(tmp_path) == [("asset_silent", "T2", "closed")]


async def test_one_wrong_timestamp_makes_no_asset_silent(store: AsyncStore, tmp_path: Path) -> None:
    far = 84 * 31_557_600.0
    also = [("T3", 700.5, 700.5 + far), ("T1", 900.5, 900.5 + 2 * far)]
    await run(tmp_path, store, log_of(plant_of(range(0, 3000, 10), range(0), also=also)))
    assert found(tmp_path) == []


async def test_assets_that_send_a_buffer_now_and_then_are_not_silent(store: AsyncStore, tmp_path: Path) -> None:
    uploads = [
        ("T4", second, float(end)) for end in range(1200, 86_400, 1200) for second in range(end - 1200, end, 60)
    ]
    log = log_of(plant_of(range(0, 86_400, 60), range(0), also=uploads))
    await run(tmp_path, store, log, batch=500)
    assert found(tmp_path) == []


async def test_many_silent_assets_are_few_alerts(store: AsyncStore, tmp_path: Path) -> None:
    names = [f"T{n:03d}" for n in range(60)]
    log = log_of(
        (asset, second, second) for second in range(0, 3000, 20) for asset in (names if second < 600 else ["T_on"])
    )
    await run(tmp_path, store, log, batch=500)
    alerts = found(tmp_path)
    assert len(alerts) == 21
    assert ("asset_silent", "", "firing") in alerts


@pytest.mark.parametrize("cut", [1, 3, 1000])
def test_log_time_does_not_depend_on_batches(cut: int) -> None:
    rng = np.random.default_rng(3)
    stamps = np.cumsum(rng.integers(0, 20, 3000)) * S + rng.integers(-30, 30, 3000) * S + 10**9
    stamps[500] += 10**15
    stamps[700:703] -= 10**15
    stamps[rng.integers(0, 3000, 200)] = -1
    whole = LogClock()
    batch = batch_of(P0, [(offset, stamp, b"T1", b"") for offset, stamp in enumerate(stamps.tolist())])
    expected = whole.advance(batch, ())
    clock, parts = LogClock(), []
    for first in range(0, 3000, cut):
        clock = LogClock.restored(json.loads(msgspec.json.encode(clock)))  # as after a restart
        parts.append(clock.advance(batch.rows(slice(first, first + cut)), ()))
    assert np.concatenate([part.log_us for part in parts]).tolist() == expected.log_us.tolist()
    assert np.concatenate([part.time_us for part in parts]).tolist() == expected.time_us.tolist()
    assert clock == whole
    passed_us = int(stamps.max(where=np.arange(3000) != 500, initial=0)) - 10**9
    assert passed_us * 0.95 < whole.log_us < passed_us * 1.05, "three records of another year cost some minutes"


async def test_a_notice_is_one_alert_that_counts(
    store: AsyncStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    decode = Decoder.decode

    def noticing(self: Decoder, batch: RecordBatch) -> Any:
        notices = [
            Notice("new_sensor", "turbines", name, f"new sensor {name}: `monitor retrain`", int(batch.offsets[0]), 5)
            for name in ("humidity", "co2")
        ]
        return replace(decode(self, batch), notices=notices)

    monkeypatch.setattr(Decoder, "decode", noticing)
    await run(tmp_path, store, log_of([("T1", s, s) for s in range(40)]), batch=10)
    assert found(tmp_path) == [("new_sensor", "co2", "firing"), ("new_sensor", "humidity", "firing")]
    with open_reader(f"sqlite:///{tmp_path}/monitor.db") as reader:
        assert {row["n_records"] for row in reader.alerts(alert_class="data")} == {20}
