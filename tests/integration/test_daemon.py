"""The daemon during outages of real servers, and during a change of its model."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from monitor.kafka.client import stop
from monitor.kafka.embedded_broker import create_topic
from monitor.kafka.log_reader import KafkaHistory
from monitor.replay.digest import digest_of
from monitor.store.versions import Activation
from monitor.types import Partition
from tests.acceptance.streams import MINUTE_US, plant
from tests.daemon_process import SENSORS, Deployment, partitioned, process_environment, publish, read_back, version_at
from tests.oracle.log import FleetRule

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.daemon_process import Trickle
    from tests.servers import KafkaServer, PostgresServer

PARTITIONS = 2
RULE = FleetRule("turbines", SENSORS, MINUTE_US, 12)
OUTAGE_S = 15.0
TRAINING_LIMIT_S = 300.0
"""Of a training that takes about 8 s of CPU. It has the lowest priority, and ten busy programs took 90 s from it."""


@pytest.fixture
def topic(request: pytest.FixtureRequest, kafka: KafkaServer) -> str:
    name = request.node.name.replace("test_", "")[:100]
    kafka.create_topic(name, PARTITIONS, retention_ms="-1")
    return name


@pytest.mark.parametrize("broker", ["embedded_broker", "kafka"])
def test_the_history_of_a_topic_is_read_completely(
    broker: str, request: pytest.FixtureRequest, deployment: Deployment
) -> None:
    bootstrap = request.getfixturevalue(broker).bootstrap
    asyncio.run(create_topic(bootstrap, "history", PARTITIONS))
    messages = list(partitioned(plant(4, 4, 1_000, RULE), PARTITIONS))
    publish(bootstrap, "history", messages)
    deployment.configure(bootstrap, "history")

    async def read() -> Counter[Partition]:
        found: Counter[Partition] = Counter()
        async for batch in KafkaHistory(deployment.config.kafka, ["history", "nowhere"]):
            found[batch.partition] += len(batch)
        return found

    assert asyncio.run(read()) == Counter(Partition("history", message[0]) for message in messages)


# ---------------------------------------------------------------- outages


@pytest.mark.parametrize("end", ["stop", "kill"])
def test_a_broker_outage_loses_nothing(
    kafka: KafkaServer, end: str, request: pytest.FixtureRequest, deployment: Deployment
) -> None:
    topic = f"broker-away-{end}"
    kafka.create_topic(topic, PARTITIONS, retention_ms="-1")
    messages = list(partitioned(plant(1, 20, 40_000, RULE), PARTITIONS))
    before, after = messages[:30_000], messages[30_000:]
    deployment.configure(kafka.bootstrap, topic)
    deployment.install_model()
    publish(kafka.bootstrap, topic, before[:20_000])
    deployment.start()
    deployment.wait_records(1)
    publish(kafka.bootstrap, topic, before[20_000:])  # acknowledged, and hardly read when the broker stops

    getattr(kafka, end)()
    try:
        deployment.wait_event("broker_away", limit_s=60)
        time.sleep(OUTAGE_S)
    finally:
        kafka.start()
    publish(kafka.bootstrap, topic, after)

    deployment.wait_event("broker_back", limit_s=90)
    deployment.wait_records(len(messages), limit_s=120)
    assert len(deployment.events("watching")) == 1, "the daemon was never restarted"
    deployment.terminate()
    deployment.check(read_back(kafka.bootstrap, topic, PARTITIONS))


@pytest.mark.parametrize("mode", ["fast", "immediate"])
def test_an_outage_of_the_database_loses_and_doubles_nothing(
    kafka: KafkaServer, postgres: PostgresServer, mode: str, deployment: Deployment, trickle: Trickle
) -> None:
    topic = f"database-away-{mode}"
    kafka.create_topic(topic, PARTITIONS, retention_ms="-1")
    messages = list(partitioned(plant(2, 20, 40_000, RULE), PARTITIONS))
    deployment.configure(kafka.bootstrap, topic, url=postgres.url())
    upgraded = deployment.command("db", "upgrade")
    assert upgraded.returncode == 0, upgraded.stderr
    deployment.install_model()
    deployment.start()
    with trickle(kafka.bootstrap, topic, messages):
        deployment.wait_records(1)
        postgres.stop(mode)
        try:
            deployment.wait_event("database_away", limit_s=30)
            time.sleep(OUTAGE_S)
        finally:
            postgres.start()
        deployment.wait_event("database_back", limit_s=60)
    deployment.wait_records(len(messages), limit_s=120)
    assert len(deployment.events("watching")) == 1, "the daemon was never restarted"
    assert not deployment.events("fenced")
    deployment.terminate()
    deployment.check(read_back(kafka.bootstrap, topic, PARTITIONS))


def test_a_stop_during_an_outage_of_the_broker_is_quick(kafka: KafkaServer, topic: str, deployment: Deployment) -> None:
    messages = list(partitioned(plant(6, 4, 2_000, RULE), PARTITIONS))
    deployment.configure(kafka.bootstrap, topic)
    deployment.install_model()
    publish(kafka.bootstrap, topic, messages)
    deployment.start()
    deployment.wait_records(len(messages))
    kafka.kill()
    try:
        time.sleep(2)
        deployment.terminate()
    finally:
        kafka.start()
    deployment.check(read_back(kafka.bootstrap, topic, PARTITIONS))


async def test_a_consumer_whose_stop_cancels_itself_is_closed() -> None:
    class SelfCancellingConsumer:
        """Behaves as aiokafka 0.14 during an outage of the broker."""

        def __init__(self) -> None:
            self._client = self
            self.is_closed = False

        async def stop(self) -> None:
            fetch = asyncio.ensure_future(asyncio.sleep(60))
            await asyncio.sleep(0)
            fetch.cancel()
            await fetch

        async def close(self) -> None:
            self.is_closed = True

    consumer = SelfCancellingConsumer()
    await stop(consumer)
    assert consumer.is_closed


def test_a_stop_during_an_outage_of_the_database_loses_nothing(
    kafka: KafkaServer, topic: str, postgres: PostgresServer, deployment: Deployment, trickle: Trickle
) -> None:
    messages = list(partitioned(plant(7, 10, 20_000, RULE), PARTITIONS))
    deployment.configure(kafka.bootstrap, topic, url=postgres.url())
    assert deployment.command("db", "upgrade").returncode == 0
    deployment.install_model()
    deployment.start()
    with trickle(kafka.bootstrap, topic, messages):
        deployment.wait_records(1)
        postgres.stop("immediate")
        try:
            deployment.wait_event("database_away", limit_s=30)
            deployment.terminate()
        finally:
            postgres.start()
    assert deployment.events("stopped_in_an_outage"), "the log says that the batch in hand is not saved"
    deployment.start()
    deployment.wait_records(len(messages))
    deployment.terminate()
    deployment.check(read_back(kafka.bootstrap, topic, PARTITIONS))


# ---------------------------------------------------------------- a change of the model


@dataclass
class Retrained:
    """The results of a daemon whose model changed in the middle of the stream."""

    deployment: Deployment
    topic: str
    first: str
    second: str
    job: str
    """Output of `monitor retrain --wait --json`."""
    refused: subprocess.CompletedProcess[str]
    activations: list[Activation]


@pytest.fixture(scope="module")
def retrained(kafka: KafkaServer, tmp_path_factory: pytest.TempPathFactory, trickle: Trickle) -> Iterator[Retrained]:
    """One run for the tests below: a first model, `monitor retrain --wait` while records arrive, and the rest."""
    topic = "retrained"
    kafka.create_topic(topic, PARTITIONS, retention_ms="-1")
    messages = list(partitioned(plant(3, 20, 60_000, RULE), PARTITIONS))
    deployment = Deployment(tmp_path_factory.mktemp("retrained"))
    deployment.configure(kafka.bootstrap, topic)
    publish(kafka.bootstrap, topic, messages[:10_000])
    deployment.start()
    try:
        deployment.wait_records(10_000, limit_s=TRAINING_LIMIT_S)
        (first,) = deployment.json("models", "list")

        with trickle(kafka.bootstrap, topic, messages[10_000:-5_000]):
            asked = subprocess.Popen(
                [sys.executable, "-m", "monitor", "retrain", "--wait", "--json", "--config", str(deployment.path)],
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                env=process_environment(),
            )
            deployment.wait("a running job", lambda: "running" in _states(deployment), every_s=0.02)
            refused = deployment.command("retrain")
            job, errors = asked.communicate(timeout=TRAINING_LIMIT_S)
            assert asked.returncode == 0, f"{job}{errors}\n{deployment.tail()}"
        # On a busy machine the training may last longer than the trickle: these windows are the new champion's.
        publish(kafka.bootstrap, topic, messages[-5_000:])
        deployment.wait_records(len(messages), limit_s=TRAINING_LIMIT_S)
        deployment.terminate()
        activations = [
            Activation(*row)
            for row in deployment.fetch(
                "SELECT from_window_end_us, version FROM model_activation"
                " JOIN model_version ON model_version.id = version_id ORDER BY from_window_end_us"
            )
        ]
        champion = next(m["version"] for m in deployment.json("models", "list") if m["state"] == "champion")
        yield Retrained(deployment, topic, first["version"], champion, job, refused, activations)
    finally:
        deployment.kill()


def _states(deployment: Deployment) -> list[str]:
    return [row[0] for row in deployment.fetch("SELECT state FROM job")]


def test_retrain_wait_ends_at_a_new_champion(retrained: Retrained) -> None:
    job = json.loads(retrained.job)
    assert job["state"] == "done"
    assert job["version"] == retrained.second != retrained.first


def test_a_second_retraining_is_refused_and_names_the_first(retrained: Retrained) -> None:
    job = json.loads(retrained.job)
    assert retrained.refused.returncode == 1, retrained.refused.stderr
    assert f"job {job['id']} for turbines is running" in retrained.refused.stderr


def test_every_window_is_stored_once_across_the_change(kafka: KafkaServer, retrained: Retrained) -> None:
    retrained.deployment.check(read_back(kafka.bootstrap, retrained.topic, PARTITIONS))


def test_every_window_has_the_version_of_its_event_time(retrained: Retrained) -> None:
    rows = retrained.deployment.fetch(
        "SELECT end_us, version FROM score LEFT JOIN model_version ON model_version.id = version_id"
    )
    assert {version for _, version in rows} == {retrained.first, retrained.second}, "both have scored windows"
    assert [each.version for each in retrained.activations] == [retrained.first, retrained.second]
    wrong = [(end_us, version) for end_us, version in rows if version != version_at(retrained.activations, end_us)]
    assert not wrong, f"{len(wrong)} of {len(rows)}, first {wrong[:3]}; {retrained.activations}"


def test_a_replay_across_the_change_gives_the_live_digest(retrained: Retrained) -> None:
    with retrained.deployment.reader() as reader:
        live = digest_of(reader)
    replayed = retrained.deployment.json("replay", limit_s=120)
    assert replayed["windows"] > 10_000
    assert replayed["digest"] == live
