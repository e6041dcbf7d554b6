"""The verification of chaos runs: it notices each violation in journal, scores, versions and notifications."""

from __future__ import annotations

import json
import random
import re
import sqlite3
import time
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest
import sqlalchemy

from monitor.store.tables import metadata
from tests.chaos import journal, notifications
from tests.chaos.environment import InjectedFault, recovery, silence
from tests.chaos.figures import Figures, table, write
from tests.chaos.receiver import Arrival
from tests.chaos.traffic import traffic
from tests.chaos.verify import versions
from tests.daemon_process import Deployment
from tests.oracle.check import StoredRows, check, compare_scores
from tests.oracle.log import FleetRule, Rules
from tests.oracle.windows import expect

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from tests.chaos.receiver import Answer

PLACE = "WHERE topic = 'plant' AND partition = 0"
CLAIM = "UPDATE source_partition SET epoch = epoch + 1, owner = 'host:2' " + PLACE
SAVE = "UPDATE source_partition SET next_offset = next_offset + 10 " + PLACE


@pytest.fixture
def database(tmp_path: Path) -> Iterator[sqlite3.Connection]:
    """Yield a database with the journal of a partition: two claims and two commits."""
    path = tmp_path / "monitor.db"
    engine = sqlalchemy.create_engine(f"sqlite:///{path}")
    metadata.create_all(engine)
    engine.dispose()
    journal.install_sqlite(path)
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute(
            "INSERT INTO source_partition (pipeline, topic, partition, epoch, owner, rewind_state, counters)"
            " VALUES ('p', 'plant', 0, 1, 'host:1', '{}', '{}')"
        )
        connection.execute(f"UPDATE source_partition SET next_offset = 0 {PLACE}")
        for statement in (SAVE, CLAIM, SAVE):
            connection.execute(statement)
        yield connection


def problems(database: sqlite3.Connection) -> list[str]:
    return journal.problems(lambda sql: database.execute(sql).fetchall(), is_postgresql=False)


def test_a_correct_journal_has_no_problem(database: sqlite3.Connection) -> None:
    moves = journal.moves(lambda sql: database.execute(sql).fetchall())
    assert [move.is_claim for move in moves] == [True, False, False, True, False]
    assert [move.is_save for move in moves] == [False, False, True, False, True]
    assert problems(database) == []


@pytest.mark.parametrize(
    ("law", "statement"),
    [
        ("epoch of .* fell", "UPDATE source_partition SET epoch = 1 "),
        ("epoch of .* jumped", "UPDATE source_partition SET epoch = epoch + 2 "),
        ("offset of .* fell", "UPDATE source_partition SET next_offset = next_offset - 1 "),
        ("a claim of .* moved the offset", "UPDATE source_partition SET epoch = epoch + 1, next_offset = 99 "),
        ("changed hands .* without a claim", "UPDATE source_partition SET owner = 'host:1' "),
    ],
)
def test_the_journal_reports(database: sqlite3.Connection, law: str, statement: str) -> None:
    database.execute(statement + PLACE)
    found = problems(database)
    assert found
    assert any(re.search(law, each) for each in found), found


def test_the_journal_records_holders_of_the_outbox(database: sqlite3.Connection) -> None:
    take = "INSERT INTO lease (name, holder, epoch, until_us) VALUES ('{}', 'host:7:a', 1, 0)"
    for name in ("outbox", "training"):
        database.execute(take.format(name))
    database.execute("UPDATE lease SET until_us = 9")
    database.execute("UPDATE lease SET epoch = 2, holder = 'host:8:b'")
    found = database.execute(notifications.HOLDERS).fetchall()
    assert [row[1:] for row in found] == [(1, "host:7:a"), (2, "host:8:b")]
    assert 0 <= time.time() - found[0][0] < 60


# ---------------------------------------------------------------- times


def move(at: float, partition: int, owner: str, *, claims: bool = False) -> journal.Move:
    return journal.Move(at, ("plant", partition), owner, 1 - claims, 1, 5, 5 if claims else 9, None, "{}")


def test_a_recovery_ends_with_the_last_partition() -> None:
    moves = [
        move(1, 0, "host:7", claims=True), move(1, 1, "host:7", claims=True), move(1, 2, "host:8", claims=True),
        move(3, 0, "host:7"), move(11, 0, "host:8"), move(12, 2, "host:8"), move(14, 1, "host:8"),
        move(20, 0, "host:8"),
    ]  # fmt: skip
    assert recovery(moves, InjectedFault("kill", 10, 7)) == 4
    assert recovery(moves, InjectedFault("kill", 10, 9)) is None
    assert silence(moves, 10) == 4
    assert silence(moves, 13) is None, "one partition never commits again"


# ---------------------------------------------------------------- scores

RULE = FleetRule("turbines", ("power", "wind"), 60_000_000, length=4, assets=("R*",), lateness_cells=1)


