"""The daemon as a process, under SIGTERM, kill -9, bad records and bad settings. The oracle checks its results."""

from __future__ import annotations

import json
import os
import random
import sqlite3
import time
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import pytest

from tests.acceptance.streams import MINUTE_US, NOW_US, plant
from tests.daemon_process import SENSORS, Deployment, Message, partitioned, publish, read_back
from tests.oracle.log import FleetRule
from tests.servers import free_port

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.servers import KafkaServer

READINGS = int(os.environ.get("TEST_READINGS", "1000000"))
"""Readings of the long run. Fewer save time in development."""
ASSETS = 100
PARTITIONS = 4
RULE = FleetRule("turbines", SENSORS, MINUTE_US, 12)


@pytest.fixture
def deployment(tmp_path: Path) -> Iterator[Deployment]:
    deployment = Deployment(tmp_path / "deployment")
    yield deployment
    deployment.kill()


def topic_of(request: pytest.FixtureRequest) -> str:
    return request.node.name.replace("test_", "")[:100]


@pytest.fixture
def topic(request: pytest.FixtureRequest, kafka: KafkaServer) -> str:
    """Create a topic for one test, without retention: the timestamps of the records are old event times."""
    name = topic_of(request)
    kafka.create_topic(name, PARTITIONS, retention_ms="-1", max_message_bytes="2097152")
    return name


# ---------------------------------------------------------------- stopped and started again


BLOCK = 20
"""Cells of a block, and of one round of the stream."""


