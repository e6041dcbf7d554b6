"""Endurance run: one daemon with many assets and steady traffic. It reports memory and lag.

    python -m tests.soak --assets 10000 --rate 1000 --minutes 60

Apache Kafka, SQLite and a small trained model. It prints a line every 30 s, and at the end the slope of the resident
memory, fitted to all samples after a warm-up (least squares, MiB an hour).
"""

from __future__ import annotations

import argparse
import asyncio
import os
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import numpy as np
from aiokafka import AIOKafkaProducer

from tests.acceptance.streams import NOW_US
from tests.daemon_process import Deployment
from tests.servers import KafkaServer

if TYPE_CHECKING:
    from collections.abc import Callable

SENSORS = tuple(f"s{number}" for number in range(8))
PARTITIONS = 4
INTERVAL_US = 10_000_000
WARM_UP = 0.2
"""Share of the samples before the fit, while windows and caches fill."""


def rss_mib(pid: int) -> tuple[float, float]:
    """Return the resident memory in MiB, and its part without files (shared libraries)."""
    fields = {}
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        name, _, value = line.partition(":")
        if name in ("VmRSS", "RssAnon"):
            fields[name] = int(value.split()[0]) / 1024
    return fields["VmRSS"], fields["RssAnon"]


class SteadyTraffic:
    """Readings of all assets, cell by cell, at a steady rate."""

    def __init__(self, bootstrap: str, topic: str, assets: int, rate: float) -> None:
        self._bootstrap, self._topic, self._assets, self._rate = bootstrap, topic, assets, rate
        self.sent = 0
        self._noise = np.random.default_rng(0)

    async def run(self, until_s: float, sample: float, on_sample: Callable[[SteadyTraffic], None]) -> None:
        producer = AIOKafkaProducer(bootstrap_servers=self._bootstrap, linger_ms=20, max_batch_size=262_144)
        await producer.start()
        began = time.monotonic()
        next_sample = began + sample
        try:
            while time.monotonic() < until_s:
                due = int((time.monotonic() - began) * self._rate) - self.sent
                for _ in range(min(due, 5_000)):
                    cell, asset = divmod(self.sent, self._assets)
                    ts_us = NOW_US + cell * INTERVAL_US
                    values = (self._noise.integers(-80, 80, len(SENSORS)) / 8).tolist()
                    await producer.send(
                        self._topic,
                        msgspec.json.encode({"ts": ts_us / 1e6, "sensors": dict(zip(SENSORS, values, strict=True))}),
                        key=b"R%05d" % asset,
                        partition=asset % PARTITIONS,
                        timestamp_ms=ts_us // 1000,
                    )
                    self.sent += 1
                if time.monotonic() >= next_sample:
                    next_sample += sample
                    on_sample(self)
                await asyncio.sleep(0.02)
            await producer.flush()
        finally:
            await producer.stop()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--assets", type=int, default=10_000)
    parser.add_argument("--rate", type=float, default=1000.0, help="readings a second")
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--stride", type=int, default=8)
    parser.add_argument("--architecture", default="conv")
    asked = parser.parse_args()

    with tempfile.TemporaryDirectory(prefix="monitor-soak-") as folder:
        kafka = KafkaServer(Path(folder) / "kafka")
        kafka.start()
        deployment = Deployment(Path(folder) / "deployment")
        try:
            soak(asked, kafka, deployment)
        finally:
            deployment.kill()
            kafka.kill()


def soak(asked: argparse.Namespace, kafka: KafkaServer, deployment: Deployment) -> None:
    kafka.create_topic("soak", PARTITIONS, retention_ms="-1", retention_bytes="200000000", segment_bytes="20000000")
    deployment.configure(
        kafka.bootstrap,
        "soak",
        sensors=list(SENSORS),
        interval="10s",
        window=64,
        stride=asked.stride,
        lateness="10s",
        max_gap="80s",
        model={"architecture": asked.architecture},
        retrain={"every": "never", "history": "1d"},
    )
    deployment.install_model(asked.architecture)
    deployment.start()
    stream = SteadyTraffic(kafka.bootstrap, "soak", asked.assets, asked.rate)
    began = time.monotonic()
    samples: list[tuple[float, float]] = []

    def look(stream: SteadyTraffic) -> None:
        rss, anonymous = rss_mib(deployment.pid)
        samples.append((time.monotonic() - began, rss))
        lag = stream.sent - deployment.records()
        minutes = samples[-1][0] / 60
        print(
            f"{minutes:6.1f} min  {stream.sent:>10,} sent  lag {lag:>7,}  "
            f"rss {rss:6.1f} MiB, of which not files {anonymous:6.1f}",
            flush=True,
        )

    asyncio.run(stream.run(began + asked.minutes * 60, 30.0, look))
    look(stream)
    kept = np.array(samples[int(len(samples) * WARM_UP) :])
    slope = np.polyfit(kept[:, 0] / 3600, kept[:, 1], 1)[0] if len(kept) > 2 else float("nan")
    deployment.terminate()
    print(
        f"{asked.assets:,} assets, {stream.sent:,} readings in {asked.minutes:g} min on {os.cpu_count()} cores: "
        f"rss at most {max(rss for _, rss in samples):.0f} MiB, slope {slope:+.2f} MiB/h "
        f"over the last {kept[-1, 0] / 60 - kept[0, 0] / 60:.0f} min"
    )


if __name__ == "__main__":
    main()
