"""Ranking metrics, straight from their definitions: the slow oracle of `monitor.evaluation.metrics`.

No threshold, no point adjustment (with it a random score reaches .80). For a few thousand rows.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

N_THRESHOLDS = 250


def auc_pr(label: NDArray[np.int64], score: NDArray[np.float64]) -> float:
    """Return the average precision: each labelled row's precision at its own score, ties together."""
    order = np.argsort(-score, kind="stable")
    hits = np.cumsum(label[order])
    last_of_tie = np.append(np.diff(score[order]) != 0, True)
    precision = (hits / np.arange(1, len(hits) + 1))[last_of_tie]
    recall = hits[last_of_tie] / label.sum()
    return float(np.sum(np.diff(recall, prepend=0.0) * precision))


def auc_roc(label: NDArray[np.int64], score: NDArray[np.float64]) -> float:
    """Return the probability that a labelled row ranks above an unlabelled one, pair by pair. A tie is half of one."""
    apart = np.sign(score[label == 1][:, None] - score[label == 0])
    return float((apart.mean() + 1) / 2)


def vus_pr(label: NDArray[np.int64], score: NDArray[np.float64], buffer: int) -> float:
    """Return the volume under the surface of precision and recall, over event buffers 0..buffer.

    Paparrizos et al., VLDB 2022. An event's neighbourhood counts in part, the less the farther. Recall is multiplied by
    the share of events that are touched at all.
    """
    limits = np.sort(score)[::-1][np.linspace(0, len(score) - 1, N_THRESHOLDS).astype(int)]
    found = score >= limits[:, None]                                         # (thresholds, rows)
    n_found = found.sum(1)
    in_event = found @ label
    areas = []
    for width in range(buffer + 1):
        hits = found @ softened(label, width)
        touched = np.array([found[:, first:beyond].any(1) for first, beyond in neighbourhoods(label, width // 2)])
        # An event's neighbourhood need not be found: it counts in the denominator where it was.
        findable = label.sum() + (hits - in_event) / 2
        recall = np.minimum(hits / findable, 1) * touched.mean(0)
        areas.append(np.sum(np.diff(recall, prepend=0.0) * hits / n_found))
    return float(np.mean(areas))


def softened(label: NDArray[np.int64], width: int) -> NDArray[np.float64]:
    """Return labels with edges that fall off over half the width, as the root of the remaining distance."""
    weight = label.astype(float)
    for first, beyond in events(label):
        for step in range(1, width // 2 + 1):
            for row in (first - step, beyond - 1 + step):
                if 0 <= row < len(label):
                    weight[row] += np.sqrt(1 - step / width)
    return np.minimum(weight, 1)


def neighbourhoods(label: NDArray[np.int64], reach: int) -> list[tuple[int, int]]:
    """Return events with so many rows on either side. Those that share a row are one."""
    joined: list[tuple[int, int]] = []
    for first, beyond in events(label):
        if joined and first - reach < joined[-1][1]:
            joined[-1] = (joined[-1][0], beyond + reach)
        else:
            joined.append((max(first - reach, 0), beyond + reach))
    return joined


def events(label: NDArray[np.int64]) -> list[tuple[int, int]]:
    """Return runs of labelled rows: first row, and the one behind the last."""
    found, first = [], None
    for row, value in enumerate([*label.tolist(), 0]):
        if value and first is None:
            first = row
        elif not value and first is not None:
            found.append((first, row))
            first = None
    return found


def range_f1(label: NDArray[np.int64], found: NDArray[np.int64]) -> float:
    """Return the range-based F1 (Tatbul et al. 2018): a fifth of recall for existence, flat bias, 1/x for x pieces."""
    real, called = events(label), events(found)

    def worth(mine: list[tuple[int, int]], others: list[tuple[int, int]], alpha: float) -> float:
        parts = []
        for first, beyond in mine:
            shared = [max(0, min(beyond, b) - max(first, a)) for a, b in others]
            pieces = sum(rows > 0 for rows in shared)
            covered = sum(shared) / (beyond - first) / max(pieces, 1)
            parts.append(alpha * (pieces > 0) + (1 - alpha) * covered)
        return sum(parts) / len(parts) if parts else 0.0

    recall, precision = worth(real, called, 0.2), worth(called, real, 0.0)
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0
