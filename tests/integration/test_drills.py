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
from monitor.store import registry
from monitor.store.acts import Actor
from monitor.store.engine import AsyncStore
from tests.daemon_process import Deployment, publish
from tests.weights import zeroed

if TYPE_CHECKING:
    from collections.abc import Iterator

    from monitor.kafka.embedded_broker import EmbeddedBroker
    from tests.daemon_process import Message

N, CYCLE = 1_400, 48
"""Records: enough for a training and for the 30 copies of a drill, and few, because each drill costs their number."""
BEGIN_MS = 1_767_225_600_000
SLOW_S = 200.0
EVA = Actor("eva", "cli")


@pytest.fixture(scope="module")
def deployment(
    embedded_broker: EmbeddedBroker, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Deployment]:
    """A fleet with a champion that was trained by a daemon, which is stopped."""
    deployment = Deployment(tmp_path_factory.mktemp("deployment"))
    asyncio.run(create_topic(embedded_broker.bootstrap, "drills", 1))
    publish(embedded_broker.bootstrap, "drills", messages())
    deployment.configure(
        embedded_broker.bootstrap, "drills", alerts={"budget": "1/day"}, drill={"cron": "never"}
    )
    early = deployment.command("drill")
    assert (early.returncode, early.stdout) == (1, "")
    deployment.start()
    deployment.wait_records(N)
    deployment.terminate()
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


def alerts(deployment: Deployment) -> list[tuple[str, str, str]]:
    found = deployment.json("alerts", "list", "--class", "data")
    return [(each["kind"], each["state"], each["severity"]) for each in found]


def test_the_command_drills_without_a_daemon(deployment: Deployment) -> None:
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
    shown = deployment.command("drill", "turbines", "--data", str(recording), "--sensor", "wind", limit_s=SLOW_S)
    assert shown.returncode == 0, shown.stderr
    lines = shown.stdout.splitlines()
    assert "bias" in shown.stdout
    assert [line.split()[0] for line in lines if line.startswith(("power", "wind"))] == ["wind"]
    assert max(map(len, lines)) <= 100

    stored = deployment.command("drill", "--stored")
    assert (stored.returncode, "has made none yet" in stored.stderr) == (1, True)
    unknown = deployment.command("drill", "--sensor", "winf")
    assert (unknown.returncode, "its sensors are power, wind" in unknown.stderr) == (1, True)


def test_zeroed_weights_open_the_alert_in_one_cycle(deployment: Deployment) -> None:
    deployment.start()
    [champion] = deployment.json("models", "list")
    assert deployment.json("drill", "--daemon", limit_s=SLOW_S)["problem"] is None
    assert alerts(deployment) == []

    blind = zeroed(TrainedModel.load(Path(champion["path"])))
    version = blind.save(deployment.folder / "checkpoints")
    in_store(
        deployment, registry.publish_and_promote, actor=EVA, at_us=2, version=version, fleet="turbines",
        path=str(deployment.folder / "checkpoints" / version), trained_us=2, card=blind.registry_card(), metrics={},
    )  # fmt: skip
    bad = deployment.json("drill", "--daemon", limit_s=SLOW_S)
    assert (bad["version"], version in (bad["problem"] or "")) == (version, True)
    assert alerts(deployment) == [("drill_failed", "firing", "critical")]
    [alert] = deployment.json("alerts", "list", "--class", "data")
    assert "monitor models rollback turbines" in alert["message"]

    assert deployment.command("models", "rollback").returncode == 0
    good = deployment.json("drill", "--daemon", limit_s=SLOW_S)
    assert (good["problem"], good["version"]) == (None, champion["version"])
    assert alerts(deployment) == [("drill_failed", "closed", "critical")]
    assert len(deployment.events("drilled")) == 3
    deployment.terminate()
