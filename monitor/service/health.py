"""Is it alive, is it ready, what has it counted: `/live`, `/ready` and `/metrics`, and the judgement behind them.

Enters: what the event loop tells of itself twice a second (`Health.look`), and words of the daemon about what it is
doing. Leaves: three pages of text, served from threads of their own, so that they answer while the loop stands still.

    /live      200 while the process can still do its work; else 503, and only a restart helps
    /ready     200 while records flow as they should; else 503 with a list of what is missing: wait, or mend that
    /metrics   Prometheus' text format (`metrics.py`)

The law: a page reads facts that were written down before; it asks nobody, waits for nothing and changes nothing.

What the pages show are figures, and the names of topics, fleets and model versions: no readings, no addresses, no error
texts, no secrets. They are plain GETs without cookies or state, so a foreign web page that reaches them through a
visitor's browser (DNS rebinding) learns those names at most; therefore no list of allowed hosts, and nothing but
loopback unless the configuration says so.
"""

from __future__ import annotations

import errno
import io
import json
import socketserver
import threading
import time
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from monitor import logs, metrics
from monitor.errors import CheckpointUnavailable, ConfigError
from monitor.service.watchdog import BLOCKED_S, LoopWatch, Systemd
from monitor.stream.window import NEVER

if TYPE_CHECKING:
    import asyncio
    import socket
    from collections.abc import AsyncIterator, Callable, Iterator, Mapping

    from monitor.config import Config, HttpConfig
    from monitor.errors import MonitorError
    from monitor.kafka.consumer_group import KafkaSource
    from monitor.stream.pipeline import Pipeline
    from monitor.types import Partition

log = logs.get("health")

DEAD_S = 30.0
"""A loop that has not turned for so long is not alive any more: Kafka has given its partitions away."""
DATABASE_S = 10.0
"""Silence of the database after which we are not ready; the daemon writes to it every two seconds."""
IN_HAND_S = 60.0
"""A batch takes this long only when something is stuck."""
NAMES_SHOWN = 20

REQUEST_BYTES = 8192
"""A longer request is refused."""
REQUEST_S = 5.0
"""A request that is not complete by then is dropped, however steadily it drips."""
PATHS = "/live, /ready or /metrics"
TEXT = "text/plain; charset=utf-8"
CONNECTIONS = 16
"""At once; more are closed unheard."""


@dataclass(frozen=True, slots=True)
class Held:
    """A partition that is ours."""

    partition: Partition
    is_rebuilt: bool
    lag: int | None
    """Records; None = the log's end is not known yet."""


@dataclass(frozen=True, slots=True)
class Facts:
    """How the river stood when the loop last turned."""

    is_member: bool = False
    """Whether the group has told us which partitions are ours."""
    assigned: frozenset[Partition] = frozenset()
    """By the group; claimed or not yet."""
    broker_away_since_s: float | None = None
    in_hand_since_s: float | None = None
    waits_for: MonitorError | None = None
    """What keeps the batch in hand."""
    held: tuple[Held, ...] = ()
    unscored: tuple[str, ...] = ()
    """Fleets whose windows have no score."""
    n_assets: Mapping[str, int] = field(default_factory=dict)
    """By fleet."""
    reached_us: Mapping[str, int] = field(default_factory=dict)
    """By fleet, event time of its newest reading."""


