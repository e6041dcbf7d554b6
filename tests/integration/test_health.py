"""The pages as a probe sees them, of a real daemon too: during outages, and while its event loop is blocked."""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import replace
from operator import itemgetter
from typing import TYPE_CHECKING, Any

import pytest
from prometheus_client.parser import text_string_to_metric_families
from structlog.testing import capture_logs

from monitor.config import HttpConfig
from monitor.errors import ConfigError
from monitor.kafka.embedded_broker import create_topic
from monitor.service.health import Health, StatusSnapshot
from monitor.service.pages import MAX_CONNECTIONS, pages
from monitor.service.watchdog import Systemd
from monitor.timing import DEFAULT_TIMING
from tests.acceptance.streams import MINUTE_US, plant
from tests.daemon_process import SENSORS, Deployment, partitioned, process_environment, publish
from tests.oracle.log import FleetRule
from tests.servers import free_port

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from monitor.kafka.embedded_broker import EmbeddedBroker
    from monitor.timing import Timing
    from tests.servers import KafkaServer, PostgresServer

RULE = FleetRule("turbines", SENSORS, MINUTE_US, 12)
Answer = tuple[int, dict[str, str], bytes]


def request_page(port: int, path: str, method: str = "GET", limit_s: float = 5.0, host: str = "127.0.0.1") -> Answer:
    connection = http.client.HTTPConnection(host, port, timeout=limit_s)
    try:
        connection.request(method, path)
        answer = connection.getresponse()
        return answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read()
    finally:
        connection.close()


def send_raw(port: int, request: bytes, limit_s: float = 10.0) -> bytes:
    """Send raw bytes; return all that comes back."""
    with socket.create_connection(("127.0.0.1", port), timeout=limit_s) as connection:
        connection.sendall(request)
        answer = b""
        try:
            while part := connection.recv(65536):
                answer += part
        except ConnectionResetError:
            pass
        return answer


# ---------------------------------------------------------------- the server alone


@pytest.fixture
def health() -> Health:
    """The health of a daemon in good order."""
    return healthy()


def healthy(timing: Timing = DEFAULT_TIMING) -> Health:
    pipeline: Any = Future()
    made = Health(timing=timing)
    made.running(pipeline, lambda: StatusSnapshot(is_member=True))
    made.update(time.monotonic())
    made.database_answered()
    return made


@contextmanager
def serving(health: Health, request_limit_s: float = DEFAULT_TIMING.http_request_limit_s) -> Iterator[int]:
    """Serve the pages; yields their port."""
    number = free_port()
    timing = replace(DEFAULT_TIMING, http_request_limit_s=request_limit_s)
    with pages(HttpConfig(listen=f"127.0.0.1:{number}"), health, timing):
        yield number
    assert not [thread for thread in threading.enumerate() if thread.name == "http"]


@pytest.fixture
def port(health: Health) -> Iterator[int]:
    with serving(health) as number:
        yield number


def test_the_three_pages_have_their_content_types(port: int) -> None:
    for path in ("/live", "/ready"):
        status, headers, body = request_page(port, path)
        assert (status, headers["content-type"]) == (200, "application/json")
        assert json.loads(body)[path[1:]] is True
        assert headers["cache-control"] == "no-store"
        assert headers["x-content-type-options"] == "nosniff"
    status, headers, body = request_page(port, "/metrics?x=1")
    assert status == 200
    assert headers["content-type"].startswith("text/plain")
    assert "monitor_records" in {family.name for family in text_string_to_metric_families(body.decode())}
    assert request_page(port, "/")[0] == request_page(port, "/live/../etc")[0] == 404


def test_head_answers_with_the_status_and_no_body(port: int, health: Health) -> None:
    status, headers, body = request_page(port, "/ready", "HEAD")
    assert (status, body) == (200, b"")
    assert int(headers["content-length"]) > 0
    health.draining()
    assert request_page(port, "/ready", "HEAD")[0] == 503


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "TRACE", "CONNECT"])
def test_other_methods_than_get_and_head_are_refused(port: int, method: str) -> None:
    status, _, body = request_page(port, "/ready", method)
    assert status == 405
    assert method.encode() not in body


