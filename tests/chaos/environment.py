"""The servers of a scenario, its deployment and daemons, and the end of each run: wait, stop, verify."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from monitor.config.kafka import KafkaConfig
from monitor.errors import MonitorError
from tests.chaos import journal, notifications
from tests.chaos.fork_server import ForkServer
from tests.chaos.hooks import SESSION_S
from tests.chaos.receiver import WebhookReceiver
from tests.chaos.traffic import TrafficSender, traffic
from tests.chaos.verify import verify
from tests.daemon_process import Deployment, process_environment, read_back
from tests.servers import ROOT, KafkaServer, PostgresServer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from tests.chaos.figures import Figures

CATCH_UP_S = 240.0
"""Limit for the remaining records, after the last fault. Busy small machines are slow."""
STOP_S = 60.0


class Servers:
    """The servers that all runs of this process share. Each is started on first use. Context manager."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._kafka: dict[int, KafkaServer] = {}
        self._postgres: PostgresServer | None = None
        self._stack = contextlib.ExitStack()
        self._n_runs = 0

    def __enter__(self) -> Servers:
        self.fork_server = self._stack.enter_context(ForkServer(process_environment()))
        return self

    def __exit__(self, *exc: object) -> None:
        for kafka in self._kafka.values():
            kafka.kill()
        if self._postgres is not None:
            self._postgres.remove()
        self._stack.close()

    @contextlib.contextmanager
    def other_fork_server(self, settings: dict[str, str]) -> Iterator[None]:
        """Fork daemons with other environment variables."""
        former = self.fork_server
        with ForkServer(process_environment() | settings) as self.fork_server:
            try:
                yield
            finally:
                self.fork_server = former

    def kafka(self, nodes: int = 1) -> KafkaServer:
        if nodes not in self._kafka:
            server = KafkaServer(self.folder / f"kafka-{nodes}", nodes=nodes)
            self._kafka[nodes] = server
            server.start()
        return self._kafka[nodes]

    def adopt(self, kafka: KafkaServer | None = None, postgres: PostgresServer | None = None) -> None:
        """Use servers that the caller started and will stop."""
        if kafka is not None:
            self.kafka = lambda nodes=1: kafka  # type: ignore[method-assign]
        if postgres is not None:
            self.postgres = lambda: postgres  # type: ignore[method-assign]

    def release_kafka(self, nodes: int) -> None:
        """Stop a cluster that the other scenarios do not need, to free memory and processor."""
        server = self._kafka.pop(nodes, None)
        if server is not None:
            server.kill()
            shutil.rmtree(server.folder, ignore_errors=True)

    def postgres(self) -> PostgresServer:
        if self._postgres is None:
            self._postgres = PostgresServer()
            self._postgres.start()
        return self._postgres

    def new_folder(self, name: str) -> Path:
        self._n_runs += 1
        folder = self.folder / f"{name}-{self._n_runs}"
        folder.mkdir(parents=True)
        return folder


