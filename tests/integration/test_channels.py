"""Channels of each kind against real receivers: chats, Alertmanager, a broker, and services of Apprise."""

from __future__ import annotations

import asyncio
import json
import logging
import random
import shutil
import subprocess
import threading
import time
import urllib.request
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from aiokafka import AIOKafkaConsumer
from click.testing import CliRunner
from sqlalchemy import Connection, text

from monitor.cli import main
from monitor.clock import SystemClock
from monitor.config import NotifyConfig, parse
from monitor.errors import ConfigError
from monitor.kafka.embedded_broker import create_topic
from monitor.notify.channels import options_of, sender_of
from monitor.notify.deliver import Delivery
from monitor.notify.enrich import Enricher
from monitor.notify.example import example_alert, sent_body
from monitor.store import outbox, schema
from monitor.store.engine import AsyncStore
from monitor.store.lease_renewal import Lease
from monitor.timing import DEFAULT_TIMING
from tests.needs import need
from tests.servers import free_port
from tests.webhook_server import HANGS, WebhookServer, answer_with

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from monitor.config import Config
    from monitor.kafka.embedded_broker import EmbeddedBroker
    from monitor.notify.channels import Sender

PUBLIC_URL = "https://monitor.plant"
NOW_US = 1_700_000_000_000_000


@pytest.fixture
def hook() -> Iterator[WebhookServer]:
    made = WebhookServer()
    yield made
    made.close()


def config_of(bootstrap: str = "127.0.0.1:1", **channel: Any) -> Config:
    return parse(
        {
            "kafka": {"bootstrap": bootstrap, "topics": ["plant.readings"]},
            "fleet": [{"name": "turbines", "interval": "10m"}],
            "notify": [{"name": "duty", **channel}],
        }
    )


def channel_and_sender(limit_s: float = 5.0, **settings: Any) -> tuple[NotifyConfig, Sender]:
    config = config_of(**settings)
    timing = replace(DEFAULT_TIMING, webhook_limit_s=limit_s, apprise_limit_s=limit_s)
    return config.notify[0], sender_of(config.notify[0], config, timing)


def alert_for(channel: NotifyConfig, **facts: Any) -> tuple[str, bytes]:
    """Return key and body of an alert, as the delivery loop gives them to the sender of a channel."""
    payload = example_alert(channel, "turbines", SystemClock().now_us()) | facts
    return payload["key"], sent_body(channel, payload, PUBLIC_URL, NOW_US)


# ---------------------------------------------------------------- chats


@pytest.mark.parametrize(("kind", "where"), [("slack", "blocks"), ("teams", "attachments")])
async def test_a_chat_gets_one_post_with_links(hook: WebhookServer, kind: str, where: str) -> None:
    channel, sender = channel_and_sender(kind=kind, url=hook.url())
    assert await sender.send(*alert_for(channel)) is None
    [request] = hook.requests
    assert request.headers["content-type"] == "application/json"
    document = json.loads(request.body)
    assert document[where]
    for act in ("acknowledge", "label-fault", "label-normal"):
        assert f"{PUBLIC_URL}/links/v1.17.{act}." in request.body.decode()


