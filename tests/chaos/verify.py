"""The invariants, checked after a run on the database, the broker's log, the daemons' logs and the journal.

I1, I2, I4   the oracle: windows, doubles, conservation (tests/oracle/check.py)
I3           some thousand stored scores, recomputed in one batch by the version in their row
I5, I7       the journal: offsets and epochs only rise; only the owner writes, results and offset together
I6           each required notification arrived, and twice only for a reason (notifications.py)
I8           no daemon logged that a rebuild led to another state, or that an invariant broke
I9           each version in a row exists, its folder verifies, and it was active at the window's end
I10          aliases, states and activations follow from the registry's history; no rejected version decided a window
"""

from __future__ import annotations

import random
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from monitor.models.detector import TrainedModel
from monitor.stream.sensor_health import SensorTests
from tests.chaos import journal, notifications
from tests.oracle.check import check, compare_scores, stored_rows
from tests.oracle.log import rules_from
from tests.oracle.registry import activation_problems, registry_problems

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from tests.chaos.figures import Figures
    from tests.chaos.receiver import Arrival
    from tests.daemon_process import Deployment
    from tests.oracle.log import RawRecord

FORBIDDEN = re.compile(r"digest|differs|invariant|mismatch", re.IGNORECASE)
"""Pattern in the name of a forbidden event."""
HARMLESS_ERRORS = ("aiokafka", "asyncio")
"""Loggers of libraries, which log an outage as an error."""
EXPECTED = ("loop_blocked", "partitions_at_risk")
"""Events of the watchdog about a loop that a hook blocked."""
BATCH = 1024


def verify(
    figures: Figures,
    deployment: Deployment,
    logs: dict[tuple[str, int], list[RawRecord]],
    events: Iterable[dict[str, Any]],
    arrivals: Sequence[Arrival],
    faults: Iterable[tuple[float, int]],
) -> None:
    """Write the results into the figures. `faults`: (time, pid) of each kill and suspension of a daemon."""
    is_postgresql = deployment.config.store.url.startswith("postgresql")
    rules = rules_from(deployment.config)
    rows = stored_rows(deployment.fetch)
    report = check(rows, logs, rules)
    compare_scores(report, rows, rules, _Scorer(deployment), random.Random(figures.seed))

    n_records = sum(map(len, logs.values()))
    if report.compared["records"] != n_records:
        figures.problems.append(f"I4: {n_records} records in the log, {report.compared['records']} accounted for")
    for kind, texts in report.problems.items():
        figures.problems += [f"{kind}: {text}" for text in texts]
    figures.lost += len(report.problems.get("missing", ()))
    figures.doubled += len(report.problems.get("doubled", ())) + len(report.problems.get("extra", ()))
    for name in ("records", "windows", "late", "quarantined", "duplicate", "alerts"):
        setattr(figures, name, report.compared[name])
    figures.scores_checked = report.compared["scores"]

    figures.problems += journal.problems(deployment.fetch, is_postgresql=is_postgresql)
    report_i6 = notifications.audit(deployment.fetch, arrivals, faults)
    figures.notifications, figures.retries, figures.repeated = report_i6.delivered, report_i6.failed, report_i6.repeated
    figures.problems += report_i6.problems
    figures.problems += versions(deployment)
    figures.problems += [f"I10: {problem}" for problem in registry_problems(deployment.fetch)]
    _count_events(figures, events)


def _count_events(figures: Figures, events: Iterable[dict[str, Any]]) -> None:
    for event in events:
        name = str(event.get("event"))
        if name == "partition_claimed":
            figures.claims += 1
            figures.rebuilt += event["rebuild_from"] < event["next_offset"]
        figures.fenced += name == "fenced"
        figures.resolved += name == "commit_resolved"
        is_loud = event.get("level") in ("error", "critical") and name not in EXPECTED
        is_loud &= not str(event.get("logger")).startswith(HARMLESS_ERRORS)
        if FORBIDDEN.search(name) or is_loud or event.get("traceback"):
            figures.problems.append(f"I8: a daemon logged {str(event)[:800]}")


def versions(deployment: Deployment) -> list[str]:
    """Return problems of the versions that scores name. Loading a version compares the digest of each byte."""
    found = []
    named = {row[0] for row in deployment.fetch("SELECT DISTINCT version_id FROM score WHERE version_id IS NOT NULL")}
    known = {row[0]: row[1:] for row in deployment.fetch("SELECT id, version, path FROM model_version")}
    by_alerts = {row[0] for row in deployment.fetch("SELECT DISTINCT version FROM alert WHERE version IS NOT NULL")}
    for version in by_alerts - {version for version, _ in known.values()}:
        found.append(f"I9: alerts by version {version}, which does not exist")
    for version_id in named:
        if version_id not in known:
            found.append(f"I9: scores by version {version_id}, which does not exist")
            continue
        version, path = known[version_id]
        try:
            detector = TrainedModel.load(_folder(deployment, path))
        except Exception as error:  # noqa: BLE001  # any error means that the version does not verify
            found.append(f"I9: {version}: {error}")
            continue
        if detector.version != version:
            found.append(f"I9: the folder of {version} holds {detector.version}")
    return found + [f"I9: {problem}" for problem in activation_problems(deployment.fetch)]


def _folder(deployment: Deployment, path: str) -> Path:
    return Path(path) if Path(path).is_absolute() else deployment.config.store.checkpoints / path


class _Scorer:
    """The detectors of a deployment, by version id."""

    def __init__(self, deployment: Deployment) -> None:
        self._detectors = {
            version_id: TrainedModel.load(_folder(deployment, path))
            for version_id, path in deployment.fetch("SELECT id, path FROM model_version")
        }
        fleets = {fleet.name: fleet for fleet in deployment.config.fleets}
        self._tests = {
            version_id: SensorTests(detector.sensors, fleets[detector.card.fleet], detector)
            for version_id, detector in self._detectors.items()
        }

    def __call__(self, version_id: int, values: Sequence[Any], names: Sequence[str]) -> list[float]:
        windows = np.array(values, dtype=np.float32)  # None becomes NaN
        scores: list[float] = []
        for first in range(0, len(windows), BATCH):
            part = slice(first, first + BATCH)
            tested = self._tests[version_id].inspect(windows[part]).values
            scores += self._detectors[version_id].score(tested, names[part]).score.tolist()
        return scores
