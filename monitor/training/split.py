"""Split into training and held-out windows.

Input: the windows of a fleet. Output: row numbers of windows.
Invariant: the latest part of each asset's time is held out, as a whole, alerts included. Windows of alerts are not
trained on, nor windows that reach into the held-out time, unless they were most of a short history (`n_overlapping`).
Of a time in the held-out part that an operator accepted as normal up to the first half is trained on: members that have
not seen it would put the threshold above it, and so above many faults.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from monitor.models.inputs import ModelInputs
    from monitor.models.spec import TrainingSet
    from monitor.types import Bool, Float32, Int64

HELD_OUT = 0.2
"""The latest fifth of each asset's time. It decides the early stopping, the scales of errors and the threshold."""
MIN_PRESENT = 0.5
"""Share of present steps that a window needs. With fewer, training would learn mostly the filled values."""
MIN_LEFT_BY_PURGE = 0.8
"""Share of the training windows that must remain without those that reach into the held-out time. In a short history
less would remain. Then they are trained on, and the threshold is never certified."""
MIN_HALVES = 4
"""Lengths of a window in an accepted time of which the second half is held out."""
MAX_MOVED = 0.2
"""Share of the held-out time that one accepted time may take from it. Three days of four weeks: a change is learnt
from them, and the threshold needs the rest. With half of an accepted fortnight in place of it, one week was held out,
and a machine with heavy tails had nine alerts in two weeks."""
N_SCALE = 400_000
"""Readings that the scales are measured on, evenly spaced."""


@dataclass(frozen=True, slots=True)
class Split:
    """Rows of a training set, in order."""

    train: Int64
    held_out: Int64
    n_purged: int
    """Training windows left out because they reach into the held-out time."""
    n_overlapping: int
    """Training windows that reach into the held-out time and were not left out."""
    n_alerted: int
    """Windows before the held-out time left out because they overlap an alert."""
    usable: Int64
    """The rows that were split."""


def alerted(windows: TrainingSet) -> Bool:
    """Return the mask [N] of the windows that overlap an alert without a label."""
    return np.zeros(len(windows), dtype=bool) if windows.alerted is None else windows.alerted


def accepted(windows: TrainingSet) -> Bool:
    """Return the mask [N] of the windows that an operator accepted as normal, or that are taken as the new normal."""
    return np.zeros(len(windows), dtype=bool) if windows.accepted is None else windows.accepted


def usable_rows(values: Float32, inputs: ModelInputs) -> Int64:
    """Return the rows with enough present steps to train on."""
    rows = []
    for start in range(0, len(values), 4096):
        # Steps with any channel: one that no asset of the fleet has must not make every window unusable.
        present = np.isfinite(inputs.to_channels(values[start : start + 4096])).any(axis=2).mean(axis=1)
        rows.append(start + np.flatnonzero(present >= MIN_PRESENT))
    return np.concatenate(rows) if rows else np.empty(0, dtype=np.int64)


def of_events(windows: TrainingSet) -> Bool:
    """Return the mask [N] of the windows of alerts that were no false alarms."""
    return np.zeros(len(windows), dtype=bool) if windows.event is None else windows.event


def split(windows: TrainingSet, usable: Int64, span_s: float, share: float = HELD_OUT) -> Split:
    """Hold out the latest `share` of each asset's time, and purge the windows of `span_s` that reach into it."""
    kept, held, n_purged, n_overlapping, n_alerted = [], [], 0, 0, 0
    asset, is_alerted, span_us = windows.asset[usable], alerted(windows), int(span_s * 1e6)
    for one in np.unique(asset):
        mine = usable[asset == one]
        cut = len(mine) - max(1, round(share * len(mine))) if len(mine) > 1 else 1
        early, late = mine[:cut], mine[cut:]
        n_alerted += int(is_alerted[early].sum())
        early = early[~is_alerted[early]]
        early, late, n_between = _with_accepted(early, late, windows, span_us)
        n_purged += n_between
        if len(late):
            apart = windows.end_us[early] <= windows.end_us[late[0]] - span_us
            apart |= windows.end_us[early] >= windows.end_us[late[0]]  # accepted ones, which were purged already
            if apart.sum() >= MIN_LEFT_BY_PURGE * len(early):
                n_purged += int((~apart).sum())
                early = early[apart]
            else:
                n_overlapping += int((~apart).sum())
        kept.append(early)
        held.append(late)
    return Split(np.concatenate(kept), np.concatenate(held), n_purged, n_overlapping, n_alerted, usable)


def _with_accepted(early: Int64, late: Int64, windows: TrainingSet, span_us: int) -> tuple[Int64, Int64, int]:
    """Move up to the first half of each accepted time of an asset from the held-out windows to those to train on.

    A time that the early windows know already stays where it is. Also return the number of held-out windows that are
    left out, because they share readings with moved ones.
    """
    is_accepted = accepted(windows)
    if not is_accepted[late].any():
        return early, late, 0
    ends_us = windows.end_us[late]
    moved, shares = np.zeros(len(late), dtype=bool), np.zeros(len(late), dtype=bool)
    edges = np.flatnonzero(np.diff(is_accepted[late].astype(np.int8), prepend=0, append=0))
    for first, beyond in zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True):
        known = early[is_accepted[early]]
        if windows.cause is not None:
            known = known[windows.cause[known] == windows.cause[late[first]]]
        if len(known) and np.ptp(windows.end_us[known]) >= MIN_HALVES * span_us:
            continue
        begin_us, end_us = ends_us[first], ends_us[beyond - 1]
        # A short time is learnt as a whole: of a second half too little would be left to hold out.
        most_us = min((end_us - begin_us) // 2, int(MAX_MOVED * (ends_us[-1] - ends_us[0])))
        half_us = end_us if end_us - begin_us < MIN_HALVES * span_us else begin_us + most_us
        moved |= (ends_us >= begin_us) & (ends_us <= half_us)
        shares |= (ends_us > begin_us - span_us) & (ends_us < half_us + span_us)
    shares &= ~moved
    kept = ~moved & ~shares
    if not kept.any():  # nothing would be left to hold out
        return early, late, 0
    return np.concatenate([early, late[moved]]), late[kept], int(shares.sum())


def latest(rows: Int64, windows: TrainingSet, n_max: int) -> Int64:
    """Return at most `n_max` of the rows: each asset's latest ones, without gaps, because alerts need neighbours."""
    asset = windows.asset[rows]
    counts = np.unique(asset, return_counts=True)[1]
    share = n_max
    while share > 1 and np.minimum(counts, share).sum() > n_max:
        share = max(1, int(share * n_max / np.minimum(counts, share).sum()))
    return np.concatenate([rows[asset == one][-share:] for one in np.unique(asset)])


def thin(rows: Int64, n_max: int) -> Int64:
    """Return at most `n_max` of the rows, evenly spaced."""
    if len(rows) <= n_max:
        return rows
    return rows[np.linspace(0, len(rows) - 1, n_max).round().astype(np.int64)]


def readings(values: Float32, rows: Int64, inputs: ModelInputs) -> Float32:
    """Return readings [n, K] of the windows' channels, at most `N_SCALE`."""
    some = thin(rows, max(1, N_SCALE // values.shape[1]))
    return inputs.to_channels(values[some]).reshape(-1, len(inputs.channels))
