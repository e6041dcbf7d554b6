"""A small database for tests, written by the store's own functions.

It holds a retired version and a champion, 60 windows of each of two turbines, one closed and one firing alert, and two
records in quarantine. Both alerts have evidence.
"""

from __future__ import annotations

import math
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import numpy as np

from monitor.clock import to_us
from monitor.store import assets, partitions, registry, versions
from monitor.store.acts import MONITOR
from monitor.store.commit import Commit, FleetRows
from monitor.store.engine import AsyncStore
from monitor.types import (
    AlertChange,
    AlertState,
    Contribution,
    Counters,
    DataAlertChange,
    EvidencePart,
    Partition,
    Quarantined,
    Severity,
    Verdict,
)

if TYPE_CHECKING:
    from pathlib import Path

    from sqlalchemy import Connection

START = datetime(2015, 7, 27, tzinfo=UTC)
STEP = timedelta(minutes=10)
STEP_US = 600_000_000
N = 60
"""Windows of each asset. Those of R80711 from 20 to 39 are anomalous, and the last of R80736 is unscored."""
LENGTH = 36
"""Cells of a window."""
SENSORS = ("power", "pitch", "rotor_speed")
PARTITION = Partition("plant", 3)
CONTRIBUTIONS = (
    Contribution("power", 0.61, 1873.2, -3.1),
    Contribution("pitch", 0.22, 0.52, 89.99),
    Contribution("rotor_speed", 0.17, 14.2, None),
)

VERDICT: dict[str, Any] = {
    "passed": True, "why": "it keeps the budget, and finds 9 of 10 injected faults like the champion",
    "at": "2015-07-15T00:00:00+00:00", "challenger": "turbines-new", "champion": "turbines-old",
    "from": "2015-07-08T00:00:00+00:00", "to": "2015-07-15T00:00:00+00:00", "n_windows": 840, "n_assets": 2,
    "took_s": 4.2, "alerts": {"same": 1, "gained": 0, "lost": 1},
    "checks": [
        {"name": "budget", "passed": True, "why": "1 alert in 2 recent normal asset-weeks", "n_alerts": 1, "weeks": 2.0,
         "per_week": 1.0, "champion_alerts": 2},
        {"name": "schema", "passed": True, "why": "sensors, interval and window are those of the fleet"},
    ],
}  # fmt: skip
"""The gate's verdict on the champion."""


async def create(path: Path) -> None:
    """Create the tables without any rows."""
    async with AsyncStore(f"sqlite:///{path}", owner=True):
        pass


async def fill(path: Path) -> None:
    """Create the tables and the rows."""
    async with AsyncStore(f"sqlite:///{path}", owner=True) as store:
        await store.run(_add_versions)
        await store.run(_add_results)


def _add_versions(connection: Connection) -> None:
    for day, version in ((1, "turbines-old"), (15, "turbines-new")):
        trained = to_us(datetime(2015, 7, day, tzinfo=UTC))
        facts = {"fleet": "turbines", "path": f"checkpoints/{version}", "trained_us": trained, "card": {}}
        versions.publish(connection, version=version, metrics={"loss": 0.0123}, **facts)
        acted = {"actor": MONITOR, "at_us": trained}
        verdict = None if day == 1 else VERDICT  # the first version of a fleet has nothing to be compared with
        registry.promote(connection, "turbines", version, after_us=trained, verdict=verdict, **acted)


def _add_results(connection: Connection) -> None:
    epoch = partitions.claim(connection, "monitor", PARTITION, "host:1").epoch
    partitions.set_start(connection, "monitor", PARTITION, epoch, 0)
    ids = assets.register(connection, "turbines", ["R80711", "R80736"], PARTITION)
    ends = [START + STEP * (k + 1) for k in range(N)]
    normal = [0.4 + 0.1 * math.sin(k / 3) for k in range(N)]
    score = [18.42 if k == 30 else 5.0 if 20 <= k < 40 else normal[k] for k in range(N)]
    score += [*normal[:-1], math.nan]
    verdict = [Verdict.UNSCORED if math.isnan(s) else Verdict.ANOMALOUS if s >= 1 else Verdict.NORMAL for s in score]
    end_us = np.array([to_us(end) for end in ends] * 2)
    rows = FleetRows(
        fleet="turbines",
        asset_ids=np.array([ids["R80711"].id, ids["R80736"].id], np.int32),
        asset=np.repeat(np.array([0, 1], np.int32), N),
        start_us=end_us - LENGTH * STEP_US,
        end_us=end_us,
        score=np.array(score, np.float32),
        verdict=np.array(verdict, np.int8),
        version=[None if math.isnan(s) else "turbines-new" for s in score],
        n_present=np.full(2 * N, LENGTH, np.int32),
        first_offset=np.arange(2 * N),
        last_offset=np.arange(2 * N),
        sensors=SENSORS,
        alerts=(
            *_changes(0, ends[20], {0: AlertState.FIRING, 180: AlertState.RECOVERING, 440: AlertState.CLOSED}, 18.42),
            *_changes(1, ends[50], {0: AlertState.FIRING}, 1.3),
        ),
        evidence=(_evidence(0, 20, 64, score[:N]), _evidence(1, 50, 59, score[N:])),
    )
    quarantined = [
        Quarantined(PARTITION, 7, 'not_json: begins with "{oops"', b"{oops\xff\n", to_us(START)),
        Quarantined(PARTITION, 8, "late: 3 h behind the watermark", b'{"ts": 1}', to_us(START + STEP)),
    ]
    counters = Counters(records=200)
    commit = Commit("monitor", PARTITION, epoch, 0, 200, 180, {}, counters, to_us(ends[-1]), 200, (rows,), quarantined)
    partitions.commit(connection, commit)


