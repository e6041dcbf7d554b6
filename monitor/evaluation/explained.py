"""Explanations measured: the sensors that are blamed for faults injected into one or two sensors of quiet windows.

Input: a trained model and windows behind its training rows. Output: hits among the alarmed windows.
Invariant: seeded. Kinds and onsets are those of `training/faults.py`, which are not tuned to any recording. Sizes are
twice as large, because only windows that alarm have an explanation.

The windows are quiet before: their score is below half of the threshold, so the alarm is the fault's. Of two faulty
sensors each counts by itself, and is a hit if it is among the first two.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from monitor.models.scaler import CLIP
from monitor.training.faults import KINDS, SIZES, apply_fault

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from monitor.models.detector import TrainedModel
    from monitor.types import Float32, Int64

MAX_WINDOWS = 210
"""Quiet windows of a series with a fault each, in one sensor and again in two."""
TOP = 2
MIN_SENSORS = 4
"""With three sensors, two of them are named by chance too often."""
QUIET = 0.5
"""Score below which a window is quiet."""
MIN_WINDOWS = 20
FAULT_SIZES = tuple(2 * size for size in SIZES)
"""In spreads of the sensor."""
MAX_QUIET = 500
"""Windows of a series from which those with faults are drawn."""


@dataclass(frozen=True, slots=True)
class ExplainedFaults:
    """Faulty sensors of alarmed windows, and those of them that are among the first two."""

    n_one: int = 0
    """Windows with one faulty sensor that alarm."""
    hits_one: int = 0
    n_two: int = 0
    """Faulty sensors of alarmed windows with two."""
    hits_two: int = 0

    @classmethod
    def of_rows(cls, rows: Iterable[Mapping[str, Any]]) -> ExplainedFaults:
        """Return the sum of several series. `rows`: with the keys of `row`."""
        counts = [0, 0, 0, 0]
        for row in rows:
            for place, name in ((0, "top2_one"), (2, "top2_two")):
                n = row.get(f"{name}_n") or 0
                counts[place] += n
                counts[place + 1] += round(n * (row[name] or 0.0)) if n else 0
        return cls(*counts)

    def row(self) -> dict[str, float | int | None]:
        """Return the keys of `--json`: hit rates, their numbers, and the 95 % interval of all faulty sensors."""
        n, hits = self.n_one + self.n_two, self.hits_one + self.hits_two
        low, high = wilson(hits, n)
        return {
            "top2_hit_rate": _rounded(hits, n),
            "top2_low": low,
            "top2_high": high,
            "top2_n": n,
            "top2_one": _rounded(self.hits_one, self.n_one),
            "top2_one_n": self.n_one,
            "top2_two": _rounded(self.hits_two, self.n_two),
            "top2_two_n": self.n_two,
        }


def wilson(hits: int, n: int) -> tuple[float | None, float | None]:
    """Return the 95 % interval of a share (Wilson, 1927). None = of nothing."""
    if not n:
        return None, None
    share, z2 = hits / n, 1.96**2
    centre, half = share + z2 / (2 * n), 1.96 * (share * (1 - share) / n + z2 / (4 * n * n)) ** 0.5
    return tuple(round((centre + sign * half) / (1 + z2 / n), 4) for sign in (-1, 1))


def _rounded(hits: int, n: int) -> float | None:
    return round(hits / n, 4) if n else None


def quiet_rows(score: Float32) -> Int64:
    """Return the numbers of quiet windows, evenly over the time: at most `MAX_QUIET`."""
    rows = np.flatnonzero(score < QUIET)
    return rows[:: max(1, -(-len(rows) // MAX_QUIET))]


def explained_faults(detector: TrainedModel, windows: Float32, seed: int = 0) -> ExplainedFaults | None:
    """Inject faults into copies of quiet windows [N, T, C] and count the hits. None = too few sensors or windows."""
    sensors = _plain_sensors(detector)
    if len(sensors) < MIN_SENSORS or len(windows) < MIN_WINDOWS:
        return None
    rng = np.random.default_rng(seed)
    counts = []
    for n_faulty in (1, TOP):
        rows = rng.integers(len(windows), size=MAX_WINDOWS)
        faulty, chosen = inject(detector, windows[rows], windows, sensors, n_faulty, rng)
        scored = detector.score(faulty)
        alarmed = np.flatnonzero(scored.score >= 1.0)
        blamed = detector.explain(faulty[alarmed], scored.share[alarmed])
        hits = 0
        for row, contributions in zip(alarmed.tolist(), blamed, strict=True):
            first = {each.name for each in contributions[:TOP]}
            hits += sum(detector.sensors[c] in first for c in chosen[row].tolist())
        counts += [n_faulty * len(alarmed), hits]
    return ExplainedFaults(*counts)


def _plain_sensors(detector: TrainedModel) -> Int64:
    """Return the columns of the sensors that can be faulty: the model takes them as they are, and they move."""
    kinds = {name: each.kind for name, each in zip(detector.sensors, detector.inputs.inputs, strict=True)}
    moving = {scale.name for scale in detector.scaler.sensors if scale.kind not in ("constant", "absent")}
    return np.array(
        [c for c, name in enumerate(detector.sensors) if kinds[name] == "plain" and name in moving], dtype=np.int64
    )


def inject(
    detector: TrainedModel, windows: Float32, pool: Float32, sensors: Int64, n_faulty: int, rng: np.random.Generator
) -> tuple[Float32, Int64]:
    """Return copies of windows [N, T, C] with a fault each, and the faulty columns [N, n_faulty].

    `pool`: windows whose values a `swap` inserts. The fault began at most half a window ago.
    """
    scale_of = {scale.name: scale for scale in detector.scaler.sensors}
    out, chosen = windows.copy(), np.empty((len(windows), n_faulty), dtype=np.int64)
    for row in range(len(out)):
        chosen[row] = rng.choice(sensors, n_faulty, replace=False)
        age = int(rng.integers(2, max(3, out.shape[1] // 2)))
        size, other = float(rng.choice(FAULT_SIZES)), pool[rng.integers(len(pool))]
        for c in chosen[row].tolist():
            unit = scale_of[detector.sensors[c]]
            series, spare = ((each[:, c] - unit.centre) / unit.scale for each in (out[row], other))
            apply_fault(series, KINDS[row % len(KINDS)], age, size * rng.choice((-1.0, 1.0)), spare, rng)
            out[row, :, c] = np.clip(series, -CLIP, CLIP) * unit.scale + unit.centre
    return out, chosen
