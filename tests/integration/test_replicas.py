"""Several daemons on one PostgreSQL: they share partitions, change models at one boundary, and replace a dead one."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest

from monitor.replay.digest import digest_of
from monitor.store.versions import Activation
from tests.acceptance.streams import MINUTE_US, plant
from tests.daemon_process import SENSORS, Deployment, partitioned, process_environment, publish, read_back, version_at
from tests.oracle.log import FleetRule

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.daemon_process import Trickle
    from tests.servers import KafkaServer, PostgresServer

PARTITIONS = 4
RULE = FleetRule("turbines", SENSORS, MINUTE_US, 12)
SESSION_S = 10.0


@pytest.fixture
def deployments(
    tmp_path: Path, kafka: KafkaServer, postgres: PostgresServer, request: pytest.FixtureRequest
) -> Iterator[list[Deployment]]:
    topic = request.node.name.replace("test_", "")[:100]
    kafka.create_topic(topic, PARTITIONS, retention_ms="-1")
    url = postgres.url()
    deployments = [Deployment(tmp_path / name) for name in ("a", "b")]
    for deployment in deployments:
        deployment.configure(kafka.bootstrap, topic, url=url, kafka={"session_timeout": f"{SESSION_S:.0f}s"})
    assert deployments[0].command("db", "upgrade").returncode == 0
    yield deployments
    for deployment in deployments:
        deployment.kill()


def topic_of(deployment: Deployment) -> str:
    return deployment.config.kafka.topics[0]


def partitions_of(deployment: Deployment) -> set[str]:
    return {event["partition"] for event in deployment.events("partition_claimed")}


def test_two_daemons_change_models_at_one_boundary_as_in_a_replay(
    deployments: list[Deployment], kafka: KafkaServer, trickle: Trickle
) -> None:
    a, b = deployments
    messages = list(partitioned(plant(3, 20, 60_000, RULE), PARTITIONS))
    first = a.install_model()
    for deployment in deployments:
        deployment.start()
    for deployment in deployments:
        name = deployment.folder.name
        deployment.wait(f"partitions for {name}", lambda each=deployment: partitions_of(each), limit_s=60)
    with trickle(kafka.bootstrap, topic_of(a), messages[:45_000]):
        a.wait_records(10_000)
        asked = subprocess.run(
            [sys.executable, "-m", "monitor", "retrain", "--wait", "--json", "--config", str(b.path)],
            capture_output=True, text=True, env=process_environment(), timeout=120, check=False,
        )  # fmt: skip
        assert asked.returncode == 0, f"{asked.stdout}{asked.stderr}\n{a.tail()}\n{b.tail()}"
    publish(kafka.bootstrap, topic_of(a), messages[45_000:])
    a.wait_records(len(messages))
    for deployment in deployments:
        deployment.terminate()

    second = json.loads(asked.stdout)["version"]
    a.check(read_back(kafka.bootstrap, topic_of(a), PARTITIONS))
    trained_by = [deployment for deployment in deployments if deployment.events("champion_changed")]
    assert len(trained_by) == 1, "one of them trains"
    activations = [
        Activation(*row)
        for row in a.fetch(
            "SELECT from_window_end_us, version FROM model_activation"
            " JOIN model_version ON model_version.id = version_id ORDER BY from_window_end_us"
        )
    ]
    assert [each.version for each in activations] == [first, second]
    rows = a.fetch("SELECT end_us, version FROM score LEFT JOIN model_version ON model_version.id = version_id")
    assert {version for _, version in rows} == {first, second}
    wrong = [(end_us, version) for end_us, version in rows if version != version_at(activations, end_us)]
    assert not wrong, f"{len(wrong)} of {len(rows)}, first {wrong[:3]}; {activations}"
    with a.reader() as reader:
        live = digest_of(reader)
    assert a.json("replay", limit_s=120)["digest"] == live


def test_a_killed_daemon_regains_its_partitions_or_is_replaced(
    deployments: list[Deployment], kafka: KafkaServer
) -> None:
    a, b = deployments
    messages = list(partitioned(plant(5, 20, 60_000, RULE), PARTITIONS))
    a.install_model()
    for deployment in deployments:
        deployment.start()
        name = deployment.folder.name
        deployment.wait(f"partitions for {name}", lambda each=deployment: partitions_of(each), limit_s=60)
    publish(kafka.bootstrap, topic_of(a), messages[:20_000])
    a.wait_records(20_000)

    n_claims = len(a.events("partition_claimed"))
    a.kill()
    publish(kafka.bootstrap, topic_of(a), messages[20_000:40_000])
    began = time.monotonic()
    a.start()
    a.wait("partitions again", lambda: len(a.events("partition_claimed")) > n_claims, limit_s=60)
    back_s = time.monotonic() - began
    a.wait_records(40_000)
    assert back_s < SESSION_S, f"{back_s:.1f} s: it waited for the end of its own old membership"

    a.kill()
    began = time.monotonic()
    publish(kafka.bootstrap, topic_of(a), messages[40_000:])
    b.wait_records(len(messages), limit_s=60)
    taken_over_s = time.monotonic() - began
    print(f"back after {back_s:.1f} s; another took over within {taken_over_s:.1f} s of a session of {SESSION_S:.0f} s")
    assert taken_over_s < SESSION_S + 10
    assert len(partitions_of(b)) == PARTITIONS
    b.terminate()
    b.check(read_back(kafka.bootstrap, topic_of(a), PARTITIONS))
