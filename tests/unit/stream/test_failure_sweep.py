"""Call n fails, for every n: each call of the database and of the broker, and each file read, once in a scenario.

The scenario has two partitions. An alert opens and closes, one record is late and one is bad. A second version is
activated in the middle. Then the daemon is restarted and reads the rest. Pipeline, champions, scorer, checkpoint files
and SQLite are real, Kafka is not. After any failure of any call the tables must equal the oracle's in the end.
"""

from __future__ import annotations

import asyncio
import errno
import json
import math
import shutil
import sqlite3
from collections import Counter
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from monitor.config import Config, parse
from monitor.errors import CheckpointDamaged, CheckpointUnavailable, MonitorError, SourceUnavailable, StoreUnavailable
from monitor.lifecycle.champions import Champions
from monitor.lifecycle.training_process import Trained
from monitor.models.checkpoint_files import WEIGHTS
from monitor.models.spec import ModelSpec
from monitor.store import partitions, registry, versions
from monitor.store.acts import MONITOR
from monitor.store.engine import AsyncStore
from monitor.stream.pipeline import Pipeline
from monitor.stream.score import BatchGate, DetectorScorer
from monitor.training.fit import fit
from monitor.types import Partition
from tests.fakes import FakeClock, LogSource, Record
from tests.oracle.check import Report, check_database
from tests.oracle.log import rules_from
from tests.unit.training.sine_windows import FLEET_SPEC, LENGTH, SENSORS, readings, windows

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from monitor.kafka import Event
    from monitor.store.commit import Commit, Saved

P0, P1 = Partition("plant", 0), Partition("plant", 1)
BATCH = 12
HALF = {P0: 18, P1: 12}
"""Records that exist before the second version."""
KINDS = ("refused", "unknown", "killed before", "killed after")
MAX_DAEMONS = 6
"""Daemons that may be started in one scenario."""


class Killed(BaseException):
    """kill -9: no code catches it, and the process is not used again."""


class Fault:
    """Makes one call fail, and counts the calls."""

    def __init__(self, number: int, kind: str) -> None:
        self.number = number
        self.kind = kind
        self.n_calls = 0
        self.struck: str | None = None
        """Name of the failed call."""

    def is_next(self, what: str) -> bool:
        self.n_calls += 1
        if self.n_calls == self.number:
            self.struck = what
        return self.n_calls == self.number

    async def around(self, what: str, error: MonitorError, work: Callable[[], Awaitable[Any]]) -> Any:
        """Make a call. The one that fails does so before or after it takes effect."""
        if not self.is_next(what):
            return await work()
        if self.kind == "refused":
            raise error
        if self.kind == "killed before":
            raise Killed
        await work()
        if self.kind == "killed after":
            raise Killed
        raise error


class FailingStore(AsyncStore):
    """The real store, except for one call. A save counts as a call, and so do its two attempts."""

    fault = Fault(-1, "none")

    async def run(self, fn: Any, *args: Any, **kwargs: Any) -> Any:
        if fn is partitions.commit and "killed" in self.fault.kind:  # the same moments as those of `save`
            return await super().run(fn, *args, **kwargs)
        error = StoreUnavailable("by the test")
        return await self.fault.around(f"run {fn.__name__}", error, lambda: AsyncStore.run(self, fn, *args, **kwargs))

    async def read(self, fn: Any, *args: Any, **kwargs: Any) -> Any:
        error = StoreUnavailable("by the test")
        return await self.fault.around(f"read {fn.__name__}", error, lambda: AsyncStore.read(self, fn, *args, **kwargs))

    async def save(self, commit: Commit) -> Saved:
        error = StoreUnavailable("by the test")
        saved: Saved = await self.fault.around("save", error, lambda: AsyncStore.save(self, commit))
        return saved


