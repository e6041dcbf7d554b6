"""The servers a scenario runs on, its site and its daemons; and the end of each run: wait, stop, judge."""

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
from tests.chaos import journal, letters
from tests.chaos.inside import SESSION_S
from tests.chaos.judge import judge
from tests.chaos.nursery import Nursery
from tests.chaos.receiver import Receiver
from tests.chaos.traffic import Pour, traffic
from tests.daemon_process import Site, environment, read_back
from tests.servers import ROOT, KafkaServer, PostgresServer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from tests.chaos.figures import Figures

CATCH_UP_S = 240.0
"""For all records to be accounted for, once everything is healed. Busy small machines are slow."""
STOP_S = 60.0


class Servers:
    """What every run of this process shares; each started when first asked for. Context manager."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._kafka: dict[int, KafkaServer] = {}
        self._postgres: PostgresServer | None = None
        self._stack = contextlib.ExitStack()
        self._n_runs = 0

    def __enter__(self) -> Servers:
        self.nursery = self._stack.enter_context(Nursery(environment()))
        return self

    def __exit__(self, *exc: object) -> None:
        for kafka in self._kafka.values():
            kafka.kill()
        if self._postgres is not None:
            self._postgres.remove()
        self._stack.close()

    @contextlib.contextmanager
    def other_nursery(self, settings: dict[str, str]) -> Iterator[None]:
        """Fork daemons in another environment."""
        usual = self.nursery
        with Nursery(environment() | settings) as self.nursery:
            try:
                yield
            finally:
                self.nursery = usual

    def kafka(self, nodes: int = 1) -> KafkaServer:
        if nodes not in self._kafka:
            server = KafkaServer(self.folder / f"kafka-{nodes}", nodes=nodes)
            self._kafka[nodes] = server
            server.start()
        return self._kafka[nodes]

    def adopt(self, kafka: KafkaServer | None = None, postgres: PostgresServer | None = None) -> None:
        """Use servers that somebody else started and will end."""
        if kafka is not None:
            self.kafka = lambda nodes=1: kafka  # type: ignore[method-assign]
        if postgres is not None:
            self.postgres = lambda: postgres  # type: ignore[method-assign]

    def release_kafka(self, nodes: int) -> None:
        """End a cluster that the other scenarios do not need: it eats memory and processor."""
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


class Daemon:
    """One daemon of a site: it dies, stands still, comes back. Each life is another process."""

    def __init__(self, stage: Stage, name: str, inside: Sequence[str] = ()) -> None:
        self.stage = stage
        self.name = name
        self.inside = tuple(inside)
        self.log = stage.site.folder / f"{name}.log"
        self.pid: int | None = None
        self.lives: list[tuple[int, float]] = []
        """(pid, time of start) of each life."""
        self.is_stopped = False
        self._ours: subprocess.Popen[bytes] | None = None
        """Set when it was started the operator's way."""

    @property
    def is_up(self) -> bool:
        return self.pid is not None and not self.is_stopped

    def start(self, *, as_operator: bool = False) -> None:
        """Start, forked from the nursery or `python -m monitor run`."""
        assert self.pid is None, f"{self.name} still runs"
        arguments = ["run", "--config", str(self.stage.site.path)]
        if as_operator:
            with self.log.open("ab") as log:
                self._ours = subprocess.Popen(
                    [sys.executable, "-m", "monitor", *arguments],
                    stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment(), start_new_session=True,
                )  # fmt: skip
            self.pid = self._ours.pid
        else:
            self._ours = None
            inside = (*self.stage.inside, *self.inside)
            self.pid = self.stage.servers.nursery.start(arguments, self.log, inside)
        self.lives.append((self.pid, time.time()))

    def kill(self) -> None:
        """kill -9. Harmless when it ended by itself."""
        if self.pid is None:
            return
        self._signal(signal.SIGKILL)
        self._wait(STOP_S)
        self.pid, self.is_stopped = None, False

    def stop(self) -> None:
        """SIGSTOP: alive, and deaf."""
        self._signal(signal.SIGSTOP)
        self.is_stopped = True

    def ambush(self, number: signal.Signals, limit_s: float = 4.0) -> bool:
        """Tell it to stand still by itself at a bad moment; say whether it did."""
        self._signal(number)
        deadline = time.monotonic() + limit_s
        while time.monotonic() < deadline and not self.is_stopped:
            self.is_stopped = _state(self.pid) == "T"
            time.sleep(0.01)
        return self.is_stopped

    def go_on(self) -> None:
        """SIGCONT."""
        self._signal(signal.SIGCONT)
        self.is_stopped = False

    def suffer(self, number: signal.Signals) -> None:
        """Send a signal that something of inside.py waits for."""
        self._signal(number)

    def terminate(self) -> float:
        """SIGTERM; return how long it took. Its code must be 0, but on the way up it does not listen yet."""
        self.go_on()
        began = time.monotonic()
        self._signal(signal.SIGTERM)
        code = self._wait(STOP_S)
        if code not in (0, -signal.SIGTERM):
            self.stage.figures.problems.append(
                f"{self.name}: exit code {code} after SIGTERM (None = still there)\n{self.tail()}"
            )
        if code is None:
            self._signal(signal.SIGKILL)
            self._wait(STOP_S)
        self.pid = None
        return time.monotonic() - began

    def code(self) -> int | None:
        """Its exit code; None while it lives."""
        if self.pid is None:
            return None
        return self._ours.poll() if self._ours is not None else self.stage.servers.nursery.poll(self.pid)

    def events(self, name: str | None = None) -> list[dict[str, Any]]:
        """What it said in all of its lives."""
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
    """What the kernel says of a process: R, S, T (stopped), Z …; "" = gone."""
    done = subprocess.run(["ps", "-o", "state=", "-p", str(pid)], capture_output=True, text=True, check=False)
    return done.stdout.strip()[:1]


