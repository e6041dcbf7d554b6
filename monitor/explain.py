"""Explanations of alerts from their evidence: what happened, on which sensor, against what was expected.

Input: evidence as arrays. Output: sentences, bands and similarities. Invariant: pure NumPy, no I/O.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from monitor.types import Float32, Int64


@dataclass(frozen=True, slots=True)
class Evidence:
    """What was kept of an alert: N cells of C sensors, and M scores. Older cells may be thinned out, newest are not.

    It begins with the window that fired the alert and ends with the one that closed it.
    """

    sensors: tuple[str, ...]
    """[C]"""
    cell_us: Int64
    """[N], event time of each cell, rising."""
    values: Float32
    """[N, C], readings in the sensors' own units, NaN = missing."""
    expected: Float32
    """[N, C], the model's reconstruction, to 16 significant bits, NaN = unknown."""
    end_us: Int64
    """[M], ends of the scored windows, rising. They begin up to one window before the one that fired."""
    score: Float32
    """[M], 1.0 = threshold. Where they are thinned out, the higher of two is kept."""
