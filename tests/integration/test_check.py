"""`monitor check` and `monitor init` read samples of both brokers, join no group and import no torch."""

from __future__ import annotations

import asyncio
import json
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest
from aiokafka.admin import AIOKafkaAdminClient

from monitor.config import KafkaConfig, load
from monitor.kafka.embedded_broker import create_topic
from monitor.kafka.log_reader import LogBounds, log_bounds, partitions_of
from monitor.kafka.sample import sample_ends
from monitor.types import Partition
from tests.daemon_process import Deployment, process_environment, publish

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from tests.daemon_process import Message
    from tests.servers import KafkaServer

START_S = int(time.time()) // 10 * 10 - 3600
"""Recent: Kafka deletes records of more than a week ago."""
RUN = """
import sys
from monitor.cli import main
try:
    main(sys.argv[1:])
except SystemExit as exit:
    code = exit.code
print([name for name in ("torch", "scipy") if name in sys.modules], file=sys.stderr)
sys.exit(code)
"""


@pytest.fixture(params=["embedded_broker", "kafka"])
def bootstrap(request: pytest.FixtureRequest) -> str:
    found: str = request.getfixturevalue(request.param).bootstrap
    return found


def readings(n: int = 300, partitions: int = 2, **more: Any) -> Iterable[Message]:
    for i in range(n):
        for number in range(partitions):
            document = {"ts": START_S + 10 * i, "temp": 20 + i % 7, "press": 3 + i % 5 / 10} | more
            yield number, f"P{number}".encode(), json.dumps(document).encode(), (START_S + 10 * i) * 1000


def monitor(*arguments: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", RUN, *arguments],
        cwd=cwd, capture_output=True, text=True, timeout=120, check=False,
        env=process_environment() | environment,
    )  # fmt: skip


def topic_with(bootstrap: str, name: str, messages: Iterable[Message], partitions: int = 2) -> str:
    asyncio.run(create_topic(bootstrap, name, partitions))
    publish(bootstrap, name, messages)
    return name


async def groups(bootstrap: str) -> set[str]:
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    try:
        return {each[0] for each in await admin.list_consumer_groups()}
    finally:
        await admin.close()


def test_init_check_and_run_agree(bootstrap: str, tmp_path: Path) -> None:
    topic = topic_with(bootstrap, "init.check", readings())
    before = asyncio.run(groups(bootstrap))
    made = monitor("init", "--bootstrap", bootstrap, "--topic", topic, cwd=tmp_path)
    assert made.returncode == 0, made.stdout + made.stderr
    assert "monitor check" in made.stdout
    assert made.stderr.strip() == "[]", "no torch"
    config = load(tmp_path / "monitor.toml")
    fleet = config.fleets[0]
    assert (fleet.name, fleet.interval.total_seconds(), fleet.sensors) == ("init-check", 10, ("temp", "press"))
    checked = monitor("check", cwd=tmp_path)
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert "Ready: start it with monitor run." in checked.stdout
    assert checked.stderr.strip() == "[]", "no torch"
    assert "400 of 400 sampled records are used" in checked.stdout
    assert "Settings that fit" not in checked.stdout
    assert not (tmp_path / "monitor.db").exists()
    assert asyncio.run(groups(bootstrap)) == before, "no group was joined"


def test_check_is_not_ready_where_nothing_can_be_read(bootstrap: str, tmp_path: Path) -> None:
    topic = topic_with(bootstrap, "unreadable", ((0, b"a", b"oops", 1000 * (START_S + n)) for n in range(50)), 1)
    toml = tmp_path / "monitor.toml"
    toml.write_text(f"[kafka]\nbootstrap='{bootstrap}'\ntopics=['{topic}']\n[[fleet]]\nname='x'\ninterval='1m'\n")
    checked = monitor("check", cwd=tmp_path)
    assert checked.returncode == 3
    assert "none of 50 sampled records of unreadable can be used: not_json" in " ".join(checked.stdout.split())
    assert "Ready" not in checked.stdout
    as_json = json.loads(monitor("check", "--json", cwd=tmp_path).stdout)
    assert as_json["samples"]["x"]["refused"][0]["n"] == 50
    refused = monitor("init", "--bootstrap", bootstrap, "--topic", topic, "--output", "new.toml", cwd=tmp_path)
    assert refused.returncode == 3
    assert "50 records: not_json" in refused.stderr
    assert not (tmp_path / "new.toml").exists()


def test_an_empty_topic_is_told(bootstrap: str, tmp_path: Path) -> None:
    topic = topic_with(bootstrap, "empty", ())
    toml = tmp_path / "monitor.toml"
    toml.write_text(
        f"[kafka]\nbootstrap='{bootstrap}'\ntopics=['{topic}', 'missing']\n[[fleet]]\nname='x'\ninterval='1m'\n"
    )
    checked = monitor("check", cwd=tmp_path)
    assert checked.returncode == 0, checked.stdout + checked.stderr
    shown = " ".join(checked.stdout.split())
    assert "topic missing is not there yet: a daemon takes it within half a minute" in shown
    assert "no record in empty, missing yet: a daemon waits for them" in shown
    assert "Nothing to read yet" in shown
    assert monitor("init", "--bootstrap", bootstrap, "--topic", topic, "--output", "n", cwd=tmp_path).returncode == 1


