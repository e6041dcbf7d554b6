"""A small real database, written through the store's own functions: two turbines, one with an alert that closed and one
that is open, a champion and a version before it, two records in quarantine."""

from __future__ import annotations

import asyncio
import math
import shutil
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import numpy as np
import pytest
from click.testing import CliRunner

from monitor.clock import to_us
from monitor.store import assets, partitions, versions
from monitor.store.commit import Commit, FleetRows
from monitor.store.engine import AsyncStore
from monitor.types import (
    AlertChange,
    AlertState,
    Contribution,
    Counters,
    DataAlertChange,
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
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
N = 60
"""Windows of each asset; those of R80711 from 20 to 39 are anomalous, the last of R80736 is unscored."""
CONTRIBUTIONS = (
    Contribution("power", 0.61, 1873.2, -3.1),
    Contribution("pitch", 0.22, 0.52, 89.99),
    Contribution("rotor_speed", 0.17, 14.2, None),
)


@pytest.fixture(autouse=True)
def _in_an_empty_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def runner() -> CliRunner:
    return CliRunner()


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """monitor.toml in the present folder, for a database that is not there yet."""
    file = tmp_path / "monitor.toml"
    fleet = '[[fleet]]\nname = "turbines"\ninterval = "10m"\n'
    file.write_text(f'kafka = {{bootstrap = "b:9092", topics = ["plant"]}}\n{fleet}')
    return file


@pytest.fixture(scope="session")
def _databases(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("databases")
    asyncio.run(_fill(folder / "empty.db", is_empty=True))
    asyncio.run(_fill(folder / "filled.db"))
    return folder


@pytest.fixture
def empty(config: Path, _databases: Path) -> Path:
    """A database with its tables and nothing in them."""
    shutil.copy(_databases / "empty.db", config.parent / "monitor.db")
    return config


@pytest.fixture
def filled(config: Path, _databases: Path) -> Path:
    shutil.copy(_databases / "filled.db", config.parent / "monitor.db")
    return config


async def _fill(path: Path, *, is_empty: bool = False) -> None:
    async with AsyncStore(f"sqlite:///{path}", owner=True) as store:
        if not is_empty:
            await store.run(_rows)


def _rows(connection: Connection) -> None:
    for day, version in ((1, "turbines-old"), (15, "turbines-new")):
        trained = to_us(datetime(2015, 7, day, tzinfo=UTC))
        publish = {"fleet": "turbines", "path": f"checkpoints/{version}", "trained_us": trained, "card": {}}
        versions.publish(connection, version=version, metrics={"loss": 0.0123}, **publish)
        versions.activate(connection, "turbines", version, trained)
    home = Partition("plant", 3)
    epoch = partitions.claim(connection, "monitor", home, "host:1").epoch
    partitions.set_start(connection, "monitor", home, epoch, 0)
    homes = assets.register(connection, "turbines", ["R80711", "R80736"], home)
    end = [START + STEP * (k + 1) for k in range(N)]
    quiet = [0.4 + 0.1 * math.sin(k / 3) for k in range(N)]
    score = [18.42 if k == 30 else 5.0 if 20 <= k < 40 else quiet[k] for k in range(N)]
    score += [*quiet[:-1], math.nan]
    verdict = [Verdict.UNSCORED if math.isnan(s) else Verdict.ANOMALOUS if s >= 1 else Verdict.NORMAL for s in score]
    ends = np.array([to_us(at) for at in end] * 2)
    rows = FleetRows(
        fleet="turbines",
        asset_ids=np.array([homes["R80711"].id, homes["R80736"].id], np.int32),
        asset=np.repeat(np.array([0, 1], np.int32), N),
        start_us=ends - 36 * to_us(datetime(1970, 1, 1, 0, 10, tzinfo=UTC)),
        end_us=ends,
        score=np.array(score, np.float32),
        verdict=np.array(verdict, np.int8),
        version=[None if math.isnan(s) else "turbines-new" for s in score],
        n_present=np.full(2 * N, 36, np.int32),
        first_offset=np.arange(2 * N),
        last_offset=np.arange(2 * N),
        sensors=("power", "pitch", "rotor_speed"),
        alerts=(
            *_life(0, end[20], {0: AlertState.FIRING, 180: AlertState.RECOVERING, 440: AlertState.CLOSED}, 18.42),
            *_life(1, end[50], {0: AlertState.FIRING}, 1.3),
        ),
    )
    bad = [
        Quarantined(home, 7, 'not_json: begins with "{oops"', b"{oops\xff\n", to_us(START)),
        Quarantined(home, 8, "late: 3 h behind the watermark", b'{"ts": 1}', to_us(START + STEP)),
    ]
    commit = Commit("monitor", home, epoch, 0, 200, 180, {}, Counters(records=200), to_us(START), 200, (rows,), bad)
    partitions.commit(connection, commit)


def _life(asset: int, opened: datetime, steps: dict[int, AlertState], peak: float) -> list[AlertChange]:
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
        )
        for minutes, state in steps.items()
    ]


@pytest.fixture
def troubled(filled: Path) -> Path:
    """The same, and two alerts about the data: names that were kept out, and a loss that is a day ago."""
    asyncio.run(_trouble(filled.parent / "monitor.db"))
    return filled


async def _trouble(path: Path) -> None:
    home = Partition("plant", 3)
    limit = DataAlertChange(
        kind="asset_limit",
        partition=home,
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
        replace(limit, at_us=limit.at_us + to_us(EPOCH + STEP), n_records=999_987, is_transition=False),
        lost,
        replace(lost, at_us=lost.at_us + to_us(EPOCH + timedelta(days=1)), state=AlertState.CLOSED),
    )
    async with AsyncStore(f"sqlite:///{path}", owner=True) as store:
        claim = await store.run(partitions.claim, "monitor", home, "host:2")
        next_offset = claim.next_offset or 0
        commit = Commit(
            "monitor", home, claim.epoch, next_offset, next_offset + 9, 180, {}, Counters(), 0, data_alerts=changes
        )
        await store.save(commit)
