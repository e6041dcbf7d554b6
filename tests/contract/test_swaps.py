"""200 promotions and roll-backs while the pipeline scores, by operators on connections of their own.

No window is missed or scored twice, each has the score of the version that was active at its end, and no version
that was rejected or in shadow has decided one.
"""

from __future__ import annotations

import asyncio
import json
from contextlib import suppress
from dataclasses import replace
from random import Random
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from monitor.clock import SystemClock
from monitor.config import parse
from monitor.errors import WrongState
from monitor.lifecycle.champions import Champions
from monitor.models.spec import ModelSpec
from monitor.store import registry
from monitor.store.acts import MONITOR, Actor
from monitor.store.engine import AsyncStore
from monitor.stream.pipeline import Pipeline
from monitor.stream.score import BatchGate, DetectorScorer
from monitor.timing import DEFAULT_TIMING
from monitor.training.fit import fit
from monitor.types import ModelState, Partition
from tests.fakes import LogSource
from tests.oracle.check import check, compare_scores, stored_rows
from tests.oracle.log import rules_from
from tests.oracle.registry import activation_problems, registry_problems
from tests.unit.training.sine_windows import FLEET_SPEC, LENGTH, SENSORS, readings, windows

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from sqlalchemy import Connection

    from monitor.config import Config
    from monitor.kafka import Event
    from monitor.models.detector import TrainedModel
    from tests.oracle.check import StoredRows
    from tests.oracle.log import RawRecord

N_SWAPS = 200
SEED = 2026
P0, P1 = Partition("plant", 0), Partition("plant", 1)
ASSETS = {P0: ("P1", "P2"), P1: ("P3",)}
TIMING = replace(DEFAULT_TIMING, activations_every_s=0.02, rewind_look_every_s=-1.0)
EVA = Actor("eva", "cli")


class EndlessSource(LogSource):
    """Logs that grow with each poll, until `is_over`."""

    def __init__(self) -> None:
        self.logs: dict[Partition, list[RawRecord]] = {P0: [], P1: []}
        super().__init__(self.logs, batch=6)
        self._values = readings(400, seed=7).astype(float).tolist()
        self._cell = 0
        self.is_over = False

    @property
    def is_exhausted(self) -> bool:
        return self.is_over and super().is_exhausted

    async def poll(self) -> Sequence[Event]:
        if not self.is_over:
            self._grow()
        await asyncio.sleep(0.01)
        return await super().poll()

    def _grow(self) -> None:
        for _ in range(3):
            for partition, names in ASSETS.items():
                for number, name in enumerate(names):
                    row = self._values[(self._cell + 37 * number) % len(self._values)]
                    body = {"ts": 60 * self._cell, "sensors": dict(zip(SENSORS, row, strict=True))}
                    log = self.logs[partition]
                    log.append((len(log), -1, name.encode(), json.dumps(body).encode()))
            self._cell += 1


@pytest.fixture
def config(url: str, tmp_path: Path) -> Config:
    fleet = {
        "name": "pumps", "interval": "1m", "window": LENGTH, "sensors": list(SENSORS), "assets": ["P*"],
        "lateness": "2m", "alerts": {"confirm": "2 of 3", "recover": 2},
    }  # fmt: skip
    kafka = {"bootstrap": "b:9092", "topics": ["plant"]}
    return parse({"kafka": kafka, "store": {"url": url, "checkpoints": str(tmp_path)}, "fleet": [fleet]})


async def publish(store: AsyncStore, model: TrainedModel, folder: Path, state: ModelState) -> str:
    version = model.save(folder)
    facts = {"version": version, "fleet": "pumps", "path": str(folder / version), "trained_us": 1}
    verdict = {"passed": state != ModelState.REJECTED, "why": "by the test"}
    call: dict[str, Any] = {"state": state, "verdict": verdict, "actor": MONITOR, "at_us": 1, "card": {}, "metrics": {}}
    await store.run(registry.publish, **call, **facts)
    return version


