"""The rules of alerts about a sensor. Input: the findings of one asset, sensor and kind. Output: its alerts.

Invariant: each rule is evaluated on the whole history. A window that was not tested is left out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass
class ExpectedSensorAlert:
    opened_us: int
    """End of the first window of the episode with the finding."""
    fired_us: int
    closed_us: int | None = None
    n_windows: int = 0
    """With the finding, at its end or so far."""


def expected_sensor_alerts(
    windows: Sequence[tuple[int, bool]], confirm: tuple[int, int], recover: int
) -> list[ExpectedSensorAlert]:
    """Return the alerts of one sensor and kind. `windows`: (end_us, whether it has the finding), in order.

    An episode begins with a finding. It is over once the last n (or `recover`, if that is more) windows have none.
    """
    needed, among = confirm
    memory = max(among, recover)
    alerts: list[ExpectedSensorAlert] = []
    begin = None  # first window of the episode
    alert = None
    for now, (end_us, is_found) in enumerate(windows):
        if begin is None:
            if not is_found:
                continue
            begin = now
        episode = windows[begin : now + 1]
        if alert is None:
            if is_found and sum(found for _, found in episode[-among:]) >= needed:
                n_windows = sum(found for _, found in episode[-memory:])
                alert = ExpectedSensorAlert(windows[begin][0], end_us, n_windows=n_windows)
                alerts.append(alert)
            elif not any(found for _, found in episode[-memory:]):
                begin = None
            continue
        alert.n_windows += is_found
        if not any(found for _, found in windows[max(0, now + 1 - recover) : now + 1]):
            alert.closed_us, alert, begin = end_us, None, None
    return alerts