class ChaosDaemon:
    """One daemon of a deployment. It is killed, suspended and started again, each time as another process."""

    def __init__(self, env: Environment, name: str, hooks: Sequence[str] = ()) -> None:
        self.env = env
        self.name = name
        self.hooks = tuple(hooks)
        self.log = env.deployment.folder / f"{name}.log"
        self.pid: int | None = None
        self.starts: list[tuple[int, float]] = []
        """(pid, time) of each start."""
        self.is_suspended = False
        self._process: subprocess.Popen[bytes] | None = None
        """None = it was forked."""

    @property
    def is_up(self) -> bool:
        return self.pid is not None and not self.is_suspended

    def start(self, *, as_operator: bool = False) -> None:
        """Start it: forked, or with `python -m monitor run`."""
        assert self.pid is None, f"{self.name} still runs"
        arguments = ["run", "--config", str(self.env.deployment.path)]
        if as_operator:
            with self.log.open("ab") as log:
                self._process = subprocess.Popen(
                    [sys.executable, "-m", "monitor", *arguments],
                    stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=process_environment(), start_new_session=True,
                )  # fmt: skip
            self.pid = self._process.pid
        else:
            self._process = None
            hooks = (*self.env.hooks, *self.hooks)
            self.pid = self.env.servers.fork_server.start(arguments, self.log, hooks)
        self.starts.append((self.pid, time.time()))

    def kill(self) -> None:
        """kill -9. No effect if it ended by itself."""
        if self.pid is None:
            return
        self._signal(signal.SIGKILL)
        self._wait(STOP_S)
        self.pid, self.is_suspended = None, False

    def suspend(self) -> None:
        """SIGSTOP."""
        self._signal(signal.SIGSTOP)
        self.is_suspended = True

    def suspend_at_commit(self, number: signal.Signals, limit_s: float = 4.0) -> bool:
        """Tell it to suspend itself before its next commit. Return True if it did."""
        self._signal(number)
        deadline = time.monotonic() + limit_s
        while time.monotonic() < deadline and not self.is_suspended:
            self.is_suspended = _state(self.pid) == "T"
            time.sleep(0.01)
        return self.is_suspended

    def resume(self) -> None:
        """SIGCONT."""
        self._signal(signal.SIGCONT)
        self.is_suspended = False

    def send_signal(self, number: signal.Signals) -> None:
        """Send a signal that a hook handles."""
        self._signal(number)

    def terminate(self) -> float:
        """SIGTERM, and return the seconds until its end. The exit code must be 0, except during the start."""
        self.resume()
        began = time.monotonic()
        self._signal(signal.SIGTERM)
        code = self._wait(STOP_S)
        if code not in (0, -signal.SIGTERM):
            self.env.figures.problems.append(
                f"{self.name}: exit code {code} after SIGTERM (None = it runs)\n{self.tail()}"
            )
        if code is None:
            self._signal(signal.SIGKILL)
            self._wait(STOP_S)
        self.pid = None
        return time.monotonic() - began

    def code(self) -> int | None:
        """Return its exit code. None = it runs."""
        if self.pid is None:
            return None
        return self._process.poll() if self._process is not None else self.env.servers.fork_server.poll(self.pid)

    def events(self, name: str | None = None) -> list[dict[str, Any]]:
        """Return its logged events since the first start."""
        found: list[dict[str, Any]] = []
        text = self.log.read_text(errors="replace") if self.log.exists() else ""
        for line in text.splitlines():
            with contextlib.suppress(json.JSONDecodeError):
                found.append(json.loads(line))
                continue
            if line.startswith("Traceback"):
                found.append({"event": "crash", "traceback": ""})
            if found and "traceback" in found[-1]:
                found[-1]["traceback"] += line + "\n"
        return [event for event in found if name in (None, event.get("event"))]

    def tail(self, n: int = 12) -> str:
        text = self.log.read_text(errors="replace") if self.log.exists() else "(no log)"
        return f"---- {self.log}\n" + "\n".join(text.splitlines()[-n:])

    def _signal(self, number: signal.Signals) -> None:
        assert self.pid is not None
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, number)

    def _wait(self, limit_s: float) -> int | None:
        deadline = time.monotonic() + limit_s
        while (code := self.code()) is None and time.monotonic() < deadline:
            time.sleep(0.02)
        return code


def _state(pid: int | None) -> str:
    """Return the state of a process: R, S, T (suspended), Z …, or "" if there is none."""
    done = subprocess.run(["ps", "-o", "state=", "-p", str(pid)], capture_output=True, text=True, check=False)
    return done.stdout.strip()[:1]


@dataclass
class InjectedFault:
    """One fault of a daemon or a server."""

    kind: str
    at: float
    pid: int | None = None