class FailingSource(LogSource):
    """A log in memory, except for one call."""

    def __init__(self, fault: Fault, logs: dict[Partition, Sequence[Record]]) -> None:
        super().__init__(logs, BATCH)
        self._fault = fault

    async def poll(self) -> Sequence[Event]:
        error = SourceUnavailable("by the test")
        events: Sequence[Event] = await self._fault.around("poll", error, lambda: LogSource.poll(self))
        return events

    async def first_offset(self, partition: Partition, start: str) -> int:
        error = SourceUnavailable("by the test")
        offset: int = await self._fault.around(
            "first_offset", error, lambda: LogSource.first_offset(self, partition, start)
        )
        return offset


def failing_files(fault: Fault) -> Callable[[Path], bytes]:
    """Return Path.read_bytes, except for one read of weights: unreadable, or cut short."""
    whole = Path.read_bytes

    def read_bytes(path: Path) -> bytes:
        if path.name != WEIGHTS or not fault.is_next("file"):
            return whole(path)
        if fault.kind == "refused":
            raise OSError(errno.EIO, "by the test")
        if fault.kind == "unknown":
            return whole(path)[:-1]
        raise Killed

    return read_bytes


# ---------------------------------------------------------------- the scenario


class World:
    """Configuration, checkpoints, a database with the first version, and the logs: they outlive a daemon."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.paths = [self._checkpoint(seed) for seed in (0, 1)]
        self.template = folder / "template.db"
        self.config = self._config(self.template)
        self.logs = {P0: _records("P1", 36, faulty=range(13, 15)), P1: _records("P2", 24)}
        self.logs[P0][20:20] = [(0, -1, b"P1", json.dumps({"ts": 60, "sensors": {"speed": 1.0}}).encode())]
        self.logs[P1][15:15] = [(0, -1, b"P2", b"not json")]
        for partition, log in self.logs.items():
            self.logs[partition] = [(offset, *record[1:]) for offset, record in enumerate(log)]
        asyncio.run(self._prepare())

    def _config(self, database: Path) -> Config:
        return parse(
            {
                "kafka": {"bootstrap": "b:9092", "topics": ["plant"], "max_quarantine_share": 1.0},
                "store": {"url": f"sqlite:///{database}"},
                "fleet": [
                    {
                        "name": "pumps",
                        "interval": "1m",
                        "window": LENGTH,
                        "sensors": list(SENSORS),
                        "assets": ["P*"],
                        "lateness": "2m",
                        "alerts": {"confirm": "2 of 3", "recover": 2},
                    }
                ],
            }
        )

    def _checkpoint(self, seed: int) -> Path:
        spec = ModelSpec("pca")
        train = windows(readings(400, seed))
        detector = fit(train, spec, FLEET_SPEC)
        return self.folder / detector.save(self.folder)

    async def _prepare(self) -> None:
        async with AsyncStore(self.config.store.url, owner=True) as store:
            first, facts = self.paths[0], {"trained_us": 1, "card": {}, "metrics": {}, "actor": MONITOR, "at_us": 1}
            await store.run(registry.publish_and_promote, version=first.name, fleet="pumps", path=str(first), **facts)


def _records(asset: str, n: int, faulty: range = range(0)) -> list[Record]:
    values = readings(n, seed=7).astype(float)
    values[faulty] += 9.0
    return [
        (0, -1, asset.encode(), json.dumps({"ts": 60 * cell, "sensors": dict(zip(SENSORS, row, strict=True))}).encode())
        for cell, row in enumerate(values.tolist())
    ]


class PartsOfDaemon:
    """The parts of a daemon that the scenario needs, over an open store."""

    def __init__(self, world: World, store: AsyncStore, fault: Fault, logs: dict[Partition, Sequence[Record]]) -> None:
        config, clock, gate = world.config, FakeClock(), BatchGate()
        self.scorer = DetectorScorer("cpu")
        self.champions = Champions(config, store, self.scorer, clock, gate=gate)
        self.pipeline = Pipeline(
            config,
            FailingSource(fault, logs),
            store,
            self.scorer,
            owner="me",
            clock=clock,
            reload_models=self.champions.refresh,
            gate=gate,
        )

    async def start(self) -> None:
        await self.champions.load()
        await self.pipeline.run()

    async def activate(self, config: Config, path: Path) -> None:
        trained = Trained(path.name, str(path), SENSORS, {"metrics": {}})
        await self.champions.activate(config.fleets[0], trained, None)


async def live(world: World, database: Path, fault: Fault) -> int:
    """Run the scenario to its end, with as many daemons as it needs. Return their number."""
    second = world.paths[1]
    n_started = 0
    async with FailingStore(f"sqlite:///{database}", owner=True) as store:
        for is_second_half in (False, True):
            while True:
                n_started += 1
                assert n_started <= MAX_DAEMONS, "the scenario does not end"
                logs: dict[Partition, Sequence[Record]] = {
                    p: list(log) if is_second_half else list(log[: HALF[p]]) for p, log in world.logs.items()
                }
                store.fault = fault
                daemon = PartsOfDaemon(world, store, fault, logs)
                try:
                    await daemon.start()
                    if not is_second_half:
                        await daemon.activate(world.config, second)
                        for partition, log in logs.items():  # the same daemon continues
                            assert isinstance(log, list)
                            log.extend(world.logs[partition][HALF[partition] : HALF[partition] + BATCH])
                        await daemon.pipeline.run()
                    break
                except (Killed, SourceUnavailable, StoreUnavailable, CheckpointDamaged, CheckpointUnavailable):
                    store.fault = Fault(-1, "none")
                    champion = await store.read(versions.champion, "pumps")
                    is_second_half = champion is not None and champion.version == second.name
                finally:
                    daemon.scorer.close()
    return n_started


def judge(world: World, database: Path) -> Report:
    """Compare the tables with the oracle, and the version of each score with the active one."""
    report = check_database(database, {tuple(p): log for p, log in world.logs.items()}, rules_from(world.config))
    with closing(sqlite3.connect(database)) as connection:
        turns = connection.execute(
            "SELECT from_window_end_us, version_id FROM model_activation ORDER BY from_window_end_us"
        ).fetchall()
        for end_us, version_id, score in connection.execute("SELECT end_us, version_id, score FROM score").fetchall():
            turn = [version for from_us, version in turns if from_us < end_us][-1]
            if version_id not in (turn, None) or (version_id is None) != (score is None):
                report.add("version", f"a window that ends {end_us} by {version_id}, it was {turn}'s turn")
            report.compared["scored"] += score is not None and math.isfinite(score)
            report.compared[f"by version {version_id}"] += 1
        if connection.execute("PRAGMA integrity_check").fetchall() != [("ok",)]:
            report.add("file", "damaged")
    return report


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World(tmp_path_factory.mktemp("sweep"))


@pytest.mark.parametrize("kind", KINDS)
def test_any_failed_call_leaves_the_oracles_tables(
    world: World, kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    struck: Counter[str] = Counter()
    number = 0
    while True:
        number += 1
        database = shutil.copy(world.template, tmp_path / f"{number}.db")
        fault = Fault(number, kind)
        with monkeypatch.context() as patched:
            patched.setattr(Path, "read_bytes", failing_files(fault))
            n_started = asyncio.run(live(world, database, fault))
        report = judge(world, database)
        assert report.is_clean, f"call {number} ({fault.struck}) {kind}: {report}"
        compared = report.compared
        assert min(compared["late"], compared["quarantined"], compared["alerts"], compared["by version 2"]) > 0
        if fault.struck is None:
            break
        struck[fault.struck] += 1
        if "killed" in kind:
            assert n_started == 3
        if (fault.struck, kind) != ("file", "unknown"):  # a damaged checkpoint is skipped until the next start
            assert compared["scored"] == compared["windows"]
    reached = (
        "poll, first_offset, file, save, run claim, run set_start, run register, run publish_and_promote, "
        "read activation_history"
    )
    assert struck.keys() >= set(reached.split(", "))
    assert number > 40