class Health:
    """What is known of the daemon, and what follows from it. Written inside the loop, read from any thread."""

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self.doing: str | None = "opening the database"
        """What has to be done before the first record; None = records flow."""
        self.waits_for: MonitorError | None = None
        """What keeps us from that; waiting helps."""
        self.is_draining = False
        self.river: asyncio.Task[None] | None = None
        self.loop: LoopWatch | None = None
        self.facts = Facts()
        self._monotonic = monotonic
        self._told_s = monotonic()
        self._answered_s: float | None = None
        self._look_at: Callable[[], Facts] | None = None
        self._systemd = Systemd()
        self._lock = threading.Lock()

    # ------------------------------------------------------------------ told from inside the loop

    def database_answered(self) -> None:
        """Say that a transaction went through just now."""
        self._answered_s = self._monotonic()

    def flows(self, pipeline: Pipeline, source: KafkaSource, river: asyncio.Task[None]) -> None:
        """Say that records flow from now on, and through what."""
        self.doing, self.river = None, river
        self._look_at = lambda: facts_of(pipeline, source)

    def drains(self) -> None:
        """Say that nothing new is taken."""
        self.is_draining = True
        self._systemd.stopping()

    def look(self, now: float) -> None:
        """Write down how things stand; the loop has turned."""
        if self._look_at is not None:
            self.facts = self._look_at()
        self._told_s = now
        self._systemd.turned(now, self.summary)

    # ------------------------------------------------------------------ the judgement

    def dead(self) -> str | None:
        """Say why only a restart helps; None = alive."""
        silent_s = self.loop.silent_s(self._monotonic()) if self.loop is not None else 0.0
        if silent_s > DEAD_S:
            return f"the event loop has not turned for {silent_s:.0f} s"
        river = self.river
        if river is not None and river.done() and not self.is_draining:
            error = None if river.cancelled() else river.exception()
            return f"the river has ended: {type(error).__name__ if error is not None else 'for no reason'}"
        return None

    def missing(self) -> list[dict[str, Any]]:
        """List what keeps records from flowing as they should: `what`, and `why` in a sentence."""
        now, facts = self._monotonic(), self.facts
        found: dict[str, str] = {}
        if (dead := self.dead()) is not None:
            found["process"] = dead
        elif self.loop is not None and (silent_s := now - self._told_s) > BLOCKED_S:
            found["loop"] = f"the event loop has told nothing for {silent_s:.0f} s; what follows is as old"
        if self.is_draining:
            found["draining"] = "finishing the batch in hand, taking nothing new"
        elif self.doing is not None:
            found["start"] = self.doing
        waits_for = self.waits_for or facts.waits_for
        if isinstance(waits_for, CheckpointUnavailable) and not self.is_draining:
            found["checkpoint"] = waits_for.waiting_for
        if self._answered_s is None:
            found["database"] = "has not answered yet"
        elif (silent_s := now - self._answered_s) > DATABASE_S:
            found["database"] = f"has not answered for {silent_s:.0f} s"
        if self.doing is None and not self.is_draining:
            found |= self._river_misses(facts, now)
        return [{"what": what, "why": why} for what, why in found.items()]

    def _river_misses(self, facts: Facts, now: float) -> dict[str, str]:
        found: dict[str, str] = {}
        if facts.broker_away_since_s is not None:
            found["broker"] = f"has not answered for {now - facts.broker_away_since_s:.0f} s"
        elif not facts.is_member:
            found["group"] = "the consumer group has not said yet which partitions are ours"
        claimed = {held.partition for held in facts.held}
        if unclaimed := sorted(facts.assigned - claimed):
            found["claims"] = f"assigned to us and not claimed yet: {_names(unclaimed)}"
        if behind := [held.partition for held in facts.held if not held.is_rebuilt]:
            found["rebuild"] = f"reading again what unfinished windows need: {_names(behind)}"
        if facts.in_hand_since_s is not None and (age_s := now - facts.in_hand_since_s) > IN_HAND_S:
            found["batch"] = f"the batch in hand was taken {age_s:.0f} s ago and is not saved"
        return found

    def notes(self) -> list[str]:
        """Say what an operator may want to know although nothing is missing."""
        facts, found = self.facts, []
        if facts.is_member and not facts.assigned and self.doing is None:
            found.append("the group gives this daemon no partition: the others have all of them")
        found += [f"fleet {fleet}: no model scores its windows yet" for fleet in facts.unscored]
        return found

    def summary(self) -> str:
        """Say in one line how it does."""
        missing = self.missing()
        if missing:
            return "; ".join(f"{each['what']}: {each['why']}" for each in missing)
        lag = sum(held.lag or 0 for held in self.facts.held)
        return f"{len(self.facts.held)} partitions, lag {lag}"

    # ------------------------------------------------------------------ the pages

    def live_page(self) -> tuple[int, dict[str, Any]]:
        """Answer /live."""
        dead = self.dead()
        lag_s = self.loop.worst_lag_s(self._monotonic()) if self.loop is not None else 0.0
        answer: dict[str, Any] = {"live": dead is None, "loop_lag_s": round(lag_s, 3)}
        return (200, answer) if dead is None else (503, answer | {"why": dead})

    def ready_page(self) -> tuple[int, dict[str, Any]]:
        """Answer /ready."""
        missing = self.missing()
        return 503 if missing else 200, {"ready": not missing, "missing": missing, "notes": self.notes()}

    def metrics_page(self) -> bytes:
        """Answer /metrics: what was counted, and the gauges as of now."""
        with self._lock:  # two scrapes at once must not see each other's half-set gauges
            self._set_gauges()
            page: bytes = generate_latest(metrics.registry)
        return page

    def _set_gauges(self) -> None:
        facts, now = self.facts, self._monotonic()
        metrics.live.set(self.dead() is None)
        metrics.ready.set(not self.missing())
        metrics.loop_lag_seconds.set(self.loop.worst_lag_s(now) if self.loop is not None else 0.0)
        metrics.partitions.set(len(facts.held))
        metrics.partitions_rebuilding.set(sum(not held.is_rebuilt for held in facts.held))
        in_hand = facts.in_hand_since_s
        metrics.batch_in_hand_seconds.set(0.0 if in_hand is None else now - in_hand)
        metrics.lag_records.clear()  # a partition that is another's now has no lag here
        for held in facts.held:
            if held.lag is not None:
                metrics.lag_records.labels(held.partition.topic, str(held.partition.number)).set(held.lag)
        for fleet, n in facts.n_assets.items():
            metrics.assets.labels(fleet).set(n)
        for fleet, reached_us in facts.reached_us.items():
            metrics.watermark_timestamp_seconds.labels(fleet).set(reached_us / 1e6)