@pytest.mark.parametrize(
    "request_",
    [
        b"GET /" + b"x" * 9000 + b" HTTP/1.1\r\n\r\n",
        b"GET /live HTTP/1.1\r\n" + b"X-Header: y\r\n" * 1000 + b"\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00",
        b"\r\n\r\n",
        b"GET\r\n\r\n",
        b"GET /live HTTP/9.9\r\n\r\n",
        b"<script>alert(1)</script> / HTTP/1.1\r\n\r\n",
    ],
)
def test_a_malformed_request_gets_no_page_and_harms_no_other(
    health: Health, request_: bytes, capfd: pytest.CaptureFixture[str]
) -> None:
    with serving(health, request_limit_s=0.3) as port:
        answer = send_raw(port, request_)
        assert b'"live"' not in answer
        assert b"<script" not in answer
        assert request_page(port, "/live")[0] == 200
    assert "Traceback" not in "".join(capfd.readouterr())


def test_a_request_that_drips_is_dropped_after_its_time(health: Health) -> None:
    with (
        serving(health, request_limit_s=0.6) as port,
        socket.create_connection(("127.0.0.1", port), timeout=10) as connection,
    ):
        began = time.monotonic()
        gone_s = None
        while gone_s is None and time.monotonic() - began < 8:
            try:
                connection.sendall(b"G")
                connection.settimeout(0.1)
                if connection.recv(1) == b"":
                    gone_s = time.monotonic() - began
            except TimeoutError:
                continue
            except OSError:
                gone_s = time.monotonic() - began
    assert gone_s is not None, "it may drip for ever"
    assert 0.5 < gone_s < 5


def test_silent_connections_do_not_keep_a_probe_out_for_long(health: Health) -> None:
    with serving(health, request_limit_s=0.5) as port:
        idle = [socket.create_connection(("127.0.0.1", port), timeout=5) for _ in range(3 * MAX_CONNECTIONS)]
        try:
            deadline = time.monotonic() + 10
            while True:
                try:
                    assert request_page(port, "/live")[0] == 200
                    break
                except (OSError, http.client.HTTPException):
                    assert time.monotonic() < deadline, "they keep every probe out"
                    time.sleep(0.1)
            assert threading.active_count() < 2 * MAX_CONNECTIONS
        finally:
            for each in idle:
                each.close()


@pytest.mark.parametrize("begin", [b"", b"GET /live HTTP/1.0\r\nX: "])
def test_slow_connections_never_keep_a_probe_out(health: Health, begin: bytes) -> None:
    """However often they are renewed, and although they come from the probe's own address."""
    with serving(health, request_limit_s=30.0) as port:
        slow: list[socket.socket] = []
        for _ in range(5):
            for _ in range(MAX_CONNECTIONS + 2):
                slow.append(socket.create_connection(("127.0.0.1", port), timeout=5))
                slow[-1].sendall(begin)
            assert request_page(port, "/live")[0] == 200
        for each in slow:
            each.close()


def test_a_client_that_does_not_read_is_dropped_after_its_time(health: Health, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "metrics_page", lambda: ("text/plain", bytes(64 << 20)))
    with (
        serving(health, request_limit_s=0.5) as port,
        socket.create_connection(("127.0.0.1", port), timeout=10) as connection,
    ):
        connection.sendall(b"GET /metrics HTTP/1.0\r\n\r\n")
        time.sleep(1.0)
        received = 0
        with suppress(ConnectionResetError):
            while part := connection.recv(1 << 20):
                received += len(part)
    assert received < 64 << 20, "the server still sends"


