"""A small plant for the tests of this folder: two fleets, logs in memory, a database in a folder."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np

from monitor.config import Config
from monitor.stream.pipeline import Pipeline
from monitor.timing import DEFAULT_TIMING
from monitor.types import Partition, Scores
from tests.fakes import FakeClock, LogSource

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from monitor.store.engine import AsyncStore
    from monitor.store.outbox import Channel
    from monitor.timing import Timing
    from monitor.types import Int64, Windows
    from tests.fakes import Record

P0, P1 = Partition("plant", 0), Partition("plant", 1)
S = 1_000_000
BEGIN = 1_700_000_040  # a minute begins here


class Unscored:
    """A scorer without a model."""

    async def score(self, windows: Windows, end_us: Int64, sensors: Sequence[str]) -> Scores:
        return Scores(windows, np.full(len(windows), np.nan, np.float32), [None] * len(windows), {})


class Plant:
    """A pipeline over logs in memory, on a database that outlives it."""

    def __init__(
        self,
        config: Config,
        store: AsyncStore,
        logs: dict[Partition, Sequence[Record]],
        batch: int = 5,
        *,
        channels: Sequence[Channel] = (),
        timing: Timing = DEFAULT_TIMING,
    ) -> None:
        self.source = LogSource(logs, batch)
        self.clock = FakeClock()
        self.pipeline = Pipeline(
            config, self.source, store, Unscored(), owner="test", clock=self.clock, channels=channels, timing=timing
        )

    async def run(self) -> Pipeline:
        await self.pipeline.run()
        return self.pipeline


def limited_config(folder: Path, **limits: Any) -> Config:
    """Turbines with these settings, and pumps with room for all."""
    fleet = {"sensors": ["flow"], "interval": "1s", "window": 4, "lateness": "3s", **limits}
    return Config.model_validate(
        {
            "kafka": {"bootstrap": "nowhere:1", "topics": ["plant"], "max_quarantine_share": 0.5},
            "store": {"url": f"sqlite:///{folder}/monitor.db"},
            "fleet": [
                {"name": "turbines", "assets": "T*", **fleet},
                {"name": "pumps", "assets": "P*", **fleet | {"max_assets": 1000}},
            ],
        }
    )


def reading(offset: int, asset: str, second: float, stamp_us: int | None = None) -> Record:
    """A record with one reading. `stamp_us`: Kafka's timestamp; None = the event time."""
    value = json.dumps({"ts": second, "flow": offset % 97}).encode()
    return offset, int(second * S) if stamp_us is None else stamp_us, asset.encode(), value
