"""A database compared with the oracle. Input: stored rows and raw logs. Output: all differences.

`check_database` reads SQLite with the standard library. For any other database, give `stored_rows` a function that
runs a SQL text and returns its rows, and call `check`.

Invariant: windows, fates and counts are computed from the logs alone, alerts from the stored scores. The only trusted
rows are the positions (`start_offset`, `next_offset`), the partition of each asset, and the scores.
"""

from __future__ import annotations

import contextlib
import json
import math
import sqlite3
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from monitor.store.evidence_chunks import decode
from tests.oracle.alerts import expected_alerts
from tests.oracle.evidence import expected_evidence, read
from tests.oracle.windows import Window, expect

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from random import Random

    from tests.oracle.log import RawRecord, Rules
    from tests.oracle.windows import Expectation

PartitionId = tuple[str, int]
Row = Sequence[Any]

FATES = ("accepted", "quarantined", "late", "duplicate", "tombstones")
UNSCORED = 2
SHOWN = 8
"""Examples of each kind of problem in a printed report."""

QUERIES = {
    "partitions": "SELECT topic, partition, start_offset, next_offset, counters FROM source_partition",
    "assets": "SELECT id, fleet, name, topic, partition FROM asset",
    "scores": (
        "SELECT asset_id, start_us, end_us, n_present, first_offset, last_offset, score, verdict, version_id"
        " FROM score ORDER BY asset_id, start_us"
    ),
    "quarantine": "SELECT topic, partition, record_offset, reason FROM quarantine",
    "alerts": (
        "SELECT id, asset_id, opened_us, closed_us, state, n_anomalous, peak_score, severity FROM alert"
        " WHERE class = 'process'"
    ),
    "transitions": (
        "SELECT alert_id, seq, alert_transition.state, at_us, alert_transition.severity"
        " FROM alert_transition JOIN alert ON alert.id = alert_id"
        " WHERE class = 'process' ORDER BY alert_id, seq"
    ),
    "evidence": "SELECT alert_id, n_cells, body FROM evidence ORDER BY alert_id, seq",
}


@dataclass
class StoredRows:
    """The tables' rows, in the columns of QUERIES."""

    partitions: list[Row] = field(default_factory=list)
    assets: list[Row] = field(default_factory=list)
    scores: list[Row] = field(default_factory=list)
    quarantine: list[Row] = field(default_factory=list)
    alerts: list[Row] = field(default_factory=list)
    transitions: list[Row] = field(default_factory=list)
    evidence: list[Row] = field(default_factory=list)


def stored_rows(fetch: Callable[[str], Sequence[Row]]) -> StoredRows:
    """Read every table through `fetch(sql) -> rows`."""
    return StoredRows(**{table: list(fetch(sql)) for table, sql in QUERIES.items()})


@dataclass
class Report:
    """All differences by kind, and the numbers of comparisons, which show a vacuous check."""

    problems: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    """Kinds: missing, doubled, extra and wrong (windows), quarantine, counters, alert, evidence, partition."""
    compared: Counter[str] = field(default_factory=Counter)
    """By name: records, windows, late, quarantined, duplicate, alerts, …"""
    expectations: Mapping[PartitionId, Expectation] = field(default_factory=dict, repr=False)
    """By partition, the expected rows for the processed part of its log."""

    @property
    def is_clean(self) -> bool:
        return not any(self.problems.values())

    def add(self, kind: str, text: str) -> None:
        self.problems[kind].append(text)

    def __str__(self) -> str:
        lines = ["compared: " + ", ".join(f"{number} {what}" for what, number in sorted(self.compared.items()))]
        for kind, texts in sorted(self.problems.items()):
            lines.append(f"{kind}: {len(texts)}")
            lines += [f"  {text}" for text in texts[:SHOWN]]
        return "\n".join(lines if self.problems else [*lines, "no difference"])


def check_database(path: Path | str, logs: Mapping[PartitionId, Sequence[RawRecord]], rules: Rules) -> Report:
    """Compare a SQLite database with the logs of its partitions."""
    uri = f"{Path(path).resolve().as_uri()}?mode=ro"
    with contextlib.closing(sqlite3.connect(uri, uri=True)) as connection:
        rows = stored_rows(lambda sql: connection.execute(sql).fetchall())
    return check(rows, logs, rules)