def facts_of(pipeline: Pipeline, source: KafkaSource) -> Facts:
    """Read how the river stands. Inside the loop: nothing changes meanwhile."""
    membership = source.membership
    n_assets: dict[str, int] = dict.fromkeys((fleet.name for fleet in pipeline.config.fleets), 0)
    reached_us: dict[str, int] = {}
    held = []
    for partition, state in pipeline.partitions.items():
        end = source.end_offset(partition)
        lag = None if end is None else max(0, end - state.next_offset)
        held.append(Held(partition, state.is_rebuilt, lag))
        for fleet, lane in state.lanes.items():
            n_assets[fleet] += len(lane.assets.names)
            if lane.windower.max_cell != NEVER:
                reached = lane.windower.max_cell * lane.config.interval_us
                reached_us[fleet] = max(reached, reached_us.get(fleet, reached))
    return Facts(
        is_member=membership.is_member,
        assigned=membership.assigned,
        broker_away_since_s=membership.unreachable_since_s,
        in_hand_since_s=pipeline.in_hand_since_s,
        waits_for=pipeline.waits_for,
        held=tuple(held),
        unscored=tuple(sorted(pipeline.unscored)),
        n_assets=n_assets,
        reached_us=reached_us,
    )


def _names(partitions: list[Partition]) -> str:
    shown = ", ".join(map(str, partitions[:NAMES_SHOWN]))
    return shown if len(partitions) <= NAMES_SHOWN else f"{shown} and {len(partitions) - NAMES_SHOWN} more"


@asynccontextmanager
async def watched(config: Config) -> AsyncIterator[Health]:
    """Watch the running loop, and serve the pages if the configuration asks for them. Raises ConfigError."""
    health = Health()
    async with LoopWatch(health.look, session_s=config.kafka.session_timeout.total_seconds()) as health.loop:
        with pages(config.http, health):
            yield health


# ---------------------------------------------------------------- HTTP


