"""SIGTERM while the database hangs: it accepts connections and never answers."""

from __future__ import annotations

import contextlib
import sqlite3
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from monitor.timing import DEFAULT_TIMING
from tests.acceptance.streams import MINUTE_US, plant
from tests.chaos.proxy import Proxy
from tests.daemon_process import SENSORS, Deployment, partitioned, process_environment, publish, read_back
from tests.oracle.log import FleetRule
from tests.servers import free_port

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.servers import KafkaServer, PostgresServer

PARTITIONS = 2
QUICK_S = DEFAULT_TIMING.stop_limit_s - 1
"""Below the forced exit: the daemon ended by itself."""
RULE = FleetRule("turbines", SENSORS, MINUTE_US, 12)


@pytest.fixture
def deployment(tmp_path: Path) -> Iterator[Deployment]:
    deployment = Deployment(tmp_path / "deployment")
    yield deployment
    deployment.kill()


def test_a_stop_while_the_database_hangs_is_quick_and_lossless(
    kafka: KafkaServer, postgres: PostgresServer, deployment: Deployment
) -> None:
    kafka.create_topic("hung", PARTITIONS, retention_ms="-1")
    messages = list(partitioned(plant(9, 10, 20_000, RULE), PARTITIONS))
    url = postgres.url()
    deployment.configure(kafka.bootstrap, "hung", url=url)
    assert deployment.command("db", "upgrade").returncode == 0
    deployment.install_model()
    with Proxy(postgres.port) as proxy:
        deployment.configure(kafka.bootstrap, "hung", url=url.replace(str(postgres.port), str(proxy.port)))
        deployment.start()
        publish(kafka.bootstrap, "hung", messages[:10_000])
        deployment.wait_records(10_000)
        proxy.stall(60)
        publish(kafka.bootstrap, "hung", messages[10_000:])
        took_s = deployment.terminate()
    print(f"{took_s:.1f} s")
    assert took_s < QUICK_S
    deployment.configure(kafka.bootstrap, "hung", url=url)
    deployment.start()
    deployment.wait_records(len(messages))
    deployment.terminate()
    deployment.check(read_back(kafka.bootstrap, "hung", PARTITIONS))


def test_a_stop_is_quick_while_a_sqlite_thread_hangs(deployment: Deployment) -> None:
    """Another process holds the SQLite file. The writer thread waits for it for 30 s, and cannot be cancelled."""
    deployment.configure(f"127.0.0.1:{free_port()}", "nowhere")
    deployment.install_model()
    deployment.start()
    deployment.wait_event("broker_away", limit_s=60)
    with contextlib.closing(sqlite3.connect(deployment.database)) as another:
        another.execute("BEGIN IMMEDIATE")
        time.sleep(2 * DEFAULT_TIMING.heartbeat_every_s)
        took_s = deployment.terminate()
    print(f"{took_s:.1f} s")
    assert deployment.events("stop_cut_short")
    assert took_s < QUICK_S


def test_a_stop_during_a_training_and_a_hanging_database_is_quick(
    kafka: KafkaServer, postgres: PostgresServer, deployment: Deployment
) -> None:
    kafka.create_topic("hung-training", PARTITIONS, retention_ms="-1")
    messages = list(partitioned(plant(3, 20, 30_000, RULE), PARTITIONS))
    url = postgres.url()
    model = {"architecture": "conv", "max_train": "2m"}
    deployment.configure(kafka.bootstrap, "hung-training", url=url, model=model)
    assert deployment.command("db", "upgrade").returncode == 0
    deployment.install_model()
    with Proxy(postgres.port) as proxy:
        deployment.configure(
            kafka.bootstrap, "hung-training", url=url.replace(str(postgres.port), str(proxy.port)), model=model
        )
        deployment.start()
        publish(kafka.bootstrap, "hung-training", messages[:20_000])
        deployment.wait_records(20_000)
        assert deployment.command("retrain").returncode == 0
        deployment.wait_event("training_progress")
        [child] = children(deployment.pid)
        proxy.stall(60)
        publish(kafka.bootstrap, "hung-training", messages[20_000:])
        took_s = deployment.terminate()
    print(f"{took_s:.1f} s")
    assert took_s < QUICK_S
    assert not Path(f"/proc/{child}").exists(), "the training process outlived the daemon"


def test_a_stop_is_forced_at_its_limit_when_the_event_loop_hangs() -> None:
    hung = """
import asyncio, os, signal, time
from monitor import logs
from monitor.service.shutdown import stop_on_signals
from monitor.timing import Timing

async def main():
    stop_on_signals(Timing(stop_limit_s=0.5))
    os.kill(os.getpid(), signal.SIGTERM)
    await asyncio.sleep(0.1)
    time.sleep(60)

logs.configure("info", "json")
asyncio.run(main())
"""
    done = subprocess.run(
        [sys.executable, "-c", hung], capture_output=True, text=True, timeout=30, env=process_environment()
    )
    assert done.returncode == 0, done.stderr
    assert "stop_cut_short" in done.stderr + done.stdout


def children(pid: int) -> list[int]:
    """Return the child processes of a process."""
    return [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
