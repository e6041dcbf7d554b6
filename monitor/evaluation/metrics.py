"""Ranking metrics of anomaly scores, and precision and recall at the threshold.

    vus_pr     volume under the surface of precision and recall over event buffers: the figure to compare methods by
    auc_pr     average precision
    auc_roc    probability that a labelled row ranks above an unlabelled one
    range_f1   precision and recall of ranges at a threshold
    period     period of a recording, which is the buffer of `vus_pr`

Input: labels [N], 0 or 1 with both present, and finite scores [N], higher = more anomalous. Output: figures between 0
and 1.
Invariants: there is no point adjustment, with which a random score reaches 0.80. No threshold is chosen by the labels.
Each figure needs one sort, and is otherwise linear in N.
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
"""Thresholds of the curve under each buffer, evenly spaced among the ranked scores. The default of TSB-AD 1.5."""

EXISTENCE_WEIGHT = 0.2
"""Tatbul's α of recall: a fifth for overlapping an event at all, the rest for the covered share of it. The α of
precision is 0. The bias is flat: each row of a range counts the same. A range covered in x pieces counts 1/x."""

N_PERIOD, N_LAGS, FIRST_LAG, LONGEST = 20_000, 400, 3, 300
NO_PERIOD = 125
"""Constants of TSB-AD 1.5: rows of the autocorrelation, its lags, the bounds of a period, and the default period."""


# ---------------------------------------------------------------- ranking


def auc_pr(label: Label, score: Float64) -> float:
    """Return the average precision: the precision at the score of each labelled row, ties together."""
    order = np.argsort(-score, kind="stable")
    last_of_tie = np.append(np.flatnonzero(np.diff(score[order])), len(order) - 1)
    hits = np.cumsum(label[order] != 0)[last_of_tie]
    return float(np.sum(np.diff(hits, prepend=0) / hits[-1] * hits / (last_of_tie + 1)))


def auc_roc(label: Label, score: Float64) -> float:
    """Return the probability that a labelled row scores above an unlabelled one. A tie counts half."""
    _, place, n_tied = np.unique(score, return_inverse=True, return_counts=True)
    rank = np.cumsum(n_tied) - (n_tied - 1) / 2                              # a tie has the mean of its ranks
    is_fault = label != 0
    n_faults = int(is_fault.sum())
    above = rank[place[is_fault]].sum() - n_faults * (n_faults + 1) / 2
    return float(above / (n_faults * (len(label) - n_faults)))


def vus_pr(label: Label, score: Float64, buffer: int) -> float:
    """Return the volume under the surface of precision and recall, over event buffers 0..`buffer` rows.

    Paparrizos et al., VLDB 2022, as TSB-AD 1.5 computes it (`opt`). Half a buffer of width w lies on each side of an
    event, and a row d rows away counts sqrt(1 − d/w). Where two events are near, the parts add up to one at most. Each
    part is at least sqrt(1/2), so a row near two events counts as one. Recall is multiplied by the share of events that
    are found at all, where touching neighbourhoods are one event. A neighbourhood row is optional, so it counts half in
    the denominator of recall. Cost: O(N log N + buffer² · thresholds), for any number of events.
    """
    n = len(label)
    ranked = -np.sort(-score)
    limits = ranked[np.linspace(0, n - 1, N_THRESHOLDS).astype(np.int64)]
    level = np.searchsorted(-limits, -score)                                 # index of a row's first threshold
    n_found = np.searchsorted(-ranked, -limits, side="right")                # (thresholds,), as all `found_…`
    events = ranges(label)
    n_labelled = int((events[:, 1] - events[:, 0]).sum())
    found_inside = _cumulative(level[label != 0])

    near = _EventDistances(events, n, buffer // 2)
    peak = np.minimum.reduceat(level, events.ravel()[: 2 * len(events) - (events[-1, 1] == n)])[::2]
    alone = np.zeros((buffer // 2 + 1, N_THRESHOLDS))                        # rows near one event, by distance
    whole = np.zeros(N_THRESHOLDS)                                           # rows near two events
    share_found = _share_found(peak, events, 0)
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
            share_found = _share_found(peak, events, reach)
        part = np.sqrt(1 - np.arange(1, reach + 1) / max(width, 1))
        found_near = np.cumsum(part @ alone[1 : reach + 1] + whole)
        found = found_inside + found_near
        recall = np.minimum(found / (n_labelled + found_near / 2), 1) * share_found
        volume += float(np.sum(np.diff(recall, prepend=0.0) * found / n_found))
    return volume / (buffer + 1)


class _EventDistances:
    """Unlabelled rows near events, with the distances to the nearest event edge and to the second nearest."""

    def __init__(self, events: Int64, n: int, reach: int) -> None:
        inside = np.zeros(n + 1, dtype=np.int64)
        np.add.at(inside, np.maximum(events[:, 0] - reach, 0), 1)
        np.add.at(inside, np.minimum(events[:, 1] + reach, n), -1)
        row = np.flatnonzero(np.cumsum(inside[:-1]) > 0)
        behind = np.searchsorted(events[:, 0], row, side="right")            # events that begin at or before the row
        far = np.full(2, n + reach + 1)
        last = np.concatenate((-far, events[:, 1] - 1))                      # two sentinels on either side
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
        """Return the rows with their nearest event at this distance, and the indices of those with their second."""
        low, high = np.searchsorted(self.first[self._by_first], [reach, reach + 1])
        low2, high2 = np.searchsorted(self.second[self._by_second], [reach, reach + 1])
        return self.row[self._by_first[low:high]], self._by_second[low2:high2]


def _share_found(peak: Int64, events: Int64, reach: int) -> Float64:
    """Return by threshold the share of neighbourhoods with a found row. `peak`: the lowest level of each event."""
    begins = np.append(0, np.flatnonzero(events[1:, 0] - events[:-1, 1] + 1 > 2 * reach) + 1)
    best = np.minimum.reduceat(peak, begins)
    return _cumulative(best) / len(best)


def _cumulative(levels: Int64) -> Float64:
    return np.cumsum(np.bincount(levels, minlength=N_THRESHOLDS)).astype(np.float64)


# ---------------------------------------------------------------- ranges at a threshold


class RangeF1(NamedTuple):
    """Range-based metrics at one threshold."""

    precision: float
    recall: float
    f1: float


def range_f1(label: Label, found: Label) -> RangeF1:
    """Return range-based precision, recall and their harmonic mean (Tatbul et al., NeurIPS 2018).

    `found` is [N], 1 = at or above the threshold. Without a found row the result is 0. Parameters: EXISTENCE_WEIGHT.
    """
    real, called = ranges(label), ranges(found)
    recall = _coverage(real, called, EXISTENCE_WEIGHT)
    precision = _coverage(called, real, 0.0)
    both = precision + recall
    return RangeF1(precision, recall, 2 * precision * recall / both if both else 0.0)


def _coverage(spans: Int64, others: Int64, existence: float) -> float:
    """Return the mean share of each span that the others cover. Coverage by several pieces is worth less."""
    if not len(spans) or not len(others):
        return 0.0
    lengths = np.append(0, np.cumsum(others[:, 1] - others[:, 0]))

    def rows_before(at: Int64) -> Int64:
        k = np.searchsorted(others[:, 0], at)
        last = np.maximum(k - 1, 0)
        behind = np.where(k > 0, np.maximum(others[last, 1] - at, 0), 0)
        before: Int64 = lengths[k] - behind
        return before

    covered = (rows_before(spans[:, 1]) - rows_before(spans[:, 0])) / (spans[:, 1] - spans[:, 0])
    pieces = np.searchsorted(others[:, 0], spans[:, 1]) - np.searchsorted(others[:, 1], spans[:, 0], side="right")
    worth = existence * (pieces > 0) + (1 - existence) * covered / np.maximum(pieces, 1)
    return float(worth.mean())


def ranges(label: Label) -> Int64:
    """Return the runs of labelled rows as half-open ranges [n, 2]."""
    edges = np.flatnonzero(np.diff((label != 0).astype(np.int8), prepend=0, append=0))
    return edges.reshape(-1, 2)


# ---------------------------------------------------------------- period


def period(values: Float32) -> int:
    """Return the period of one sensor's values [N] in rows, by autocorrelation. NaN is forward-filled."""
    x = forward_filled(values[:N_PERIOD, None])[:, 0]
    x -= x.mean()
    n = len(x)
    spectrum = np.fft.rfft(x, 2 * n)
    correlation = np.fft.irfft(np.abs(spectrum) ** 2, 2 * n)[FIRST_LAG : min(N_LAGS + 1, n)]
    middle = correlation[1:-1]
    tops = np.flatnonzero((middle > correlation[:-2]) & (middle > correlation[2:])) + 1
    if not x.any() or not len(tops):
        return NO_PERIOD
    best = int(tops[np.argmax(correlation[tops])])
    # The bounds apply to the index counted from the first lag, as in TSB-AD.
    return best + FIRST_LAG if FIRST_LAG <= best <= LONGEST else NO_PERIOD


def forward_filled(values: Float32) -> Float64:
    """Return [N, C] with each NaN replaced by the value before it.

    Leading NaNs take the first value of the column. A column without values becomes 0.
    """
    known = np.isfinite(values)
    if known.all():
        return values.astype(np.float64)
    rows = np.arange(len(values))[:, None]
    at = np.maximum.accumulate(np.where(known, rows, -1), axis=0)
    at = np.where(at < 0, np.argmax(known, axis=0), at)
    held: Float64 = np.nan_to_num(np.take_along_axis(values, at, axis=0), posinf=0, neginf=0).astype(np.float64)
    return held