def test_a_page_with_a_defect_answers_500_and_is_logged(
    port: int, health: Health, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(health, "ready_page", lambda: 1 / 0)
    with capture_logs() as logged:
        status, _, body = request_page(port, "/ready")
    assert status == 500
    assert b"division" not in body
    assert [(line["event"], line["error"]) for line in logged] == [
        ("page_failed", "ZeroDivisionError('division by zero')")
    ]


def test_many_probes_at_once_are_answered(port: int) -> None:
    with ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(lambda _: request_page(port, "/metrics")[0], range(80)))
    assert answers == [200] * 80


def test_a_port_in_use_is_a_config_error(port: int, health: Health) -> None:
    with (
        pytest.raises(ConfigError, match=rf'http\.listen: "127\.0\.0\.1:{port}" is in use.*another address'),
        pages(HttpConfig(listen=f"127.0.0.1:{port}"), health),
    ):
        pass


def test_without_an_address_nothing_listens(health: Health) -> None:
    before = threading.active_count()
    with pages(HttpConfig(), health):
        assert threading.active_count() == before


def test_ipv6_addresses_are_served(health: Health) -> None:
    number = free_port()
    with pages(HttpConfig(listen=f"[::1]:{number}"), health):
        assert request_page(number, "/live", host="::1")[0] == 200


async def test_the_pages_answer_while_the_loop_is_blocked() -> None:
    health = healthy(replace(DEFAULT_TIMING, loop_dead_after_s=0.7))
    with serving(health) as port:
        async with health.watch:
            answers = []

            def probe() -> None:
                for _ in range(15):
                    answers.append(request_page(port, "/live")[0])
                    time.sleep(0.1)

            thread = threading.Thread(target=probe)
            thread.start()
            time.sleep(1.6)  # noqa: ASYNC251  it blocks the loop
            thread.join()
            assert answers[0] == 200
            assert answers[-1] == 503
            health.watch.record_turn(time.monotonic())
            assert request_page(port, "/live")[0] == 200


# ---------------------------------------------------------------- systemd


@pytest.fixture
def manager(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], list[str]]]:
    """systemd's end of the socket. A call returns the lines received since the last one."""
    path = tmp_path / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(str(path))
        listening.setblocking(False)
        monkeypatch.setenv("NOTIFY_SOCKET", str(path))
        monkeypatch.setenv("WATCHDOG_USEC", "60000000")

        def received() -> list[str]:
            lines: list[str] = []
            while True:
                try:
                    lines += listening.recv(4096).decode().splitlines()
                except BlockingIOError:
                    return lines

        yield received


def test_systemd_gets_ready_once_and_then_the_watchdog_signal(manager: Callable[[], list[str]]) -> None:
    systemd = Systemd()
    systemd.loop_turned(100.0, lambda: "starting")
    assert manager() == ["READY=1", "WATCHDOG=1", "STATUS=starting"]
    systemd.loop_turned(100.5, lambda: "starting")
    assert manager() == [], "a quarter of its limit is often enough"
    systemd.loop_turned(115.0, lambda: "starting")
    assert manager() == ["WATCHDOG=1"]
    systemd.loop_turned(130.0, lambda: "4 partitions, lag 0")
    assert manager() == ["WATCHDOG=1", "STATUS=4 partitions, lag 0"]
    systemd.stopping()
    assert manager() == ["STOPPING=1"]


def test_a_child_process_inherits_no_address_of_systemd(
    manager: Callable[[], list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    Systemd()
    assert "NOTIFY_SOCKET" not in os.environ
    assert "WATCHDOG_USEC" not in os.environ


def test_without_systemd_no_status_is_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)

    def status() -> str:
        raise AssertionError("it was computed")

    Systemd().loop_turned(1.0, status)
    Systemd().stopping()


def test_a_stopped_systemd_is_ignored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "gone"))
    Systemd().loop_turned(1.0, lambda: "fine")


# ---------------------------------------------------------------- a real daemon


