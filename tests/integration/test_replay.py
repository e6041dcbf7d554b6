"""Replay equals live, with a real daemon that has not read all of the topic, and while it reads."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import pytest

from monitor.replay.digest import digest_of
from tests.acceptance.streams import plant
from tests.daemon_process import Site, at_home, publish
from tests.integration.test_daemon import PARTITIONS, RULE

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.daemon_process import Message
    from tests.servers import KafkaServer, PostgresServer


@pytest.fixture
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    site = Site(tmp_path_factory.mktemp("site"))
    yield site
    site.kill()


class Trickle(threading.Thread):
    """A plant that goes on sending until it is told to stop."""

    def __init__(self, bootstrap: str, topic: str, messages: list[Message]) -> None:
        super().__init__()
        self._where = (bootstrap, topic)
        self._messages = messages
        self.over = threading.Event()
        self.n_sent = 0

    def run(self) -> None:
        while self.n_sent < len(self._messages) and not self.over.wait(0.2):
            publish(*self._where, self._messages[self.n_sent : self.n_sent + 200])
            self.n_sent += 200


@pytest.mark.parametrize("database", ["sqlite", "postgresql"])
def test_a_replay_beside_the_running_daemon_gives_what_it_has_stored_so_far(
    database: str, request: pytest.FixtureRequest, kafka: KafkaServer, site: Site
) -> None:
    topic = f"replay-beside-{database}"
    kafka.create_topic(topic, PARTITIONS, retention_ms="-1")
    messages = list(at_home(plant(5, 10, 30_000, RULE), PARTITIONS))
    postgres: PostgresServer | None = request.getfixturevalue("postgres") if database == "postgresql" else None
    url = "sqlite:///monitor.db" if postgres is None else postgres.url()
    site.configure(kafka.bootstrap, topic, url=url, kafka={"start": "latest"})
    if postgres is not None:
        assert site.command("db", "upgrade").returncode == 0
    site.install_model()
    publish(kafka.bootstrap, topic, messages[:3_000])  # lie there before the daemon: it begins behind them
    site.start()
    site.wait_event("partition_claimed", times=PARTITIONS)
    plant_at_work = Trickle(kafka.bootstrap, topic, messages[3_000:])
    plant_at_work.start()
    try:
        site.wait_records(2_000)
        before = site.records()
        found = site.json("replay", limit_s=120)
        after = site.records()
    finally:
        plant_at_work.over.set()
        plant_at_work.join()
    assert after > before, "the daemon went on meanwhile"
    assert before <= found["readings"] + found["quarantined"] <= after
    assert (found["offsets"], found["missing_offsets"]) == ("live", 0)
    assert found["live"] == {"windows": found["windows"], "is_equal": True}
    assert found["windows"] > 500
    assert found["alerts"] > 10

    site.terminate()  # what was sent after it stopped is no part of what it consumed
    publish(kafka.bootstrap, topic, messages[3_000 + plant_at_work.n_sent :][:1_000])
    with site.reader() as reader:
        live = digest_of(reader)
    assert site.json("replay", limit_s=120)["digest"] == live
