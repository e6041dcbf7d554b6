"""Distinction of the alerts without a label: false alarms, and events.

Input: windows, and those of them that overlap an unlabelled alert. Output: the windows of events.
Invariant: a function of the alerts' durations alone. No label and no score is used.

Nobody has said what these alerts were. A false alarm must count when the threshold is placed: without it the threshold
would follow the windows that never alarmed, and each retraining would alarm more than the last. A fault of days must
not count: a tenth of the held-out windows above the threshold lift it above the fault itself, and the retrained version
would no longer find it. The two differ in their duration. A false alarm is an unusual moment, which the windows that
contain it keep in sight for their length. An event goes on.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from monitor.training.judge import ALERTED
from monitor.training.split import alerted

if TYPE_CHECKING:
    from monitor.models.spec import TrainingSet
    from monitor.types import Bool

EVENT_SPANS = 1.5
"""Lengths of a window from which an alert is an event. Measured on 20 clean simulated machines of ten kinds, retrained
weekly for six weeks with the PCA (`tests/quality/machines.py`, seeds 0 and 1): 15 false alarms, which lasted for .12 to
.50 lengths."""


def events(windows: TrainingSet, span_s: float) -> Bool:
    """Return the mask [N] of the windows that overlap an alert without a label which was no false alarm.

    `span_s`: length of a window. Where the alerts are not known one by one, none is an event: the windows of two short
    ones may follow one another.
    """
    if windows.cause is None or not windows.judged:
        return np.zeros(len(windows), dtype=bool)
    least_us, newest_us = EVENT_SPANS * span_s * 1e6, int(windows.end_us.max(initial=0))
    is_long = [
        each.reason in ALERTED and min(each.to_us, newest_us) - each.begin_us >= least_us for each in windows.judged
    ]
    found: Bool = alerted(windows) & np.array([*is_long, False])[windows.cause]  # -1 is the last one
    return found
