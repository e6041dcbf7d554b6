"""Webhooks behind real connections: they answer, fail, hang, drip and redirect. Delivery processes are killed."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner
from sqlalchemy import text

from monitor.cli import main
from monitor.config import NotifyConfig
from monitor.notify import http_post
from monitor.notify.failure import Failure
from monitor.notify.webhook import Webhook
from monitor.store import schema
from monitor.store.engine import AsyncStore
from monitor.timing import DEFAULT_TIMING
from tests.acceptance.streams import MINUTE_US, plant
from tests.daemon_process import SENSORS, Deployment, partitioned, process_environment, publish
from tests.oracle.log import FleetRule
from tests.servers import free_port
from tests.webhook_server import (
    DRIPS,
    DRIPS_A_BODY,
    DRIPS_HEADERS,
    HANGS,
    SECRET_PATH,
    WebhookServer,
    answer_with,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from click.testing import Result

    from tests.servers import KafkaServer, PostgresServer
    from tests.webhook_server import Answer

KEY = "duty:turbines/R1:1:firing"
BODY = b'{"key": "duty:turbines/R1:1:firing"}'


@pytest.fixture
def hook() -> Iterator[WebhookServer]:
    made = WebhookServer()
    yield made
    made.close()


def webhook_to(url: str, limit_s: float = DEFAULT_TIMING.webhook_limit_s, **settings: Any) -> Webhook:
    config = NotifyConfig.model_validate({"url": url, "name": "duty", **settings})
    return Webhook(config, replace(DEFAULT_TIMING, webhook_limit_s=limit_s))


async def sent(hook: WebhookServer, limit_s: float = DEFAULT_TIMING.webhook_limit_s, **settings: Any) -> Failure | None:
    return await webhook_to(hook.url(), limit_s, **settings).send(KEY, BODY)


async def hook_has(hook: WebhookServer, n: int) -> None:
    while len(hook.requests) < n:  # noqa: ASYNC110 (another thread appends)
        await asyncio.sleep(0.01)


SHORT_LIMIT_S = 0.5
TIMED_OUT = Failure("no answer within 0.5 s")


# ---------------------------------------------------------------- the request


async def test_a_notification_is_a_json_post_with_its_key(hook: WebhookServer) -> None:
    assert await sent(hook) is None
    [request] = hook.requests
    assert request.line == f"POST {SECRET_PATH} HTTP/1.1"
    assert request.body == BODY
    assert request.headers["host"] == f"127.0.0.1:{hook.port}"
    assert request.headers["content-type"] == "application/json"
    assert request.headers["idempotency-key"] == KEY
    assert "authorization" not in request.headers


async def test_the_token_is_sent_as_bearer(hook: WebhookServer) -> None:
    assert await sent(hook, token="hunter3") is None
    assert hook.requests[0].headers["authorization"] == "Bearer hunter3"


async def test_proxies_of_the_environment_are_not_used(hook: WebhookServer, monkeypatch: pytest.MonkeyPatch) -> None:
    proxy = WebhookServer()
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{proxy.port}")
    assert await sent(hook) is None
    assert (len(hook.requests), proxy.n_connections) == (1, 0)
    proxy.close()


# ---------------------------------------------------------------- the answer


@pytest.mark.parametrize("status", [200, 201, 202, 204])
async def test_2xx_means_delivered(hook: WebhookServer, status: int) -> None:
    hook.answers.append(answer_with(status))
    assert await sent(hook) is None


@pytest.mark.parametrize("status", [400, 401, 403, 404, 410, 413, 422])
async def test_4xx_is_a_refusal(hook: WebhookServer, status: int) -> None:
    hook.answers.append(answer_with(status, b"no such channel"))
    assert await sent(hook) == Failure(f"HTTP {status}: no such channel", is_refusal=True)


@pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503, 504])
async def test_other_failure_codes_are_retriable(hook: WebhookServer, status: int) -> None:
    hook.answers.append(answer_with(status, Retry_After="17"))
    assert await sent(hook) == Failure(f"HTTP {status}", is_refusal=False, retry_after_s=17.0)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_a_redirect_is_not_followed(hook: WebhookServer, status: int) -> None:
    elsewhere = WebhookServer()
    hook.answers.append(answer_with(status, Location=elsewhere.url()))
    failure = await sent(hook)
    assert failure is not None
    assert failure.is_refusal
    assert failure.reason == f"HTTP {status}: redirects are not followed; correct the url"
    assert elsewhere.n_connections == 0
    elsewhere.close()


async def test_retry_after_may_be_a_date(hook: WebhookServer) -> None:
    hook.answers.append(
        answer_with(503, Retry_After=format_datetime(datetime.now(UTC) + timedelta(seconds=90), usegmt=True))
    )
    failure = await sent(hook)
    assert failure is not None
    assert failure.retry_after_s is not None
    assert 80 < failure.retry_after_s <= 90


@pytest.mark.parametrize(("wait", "expected"), [("soon", None), ("-5", None), ("9" * 400, 86_400.0), ("٣", 3.0)])
async def test_unusual_retry_after_values_are_harmless(hook: WebhookServer, wait: str, expected: float | None) -> None:
    hook.answers.append(answer_with(503, Retry_After=wait))
    failure = await sent(hook)
    assert failure is not None
    assert failure.reason == "HTTP 503"
    if wait != "٣":  # not ASCII: either reading is acceptable
        assert failure.retry_after_s == expected


async def test_a_reason_contains_no_secret(hook: WebhookServer) -> None:
    echo = f"you sent {SECRET_PATH} with hunter3\x1b[31m\r\n".encode()
    hook.answers.append(answer_with(400, echo))
    failure = await sent(hook, token="hunter3")
    assert failure is not None
    assert failure.reason == "HTTP 400: you sent … with … [31m"


async def test_no_log_line_contains_a_secret(hook: WebhookServer, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    hook.answers.extend([answer_with(204), answer_with(302, Location=f"http://elsewhere.example{SECRET_PATH}")])
    assert await sent(hook, token="hunter3") is None
    assert await sent(hook, token="hunter3") is not None
    assert "hunter" not in caplog.text


async def test_a_long_answer_is_cut_short(hook: WebhookServer) -> None:
    hook.answers.append(answer_with(500, b"x" * 50_000_000))
    failure = await sent(hook)
    assert failure == Failure("HTTP 500: " + "x" * http_post.QUOTED_CHARACTERS)


# ---------------------------------------------------------------- no valid answer


@pytest.mark.parametrize("answer", [HANGS, DRIPS, DRIPS_A_BODY, DRIPS_HEADERS], ids=["hangs", "line", "body", "many"])
async def test_a_request_to_a_hanging_receiver_ends_in_time(hook: WebhookServer, answer: Answer) -> None:
    hook.answers.append(answer)
    began = time.monotonic()
    assert await sent(hook, limit_s=SHORT_LIMIT_S) == TIMED_OUT
    assert time.monotonic() - began < 1.0
    hook.expect_closed(0.3)


async def test_a_cancelled_send_ends_at_once(hook: WebhookServer) -> None:
    hook.answers.append(HANGS)
    task = asyncio.create_task(sent(hook))
    await hook_has(hook, 1)
    began = time.monotonic()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert time.monotonic() - began < 0.2
    hook.expect_closed(0.2)


@pytest.mark.parametrize(
    "answer",
    [lambda _: None, lambda c: c.sendall(b"\x00\xff nonsense\r\n\r\n"), lambda c: c.sendall(b"HTTP/1.1 2")],
    ids=["closes", "garbage", "half a line"],
)
async def test_an_invalid_answer_is_a_retriable_failure(hook: WebhookServer, answer: Answer) -> None:
    hook.answers.append(answer)
    failure = await sent(hook)
    assert failure is not None
    assert not failure.is_refusal


async def test_a_refused_connection_is_a_retriable_failure() -> None:
    failure = await webhook_to(f"http://127.0.0.1:{free_port()}/").send(KEY, BODY)
    assert failure == Failure("Connection refused")


# ---------------------------------------------------------------- the address


@contextmanager
def resolving(monkeypatch: pytest.MonkeyPatch, *addresses: str) -> Iterator[list[Any]]:
    """Let every name resolve to these addresses; yield the addresses of the connections that are made."""
    connected: list[Any] = []
    real = socket.socket.connect

    def getaddrinfo(_host: str, port: int, **_: Any) -> list[Any]:
        families = [socket.AF_INET6 if ":" in address else socket.AF_INET for address in addresses]
        return [
            (family, socket.SOCK_STREAM, 6, "", (address, port))
            for family, address in zip(families, addresses, strict=True)
        ]

    def connect(self: socket.socket, address: Any) -> None:
        connected.append(address[0])
        real(self, address)

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    monkeypatch.setattr(socket.socket, "connect", connect)
    yield connected
    monkeypatch.undo()


@pytest.mark.parametrize(
    "address", ["169.254.169.254", "::ffff:169.254.169.254", "fe80::1", "fd00:ec2::254", "0.0.0.0"]
)
@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_a_name_of_a_metadata_service_is_forbidden(
    monkeypatch: pytest.MonkeyPatch, address: str, scheme: str
) -> None:
    with resolving(monkeypatch, address) as connected:
        failure = await webhook_to(f"{scheme}://innocent.example/x", allow_http=True).send(KEY, BODY)
    assert failure is not None
    assert failure.is_refusal
    assert failure.reason.startswith(f"innocent.example resolves to {address}, which is")
    assert connected == []


async def test_a_metadata_address_in_any_spelling_is_forbidden() -> None:
    for host in ("0xa9fea9fe", "2852039166", "169.254.43518", "[::ffff:a9fe:a9fe]"):
        failure = await webhook_to(f"http://{host}/x", allow_http=True).send(KEY, BODY)
        assert failure is not None
        assert "link-local" in failure.reason, host


async def test_a_host_name_is_resolved_only_once(hook: WebhookServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """DNS rebinding: the name's second answer would be another address."""
    with resolving(monkeypatch, "127.0.0.1") as connected:
        answers = [socket.getaddrinfo("hooks.example", hook.port)]
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: answers.pop())
        failure = await webhook_to(hook.url(host="hooks.example"), allow_http=True).send(KEY, BODY)
    assert failure is None
    assert connected == ["127.0.0.1"]


