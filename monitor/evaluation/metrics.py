"""How well scores rank rows, and how well the threshold cuts them: labels and scores in, figures between 0 and 1 out.

    vus_pr     volume under the surface of precision and recall over event buffers: the figure to compare methods by
    auc_pr     average precision            auc_roc    a labelled row ranks above an unlabelled one
    range_f1   precision and recall of ranges at a threshold
    period     the buffer of `vus_pr`: how often a recording repeats itself

The law: no point adjustment (with it a random score reaches .80), and no threshold chosen by the labels. N rows;
labels are 0 or 1 with both present, scores are finite, higher is worse. Each figure is linear in N but for one sort.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from monitor.types import Float32, Int64

    Float64 = NDArray[np.float64]
    Label = NDArray[np.int8] | NDArray[np.int64]

N_THRESHOLDS = 250
"""Of the curve under each buffer, evenly spaced among the ranked scores: TSB-AD 1.5's default."""

EXISTENCE_WEIGHT = 0.2
"""Tatbul's α for recall: a fifth for touching an event at all, the rest for how much of it is covered. Precision has
no such part. Bias is flat (each row of a range counts alike); covering one range in x pieces is worth 1/x."""

N_PERIOD, N_LAGS, FIRST_LAG, LONGEST = 20_000, 400, 3, 300
NO_PERIOD = 125
"""As TSB-AD 1.5 looks for a period: autocorrelation of so many rows, at lags 3 to 400; what it takes where none is."""


# ---------------------------------------------------------------- ranking


def auc_pr(label: Label, score: Float64) -> float:
    """Return the average precision: each labelled row's precision at its own score, ties together."""
    order = np.argsort(-score, kind="stable")
    last_of_tie = np.append(np.flatnonzero(np.diff(score[order])), len(order) - 1)
    hits = np.cumsum(label[order] != 0)[last_of_tie]
    return float(np.sum(np.diff(hits, prepend=0) / hits[-1] * hits / (last_of_tie + 1)))


def auc_roc(label: Label, score: Float64) -> float:
    """Return the chance that a labelled row scores above an unlabelled one; a tie counts half."""
    _, place, n_tied = np.unique(score, return_inverse=True, return_counts=True)
    rank = np.cumsum(n_tied) - (n_tied - 1) / 2                              # of a tie: the middle of its places
    is_fault = label != 0
    n_faults = int(is_fault.sum())
    above = rank[place[is_fault]].sum() - n_faults * (n_faults + 1) / 2
    return float(above / (n_faults * (len(label) - n_faults)))


