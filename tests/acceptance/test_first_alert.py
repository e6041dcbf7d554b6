"""From nothing to a first alert on real Kafka, as a stranger would try it: four typed commands, nothing edited.

Three producers that know nothing of monitor: an MQTT bridge that sends JSON without a key, Telegraf, and Avro with a
schema registry. The readings of some hours are in the topic. Then a fault is injected, in simulated time.
"""

from __future__ import annotations

import io
import json
import math
import random
import subprocess
import sys
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import TYPE_CHECKING, Any

import fastavro
import pytest

from tests.daemon_process import Deployment, process_environment, publish

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.daemon_process import Message
    from tests.servers import KafkaServer

STEP_S = 10
N_HISTORY, N_NORMAL, N_FAULTY = 700, 60, 40
N_ASSETS = 2
FAULTY = 1
"""Number of the asset with the fault."""
LIMIT_S = 600.0
"""The promise, from the first typed command to the first alert."""
MAX_COMMANDS = 5
SCHEMA = {
    "type": "record",
    "name": "Reading",
    "fields": [
        {"name": "machine", "type": "string"},
        {"name": "measured_at", "type": {"type": "long", "logicalType": "timestamp-millis"}},
        {"name": "temperature", "type": "double"},
        {"name": "pressure", "type": ["null", "double"]},
    ],
}
SCHEMA_ID = 7

Reading = tuple[int, int, float, float]
"""(asset, event time in s, temperature, pressure)."""


def readings(first: int, n: int, begin_s: int, *, is_faulty: bool = False) -> Iterator[Reading]:
    made = random.Random(first)
    for i in range(first, first + n):
        for asset in range(N_ASSETS):
            temperature = 50 + 5 * math.sin(i / 15 + asset) + made.gauss(0, 0.3)
            pressure = 3 + 0.5 * math.cos(i / 15 + asset) + made.gauss(0, 0.03)
            if is_faulty and asset == FAULTY:
                temperature, pressure = temperature + 40, 0.2
            yield asset, begin_s + i * STEP_S, round(temperature, 2), round(pressure, 3)


def mqtt_bridge(reading: Reading) -> bytes:
    asset, at_s, temperature, pressure = reading
    at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(at_s))
    values = {"temperature": temperature, "pressure": pressure}
    return json.dumps({"topic": f"plant/pump-{asset}", "device_id": f"pump-{asset}", "TimeStamp": at} | values).encode()


def telegraf(reading: Reading) -> bytes:
    asset, at_s, temperature, pressure = reading
    fields, tags = {"temperature": temperature, "pressure": pressure}, {"host": f"pump-{asset}", "site": "north"}
    return json.dumps({"fields": fields, "name": "modbus", "tags": tags, "timestamp": at_s}).encode()


def avro(reading: Reading) -> bytes:
    asset, at_s, temperature, pressure = reading
    out = io.BytesIO()
    out.write(b"\x00" + SCHEMA_ID.to_bytes(4, "big"))
    document = {
        "machine": f"pump-{asset}", "measured_at": at_s * 1000, "temperature": temperature, "pressure": pressure
    }  # fmt: skip
    fastavro.schemaless_writer(out, fastavro.parse_schema(SCHEMA), document)
    return out.getvalue()


@contextmanager
def schema_registry() -> Iterator[str]:
    """A registry with one schema."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            is_known = self.path.startswith(f"/schemas/ids/{SCHEMA_ID}")
            answer: Any = {"schema": json.dumps(SCHEMA)} if is_known else [] if self.path == "/subjects" else {}
            body = json.dumps(answer).encode()
            self.send_response(200 if answer != {} or self.path == "/" else 404)
            self.send_header("Content-Type", "application/vnd.schemaregistry.v1+json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join(5)


class Stranger:
    """A person in an empty folder who types commands."""

    def __init__(self, folder: Path) -> None:
        self.deployment = Deployment(folder)
        self.folder = folder
        self.n_commands = 0
        self.began_s = time.monotonic()

    def type(self, *arguments: str) -> str:
        """Type a command that must succeed."""
        self.n_commands += 1
        done = subprocess.run(
            [sys.executable, "-m", "monitor", *arguments],
            cwd=self.folder, capture_output=True, text=True, timeout=120, check=False, env=process_environment(),
        )  # fmt: skip
        assert done.returncode == 0, f"{arguments}\n{done.stdout}{done.stderr}{self.deployment.tail()}"
        return done.stdout

    def run(self) -> None:
        """Type `monitor run` in another terminal."""
        self.n_commands += 1
        self.deployment.start()


@pytest.fixture
def stranger(tmp_path: Path) -> Iterator[Stranger]:
    found = Stranger(tmp_path / "empty")
    yield found
    found.deployment.kill()


@pytest.mark.parametrize("encode", [mqtt_bridge, telegraf, avro])
def test_a_first_alert_takes_four_commands(
    kafka: KafkaServer, stranger: Stranger, encode: Callable[[Reading], bytes]
) -> None:
    topic = f"first.alert.{encode.__name__}"
    kafka.create_topic(topic, 1, retention_ms="-1")
    begin_s = int(time.time()) // STEP_S * STEP_S - (N_HISTORY + N_NORMAL + N_FAULTY) * STEP_S

    def messages(made: Iterator[Reading]) -> Iterator[Message]:
        return ((0, None, encode(each), each[1] * 1000) for each in made)

    publish(kafka.bootstrap, topic, messages(readings(0, N_HISTORY, begin_s)))
    with schema_registry() as url:
        registry = ("--registry", url) if encode is avro else ()
        stranger.type("init", "--bootstrap", kafka.bootstrap, "--topic", topic, *registry)
        assert "Ready: start it with monitor run" in stranger.type("check")
        stranger.run()
        deployment = stranger.deployment
        deployment.wait_records(N_ASSETS * N_HISTORY, limit_s=240)
        assert deployment.events("champion") or deployment.events("champion_changed"), deployment.tail()
        publish(kafka.bootstrap, topic, messages(readings(N_HISTORY, N_NORMAL, begin_s)))
        publish(kafka.bootstrap, topic, messages(readings(N_HISTORY + N_NORMAL, N_FAULTY, begin_s, is_faulty=True)))
        deployment.wait_records(N_ASSETS * (N_HISTORY + N_NORMAL + N_FAULTY), limit_s=120)
        alerts = json.loads(stranger.type("alerts", "list", "--json"))
    fault_us = (begin_s + (N_HISTORY + N_NORMAL) * STEP_S) * 1_000_000
    found = [each for each in alerts if each["asset"] == f"pump-{FAULTY}"]
    assert found, f"{alerts}\n{deployment.tail()}"
    assert found[0]["opened_at"] >= time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(fault_us / 1e6))
    assert found[0]["sensors"][0]["name"] in ("temperature", "pressure")
    took_s = time.monotonic() - stranger.began_s
    assert took_s < LIMIT_S
    assert stranger.n_commands <= MAX_COMMANDS
    print(f"{encode.__name__}: first alert after {took_s:.0f} s and {stranger.n_commands} commands")