def _evidence(asset: int, first: int, last: int, score: list[float]) -> EvidencePart:
    """Return the evidence of an alert from the window with this number to the last. Power falls when it begins."""
    cells = np.arange(first + 1 - LENGTH, last + 1)
    rising = np.sin(cells / 9)
    expected = np.stack([1500 + 300 * rising, 0.5 + 0.1 * rising, 14 + rising], axis=1)
    values = expected + np.sin(cells[:, None] * [2.1, 3.3, 4.7]) * [40, 0.05, 0.3]
    fault = (cells >= first - 4) & (cells < first + 16)
    values[fault, :2] = [-3.1, 89.99]
    values[cells == first + 10, 2] = np.nan
    ends = np.array([k for k in range(first, min(last, N - 1) + 1) if not math.isnan(score[k])])
    return EvidencePart(
        asset=asset,
        opened_us=to_us(START + STEP * (first + 1)),
        sensors=SENSORS,
        cell_us=to_us(START) + cells * STEP_US,
        values=values.astype(np.float32),
        expected=expected.astype(np.float32),
        end_us=to_us(START) + (ends + 1) * STEP_US,
        score=np.array(score, np.float32)[ends],
        limit=4 * LENGTH,
        earlier_start_us=tuple(to_us(START) + (first + 1 - LENGTH - k) * STEP_US for k in range(LENGTH, 0, -1)),
    )


def _changes(asset: int, opened: datetime, states: dict[int, AlertState], peak: float) -> list[AlertChange]:
    """Return the changes of an alert. `states`: by minutes since it opened."""
    severity = Severity.CRITICAL if peak > 10 else Severity.WARNING
    return [
        AlertChange(
            fleet="turbines",
            asset=asset,
            opened_us=to_us(opened),
            at_us=to_us(opened + timedelta(minutes=minutes)),
            state=state,
            severity=severity,
            peak_score=peak,
            peak_us=to_us(opened + STEP),
            n_anomalous=3,
            contributions=CONTRIBUTIONS,
            version="turbines-new",
            clearing=("power",) if peak > 10 else None,
        )
        for minutes, state in states.items()
    ]


async def add_data_alerts(path: Path) -> None:
    """Add two alerts about the data: a firing asset limit, and lost records, closed after a day."""
    limit = DataAlertChange(
        kind="asset_limit",
        partition=PARTITION,
        fleet="turbines",
        from_offset=203,
        opened_us=to_us(START + STEP * 60),
        at_us=to_us(START + STEP * 60),
        state=AlertState.FIRING,
        severity=Severity.WARNING,
        n_records=1,
        message="1 record was kept out: raise the fleet's max_assets",
        is_transition=True,
    )
    lost = replace(
        limit,
        kind="records_lost",
        fleet=None,
        severity=Severity.CRITICAL,
        opened_us=to_us(START + STEP * 61),
        at_us=to_us(START + STEP * 61),
        n_records=1200,
        message="up to 1,200 records are lost: give the topic a longer retention.ms",
    )
    changes = (
        limit,
        replace(limit, at_us=limit.at_us + STEP_US, n_records=999_987, is_transition=False),
        lost,
        replace(lost, at_us=lost.at_us + 144 * STEP_US, state=AlertState.CLOSED),
    )
    async with AsyncStore(f"sqlite:///{path}", owner=True) as store:
        claim = await store.run(partitions.claim, "monitor", PARTITION, "host:2")
        first = claim.next_offset or 0
        commit = Commit(
            "monitor", PARTITION, claim.epoch, first, first + 9, 180, {}, Counters(), 0, data_alerts=changes
        )
        await store.save(commit)
