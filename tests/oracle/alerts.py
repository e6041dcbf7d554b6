"""The rules of alerts. Input: the scored windows of one asset. Output: its alerts with all transitions.

Invariant: unscored windows are ignored, and the rest is in order of the window's end. Each rule is evaluated on the
whole history.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

CRITICAL_SCORE = 3.0
DAY_US = 24 * 3600 * 1_000_000


@dataclass
class ExpectedAlert:
    asset: str
    opened_us: int
    """End of the first anomalous window that confirmed it."""
    closed_us: int | None = None
    transitions: list[tuple[str, int]] = field(default_factory=list)
    """(state, end of the window that caused it)."""
    n_anomalous: int = 0
    """Anomalous windows from opened_us on."""
    peak_score: float = 0.0
    """From the confirming window on."""
    severities: list[str] = field(default_factory=list)
    """Of each transition."""
    severity: str = "warning"
    """After the last window."""
    critical_us: int | None = None
    """End of the window that made it critical."""


def expected_alerts(
    asset: str, windows: Iterable[tuple[int, float | None]], confirm: tuple[int, int], recover: int
) -> list[ExpectedAlert]:
    """Return the alerts of an asset. `windows`: (end_us, score) in order. None and NaN = unscored."""
    needed, among = confirm
    scored = [(end_us, score) for end_us, score in windows if score is not None and not math.isnan(score)]
    alerts: list[ExpectedAlert] = []
    episodes: list[list[int]] = []  # per alert: its first and last index in `scored`
    fired_at: list[int] = []  # per alert: index of the confirming window
    n_normal = 0
    for now, (end_us, score) in enumerate(scored):
        alert = alerts[-1] if alerts and alerts[-1].closed_us is None else None
        if alert is None:
            recent = range(max(0, now - among + 1), now + 1)
            anomalous = [place for place in recent if scored[place][1] >= 1]
            if score < 1 or len(anomalous) < needed:
                continue
            closed_at = episodes[-1][1] if episodes else -1
            opened_at = next(place for place in anomalous if place > closed_at)
            alerts.append(ExpectedAlert(asset, scored[opened_at][0], transitions=[("firing", end_us)]))
            episodes.append([opened_at, now])
            fired_at.append(now)
            n_normal = 0
            continue
        episodes[-1][1] = now
        if score >= 1:
            if n_normal > 0:
                alert.transitions.append(("firing", end_us))
            n_normal = 0
            continue
        n_normal += 1
        if n_normal == recover:  # one transition per window: with recover = 1, no alert is ever "recovering"
            alert.transitions.append(("closed", end_us))
            alert.closed_us = end_us
        elif n_normal == 1:
            alert.transitions.append(("recovering", end_us))

    for alert, (first, last), fired in zip(alerts, episodes, fired_at, strict=True):
        alert.n_anomalous = sum(score >= 1 for _, score in scored[first : last + 1])
        alert.peak_score = max(score for _, score in scored[fired : last + 1])
        # Critical by size: a score of 3 from the confirming window on. By duration: the tenth or a later anomalous
        # window, a day or more after the opening.
        n_anomalous = 0
        for place in range(first, last + 1):
            end_us, score = scored[place]
            n_anomalous += score >= 1
            is_large = place >= fired and score >= CRITICAL_SCORE
            is_long = score >= 1 and n_anomalous >= 10 and end_us - alert.opened_us >= DAY_US
            if alert.critical_us is None and (is_large or is_long):
                alert.critical_us = max(end_us, scored[fired][0])
        if alert.critical_us is not None:
            alert.severity = "critical"
        alert.severities = [
            "critical" if alert.critical_us is not None and at_us >= alert.critical_us else "warning"
            for _, at_us in alert.transitions
        ]
    return alerts
