"""The test for drift in the daemon: from stored scores to a training."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

import numpy as np

from monitor.clock import to_us
from monitor.config import parse
from monitor.lifecycle.drift import DAY_US, HOUR_US
from monitor.store import assets, jobs, registry
from monitor.types import ModelCheckKind, Partition
from tests.unit.lifecycle.checkpoints import FLEET, KAFKA, FakeTraining, activate, checkpoint

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from sqlalchemy import Connection

    from monitor.store.engine import AsyncStore
    from tests.fakes import RecordedLog
    from tests.unit.lifecycle.checkpoints import DaemonParts

N_CALM = 20


def put_days(connection: Connection, first_us: int, levels: list[float], hour_noise: np.random.Generator) -> None:
    for day, level in enumerate(levels):
        for hour in range(24):
            at_us = first_us + day * DAY_US + hour * HOUR_US
            score = float(np.exp(level + 0.1 * hour_noise.standard_normal()))
            connection.exec_driver_sql(f"INSERT INTO score_hour VALUES ({at_us}, 1, {score}, 6, 0, 0)")


async def test_drift_of_stored_scores_starts_a_training_once(
    store: AsyncStore, daemon: Callable[..., DaemonParts], log: RecordedLog, tmp_path: Path
) -> None:
    await activate(store, path := checkpoint(tmp_path))
    training = FakeTraining(checkpoint(tmp_path, 1))
    training.verdict = {"passed": False, "why": "it breaks the budget"}
    this = daemon(training, config=parse({"kafka": KAFKA, "fleet": [FLEET | {"retrain": {"every": "never"}}]}))
    await this.champions.load()
    await store.run(assets.register, "pumps", ["R1"], Partition("t", 0))
    champion = this.champions.detector_of(this.scheduler._config.fleets[0])
    assert champion is not None
    trained_to_us = to_us(datetime.fromisoformat(champion.card.training["to"]))
    first_us, draw = (trained_to_us // DAY_US + 1) * DAY_US, np.random.default_rng(5)
    await store.run(put_days, first_us, draw.standard_normal(N_CALM).tolist(), draw)
    await this.scheduler._run_next(None)
    assert training.orders == []
    calm = await store.read(registry.latest_check, ModelCheckKind.DRIFT, "pumps")
    assert calm is not None
    assert (calm.problem, calm.result["reason"]) == (None, "drift")
    await store.run(put_days, first_us + N_CALM * DAY_US, [6.0] * 8, draw)
    for _ in range(30):
        this.clock.advance(600)
        await this.scheduler._run_next(None)
    assert len(training.orders) == 1, "a rejected challenger is not trained again at once"
    [job] = await store.read(jobs.ended, "pumps")
    assert (job.reason, job.message) == ("regime", "rejected: it breaks the budget")
    assert [line["reason"] for line in log.of("job_due")] == ["regime"]
    checks = await store.read(registry.checks, ModelCheckKind.DRIFT, "pumps")
    assert [each.problem is None for each in checks] == [False, True], "a day is tested once"
    assert path.name == checks[0].version


async def test_drift_of_readings_found_by_a_drill_starts_a_training(
    store: AsyncStore, daemon: Callable[..., DaemonParts], log: RecordedLog, tmp_path: Path
) -> None:
    path = checkpoint(tmp_path)
    await activate(store, path)
    training = FakeTraining(checkpoint(tmp_path, 1))
    this = daemon(training, config=parse({"kafka": KAFKA, "fleet": [FLEET | {"retrain": {"every": "never"}}]}))
    await this.champions.load()
    [fleet] = this.scheduler._config.fleets
    found = {"reason": "drift", "value": 0.4, "n_reference": 20, "n_days": 3, "moved": [], "problem": None}
    await this.scheduler._drift.keep_inputs(fleet, path.name, found)
    await this.scheduler._run_next(None)
    assert training.orders == []
    why = "drift of readings: power by +6.0 spreads of the 20 days before the training, on 8 days since"
    this.clock.advance(600)
    await this.scheduler._drift.keep_inputs(fleet, path.name, found | {"value": 1.2, "problem": why})
    this.clock.advance(600)
    await this.scheduler._run_next(None)
    assert len(training.orders) == 1
    assert [(line["reason"], line["why"]) for line in log.of("job_due")] == [("drift", why)]
    [check, calm] = await store.read(registry.checks, ModelCheckKind.INPUT_DRIFT, "pumps")
    assert (check.problem, calm.problem) == (why, None)
    assert "problem" not in check.result