def test_check_names_foreign_members(bootstrap: str, tmp_path: Path) -> None:
    topic = topic_with(bootstrap, "foreign", readings())
    production, trial = Deployment(tmp_path / "production"), Deployment(tmp_path / "trial")
    for each in (production, trial):
        each.configure(bootstrap, topic, kafka={"group": "of-production"}, sensors=["temp", "press"], assets="P*")
    production.install_model()
    production.start()
    try:
        production.wait_records(600)
        own = monitor("check", cwd=production.folder)
        assert own.returncode == 0, own.stdout
        assert "1 member, all of this database" in own.stdout
        assert "1 daemon running" in " ".join(own.stdout.split())
        foreign = monitor("check", cwd=trial.folder)
        assert foreign.returncode == 3
        assert "consumer group of-production has other members" in " ".join(foreign.stdout.split())
    finally:
        production.kill()


def test_a_daemons_refusals_are_found_before(embedded_broker: Any, tmp_path: Path) -> None:
    bootstrap = embedded_broker.bootstrap
    topic = topic_with(bootstrap, "refused-later", readings())
    daemon = Deployment(tmp_path / "daemon")
    daemon.configure(bootstrap, topic, sensors=["temp", "press"], assets="P*")
    daemon.install_model()
    daemon.start()
    daemon.wait_records(600)
    daemon.terminate()
    text = daemon.path.read_text()
    assert daemon.command("check").returncode == 0
    daemon.path.write_text(text.replace("topics =", "group = 'another'\ntopics ="))
    another = daemon.command("check")
    assert another.returncode == 2
    assert "this database holds what group" in another.stdout
    with closing(sqlite3.connect(daemon.database)) as database, database:
        database.execute("UPDATE model_version SET card = ?", (json.dumps({"sensors": ["temp", "press"]}),))
    daemon.path.write_text(text.replace('"press"', '"flow"'))
    changed = " ".join(daemon.command("check").stdout.split())
    assert "does not know flow and expects press" in changed
    assert "monitor retrain turbines" in changed
    daemon.path.write_text(text.replace("device = 'cpu'", "device = 'mps'"))
    assert daemon.command("check").returncode == (2 if sys.platform != "darwin" else 0)


# ---------------------------------------------------------------- samples


async def sampled(bootstrap: str, topic: str, n: int) -> dict[Partition, list[list[int]]]:
    config = KafkaConfig(bootstrap=bootstrap, topics=(topic,))
    bounds = await log_bounds(config, await partitions_of(config, [topic]))
    found: dict[Partition, list[list[int]]] = {}
    for batch in await sample_ends(config, bounds, n):
        found.setdefault(batch.partition, []).append(batch.offsets.tolist())
    return found


@pytest.mark.parametrize("n", [1, 100, 149, 150, 400])
def test_both_ends_are_sampled_without_repetition(bootstrap: str, n: int) -> None:
    topic = topic_with(bootstrap, f"ends-{n}", readings(300), 2)
    found = asyncio.run(sampled(bootstrap, topic, n))
    expected = [list(range(n)), list(range(300 - n, 300))] if n < 150 else [list(range(n)), list(range(n, 300))]
    expected = [list(range(300))] if n >= 300 else expected
    assert found == {Partition(topic, number): expected for number in range(2)}


async def test_an_end_without_records_is_looked_behind(kafka: KafkaServer) -> None:
    """The markers of aborted and empty transactions take offsets at the end of the log."""
    from aiokafka import AIOKafkaProducer

    await asyncio.to_thread(topic_with, kafka.bootstrap, "holes", readings(30, 1), 1)
    async with AIOKafkaProducer(bootstrap_servers=kafka.bootstrap, transactional_id="t") as producer:
        for _ in range(20):
            await producer.begin_transaction()
            await producer.send_and_wait("holes", b"{}", partition=0)
            await producer.abort_transaction()
    found = await sampled(kafka.bootstrap, "holes", 5)
    assert found == {Partition("holes", 0): [[0, 1, 2, 3, 4], [25, 26, 27, 28, 29]]}


async def test_empty_partitions_give_no_sample(embedded_broker: Any) -> None:
    config = KafkaConfig(bootstrap=embedded_broker.bootstrap, topics=("x",))
    assert await sample_ends(config, {Partition("x", 0): LogBounds(5, 5)}, 10) == []


def test_init_takes_the_login_from_the_environment(tmp_path: Path) -> None:
    refused = monitor(
        "init", "--bootstrap", "127.0.0.1:1", "--topic", "x", cwd=tmp_path, MONITOR_KAFKA__SECURITY_PROTOCOL="SASL_SSL"
    )
    assert refused.returncode == 2
    assert "kafka.password: missing" in refused.stderr
    away = monitor("init", "--bootstrap", "127.0.0.1:1", "--topic", "x", cwd=tmp_path)
    assert away.returncode == 1
    assert "set MONITOR_KAFKA__SECURITY_PROTOCOL=SASL_SSL" in away.stderr
    assert not list(tmp_path.iterdir())
