"""Drills with a real daemon, its training process and the command: a blind version is an open alert in one cycle."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree as ET

import numpy as np
import pytest

from monitor.drill_report import KINDS
from monitor.kafka.embedded_broker import create_topic
from monitor.models.detector import TrainedModel
from monitor.store import jobs, registry
from monitor.store.acts import Actor
from monitor.store.engine import AsyncStore
from tests.daemon_process import Deployment, publish
from tests.weights import zeroed

if TYPE_CHECKING:
    from collections.abc import Iterator

    from monitor.kafka.embedded_broker import EmbeddedBroker
    from tests.daemon_process import Message

N, CYCLE = 3_000, 48
BEGIN_MS = 1_767_225_600_000
ALERTS = {"budget": "1/day"}
SLOW_S = 280.0
EVA = Actor("eva", "cli")


@pytest.fixture
def deployment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    deployment = Deployment(tmp_path_factory.mktemp("deployment"))
    yield deployment
    deployment.kill()


def readings() -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    draw = np.random.default_rng(1)
    turn = 2 * np.pi * np.arange(N) / CYCLE
    return np.sin(turn) + 0.1 * draw.standard_normal(N), np.cos(turn) + 0.1 * draw.standard_normal(N)


def messages() -> list[Message]:
    """Return healthy readings of one turbine, one a minute."""
    stamps = (BEGIN_MS + 60_000 * np.arange(N)).tolist()
    return [
        (0, b"R1", json.dumps({"ts": stamp, "power": power, "wind": wind}).encode(), stamp)
        for stamp, power, wind in zip(stamps, *(each.tolist() for each in readings()), strict=True)
    ]


def in_store(deployment: Deployment, fn: Any, *args: Any, **kwargs: Any) -> Any:
    async def run() -> Any:
        async with AsyncStore(deployment.config.store.url) as store:
            return await store.run(fn, *args, **kwargs)

    return asyncio.run(run())


def next_drill(deployment: Deployment, *, is_requested: bool) -> dict[str, Any]:
    """Wait for another drill, and return its line in the log."""
    n = len(deployment.events("drilled"))
    if is_requested:
        in_store(deployment, jobs.request, "turbines", "eva", 1, "drill")
    deployment.wait("a drill", lambda: len(deployment.events("drilled")) > n, limit_s=SLOW_S)
    return deployment.events("drilled")[n]


def alerts(deployment: Deployment) -> list[tuple[str, str, str]]:
    found = deployment.json("alerts", "list", "--class", "data")
    return [(each["kind"], each["state"], each["severity"]) for each in found]


def test_zeroed_weights_open_the_alert_in_one_cycle(embedded_broker: EmbeddedBroker, deployment: Deployment) -> None:
    asyncio.run(create_topic(embedded_broker.bootstrap, "drills", 1))
    publish(embedded_broker.bootstrap, "drills", messages())
    every_minute = {"cron": "* * * * *"}
    deployment.configure(embedded_broker.bootstrap, "drills", alerts=ALERTS, drill=every_minute)
    deployment.start()
    assert next_drill(deployment, is_requested=False)["problem"] is None  # by its schedule
    assert alerts(deployment) == []
    deployment.terminate()

    deployment.configure(embedded_broker.bootstrap, "drills", alerts=ALERTS, drill={"cron": "never"})
    deployment.start()
    [champion] = deployment.json("models", "list")
    model = TrainedModel.load(Path(deployment.fetch("SELECT path FROM model_version")[0][0]))
    blind = zeroed(model)
    version = blind.save(deployment.folder / "checkpoints")
    in_store(
        deployment, registry.publish_and_promote, actor=EVA, at_us=2, version=version, fleet="turbines",
        path=str(deployment.folder / "checkpoints" / version), trained_us=2, card=blind.registry_card(), metrics={},
    )  # fmt: skip
    assert version in (next_drill(deployment, is_requested=True)["problem"] or "")
    assert alerts(deployment) == [("drill_failed", "firing", "critical")]
    [alert] = deployment.json("alerts", "list", "--class", "data")
    assert "monitor models rollback turbines" in alert["message"]

    in_store(deployment, registry.roll_back, "turbines", actor=EVA, at_us=3)
    good = next_drill(deployment, is_requested=True)
    assert (good["problem"], good["version"]) == (None, champion["version"])
    assert alerts(deployment) == [("drill_failed", "closed", "critical")]
    deployment.terminate()


def test_the_command_drills_without_a_daemon(embedded_broker: EmbeddedBroker, deployment: Deployment) -> None:
    asyncio.run(create_topic(embedded_broker.bootstrap, "drill-now", 1))
    publish(embedded_broker.bootstrap, "drill-now", messages())
    deployment.configure(embedded_broker.bootstrap, "drill-now", alerts=ALERTS)
    early = deployment.command("drill")
    assert (early.returncode, early.stdout) == (1, "")
    deployment.start()
    deployment.wait_records(N)
    deployment.terminate()

    found = deployment.json("drill", "--seed", "3", "--plot", str(deployment.folder / "drill.svg"), limit_s=SLOW_S)
    assert found.keys() == {"fleet", "version", "at", "requested_by", "problem", "result"}
    assert (found["problem"], found["result"]["seed"]) == (None, 3)
    assert [each["name"] for each in found["result"]["sensors"]] == ["power", "wind"]
    assert tuple(found["result"]["kinds"]) == KINDS
    ET.parse(deployment.folder / "drill.svg")

    power, wind = readings()
    recording = deployment.folder / "R1.csv"
    rows = zip((BEGIN_MS // 1000 + 60 * np.arange(N)).tolist(), power.tolist(), wind.tolist(), strict=True)
    recording.write_text("time,power,wind\n" + "".join(f"{at},{a},{b}\n" for at, a, b in rows))
    alone = deployment.json("drill", "--data", str(recording), "--sensor", "wind", "--seed", "3", limit_s=SLOW_S)
    assert [each["name"] for each in alone["result"]["sensors"]] == ["wind"]
    shown = deployment.command("drill", "turbines", "--data", str(recording), limit_s=SLOW_S)
    assert shown.returncode == 0, shown.stderr
    assert "bias" in shown.stdout
    assert max(map(len, shown.stdout.splitlines())) <= 120

    stored = deployment.command("drill", "--stored")
    assert stored.returncode == 1
    assert "has made none yet" in stored.stderr
    unknown = deployment.command("drill", "--sensor", "winf")
    assert (unknown.returncode, "its sensors are power, wind" in unknown.stderr) == (1, True)