def check(rows: StoredRows, logs: Mapping[PartitionId, Sequence[RawRecord]], rules: Rules) -> Report:
    """Compare rows with the logs of their partitions, up to the stored `next_offset`."""
    report = Report()
    expectations = report.expectations = _compare_counters(report, rows, logs, rules)
    _compare_windows(report, rows, expectations, rules)
    _compare_quarantine(report, rows, expectations)
    _compare_alerts(report, rows, rules)
    _compare_evidence(report, rows, expectations)
    return report


def _compare_counters(
    report: Report, rows: StoredRows, logs: Mapping[PartitionId, Sequence[RawRecord]], rules: Rules
) -> dict[PartitionId, Expectation]:
    home = {name: (topic, number) for _, _, name, topic, number in rows.assets}
    seen = Counter((topic, number) for topic, number, *_ in rows.partitions)
    for where, n_rows in seen.items():
        if n_rows > 1:
            report.add("doubled", f"{n_rows} rows of partition {where}")
        if where not in logs:
            report.add("partition", f"{where} is in the database but was never written to")
    for where, log in logs.items():
        if log and where not in seen:
            report.add("partition", f"{where} holds {len(log)} records and was never claimed")

    expectations: dict[PartitionId, Expectation] = {}
    n_rows_of = Counter(home_of for _, home_of in _rows_with_partition(rows))
    for topic, number, start_offset, next_offset, counters in rows.partitions:
        where = (topic, number)
        if where not in logs or next_offset is None:
            continue
        read = [record for record in logs[where] if (start_offset or 0) <= record[0] < next_offset]
        foreign = frozenset(name for name, place in home.items() if place != where)
        expected = expectations[where] = expect(read, rules, topic, foreign)
        stored = json.loads(counters) if isinstance(counters, str) else dict(counters)
        for fate in ("records", *FATES):
            if stored.get(fate, 0) != expected.counts[fate]:
                report.add("counters", f"{where} {fate}: {stored.get(fate, 0)}, must be {expected.counts[fate]}")
            report.compared[fate] += expected.counts[fate]
        if stored.get("records", 0) != sum(stored.get(fate, 0) for fate in FATES):
            report.add("counters", f"{where} does not conserve records: {stored}")
        if stored.get("windows", 0) != n_rows_of[where]:
            report.add("counters", f"{where} windows: {stored.get('windows', 0)}, rows: {n_rows_of[where]}")
    return expectations


def _rows_with_partition(rows: StoredRows) -> list[tuple[Row, PartitionId | None]]:
    home = {asset_id: (topic, number) for asset_id, _, _, topic, number in rows.assets}
    return [(row, home.get(row[0])) for row in rows.scores]


def _compare_windows(
    report: Report, rows: StoredRows, expectations: Mapping[PartitionId, Expectation], rules: Rules
) -> None:
    names = {asset_id: (fleet, name) for asset_id, fleet, name, _, _ in rows.assets}
    for name, n_rows in Counter((fleet, name) for _, fleet, name, _, _ in rows.assets).items():
        if n_rows > 1:
            report.add("doubled", f"{n_rows} rows of asset {name}")

    stored: dict[tuple[PartitionId, str, str, int], tuple[int, int, int]] = {}
    for row, where in _rows_with_partition(rows):
        asset_id, start_us, end_us, n_present, first_offset, last_offset, score, verdict, _ = row
        if where is None:
            report.add("extra", f"score of unknown asset {asset_id} at {start_us}")
            continue
        fleet, name = names[asset_id]
        key = (where, fleet, name, start_us)
        if key in stored:
            report.add("doubled", f"window {key}")
        stored[key] = (n_present, first_offset, last_offset)
        rule = rules.fleet(fleet)
        if end_us != start_us + rule.length * rule.interval_us:
            report.add("wrong", f"window {key}: ends at {end_us}")
        right = UNSCORED if score is None or math.isnan(score) else int(score >= 1)
        if verdict != right:
            report.add("wrong", f"window {key}: verdict {verdict} for score {score}")

    expected = {
        (where, of_log.fleet_of[asset], asset, start_us): facts
        for where, of_log in expectations.items()
        for (asset, start_us), facts in of_log.windows.items()
    }
    report.compared["windows"] += len(expected)
    for key, facts in expected.items():
        if key not in stored:
            report.add("missing", f"window {key}: {facts}")
        elif stored[key] != facts:
            report.add("wrong", f"window {key}: (n_present, first, last) is {stored[key]}, must be {facts}")
    for key in stored:
        if key not in expected:
            report.add("extra", f"window {key}: {stored[key]}")


