"""The pipeline in one process, on a real database, with crashes at random moments.

Only Kafka is replaced: by a log in memory that can be read from any offset.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from monitor.clock import SystemClock
from monitor.config import Config
from monitor.store import versions
from monitor.store.engine import AsyncStore
from monitor.stream.pipeline import Pipeline
from monitor.timing import DEFAULT_TIMING
from monitor.types import Contribution, Scores
from tests.acceptance.streams import KINDS, Stream, make
from tests.fakes import LogSource

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path
    from random import Random

    from monitor.store.commit import Commit, Saved
    from monitor.types import Int64, Partition, Windows
    from tests.oracle.log import FleetRule, Rules

EAGER = replace(DEFAULT_TIMING, rewind_look_every_s=-1.0)
"""The recovery point moves with every commit, not every two seconds."""
VERSION = "fake-00000001"


class Crash(Exception):
    """A kill -9: nothing after it runs."""


class HashScorer:
    """Scores a window by its values: a wrong window cannot have the right score. About one in five is anomalous."""

    async def score(self, windows: Windows, end_us: Int64, sensors: Sequence[str]) -> Scores:
        seen = np.nan_to_num(windows.values.astype(np.float64)).sum(axis=(1, 2)) + windows.start
        score = (np.abs(np.sin(seen)) * 1.25).astype(np.float32)
        contributions = {int(row): (Contribution(sensors[0], 1.0, 0.0, 1.0),) for row in np.flatnonzero(score >= 1)}
        return Scores(windows, score, [VERSION] * len(windows), contributions)


class CrashingStore(AsyncStore):
    """Crashes before or after a COMMIT, at a save chosen beforehand."""

    crash_at = -1
    crash_after_commit = False

    async def save(self, commit: Commit) -> Saved:
        self.crash_at -= 1
        if self.crash_at == 0 and not self.crash_after_commit:
            raise Crash
        saved = await super().save(commit)
        if self.crash_at == 0:
            raise Crash
        return saved


def config_of(rules: Rules, folder: Path) -> Config:
    return Config.model_validate(
        {
            "kafka": {"bootstrap": "nowhere:1", "topics": ["plant"], "max_quarantine_share": 1.0},
            "store": {"url": f"sqlite:///{folder}/monitor.db"},
            "fleet": [fleet_settings(rule) for rule in rules.fleets],
        }
    )


def fleet_settings(rule: FleetRule) -> dict[str, Any]:
    def seconds(cells: int) -> str:
        return f"{cells * rule.interval_us}us"

    return {
        "name": rule.name,
        "sensors": list(rule.sensors),
        "assets": list(rule.assets),
        "interval": seconds(1),
        "window": rule.length,
        "stride": rule.stride,
        "lateness": seconds(rule.lateness_cells),
        "max_gap": seconds(rule.max_gap_cells),
        "alerts": {"confirm": "{} of {}".format(*rule.confirm), "recover": rule.recover},
    }


async def live(config: Config, logs: dict[Partition, Any], rng: Random | None) -> int:
    """Run to the end of the logs, with random crashes and restarts. Return the number of crashes."""
    crashes = 0
    while True:
        async with CrashingStore(config.store.url, owner=True) as store:
            await store.run(
                versions.publish, version=VERSION, fleet="turbines", path="", trained_us=0, card={}, metrics={}
            )
            if rng is not None and crashes < 12:
                store.crash_at = rng.randint(1, 8) if crashes else 1
                store.crash_after_commit = rng.random() < 0.5
            source = LogSource(logs, batch=rng.choice([1, 3, 10, 40]) if rng else 50)
            pipeline = Pipeline(
                config, source, store, HashScorer(), owner="test", clock=SystemClock(), timing=EAGER
            )
            try:
                await pipeline.run()
            except Crash:
                crashes += 1
                continue
            return crashes


def allowed(stream: Stream) -> bool:
    """Return whether the configuration allows the stream: its windows have four cells at least."""
    return all(rule.length >= 4 for rule in stream.rules.fleets)


CASES = [(kind, seed) for kind in KINDS for seed in [n for n in range(20) if allowed(make(kind, n))][:2]]
