"""The daemon as an operator runs it: `python -m monitor run` in its own process, with a folder and a log.

A `Deployment` is one installation: its folder, monitor.toml and database. Records are sent to a real broker and read
back by plain aiokafka clients, so no code under test verifies itself. Every wait has a limit, and a failure shows the
daemon's log.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

from monitor.config import load
from monitor.errors import MonitorError
from monitor.kafka.embedded_broker import producer_settings
from monitor.models.spec import FleetSpec, ModelSpec, TrainingSet
from monitor.store import registry, versions
from monitor.store.acts import MONITOR
from monitor.store.engine import AsyncStore
from monitor.store.reader import open_reader
from monitor.training.fit import fit
from monitor.types import ModelState
from tests.oracle.check import Report, check, stored_rows
from tests.oracle.log import rules_from

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from monitor.config import Config
    from monitor.store.queries import Reader
    from tests.oracle.log import RawRecord

SENSORS = ("power", "wind")
DRAIN_LIMIT_S = 10.0
"""Promised limit from SIGTERM to the end."""

Message = tuple[int, "bytes | None", "bytes | None", int]
"""(partition, key, value, Kafka's timestamp in ms)."""

Trickle = Callable[[str, str, "list[Message]"], AbstractContextManager[None]]
"""Sends messages to (bootstrap, topic) while the context lasts."""

FLEET = {
    "name": "turbines",
    "assets": "R*",
    "sensors": list(SENSORS),
    "interval": "1m",
    "window": 12,
    "stride": 1,
    "lateness": "3m",
    "max_gap": "2m",
    "model": {"architecture": "pca"},
    # Generous, so that alerts open and close in a test: about one window in seven is anomalous.
    "alerts": {"budget": "200/day", "confirm": "2 of 3", "recover": 3},
    # The readings are noise, in which the share of injected faults that a version finds is chance.
    "retrain": {"every": "never", "history": "365d", "recall_margin": 1},
}


class Deployment:
    """One installation of monitor."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.path = folder / "monitor.toml"
        self.log_path = folder / "daemon.log"
        self._process: subprocess.Popen[bytes] | None = None

    def configure(
        self, bootstrap: str, topic: str, *, url: str = "sqlite:///monitor.db", kafka: Any = None, **fleet: Any
    ) -> None:
        """Write monitor.toml. `kafka`, `fleet`: more settings of these tables."""
        tables = {"bootstrap": bootstrap, "topics": [topic], **(kafka or {})}
        self.path.write_text(
            f"device = 'cpu'\n[kafka]\n{_lines(tables)}\n[store]\nurl = '{url}'\nkeep_scores = 'forever'\n"
            f"[[fleet]]\n{_lines(FLEET | fleet)}\n"
        )

    @property
    def config(self) -> Config:
        """The configuration in monitor.toml."""
        return load(self.path)

    @property
    def database(self) -> Path:
        """The SQLite file."""
        return self.folder / "monitor.db"

    # ------------------------------------------------------------------ the daemon

    def start(self) -> None:
        """Start the daemon. It appends to the log of the former one."""
        assert self._process is None or self._process.poll() is not None, "it still runs"
        with self.log_path.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "monitor", "run", "--config", str(self.path)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=process_environment(),
                start_new_session=True,
            )

    def terminate(self) -> float:
        """SIGTERM: it must exit 0 within 10 s. Return how many seconds it took."""
        assert self._process is not None
        began = time.monotonic()
        self._process.send_signal(signal.SIGTERM)
        try:
            code = self._process.wait(timeout=3 * DRAIN_LIMIT_S)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"still there {3 * DRAIN_LIMIT_S:.0f} s after SIGTERM\n{self.tail()}") from None
        took_s = time.monotonic() - began
        assert code == 0, f"exit code {code}\n{self.tail()}"
        assert took_s < DRAIN_LIMIT_S, f"{took_s:.1f} s\n{self.tail()}"
        return took_s

    def kill(self) -> None:
        """kill -9. No effect if it does not run."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    @property
    def pid(self) -> int:
        """Process id of the daemon."""
        assert self._process is not None
        return self._process.pid

    def events(self, name: str | None = None) -> list[dict[str, Any]]:
        """Return the events that the daemons of this deployment logged, in order: all, or those of one name."""
        text = self.log_path.read_text(errors="replace") if self.log_path.exists() else ""
        found = []
        for line in text.splitlines():
            with contextlib.suppress(json.JSONDecodeError):
                found.append(json.loads(line))
        return [event for event in found if name in (None, event.get("event"))]

    def tail(self) -> str:
        """Return the end of the log, for the message of an assertion."""
        text = self.log_path.read_text(errors="replace") if self.log_path.exists() else "(no log)"
        return f"---- {self.log_path}\n" + "\n".join(text.splitlines()[-40:])

    # ------------------------------------------------------------------ waiting

    def wait(self, what: str, condition: Callable[[], object], limit_s: float = 90.0, every_s: float = 0.1) -> None:
        """Wait until `condition()` is true. Fail if the daemon ends."""
        deadline = time.monotonic() + limit_s
        while not condition():
            code = self._process.poll() if self._process else None
            assert code is None, f"the daemon ended with exit code {code} while we waited for: {what}\n{self.tail()}"
            assert time.monotonic() < deadline, f"not within {limit_s:.0f} s: {what}\n{self.tail()}"
            time.sleep(every_s)

    def wait_event(self, name: str, *, times: int = 1, limit_s: float = 90.0) -> dict[str, Any]:
        """Wait until the log has so many events of a name. Return the last."""
        self.wait(f"{name} ×{times} in the log", lambda: len(self.events(name)) >= times, limit_s)
        return self.events(name)[-1]

    def records(self) -> int:
        """Return the number of records that the database accounts for. 0 = no database."""
        with contextlib.suppress(MonitorError), self.reader() as reader:
            return sum(row["counters"].get("records", 0) for row in reader.partitions())
        return 0

    def wait_records(self, n: int, limit_s: float = 90.0) -> None:
        """Wait until the database accounts for `n` records."""
        self.wait(f"{n} records in the database", lambda: self.records() >= n, limit_s)

    # ------------------------------------------------------------------ looking

    @contextlib.contextmanager
    def reader(self) -> Iterator[Reader]:
        """Open the database as an operator's command does."""
        with open_reader(self.config.store.url) as reader:
            yield reader

    def fetch(self, sql: str) -> list[tuple[Any, ...]]:
        """Run one SELECT."""
        with self.reader() as reader:
            return [tuple(row.values()) for row in reader.fetch(sql)]

    def check(self, log: dict[tuple[str, int], list[RawRecord]]) -> Report:
        """Let the oracle compare the database with the log, which must be processed to its end."""
        report = check(stored_rows(self.fetch), log, rules_from(self.config))
        n_records = sum(map(len, log.values()))
        assert report.compared["records"] == n_records, f"{n_records} in the log; {report}\n{self.tail()}"
        assert report.is_clean, f"{report}\n{self.tail()}"
        assert report.compared["windows"] > 0, report
        return report

    def command(self, *arguments: str, limit_s: float = 60.0) -> subprocess.CompletedProcess[str]:
        """Run another command of monitor on this deployment."""
        return subprocess.run(
            [sys.executable, "-m", "monitor", *arguments, "--config", str(self.path)],
            capture_output=True,
            text=True,
            timeout=limit_s,
            check=False,
            env=process_environment(),
        )

    def json(self, *arguments: str, limit_s: float = 60.0) -> Any:
        """Run a command with --json, which must succeed. Return its document."""
        done = self.command(*arguments, "--json", limit_s=limit_s)
        assert done.returncode == 0, f"{arguments}: exit code {done.returncode}\n{done.stdout}{done.stderr}"
        return json.loads(done.stdout)

    def install_model(self, architecture: str = "pca", *, seed: int = 7, is_champion: bool = True) -> str:
        """Put a trained model into the database, for tests that are not about training. It is the same every time.

        `is_champion`: False = publish a candidate, into a database that exists.
        """
        config = self.config
        fleet = config.fleets[0]
        n, n_sensors = 400, len(fleet.sensors or ())
        # The values of tests.acceptance.streams: anything in ±100.
        values = np.random.default_rng(seed).uniform(-100, 100, (n, fleet.length, n_sensors)).astype(np.float32)
        end_us = (np.arange(n, dtype=np.int64) + fleet.length) * fleet.interval_us
        detector = fit(
            TrainingSet(values, np.zeros(n, np.int32), end_us),
            ModelSpec(architecture=architecture),
            # The terms of the configuration: with others the daemon would derive a version at its start.
            FleetSpec.of(fleet, fleet.sensors or (), config.fields_of(fleet)),
        )
        version = detector.save(config.store.checkpoints)

        async def enter() -> None:
            async with AsyncStore(config.store.url, owner=is_champion) as store:
                path = str(config.store.checkpoints / version)
                facts: dict[str, Any] = {"trained_us": 0, "card": {}, "metrics": {}, "actor": MONITOR, "at_us": 0}
                facts |= {"version": version, "fleet": fleet.name, "path": path, "verdict": None}
                if is_champion:
                    await store.run(registry.publish_and_promote, **facts)
                else:
                    await store.run(registry.publish, state=ModelState.CANDIDATE, **facts)

        asyncio.run(enter())
        return version


def process_environment() -> dict[str, str]:
    """Return our environment variables without settings of monitor, and with one thread for torch."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("MONITOR_")}
    root = str(Path(__file__).parents[1])
    return kept | {"OMP_NUM_THREADS": "1", "PYTHONPATH": root, "PYTHONWARNINGS": "default"}


def _lines(table: dict[str, Any]) -> str:
    return "\n".join(f"{key} = {_toml(value)}" for key, value in table.items())


def _toml(value: Any) -> str:
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{key} = {_toml(each)}" for key, each in value.items()) + " }"
    return json.dumps(value)


# ---------------------------------------------------------------- the broker


def partitioned(records: Iterable[tuple[bytes, bytes, int]], n_partitions: int) -> Iterator[Message]:
    """Add the partition to each record: the number at the end of the asset's name, modulo `n_partitions`."""
    for key, value, at_ms in records:
        yield int(key[1:]) % n_partitions, key, value, at_ms


BEGIN_MS = 1_767_225_600_000
"""Event time of the first reading of `waves`."""


def waves(first: int, n: int, *, period: float, noise: float) -> list[Message]:
    """Return readings of one turbine, one a minute, from the cell `first` on. `period`: in cells, of both sensors."""
    at = np.arange(first, first + n)
    draw = np.random.default_rng(first)
    power = np.sin(2 * np.pi * at / period) + noise * draw.standard_normal(n)
    wind = np.cos(2 * np.pi * at / period) + noise * draw.standard_normal(n)
    return [
        (0, b"R1", json.dumps({"ts": stamp, "power": one, "wind": other}).encode(), stamp)
        for stamp, one, other in zip((BEGIN_MS + 60_000 * at).tolist(), power.tolist(), wind.tolist(), strict=True)
    ]


def publish(bootstrap: str, topic: str, messages: Iterable[Message]) -> list[tuple[int, int]]:
    """Send messages and wait until the broker has them. Return (partition, offset) of each."""

    async def send() -> list[tuple[int, int]]:
        settings = producer_settings(bootstrap) | {"max_request_size": 4 * 1024 * 1024}
        async with AIOKafkaProducer(**settings) as producer:
            acknowledged = [
                await producer.send(topic, value, key=key, partition=partition, timestamp_ms=at_ms)
                for partition, key, value, at_ms in messages
            ]
            return [(each.partition, each.offset) for each in await asyncio.gather(*acknowledged)]

    return asyncio.run(send())


def read_back(bootstrap: str, topic: str, n_partitions: int) -> dict[tuple[str, int], list[RawRecord]]:
    """Read a topic from the beginning to the end, as logs for the oracle."""

    async def read() -> dict[tuple[str, int], list[RawRecord]]:
        found: dict[tuple[str, int], list[RawRecord]] = defaultdict(list)
        keys = [TopicPartition(topic, number) for number in range(n_partitions)]
        consumer = AIOKafkaConsumer(
            bootstrap_servers=bootstrap,
            enable_auto_commit=False,
            auto_offset_reset="none",
            max_partition_fetch_bytes=4 * 1024 * 1024,
        )
        async with consumer:
            consumer.assign(keys)
            for key in keys:
                consumer.seek(key, 0)
            ends = await consumer.end_offsets(keys)
            deadline = time.monotonic() + 120
            while any([await consumer.position(key) < ends[key] for key in keys]):
                assert time.monotonic() < deadline, f"{topic}: {ends}"
                for key, records in (await consumer.getmany(timeout_ms=500)).items():
                    log = found[(key.topic, key.partition)]
                    log += [(record.offset, record.timestamp * 1000, record.key, record.value) for record in records]
        return dict(found)

    return asyncio.run(read())


def version_at(activations: Sequence[versions.Activation], window_end_us: int) -> str | None:
    """Return the active version for a window that ends at `window_end_us`. None = before the first activation."""
    place = bisect_left(activations, window_end_us, key=lambda activation: activation.from_window_end_us)
    return activations[place - 1].version if place else None
