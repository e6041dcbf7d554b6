"""How well scores rank rows, by area: no threshold, no point adjustment (with it a random score reaches .80)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

N_THRESHOLDS = 250


def auc_pr(label: NDArray[np.int64], score: NDArray[np.float64]) -> float:
    """Average precision: each labelled row's precision at its own score, ties together."""
    order = np.argsort(-score, kind="stable")
    hits = np.cumsum(label[order])
    last_of_tie = np.append(np.diff(score[order]) != 0, True)
    precision = (hits / np.arange(1, len(hits) + 1))[last_of_tie]
    recall = hits[last_of_tie] / label.sum()
    return float(np.sum(np.diff(recall, prepend=0.0) * precision))


def vus_pr(label: NDArray[np.int64], score: NDArray[np.float64], buffer: int) -> float:
    """Volume under the surface of precision and recall, over event buffers 0..buffer (Paparrizos et al., VLDB 2022).

    An event's neighbourhood counts in part, the less the farther; recall is worth only the share of events that are
    touched at all. Meant for a few thousand rows.
    """
    limits = np.quantile(score, np.linspace(1, 0, N_THRESHOLDS))
    found = score >= limits[:, None]                                         # (thresholds, rows)
    n_found = found.sum(1)
    in_event = found @ label
    areas = []
    for width in range(buffer + 1):
        weight = softened(label, width)
        hits = found @ weight
        near = np.flatnonzero(weight)
        starts = np.flatnonzero(np.diff(near, prepend=-2) > 1)               # where a new event's rows begin
        events = np.add.reduceat(found[:, near], starts, axis=1) > 0         # (thresholds, events)
        # An event's neighbourhood may be found, and need not be: it counts in the denominator where it was.
        findable = label.sum() + (hits - in_event) / 2
        recall = np.minimum(hits / findable, 1) * events.mean(1)
        precision = hits / n_found
        areas.append(np.sum(np.maximum(np.diff(recall, prepend=0.0), 0) * precision))
    return float(np.mean(areas))


def softened(label: NDArray[np.int64], width: int) -> NDArray[np.float64]:
    """Labels whose edges fall off over half the width as the root of the distance that remains."""
    weight = label.astype(float)
    for step in range(1, width // 2 + 1):
        part = np.sqrt(1 - step / width)
        weight[step:] = np.maximum(weight[step:], part * label[:-step])
        weight[:-step] = np.maximum(weight[:-step], part * label[step:])
    return weight

