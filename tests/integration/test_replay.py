"""A replay equals the results of a real daemon that has not read the whole topic, also while the daemon reads."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import pytest

from monitor.replay.digest import digest_of
from tests.acceptance.streams import MINUTE_US, plant
from tests.daemon_process import SENSORS, Deployment, partitioned, publish
from tests.oracle.log import FleetRule

if TYPE_CHECKING:

    from tests.daemon_process import Message
    from tests.servers import KafkaServer, PostgresServer

PARTITIONS = 2
RULE = FleetRule("turbines", SENSORS, MINUTE_US, 12)


class TricklingSender(threading.Thread):
    """Sends messages in small batches until it is stopped."""

    def __init__(self, bootstrap: str, topic: str, messages: list[Message]) -> None:
        super().__init__()
        self._address = (bootstrap, topic)
        self._messages = messages
        self._stopped = threading.Event()
        self.n_sent = 0

    def run(self) -> None:
        while self.n_sent < len(self._messages) and not self._stopped.wait(0.2):
            publish(*self._address, self._messages[self.n_sent : self.n_sent + 200])
            self.n_sent += 200

    def stop(self) -> None:
        self._stopped.set()
        self.join()


@pytest.mark.parametrize("database", ["sqlite", "postgresql"])
def test_a_replay_beside_a_daemon_equals_it(
    database: str, request: pytest.FixtureRequest, kafka: KafkaServer, deployment: Deployment
) -> None:
    topic = f"replay-beside-{database}"
    kafka.create_topic(topic, PARTITIONS, retention_ms="-1")
    messages = list(partitioned(plant(5, 10, 30_000, RULE), PARTITIONS))
    postgres: PostgresServer | None = request.getfixturevalue("postgres") if database == "postgresql" else None
    url = "sqlite:///monitor.db" if postgres is None else postgres.url()
    deployment.configure(kafka.bootstrap, topic, url=url, kafka={"start": "latest"})
    if postgres is not None:
        assert deployment.command("db", "upgrade").returncode == 0
    deployment.install_model()
    publish(kafka.bootstrap, topic, messages[:3_000])  # sent before the daemon starts, which begins behind them
    deployment.start()
    deployment.wait_event("partition_claimed", times=PARTITIONS)
    sender = TricklingSender(kafka.bootstrap, topic, messages[3_000:])
    sender.start()
    try:
        deployment.wait_records(2_000)
        before = deployment.records()
        found = deployment.json("replay", limit_s=120)
        after = deployment.records()
    finally:
        sender.stop()
    assert after > before, "the daemon read records during the replay"
    assert before <= found["readings"] + found["quarantined"] <= after
    assert (found["offsets"], found["missing_offsets"]) == ("live", 0)
    assert (found["live"]["windows"], found["live"]["is_equal"]) == (found["windows"], True)
    assert found["windows"] > 500
    assert found["alerts"] > 10

    deployment.terminate()  # it does not consume the records sent after this
    publish(kafka.bootstrap, topic, messages[3_000 + sender.n_sent :][:1_000])
    with deployment.reader() as reader:
        live = digest_of(reader)
    assert deployment.json("replay", limit_s=120)["digest"] == live
