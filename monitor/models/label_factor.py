"""Factor of the threshold by operators' labels: quantile tracking of the alerts that were labelled `normal`.

Input: the judged alerts of a fleet, in the order of their labels. Output: the factor of the calibrated threshold.
Invariant: a function of these labels alone. A label that is taken back undoes its effect, and nothing moves the
threshold by itself. No torch and no I/O.

Guarantee (Angelopoulos, Candès & Tibshirani 2023, proposition 1; it assumes nothing about the data): let T judged
alerts have opened at the factor of their turn. As long as none of them met an upper bound, the share of those labelled
`normal` is at most TARGET + log(HIGHEST) / (STEP · T). For the sum of all steps, STEP · (normals - TARGET · T), is at
most the logarithm of the present factor: a lower bound and rounding only add to it. A labelled fault is an upper bound
that nothing passes. So where normal alerts are stronger than faults, they go on.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from monitor.types import JudgedAlert

TARGET = 0.3
"""Share of `normal` among judged alerts that the factor aims at: most operators still trust alerts of which 70 % are
real."""
STEP = 0.1
"""Step of the factor's logarithm. One label `normal` raises the threshold by 7 %, and one `fault` lowers it by 3 %: a
wrong label does little harm, and ten right ones double the threshold."""
LOWEST, HIGHEST = 0.5, 3.0
"""Bounds of the factor: the calibration to the budget stays in charge."""
BELOW_FAULTS = 0.99
"""Greatest factor, as a share of the level of the weakest labelled fault."""


def learnt_factor(judged: Iterable[JudgedAlert]) -> float:
    """Return the factor after these judged alerts, the first label first. 1.0 = no label moves the threshold.

    Each alert that opens at the present factor raises it if it was `normal`, and lowers it if it was a fault. Every
    labelled fault opens at the factor that is returned.
    """
    factor, highest = 1.0, HIGHEST
    for alert in judged:
        if alert.level >= factor:
            factor *= math.exp(STEP * ((not alert.is_fault) - TARGET))
        if alert.is_fault:
            highest = min(highest, BELOW_FAULTS * alert.level)
        factor = max(LOWEST, min(factor, highest))
        # Rounded as on a card, so that an alert at the threshold in use counts as opened; up, as the guarantee allows.
        factor = math.ceil(factor * 1000 - 1e-6) / 1000
    return factor
