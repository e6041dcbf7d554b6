"""The check of a database: no difference in a correct one, and each defect is found."""

from __future__ import annotations

import contextlib
import json
import shutil
import sqlite3
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import sqlalchemy

from monitor.explain import Evidence
from monitor.store import evidence_chunks
from monitor.store.evidence_chunks import Chunk, decode
from monitor.store.tables import metadata
from tests.acceptance.records import encode
from tests.acceptance.streams import delayed, gapped, regular, repeated
from tests.oracle.alerts import expected_alerts
from tests.oracle.check import QUERIES, check, check_database, stored_rows
from tests.oracle.evidence import expected_evidence
from tests.oracle.log import FleetRule, Rules
from tests.oracle.windows import expect

if TYPE_CHECKING:
    from tests.oracle.log import RawRecord
    from tests.oracle.windows import ExpectedShard

S = 1_000_000
PARTITIONS = [("plant", 0), ("plant", 1)]


Logs = dict[tuple[str, int], list["RawRecord"]]


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Logs, Rules]:
    path = tmp_path_factory.mktemp("oracle") / "m.db"
    return path, *write_sound_database(path)


@pytest.fixture
def sound(tmp_path: Path, original: tuple[Path, Logs, Rules]) -> tuple[Path, Logs, Rules]:
    """Return a copy to damage."""
    path, logs, rules = original
    return Path(shutil.copy(path, tmp_path / "m.db")), logs, rules


