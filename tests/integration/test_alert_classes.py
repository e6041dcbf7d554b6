"""A dead sensor, a dead asset and a dead stream: one alert each, within the stated time, on a broker."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import numpy as np

from monitor.kafka.embedded_broker import create_topic
from monitor.service.stream_watch import StreamWatch
from monitor.store.engine import AsyncStore
from tests.daemon_process import FLEET, Deployment, publish
from tests.fakes import FakeClock

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.daemon_process import Message

BEGIN = datetime(2026, 3, 1, tzinfo=UTC)
SENSOR_DIES, ASSET_DIES, END = 100, 150, 240
"""Minutes."""


def reading(asset: bytes, minute: int, **sensors: float) -> Message:
    at = BEGIN + timedelta(minutes=minute)
    return 0, asset, json.dumps({"ts": at.isoformat(), **sensors}).encode(), int(at.timestamp() * 1000)


def records() -> Iterator[Message]:
    """R1 loses its sensor `wind`, and R2 falls silent."""
    draw = np.random.default_rng(3)
    for minute in range(END):
        power, wind = draw.uniform(-100, 100, 2).tolist()
        yield reading(b"R1", minute, power=power, **({"wind": wind} if minute < SENSOR_DIES else {}))
        if minute < ASSET_DIES:
            yield reading(b"R2", minute, power=wind, wind=power)


def minutes(alert: dict[str, Any]) -> float:
    return (datetime.fromisoformat(alert["opened_at"]) - BEGIN).total_seconds() / 60


def test_a_dead_sensor_asset_and_stream_raise_one_alert_each(embedded_broker: Any, deployment: Deployment) -> None:
    bootstrap, messages = embedded_broker.bootstrap, list(records())
    asyncio.run(create_topic(bootstrap, "plant", 1))
    deployment.configure(bootstrap, "plant")
    deployment.install_model()
    deployment.start()
    n_first = len(messages) - (END - ASSET_DIES - 16)
    for part in (messages[:n_first], messages[n_first:]):  # the silence of an asset is judged once a batch
        publish(bootstrap, "plant", part)
        deployment.wait_records(n_first)
    deployment.wait_records(len(messages))
    asyncio.run(watch_a_stream_die(bootstrap, deployment, len(messages)))

    found = {each: deployment.json("alerts", "list", "--class", each) for each in ("sensor", "data")}
    [dead] = found["sensor"]
    assert (dead["kind"], dead["asset"], dead["sensor"], dead["state"]) == ("dead", "R1", "wind", "firing")
    assert "wind sends no value any more" in dead["message"]
    window = int(str(FLEET["window"]))
    assert SENSOR_DIES + window <= minutes(dead) <= SENSOR_DIES + window + 1
    by_kind = {alert["kind"]: alert for alert in found["data"]}
    assert len(found["data"]) == len(by_kind) == 2
    silent = by_kind["asset_silent"]
    assert silent["subject"] == "R2"
    assert ASSET_DIES + 14 <= minutes(silent) <= ASSET_DIES + 17
    assert by_kind["stream_silent"]["message"].startswith("plant: no record for 1")
    shown = deployment.command("alerts", "show", str(dead["id"])).stdout
    assert "R1 wind dead" in shown


async def watch_a_stream_die(bootstrap: str, deployment: Deployment, n_records: int) -> None:
    """Watch the topic until it has been silent for a quarter of an hour, by another clock."""
    clock = FakeClock(int(datetime.now(UTC).timestamp() * 1e6))
    config = deployment.config.with_default_group(_group(deployment))
    async with AsyncStore(config.store.url) as store:
        watch = StreamWatch(config, store, clock, None)
        for minute in range(22):
            record = reading(b"R1", END + minute, power=7.0 * (minute % 5))
            await asyncio.to_thread(publish, bootstrap, "plant", [record])
            clock.advance(10)
            await watch.run_once()
        await asyncio.to_thread(deployment.wait_records, n_records + 22)
        await asyncio.to_thread(deployment.terminate)
        for _ in range(5):
            clock.advance(4 * 60)
            await watch.run_once()


def _group(deployment: Deployment) -> str:
    [(group,)] = deployment.fetch("SELECT DISTINCT pipeline FROM source_partition")
    return str(group)
