"""An operator's day beside a running daemon: its answers take effect within two seconds, and change no result.

The daemon, its SQLite file and each command of the operator are real processes. The receiver is a web server.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from typing import TYPE_CHECKING, Any

import pytest

from monitor.kafka.embedded_broker import create_topic
from tests.acceptance.plant import Plant
from tests.daemon_process import Deployment, read_back
from tests.servers import LoopbackServer

if TYPE_CHECKING:
    from pathlib import Path

    from monitor.kafka.embedded_broker import EmbeddedBroker

LIMIT_S = 2.0
"""The promise, from the end of an operator's command to its effect."""
TOPIC = "answers"


class Receiver(LoopbackServer):
    """Accepts each notification, and notes when it came."""

    def __init__(self) -> None:
        super().__init__()
        self.arrivals: list[tuple[float, dict[str, Any]]] = []

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
            length = int(head.partition("content-length: ")[2].partition("\r\n")[0])
            self.arrivals.append((time.monotonic(), json.loads(await reader.readexactly(length))))
            writer.write(b"HTTP/1.1 204 No Content\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
            await writer.drain()

    def steps(self, asset: str) -> list[str]:
        """Return the steps that came of an asset."""
        return [body["step"] for _, body in self.arrivals if (body["asset"], body["class"]) == (asset, "process")]


@pytest.mark.timeout(180)
def test_answers_reach_a_running_daemon(embedded_broker: EmbeddedBroker, tmp_path: Path) -> None:
    deployment, plant = Deployment(tmp_path / "deployment"), Plant(embedded_broker.bootstrap, TOPIC)
    with Receiver() as receiver:
        deployment.configure(embedded_broker.bootstrap, TOPIC)
        channel = f'url = "http://127.0.0.1:{receiver.port}/"\nname = "ops"\nmax_age = "forever"\n'
        deployment.path.write_text(f"{deployment.path.read_text()}[[notify]]\n{channel}")
        deployment.install_model()
        asyncio.run(create_topic(embedded_broker.bootstrap, TOPIC, 1))
        plant.send(40)
        deployment.start()
        try:
            operate(deployment, plant, receiver)
            deployment.wait_records(plant.n_records)
            deployment.terminate()
        finally:
            deployment.kill()
        deployment.check(read_back(embedded_broker.bootstrap, TOPIC, 1))


def operate(deployment: Deployment, plant: Plant, receiver: Receiver) -> None:
    def told(asset: str, step: str) -> None:
        deployment.wait(f"{step} of {asset}, not {receiver.steps(asset)}", lambda: step in receiver.steps(asset))

    def act(*words: str) -> float:
        """Run a command of an operator. Return when it ended."""
        done = deployment.command(*words, "--by", "ann")
        assert done.returncode == 0, f"{words}: {done.stdout}{done.stderr}"
        return time.monotonic()

    def effect_s(asset: str, step: str, since: float) -> float:
        told(asset, step)
        found = (at for at, body in receiver.arrivals if (body["asset"], body["step"]) == (asset, step))
        return next(found) - since

    deployment.wait_records(plant.n_records)
    calm = [row[0] for row in deployment.fetch("SELECT id FROM alert WHERE state <> 'closed'")]
    assert not calm, deployment.tail()
    plant.send(6, "R0")
    told("R0", "firing")
    first = str(deployment.json("alerts", "list", "--class", "process", "--state", "firing")[0]["id"])
    act("alerts", "ack", first, "--note", "on my way")
    act("alerts", "label", first, "fault")
    act("alerts", "shelve", "--asset", "R1", "--until", "7d", "--reason", "being repaired")
    plant.send(4, "R0", "R1")
    deployment.wait_records(plant.n_records)
    shelved = deployment.json("alerts", "list", "--class", "process", "--asset", "R1")[0]
    assert shelved["suppressed_by"] == "shelf"
    time.sleep(LIMIT_S)
    assert "firing" not in receiver.steps("R1")
    took = {"unshelve": effect_s("R1", "again", act("alerts", "unshelve", "1"))}
    took["close"] = effect_s("R0", "closed", act("alerts", "close", first, "--reason", "known"))
    assert deployment.json("alerts", "show", first)["state"] == "closed"
    plant.send(12)  # one window without a fault: it recovers
    plant.send(2, "R0")
    told("R0", "reopened")
    alert = deployment.json("alerts", "show", first)
    assert (alert["state"], alert["acknowledged_by"], alert["label"]) == ("firing", None, "fault")
    assert [(act["by"], act["act"]) for act in alert["acts"]] == [
        ("ann", "acknowledge"), ("ann", "label"), ("ann", "close"), ("monitor", "reopen")
    ]  # fmt: skip
    print({name: f"{seconds:.2f} s" for name, seconds in took.items()})
    assert max(took.values()) < LIMIT_S, took
