"""The usual script: what most people write first. The measure that `monitor bench` holds the river against.

Messages of one reading each enter; a row per scored window leaves. It is honest: the idioms of the tutorials (`async
for`, `json.loads`, a deque per asset, a model called on one window, an INSERT per row), the same network with the same
weights as the river, and the settings that make it faster without changing its shape (WAL, one torch thread, inference
mode). It has no event time, no gaps, no restart, no alerts: what those cost is the river's burden.
"""

from __future__ import annotations

import json
import sqlite3
from collections import defaultdict, deque
from typing import TYPE_CHECKING, Protocol

import numpy as np
import torch

if TYPE_CHECKING:
    from collections.abc import AsyncIterable, Callable
    from pathlib import Path

    from torch import nn


class Message(Protocol):
    """What the script needs of aiokafka's ConsumerRecord."""

    @property
    def value(self) -> bytes:
        """One reading as JSON."""
        ...

    @property
    def timestamp(self) -> int:
        """When it was sent, milliseconds since 1970."""
        ...


async def watch(
    messages: AsyncIterable[Message],
    model: nn.Module,
    mean: np.ndarray,
    std: np.ndarray,
    database: Path,
    *,
    window: int = 64,
    stride: int = 1,
    on_reading: Callable[[Message, bool], bool],
) -> None:
    """Score every asset's latest window as its readings come, until `on_reading(message, has_scored)` returns True."""
    torch.set_num_threads(1)
    db = sqlite3.connect(database, isolation_level=None)  # autocommit: a row that is scored is there
    db.execute("PRAGMA journal_mode=WAL")
    db.execute("PRAGMA synchronous=NORMAL")
    db.execute("CREATE TABLE scores (asset TEXT, ts REAL, score REAL, is_anomaly INTEGER, PRIMARY KEY (asset, ts))")
    windows: dict[str, deque[list[float]]] = defaultdict(lambda: deque(maxlen=window))
    counts: dict[str, int] = defaultdict(int)
    try:
        async for message in messages:
            reading = json.loads(message.value)
            asset = reading["asset_id"]
            windows[asset].append(list(reading["sensors"].values()))
            counts[asset] += 1
            is_due = counts[asset] >= window and (counts[asset] - window) % stride == 0
            if is_due:
                values = (np.array(windows[asset], dtype=np.float32) - mean) / std
                with torch.inference_mode():
                    x = torch.from_numpy(values.T.copy()).unsqueeze(0)  # (1, C, T)
                    score = float(((model(x) - x) ** 2).mean())
                db.execute(
                    "INSERT OR REPLACE INTO scores VALUES (?, ?, ?, ?)", (asset, reading["ts"], score, int(score > 1))
                )
            if on_reading(message, is_due):
                return
    finally:
        db.close()