@contextmanager
def pages(http: HttpConfig, health: Health) -> Iterator[None]:
    """Serve the pages beside the body. Raises ConfigError where the address cannot be used."""
    if http.address is None:
        yield
        return
    try:
        server = _Server(http.address, health)
    except OSError as error:
        is_taken = error.errno == errno.EADDRINUSE
        why = "is in use, perhaps by another monitor" if is_taken else f"cannot be used ({error.strerror})"
        raise ConfigError(f'http.listen: "{http.listen}" {why}; choose another address, or "" for no pages') from error
    thread = threading.Thread(target=server.serve_forever, args=(0.1,), name="http", daemon=True)
    thread.start()
    log.info("pages", listen=http.listen, paths=["/live", "/ready", "/metrics"])
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Server(ThreadingHTTPServer):
    """A thread for each connection, and not many of them."""

    daemon_threads = True
    request_queue_size = CONNECTIONS

    def __init__(self, address: tuple[str, int], health: Health) -> None:
        self.health = health
        self.slots = threading.BoundedSemaphore(CONNECTIONS)
        if ":" in address[0]:
            import socket  # the one constant

            self.address_family = socket.AF_INET6
        super().__init__(address, _Handler)

    def server_bind(self) -> None:
        """Bind, without the look-up of our own name that HTTPServer does: a broken resolver would hold up the start."""
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = str(self.server_address[0]), int(self.server_address[1])

    def process_request(self, request: Any, client_address: Any) -> None:
        """Answer in a thread of its own, if there is room."""
        if self.slots.acquire(blocking=False):
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Answer, and make room."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self.slots.release()

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ARG002  (the base class's signature)
        """Say what went wrong; that a client left is no news."""
        import sys

        error = sys.exception()
        if not isinstance(error, OSError):
            log.error("page_failed", error=repr(error))


class _Handler(BaseHTTPRequestHandler):
    """One request, one answer, and goodbye."""

    server: _Server
    server_version, sys_version = "monitor", ""

    def setup(self) -> None:
        """Read the whole head before anything is made of it: so size and time have one limit each."""
        super().setup()
        self.rfile = io.BufferedReader(io.BytesIO(_head(self.connection)))

    def do_GET(self) -> None:
        """Answer."""
        health, path = self.server.health, self.path.partition("?")[0]
        if path == "/live":
            self._json(*health.live_page())
        elif path == "/ready":
            self._json(*health.ready_page())
        elif path == "/metrics":
            self._send(200, CONTENT_TYPE_LATEST, health.metrics_page())
        else:
            self.send_error(HTTPStatus.NOT_FOUND)

    do_HEAD = do_GET  # noqa: N815  (the base class looks for this name)

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:  # noqa: ARG002
        """Refuse, in words of ours: the base class would repeat what it was sent."""
        status = HTTPStatus.METHOD_NOT_ALLOWED if code == HTTPStatus.NOT_IMPLEMENTED else HTTPStatus(code)
        self._send(status, TEXT, f"{status.phrase}: send GET or HEAD, for {PATHS}\n".encode())

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  (the base class's name)
        """Say nothing: a probe every second is no news."""

    def _json(self, status: int, body: dict[str, Any]) -> None:
        self._send(status, "application/json", json.dumps(body, ensure_ascii=False).encode() + b"\n")

    def _send(self, status: int, kind: str, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")
        self.send_header("X-Content-Type-Options", "nosniff")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


def _head(connection: socket.socket) -> bytes:
    """Read a request up to its blank line; b"" where it is too long, too slow, or not there."""
    deadline, head = time.monotonic() + REQUEST_S, b""
    with suppress(OSError):
        while b"\r\n\r\n" not in head and b"\n\n" not in head:
            connection.settimeout(max(0.01, deadline - time.monotonic()))
            part = connection.recv(REQUEST_BYTES + 1 - len(head))
            head += part
            if not part or len(head) > REQUEST_BYTES or time.monotonic() > deadline:
                return b""
        connection.settimeout(REQUEST_S)  # for the answer
        return head
    return b""
