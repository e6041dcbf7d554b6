"""The training process is killed at random points of its life, without an effect on serving.

`MONITOR_KILLS=50` is the full figure, `-s` shows it. The delay of the event loop is told, not limited tightly: the
machine of a test has other work.
"""

from __future__ import annotations

import asyncio
import os
import random
import re
import signal
import socket
import time
import urllib.request
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from monitor.clock import SystemClock
from monitor.errors import Conflict
from monitor.kafka.embedded_broker import create_topic
from monitor.lifecycle import training_process
from monitor.models import checkpoint_files
from monitor.store import jobs
from monitor.store.engine import AsyncStore
from tests.daemon_process import Deployment, publish, waves

if TYPE_CHECKING:

    from monitor.kafka.embedded_broker import EmbeddedBroker

N_KILLS = int(os.environ.get("MONITOR_KILLS", "3"))
N_HISTORY, N_MORE, LENGTH = 1500, 15, 32
TOPIC = "kills"
LOOP_LAG_S = 2.0

readings = partial(waves, period=18 * np.pi, noise=0.2)


def trainer(daemon: int) -> int | None:
    """Return the process id of the daemon's training process."""
    for status in Path("/proc").glob("[0-9]*/status"):
        with suppress(OSError):
            is_child = f"\nPPid:\t{daemon}\n" in status.read_text()
            if is_child and b"monitor.lifecycle" in (status.parent / "cmdline").read_bytes():
                return int(status.parent.name)
    return None


async def request(url: str) -> None:
    async with AsyncStore(url) as store:
        with suppress(Conflict):
            await store.run(jobs.request, "turbines", "ann", SystemClock().now_us())


def loop_lag_s(port: int) -> float:
    text = urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10).read().decode()
    found = re.search(r"^monitor_loop_lag_seconds (\S+)$", text, re.MULTILINE)
    assert found
    return float(found[1])


def test_a_killed_training_has_no_effect_on_serving(
    embedded_broker: EmbeddedBroker, deployment: Deployment
) -> None:
    asyncio.run(create_topic(embedded_broker.bootstrap, TOPIC, 1))
    publish(embedded_broker.bootstrap, TOPIC, readings(0, N_HISTORY))
    retrain = {"every": "never", "drift": "never"}
    deployment.configure(embedded_broker.bootstrap, TOPIC, window=LENGTH, max_gap="4m", retrain=retrain)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    deployment.path.write_text(deployment.path.read_text() + f"\n[http]\nlisten = '127.0.0.1:{port}'\n")
    deployment.start()
    deployment.wait_records(N_HISTORY)
    url, draw = deployment.config.store.url, random.Random(13)
    n_readings, n_killed, life_s, lags = N_HISTORY, 0, 0.0, []

    def state() -> tuple[int, str]:
        return deployment.fetch("SELECT id, state FROM job ORDER BY id DESC LIMIT 1")[0]

    def train(kill_after: list[float]) -> str:
        """Let it train, and kill the process so often, each after a share of its life. Return the job's state."""
        nonlocal n_readings, n_killed, life_s
        before, _ = state()
        asyncio.run(request(url))
        is_over = ("done", "failed")
        began, former = time.monotonic(), None
        for share in kill_after:
            deployment.wait(
                "the next training process",
                lambda former=former: trainer(deployment.pid) not in (None, former)
                or (state()[0] > before and state()[1] in is_over),
                every_s=0.02,
            )  # fmt: skip
            former = trainer(deployment.pid)
            time.sleep(share * life_s)
            if former is not None and trainer(deployment.pid) == former:
                with suppress(ProcessLookupError):
                    os.kill(former, signal.SIGKILL)
                    n_killed += 1
            else:
                life_s *= 0.7  # this one was quicker than the first
        publish(embedded_broker.bootstrap, TOPIC, readings(n_readings, N_MORE))
        n_readings += N_MORE
        deployment.wait("the end of the job", lambda: state()[0] > before and state()[1] in is_over, limit_s=300)
        life_s = life_s or time.monotonic() - began
        deployment.wait_records(n_readings)
        lags.append(loop_lag_s(port))
        return state()[1]

    assert train([]) == "done"
    n_jobs = 0
    while n_killed < N_KILLS:
        n_jobs += 1
        assert n_jobs <= 3 * N_KILLS, "too few were alive when they were to be killed"
        n = min(training_process.MAX_RESTARTS, N_KILLS - n_killed)
        assert train([draw.uniform(0, 1) for _ in range(n)]) == "done", "it started again at once"
    n_random = n_killed
    assert len(deployment.events("training_killed")) == n_random
    assert train([0.0] * (training_process.MAX_RESTARTS + 1)) == "failed", "a job that is always killed ends"
    deployment.terminate()

    assert not [event for event in deployment.events() if event.get("level") in ("error", "critical")]
    for path, version in deployment.fetch("SELECT path, version FROM model_version"):
        assert checkpoint_files.read(Path(path)).card["version"] == version, "no half checkpoint is published"
    windows = deployment.fetch("SELECT end_us, version FROM score LEFT JOIN model_version"
                               " ON model_version.id = version_id ORDER BY end_us")  # fmt: skip
    ends = [end_us for end_us, _ in windows]
    assert len(set(ends)) == len(ends) >= n_readings - LENGTH, "each window is scored once"
    assert (np.diff(ends) == 60_000_000).all(), "none is missing"
    active = deployment.fetch("SELECT from_window_end_us, version FROM model_activation JOIN model_version"
                              " ON model_version.id = version_id ORDER BY from_window_end_us")  # fmt: skip
    for end_us, version in windows:
        assert version == [name for from_us, name in active if from_us < end_us][-1]
    told = f"{n_random} killed in {n_jobs} jobs within a life of {life_s:.1f} s; largest lag of the loop in a minute"
    print(f"{told}: median {np.median(lags) * 1e3:.0f} ms, worst {max(lags) * 1e3:.0f} ms; load {os.getloadavg()}")
    assert np.median(lags) < LOOP_LAG_S
