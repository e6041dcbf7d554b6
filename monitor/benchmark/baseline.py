"""The baseline script that `monitor bench` compares the pipeline with: the script that most people write first.

Input: messages of one reading each. Output: a database row per scored window.
It is written as in the tutorials: `async for`, `json.loads`, a deque per asset, a model called on one window, an INSERT
per row. The network and its weights are those of the pipeline. Settings that make it faster
without changing its structure are on: WAL, one torch thread, inference mode. It has no event time, no gap handling, no
restart and no alerts, which cost only the pipeline time.
"""

from __future__ import annotations

import json
import sqlite3
from collections import defaultdict, deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np
import torch

if TYPE_CHECKING:
    from collections.abc import AsyncIterable, Callable
    from pathlib import Path

    from torch import nn


class Message(Protocol):
    """The attributes of aiokafka's ConsumerRecord that the script reads."""

    @property
    def value(self) -> bytes:
        """One reading as JSON."""
        ...

    @property
    def timestamp(self) -> int:
        """Time of sending, milliseconds since 1970."""
        ...


@dataclass(frozen=True, slots=True)
class ScriptModel:
    """The network, and the scale of each sensor."""

    network: nn.Module
    mean: np.ndarray
    """[C]"""
    std: np.ndarray
    """[C]"""
    window: int = 64
    stride: int = 1


async def score_stream(
    messages: AsyncIterable[Message],
    model: ScriptModel,
    database: Path,
    on_reading: Callable[[Message, bool], bool],
) -> None:
    """Score the latest window of each asset as its readings arrive.

    Returns when `on_reading(message, has_scored)` returns True, or at the end of the messages.
    """
    torch.set_num_threads(1)
    network, mean, std, window, stride = model.network, model.mean, model.std, model.window, model.stride
    db = sqlite3.connect(database, isolation_level=None)  # autocommit: a scored row is stored at once
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
                    score = float(((network(x) - x) ** 2).mean())
                db.execute(
                    "INSERT OR REPLACE INTO scores VALUES (?, ?, ?, ?)", (asset, reading["ts"], score, int(score > 1))
                )
            if on_reading(message, is_due):
                return
    finally:
        db.close()
