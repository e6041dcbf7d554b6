"""A run's end: its database, the broker's log, the daemons' words and the journal, against the invariants.

    I1, I2, I4   the oracle: windows, doubles, conservation (tests/oracle/check.py)
    I3           some thousand stored scores, computed again in one batch with the version that their row names
    I5, I7       the journal: offsets and epochs never fall; only the owner writes, results and offset together
    I6           every step of an alert that people are told of arrived, and again only for a reason (letters.py)
    I8           no daemon said that a rebuild came to another state, or that an invariant broke
    I9           every version named exists, its folder verifies, and it was its turn at the window's end
"""

from __future__ import annotations

import random
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from monitor.models.detector import Detector
from tests.chaos import journal, letters
from tests.oracle.check import check, compare_scores, stored_rows
from tests.oracle.log import rules_from

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from tests.chaos.figures import Figures
    from tests.chaos.receiver import Arrival
    from tests.daemon_process import Site
    from tests.oracle.log import RawRecord

FORBIDDEN = re.compile(r"digest|differs|invariant|mismatch", re.IGNORECASE)
"""In the name of an event."""
HARMLESS_ERRORS = ("aiokafka", "asyncio")
"""Loggers of libraries, which call an outage an error."""
EXPECTED = ("loop_blocked", "partitions_at_risk")
"""What the watchdog says of a loop that we made to stand still."""
BATCH = 1024


def judge(
    figures: Figures, site: Site, logs: dict[tuple[str, int], list[RawRecord]], events: Iterable[dict[str, Any]],
    arrivals: Sequence[Arrival], struck: Iterable[tuple[float, int]],
) -> None:  # fmt: skip
    """Write into the figures what was found. `struck`: (time, pid) of each kill and standstill of a daemon."""
    is_postgresql = site.config.store.url.startswith("postgresql")
    rules = rules_from(site.config)
    rows = stored_rows(site.fetch)
    report = check(rows, logs, rules)
    compare_scores(report, rows, rules, _Scorer(site), random.Random(figures.seed))

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

    figures.problems += journal.problems(site.fetch, is_postgresql=is_postgresql)
    post = letters.account(site.fetch, arrivals, struck)
    figures.letters, figures.retries, figures.twice = post.told, post.failed, post.twice
    figures.problems += post.problems
    figures.problems += versions(site)
    _listen(figures, events)


def _listen(figures: Figures, events: Iterable[dict[str, Any]]) -> None:
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
            figures.problems.append(f"I8: a daemon said {str(event)[:800]}")


def versions(site: Site) -> list[str]:
    """Of every version that a score names, whether it is there and loads: loading compares each byte's digest."""
    found = []
    named = {row[0] for row in site.fetch("SELECT DISTINCT version_id FROM score WHERE version_id IS NOT NULL")}
    known = {row[0]: row[1:] for row in site.fetch("SELECT id, version, path FROM model_version")}
    by_alerts = {row[0] for row in site.fetch("SELECT DISTINCT version FROM alert WHERE version IS NOT NULL")}
    for version in by_alerts - {version for version, _ in known.values()}:
        found.append(f"I9: alerts by version {version}, which does not exist")
    for version_id in named:
        if version_id not in known:
            found.append(f"I9: scores by version {version_id}, which does not exist")
            continue
        version, path = known[version_id]
        try:
            detector = Detector.load(_folder(site, path))
        except Exception as error:  # noqa: BLE001  # whatever it is, the version does not verify
            found.append(f"I9: {version}: {error}")
            continue
        if detector.version != version:
            found.append(f"I9: the folder of {version} holds {detector.version}")
    return found + _turns(site)


def _turns(site: Site) -> list[str]:
    """Windows that end after an activation are that version's, until the next; the first decides from the beginning."""
    turns: dict[str, list[tuple[int, int]]] = {}
    for fleet, from_us, version_id in site.fetch("SELECT fleet, from_window_end_us, version_id FROM model_activation"):
        turns.setdefault(fleet, []).append((from_us, version_id))
    wrong = []
    for fleet, end_us, version_id in site.fetch(
        "SELECT DISTINCT asset.fleet, end_us, version_id FROM score JOIN asset ON asset.id = score.asset_id"
        " WHERE version_id IS NOT NULL"
    ):
        whose = max(((from_us, each) for from_us, each in turns.get(fleet, ()) if from_us < end_us), default=(0, None))
        if whose[1] != version_id:
            wrong.append(f"I9: windows that end at {end_us} were scored by version {version_id}, not by {whose[1]}")
    return wrong


def _folder(site: Site, path: str) -> Path:
    return Path(path) if Path(path).is_absolute() else site.config.store.checkpoints / path


class _Scorer:
    """The detectors of a site, by the number of their version."""

    def __init__(self, site: Site) -> None:
        self._detectors = {
            version_id: Detector.load(_folder(site, path))
            for version_id, path in site.fetch("SELECT id, path FROM model_version")
        }

    def __call__(self, version_id: int, values: Sequence[Any]) -> list[float]:
        windows = np.array(values, dtype=np.float32)  # None becomes NaN
        scores: list[float] = []
        for first in range(0, len(windows), BATCH):
            scores += self._detectors[version_id].score(windows[first : first + BATCH]).score.tolist()
        return scores