def write_sound_database(path: Path) -> tuple[Logs, Rules]:
    """Write the correct rows into the real schema. Return the logs."""
    rng = Random(12)
    rule = FleetRule("turbines", ("power", "wind"), 60 * S, length=4, lateness_cells=3, max_gap_cells=1, assets=("R*",))
    rules = Rules((rule,))
    engine = sqlalchemy.create_engine(f"sqlite:///{path}")
    metadata.create_all(engine)
    engine.dispose()
    logs: Logs = {}
    with contextlib.closing(sqlite3.connect(path)) as db, db:
        db.execute("INSERT INTO fleet (name) VALUES ('turbines')")
        ids: dict[str, int] = {}
        for topic, number in PARTITIONS:
            log = logs[(topic, number)] = troubled_log(rng, rule, [f"R{number}1", f"R{number}2"])
            start, end = log[0][0], log[len(log) * 3 // 4][0]
            expected = expect([record for record in log if record[0] < end], rules)
            counters = json.dumps(expected.counts | {"windows": len(expected.windows)})
            insert(db, "source_partition", pipeline="monitor", topic=topic, partition=number, epoch=1, owner="me",
                   start_offset=start, next_offset=end, rewind_state="{}", counters=counters)  # fmt: skip
            for offset, word in expected.quarantine.items():
                insert(db, "quarantine", topic=topic, partition=number, record_offset=offset, reason=f"{word}: so",
                       sample=b"", at_us=0, saved_us=0)  # fmt: skip
            for asset in expected.fleet_of:
                ids[asset] = len(ids) + 1
                insert(db, "asset", id=ids[asset], fleet="turbines", name=asset, topic=topic, partition=number)
            series: dict[str, list[tuple[int, float | None]]] = {asset: [] for asset in expected.fleet_of}
            for (asset, start_us), (n_present, first, last) in sorted(expected.windows.items()):
                score = rng.choice([None, 0.5, 0.5, 1.0, 2.5])
                series[asset].append((start_us + 240 * S, score))
                insert(db, "score", asset_id=ids[asset], start_us=start_us, end_us=start_us + 240 * S, score=score,
                       verdict=2 if score is None else int(score >= 1), n_present=n_present, first_offset=first,
                       last_offset=last)  # fmt: skip
            for asset, windows in series.items():
                store_alerts(db, ids[asset], asset, windows, expected.shards["turbines"])
    return logs, rules


def troubled_log(rng: Random, rule: FleetRule, assets: list[str]) -> list[RawRecord]:
    samples = repeated(rng, delayed(rng, gapped(rng, regular(rng, rule, assets, 80), rule), rule))
    return encode(rng, samples, Rules((rule,)), bad_share=0.1)


def store_alerts(
    db: sqlite3.Connection, asset_id: int, asset: str, windows: list[tuple[int, float | None]], shard: ExpectedShard
) -> None:
    rule = shard.rule
    for alert in expected_alerts(asset, windows, rule.confirm, rule.recover):
        alert_id = insert(
            db, "alert", asset_id=asset_id, opened_us=alert.opened_us, closed_us=alert.closed_us,
            state=alert.transitions[-1][0], severity="warning", updated_us=0, peak_score=alert.peak_score, peak_us=0,
            n_anomalous=alert.n_anomalous, sensors="[]", version="v",
        )  # fmt: skip
        for seq, (state, at_us) in enumerate(alert.transitions, 1):
            insert(db, "alert_transition", alert_id=alert_id, seq=seq, state=state, severity="warning", at_us=at_us,
                   peak_score=0, n_anomalous=0)  # fmt: skip
        scored = [(end_us - 240 * S, end_us, score) for end_us, score in windows]
        kept = expected_evidence(shard, asset, scored, alert.transitions[0][1], alert.closed_us)
        cells = np.array([at_us for at_us, _ in kept.cells])
        values = np.array([row for _, row in kept.cells], np.float32)  # None becomes NaN
        ends, scores = (np.array(column) for column in zip(*kept.scores, strict=True))
        chunk = Chunk(Evidence(rule.sensors, cells, values, values, ends, scores.astype(np.float32)), 4 * rule.length)
        insert(db, "evidence", alert_id=alert_id, seq=1, n_cells=len(cells), body=evidence_chunks.encode(chunk))


def damaged_evidence(body: bytes, what: str) -> bytes:
    """Return a chunk with one defect."""
    chunk = decode(body)
    part = chunk.evidence
    match what:
        case "cell":
            part = replace(part, cell_us=part.cell_us[1:], values=part.values[1:], expected=part.expected[1:])
        case "value":
            values = part.values.copy()
            values[2, 1] = 0.125
            part = replace(part, values=values)
        case "score":
            part = replace(part, score=part.score + np.float32(0.25))
        case "window":
            part = replace(part, score=part.score[:-1], end_us=part.end_us[:-1])
    return evidence_chunks.encode(chunk._replace(evidence=part))


def insert(db: sqlite3.Connection, table: str, **row: Any) -> int | None:
    marks = ", ".join("?" for _ in row)
    return db.execute(f"INSERT INTO {table} ({', '.join(row)}) VALUES ({marks})", tuple(row.values())).lastrowid


def test_a_correct_database_has_no_difference(sound: tuple[Path, Logs, Rules]) -> None:
    path, logs, rules = sound
    report = check_database(path, logs, rules)
    assert report.is_clean, str(report)
    for name in ("records", "windows", "late", "quarantined", "duplicate", "tombstones", "alerts", "evidence"):
        assert report.compared[name] > 0, name


ONE = "WHERE (asset_id, start_us) IN (SELECT asset_id, start_us FROM score LIMIT 1 OFFSET 9)"
Q = "topic, partition, record_offset, reason, sample, at_us, saved_us"
MUTATIONS = {
    "a lost window": ("missing", f"DELETE FROM score {ONE}"),
    "a shifted window": ("extra", f"UPDATE score SET start_us = start_us + 1, end_us = end_us + 1 {ONE}"),
    "a wrong first offset": ("wrong", f"UPDATE score SET first_offset = first_offset + 1 {ONE}"),
    "a wrong last offset": ("wrong", f"UPDATE score SET last_offset = last_offset - 1 {ONE}"),
    "a wrong count of cells": ("wrong", f"UPDATE score SET n_present = n_present - 1 {ONE}"),
    "a wrong end": ("wrong", f"UPDATE score SET end_us = end_us + 1 {ONE}"),
    "a verdict against its score": ("wrong", f"UPDATE score SET verdict = 1 - (verdict = 1) {ONE}"),
    "a window of another asset": ("missing", "UPDATE asset SET name = 'R99' WHERE id = 1"),
    "an asset in the wrong partition": ("quarantine", "UPDATE asset SET partition = 1 - partition WHERE id = 1"),
    "a lost quarantine row": ("quarantine", "DELETE FROM quarantine WHERE id = 2"),
    "a wrong reason": ("quarantine", "UPDATE quarantine SET reason = 'too_odd: x' WHERE id = 2"),
    "a good record in quarantine": ("quarantine", "UPDATE quarantine SET record_offset = -5 WHERE id = 2"),
    "a position ahead of the results": ("missing", "UPDATE source_partition SET next_offset = next_offset + 20"),
    "results ahead of the position": ("extra", "UPDATE source_partition SET next_offset = next_offset - 20"),
    "a record not counted": (
        "counters",
        "UPDATE source_partition SET counters = json_set(counters, '$.accepted', counters ->> '$.accepted' - 1)",
    ),
    "windows counted twice": (
        "counters",
        "UPDATE source_partition SET counters = json_set(counters, '$.windows', 2 * (counters ->> '$.windows'))",
    ),
    "an unclaimed partition": ("partition", "DELETE FROM source_partition WHERE partition = 1"),
    "a lost alert": ("alert", "DELETE FROM alert WHERE id = 1"),
    "an alert at another time": ("alert", "UPDATE alert SET opened_us = opened_us + 1 WHERE id = 1"),
    "an alert closed at another time": (
        "alert",
        "UPDATE alert SET closed_us = coalesce(closed_us, 0) + 1 WHERE id = 1",
    ),
    "an alert's count": ("alert", "UPDATE alert SET n_anomalous = n_anomalous + 1 WHERE id = 1"),
    "an alert's peak": ("alert", "UPDATE alert SET peak_score = peak_score + 1 WHERE id = 1"),
    "a lost step": ("alert", "DELETE FROM alert_transition WHERE alert_id = 1 AND seq = 1"),
    "a step at another time": ("alert", "UPDATE alert_transition SET at_us = at_us + 1 WHERE alert_id = 1 AND seq = 1"),
    "lost evidence": ("evidence", "DELETE FROM evidence WHERE alert_id = 1"),
    "evidence of another alert": (
        "evidence",
        "UPDATE evidence SET body = (SELECT body FROM evidence WHERE alert_id = 2) WHERE alert_id = 1",
    ),
    "a chunk twice": ("evidence", "INSERT INTO evidence SELECT alert_id, 2, n_cells, body FROM evidence"),
    "a changed score": ("alert", "UPDATE score SET score = 0.1, verdict = 0 WHERE verdict = 1 AND asset_id = 1"),
}


@pytest.mark.parametrize("name", MUTATIONS)
def test_the_check_finds(sound: tuple[Path, Logs, Rules], name: str) -> None:
    path, logs, rules = sound
    kind, sql = MUTATIONS[name]
    with contextlib.closing(sqlite3.connect(path)) as db, db:
        assert db.execute(sql).rowcount > 0
    report = check_database(path, logs, rules)
    assert report.problems[kind], str(report)


@pytest.mark.parametrize("what", ["cell", "value", "score", "window"])
def test_the_check_finds_damaged_evidence(sound: tuple[Path, Logs, Rules], what: str) -> None:
    path, logs, rules = sound
    with contextlib.closing(sqlite3.connect(path)) as db, db:
        (body,) = db.execute("SELECT body FROM evidence WHERE alert_id = 2").fetchone()
        db.execute("UPDATE evidence SET body = ? WHERE alert_id = 2", (damaged_evidence(body, what),))
    assert check_database(path, logs, rules).problems["evidence"]


@pytest.mark.parametrize("table", ["scores", "partitions", "assets", "alerts", "quarantine"])
def test_doubled_rows_are_found_without_a_primary_key(sound: tuple[Path, Logs, Rules], table: str) -> None:
    path, logs, rules = sound
    with contextlib.closing(sqlite3.connect(path)) as db:
        rows = stored_rows(lambda sql: db.execute(sql).fetchall())
    getattr(rows, table).append(getattr(rows, table)[-1])
    assert check(rows, logs, rules).problems["doubled"]


def test_every_query_reads_something(sound: tuple[Path, Logs, Rules]) -> None:
    path, *_ = sound
    with contextlib.closing(sqlite3.connect(path)) as db:
        for table, sql in QUERIES.items():
            assert db.execute(sql).fetchall(), table
