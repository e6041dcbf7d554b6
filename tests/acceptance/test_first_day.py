"""A new operator's first day: an alert arrives in the chat and is answered from there, on its page and in the shell.

Broker, daemon and console are real processes, the page is opened in Chromium, and two web servers stand for the chat
and for a webhook.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import shutil
import subprocess
import sys
import time
import urllib.parse
import urllib.request
from typing import TYPE_CHECKING, Any

import pytest

from monitor.kafka.embedded_broker import create_topic
from tests.acceptance.plant import Plant
from tests.daemon_process import Deployment, process_environment
from tests.needs import need
from tests.servers import free_port
from tests.webhook_server import WebhookServer

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from monitor.kafka.embedded_broker import EmbeddedBroker

playwright = pytest.importorskip("playwright.sync_api")

TOPIC = "first-day"
CHANNELS = """
[console]
listen = "{console}"
public_url = "http://{console}"
[[notify]]
kind = "slack"
url = "{chat}"
name = "chat"
max_age = "forever"
[[notify]]
url = "{hook}"
name = "hook"
max_age = "forever"
"""
LINK_LABELS = ["Open the alert", "Acknowledge", "Was real", "Was nothing"]


@pytest.fixture
def servers() -> Iterator[tuple[WebhookServer, WebhookServer]]:
    """A chat and a webhook."""
    found = WebhookServer(), WebhookServer()
    yield found
    for server in found:
        server.close()


@contextlib.contextmanager
def console_of(deployment: Deployment, url: str) -> Iterator[None]:
    """Run `monitor console` until it answers, and then as long as the context lasts."""
    process = subprocess.Popen(
        [sys.executable, "-m", "monitor", "console", "--config", str(deployment.path)],
        env=process_environment(), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        for _ in range(300):
            assert process.poll() is None, f"the console ended with exit code {process.returncode}"
            with contextlib.suppress(OSError):
                urllib.request.urlopen(f"{url}/live", timeout=5).close()
                break
            time.sleep(0.1)
        yield
    finally:
        process.terminate()
        process.wait(timeout=20)


@pytest.mark.timeout(180)
def test_an_alert_is_answered_everywhere(
    embedded_broker: EmbeddedBroker, tmp_path: Path, servers: tuple[WebhookServer, WebhookServer]
) -> None:
    need(shutil.which("chromium"), "Chromium (Debian package chromium)")
    chat, hook = servers
    address = f"127.0.0.1:{free_port()}"
    deployment, plant = Deployment(tmp_path / "deployment"), Plant(embedded_broker.bootstrap, TOPIC)
    deployment.configure(embedded_broker.bootstrap, TOPIC)
    channels = CHANNELS.format(console=address, chat=chat.url(), hook=hook.url())
    deployment.path.write_text(deployment.path.read_text() + channels)
    deployment.install_model()
    asyncio.run(create_topic(embedded_broker.bootstrap, TOPIC, 1))
    plant.send(40)
    deployment.start()
    try:
        with console_of(deployment, f"http://{address}"):
            deployment.wait_records(plant.n_records)
            plant.send(6, "R0")
            deployment.wait("both messages", lambda: messages(chat) and messages(hook))
            number = answer(deployment, messages(chat)[0], messages(hook)[0])
    finally:
        deployment.kill()
    shown = deployment.command("alerts", "show", str(number))
    assert shown.returncode == 0, shown.stderr
    words = ("acknowledge", "(link)", "label fault", "(console)", "shelve until 7d", "bob (cli)", "part is ordered")
    assert [word for word in words if word not in shown.stdout] == []


def messages(server: WebhookServer) -> list[dict[str, Any]]:
    """Return the bodies that came to a server and tell of an alert that began."""
    bodies = [json.loads(request.body) for request in list(server.requests)]
    return [body for body in bodies if body.get("step", "firing") == "firing"]


def answer(deployment: Deployment, message: dict[str, Any], sent: dict[str, Any]) -> int:
    """Acknowledge from the chat, label on the page, shelve in the shell. Return the alert's number."""
    title = message["blocks"][0]["text"]["text"]
    assert "R0 (turbines) is" in title
    links = {each["text"]["text"]: each["url"] for each in message["blocks"][-1]["elements"]}
    assert list(links) == LINK_LABELS
    assert (sent["asset"], sent["class"]) == ("R0", "process")
    number = int(sent["id"])
    assert links["Open the alert"].endswith(f"/alerts/{number}")

    with urllib.request.urlopen(links["Acknowledge"]) as page:
        assert "acknowledge alert" in page.read().decode()
    assert deployment.json("alerts", "show", str(number))["acts"] == [], "a look at the link is no answer"
    form = urllib.parse.urlencode({"name": "ann"}).encode()
    urllib.request.urlopen(urllib.request.Request(links["Acknowledge"], data=form)).close()

    with playwright.sync_playwright() as running:
        browser = running.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        page = browser.new_page()
        page.set_default_timeout(20_000)
        page.goto(links["Open the alert"])
        page.get_by_text("Label: what was it?").click()
        page.get_by_text("real fault").click()
        page.get_by_role("button", name="Label", exact=True).click()
        page.get_by_text(f"Alert {number} is labelled fault.").wait_for()
        browser.close()

    words = ("--until", "7d", "--reason", "part is ordered", "--by", "bob")
    done = deployment.command("alerts", "shelve", str(number), *words)
    assert done.returncode == 0, done.stderr
    alert = deployment.json("alerts", "show", str(number))
    assert [(act["act"], act["via"]) for act in alert["acts"]] == [
        ("acknowledge", "link"), ("label", "console"), ("shelve", "cli")
    ]  # fmt: skip
    assert all(act["by"] and act["at"] for act in alert["acts"])
    assert (alert["label"], alert["suppressed_by"]) == ("fault", "shelf")
    return number
