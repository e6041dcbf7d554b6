"""Sparkplug's aliases through the pipeline: restarts anywhere give the windows of one run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from monitor.config import Config
from monitor.store.engine import AsyncStore
from monitor.store.reader import open_reader
from monitor.stream.pipeline import Pipeline
from monitor.types import Scores
from tests.fakes import FakeClock, LogSource, Record
from tests.format_writers import metric, sparkplug
from tests.unit.stream.plant import P0

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from monitor.timing import Timing
    from monitor.types import Int64, Windows

BEGIN_MS = 1_700_000_000_000


class Sum:
    """A scorer whose score is the sum of the window, so that a wrong value or sensor shows."""

    async def score(self, windows: Windows, end_us: Int64, sensors: Sequence[str]) -> Scores:
        weights = np.arange(1, windows.values.shape[2] + 1)
        sums = (np.nan_to_num(windows.values) * weights).sum(axis=(1, 2)) / 1e4
        return Scores(windows, sums.astype(np.float32), [None] * len(windows), {})


def log() -> list[Record]:
    """Return a log in which the aliases of a device are exchanged by a rebirth every 37 records."""
    records: list[Record] = []
    for offset in range(400):
        at_ms = BEGIN_MS + offset * 1000
        is_swapped = offset // 37 % 2
        names = ["flow", "heat"][:: -1 if is_swapped else 1]
        kind, with_names = ("DBIRTH", True) if offset % 37 == 0 else ("DDATA", False)
        metrics = [
            metric(alias=alias, datatype=10, double=float(offset if name == "flow" else -offset), **named)
            for alias, name in enumerate(names, 1)
            for named in [{"name": name} if with_names else {}]
        ]
        key = f"spBv1.0/plant/{kind}/edge/P1".encode()
        records.append((offset, at_ms * 1000, key, sparkplug(at_ms, *metrics)))
    return records


def config_of(folder: Path, name: str) -> Config:
    fleet: dict[str, Any] = {"name": "pumps", "interval": "1s", "window": 8, "sensors": ["flow", "heat"]}
    kafka = {"bootstrap": "nowhere:1", "topics": ["plant"], "format": "sparkplug", "max_quarantine_share": 1.0}
    return Config.model_validate(
        {"kafka": kafka, "fleet": [fleet], "store": {"url": f"sqlite:///{folder}/{name}.db"}}
    )


async def run(config: Config, timing: Timing, records: list[Record], ends: Sequence[int]) -> list[Any]:
    async with AsyncStore(config.store.url, owner=True) as store:
        for end in ends:
            source = LogSource({P0: records[:end]}, 5)
            pipeline = Pipeline(config, source, store, Sum(), owner=str(end), clock=FakeClock(), timing=timing)
            await pipeline.run()
    with open_reader(config.store.url) as reader:
        assert list(reader.quarantine()) == []
        return list(reader.scores("plant/edge/P1"))


async def test_restarts_read_the_aliases_that_counted_then(tmp_path: Path, eager: Timing) -> None:
    records = log()
    whole = await run(config_of(tmp_path, "whole"), eager, records, [400])
    parts = await run(config_of(tmp_path, "parts"), eager, records, [*range(3, 400, 11), 400])
    assert len(whole) > 350
    assert parts == whole
