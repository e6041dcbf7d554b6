"""The nemesis's own eyes: each thing that must not be in a journal is seen, and a score that no batch gives is seen."""

from __future__ import annotations

import random
import re
import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING

import pytest
import sqlalchemy

from monitor.store.tables import metadata
from tests.nemesis import journal
from tests.nemesis.figures import Figures, table, write
from tests.nemesis.stage import Fault, recovery, silence
from tests.nemesis.traffic import traffic
from tests.oracle.check import StoredRows, check, compare_scores
from tests.oracle.log import FleetRule, Rules
from tests.oracle.windows import judge

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PLACE = "WHERE topic = 'plant' AND partition = 0"
CLAIM = "UPDATE source_partition SET epoch = epoch + 1, owner = 'host:2' " + PLACE
SAVE = "UPDATE source_partition SET next_offset = next_offset + 10 " + PLACE


@pytest.fixture
def database(tmp_path: Path) -> Iterator[sqlite3.Connection]:
    """A partition that was claimed and has saved twice, with the journal of it."""
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


def test_a_sound_journal_has_claims_and_saves_and_no_problem(database: sqlite3.Connection) -> None:
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
def test_the_journal_shows(database: sqlite3.Connection, law: str, statement: str) -> None:
    database.execute(statement + PLACE)
    found = problems(database)
    assert found
    assert any(re.search(law, each) for each in found), found


# ---------------------------------------------------------------- times


def move(at: float, partition: int, owner: str, *, claims: bool = False) -> journal.Move:
    return journal.Move(at, ("plant", partition), owner, 1 - claims, 1, 5, 5 if claims else 9, None, "{}")


def test_a_recovery_ends_with_the_last_partition_that_moves_again() -> None:
    moves = [
        move(1, 0, "host:7", claims=True), move(1, 1, "host:7", claims=True), move(1, 2, "host:8", claims=True),
        move(3, 0, "host:7"), move(11, 0, "host:8"), move(12, 2, "host:8"), move(14, 1, "host:8"),
        move(20, 0, "host:8"),
    ]  # fmt: skip
    assert recovery(moves, Fault("kill", 10, 7)) == 4
    assert recovery(moves, Fault("kill", 10, 9)) is None
    assert silence(moves, 10) == 4
    assert silence(moves, 13) is None, "one partition is silent for good"


# ---------------------------------------------------------------- scores

RULE = FleetRule("turbines", ("power", "wind"), 60_000_000, length=4, assets=("R*",), lateness_cells=1)


def test_a_stored_score_that_no_batch_gives_is_seen() -> None:
    rules = Rules((RULE,))
    log = [
        (offset, at_ms * 1000, key, value)
        for offset, (_, key, value, at_ms) in enumerate(traffic(1, 400, 1, n_assets=4))
    ]
    verdict = judge(log, rules)
    names = sorted(verdict.fleet_of)
    lane = verdict.lanes["turbines"]
    rows = StoredRows(
        partitions=[("plant", 0, 0, len(log), verdict.counts)],
        assets=[(number, "turbines", name, "plant", 0) for number, name in enumerate(names)],
        scores=[
            (
                names.index(window.asset), window.start * RULE.interval_us, 0, 0, 0, 0,
                mean(lane.values(window)), 0, 1,
            )
            for window in lane.windows()
        ],
    )  # fmt: skip

    def compared(rows: StoredRows) -> tuple[int, list[str]]:
        report = check(rows, {("plant", 0): log}, rules)
        compare_scores(report, rows, rules, lambda _, values: [mean(each) for each in values], random.Random(0))
        return report.compared["scores"], report.problems["score"]

    assert compared(rows) == (len(rows.scores), [])
    *facts, score, verdict_, version = rows.scores[7]
    rows.scores[7] = (*facts, score + 1e-3 * max(1, abs(score)), verdict_, version)
    assert len(compared(rows)[1]) == 1


def mean(values: list[list[float | None]]) -> float:
    numbers = [number for cell in values for number in cell if number is not None]
    return sum(numbers) / len(numbers)


# ---------------------------------------------------------------- traffic, figures


def test_one_seed_is_one_traffic_and_another_is_another() -> None:
    assert list(traffic(5, 3_000, 6)) == list(traffic(5, 3_000, 6))
    assert list(traffic(5, 3_000, 6)) != list(traffic(6, 3_000, 6))


def test_traffic_is_hard_enough() -> None:
    log = [
        (offset, at_ms * 1000, key, value)
        for offset, (place, key, value, at_ms) in enumerate(traffic(2, 20_000, 6))
        if place == 1
    ]
    counts = judge(log, Rules((RULE,))).counts
    for fate in ("accepted", "late", "quarantined", "duplicate"):
        assert counts[fate] > 5, counts


def test_a_violation_and_a_run_that_broke_nothing_are_both_no_good(tmp_path: Path) -> None:
    good = Figures("a", 1, records=10)
    bad = Figures("a", 2, records=5, problems=["missing: x"], vacuous=["no fenced"])
    assert good.is_good
    assert not bad.is_good
    assert not Figures("a", 3, vacuous=["no fenced"]).is_good
    assert "missing: x" in table([good, bad])
    assert "15" in table([good, bad]).splitlines()[3], "the sum of both"
    write(tmp_path / "report.json", [good, bad])
    assert '"missing: x"' in (tmp_path / "report.json").read_text()
