"""Fault memory: the last confirmed faults must still score above the threshold of a new version.

Input: confirmed faults with their kept evidence, and two versions. Output: the score of each fault by both.
Invariant: windows are rebuilt from contiguous cells of the evidence alone, on the grid of the window that fired. Where
cells were thinned out, or are too few for a window, a fault is not judged, and the reason is told. Nothing is
interpolated.

A fault that the champion itself does not reach with its evidence is told and blocks nothing. The window that fired is
complete in the evidence of a fault that did not last longer than four windows; of a longer one the newest two windows
are (`store/evidence_chunks.py`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from monitor.clock import from_us, iso_seconds
from monitor.store.evidence_chunks import joined

if TYPE_CHECKING:
    from collections.abc import Sequence

    from monitor.explain import Evidence
    from monitor.lifecycle.recent import Version
    from monitor.types import ConfirmedFault, Float32, Int64

MAX_WINDOWS = 256
"""Windows that are scored of one fault: all of an evidence that was not thinned out."""


@dataclass(frozen=True, slots=True)
class RememberedFault:
    """Scores of one confirmed fault."""

    fault: ConfirmedFault
    challenger: float | None
    """Highest score of its windows, 1.0 = threshold. None = not judged."""
    champion: float | None
    """None = there is no champion, or it cannot score the evidence."""
    problem: str = ""
    """The reason why it is not judged. Empty = it is."""

    @property
    def is_lost(self) -> bool:
        """Whether the champion finds it and the challenger does not."""
        return (
            self.challenger is not None
            and self.challenger < 1.0
            and self.champion is not None
            and self.champion >= 1.0
        )

    @property
    def name(self) -> str:
        """The fault for a sentence."""
        day = from_us(self.fault.opened_us).date().isoformat()
        what = f'the fault "{_short(self.fault.note)}"' if self.fault.note else "the fault"
        return f"{what} of {day} on {self.fault.asset}"

    def to_json(self) -> dict[str, Any]:
        """Return the entry of the verdict."""
        return {
            "alert": self.fault.alert,
            "asset": self.fault.asset,
            "opened_at": iso_seconds(self.fault.opened_us),
            "sensors": list(self.fault.sensors),
            "challenger": _rounded(self.challenger),
            "champion": _rounded(self.champion),
            "lost": self.is_lost,
            "problem": self.problem,
        }


def remember(
    faults: Sequence[ConfirmedFault],
    challenger: Version,
    champion: Version | None,
    *,
    interval_us: int,
    stride: int,
) -> list[RememberedFault]:
    """Score the confirmed faults by both versions. `stride`: cells between two windows of the pipeline."""
    return [_remember(fault, challenger, champion, interval_us, stride) for fault in faults]


def _remember(
    fault: ConfirmedFault, challenger: Version, champion: Version | None, interval_us: int, stride: int
) -> RememberedFault:
    try:
        evidence = joined(fault.chunks)
    except ValueError as error:  # of a later release
        return RememberedFault(fault, None, None, str(error))
    if evidence is None or not len(evidence.cell_us):
        return RememberedFault(fault, None, None, "it has no kept evidence")
    score, problem = _peak(evidence, fault.asset, challenger, interval_us, stride)
    known = None if champion is None else _peak(evidence, fault.asset, champion, interval_us, stride)[0]
    return RememberedFault(fault, score, known, problem)


def _peak(
    evidence: Evidence, asset: str, version: Version, interval_us: int, stride: int
) -> tuple[float | None, str]:
    """Return the highest score of the windows in an evidence, or the reason why there is none."""
    length = version.card.length
    ends = window_ends(evidence.cell_us, length, interval_us, stride)
    if not len(ends):
        return None, _too_short(evidence.cell_us, length, interval_us)
    columns = version.inputs.select(evidence.values[None], evidence.sensors)[0]
    windows: Float32 = np.stack([columns[end - length : end] for end in ends.tolist()])
    ends_us = evidence.cell_us[ends - 1] + interval_us
    score = version.score(windows, [asset] * len(windows), end_us=ends_us, share_normal=False).score
    if not np.isfinite(score).any():
        return None, "too few of the sensors in its evidence are known to the new version"
    return float(np.nanmax(score)), ""


def window_ends(cell_us: Int64, length: int, interval_us: int, stride: int) -> Int64:
    """Return the cells [n] before which windows of contiguous cells end, the newest `MAX_WINDOWS`.

    They are on the grid of the first cell, at which the window that fired begins.
    """
    if len(cell_us) < length:
        return np.empty(0, np.int64)
    ends = np.arange(length, len(cell_us) + 1)
    first_us = cell_us[ends - length]
    is_whole = cell_us[ends - 1] - first_us == (length - 1) * interval_us
    on_grid = (first_us - cell_us[0]) // interval_us % stride == 0
    found: Int64 = ends[is_whole & on_grid][-MAX_WINDOWS:].astype(np.int64)
    return found


def _too_short(cell_us: Int64, length: int, interval_us: int) -> str:
    step = np.diff(cell_us)
    if len(step) and (step.min() != interval_us):
        return f"its evidence has a reading each {step.min() / 1e6:g} s, and the fleet one each {interval_us / 1e6:g} s"
    edges = np.flatnonzero(np.concatenate([[True], step != interval_us, [True]]))
    longest = int(np.diff(edges).max())
    return f"its evidence has {longest} readings in a row, and a window now has {length}"


def _short(note: str) -> str:
    text = " ".join(note.split())
    return text if len(text) <= 40 else f"{text[:39]}…"


def _rounded(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.3g}")