def mixed_plant(seed: int, n_readings: int) -> Iterator[Message]:
    """Yield messages of a hundred assets: every fifth sends JSON readings, the others JSON or MessagePack blocks.

    Some are missing, repeated, late within the lateness and late beyond it; some blocks have holes.
    """
    rng, noise = random.Random(seed), np.random.default_rng(seed)
    sent = number = 0
    held: list[Message] = []
    while sent < n_readings:
        begins_us = NOW_US + number * BLOCK * MINUTE_US
        number += 1
        values = (noise.integers(-800, 800, (ASSETS, BLOCK, len(SENSORS))) / 8).astype("<f4")
        at_ms = (begins_us + BLOCK * MINUTE_US) // 1000
        out: list[Message] = []
        for step in range(BLOCK):
            ts_us = begins_us + step * MINUTE_US
            for asset in range(0, ASSETS, 5):
                named = dict(zip(SENSORS, values[asset, step].tolist(), strict=True))
                value = msgspec.json.encode({"ts": ts_us / 1e6, "sensors": named})
                out.append((asset % PARTITIONS, b"R%05d" % asset, value, ts_us // 1000))
                sent += 1
        for asset in range(ASSETS):
            if asset % 5 == 0:
                continue
            block = values[asset]
            if rng.random() < 0.02:
                block[rng.randrange(BLOCK) :, rng.randrange(len(SENSORS))] = np.nan
            body: dict[str, Any] = {"start": begins_us / 1e6, "interval": 60}
            if asset % 2:
                body |= {"sensors": list(SENSORS), "values": block.tobytes()}
                value = msgspec.msgpack.encode(body)
            else:
                columns = [[None if x != x else x for x in column] for column in block.T.tolist()]
                value = msgspec.json.encode(body | {"sensors": dict(zip(SENSORS, columns, strict=True))})
            out.append((asset % PARTITIONS, b"R%05d" % asset, value, at_ms))
            sent += BLOCK
        late, held = held, []
        for message in out:
            dice = rng.random()
            if dice < 0.003:
                continue  # lost
            if dice < 0.008:
                held.append(message)  # delivered a round later, in part too late
                continue
            yield message
            if dice > 0.995:
                yield message
        yield from late
    yield from held


@pytest.mark.timeout(600)
def test_a_million_readings_and_a_stop_give_every_window_once(
    kafka: KafkaServer, topic: str, deployment: Deployment
) -> None:
    deployment.configure(
        kafka.bootstrap,
        topic,
        window=32,
        stride=8,
        lateness="30m",
        max_gap="4m",
        alerts={"budget": "20/day", "confirm": "2 of 3", "recover": 3},
        retrain={"every": "never", "history": "1d"},
    )
    began = time.monotonic()
    n_records = len(publish(kafka.bootstrap, topic, mixed_plant(1, READINGS)))
    timings = f"published {time.monotonic() - began:.0f} s"

    deployment.start()
    deployment.wait_records(n_records // 3, limit_s=180)
    deployment.terminate()
    in_between = deployment.records()
    assert n_records // 3 <= in_between < n_records, "the stop must come in the middle"
    deployment.start()
    deployment.wait_records(n_records, limit_s=180)
    deployment.terminate()
    timings += f", drained {time.monotonic() - began:.0f} s"

    log = read_back(kafka.bootstrap, topic, PARTITIONS)
    assert sum(map(len, log.values())) == n_records
    report = deployment.check(log)
    print(f"{timings}, checked {time.monotonic() - began:.0f} s; stopped at {in_between} of {n_records}; {report}")
    assert report.compared["windows"] > READINGS // 8 * 0.7
    for kind in ("late", "duplicate", "alerts"):
        assert report.compared[kind] > 0, f"the stream was too easy: {report}"
    assert len(deployment.fetch("SELECT DISTINCT version_id FROM score")) == 1, "one model scored all of it"


def test_five_kills_at_random_moments_lose_and_double_nothing(
    kafka: KafkaServer, topic: str, deployment: Deployment
) -> None:
    deployment.configure(kafka.bootstrap, topic)
    deployment.install_model()
    n_records = len(publish(kafka.bootstrap, topic, partitioned(plant(5, 20, 100_000, RULE), PARTITIONS)))
    rng = random.Random(5)

    for death in range(5):
        before = deployment.records()
        deployment.start()
        if death % 2:
            # On the way up, or waiting for its partitions; a quiet machine that has them at once dies early.
            until = time.monotonic() + rng.uniform(0.5, 5.0)
            while time.monotonic() < until and deployment.records() < before + n_records // 16:
                time.sleep(0.02)
        else:
            deployment.wait_records(before + 1)
            time.sleep(rng.uniform(0.0, 0.3))
        deployment.kill()
    assert 0 < deployment.records() < n_records, "the deaths must come in the middle"
    deployment.start()
    deployment.wait_records(n_records)
    deployment.terminate()

    deployment.check(read_back(kafka.bootstrap, topic, PARTITIONS))
    with sqlite3.connect(deployment.database) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    connection.close()


# ---------------------------------------------------------------- bad records


def _reading(ts_us: int, **beside: Any) -> bytes:
    return json.dumps({"ts": ts_us / 1e6, "sensors": dict.fromkeys(SENSORS, 1.0), **beside}).encode()


def _bad_records(ts_us: int) -> dict[str, list[tuple[bytes | None, bytes]]]:
    """Return by stable word records (key, value) with one defect, of an asset that also sends good records."""
    key = b"R00001"

    def all_are(value: str) -> bytes:
        cells = ", ".join(f'"{name}": {value}' for name in SENSORS)
        return f'{{"ts": {ts_us}, "sensors": {{{cells}}}}}'.encode()

    return {
        "not_json": [(key, b"hello"), (key, _reading(ts_us)[:-3])],
        "wrong_type": [(key, all_are('"hot"')), (key, all_are('"12 of 20"'))],
        "unknown_sensor": [(key, json.dumps({"ts": ts_us / 1e6, "sensors": {"nobody": 1.0}}).encode())],
        "missing_asset": [(None, _reading(ts_us))],
        "not_finite": [(key, all_are("1e39"))],
        "empty": [(key, all_are("NaN")), (key, all_are("1e999")), (key, all_are("null"))],
        "no_reading": [(key, b'{"ts": 1, "event": "started"}')],
        "future": [(key, _reading(ts_us + 2 * 86_400_000_000))],
        "too_large": [(key, _reading(ts_us, note="x" * 1_048_576))],
    }


def test_bad_records_are_quarantined_and_change_no_score(
    kafka: KafkaServer, topic: str, deployment: Deployment, tmp_path: Path
) -> None:
    good = list(partitioned(plant(2, 10, 3_000, RULE, disorder_share=0.0), PARTITIONS))
    place = len(good) // 2
    at_ms = good[place][3]
    bad = [(word, record) for word, records in _bad_records(at_ms * 1000).items() for record in records]
    mixed = [*good[:place], *((1, key, value, at_ms) for _, (key, value) in bad), *good[place:]]
    positions = publish(kafka.bootstrap, topic, mixed)[place : place + len(bad)]
    kafka.create_topic(f"{topic}-clean", PARTITIONS, retention_ms="-1")
    publish(kafka.bootstrap, f"{topic}-clean", good)
    clean = Deployment(tmp_path / "clean")

    scores = {}
    for where, name, n_records in ((deployment, topic, len(mixed)), (clean, f"{topic}-clean", len(good))):
        where.configure(kafka.bootstrap, name, kafka={"group": name})
        where.install_model()
        where.start()
        try:
            where.wait_records(n_records)
            where.terminate()
        finally:
            where.kill()
        rows = where.fetch(
            "SELECT asset.name, start_us, n_present, verdict, score FROM score JOIN asset ON asset.id = asset_id"
            " ORDER BY asset.name, start_us"
        )
        scores[where] = rows

    listed = deployment.json("quarantine", "list")
    found = {(row["topic"], row["partition"], row["offset"]): row["reason"].split(":")[0] for row in listed}
    expected = {(topic, *position): word for position, (word, _) in zip(positions, bad, strict=True)}
    assert found == expected, listed
    assert len(listed) == len(bad)
    assert all(len(row["reason"]) > len(row["reason"].split(":")[0]) + 5 for row in listed), "a word alone"
    assert [row[:-1] for row in scores[deployment]] == [row[:-1] for row in scores[clean]]
    assert len(scores[deployment]) > 2_000
    np.testing.assert_allclose([r[-1] for r in scores[deployment]], [r[-1] for r in scores[clean]], rtol=1e-6)
    deployment.check(read_back(kafka.bootstrap, topic, PARTITIONS))


# ---------------------------------------------------------------- the first training, and refusals


def test_a_stop_during_the_first_training_is_quick(
    kafka: KafkaServer, topic: str, deployment: Deployment
) -> None:
    def model(budget: str) -> dict[str, str]:
        return {"architecture": "conv", "max_train": budget}

    deployment.configure(kafka.bootstrap, topic, model=model("2m"), window=48, max_gap="6m")
    n_records = len(publish(kafka.bootstrap, topic, partitioned(plant(3, 20, 30_000, RULE), PARTITIONS)))
    deployment.start()

    def is_training() -> bool:
        return any("held-out error" in str(event.get("step")) for event in deployment.events())

    deployment.wait("training to learn", is_training)
    deployment.terminate()
    assert deployment.records() == 0, "nothing is scored before there is a model"
    states = deployment.fetch("SELECT state, message FROM job")
    assert states == [("queued", "its daemon stopped, and the next one starts it again")]

    deployment.configure(kafka.bootstrap, topic, model=model("3s"), window=48, max_gap="6m")
    deployment.start()
    deployment.wait_records(n_records)
    deployment.terminate()
    deployment.check(read_back(kafka.bootstrap, topic, PARTITIONS))
    assert deployment.fetch("SELECT count(*) FROM score WHERE verdict = 2") == [(0,)], "all of it is scored"


def test_an_unreadable_champion_is_replaced_before_the_first_record(
    kafka: KafkaServer, topic: str, deployment: Deployment
) -> None:
    deployment.configure(kafka.bootstrap, topic)
    deployment.install_model()
    for card in deployment.folder.glob("checkpoints/*/card.json"):
        card.write_text(card.read_text().replace('"format": 2', '"format": 1'))
    n_records = len(publish(kafka.bootstrap, topic, partitioned(plant(3, 20, 30_000, RULE), PARTITIONS)))
    deployment.start()
    deployment.wait_records(n_records)
    deployment.terminate()
    [event] = [event for event in deployment.events() if event["event"] == "champion_unreadable"]
    assert event["level"] == "warning"
    deployment.check(read_back(kafka.bootstrap, topic, PARTITIONS))
    assert deployment.fetch("SELECT count(*) FROM score WHERE verdict = 2") == [(0,)], "all of it is scored"


def test_a_lost_champion_is_waited_for_until_a_retraining(
    kafka: KafkaServer, topic: str, deployment: Deployment
) -> None:
    deployment.configure(kafka.bootstrap, topic)
    version = deployment.install_model()
    n_records = len(publish(kafka.bootstrap, topic, partitioned(plant(3, 20, 10_000, RULE), PARTITIONS)))
    (deployment.folder / "checkpoints").rename(deployment.folder / "lost")
    deployment.start()
    event = deployment.wait_event("checkpoint_away")
    assert f"Waiting for {version} of turbines" in event["error"]
    assert "`monitor retrain turbines`" in event["error"]
    asked = deployment.command("retrain", "--wait")
    assert asked.returncode == 0, f"{asked.stderr}{deployment.tail()}"
    assert "No daemon" not in asked.stderr, "it sends heartbeats while it waits"
    deployment.wait_records(n_records)
    deployment.terminate()
    assert len(deployment.events("champion_unreadable")) == 1
    deployment.check(read_back(kafka.bootstrap, topic, PARTITIONS))
    assert deployment.fetch("SELECT count(*) FROM score WHERE verdict = 2") == [(0,)], "all of it is scored"


def test_a_second_daemon_on_a_sqlite_file_exits_with_code_3(deployment: Deployment) -> None:
    deployment.configure(f"127.0.0.1:{free_port()}", "nowhere")
    deployment.start()
    deployment.wait_event("broker_away", limit_s=60)
    second = deployment.command("run")
    assert second.returncode == 3, second.stderr
    assert "Another daemon already uses this SQLite database" in second.stderr
    assert str(deployment.pid) in second.stderr, "it names the process"
    deployment.terminate()


def test_a_database_of_another_schema_ends_with_exit_code_4(deployment: Deployment) -> None:
    deployment.configure(f"127.0.0.1:{free_port()}", "nowhere")
    deployment.install_model()
    with sqlite3.connect(deployment.database) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    connection.close()
    refused = deployment.command("run")
    assert refused.returncode == 4, refused.stderr
    assert "9999" in refused.stderr


def test_all_bad_settings_are_reported_at_once_with_exit_code_2(deployment: Deployment) -> None:
    deployment.configure("127.0.0.1:1", "nowhere", sensrs=["power"], windw=3, interval="soon")
    refused = deployment.command("run")
    assert refused.returncode == 2, refused.stderr
    for place in ("fleet[0].sensrs", "fleet[0].windw", "fleet[0].interval"):
        assert place in refused.stderr
    assert 'did you mean "sensors"' in refused.stderr