async def test_an_answer_of_a_chat_shows_no_secret_of_its_url(
    hook: WebhookServer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    hook.answers.append(answer_with(403, b"no service at /T0/hunter2?x=1"))
    channel, sender = channel_and_sender(kind="slack", url=hook.url())
    failure = await sender.send(*alert_for(channel))
    assert failure is not None
    assert failure.is_refusal
    assert "hunter2" not in failure.reason + caplog.text


# ---------------------------------------------------------------- Alertmanager


@pytest.fixture
def alertmanager(tmp_path: Path) -> Iterator[str]:
    """Prometheus Alertmanager, from Debian. Yields its address."""
    program = shutil.which("prometheus-alertmanager")
    need(program, "prometheus-alertmanager")
    port = free_port()
    (tmp_path / "config.yml").write_text("route: {receiver: nobody, group_wait: 0s}\nreceivers: [{name: nobody}]\n")
    command = [program or "", "--config.file=config.yml", f"--web.listen-address=127.0.0.1:{port}"]
    process = subprocess.Popen(
        [*command, "--storage.path=data", "--cluster.listen-address="], cwd=tmp_path, stderr=subprocess.DEVNULL
    )
    url = f"http://127.0.0.1:{port}"
    for _ in range(100):
        with suppress(OSError), urllib.request.urlopen(f"{url}/-/ready"):
            break
        time.sleep(0.1)
    yield url
    process.terminate()
    process.wait(10)


def alerts_at(url: str) -> list[dict[str, Any]]:
    with urllib.request.urlopen(f"{url}/api/v2/alerts") as answer:
        found: list[dict[str, Any]] = json.load(answer)
    return found


async def test_alertmanager_shows_firing_alerts_until_they_end(alertmanager: str) -> None:
    channel, sender = channel_and_sender(kind="alertmanager", url=alertmanager)
    assert await sender.send(*alert_for(channel)) is None
    assert [alert["labels"]["severity"] for alert in alerts_at(alertmanager)] == ["warning"]
    assert await sender.send(*alert_for(channel, step="critical", severity="critical")) is None
    [critical] = alerts_at(alertmanager)
    assert critical["labels"]["severity"] == "critical"
    assert critical["generatorURL"] == f"{PUBLIC_URL}/alerts/17"
    assert critical["annotations"]["summary"] == "Critical: R80711 (turbines) is critically anomalous"
    _, body = alert_for(channel, severity="critical")
    assert await sender.repeat([body] * 3) is None  # type: ignore[attr-defined]
    assert len(alerts_at(alertmanager)) == 1
    assert await sender.send(*alert_for(channel, step="closed", severity="critical")) is None
    assert alerts_at(alertmanager) == []


# ---------------------------------------------------------------- Kafka


@pytest.mark.timeout(120)
async def test_a_topic_gets_alerts_with_their_keys(embedded_broker: EmbeddedBroker) -> None:
    await create_topic(embedded_broker.bootstrap, "plant.alerts", 1)
    config = config_of(embedded_broker.bootstrap, kind="kafka", topic="plant.alerts")
    channel, sender = config.notify[0], sender_of(config.notify[0], config)
    firing, body = alert_for(channel)
    keys = [firing, firing.replace(":firing", ":closed")]
    assert await sender.send(keys[0], body) is None
    assert await sender.send(keys[1], body.replace(b'"step":"firing"', b'"step":"closed"')) is None
    await sender.close()
    consumer = AIOKafkaConsumer(
        "plant.alerts", bootstrap_servers=embedded_broker.bootstrap, auto_offset_reset="earliest"
    )
    async with consumer, asyncio.timeout(30):
        records = [await consumer.getone() for _ in keys]
    assert [dict(record.headers)["idempotency-key"].decode() for record in records] == keys
    assert len({record.key for record in records}) == 1
    assert [json.loads(record.value)["step"] for record in records] == ["firing", "closed"]


async def test_a_topic_of_a_dead_broker_is_a_failure_within_its_limit() -> None:
    config = config_of(f"127.0.0.1:{free_port()}", kind="kafka", topic="plant.alerts")
    sender = sender_of(config.notify[0], config, replace(DEFAULT_TIMING, kafka_notification_limit_s=2.0))
    began_s = time.monotonic()
    failure = await sender.send(*alert_for(config.notify[0]))
    await sender.close()
    assert failure is not None
    assert not failure.is_refusal
    assert time.monotonic() - began_s < 5


# ---------------------------------------------------------------- Apprise


async def test_apprise_passes_title_and_text_on(hook: WebhookServer) -> None:
    channel, sender = channel_and_sender(kind="apprise", url=f"json://127.0.0.1:{hook.port}/x")
    assert await sender.send(*alert_for(channel)) is None
    document = json.loads(hook.requests[0].body)
    assert document["title"] == "Warning: R80711 (turbines) is anomalous"
    assert "power fell to −3 where 560 was expected" in document["message"]
    assert f"Acknowledge: {PUBLIC_URL}/links/" in document["message"]


async def test_a_service_that_does_not_take_a_message_is_a_failure(
    hook: WebhookServer, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.DEBUG)
    hook.default = answer_with(500)
    channel, sender = channel_and_sender(kind="apprise", url=f"json://me:hunter2@127.0.0.1:{hook.port}/x")
    failure = await sender.send(*alert_for(channel))
    assert failure is not None
    out, err = capfd.readouterr()
    assert "hunter2" not in failure.reason + caplog.text + out + err


async def test_a_service_that_hangs_ends_in_time_and_blocks_no_second(hook: WebhookServer) -> None:
    hook.default = HANGS
    channel, sender = channel_and_sender(0.5, kind="apprise", url=f"json://127.0.0.1:{hook.port}/x?rto=2&cto=2")
    began_s = time.monotonic()
    failure = await sender.send(*alert_for(channel))
    assert failure is not None
    assert failure.reason == "no answer within 0.5 s"
    again = await sender.send(*alert_for(channel))
    assert again is not None
    assert again.reason == "the attempt before has not ended"
    assert time.monotonic() - began_s < 1.5
    for thread in threading.enumerate():
        if thread.name == "apprise duty":
            thread.join(10)


def test_an_address_that_apprise_does_not_know_is_refused() -> None:
    with pytest.raises(ConfigError) as caught:
        channel_and_sender(kind="apprise", url="nosuch://hunter2@host")
    assert "does not know this nosuch:// address" in str(caught.value)
    assert "hunter2" not in str(caught.value)


# ---------------------------------------------------------------- the commands


def test_a_dry_run_shows_the_content_and_sends_nothing(hook: WebhookServer, tmp_path: Path) -> None:
    file = tmp_path / "monitor.toml"
    file.write_text(
        f'kafka = {{bootstrap = "b:9092", topics = ["t"]}}\nconsole = {{public_url = "{PUBLIC_URL}"}}\n'
        f'[[fleet]]\nname = "turbines"\ninterval = "10m"\n'
        f'[[notify]]\nname = "duty"\nurl = "{hook.url()}"\n'
        f'[[notify]]\nname = "chat"\nkind = "slack"\nurl = "{hook.url()}"\n'
        f'[[notify]]\nkind = "apprise"\nurl = "mailto://me:hunter2@host.example"\n'
    )
    file.chmod(0o600)
    done = CliRunner().invoke(main, ["notify", "test", "--dry-run", "--json", "-c", str(file)])
    assert done.exit_code == 0
    duty, chat, mail = json.loads(done.stdout)
    assert (duty["kind"], duty["content"]["step"], duty["content"]["fleet"]) == ("webhook", "firing", "turbines")
    assert chat["content"]["blocks"][0]["text"]["text"] == "Warning: R80711 (turbines) is anomalous"
    assert mail["content"].startswith("Warning: R80711 (turbines) is anomalous\n\npower fell to −3")
    shown = CliRunner().invoke(main, ["notify", "test", "--show", "chat", "-c", str(file)])
    assert "chat (slack) → http://127.0.0.1" in shown.stdout
    assert "hunter2" not in done.stdout + shown.stdout
    assert hook.n_connections == 0


def test_status_counts_what_waits_fails_and_was_given_up(tmp_path: Path) -> None:
    file, url = tmp_path / "monitor.toml", f"sqlite:///{tmp_path}/monitor.db"
    file.write_text(
        f'kafka = {{bootstrap = "b:9092", topics = ["t"]}}\nstore = {{url = "{url}"}}\n'
        '[[fleet]]\nname = "turbines"\ninterval = "10m"\n'
        '[[notify]]\nname = "duty"\nurl = "https://h/x"\n[[notify]]\nname = "idle"\nurl = "https://h/y"\n'
    )
    rows = [
        ("duty:a:firing", 0, 0, None, None),
        ("duty:b:firing", 3, NOW_US, None, "HTTP 503"),
        ("duty:c:firing", 9, outbox.ABANDONED_US, None, "HTTP 404"),
        ("duty:d:firing", 1, 0, NOW_US, None),
    ]

    def insert(connection: Connection) -> None:
        columns = "dedup_key, attempts, next_try_us, delivered_us, error"
        values = ":key, :attempts, :next, :delivered, :error"
        sql = f"INSERT INTO outbox ({columns}, channel, body, created_us) VALUES ({values}, 'duty', '', {NOW_US - 1})"
        names = ("key", "attempts", "next", "delivered", "error")
        connection.execute(text(sql), [dict(zip(names, row, strict=True)) for row in rows])

    async def fill() -> None:
        await schema.upgrade(url)
        async with AsyncStore(url, owner=True) as store:
            await store.run(insert)

    asyncio.run(fill())
    done = CliRunner().invoke(main, ["notify", "status", "--json", "-c", str(file)])
    assert done.exit_code == 0, done.output
    duty, idle = json.loads(done.stdout)
    assert {name: duty[name] for name in ("waiting", "failing", "given_up", "delivered")} == {
        "waiting": 2,
        "failing": 1,
        "given_up": 1,
        "delivered": 1,
    }
    assert (duty["kind"], duty["error"], duty["oldest_waiting_at"]) == (
        "webhook",
        "HTTP 404",
        "2023-11-14T22:13:19.999999Z",
    )
    assert (idle["name"], idle["waiting"], idle["last_delivered_at"]) == ("idle", 0, None)
    shown = CliRunner().invoke(main, ["notify", "status", "-c", str(file)])
    assert "duty: HTTP 404 since 2023-11-14 22:13" in shown.stdout


# ---------------------------------------------------------------- latency


@pytest.mark.timeout(60)
async def test_a_notification_is_sent_within_two_seconds(hook: WebhookServer, tmp_path: Path) -> None:
    """p95 from the commit of the alert to its arrival, of 40 alerts at random times over eight seconds."""
    channel, sender = channel_and_sender(kind="slack", url=hook.url(), group="alert")
    rng, n = random.Random(7), 40
    arrived: dict[str, float] = {}
    hook.default = lambda connection: (
        arrived.setdefault(hook.requests[-1].headers["idempotency-key"], time.time()),
        answer_with(200)(connection),
    )[1]
    written: dict[str, float] = {}

    def insert(connection: Connection, key: str) -> None:
        body = outbox.bodies.encode(example_alert(channel, "turbines", SystemClock().now_us()) | {"class": "data"})
        values = {"key": key, "body": body, "now": SystemClock().now_us()}
        columns = "dedup_key, channel, body, created_us, next_try_us"
        connection.execute(text(f"INSERT INTO outbox ({columns}) VALUES (:key, 'duty', :body, :now, 0)"), values)

    async with AsyncStore(f"sqlite:///{tmp_path}/monitor.db", owner=True) as store:
        clock = SystemClock()
        lease = Lease(store, outbox.LEASE, "me", clock)
        delivery = Delivery(
            store, lease, [sender], clock, options={"duty": options_of(channel)}, enricher=Enricher(PUBLIC_URL)
        )
        loop = asyncio.create_task(delivery.loop())
        for i in range(n):
            await asyncio.sleep(rng.uniform(0.0, 0.4))
            await store.run(insert, f"duty:turbines/R{i}:1:firing")
            written[f"duty:turbines/R{i}:1:firing"] = time.time()
        async with asyncio.timeout(20):
            while len(arrived) < n:  # noqa: ASYNC110 (another thread writes)
                await asyncio.sleep(0.05)
        loop.cancel()
        with suppress(asyncio.CancelledError):
            await loop
    latencies = sorted(arrived[key] - written[key] for key in written)
    p95 = latencies[int(0.95 * n) - 1]
    print(f"p50 {latencies[n // 2]:.2f} s, p95 {p95:.2f} s, longest {latencies[-1]:.2f} s")
    assert p95 <= 2.0