@dataclass
class Environment:
    """One run of a scenario."""

    servers: Servers
    figures: Figures
    deployment: Deployment
    bootstrap: str
    topic: str
    n_partitions: int
    receiver: WebhookReceiver
    hooks: tuple[str, ...] = ()
    """Hooks of every daemon."""
    daemons: list[ChaosDaemon] = field(default_factory=list)
    faults: list[InjectedFault] = field(default_factory=list)
    faults_ended_at: float | None = None
    sender: TrafficSender | None = None

    # ------------------------------------------------------------------ set-up

    @classmethod
    @contextlib.contextmanager
    def set_up(
        cls,
        servers: Servers,
        figures: Figures,
        *,
        n_partitions: int,
        database: str = "postgresql",
        nodes: int = 1,
        url: Callable[[str], str] | None = None,
        kafka: dict[str, Any] | None = None,
        hooks: Sequence[str] = (),
        folder: Path | None = None,
        **fleet: Any,
    ) -> Iterator[Environment]:
        """Create topic, deployment with a model, journal and webhook. `url` maps the database's URL to the daemons'."""
        began = time.monotonic()
        broker = servers.kafka(nodes)
        folder = folder or servers.new_folder(figures.scenario)
        topic = f"{folder.name}-{figures.seed}-{os.getpid()}"
        broker.create_topic(topic, n_partitions, retention_ms="-1", segment_bytes=str(64 * 1024 * 1024))
        deployment = Deployment(folder)
        settings: dict[str, Any] = {"group": topic, **(kafka or {})}
        if "session_timeout" in KafkaConfig.model_fields:
            settings.setdefault("session_timeout", f"{SESSION_S}s")
        else:
            hooks = ("short_session", *hooks)
        direct = servers.postgres().url() if database == "postgresql" else "sqlite:///monitor.db"
        receiver = WebhookReceiver(figures.seed)

        def configure(url: str) -> None:
            deployment.configure(broker.bootstrap, topic, url=url, kafka=settings, **fleet)
            # The records are years old. Without `max_age` no notification would be sent.
            channel = f"name = '{notifications.CHANNEL}'\nurl = '{receiver.url}'\nmax_age = 'forever'\n"
            deployment.path.write_text(f"{deployment.path.read_text()}[[notify]]\n{channel}")

        configure(direct)
        if database == "postgresql":
            done = deployment.command("db", "upgrade")
            assert done.returncode == 0, done.stderr
        deployment.install_model()
        if database == "postgresql":
            servers.postgres().execute(journal.postgresql_ddl(), url=direct)
            if url is not None:
                configure(url(direct))
        else:
            journal.install_sqlite(deployment.database)
        hooks = ("short_lease", *hooks)
        env = cls(servers, figures, deployment, broker.bootstrap, topic, n_partitions, receiver, hooks)
        try:
            with receiver:
                yield env
        finally:
            for daemon in env.daemons:
                if daemon.pid is not None:
                    daemon.kill()
            figures.seconds = time.monotonic() - began
            figures.faults.update(fault.kind for fault in env.faults)
        if figures.is_good:
            shutil.rmtree(folder, ignore_errors=True)
        else:
            print(f"  kept: {folder}", file=sys.stderr, flush=True)

    def daemon(self, name: str, hooks: Sequence[str] = ()) -> ChaosDaemon:
        daemon = ChaosDaemon(self, name, hooks)
        self.daemons.append(daemon)
        return daemon

    def start_traffic(self, n_records: int, *, seconds: float) -> TrafficSender:
        """Start to send so many records, over about so many seconds."""
        messages = traffic(self.figures.seed, n_records, self.n_partitions)
        self.sender = TrafficSender(
            self.bootstrap, self.topic, messages, n_records, seconds=seconds, seed=self.figures.seed
        ).start()
        return self.sender

    # ------------------------------------------------------------------ while it runs

    def holders(self) -> list[ChaosDaemon]:
        """Return the daemons that are up and own a partition, according to the database."""
        with contextlib.suppress(MonitorError, OSError):
            owners = {row[0] for row in self.deployment.fetch("SELECT DISTINCT owner FROM source_partition")}
            pids = {int(owner.split(":")[1]) for owner in owners}
            return [daemon for daemon in self.daemons if daemon.is_up and daemon.pid in pids]
        return []

    def record_fault(self, kind: str, daemon: ChaosDaemon | None = None) -> None:
        """Record a fault with its time."""
        self.faults.append(InjectedFault(kind, time.time(), daemon.pid if daemon else None))

    def restart_ended(self) -> None:
        """Report daemons that ended by themselves as problems, and start them again."""
        for daemon in self.daemons:
            if daemon.pid is not None and not daemon.is_suspended and (code := daemon.code()) is not None:
                self.figures.problems.append(f"{daemon.name} ended by itself: exit code {code}\n{daemon.tail()}")
                daemon.pid = None
                if len(self.figures.problems) < 4:
                    daemon.start()

    def records(self) -> int:
        """Return the number of records that the database accounts for. 0 = no answer."""
        with contextlib.suppress(MonitorError, OSError):
            return self.deployment.records()
        return 0

    def wait_for(self, what: str, condition: Callable[[], object], limit_s: float, every_s: float = 0.25) -> bool:
        """Wait for the condition, and restart ended daemons. After the limit, report a problem and return False."""
        deadline = time.monotonic() + limit_s
        while not condition():
            self.restart_ended()
            if time.monotonic() > deadline:
                tails = "\n".join(daemon.tail(6) for daemon in self.daemons)
                self.figures.problems.append(f"not within {limit_s:.0f} s: {what}\n{tails}")
                return False
            time.sleep(every_s)
        return True

    # ------------------------------------------------------------------ the end

    def finish(self) -> None:
        """After the last fault, wait for all records and notifications. Then stop and verify."""
        self.faults_ended_at = time.time()
        sender = self.sender
        assert sender is not None
        sender.finish(CATCH_UP_S, self.restart_ended)
        n_sent = sender.n_acknowledged
        # After a problem the records may never come.
        limit_s = 10.0 if self.figures.problems else CATCH_UP_S
        self.wait_for(f"{n_sent} records accounted for", lambda: self.records() >= n_sent, limit_s, 0.5)
        self.receiver.is_healthy = True
        self.wait_for("all notifications sent", lambda: notifications.is_all_sent(self.deployment.fetch), limit_s, 0.5)
        for daemon in self.daemons:
            if daemon.pid is not None:
                daemon.terminate()
        self.verify()

    def verify(self) -> None:
        """Verify the run, and measure the recovery times."""
        figures = self.figures
        logs = read_back(self.bootstrap, self.topic, self.n_partitions)
        events = [event for daemon in self.daemons for event in daemon.events()]
        faults = [(fault.at, fault.pid) for fault in self.faults if fault.pid is not None]
        verify(figures, self.deployment, logs, events, self.receiver.arrivals, faults)
        figures.vacuous += [f"no {name}" for name in ("notifications", "retries") if not getattr(figures, name)]
        [(first_us, last_us)] = self.deployment.fetch("SELECT MIN(created_us) AS a, MAX(created_us) AS b FROM outbox")
        if last_us is not None and last_us - first_us > 3_500e6:  # no run takes an hour: the writers' clocks differ
            figures.measured["clocks_apart_s"] = round((last_us - first_us) / 1e6)
        if self.sender is not None and sum(map(len, logs.values())) < self.sender.n_acknowledged:
            figures.problems.append(f"the broker lost acknowledged records: {self.sender.n_acknowledged} were sent")
        moves = journal.moves(self.deployment.fetch)
        recoveries = [
            each
            for fault in self.faults
            if (each := recovery(moves, fault) if fault.pid else silence(moves, fault.at)) is not None
        ]
        figures.worst_recovery_s = max(recoveries, default=None)
        if self.faults_ended_at is not None:
            figures.silence_s = silence(moves, self.faults_ended_at)