class Probed(Deployment):
    """An installation that serves the pages."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.port = free_port()

    def serve(self, listen: str | None = None) -> None:
        """Let the daemon serve the pages."""
        self.path.write_text(f'{self.path.read_text()}[http]\nlisten = "{listen or f"127.0.0.1:{self.port}"}"\n')

    def status(self, path: str) -> int:
        """Return the status that a probe gets; 0 = no answer."""
        try:
            return request_page(self.port, path)[0]
        except OSError:
            return 0

    def missing(self) -> set[str]:
        """Return the words of /ready's `missing`."""
        status, _, body = request_page(self.port, "/ready")
        answer = json.loads(body)
        assert status == (503 if answer["missing"] else 200)
        return {each["what"] for each in answer["missing"]}

    def wait_ready(self, limit_s: float = 60.0) -> None:
        """Wait until /ready answers 200."""
        self.wait("/ready", lambda: self.status("/ready") == 200, limit_s)

    def samples(self) -> dict[tuple[str, ...], float]:
        """Read /metrics: (name, label values …) → value."""
        text = request_page(self.port, "/metrics")[2].decode()
        return {
            (sample.name, *(sample.labels[key] for key in sorted(sample.labels))): sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
        }


@pytest.fixture
def deployment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Probed]:
    deployment = Probed(tmp_path_factory.mktemp("deployment"))
    yield deployment
    deployment.kill()


def test_a_daemon_in_outages_is_live_and_names_what_is_missing(
    kafka: KafkaServer, postgres: PostgresServer, deployment: Probed
) -> None:
    topic = "health-outages"
    kafka.create_topic(topic, 2, retention_ms="-1")
    messages = list(partitioned(plant(8, 6, 3_000, RULE), 2))
    publish(kafka.bootstrap, topic, messages)
    deployment.configure(kafka.bootstrap, topic, url=postgres.url())
    deployment.serve()
    assert deployment.command("db", "upgrade").returncode == 0
    deployment.install_model()

    postgres.stop()
    try:
        deployment.start()
        deployment.wait("the pages", lambda: deployment.status("/live") == 200)
        assert deployment.missing() == {"start", "database"}, "before: it waits for the database"
    finally:
        postgres.start()
    deployment.wait_ready()
    deployment.wait_records(len(messages))

    postgres.stop("immediate")
    try:
        deployment.wait("the database to be missed", lambda: "database" in deployment.missing(), 30)
        assert deployment.status("/live") == 200, "a restart would not help"
        assert deployment.samples()["monitor_ready",] == 0
    finally:
        postgres.start()
    deployment.wait_ready()

    kafka.kill()
    try:
        deployment.wait("the broker to be missed", lambda: "broker" in deployment.missing(), 60)
        assert deployment.status("/live") == 200
    finally:
        kafka.start()
    deployment.wait_ready(90)
    assert len(deployment.events("watching")) == 1, "the daemon was never restarted"

    samples = deployment.samples()
    with deployment.reader() as reader:
        rows = reader.partitions()
    for fate in ("accepted", "quarantined", "late", "duplicate"):
        assert samples["monitor_records_total", fate] == sum(row["counters"][fate] for row in rows)
    assert samples["monitor_readings_total",] == sum(row["counters"]["readings"] for row in rows)
    assert samples["monitor_windows_total", "scored"] == sum(row["counters"]["scored"] for row in rows) > 1_000
    assert samples["monitor_partitions",] == 2
    assert samples["monitor_lag_records", "0", topic] == samples["monitor_lag_records", "1", topic] == 0
    assert samples["monitor_save_seconds_count",] > 0
    assert samples["monitor_score_seconds_count",] > 0
    assert samples["process_resident_memory_bytes",] > 50e6
    deployment.terminate()
    assert deployment.status("/live") == 0