def test_a_wrong_stored_score_is_reported() -> None:
    rules = Rules((RULE,))
    log = [
        (offset, at_ms * 1000, key, value)
        for offset, (_, key, value, at_ms) in enumerate(traffic(1, 400, 1, n_assets=4))
    ]
    expected = expect(log, rules)
    names = sorted(expected.fleet_of)
    shard = expected.shards["turbines"]
    rows = StoredRows(
        partitions=[("plant", 0, 0, len(log), expected.counts)],
        assets=[(number, "turbines", name, "plant", 0) for number, name in enumerate(names)],
        scores=[
            (
                names.index(window.asset), window.start * RULE.interval_us, 0, 0, 0, 0,
                mean(shard.values(window)), 0, 1,
            )
            for window in shard.windows()
        ],
    )  # fmt: skip

    def compared(rows: StoredRows) -> tuple[int, list[str]]:
        report = check(rows, {("plant", 0): log}, rules)
        compare_scores(report, rows, rules, lambda _, values, _names: [mean(each) for each in values], random.Random(0))
        return report.compared["scores"], report.problems["score"]

    assert compared(rows) == (len(rows.scores), [])
    *facts, score, verdict_, version = rows.scores[7]
    rows.scores[7] = (*facts, score + 1e-3 * max(1, abs(score)), verdict_, version)
    assert len(compared(rows)[1]) == 1


def mean(values: list[list[float | None]]) -> float:
    numbers = [number for cell in values for number in cell if number is not None]
    return sum(numbers) / len(numbers)


# ---------------------------------------------------------------- traffic, figures


def test_traffic_depends_only_on_the_seed() -> None:
    assert list(traffic(5, 3_000, 6)) == list(traffic(5, 3_000, 6))
    assert list(traffic(5, 3_000, 6)) != list(traffic(6, 3_000, 6))


def test_traffic_has_every_kind_of_record() -> None:
    log = [
        (offset, at_ms * 1000, key, value)
        for offset, (place, key, value, at_ms) in enumerate(traffic(2, 20_000, 6))
        if place == 1
    ]
    counts = expect(log, Rules((RULE,))).counts
    for fate in ("accepted", "late", "quarantined", "duplicate"):
        assert counts[fate] > 5, counts


def test_violations_and_vacuous_runs_are_not_good(tmp_path: Path) -> None:
    good = Figures("a", 1, records=10)
    bad = Figures("a", 2, records=5, problems=["missing: x"], vacuous=["no fenced"])
    assert good.is_good
    assert not bad.is_good
    assert not Figures("a", 3, vacuous=["no fenced"]).is_good
    assert "missing: x" in table([good, bad])
    assert "15" in table([good, bad]).splitlines()[3], "the sum of both"
    write(tmp_path / "report.json", [good, bad])
    assert '"missing: x"' in (tmp_path / "report.json").read_text()


# ---------------------------------------------------------------- versions


@pytest.fixture
def scored(tmp_path: Path) -> Iterator[tuple[Deployment, sqlite3.Connection]]:
    """Yield a deployment with one version, one score and one alert."""
    deployment = Deployment(tmp_path)
    deployment.configure("127.0.0.1:1", "plant")
    version = deployment.install_model()
    with closing(sqlite3.connect(deployment.database, isolation_level=None)) as connection:
        connection.execute("INSERT INTO asset (id, fleet, name, topic, partition) VALUES (1, 'turbines', 'R1', 'p', 0)")
        connection.execute(
            "INSERT INTO score (asset_id, start_us, end_us, verdict, version_id, n_present, first_offset, last_offset)"
            " VALUES (1, 0, 60, 1, 1, 1, 0, 0)"
        )
        connection.execute(
            "INSERT INTO alert (asset_id, opened_us, state, severity, updated_us, peak_score, peak_us, n_anomalous,"
            f" sensors, version) VALUES (1, 60, 'firing', 'warning', 60, 2, 60, 1, '[]', '{version}')"
        )
        yield deployment, connection


def test_an_intact_active_version_is_no_problem(
    scored: tuple[Deployment, sqlite3.Connection],
) -> None:
    assert versions(scored[0]) == []


@pytest.mark.parametrize(
    ("law", "statement"),
    [
        ("scores by version 99, which does not exist", "UPDATE score SET version_id = 99"),
        ("not by None", "UPDATE model_activation SET from_window_end_us = 60"),
        ("alerts by version gone, which does not exist", "UPDATE alert SET version = 'gone'"),
        ("the folder of other holds pca-", "UPDATE model_version SET version = 'other'"),
    ],
)
def test_the_check_of_versions_reports(scored: tuple[Deployment, sqlite3.Connection], law: str, statement: str) -> None:
    deployment, connection = scored
    connection.execute(statement)
    assert any(law in each for each in versions(deployment)), versions(deployment)


def test_one_flipped_bit_of_a_version_is_reported(scored: tuple[Deployment, sqlite3.Connection]) -> None:
    deployment, _ = scored
    [weights] = deployment.config.store.checkpoints.glob("*/*.safetensors")
    damaged = bytearray(weights.read_bytes())
    damaged[-1] ^= 1
    weights.chmod(0o600)
    weights.write_bytes(damaged)
    assert any("I9" in each for each in versions(deployment))


# ---------------------------------------------------------------- notifications