def recovery(moves: Sequence[journal.Move], fault: InjectedFault) -> float | None:
    """Return the seconds until the last partition of the faulty daemon moved on, under any owner.

    None = it owned no partition, or no record came afterwards. The oracle reports missing records.
    """
    owner = {move.partition: move.owner for move in moves if move.at <= fault.at}
    waits = []
    for where, name in owner.items():
        if name.split(":")[1] == str(fault.pid):
            saves = (move.at for move in moves if move.at > fault.at and move.partition == where and move.is_save)
            waits.append(next(saves, fault.at) - fault.at)
    return max(waits, default=None)


def silence(moves: Sequence[journal.Move], since: float) -> float | None:
    """Return the seconds until every partition committed. None = one had nothing left to read."""
    first: dict[tuple[str, int], float] = {}
    for move in moves:
        if move.is_save and move.at >= since:
            first.setdefault(move.partition, move.at - since)
    return max(first.values()) if len(first) == len({move.partition for move in moves}) else None


def tree_commit() -> str:
    """Return the commit of this tree."""
    stamp = ROOT / ".chaos-commit"
    if stamp.exists():
        return stamp.read_text().strip()
    done = subprocess.run(
        ["git", "-C", str(ROOT), "describe", "--always", "--dirty"], capture_output=True, text=True, check=False
    )
    return done.stdout.strip() or "unknown"


def scratch() -> Path:
    """Create a folder that PostgreSQL, run as `nobody`, may pass through."""
    folder = Path(tempfile.mkdtemp(prefix="monitor-chaos-"))
    folder.chmod(0o755)
    return folder