def test_a_second_daemon_without_a_partition_is_ready_with_a_note(
    kafka: KafkaServer, postgres: PostgresServer, deployment: Probed, tmp_path: Path
) -> None:
    kafka.create_topic("one-partition", 1, retention_ms="-1")
    second = Probed(tmp_path / "second")
    second.port = free_port(2) + 1  # the first of the two is the first daemon's
    url = postgres.url()
    for each in (deployment, second):
        each.configure(kafka.bootstrap, "one-partition", url=url)
        each.serve()
    assert deployment.command("db", "upgrade").returncode == 0
    deployment.install_model()
    deployment.start()
    deployment.wait_ready()
    second.start()
    try:
        second.wait_ready()
        both = (deployment, second)

        def states() -> list[tuple[int, list[str], float]]:
            pages = [request_page(each.port, "/ready") for each in both]
            notes = [json.loads(page[2])["notes"] for page in pages]
            held = [each.samples()["monitor_partitions",] for each in both]
            return sorted(zip((page[0] for page in pages), notes, held, strict=True), key=itemgetter(2))

        # The group may move the partition from one daemon to the other.
        note = "the group gives this daemon no partition: the others have all of them"
        second.wait("/ready", lambda: states() == [(200, [note], 0), (200, [], 1)], 60)
        second.terminate()
    finally:
        second.kill()


BLOCKABLE = """
import asyncio, signal, sys, time
from monitor import logs
from monitor.config import load
from monitor.service import daemon
from monitor.timing import Timing

async def main():
    asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, blocks_the_loop)
    await daemon.run(load(sys.argv[1]), timing=Timing(loop_dead_after_s=4.0))

def blocks_the_loop():
    time.sleep(9)

logs.configure("info", "json")
asyncio.run(main())
"""


def test_a_blocked_loop_is_not_live_and_then_live_again(embedded_broker: EmbeddedBroker, deployment: Probed) -> None:
    asyncio.run(create_topic(embedded_broker.bootstrap, "blocked", 1))
    deployment.configure(embedded_broker.bootstrap, "blocked")
    deployment.serve()
    deployment.install_model()
    with deployment.log_path.open("ab") as log:
        deployment._process = subprocess.Popen(
            [sys.executable, "-c", BLOCKABLE, str(deployment.path)], stdout=log, stderr=log, env=process_environment()
        )
    deployment.wait_ready()
    os.kill(deployment.pid, signal.SIGUSR1)
    seen: list[tuple[int, set[str]]] = []

    def is_over() -> bool:
        seen.append((deployment.status("/live"), deployment.missing()))
        return bool(deployment.events("loop_free"))

    deployment.wait("the end of the block", is_over, 30)
    assert (503, {"process"}) in seen
    assert (200, set[str]()) in seen
    deployment.wait_ready()
    (blocked,) = deployment.events("loop_blocked")
    (free,) = deployment.events("loop_free")
    assert any("blocks_the_loop" in place for place in blocked["stack"])
    assert 8.5 < free["after_s"] < 15
    samples = deployment.samples()
    assert samples["monitor_loop_blocked_total",] == 1
    assert 8 < samples["monitor_loop_lag_seconds",] < 15

    # A process without CPU is not a blocked loop: no stack is logged.
    os.kill(deployment.pid, signal.SIGSTOP)
    time.sleep(7)
    os.kill(deployment.pid, signal.SIGCONT)
    assert deployment.wait_event("process_stood_still", limit_s=10)["seconds"] > 6
    deployment.wait_ready()
    assert len(deployment.events("loop_blocked")) == 1


def test_a_taken_port_ends_the_daemon_with_exit_code_2(deployment: Probed) -> None:
    deployment.configure("127.0.0.1:1", "nowhere")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        deployment.serve(f"127.0.0.1:{taken.getsockname()[1]}")
        refused = deployment.command("run")
    assert refused.returncode == 2, refused.stderr
    assert "http.listen" in refused.stderr
    assert "is in use" in refused.stderr
    assert "Traceback" not in refused.stderr