@dataclass
class Fault:
    """One thing that was done to one daemon, or to a server."""

    kind: str
    at: float
    pid: int | None = None


@dataclass
class Stage:
    """One run of a scenario."""

    servers: Servers
    figures: Figures
    site: Site
    bootstrap: str
    topic: str
    n_partitions: int
    receiver: Receiver
    inside: tuple[str, ...] = ()
    """Of every daemon."""
    daemons: list[Daemon] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    healed_at: float | None = None
    pour: Pour | None = None

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
        inside: Sequence[str] = (),
        folder: Path | None = None,
        **fleet: Any,
    ) -> Iterator[Stage]:
        """A topic, a site with a model, a journal, a webhook. `url`: the database's address → what daemons are told."""
        began = time.monotonic()
        broker = servers.kafka(nodes)
        folder = folder or servers.new_folder(figures.scenario)
        topic = f"{folder.name}-{figures.seed}-{os.getpid()}"
        broker.create_topic(topic, n_partitions, retention_ms="-1", segment_bytes=str(64 * 1024 * 1024))
        site = Site(folder)
        settings: dict[str, Any] = {"group": topic, **(kafka or {})}
        if "session_timeout" in KafkaConfig.model_fields:
            settings.setdefault("session_timeout", f"{SESSION_S}s")
        else:
            inside = ("short_session", *inside)
        direct = servers.postgres().url() if database == "postgresql" else "sqlite:///monitor.db"
        receiver = Receiver(figures.seed)

        def configure(url: str) -> None:
            site.configure(broker.bootstrap, topic, url=url, kafka=settings, **fleet)
            # The records are years old: to everybody else they are history.
            channel = f"name = '{letters.CHANNEL}'\nurl = '{receiver.url}'\nmax_age = 'forever'\n"
            site.path.write_text(f"{site.path.read_text()}[[notify]]\n{channel}")

        configure(direct)
        if database == "postgresql":
            done = site.command("db", "upgrade")
            assert done.returncode == 0, done.stderr
        site.install_model()
        if database == "postgresql":
            servers.postgres().execute(journal.postgresql_ddl(), url=direct)
            if url is not None:
                configure(url(direct))
        else:
            journal.install_sqlite(site.database)
        inside = ("short_lease", *inside)
        stage = cls(servers, figures, site, broker.bootstrap, topic, n_partitions, receiver, inside)
        try:
            with receiver:
                yield stage
        finally:
            for daemon in stage.daemons:
                if daemon.pid is not None:
                    daemon.kill()
            figures.seconds = time.monotonic() - began
            figures.faults.update(fault.kind for fault in stage.faults)
        if figures.is_good:
            shutil.rmtree(folder, ignore_errors=True)
        else:
            print(f"  kept for a look: {folder}", file=sys.stderr, flush=True)

    def daemon(self, name: str, inside: Sequence[str] = ()) -> Daemon:
        daemon = Daemon(self, name, inside)
        self.daemons.append(daemon)
        return daemon

    def begin_pour(self, n_records: int, *, seconds: float) -> Pour:
        """Send that many records over about so many seconds, beside what follows."""
        messages = traffic(self.figures.seed, n_records, self.n_partitions)
        self.pour = Pour(
            self.bootstrap, self.topic, messages, n_records, seconds=seconds, seed=self.figures.seed
        ).start()
        return self.pour

    # ------------------------------------------------------------------ while it runs

    def holders(self) -> list[Daemon]:
        """Those that are up and hold a partition, as the database has it."""
        with contextlib.suppress(MonitorError, OSError):
            owners = {row[0] for row in self.site.fetch("SELECT DISTINCT owner FROM source_partition")}
            pids = {int(owner.split(":")[1]) for owner in owners}
            return [daemon for daemon in self.daemons if daemon.is_up and daemon.pid in pids]
        return []

    def note(self, kind: str, daemon: Daemon | None = None) -> None:
        """Write down a fault."""
        self.faults.append(Fault(kind, time.time(), daemon.pid if daemon else None))

    def look(self) -> None:
        """A daemon that ended by itself is a finding; it is started again."""
        for daemon in self.daemons:
            if daemon.pid is not None and not daemon.is_stopped and (code := daemon.code()) is not None:
                self.figures.problems.append(f"{daemon.name} ended by itself: exit code {code}\n{daemon.tail()}")
                daemon.pid = None
                if len(self.figures.problems) < 4:
                    daemon.start()

    def records(self) -> int:
        """How many records the database accounts for; 0 where it does not answer."""
        with contextlib.suppress(MonitorError, OSError):
            return self.site.records()
        return 0

    def wait_for(self, what: str, condition: Callable[[], object], limit_s: float, every_s: float = 0.25) -> bool:
        """Wait while looking after the daemons; False, and a problem, when it does not come."""
        deadline = time.monotonic() + limit_s
        while not condition():
            self.look()
            if time.monotonic() > deadline:
                tails = "\n".join(daemon.tail(6) for daemon in self.daemons)
                self.figures.problems.append(f"not within {limit_s:.0f} s: {what}\n{tails}")
                return False
            time.sleep(every_s)
        return True

    # ------------------------------------------------------------------ the end

    def finish(self) -> None:
        """All is healed: wait until everything sent is accounted for and told, stop, and judge."""
        self.healed_at = time.time()
        pour = self.pour
        assert pour is not None
        pour.finish(CATCH_UP_S, self.look)
        n_sent = pour.n_acknowledged
        # Where something is wrong already, nothing need be waited for: it may never come.
        limit_s = 10.0 if self.figures.problems else CATCH_UP_S
        self.wait_for(f"{n_sent} records accounted for", lambda: self.records() >= n_sent, limit_s, 0.5)
        self.receiver.is_calm = True
        self.wait_for("all letters sent", lambda: letters.is_all_sent(self.site.fetch), limit_s, 0.5)
        for daemon in self.daemons:
            if daemon.pid is not None:
                daemon.terminate()
        self.judge()

    def judge(self) -> None:
        """Compare everything with everything."""
        figures = self.figures
        logs = read_back(self.bootstrap, self.topic, self.n_partitions)
        events = [event for daemon in self.daemons for event in daemon.events()]
        struck = [(fault.at, fault.pid) for fault in self.faults if fault.pid is not None]
        judge(figures, self.site, logs, events, self.receiver.arrivals, struck)
        figures.vacuous += [f"no {name}" for name in ("letters", "retries") if not getattr(figures, name)]
        [(first_us, last_us)] = self.site.fetch("SELECT MIN(created_us) AS a, MAX(created_us) AS b FROM outbox")
        if last_us is not None and last_us - first_us > 3_500e6:  # no run takes an hour: the clocks that wrote them do
            figures.measured["clocks_apart_s"] = round((last_us - first_us) / 1e6)
        if self.pour is not None and sum(map(len, logs.values())) < self.pour.n_acknowledged:
            figures.problems.append(f"the broker lost acknowledged records: {self.pour.n_acknowledged} were sent")
        moves = journal.moves(self.site.fetch)
        recoveries = [
            each
            for fault in self.faults
            if (each := recovery(moves, fault) if fault.pid else silence(moves, fault.at)) is not None
        ]
        figures.worst_recovery_s = max(recoveries, default=None)
        if self.healed_at is not None:
            figures.silence_s = silence(moves, self.healed_at)


