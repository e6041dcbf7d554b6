"""A small plant: two sensors that go round together, an event where one of them stands still."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np

from monitor.evaluation.series import Series, Unlabelled

if TYPE_CHECKING:
    from pathlib import Path

N, TRAIN = 1200, 700
EVENTS = ((850, 900), (1000, 1060))


def values(seed: int = 0) -> np.ndarray:
    random = np.random.default_rng(seed)
    rows = np.arange(N)
    both = np.stack([np.sin(rows / 5), np.cos(rows / 5)], axis=1) + 0.1 * random.standard_normal((N, 2))
    for first, beyond in EVENTS:
        both[first:beyond, 1] = 3.0
    return both.astype(np.float32)


def label() -> np.ndarray:
    found = np.zeros(N, np.int8)
    for first, beyond in EVENTS:
        found[first:beyond] = 1
    return found


def series(*, labelled: bool = True, seed: int = 0) -> Series:
    data = Unlabelled(("flow", "pressure"), values(seed), TRAIN, 60.0)
    return Series("plant", "pump", data, label() if labelled else None)


def write(path: Path, *, labelled: bool = True, train_rows: int | None = TRAIN, seed: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    head = "timestamp,flow,pressure" + (",label" if labelled else "")
    rows = [
        f"{60 * n},{a:.5f},{b:.5f}" + (f",{word}" if labelled else "")
        for n, ((a, b), word) in enumerate(zip(values(seed), label(), strict=True))
    ]
    path.write_text("\n".join([head, *rows]))
    if train_rows is not None:
        meta = path.parent / "meta.json"
        said = json.loads(meta.read_text()) if meta.exists() else {"sampling_interval_s": 60, "series": {}}
        said["series"][path.stem] = {"train_rows": train_rows}
        meta.write_text(json.dumps(said))
    return path
