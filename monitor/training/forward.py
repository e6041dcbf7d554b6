"""Calibration on the later half of the history, for members that are solved in closed form.

Input: standardised windows, and a function that solves the members. Output: members calibrated on scores of the later
half, and those scores.
Invariant: each part of the later half is scored by members that were solved on earlier windows alone, none of which
reaches into it. So the scores are like those that follow a training (forward validation; Dawid 1984, prequential).

A threshold from the last fifth of four weeks knows 5.6 days, with one weekend. Here it knows two weeks, for
`N_PARTS` more solutions. Measured on simulated machines of ten kinds (`tests/quality/machines.py`, 7 of each, PCA,
retrained weekly for ten weeks): assets that keep a budget of one alarm a week: .68 with the last fifth, .97 with the
later half. With blocks left out of the whole time (scored by members of earlier and later windows) as many keep it, but
fewer faults are found.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch

from monitor.models.calibrate import find_outliers
from monitor.models.member import Member, ensemble_score, error_parts
from monitor.models.residual import squared_error
from monitor.training.tensors import WindowTensors, chunks, joined, window_errors

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from monitor.models.network import Network
    from monitor.types import Bool, Float32, Int32, Int64

    Solve = Callable[[WindowTensors], Mapping[str, Network]]
    """Networks by name, solved on healthy windows, suspected faults among them left out. All in closed form."""

N_PARTS = 3
"""Parts of the later half. Each is scored by members as old as a part is long, at most, and solved on half of the
history, at least."""
MIN_SPANS = 25
"""Lengths of a window that the earlier half has at least, of all assets together. Members that are solved on less are
not like those of the whole time."""


class Rows(NamedTuple):
    """N windows, by asset and time."""

    asset: Int32
    """[N]"""
    end_us: Int64
    """[N], event time of the window's end."""
    windows: WindowTensors
    """N"""


@dataclass(frozen=True, slots=True)
class _Part:
    scored: Int64
    """Numbers of the windows that are scored."""
    known: Bool
    """Mask of the windows that the members of this part may know."""


@dataclass(frozen=True, slots=True)
class Forward:
    """Scored windows of the later half, N of them, and the members that are calibrated on them."""

    members: tuple[Member, ...]
    """With networks solved on all windows."""
    outlier: Bool
    """[N], windows suspected of a fault."""
    raw: Float32
    """[N]"""
    _scored: list[tuple[Int64, tuple[Member, ...]]]
    """Numbers of windows, and the members that scored them."""
    _windows: WindowTensors

    def error_parts(self, every: int, order: Int64) -> torch.Tensor:
        """Return each channel's part (P, M, S, C) of the errors, of every `every`-th window in this order [N]."""
        wanted = order[::every]
        out: list[torch.Tensor | None] = [None] * len(wanted)
        for numbers, members in self._scored:
            here = np.flatnonzero(np.isin(wanted, numbers))
            with torch.inference_mode():
                for some in np.array_split(here, max(1, len(here) // 512)):
                    part = self._windows.select(torch.from_numpy(wanted[some]))
                    for place, row in zip(some.tolist(), error_parts(members, part.x, part.present), strict=True):
                        out[place] = row
        return torch.stack([each for each in out if each is not None])


def later_half(asset: Int32, rows: Int64) -> Int64:
    """Return the rows of the later half of each asset's time. `rows`: of usable windows, by time within an asset."""
    of_asset = [rows[asset[rows] == one] for one in np.unique(asset[rows])]
    return np.concatenate([mine[len(mine) // 2 :] for mine in of_asset])


def part_begins(asset: Int32, end_us: Int64) -> dict[int, Int64]:
    """Return, by asset, the end of the first window of each part, for the windows [N] of the later half."""
    begins = {}
    for one in np.unique(asset).tolist():
        ends: Int64 = np.sort(end_us[asset == one])
        begins[one] = ends[np.linspace(0, len(ends), N_PARTS + 1).astype(np.int64)[:-1]]
    return begins


def has_room(asset: Int32, end_us: Int64, begins: Mapping[int, Int64], span_us: int, n_least: int) -> bool:
    """Return whether the windows [N] to learn from reach far enough before the later half."""
    spans, n = 0.0, 0
    for one, starts in begins.items():
        early = end_us[(asset == one) & (end_us <= starts[0] - span_us)]
        n += len(early)
        spans += (early[-1] - early[0]) / span_us if len(early) else 0.0
    return n >= n_least and spans >= MIN_SPANS


def forward(
    learnt: Rows, scored: Rows, begins: Mapping[int, Int64], span_us: int, solve: Solve, max_outliers: float
) -> Forward | None:
    """Score the later half part by part, and calibrate members that are solved on all windows.

    `learnt`: windows to learn from. `scored`: those of the later half. `begins`: see `part_begins`. `span_us`: duration
    of a window. `max_outliers`: largest share of windows suspected of a fault. None = the parts have other members.
    """
    parts = []
    for number in range(N_PARTS):
        begin = _by_asset(scored.asset, begins, number)
        end = _by_asset(scored.asset, begins, number + 1)
        numbers = np.flatnonzero((scored.end_us >= begin) & (scored.end_us < end))
        known = learnt.end_us <= _by_asset(learnt.asset, begins, number) - span_us
        parts.append(_Part(numbers, known))
    solved = [solve(learnt.windows.select(torch.from_numpy(np.flatnonzero(part.known)))) for part in parts]
    final = solve(learnt.windows)
    if any(each.keys() != final.keys() for each in solved):
        return None
    order = np.concatenate([part.scored for part in parts])
    ordered = [scored.windows.select(torch.from_numpy(part.scored)) for part in parts]

    judged = np.concatenate([window_errors(own["pca"], some) for own, some in zip(solved, ordered, strict=True)])
    outlier = find_outliers(judged, max_outliers)
    kept = torch.from_numpy(np.flatnonzero(~outlier))
    present = joined(ordered).select(kept).present
    members = []
    with torch.inference_mode():
        for name, network in final.items():
            squared = torch.cat([
                squared_error(own[name], chunk.x, chunk.present)
                for own, some in zip(solved, ordered, strict=True) for chunk in chunks(some)
            ])  # fmt: skip
            members.append(Member.fit(name, network, squared[kept], present))
        raw, by_part = [], []
        for own, some, part in zip(solved, ordered, parts, strict=True):
            of_part = tuple(replace(member, network=own[member.name]) for member in members)
            raw += [ensemble_score(of_part, chunk.x, chunk.present)[0] for chunk in chunks(some)]
            by_part.append((part.scored, of_part))
    back = np.argsort(order)
    scores: Float32 = torch.cat(raw).cpu().numpy()[back]
    return Forward(tuple(members), outlier[back], scores, by_part, scored.windows)


def _by_asset(asset: Int32, begins: Mapping[int, Int64], number: int) -> Int64:
    """Return the begin [N] of a part for the asset of each window. Behind the last part it is never."""
    names, inverse = np.unique(asset, return_inverse=True)
    never = np.iinfo(np.int64).max
    own = [int(begins[one][number]) if one in begins and number < N_PARTS else never for one in names.tolist()]
    out: Int64 = np.array(own, dtype=np.int64)[inverse]
    return out
