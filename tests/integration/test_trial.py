"""A second monitor beside the first one, and topics that come later, on both brokers."""

from __future__ import annotations

import asyncio
import json
import time
from random import Random
from typing import TYPE_CHECKING

import pytest

from monitor.kafka.embedded_broker import create_topic
from tests.acceptance.streams import MINUTE_US, plant
from tests.daemon_process import SENSORS, Deployment, partitioned, publish
from tests.oracle.log import FleetRule

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from monitor.kafka.embedded_broker import EmbeddedBroker

RULE = FleetRule("turbines", SENSORS, MINUTE_US, 12)
PARTITIONS = 2
SESSION = {"session_timeout": "6s"}
HTTP = "[http]\nlisten = '127.0.0.1:{}'\n"


@pytest.fixture(params=["embedded_broker", "kafka"])
def bootstrap(request: pytest.FixtureRequest) -> str:
    found: str = request.getfixturevalue(request.param).bootstrap
    return found


@pytest.fixture
def deploy(tmp_path: Path) -> Iterator[Callable[[str], Deployment]]:
    made: list[Deployment] = []

    def deployment(name: str) -> Deployment:
        made.append(Deployment(tmp_path / name))
        return made[-1]

    yield deployment
    for each in made:
        each.kill()


def topic_of(bootstrap: str, name: str) -> str:
    asyncio.run(create_topic(bootstrap, name, PARTITIONS))
    publish(bootstrap, name, list(partitioned(plant(4, 4, 400, RULE), PARTITIONS)))
    return name


def test_two_databases_both_read_everything(bootstrap: str, deploy: Callable[[str], Deployment]) -> None:
    topic = topic_of(bootstrap, "both")
    production, trial = deploy("production"), deploy("trial")
    for each in (production, trial):
        each.configure(bootstrap, topic)
        each.install_model()
        each.start()
    for each in (production, trial):
        each.wait_records(400)
        assert len(each.events("partition_claimed")) == PARTITIONS
        assert not each.events("foreign_member")
    groups = {each.events("watching")[0]["group"] for each in (production, trial)}
    assert len(groups) == 2
    assert all(group.startswith("monitor-") for group in groups)
    production.terminate()
    production.start()
    production.wait_event("watching", times=2)
    assert production.events("watching")[1]["group"] == production.events("watching")[0]["group"]


def test_a_trial_in_the_same_group_is_refused(bootstrap: str, deploy: Callable[[str], Deployment]) -> None:
    topic = topic_of(bootstrap, "shared-group")
    production, trial = deploy("production"), deploy("trial")
    for each in (production, trial):
        each.configure(bootstrap, topic, kafka={"group": "plant", **SESSION})
        each.install_model()
    production.start()
    production.wait_records(400)
    trial.start()
    assert trial._process is not None
    assert trial._process.wait(60) == 3, trial.tail()
    assert "consumer group plant has other members" in trial.log_path.read_text()
    assert not trial.events("partition_claimed")
    assert not production.events("foreign_member"), "the trial never joined"
    production.kill()
    production.start()  # its former self is no foreign member
    production.wait_event("watching", times=2)
    assert not production.events("foreign_member")


def test_history_before_the_first_start_is_notified_to_nobody(
    embedded_broker: EmbeddedBroker, deploy: Callable[[str], Deployment]
) -> None:
    topic, now_min, made = "told", int(time.time()) // 60, Random(5)
    asyncio.run(create_topic(embedded_broker.bootstrap, topic, 1))

    def send(first_min: int, n: int) -> None:
        values = [{name: made.uniform(-100, 100) for name in SENSORS} | {"ts": 60 * (first_min + i)} for i in range(n)]
        messages = [(0, b"R1", json.dumps(each).encode(), each["ts"] * 1000) for each in values]
        publish(embedded_broker.bootstrap, topic, messages)

    def alerts(condition: str) -> int:
        return int(daemon.fetch(f"SELECT COUNT(*) FROM alert, identity WHERE {condition}")[0][0])

    daemon = deploy("daemon")
    daemon.configure(embedded_broker.bootstrap, topic)
    with daemon.path.open("a") as file:
        file.write("[[notify]]\nname = 'duty'\nurl = 'http://127.0.0.1:9/'\n")
    daemon.install_model()
    send(now_min - 300, 300)
    daemon.start()
    daemon.wait_records(300)
    assert alerts("opened_us < first_started_us") > 0
    assert daemon.fetch("SELECT COUNT(*) FROM outbox")[0][0] == 0
    daemon.terminate()
    daemon.start()  # the first start is not forgotten
    send(now_min, 5)
    send(now_min + 5, 295)
    daemon.wait_records(600)
    assert alerts("opened_us >= first_started_us") > 0
    told = {row[0] for row in daemon.fetch("SELECT dedup_key FROM outbox")}
    first_us = daemon.fetch("SELECT first_started_us FROM identity")[0][0]
    assert told
    assert all(int(key.split(":")[2]) >= first_us for key in told)
    daemon.terminate()


def test_a_topic_made_later_is_read_within_30_s(bootstrap: str, deploy: Callable[[str], Deployment]) -> None:
    first = topic_of(bootstrap, "first")
    daemon = deploy("daemon")
    daemon.configure(bootstrap, first)
    daemon.path.write_text(daemon.path.read_text().replace('["first"]', '["first", "later"]'))
    daemon.install_model()
    daemon.start()
    daemon.wait_records(400)
    assert daemon.wait_event("topic_missing")["topic"] == "later"
    records = partitioned(plant(5, 4, 400, RULE), PARTITIONS)
    messages = [(number, b"R9" + key[1:], value, at_ms) for number, key, value, at_ms in records]
    asyncio.run(create_topic(bootstrap, "later", PARTITIONS))
    began_s = time.monotonic()
    publish(bootstrap, "later", messages)
    daemon.wait_records(800, limit_s=60)
    assert time.monotonic() - began_s < 35
    assert daemon.wait_event("topic_found", limit_s=30)["topic"] == "later"
    assert len(daemon.events("topic_missing")) == 1
