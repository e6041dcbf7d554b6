"""Sensors that appear later, through the pipeline and its database."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from structlog.testing import capture_logs

from monitor.config import Config
from monitor.decode.schema import Growth
from monitor.store import assets, versions
from monitor.types import Scores
from tests.unit.stream.plant import BEGIN, P0, P1, Plant, S

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from monitor.store.engine import AsyncStore
    from monitor.timing import Timing
    from monitor.types import Int64, Windows
    from tests.fakes import Record


def config_of(folder: Path, **fleet: Any) -> Config:
    return Config.model_validate(
        {
            "kafka": {"bootstrap": "nowhere:1", "topics": ["plant"]},
            "store": {"url": f"sqlite:///{folder}/monitor.db"},
            "fleet": [{"name": "line", "interval": "1s", "window": 4, "lateness": "1s", **fleet}],
        }
    )


def tag(offset: int, second: int, name: str, value: float, asset: str = "m1") -> Record:
    """A record of one sensor, in long format."""
    stamp = BEGIN + second
    return offset, stamp * S, asset.encode(), json.dumps({"ts": stamp, "metric": name, "value": value}).encode()


class Recorder:
    """A scorer that keeps what it was given."""

    def __init__(self) -> None:
        self.windows: list[tuple[int, tuple[str, ...], list[list[float]]]] = []

    async def score(self, windows: Windows, end_us: Int64, sensors: Sequence[str]) -> Scores:
        for start, values in zip(windows.start.tolist(), windows.values, strict=True):
            self.windows.append((start - BEGIN, tuple(sensors), values.tolist()))
        return Scores(windows, np.full(len(windows), np.nan, np.float32), [None] * len(windows), {})


async def test_long_format_fills_windows_of_all_sensors(store: AsyncStore, tmp_path: Path) -> None:
    names = ("temp", "press", "flow")
    log = [tag(3 * t + c, t, name, 10 * c + t) for t in range(12) for c, name in enumerate(names)]
    plant = Plant(config_of(tmp_path), store, {P0: log}, batch=2)  # the sensors come in different batches
    plant.pipeline.scorer = recorder = Recorder()
    pipeline = await plant.run()
    assert pipeline.partitions[P0].counters.accepted == 36
    assert pipeline.partitions[P0].counters.duplicate == 0
    assert (await store.read(assets.fleets))["line"] == names
    start, sensors, values = recorder.windows[-1]
    assert sensors == names
    assert values == [[float(10 * c + t) for c in range(3)] for t in range(start, start + 4)]


async def test_a_slow_topic_adds_its_sensor_when_it_comes(store: AsyncStore, tmp_path: Path) -> None:
    fast = [tag(t, t, "temp", t) for t in range(30)]
    slow = [tag(0, 20, "level", 7, "m2"), *[tag(i, 20 + i, "temp", i, "m2") for i in range(1, 8)]]
    plant = Plant(config_of(tmp_path), store, {P0: fast, P1: slow}, batch=3)
    pipeline = await plant.run()
    assert (await store.read(assets.fleets))["line"] == ("temp", "level")
    assert {len(state.shards["line"].sensors) for state in pipeline.partitions.values()} == {2}
    assert sum(state.counters.accepted for state in pipeline.partitions.values()) == 38
    windows = sum(state.counters.windows for state in pipeline.partitions.values())
    assert windows > 20


async def test_a_champion_ends_the_learning(store: AsyncStore, tmp_path: Path) -> None:
    config = config_of(tmp_path)
    await Plant(config, store, {P0: [tag(t, t, "temp", t) for t in range(8)]}, batch=4).run()
    champion = {"version": "v1", "fleet": "line", "path": "", "trained_us": 0, "card": {}, "metrics": {}}
    await store.run(lambda connection: versions.publish(connection, **champion))
    await store.run(lambda connection: versions.activate(connection, "line", "v1", 0))
    log = [tag(t, t, "temp", t) for t in range(8)] + [tag(8, 8, "press", 1), tag(9, 8, "temp", 8)]
    pipeline = await Plant(config, store, {P0: log}, batch=4).run()
    assert (await store.read(assets.fleets))["line"] == ("temp",)
    assert pipeline.registrar.schemas[0].growth is Growth.LEARNT
    counters = pipeline.partitions[P0].counters
    assert (counters.accepted, counters.reasons) == (9, {"no_reading": 1})
    # A training adds the sensor; the next record that has it brings the daemon to look.
    await store.run(lambda connection: assets.extend_sensors(connection, "line", ("temp", "press")))
    log += [tag(10 + i, 9 + i, "press", i) for i in range(4)]
    pipeline = await Plant(config, store, {P0: log}, batch=4).run()
    assert pipeline.partitions[P0].shards["line"].sensors == ("temp", "press")
    assert pipeline.partitions[P0].counters.accepted == 13


async def activate(store: AsyncStore, version: str, *sensors: str) -> None:
    facts: Any = {"version": version, "fleet": "line", "path": "", "trained_us": 0, "card": {}, "metrics": {}}
    await store.run(lambda connection: assets.extend_sensors(connection, "line", sensors))
    await store.run(lambda connection: versions.publish(connection, **facts))
    await store.run(lambda connection: versions.activate(connection, "line", version, 0))


async def test_a_restart_goes_on_telling_a_new_sensor(store: AsyncStore, tmp_path: Path, eager: Timing) -> None:
    log = [
        (t, (BEGIN + t) * S, b"m1", json.dumps({"ts": BEGIN + t, "temp": t + 0.5} | ({"hum": 40.5} if t >= 8 else {})))
        for t in range(80)
    ]
    records = [(offset, stamp, key, text.encode()) for offset, stamp, key, text in log]
    await Plant(config_of(tmp_path), store, {P0: records[:8]}, timing=eager).run()
    await activate(store, "v1", "temp")
    for end in (20, 50, 80):
        await Plant(config_of(tmp_path), store, {P0: records[:end]}, batch=10, timing=eager).run()
    query = "SELECT subject, n_anomalous FROM alert WHERE kind = 'new_sensor'"
    told = await store.read(lambda connection: connection.exec_driver_sql(query).all())
    assert [tuple(row) for row in told] == [("hum", 72)]


@pytest.mark.parametrize("is_promoted", [False, True])
async def test_a_promotion_loses_no_window(
    store: AsyncStore, tmp_path: Path, eager: Timing, is_promoted: bool
) -> None:
    config = config_of(tmp_path, max_gap="1s")
    log = [tag(n, t, "temp", t) for n, t in enumerate((0, 1, 2, 3, 5, 6))]
    await Plant(config, store, {P0: log[:3]}, timing=eager).run()
    await activate(store, "v1", "temp")
    log.append(tag(6, 7, "hum", 1))  # ahead of temp, and refused: the window of the seconds 2 to 5 is still open
    await Plant(config, store, {P0: log}, timing=eager).run()
    if is_promoted:
        await activate(store, "v2", "temp", "hum")
    log += [tag(t, t, "temp", t) for t in range(7, 14)]
    for end in (8, 9, 14):  # a restart in each of the next windows
        with capture_logs() as lines:
            await Plant(config, store, {P0: log[:end]}, timing=eager).run()
        assert "rebuild_differs" not in [each["event"] for each in lines]
    query = "SELECT start_us FROM score"
    starts = await store.read(lambda connection: connection.exec_driver_sql(query).scalars().all())
    assert sorted(start // S - BEGIN for start in starts) == list(range(-1, 9 if is_promoted else 11))


@pytest.mark.parametrize("stored", [None, ("a",), ("a", "b")])
async def test_two_daemons_extend_one_list(store: AsyncStore, stored: tuple[str, ...] | None) -> None:
    if stored is not None:
        await store.run(lambda connection: assets.register_sensors(connection, "line", stored))
    found = await store.run(lambda connection: assets.extend_sensors(connection, "line", ("a", "c")))
    assert found == (*(stored or ("a",)), "c")
    assert await store.run(lambda connection: assets.extend_sensors(connection, "line", ("c",))) == found