class Operators:
    """Promotes and rolls back at random moments, on a connection of its own."""

    def __init__(self, store: AsyncStore, usable: Sequence[str], rejected: str) -> None:
        self._store = store
        self._usable = usable
        self._rejected = rejected
        self._rng = Random(SEED)
        self._clock = SystemClock()
        self.n_refused = 0

    async def act(self) -> None:
        """Swap N_SWAPS times, and try to promote the rejected version now and then."""
        n_done, last_event = -1, 0  # the first promotion is not one of these
        while n_done < N_SWAPS:
            await asyncio.sleep(self._rng.random() * 0.03)
            acted: dict[str, Any] = {"actor": EVA, "at_us": self._clock.now_us()}
            with suppress(WrongState):
                if self._rng.random() < 0.4:
                    await self._store.run(registry.roll_back, "pumps", **acted)
                elif self._rng.random() < 0.1:
                    self.n_refused += 1
                    await self._store.run(registry.promote, "pumps", self._rejected, **acted)
                else:
                    await self._store.run(registry.promote, "pumps", self._rng.choice(self._usable), **acted)
            [event] = await self._store.read(registry.events, "pumps", limit=1)
            n_done += event.id != last_event
            last_event = event.id


def _judge(connection: Connection) -> tuple[StoredRows, list[str], dict[int, str]]:
    """Return the rows, the problems of the registry, and the version of each id."""

    def fetch(sql: str) -> Sequence[Any]:
        return connection.exec_driver_sql(sql).all()

    problems = [*registry_problems(fetch), *activation_problems(fetch)]
    return stored_rows(fetch), problems, dict(map(tuple, fetch("SELECT id, version FROM model_version")))


async def test_200_swaps_under_load_lose_and_double_no_window(config: Config, tmp_path: Path) -> None:
    models = [fit(windows(readings(400, seed)), ModelSpec("pca"), FLEET_SPEC) for seed in range(5)]
    scorer, gate, source = DetectorScorer("cpu", fleets=config.fleets), BatchGate(), EndlessSource()
    async with AsyncStore(config.store.url, owner=True) as store, AsyncStore(config.store.url) as operators_store:
        usable = [await publish(store, model, tmp_path, ModelState.CANDIDATE) for model in models[:3]]
        rejected = await publish(store, models[3], tmp_path, ModelState.REJECTED)
        await publish(store, models[4], tmp_path, ModelState.SHADOW)
        await store.run(registry.promote, "pumps", usable[0], actor=MONITOR, at_us=2)
        champions = Champions(config, store, scorer, SystemClock(), gate=gate, timing=TIMING)
        await champions.load()
        pipeline = Pipeline(
            config, source, store, scorer, owner="me", clock=SystemClock(), reload_models=champions.refresh, gate=gate,
            timing=TIMING,
        )  # fmt: skip
        following, running = asyncio.create_task(champions.loop()), asyncio.create_task(pipeline.run())
        operators = Operators(operators_store, usable, rejected)
        try:
            await operators.act()
            source.is_over = True
            await running
        finally:
            following.cancel()
            scorer.close()

        rows, problems, version_of = await store.read(_judge)

    rules = rules_from(config)
    report = check(rows, {(where.topic, where.number): log for where, log in source.logs.items()}, rules)
    detector_of = {model.version: model for model in models}

    def score(version_id: int, values: list[Any], names: list[str]) -> list[float]:
        return detector_of[version_of[version_id]].score(np.array(values, np.float32), names).score.tolist()

    compare_scores(report, rows, rules, score, Random(SEED), n_sampled=2_000)
    assert report.is_clean, str(report)
    assert problems == []
    n_boundaries = len({row[8] for row in rows.scores})
    assert report.compared["windows"] > 1_000, report
    assert report.compared["scores"] > 1_000, report
    assert n_boundaries == 3, "all three usable versions have decided windows"
    assert operators.n_refused > 0
