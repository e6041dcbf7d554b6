"""Small checkpoints, and daemons reduced to the parts that decide which version scores."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from monitor.config import parse
from monitor.lifecycle.champions import Champions
from monitor.lifecycle.scheduler import LEASE, RetrainScheduler
from monitor.lifecycle.training_process import Trained
from monitor.models.spec import ModelSpec
from monitor.store import leases, registry, versions
from monitor.store.acts import MONITOR
from monitor.store.lease_renewal import Lease
from monitor.store.versions import FOREVER_AGO_US
from monitor.stream.score import DetectorScorer
from monitor.timing import DEFAULT_TIMING
from monitor.training.fit import fit
from monitor.types import Windows
from tests.fakes import FakeClock
from tests.unit.training.sine_windows import FLEET_SPEC, LENGTH, SENSORS, readings, windows

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from monitor.config import Config
    from monitor.lifecycle.training_process import TrainingOrder
    from monitor.store.engine import AsyncStore

FLEET = {"name": "pumps", "interval": "1m", "window": LENGTH, "sensors": list(SENSORS), "drill": {"cron": "never"}}
KAFKA = {"bootstrap": "b:9092", "topics": ["t"]}
CONFIG = parse({"kafka": KAFKA, "fleet": [FLEET]})
PUMPS = CONFIG.fleets[0]
DECIDED_US = 10**12
_times = itertools.count(1)


class FakeTraining:
    """A training process that ends with an existing checkpoint or an error. `meanwhile` runs while it trains."""

    def __init__(self, outcome: Path | Exception, meanwhile: Callable[[], Awaitable[None]] | None = None) -> None:
        self.outcome = outcome
        self.meanwhile = meanwhile
        self.verdict: dict[str, Any] | None = None
        """The gate's, of trainings and of comparisons in shadow."""
        self.orders: list[TrainingOrder] = []

    async def __call__(self, order: TrainingOrder, _on_progress: object) -> Trained:
        self.orders.append(order)
        if self.meanwhile is not None:
            await self.meanwhile()
        if isinstance(self.outcome, Exception):
            raise self.outcome
        if order.kind == "judge":
            return Trained(result=self.verdict)
        return msgspec.structs.replace(trained(self.outcome), verdict=self.verdict)


NO_TRAINING = FakeTraining(AssertionError("it trains"))


class DaemonParts:
    """The scorer, champions and scheduler of a daemon."""

    def __init__(
        self,
        store: AsyncStore,
        train: FakeTraining = NO_TRAINING,
        *,
        config: Config = CONFIG,
        lease: type[Lease] | None = None,
        **champions: Any,
    ) -> None:
        """`lease`: its class; None = there is no other daemon. `champions`: further arguments of `Champions`."""
        self.clock = FakeClock(1_700_000_000_000_000 + next(_times) * 1_000_000)
        self.scorer = DetectorScorer("cpu", timing=champions.get("timing", DEFAULT_TIMING))
        self.champions = Champions(config, store, self.scorer, self.clock, **champions)
        self.lease = lease(store, LEASE, "me", self.clock) if lease else Lease(store, LEASE, "me", self.clock)
        self.scheduler = RetrainScheduler(
            config, store, self.champions, self.clock, "me", self.lease if lease else None, train=train
        )

    async def version_that_scores(self, end_us: int = DECIDED_US) -> str | None:
        """Score a window that ends at `end_us`; return the version that did."""
        values = np.ascontiguousarray(windows(readings(LENGTH)).values)
        zero = np.zeros(1, np.int64)
        one = Windows("pumps", np.zeros(1, np.int32), zero, values, np.full(1, LENGTH, np.int32), zero, zero)
        return (await self.scorer.score(one, np.array([end_us]), SENSORS)).version[0]


def checkpoint(folder: Path, seed: int = 0) -> Path:
    """Train a small model, and return the folder of its checkpoint."""
    train, spec = windows(readings(400, seed)), ModelSpec("pca")
    detector = fit(train, spec, FLEET_SPEC)
    return folder / detector.save(folder)


def trained(path: Path) -> Trained:
    """Return the outcome of a training that saved this checkpoint."""
    return Trained(path.name, str(path), SENSORS, {"metrics": {}})


async def activate(store: AsyncStore, path: Path, after_us: int = FOREVER_AGO_US) -> None:
    """Publish and activate a version, whether its files exist or not."""
    facts = {"fleet": "pumps", "path": str(path), "trained_us": 1, "card": {}, "metrics": {}}
    await store.run(versions.publish, version=path.name, **facts)
    at_us = next(_times)
    await store.run(registry.promote, "pumps", path.name, actor=MONITOR, at_us=at_us, after_us=after_us)


async def expire_lease(store: AsyncStore) -> None:
    """Let the lease's time run out."""
    await store.run(lambda connection: connection.exec_driver_sql("UPDATE lease SET until_us = 0"))


async def take_over_lease(store: AsyncStore) -> int:
    """Let another daemon acquire the lease; return its epoch."""
    await expire_lease(store)
    epoch = await store.run(leases.acquire, LEASE, "another", 15.0)
    assert epoch is not None
    return epoch
