"""The stored rows of a finished simulation, compared with the oracle. Each difference is one sentence.

Compared are windows with their offsets, fates and counts of records, quarantine, gaps, alerts, evidence, notifications,
scores, the version of each score, and the registry with its history. If retention removed records that a rebuild
needed, the windows of that partition are incomplete. Then the check is weaker: no window twice, alerts that follow from
the scores, one fate for each record.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING
from urllib.parse import quote

from monitor.store import assets
from monitor.types import Severity
from tests.oracle.alerts import expected_alerts
from tests.oracle.check import check, stored_rows
from tests.oracle.evidence import read
from tests.oracle.registry import registry_problems
from tests.oracle.sensors import expected_sensor_alerts
from tests.simulation.clockwork import START_US
from tests.simulation.tables import Tables

if TYPE_CHECKING:
    from monitor.types import Partition
    from tests.oracle.check import Report, StoredRows
    from tests.simulation.simulation import Simulation

FAR_US = 3 * 86_400_000_000
"""Longer than a run and the jumps of its clocks."""
FROM_THE_LOG = ("asset_limit", "records_lost")
"""Kinds of data alerts that are functions of the log. Those of single assets begin anew with each process."""
ALWAYS_CHECKED = ("doubled", "alert")
"""Kinds of problems that are reported for incomplete partitions, too."""


def score_of(total: float, start: int, version: str) -> float:
    """Score a window by the sum of its values, its first cell and the version. One in five is anomalous."""
    argument = total + start + sum(version.encode())
    return abs(math.sin(argument)) * (4 if math.sin(3 * argument) > 0.95 else 1.25)


def expected_of(value: float) -> float:
    """Return the value that the scorer expects in place of this one."""
    return value * 1.5 + 1


def finding_of(start: int, sensor: str) -> int:
    """Return the finding about a sensor in a window, by its first cell: for some windows in a row, now and then.

    The numbers are those of `Scores.findings`: 0 = healthy, 255 = not tested.
    """
    draw = math.sin(17.0 * (start // 6) + sum(sensor.encode()))
    if draw > 0.8:
        return 3 if start % 7 else 0
    if draw > 0.7:
        return 1
    return 255 if draw < -0.95 else 0


def verify(simulation: Simulation) -> list[str]:
    """Return the problems of a simulation, and count the comparisons."""
    db, rules = Tables(simulation.database), simulation.scenario.rules
    kept = {partition: _kept(simulation, db, partition) for partition in simulation.broker.logs}
    incomplete = {
        partition
        for partition, records in kept.items()
        if _is_incomplete(simulation, db, partition, {record[0] for record in records})
    }
    simulation.counts["partitions with holes"] += len(incomplete)
    reference = simulation.without_faults() if simulation.scenario.is_limited and simulation.has_faults else None
    started_late = {
        where
        for where, log in simulation.broker.logs.items()
        if log.records and not _is_read_from_start(simulation, db, where)
    }
    not_comparable = {partition for partition, _ in db.gap} | incomplete | started_late
    if simulation.scenario.is_limited:  # the oracle does not know the limit
        incomplete = set(kept)
    rows = stored_rows(simulation.database.rows)
    report = check(
        _without(rows, incomplete), {where: log for where, log in kept.items() if where not in incomplete}, rules
    )
    _compare_scores(simulation, db, report, incomplete)
    for problem in registry_problems(simulation.database.rows):
        report.add("registry", problem)
    _compare_data_alerts(simulation, db, report)
    _compare_sensor_alerts(simulation, db, report, incomplete)
    _compare_notifications(simulation, db, report)
    _compare_expected(rows, report)
    if simulation.thinning:
        _compare_thinned(simulation, db, report)
    if incomplete:
        weaker = check(rows, {(where.topic, where.number): log for where, log in kept.items()}, rules)
        for kind, texts in weaker.problems.items():
            for text in texts:
                if kind in ALWAYS_CHECKED or "conserve" in text:
                    report.add(kind, text)
    problems = list(simulation.database.violations)
    for where, problem in simulation.suspicions:
        if problem.startswith("digest") and any(str(partition) in where for partition in incomplete):
            simulation.counts["digests ignored"] += 1
        else:
            problems.append(f"{where}: {problem}")
    problems += [f"{kind}: {text}" for kind, texts in report.problems.items() for text in texts]
    for (partition, from_offset), to_offset in db.gap.items():
        if to_offset > simulation.broker.logs[partition].first_kept:
            problems.append(f"gap: {partition} [{from_offset}, {to_offset}), but those records were still there")
    for name, number in report.compared.items():
        simulation.counts[f"compared {name}"] += number
    simulation.counts["gaps"] += len(db.gap)
    if reference is not None:
        problems += _compare_reference(simulation, db, reference, not_comparable)
        reference.database.close()
    return problems


def _compare_reference(
    simulation: Simulation, db: Tables, reference: Simulation, not_comparable: set[Partition]
) -> list[str]:
    """Compare with the run without faults, except partitions with gaps."""
    problems = []
    n_compared = 0
    facts, right = _facts(db), _facts(Tables(reference.database))
    for key in facts.keys() | right.keys():
        if key[0] not in not_comparable:
            n_compared += 1
            if facts.get(key) != right.get(key):
                problems.append(f"limited: {key} is {facts.get(key)}, without faults {right.get(key)}")
    simulation.counts["compared with reference"] += n_compared
    return problems


def _facts(db: Tables) -> dict[tuple[Partition, object], object]:
    """Return the rows that follow from the logs alone."""
    asset_of = {row.id: (row.partition, key) for key, row in db.asset.items()}
    facts: dict[tuple[Partition, object], object] = {}
    for (asset_id, start_us), score in db.score.items():
        partition, name = asset_of[asset_id]
        facts[partition, (name, start_us)] = (score.n_present, score.first_offset, score.last_offset)
    for (partition, offset), reason in db.quarantine.items():
        facts[partition, offset] = reason.partition(":")[0]
    for name, asset in db.asset.items():
        if asset.since_offset != assets.NOT_ADMITTED:  # else it is not admitted
            facts[asset.partition, name] = asset.since_offset
    for (kind, partition, offset, _), alert in db.data_alert.items():
        if kind in FROM_THE_LOG:
            facts[partition, (kind, offset)] = alert
    for partition, row in db.partition.items():
        facts[partition, "counters"] = {fate: n for fate, n in row.counters.items() if fate != "scored"}
    return facts


def _kept(
    simulation: Simulation, db: Tables, partition: Partition
) -> list[tuple[int, int, bytes | None, bytes | None]]:
    """Return the records outside of gaps."""
    gaps = [(first, end) for (where, first), end in db.gap.items() if where == partition]
    return [
        record
        for record in simulation.broker.logs[partition].records
        if not any(first <= record[0] < end for first, end in gaps)
    ]


def _is_incomplete(simulation: Simulation, db: Tables, partition: Partition, kept: set[int]) -> bool:
    """Return True if a reported gap held processed records: a rebuild missed them."""
    row = db.partition.get(partition)
    start = row.start_offset or 0 if row is not None else 0
    return any(
        first <= offset < end for first, end in simulation.broker.lost[partition] for offset in kept if offset >= start
    )


def _is_read_from_start(simulation: Simulation, db: Tables, partition: Partition) -> bool:
    row = db.partition.get(partition)
    return row is not None and row.start_offset == simulation.broker.logs[partition].records[0][0]


def _without(rows: StoredRows, incomplete: set[Partition]) -> StoredRows:
    """Return the rows of the other partitions, and all assets with their partitions."""
    if not incomplete:
        return rows
    incomplete_assets = {asset_id for asset_id, _, _, topic, number in rows.assets if (topic, number) in incomplete}
    incomplete_alerts = {row[0] for row in rows.alerts if row[1] in incomplete_assets}
    return replace(
        rows,
        partitions=[row for row in rows.partitions if (row[0], row[1]) not in incomplete],
        scores=[row for row in rows.scores if row[0] not in incomplete_assets],
        quarantine=[row for row in rows.quarantine if (row[0], row[1]) not in incomplete],
        alerts=[row for row in rows.alerts if row[0] not in incomplete_alerts],
        transitions=[row for row in rows.transitions if row[0] not in incomplete_alerts],
        evidence=[row for row in rows.evidence if row[0] not in incomplete_alerts],
    )


def _compare_thinned(simulation: Simulation, db: Tables, report: Report) -> None:
    """Check that each partition and word has its first rows in quarantine, then one in so many."""
    assert simulation.thinning is not None
    n_kept, n_sampled = simulation.thinning
    report.problems.pop("quarantine", None)
    for where, expected in report.expectations.items():
        seen: Counter[str] = Counter()
        right = {}
        for offset, word in sorted(expected.quarantine.items()):
            seen[word] += 1
            if seen[word] <= n_kept or seen[word] % n_sampled == 0:
                right[offset] = word
        found = {
            offset: reason.partition(":")[0]
            for (partition, offset), reason in db.quarantine.items()
            if partition == where
        }
        if found != right:
            report.add("quarantine", f"{where} thinned: {found}, must be {right}")


def _compare_data_alerts(simulation: Simulation, db: Tables, report: Report) -> None:
    """Check that each lost or rejected record belongs to one alert, and that only one alert of a kind is open."""
    right: Counter[tuple[str, Partition]] = Counter()
    for (partition, from_offset), to_offset in db.gap.items():
        right["records_lost", partition] += to_offset - from_offset
    for partition, row in db.partition.items():
        reasons = row.counters.get("reasons", {})
        right["asset_limit", partition] += reasons.get("too_many_assets", 0)
    found: Counter[tuple[str, Partition]] = Counter()
    n_open: Counter[tuple[str, Partition, str | None, str]] = Counter()
    for (kind, partition, _, subject), alert in db.data_alert.items():
        if kind in FROM_THE_LOG:
            found[kind, partition] += alert.change.n_records
        n_open[kind, partition, alert.change.fleet, subject] += alert.change.state != "closed"
        report.compared[f"{kind} alerts"] += 1
        simulation.counts["closed data alerts"] += alert.change.state == "closed"
    for key in right.keys() | found.keys():
        if right[key] != found[key]:
            report.add("data_alert", f"{key} is about {found[key]} records, must be {right[key]}")
    report.problems["data_alert"] += [f"{n} open of {key}" for key, n in n_open.items() if n > 1]


def _compare_sensor_alerts(simulation: Simulation, db: Tables, report: Report, incomplete: set[Partition]) -> None:
    """Check that the alerts about sensors follow from the windows, and that restarts neither lost nor doubled one."""
    right = {}
    for (fleet, name), asset in db.asset.items():
        if asset.partition in incomplete:
            continue
        rule = simulation.scenario.rules.fleet(fleet)
        windows = sorted(
            (start_us, row.end_us) for (asset_id, start_us), row in db.score.items() if asset_id == asset.id
        )
        for sensor in rule.sensors:
            tested = [
                (end_us, finding)
                for start_us, end_us in windows
                if (finding := finding_of(start_us // rule.interval_us, sensor)) != 255
            ]
            for code, kind in ((1, "dead"), (3, "stuck")):
                found = [(end_us, finding == code) for end_us, finding in tested]
                for alert in expected_sensor_alerts(found, rule.confirm, rule.recover):
                    steps = [("firing", alert.fired_us)]
                    if alert.closed_us is not None:
                        steps.append(("closed", alert.closed_us))
                    key = (kind, asset.partition, alert.opened_us, f"{name}/{sensor}")
                    right[key] = (name, sensor, tuple(steps), alert.n_windows)
    stored = {
        key: (row.asset, row.sensor, row.transitions, row.n_windows)
        for key, row in db.sensor_alert.items()
        if key[1] not in incomplete
    }
    report.compared["sensor alerts"] += len(right)
    for key in right.keys() | stored.keys():
        found_row, right_row = stored.get(key), right.get(key)
        # The number of windows of an open alert is written now and then.
        if found_row != right_row and not (
            found_row and right_row and found_row[:3] == right_row[:3] and len(right_row[2]) == 1
        ):
            report.add("sensor_alert", f"{key} is {found_row}, must be {right_row}")


def _compare_notifications(simulation: Simulation, db: Tables, report: Report) -> None:
    """Check that each channel gets the steps firing, critical and closed of each alert that it wants."""
    right = set()
    for (fleet, name), asset in db.asset.items():
        rule = simulation.scenario.rules.fleet(fleet)
        windows = sorted((row.end_us, row.score) for (asset_id, _), row in db.score.items() if asset_id == asset.id)
        for alert in expected_alerts(name, windows, rule.confirm, rule.recover):
            is_critical = alert.severities[0] == Severity.CRITICAL
            steps = [("firing", is_critical)]
            if alert.severity == Severity.CRITICAL and not is_critical:
                steps.append(("critical", True))
            if alert.closed_us is not None:
                steps.append(("closed", alert.severity == Severity.CRITICAL))
            right |= {
                f"{channel.name}:{fleet}/{name}:{alert.opened_us}:{step}"
                for step, critical in steps
                for channel in simulation.channels
                if critical or channel.min_severity is Severity.WARNING
            }
    for (kind, where, offset, subject), row in db.data_alert.items():
        about = f":{quote(subject, safe='/:')}" if subject else ""
        right |= {
            f"{channel.name}:data:{kind}/{where}:{offset}{about}:{step}"
            for step, _ in row.transitions
            for channel in simulation.channels
            if channel.wants(row.change)
        }
    for (kind, where, opened_us, subject), alert in db.sensor_alert.items():
        right |= {
            f"{channel.name}:sensor:{kind}/{where}:{opened_us}:{quote(subject, safe='/:')}:{step}"
            for step, _ in alert.transitions
            for channel in simulation.channels
            if channel.min_severity is Severity.WARNING
        }
    report.compared["notifications"] += len(right)
    for key in right ^ db.notifications:
        report.add("notification", f"{key} is {'missing' if key in right else 'there'}")


def _compare_expected(rows: StoredRows, report: Report) -> None:
    """Check that the expected values of each chunk are those of its cells. A window without a version has none."""
    for alert_id, _, body in rows.evidence:
        found = read([body])
        for (at_us, values), expected in zip(found.cells, found.expected, strict=True):
            for value, other in zip(values, expected, strict=True):
                if value is not None and other is not None:
                    report.compared["expected values"] += 1
                    if not math.isclose(other, expected_of(value), rel_tol=1e-4, abs_tol=1e-4):
                        report.add("evidence", f"alert {alert_id} at {at_us}: {other} expected for {value}")


def _compare_scores(simulation: Simulation, db: Tables, report: Report, incomplete: set[Partition]) -> None:
    """Check that each score is the one of its version, and each version the active one."""
    asset_of = {row.id: (fleet, name, row.partition) for (fleet, name), row in db.asset.items()}
    activations: dict[str, list[tuple[int, str]]] = {}
    for (fleet, from_us), version in sorted(db.activation.items()):
        activations.setdefault(fleet, []).append((from_us, version))
    totals: dict[tuple[str, str, int], float] = {}
    for expected in report.expectations.values():
        for fleet, shard in expected.shards.items():
            for window in shard.windows():
                total = sum(value for row in shard.values(window) for value in row if value is not None)
                totals[fleet, window.asset, window.start] = total
    for (asset_id, start_us), row in db.score.items():
        fleet, name, home = asset_of[asset_id]
        start = start_us // simulation.scenario.rules.fleet(fleet).interval_us
        active = next(
            (version for from_us, version in reversed(activations.get(fleet, [])) if from_us < row.end_us), None
        )
        # A window in the future does not hold up the next champion, so it may be the former one's.
        is_in_future = row.end_us > START_US + FAR_US
        known = {None, *(name for _, name in activations.get(fleet, []))}
        if row.version != active and not (is_in_future and row.version in known):
            report.add("version", f"{name} at {start_us} ends {row.end_us}: by {row.version}, active was {active}")
        if (row.score is None) != (row.version is None):
            report.add("score", f"{name} at {start_us}: {row.score} by {row.version}")
        if row.score is None or row.version is None or home in incomplete or (fleet, name, start) not in totals:
            continue
        right = score_of(totals[fleet, name, start], start, row.version)
        report.compared["scores"] += 1
        if not math.isclose(row.score, right, rel_tol=1e-5, abs_tol=1e-6):
            report.add("score", f"{name} at {start_us}: {row.score}, is {right}")