async def test_http_to_another_machine_needs_allow_http(monkeypatch: pytest.MonkeyPatch) -> None:
    with resolving(monkeypatch, "192.0.2.1") as connected:
        failure = await webhook_to("http://localhost/x").send(KEY, BODY)
    assert failure is not None
    assert failure.is_refusal
    assert "set allow_http = true" in failure.reason
    assert connected == []


async def test_forbidden_and_unreachable_addresses_are_skipped(
    hook: WebhookServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    with resolving(monkeypatch, "169.254.169.254", "127.0.0.2", "127.0.0.1") as connected:
        failure = await webhook_to(hook.url(host="hooks.example"), allow_http=True).send(KEY, BODY)
    assert failure is None
    assert connected == ["127.0.0.2", "127.0.0.1"]
    assert hook.requests[0].headers["host"] == f"hooks.example:{hook.port}"


async def test_a_slow_name_resolution_ends_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    let_go = threading.Event()

    def getaddrinfo(*_: Any, **__: Any) -> list[Any]:
        let_go.wait(10)
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    began = time.monotonic()
    assert await webhook_to("https://slow.example/x", limit_s=SHORT_LIMIT_S).send(KEY, BODY) == TIMED_OUT
    assert time.monotonic() - began < 1.0
    let_go.set()


async def test_an_invalid_host_name_is_a_failure() -> None:
    failure = await webhook_to("https://a..b/x").send(KEY, BODY)
    assert failure is not None


# ---------------------------------------------------------------- TLS


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A self-signed certificate for localhost."""
    path = tmp_path_factory.mktemp("tls") / "localhost.pem"
    made = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    made += ["-days", "2", "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
    subprocess.run([*made, "-keyout", f"{path}.key", "-out", path], check=True, capture_output=True)
    return path


@pytest.fixture
def secure(certificate: Path) -> Iterator[WebhookServer]:
    import ssl

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, f"{certificate}.key")
    made = WebhookServer(context)
    yield made
    made.close()


async def test_a_trusted_certificate_is_accepted(
    secure: WebhookServer, certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    assert await webhook_to(secure.url("https", "localhost")).send(KEY, BODY) is None
    assert secure.requests[0].body == BODY
    assert secure.requests[0].headers["host"] == f"localhost:{secure.port}"


@pytest.mark.parametrize(
    ("is_trusted", "host", "why"), [(False, "localhost", "self-signed"), (True, "127.0.0.1", "IP address mismatch")]
)
async def test_an_untrusted_certificate_is_refused(
    secure: WebhookServer, certificate: Path, monkeypatch: pytest.MonkeyPatch, is_trusted: bool, host: str, why: str
) -> None:
    if is_trusted:
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    failure = await webhook_to(secure.url("https", host), token="hunter3").send(KEY, BODY)
    assert failure is not None
    assert failure.is_refusal
    assert failure.reason.startswith("the certificate is not trusted: ")
    assert why in failure.reason
    assert secure.requests == []


async def test_a_hanging_tls_handshake_ends_in_time() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"https://localhost:{server.getsockname()[1]}/"
        began = time.monotonic()
        assert await webhook_to(url, limit_s=SHORT_LIMIT_S).send(KEY, BODY) == TIMED_OUT
        assert time.monotonic() - began < 1.0
        connection, _ = server.accept()
        connection.settimeout(0.3)
        with connection, suppress(ConnectionResetError):
            while connection.recv(65_536):  # the ClientHello, then the end
                pass


async def test_https_to_an_http_server_is_a_failure(hook: WebhookServer) -> None:
    hook.default = answer_with(400)
    failure = await webhook_to(hook.url("https")).send(KEY, BODY)
    assert failure is not None
    assert hook.requests == []


# ---------------------------------------------------------------- monitor notify test


def test_notify_test_tries_the_channels(hook: WebhookServer, tmp_path: Path) -> None:
    other = WebhookServer()
    other.default = answer_with(403, b"no")
    file = tmp_path / "monitor.toml"
    file.write_text(
        f'kafka = {{bootstrap = "b:9092", topics = ["t"]}}\n[[fleet]]\nname = "turbines"\ninterval = "10m"\n'
        f'[[notify]]\nname = "duty"\nurl = "{hook.url()}"\n[[notify]]\nname = "boss"\nurl = "{other.url()}"\n'
    )

    def run(*arguments: str) -> Result:
        return CliRunner().invoke(main, ["notify", "test", *arguments, "-c", str(file)])

    done = run("duty")
    assert done.exit_code == 0
    assert f"✓ duty http://127.0.0.1:{hook.port}: accepted in" in done.stdout
    [request] = hook.requests
    document = json.loads(request.body)
    assert (document["step"], document["key"]) == ("test", request.headers["idempotency-key"])
    assert "test" in document["text"]
    done = run()
    assert done.exit_code == 1
    assert f"✗ boss http://127.0.0.1:{other.port}: HTTP 403: no" in done.stdout
    assert "hunter2" not in done.stdout
    [duty, boss] = json.loads(run("--json").stdout)
    assert (duty["name"], duty["arrived"], duty["reason"]) == ("duty", True, None)
    assert (boss["name"], boss["arrived"], boss["reason"]) == ("boss", False, "HTTP 403: no")
    done = run("nobody")
    assert done.exit_code == 2
    assert "has no channel nobody; its channels are duty, boss." in done.stderr
    file.write_text(file.read_text().partition("[[notify]]")[0])
    assert run().exit_code == 2
    other.close()


# ---------------------------------------------------------------- killed and suspended senders

SENDER = """
import asyncio, sys
from monitor import logs
from monitor.clock import SystemClock
from monitor.config import NotifyConfig
from monitor.store.lease_renewal import Lease
from monitor.notify.deliver import Delivery
from monitor.notify.webhook import Webhook
from monitor.store import outbox
from monitor.store.engine import AsyncStore

async def main(database, url, owner="me"):
    logs.configure("info", "json")
    async with AsyncStore(database, owner=True) as store:
        clock = SystemClock()
        webhook = Webhook(NotifyConfig(url=url, name="duty"))
        await Delivery(store, Lease(store, outbox.LEASE, owner, clock), [webhook], clock).loop()

asyncio.run(main(*sys.argv[1:]))
"""


def keys_of_alerts(n: int) -> list[str]:
    return [f"duty:turbines/R{i}:1:firing" for i in range(n)]


async def enqueue(url: str, keys: list[str]) -> None:
    columns = "dedup_key, channel, body, created_us, next_try_us"
    sql = f"INSERT INTO outbox ({columns}) VALUES (:key, 'duty', '{{}}', :now_us, 0)"
    now_us = time.time_ns() // 1000
    async with AsyncStore(url, owner=True) as store:
        rows = [{"key": key, "now_us": now_us} for key in keys]
        await store.run(lambda connection: connection.execute(text(sql), rows))


async def end_leases(url: str) -> None:
    async with AsyncStore(url, owner=True) as store:
        await store.run(lambda connection: connection.execute(text("UPDATE lease SET until_us = 0")))


async def rows_of(url: str) -> dict[str, Any]:
    async with AsyncStore(url) as store:
        found = await store.read(lambda connection: list(connection.execute(text("SELECT * FROM outbox"))))
    return {row.dedup_key: row for row in found}


@pytest.mark.timeout(180)
def test_a_killed_sender_repeats_only_unknown_outcomes(hook: WebhookServer, tmp_path: Path) -> None:
    """The process is killed inside a request: before the answer, or right after it."""
    database, keys = f"sqlite:///{tmp_path}/monitor.db", keys_of_alerts(12)
    asyncio.run(enqueue(database, keys))
    process: subprocess.Popen[bytes] | None = None

    def kill_before_answer(_: socket.socket) -> None:
        assert process is not None
        os.kill(process.pid, signal.SIGKILL)

    def kill_after_answer(connection: socket.socket) -> None:
        answer_with(204)(connection)
        kill_before_answer(connection)

    n_kills = 0
    for answer in (kill_before_answer, kill_after_answer, kill_before_answer, kill_after_answer, None):
        asyncio.run(end_leases(database))  # else the next process waits 15 s for it
        if answer:
            hook.answers.extend([answer_with(204), answer_with(204), answer])
        with (tmp_path / "log").open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-c", SENDER, database, hook.url()], stderr=log, env=process_environment()
            )
        if answer:
            assert process.wait(60) == -signal.SIGKILL
            n_kills += 1
        else:
            while not all(row.delivered_us for row in asyncio.run(rows_of(database)).values()):
                assert process.poll() is None
                time.sleep(0.1)
            process.terminate()
            process.wait(10)
    rows, seen = asyncio.run(rows_of(database)), Counter(hook.keys)
    assert seen.keys() == set(keys)
    n_repeated = sum(n - 1 for n in seen.values())
    assert n_repeated <= n_kills
    assert n_repeated >= 2, "the two killed before the answer"
    assert all(seen[key] <= rows[key].attempts for key in keys)
    again = [json.loads(line) for line in (tmp_path / "log").read_text().splitlines() if "notify_again" in line]
    assert {event["key"] for event in again} == {key for key in keys if rows[key].attempts > 1}


@pytest.mark.timeout(180)
def test_a_suspended_sender_is_replaced_by_the_other(
    hook: WebhookServer, postgres: PostgresServer, tmp_path: Path
) -> None:
    """SIGSTOP for longer than the lease lasts. After SIGCONT the first sender notices before it sends anything."""
    database, keys = postgres.url(), keys_of_alerts(120)
    asyncio.run(schema.upgrade(database))
    asyncio.run(enqueue(database, keys))

    def slow(connection: socket.socket) -> None:
        time.sleep(0.05)
        answer_with(204)(connection)

    hook.default = slow

    def start(owner: str) -> subprocess.Popen[bytes]:
        with (tmp_path / owner).open("ab") as log:
            return subprocess.Popen(
                [sys.executable, "-c", SENDER, database, hook.url(), owner], stderr=log, env=process_environment()
            )

    def wait(condition: Callable[[], bool]) -> None:
        while not condition():
            assert all(process.poll() is None for process in senders)
            time.sleep(0.02)

    def notified(owner: str) -> list[str]:
        lines = [json.loads(line) for line in (tmp_path / owner).read_text().splitlines()]
        return [line["key"] for line in lines if line["event"] == "notified"]

    senders = [start("first")]
    try:
        wait(lambda: len(hook.requests) >= 20)
        senders.append(start("second"))
        wait(lambda: len(hook.requests) >= 60)
        assert notified("second") == []
        senders[0].send_signal(signal.SIGSTOP)
        n_before = len(notified("first"))
        wait(lambda: len(notified("second")) >= 20)
        senders[0].send_signal(signal.SIGCONT)
        wait(lambda: len(notified("first") + notified("second")) >= len(keys))
    finally:
        for process in senders:
            process.terminate()
            process.wait(10)
    rows, seen = asyncio.run(rows_of(database)), Counter(hook.keys)
    assert seen.keys() == set(keys)
    assert all(seen[key] <= rows[key].attempts for key in keys)
    assert sum(seen.values()) - len(seen) <= 1, "the attempt in hand of the suspended sender"
    assert len(notified("first")) <= n_before + 1


# ---------------------------------------------------------------- from alert to webhook


@pytest.mark.timeout(300)
def test_every_alert_is_sent_despite_a_kill_and_a_hanging_channel(
    kafka: KafkaServer, tmp_path: Path, hook: WebhookServer, request: pytest.FixtureRequest
) -> None:
    topic = request.node.name.replace("test_", "")[:100]
    kafka.create_topic(topic, 2, retention_ms="-1")
    silent = WebhookServer()
    silent.default = HANGS
    deployment = Deployment(tmp_path / "deployment")
    deployment.configure(kafka.bootstrap, topic)
    channels = [{"url": hook.url(), "name": "duty"}, {"url": silent.url(), "name": "silent"}]
    channels = [channel | {"max_age": "forever"} for channel in channels]  # these records are ten years old
    deployment.path.write_text(
        deployment.path.read_text()
        + "".join(
            "[[notify]]\n" + "\n".join(f"{key} = {json.dumps(value)}" for key, value in channel.items()) + "\n"
            for channel in channels
        )
    )
    rule = FleetRule("turbines", SENSORS, MINUTE_US, 12)
    try:
        deployment.install_model()
        messages = list(partitioned(plant(3, 20, 8_000, rule), 2))
        publish(kafka.bootstrap, topic, messages)
        deployment.start()
        deployment.wait("the first notifications", lambda: len(hook.requests) >= 5)
        deployment.kill()
        deployment.start()
        deployment.wait_records(len(messages))
        waiting = "SELECT COUNT(*) FROM outbox WHERE channel = 'duty' AND delivered_us IS NULL"
        deployment.wait("all notifications", lambda: deployment.fetch(waiting) == [(0,)], limit_s=120)
        print(f"stopped in {deployment.terminate():.1f} s")
    finally:
        deployment.kill()
        silent.close()
    alerts = deployment.fetch(
        "SELECT asset.name, opened_us, alert.state, severity FROM alert JOIN asset ON asset.id = asset_id"
    )
    expected = set()
    for asset, opened_us, state, severity in alerts:
        steps = ["firing"] + ["closed"] * (state == "closed")
        expected |= {f"duty:turbines/{asset}:{opened_us}:{step}" for step in steps}
        if severity == "critical":
            expected.add(f"duty:turbines/{asset}:{opened_us}:critical")
    assert len(alerts) > 20
    stored = dict(deployment.fetch("SELECT dedup_key, attempts FROM outbox WHERE channel = 'duty'"))
    opened_critical = expected - stored.keys()  # critical from the start: one notification
    assert all(key.endswith(":critical") for key in opened_critical)
    assert stored.keys() <= expected
    seen = Counter(hook.keys)
    assert seen.keys() == stored.keys()
    assert all(n <= stored[key] for key, n in seen.items())
    assert sum(seen.values()) - len(seen) <= 1, "only the attempt in hand at the kill came twice"
    print(
        f"{len(alerts)} alerts, {len(hook.requests)} notifications, {len(silent.requests)} attempts at the silent one"
    )
    for each in hook.requests:
        document = json.loads(each.body)
        assert document["key"] == each.headers["idempotency-key"]
        step = document["key"].rpartition(":")[2]
        assert (document["step"], document["state"]) == (step, "closed" if step == "closed" else "firing")
    assert silent.requests, "the other channel was tried"
    assert all(key.startswith("silent:") for key in silent.keys)