OPENED = "duty:turbines/R1:60:firing"
CLOSED = "duty:turbines/R1:60:closed"
CRITICAL = "duty:turbines/R1:60:critical"
ALERT = ("turbines", "R1", 60, 120, "critical", "warning")
"""It fired as a warning, became critical and closed."""


def arrival(at: float, key: str, answer: Answer = "accepted", body: dict[str, str] | None = None) -> Arrival:
    return Arrival(at, key, json.dumps(body or {"key": key, "step": key.rpartition(":")[2]}).encode(), answer)


ALL = [arrival(11, OPENED, "refused"), arrival(12, OPENED), arrival(13, CRITICAL), arrival(14, CLOSED)]


def audit(
    arrivals: list[Arrival],
    alerts: Sequence[tuple[Any, ...]] = (ALERT,),
    outbox: Sequence[tuple[Any, ...]] = ((OPENED, 9, 1), (CRITICAL, 9, 1), (CLOSED, 9, 1)),
    holders: Sequence[tuple[Any, ...]] = ((0.0, 1, "host:7:a"), (50.0, 2, "host:8:b")),
    faults: Sequence[tuple[float, int]] = (),
) -> notifications.NotificationReport:
    tables = {
        notifications.ALERTS: alerts,
        notifications.DATA_ALERTS: [],
        notifications.OUTBOX: outbox,
        notifications.HOLDERS: holders,
    }
    return notifications.audit(tables.__getitem__, arrivals, faults)


def test_complete_notifications_have_no_problem() -> None:
    assert audit(ALL) == notifications.NotificationReport(delivered=3, failed=1, repeated=0, problems=[])


def test_an_alert_critical_from_the_start_has_one_step() -> None:
    assert notifications.expected_data_notifications(
        [("records_lost", "t", 0, 7, "", 9), ("asset_silent", "t", 1, 5, "R1", None)]
    ) == {
        "duty:data:records_lost/t/0:7:firing",
        "duty:data:records_lost/t/0:7:closed",
        "duty:data:asset_silent/t/1:5:R1:firing",
    }
    keys = notifications.expected_notifications(
        [("turbines", "R1", 60, None, "critical", "critical"), ("turbines", "R2", 60, None, "warning", "warning")]
    )
    assert keys == {OPENED, "duty:turbines/R2:60:firing"}


@pytest.mark.parametrize(
    ("law", "changed"),
    [
        ("R1:60:firing never arrived; is marked delivered", {"arrivals": ALL[:1] + ALL[2:]}),
        (
            "R1:60:closed never arrived; outbox: None",
            {"arrivals": ALL[:3], "outbox": [(OPENED, 9, 1), (CRITICAL, 9, 1)]},
        ),
        ("R9:60:firing arrived, of no alert", {"arrivals": [*ALL, arrival(15, OPENED.replace("R1", "R9"), "refused")]}),
        ("R1:60:closed arrived, of no alert", {"alerts": [("turbines", "R1", 60, None, "critical", "warning")]}),
        ("R9:60:firing waits, of no alert", {"outbox": [("duty:turbines/R9:60:firing", 0, None)]}),
        ("came 2 times and 1 attempts were counted", {"outbox": [(OPENED, 1, 1), (CRITICAL, 1, 1), (CLOSED, 1, 1)]}),
        ("R1:60:closed arrived at 14.00 and again at 16.00, for no reason", {"arrivals": [*ALL, arrival(16, CLOSED)]}),
        ("out of order", {"arrivals": [ALL[0], ALL[2], arrival(15, OPENED), arrival(16, CLOSED)]}),
        ("arrived with 2 bodies", {"arrivals": [arrival(10, OPENED, "refused", {"key": "", "step": ""}), *ALL]}),
        (
            "arrived with the body",
            {"arrivals": [*ALL[:3], arrival(16, CLOSED, "accepted", {"key": CLOSED, "step": "?"})]},
        ),
    ],
)  # fmt: skip
def test_the_audit_reports(law: str, changed: dict[str, Any]) -> None:
    found = audit(**{"arrivals": ALL} | changed).problems
    assert any(law in each for each in found), found


@pytest.mark.parametrize(
    ("again", "faults", "is_right"),
    [
        (55.0, (), True),  # the next holder could not know
        (30.0, ((13.0, 7),), True),  # it was killed or suspended during the attempt
        (30.0, ((20.0, 7),), True),
        (30.0, ((5.0, 7),), False),  # long before
        (30.0, ((31.0, 7),), False),  # afterwards
        (30.0, ((13.0, 8),), False),  # another daemon, without an attempt
    ],
)
def test_a_repeated_notification_needs_a_fault(
    again: float, faults: Sequence[tuple[float, int]], is_right: bool
) -> None:
    found = audit([*ALL, arrival(again, CLOSED)], faults=faults)
    assert found.repeated == 1
    assert (found.problems == []) is is_right


def test_a_resumed_former_holder_may_send_again() -> None:
    assert audit([*ALL[:3], arrival(52, CLOSED), arrival(55, CLOSED)], faults=[(48.0, 7)]).problems == []
    assert audit([*ALL[:3], arrival(52, CLOSED), arrival(55, CLOSED)]).problems != []
