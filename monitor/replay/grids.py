"""Windows of recordings for a trained model, on its sampling grid.

Input: recordings and a model. Output: stretches of one asset, and their windows. Invariant: a cell holds the reading
nearest to it, as in the pipeline. A stretch ends where no reading came for a whole window.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from monitor.decode.columns import cells_of
from monitor.errors import BadRecording
from monitor.stream.score import misfit

if TYPE_CHECKING:
    from collections.abc import Iterator

    from monitor.models.detector import TrainedModel
    from monitor.recordings import Recording
    from monitor.types import Bool, Float32, Int64

MAX_WINDOWS = 200_000
"""Windows of one command. With more, their stride is a multiple of the wanted one."""


@dataclass(frozen=True, slots=True)
class Stretch:
    """N cells of one asset in a row."""

    asset: str
    first_cell: int
    values: Float32
    """[N, C], the sensors of the model in its order, NaN = missing."""
    label: Bool
    """[N], cells labelled as a fault."""

    def starts(self, length: int, stride: int) -> Int64:
        """Return the first row of each window. The last window ends with the stretch."""
        last = len(self.values) - length
        starts = np.arange(0, last + 1, stride, dtype=np.int64)
        return starts if not len(starts) or starts[-1] == last else np.append(starts, last)

    def windows(self, starts: Int64, length: int) -> Float32:
        """Return the windows [W, T, C] that begin at these rows."""
        view = np.lib.stride_tricks.sliding_window_view(self.values, length, axis=0)    # [N-T+1, C, T]
        return np.ascontiguousarray(view[starts].transpose(0, 2, 1))


def stretches(recording: Recording, model: TrainedModel) -> Iterator[Stretch]:
    """Yield the stretches of each asset that hold a window. Raises BadRecording: too few of the model's sensors."""
    card = model.card
    if reason := misfit(model, card.length, recording.sensors):
        raise BadRecording(f"{recording.name}: {model.version} {reason}")
    interval_us = round(card.interval_s * 1e6)
    at = [recording.sensors.index(name) if name in recording.sensors else -1 for name in model.sensors]
    for number, asset in enumerate(recording.assets):
        rows = np.flatnonzero(recording.asset == number)
        rows = rows[np.argsort(recording.ts_us[rows], kind="stable")]
        cells, first = np.unique(cells_of(recording.ts_us[rows], interval_us), return_index=True)
        rows = rows[first]
        for part in np.split(np.arange(len(cells)), np.flatnonzero(np.diff(cells) > card.length) + 1):
            if not len(part) or cells[part[-1]] - cells[part[0]] + 1 < card.length:
                continue
            place = cells[part] - cells[part[0]]
            values = np.full((int(place[-1]) + 1, len(at)), np.nan, dtype=np.float32)
            for column, source in enumerate(at):
                if source >= 0:
                    values[place, column] = recording.values[rows[part], source]
            label = np.zeros(len(values), dtype=bool)
            if recording.label is not None:
                label[place] = recording.label[rows[part]] > 0
            yield Stretch(asset, int(cells[part[0]]), values, label)


def is_full(windows: Float32, least: float) -> Bool:
    """Return the mask of windows [W, T, C] in which at least this share of the cells has a value of any sensor."""
    full: Bool = np.isfinite(windows).any(2).mean(1) >= least
    return full


def stride_for(found: list[Stretch], length: int, wanted: int) -> int:
    """Return the wanted stride, or a multiple with at most MAX_WINDOWS windows."""
    n = sum(max(0, len(each.values) - length) // wanted + 1 for each in found)
    return wanted * max(1, -(-n // MAX_WINDOWS))
