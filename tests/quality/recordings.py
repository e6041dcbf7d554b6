"""Labelled recordings as the quality tests read them."""

from __future__ import annotations

import csv
import gzip
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from tests.needs import need
from tests.quality.get_recordings import how_to_get

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray


@dataclass(frozen=True)
class LabelledSeries:
    """One series of a set."""

    values: NDArray[np.float32]
    """[rows, C], NaN = blank"""
    label: NDArray[np.int64]
    train_rows: int
    """Healthy leading rows."""
    interval_s: float
    sensors: tuple[str, ...]


def load(folder: Path, name: str) -> LabelledSeries:
    """Read "set/series". Skip the test if it is missing."""
    group, series = name.split("/")
    path = folder / group / f"{series}.csv.gz"
    need(path.is_file(), how_to_get(group))
    meta = json.loads((folder / group / "meta.json").read_text())
    with gzip.open(path, "rt", newline="") as file:
        head, *rows = csv.reader(file)
    exact = np.array([[float(cell) if cell else np.nan for cell in row[1:-1]] for row in rows])
    values = np.where(np.abs(exact) < np.finfo(np.float32).max, exact, np.nan).astype(np.float32)
    label = np.array([int(float(row[-1])) for row in rows])
    train_rows = meta["series"][series]["train_rows"]
    interval_s = float(meta["sampling_interval_s"] or 1.0)  # not known for `ucr`
    return LabelledSeries(values, label, train_rows, interval_s, tuple(head[1:-1]))
