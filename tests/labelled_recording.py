"""A labelled recording for tests: two sensors that oscillate together, and two events in which one stands still."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np

from monitor.evaluation.series import Series, UnlabelledSeries

if TYPE_CHECKING:
    from pathlib import Path

N_ROWS, N_TRAIN = 1200, 700
EVENTS = ((850, 900), (1000, 1060))


def values(seed: int = 0) -> np.ndarray:
    """Return the values of both sensors, [N_ROWS, 2]."""
    random = np.random.default_rng(seed)
    rows = np.arange(N_ROWS)
    both = np.stack([np.sin(rows / 5), np.cos(rows / 5)], axis=1) + 0.1 * random.standard_normal((N_ROWS, 2))
    for first, end in EVENTS:
        both[first:end, 1] = 3.0
    return both.astype(np.float32)


def label() -> np.ndarray:
    """Return the labels, [N_ROWS]."""
    found = np.zeros(N_ROWS, np.int8)
    for first, end in EVENTS:
        found[first:end] = 1
    return found


def series(*, labelled: bool = True, seed: int = 0) -> Series:
    """Return the recording as a series."""
    data = UnlabelledSeries(("flow", "pressure"), values(seed), N_TRAIN, 60.0)
    return Series("plant", "pump", data, label() if labelled else None)


def write_csv(path: Path, *, labelled: bool = True, train_rows: int | None = N_TRAIN, seed: int = 0) -> Path:
    """Write the recording to a CSV file, and its training rows into `meta.json` beside it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    head = "timestamp,flow,pressure" + (",label" if labelled else "")
    rows = [
        f"{60 * n},{a:.5f},{b:.5f}" + (f",{fault}" if labelled else "")
        for n, ((a, b), fault) in enumerate(zip(values(seed), label(), strict=True))
    ]
    path.write_text("\n".join([head, *rows]))
    if train_rows is not None:
        file = path.parent / "meta.json"
        meta = json.loads(file.read_text()) if file.exists() else {"sampling_interval_s": 60, "series": {}}
        meta["series"][path.stem] = {"train_rows": train_rows}
        file.write_text(json.dumps(meta))
    return path