def _compare_quarantine(report: Report, rows: StoredRows, expectations: Mapping[PartitionId, Expectation]) -> None:
    """Compare the rows of rejected and late records. The reason begins with its stable word.

    For each partition and word, the first 10,000 records have a row, then each hundredth.
    """
    stored: dict[tuple[PartitionId, int], list[str]] = defaultdict(list)
    for topic, number, offset, reason in rows.quarantine:
        stored[((topic, number), offset)].append(reason.split(":")[0])
    expected = {}
    for where, of_log in expectations.items():
        counts: Counter[str] = Counter()
        for offset, word in sorted(of_log.quarantine.items()):
            counts[word] += 1
            if counts[word] <= 10_000 or counts[word] % 100 == 0:
                expected[where, offset] = word
    for key, words in stored.items():
        if len(words) > 1:
            report.add("doubled", f"quarantine of {key}: {words}")
        if key not in expected:
            report.add("quarantine", f"{key} is there as {words[0]} but is a good record")
        elif set(words) != {expected[key]}:
            report.add("quarantine", f"{key} is there as {words[0]}, must be {expected[key]}")
    for key, word in expected.items():
        if key not in stored:
            report.add("quarantine", f"{key} must be there as {word}")


def _compare_alerts(report: Report, rows: StoredRows, rules: Rules) -> None:
    names = {asset_id: (fleet, name) for asset_id, fleet, name, _, _ in rows.assets}
    series: dict[int, list[tuple[int, float | None]]] = defaultdict(list)
    for asset_id, _, end_us, _, _, _, score, *_ in sorted(rows.scores, key=lambda row: (row[0], row[2])):
        series[asset_id].append((end_us, score))
    steps: dict[int, list[tuple[str, int]]] = defaultdict(list)
    severities: dict[int, list[str]] = defaultdict(list)
    for alert_id, seq, state, at_us, severity in sorted(rows.transitions, key=lambda row: (row[0], row[1])):
        steps[alert_id].append((state, at_us))
        severities[alert_id].append(severity)
        if seq != len(steps[alert_id]):
            report.add("alert", f"alert {alert_id}: step {len(steps[alert_id])} is numbered {seq}")

    stored: dict[tuple[int, int], Row] = {}
    for row in rows.alerts:
        key = (row[1], row[2])
        if key in stored:
            report.add("doubled", f"alert of {names.get(key[0])} opened {key[1]}")
        stored[key] = row
    for asset_id, windows in series.items():
        if asset_id not in names:
            continue  # reported with the windows
        fleet, name = names[asset_id]
        rule = rules.fleet(fleet)
        for alert in expected_alerts(name, windows, rule.confirm, rule.recover):
            report.compared["alerts"] += 1
            if (asset_id, alert.opened_us) not in stored:
                report.add("alert", f"missing: {alert}")
                continue
            row = stored.pop((asset_id, alert.opened_us))
            alert_id, _, _, closed_us, state, n_anomalous, peak_score, severity = row
            found = (closed_us, state, n_anomalous, steps.pop(alert_id, []), severity, severities[alert_id])
            last = alert.transitions[-1][0]
            right = (alert.closed_us, last, alert.n_anomalous, alert.transitions, alert.severity, alert.severities)
            if found != right or not math.isclose(peak_score, alert.peak_score, rel_tol=1e-6):
                report.add("alert", f"{name} opened {alert.opened_us}: {found} peak {peak_score}, must be {alert}")
    for (asset_id, opened_us), row in stored.items():
        report.add("alert", f"{names.get(asset_id)} opened {opened_us}: no such alert follows from the scores")
        steps.pop(row[0], None)
    for alert_id in steps:
        report.add("alert", f"steps of alert {alert_id}, which does not exist")