def recovery(moves: Sequence[journal.Move], fault: Fault) -> float | None:
    """Seconds until the last of the partitions that the daemon owned has moved on, in whose hands ever.

    None = it had none, or nothing came any more: what is missing is for the oracle to say.
    """
    owner = {move.partition: move.owner for move in moves if move.at <= fault.at}
    waits = []
    for where, whose in owner.items():
        if whose.split(":")[1] == str(fault.pid):
            saves = (move.at for move in moves if move.at > fault.at and move.partition == where and move.is_save)
            waits.append(next(saves, fault.at) - fault.at)
    return max(waits, default=None)


def silence(moves: Sequence[journal.Move], since: float) -> float | None:
    """Seconds from then until every partition has saved something; None = one never did, all was read before."""
    first: dict[tuple[str, int], float] = {}
    for move in moves:
        if move.is_save and move.at >= since:
            first.setdefault(move.partition, move.at - since)
    return max(first.values()) if len(first) == len({move.partition for move in moves}) else None


def tree_commit() -> str:
    """Which tree this is."""
    stamp = ROOT / ".nemesis-commit"
    if stamp.exists():
        return stamp.read_text().strip()
    done = subprocess.run(
        ["git", "-C", str(ROOT), "describe", "--always", "--dirty"], capture_output=True, text=True, check=False
    )
    return done.stdout.strip() or "unknown"


def scratch() -> Path:
    """A folder that PostgreSQL, run as nobody, may pass through."""
    folder = Path(tempfile.mkdtemp(prefix="monitor-chaos-"))
    folder.chmod(0o755)
    return folder