def vus_pr(label: Label, score: Float64, buffer: int) -> float:
    """Return the volume under the surface of precision and recall, over event buffers 0..`buffer` rows.

    Paparrizos et al., VLDB 2022, as TSB-AD 1.5 computes it (`opt`): half a buffer of width w lies on each side of an
    event, and a row d rows away counts sqrt(1 − d/w). Where two events are near, the parts add up to one at most; since
    each part is at least sqrt(1/2), a row near two events counts whole. Recall is worth only the share of events
    (neighbourhoods that touch are one) found at all; a neighbourhood may be found and need not be, so it counts half
    in what is to be found. Cost: O(N log N + buffer² · thresholds), whatever the number of events.
    """
    n = len(label)
    ranked = -np.sort(-score)
    limits = ranked[np.linspace(0, n - 1, N_THRESHOLDS).astype(np.int64)]
    level = np.searchsorted(-limits, -score)                                 # a row's first threshold that finds it
    n_found = np.searchsorted(-ranked, -limits, side="right")                # (thresholds,), as all `found_` here
    events = ranges(label)
    n_labelled = int((events[:, 1] - events[:, 0]).sum())
    found_inside = _cumulated(level[label != 0])

    near = _Nearness(events, n, buffer // 2)
    peak = np.minimum.reduceat(level, events.ravel()[: 2 * len(events) - (events[-1, 1] == n)])[::2]
    alone = np.zeros((buffer // 2 + 1, N_THRESHOLDS))                        # rows near one event, by their distance
    whole = np.zeros(N_THRESHOLDS)                                           # rows near two
    share_touched = _touched(peak, events, 0)
    volume = 0.0
    for width in range(buffer + 1):
        reach = width // 2
        if width and width % 2 == 0:
            new, both = near.at(reach)
            alone[reach] += np.bincount(level[new], minlength=N_THRESHOLDS)
            np.subtract.at(alone, (near.first[both], level[near.row[both]]), 1)
            whole += np.bincount(level[near.row[both]], minlength=N_THRESHOLDS)
            for edge in (events[:, 0] - reach, events[:, 1] - 1 + reach):
                peak = np.minimum(peak, level[np.clip(edge, 0, n - 1)])
            share_touched = _touched(peak, events, reach)
        part = np.sqrt(1 - np.arange(1, reach + 1) / max(width, 1))
        found_near = np.cumsum(part @ alone[1 : reach + 1] + whole)
        found = found_inside + found_near
        recall = np.minimum(found / (n_labelled + found_near / 2), 1) * share_touched
        volume += float(np.sum(np.diff(recall, prepend=0.0) * found / n_found))
    return volume / (buffer + 1)


class _Nearness:
    """Unlabelled rows near events: `row`, with the distance to the nearest event edge and to the second nearest."""

    def __init__(self, events: Int64, n: int, reach: int) -> None:
        inside = np.zeros(n + 1, dtype=np.int64)
        np.add.at(inside, np.maximum(events[:, 0] - reach, 0), 1)
        np.add.at(inside, np.minimum(events[:, 1] + reach, n), -1)
        row = np.flatnonzero(np.cumsum(inside[:-1]) > 0)
        behind = np.searchsorted(events[:, 0], row, side="right")            # events that begin at the row or before
        far = np.full(2, n + reach + 1)
        last = np.concatenate((-far, events[:, 1] - 1))                      # two that are nowhere, on either side
        first = np.concatenate((events[:, 0], 2 * far))
        outside = row > last[behind + 1]
        self.row, behind = row[outside], behind[outside]
        distances = np.stack(
            (
                self.row - last[behind + 1],
                self.row - last[behind],
                first[behind] - self.row,
                first[behind + 1] - self.row,
            )
        )
        self.first, self.second = np.sort(distances, axis=0)[:2]
        self._by_first = np.argsort(self.first, kind="stable")
        self._by_second = np.argsort(self.second, kind="stable")

    def at(self, reach: int) -> tuple[Int64, Int64]:
        """Return the rows whose nearest event is just so far away, and the places of those whose second is."""
        low, high = np.searchsorted(self.first[self._by_first], [reach, reach + 1])
        low2, high2 = np.searchsorted(self.second[self._by_second], [reach, reach + 1])
        return self.row[self._by_first[low:high]], self._by_second[low2:high2]


def _touched(peak: Int64, events: Int64, reach: int) -> Float64:
    """Return by threshold the share of neighbourhoods with a row found; `peak`: each event's best level."""
    begins = np.append(0, np.flatnonzero(events[1:, 0] - events[:-1, 1] + 1 > 2 * reach) + 1)
    best = np.minimum.reduceat(peak, begins)
    return _cumulated(best) / len(best)


def _cumulated(levels: Int64) -> Float64:
    return np.cumsum(np.bincount(levels, minlength=N_THRESHOLDS)).astype(np.float64)


# ---------------------------------------------------------------- ranges at a threshold


class RangeF1(NamedTuple):
    """What a threshold finds, judged by ranges."""

    precision: float
    recall: float
    f1: float


def range_f1(label: Label, found: Label) -> RangeF1:
    """Return range-based precision, recall and their harmonic mean (Tatbul et al., NeurIPS 2018; see
    EXISTENCE_WEIGHT for the parameters). `found`: [N], 1 = at or above the threshold. Nothing found is worth 0.
    """
    real, called = ranges(label), ranges(found)
    recall = _covered(real, called, EXISTENCE_WEIGHT)
    precision = _covered(called, real, 0.0)
    both = precision + recall
    return RangeF1(precision, recall, 2 * precision * recall / both if both else 0.0)


def _covered(mine: Int64, others: Int64, existence: float) -> float:
    """Return the mean over ranges of how far the others cover them, less where it takes several."""
    if not len(mine) or not len(others):
        return 0.0
    lengths = np.append(0, np.cumsum(others[:, 1] - others[:, 0]))

    def rows_before(at: Int64) -> Int64:
        k = np.searchsorted(others[:, 0], at)
        last = np.maximum(k - 1, 0)
        beyond = np.where(k > 0, np.maximum(others[last, 1] - at, 0), 0)
        before: Int64 = lengths[k] - beyond
        return before

    covered = (rows_before(mine[:, 1]) - rows_before(mine[:, 0])) / (mine[:, 1] - mine[:, 0])
    pieces = np.searchsorted(others[:, 0], mine[:, 1]) - np.searchsorted(others[:, 1], mine[:, 0], side="right")
    worth = existence * (pieces > 0) + (1 - existence) * covered / np.maximum(pieces, 1)
    return float(worth.mean())


def ranges(label: Label) -> Int64:
    """Return the runs of labelled rows as [n, 2]: first row, and the one behind the last."""
    edges = np.flatnonzero(np.diff((label != 0).astype(np.int8), prepend=0, append=0))
    return edges.reshape(-1, 2)


# ---------------------------------------------------------------- period


def period(values: Float32) -> int:
    """Return how many rows after which one sensor's values [N] repeat themselves best; NaN is filled from before."""
    x = filled(values[:N_PERIOD, None])[:, 0]
    x -= x.mean()
    n = len(x)
    spectrum = np.fft.rfft(x, 2 * n)
    likeness = np.fft.irfft(np.abs(spectrum) ** 2, 2 * n)[FIRST_LAG : min(N_LAGS + 1, n)]
    middle = likeness[1:-1]
    tops = np.flatnonzero((middle > likeness[:-2]) & (middle > likeness[2:])) + 1
    if not x.any() or not len(tops):
        return NO_PERIOD
    best = int(tops[np.argmax(likeness[tops])])
    # The bounds are on the place behind the first lag, as in TSB-AD.
    return best + FIRST_LAG if FIRST_LAG <= best <= LONGEST else NO_PERIOD


def filled(values: Float32) -> Float64:
    """Return [N, C] with each blank as the value before it; what is blank from the start as the first value there is;
    0 in a column that has none.
    """
    known = np.isfinite(values)
    if known.all():
        return values.astype(np.float64)
    rows = np.arange(len(values))[:, None]
    at = np.maximum.accumulate(np.where(known, rows, -1), axis=0)
    at = np.where(at < 0, np.argmax(known, axis=0), at)
    held: Float64 = np.nan_to_num(np.take_along_axis(values, at, axis=0), posinf=0, neginf=0).astype(np.float64)
    return held
