"""Random labels and scores, each seed with its own corner case, to compare implementations of the metrics."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

CORNERS = {
    0: "an event from the first row", 1: "an event to the last row", 2: "both ends", 3: "scores in tenths, many ties",
    4: "constant scores", 5: "events of one row", 6: "buffers that touch", 7: "labels as scores", 8: "no buffer",
    9: "fewer rows than thresholds",
}  # fmt: skip
"""Corner case by the seed's last digit."""


def case(seed: int) -> tuple[NDArray[np.int64], NDArray[np.float64], int]:
    """Return labels [N], scores [N] and a buffer."""
    random, corner = np.random.default_rng(seed), seed % 10
    n = int(random.integers(40, 240) if corner == 9 else random.integers(300, 900))
    buffer = 0 if corner == 8 else int(random.integers(1, 80))
    label = np.zeros(n, dtype=np.int64)
    for _ in range(int(random.integers(2, 7))):
        first = int(random.integers(1, n - 20))
        label[first : first + (1 if corner == 5 else int(random.integers(1, 18)))] = 1
    if corner == 6:
        for gap in (buffer - 1, buffer, buffer + 1, buffer + 2):
            first = int(random.integers(1, n - gap - 8))
            label[first : first + 3] = label[first + 3 + gap : first + 5 + gap] = 1
    if corner in (0, 2):
        label[:4] = 1
    if corner in (1, 2):
        label[-3:] = 1
    score = random.random(n) + label * random.random()
    if corner == 3:
        score = np.round(score, 1)
    if corner == 4:
        score[:] = 1.0
    if corner == 7:
        score = label.astype(float)
    return label, score, buffer


def wave(seed: int) -> NDArray[np.float32]:
    """Return a sensor's values, a random period and noise. Every fifth is noise alone, every seventh is short."""
    random = np.random.default_rng(1000 + seed)
    n = int(random.integers(20, 250) if seed % 7 == 6 else random.integers(600, 1500))
    rows, noise = np.arange(n), random.standard_normal(n)
    clean = np.sin(2 * np.pi * rows / random.integers(2, 320)) if seed % 5 != 4 else np.zeros(n)
    return (clean + 0.3 * noise).astype(np.float32)
