"""The input of the benchmark: single readings as JSON, 8 sensors, 100 assets in turn, 200 bytes each.

Input: the number of the first reading, and their count. Output: records.
Invariant: the same numbers give the same bytes on every machine. Event time advances one interval per round of assets.
A tenth of the sensors' amplitude is noise, so that a trained network has a reconstruction error.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np

from monitor.config import parse
from monitor.types import RecordBatch

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from monitor.config import Config
    from monitor.types import Float32, Partition

N_ASSETS = 100
N_SENSORS = 8
WINDOW = 64
SENSORS = tuple(f"s{number}" for number in range(N_SENSORS))
START_S = 1_700_000_000
WARM_UP = N_ASSETS * WINDOW
"""Readings until each asset has its first window."""


def values(first: int, n: int) -> Float32:
    """Return the values [n, 8] of the readings from number `first` on."""
    number = np.arange(first, first + n)
    asset, step = number % N_ASSETS, number // N_ASSETS
    phase = np.random.default_rng(0).uniform(0, 2 * np.pi, (N_ASSETS, N_SENSORS))
    noise = np.random.default_rng(first).normal(0, 0.05, (n, N_SENSORS))
    swing = np.sin(phase[asset] + step[:, None] * 0.1) + noise
    return np.round(swing, 4).astype(np.float32)


def records(first: int, n: int) -> Iterator[tuple[bytes, bytes]]:
    """Yield the keys and values of the records from number `first` on."""
    for number, row in enumerate(values(first, n).tolist(), first):
        asset = f"asset-{number % N_ASSETS:06d}"
        sensors = {name: round(value, 4) for name, value in zip(SENSORS, row, strict=True)}
        reading = {"asset_id": asset, "ts": float(START_S + number // N_ASSETS), "sensors": sensors}
        yield asset.encode(), json.dumps({**reading, "site": "plant-1", "q": 0}).encode()


def batches(partition: Partition, n: int, size: int = 4096) -> Iterator[RecordBatch]:
    """Yield the first `n` records as batches, for a run without a broker."""
    for first in range(0, n, size):
        pairs = list(records(first, min(size, n - first)))
        yield RecordBatch(
            partition,
            np.arange(first, first + len(pairs), dtype=np.int64),
            np.full(len(pairs), -1, dtype=np.int64),
            [key for key, _ in pairs],
            [value for _, value in pairs],
        )


def configuration(bootstrap: str, topic: str, folder: Path, *, stride: int, architecture: str) -> Config:
    """Return the pipeline's configuration for this input, with all product features on."""
    fleet: dict[str, Any] = {
        "name": "bench",
        "interval": "1s",
        "window": WINDOW,
        "stride": stride,
        "sensors": list(SENSORS),
        "model": {"architecture": architecture},
        "retrain": {"every": "never", "history": "3650d"},
    }
    document = {
        "kafka": {"bootstrap": bootstrap or "localhost:9092", "topics": [topic]},
        "store": {"url": f"sqlite:///{folder}/bench.db", "checkpoints": str(folder)},
        "fleet": [fleet],
    }
    return parse(document)