def _compare_evidence(report: Report, rows: StoredRows, expectations: Mapping[PartitionId, Expectation]) -> None:
    """Compare the evidence of each alert with the readings of the log and the stored scores."""
    names = {asset_id: (fleet, name, (topic, number)) for asset_id, fleet, name, topic, number in rows.assets}
    windows: dict[int, list[tuple[int, int, float | None]]] = defaultdict(list)
    for asset_id, start_us, end_us, _, _, _, score, *_ in sorted(rows.scores, key=lambda row: (row[0], row[1])):
        windows[asset_id].append((start_us, end_us, score))
    fired = {alert_id: at_us for alert_id, seq, _, at_us, *_ in rows.transitions if seq == 1}
    bodies: dict[int, list[bytes]] = defaultdict(list)
    for alert_id, n_cells, body in rows.evidence:
        bodies[alert_id].append(body)
        if n_cells != (n_found := len(decode(bytes(body)).evidence.cell_us)):
            report.add("evidence", f"alert {alert_id}: {n_cells} cells by its row, {n_found} by its body")
    for alert_id, asset_id, opened_us, closed_us, *_ in rows.alerts:
        fleet, name, where = names.get(asset_id, ("", "", ("", -1)))
        chunks = bodies.pop(alert_id, None)
        shard = expectations[where].shards.get(fleet) if where in expectations else None
        if shard is None or name not in shard.cells or alert_id not in fired:
            continue  # reported with the windows, or with the alerts
        if chunks is None:
            report.add("evidence", f"{name} opened {opened_us}: none")
            continue
        right = expected_evidence(shard, name, windows[asset_id], fired[alert_id], closed_us)
        found = read(chunks)
        report.compared["evidence"] += 1
        report.compared["evidence cells"] += right.n_cells
        report.compared["thinned evidence"] += right.n_cells > len(right.cells)
        order = [found.sensors.index(sensor) if sensor in found.sensors else None for sensor in shard.rule.sensors]
        cells = [(at_us, [None if c is None else values[c] for c in order]) for at_us, values in found.cells]
        if [at_us for at_us, _ in cells] != [at_us for at_us, _ in right.cells]:
            times = [at_us for at_us, _ in cells], [at_us for at_us, _ in right.cells]
            report.add("evidence", f"{name} opened {opened_us}: cells {times[0]}, must be {times[1]}")
        elif not all(_is_same(a, b) for (_, a), (_, b) in zip(cells, right.cells, strict=True)):
            report.add("evidence", f"{name} opened {opened_us}: {cells}, must be {right.cells}")
        ends = [end_us for end_us, _ in found.scores], [end_us for end_us, _ in right.scores]
        scores = [score for _, score in found.scores], [score for _, score in right.scores]
        if ends[0] != ends[1] or not all(map(_is_near, *scores)):
            report.add("evidence", f"{name} opened {opened_us}: scores {found.scores}, must be {right.scores}")
        if len(cells) >= 4 * shard.rule.length:
            report.add("evidence", f"{name} opened {opened_us}: {len(cells)} cells are more than four windows")
    for alert_id in bodies:
        report.add("evidence", f"of alert {alert_id}, which does not exist")


def _is_same(found: Sequence[float | None], right: Sequence[float | None]) -> bool:
    return all((a is None) == (b is None) and (a is None or _is_near(a, b)) for a, b in zip(found, right, strict=True))


def _is_near(found: float, right: float | None) -> bool:
    return right is not None and math.isclose(found, right, rel_tol=1e-6, abs_tol=1e-30)


# ---------------------------------------------------------------- the scores themselves

def compare_scores(
    report: Report, rows: StoredRows, rules: Rules, score: Callable[[int, list[Any], list[str]], Sequence[float]],
    rng: Random, n_sampled: int = 3_000, tolerance: float = 1e-5,
) -> None:  # fmt: skip
    """Recompute some stored scores from the log, in one batch per version.

    `score(version_id, values, names)` returns a score for each window. `values`: windows of cells of sensors, None =
    missing. `names`: of their assets, which may have thresholds or scales of their own.
    """
    names = {asset_id: (fleet, name, (topic, number)) for asset_id, fleet, name, topic, number in rows.assets}
    scored = [row for row in rows.scores if row[6] is not None and row[0] in names]
    by_version: dict[int, list[tuple[Row, list[list[float | None]]]]] = defaultdict(list)
    for row in rng.sample(scored, min(n_sampled, len(scored))):
        asset_id, start_us, version_id = row[0], row[1], row[8]
        fleet, name, where = names[asset_id]
        rule = rules.fleet(fleet)
        expected = report.expectations.get(where)
        if version_id is None or expected is None or fleet not in expected.shards or name not in expected.fleet_of:
            report.add("score", f"{name} at {start_us}: no version, or no log to compute it from")
            continue
        window = Window(name, start_us // rule.interval_us, 0, 0, 0)
        by_version[version_id].append((row, expected.shards[fleet].values(window)))
    for version_id, chosen in by_version.items():
        again_of = score(version_id, [values for _, values in chosen], [names[row[0]][1] for row, _ in chosen])
        for (row, _), again in zip(chosen, again_of, strict=True):
            report.compared["scores"] += 1
            if not math.isclose(row[6], again, rel_tol=tolerance):
                report.add("score", f"{names[row[0]][1]} at {row[1]}: {row[6]} by version {version_id}, is {again}")
