"""A topic that loses unread records, and one that is deleted and created again, on a real broker."""

from __future__ import annotations

import asyncio
import os
import signal
from typing import TYPE_CHECKING

import pytest
from aiokafka import TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.records_to_delete import RecordsToDelete

from tests.chaos.traffic import traffic
from tests.daemon_process import Deployment, publish, read_back
from tests.oracle.check import check, stored_rows
from tests.oracle.log import rules_from

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator
    from pathlib import Path

    from tests.servers import KafkaServer

PARTITIONS = 2
N = 4_000
"""Records in four parts, spread over the partitions."""


@pytest.fixture
def deployment(tmp_path: Path) -> Iterator[Deployment]:
    deployment = Deployment(tmp_path / "deployment")
    yield deployment
    deployment.kill()


def administrate(bootstrap: str, work: Callable[[AIOKafkaAdminClient], Awaitable[object]]) -> None:
    async def run_with_admin() -> None:
        admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
        try:
            await admin.start()
            await work(admin)
        finally:
            await admin.close()

    asyncio.run(run_with_admin())


@pytest.mark.timeout(180)
def test_deleted_records_are_a_gap_and_a_new_topic_is_refused(kafka: KafkaServer, deployment: Deployment) -> None:
    topic = "lost-logs"
    kafka.create_topic(topic, PARTITIONS, retention_ms="-1")
    deployment.configure(kafka.bootstrap, topic)
    deployment.install_model()
    messages = list(traffic(5, N, PARTITIONS, n_assets=20))
    parts = [messages[begin : begin + N // 4] for begin in range(0, N, N // 4)]
    publish(kafka.bootstrap, topic, parts[0])
    deployment.start()
    deployment.wait_records(N // 4)

    os.kill(deployment.pid, signal.SIGSTOP)  # it is alive, with unfinished windows
    publish(kafka.bootstrap, topic, parts[1])
    publish(kafka.bootstrap, topic, parts[2])
    log = read_back(kafka.bootstrap, topic, PARTITIONS)  # while the log is complete
    taken = {number: len(log[topic, number]) - 300 for number in range(PARTITIONS)}
    administrate(
        kafka.bootstrap,
        lambda admin: admin.delete_records(
            {TopicPartition(topic, number): RecordsToDelete(before_offset=end) for number, end in taken.items()}
        ),
    )
    os.kill(deployment.pid, signal.SIGCONT)
    for (number, offset), (_, key, value, at_ms) in zip(
        publish(kafka.bootstrap, topic, parts[3]), parts[3], strict=True
    ):
        log[topic, number].append((offset, at_ms * 1000, key, value))

    ends = {number: len(log[topic, number]) for number in range(PARTITIONS)}
    where = "SELECT partition, next_offset FROM source_partition"
    deployment.wait("the end of the log", lambda: dict(deployment.fetch(where)) == ends)
    rows = deployment.fetch("SELECT partition, from_offset, to_offset FROM gap")
    gaps = {number: (begin, end) for number, begin, end in rows}
    assert len(rows) == PARTITIONS
    assert {number: end for number, (_, end) in gaps.items()} == taken
    assert all(end - begin > 100 for begin, end in gaps.values()), "records that were fetched before are no gap"
    left = {
        (topic, number): [record for record in log[topic, number] if not begin <= record[0] < end]
        for number, (begin, end) in gaps.items()
    }
    alerts = deployment.json("alerts", "list", "--class", "data")
    assert all((alert["kind"], alert["state"]) == ("records_lost", "firing") for alert in alerts)
    assert {(alert["partition"], alert["from_offset"], alert["n_records"]) for alert in alerts} == {
        (number, begin, end - begin) for number, (begin, end) in gaps.items()
    }
    report = check(stored_rows(deployment.fetch), left, rules_from(deployment.config))
    assert report.is_clean, report
    assert report.compared["records"] == sum(map(len, left.values()))

    deployment.terminate()  # a running daemon notices at its next metadata refresh, within five minutes
    before = deployment.fetch("SELECT topic, partition, next_offset, counters FROM source_partition")
    administrate(kafka.bootstrap, lambda admin: admin.delete_topics([topic]))
    kafka.create_topic(topic, PARTITIONS, retention_ms="-1")
    publish(kafka.bootstrap, topic, parts[0])
    done = deployment.command("run")
    assert done.returncode == 3, done.stderr
    assert "probably deleted and created again" in done.stderr
    assert deployment.fetch("SELECT topic, partition, next_offset, counters FROM source_partition") == before
