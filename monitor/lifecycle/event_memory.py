"""Event memory: a challenger must not have learnt an event that nobody has labelled yet.

Input: recent windows with the marks of the training, and the scores of two versions. Output: the events, with the
share of their windows that each version calls anomalous.
Invariant: an event is what `training/events.py` calls one. It was left out of the training, so an honest challenger
knows nothing of it. Only events that end before the challenger's training are judged: of later ones it learnt nothing,
and one that takes the place of a champion which alarms all the time must be able to find them normal.

An event that touches a time that was accepted as normal, or is taken as the new normal, is told and blocks nothing:
it may be the rest of the same change. So is one that the champion itself does not find on most of its windows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from monitor.clock import from_us, iso_seconds
from monitor.training.events import JOIN_SPANS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from monitor.lifecycle.recent import Recent, Series
    from monitor.types import Float32

CLEAR = 0.5
"""Share of an event's windows that the champion calls anomalous, if the event is to be remembered. The windows of a
chance cluster of false alarms lie around the threshold."""
KEPT = 0.5
"""Least share of the champion's anomalous windows of an event that the challenger calls anomalous, too."""


@dataclass(frozen=True, slots=True)
class RememberedEvent:
    """An alert, or several in a row, that nobody has labelled."""

    asset: str | int
    alert: int | None
    """Number of its first alert. None = not known."""
    from_us: int
    """About the time of the first alert."""
    to_us: int
    n_windows: int
    challenger: float
    """Share of its windows that are anomalous."""
    champion: float
    is_accepted: bool
    """Whether it touches a time that was accepted as normal."""

    @property
    def is_judged(self) -> bool:
        """Whether the champion finds it, and no acceptance may mean it."""
        return self.champion >= CLEAR and not self.is_accepted

    @property
    def is_lost(self) -> bool:
        """Whether the challenger takes it as normal."""
        return self.is_judged and self.challenger < KEPT * self.champion

    @property
    def name(self) -> str:
        """The event for a sentence."""
        day = from_us(self.from_us).date().isoformat()
        return f"{'the alert' if self.alert is None else f'alert {self.alert}'} of {day} on {self.asset}"

    def to_json(self) -> dict[str, Any]:
        """Return the entry of the verdict."""
        return {
            "alert": self.alert,
            "asset": str(self.asset),
            "from": iso_seconds(self.from_us),
            "to": iso_seconds(self.to_us),
            "n_windows": self.n_windows,
            "challenger": round(self.challenger, 3),
            "champion": round(self.champion, 3),
            "accepted": self.is_accepted,
            "lost": self.is_lost,
        }


def remember_events(
    recent: Recent, by_challenger: Sequence[Float32], by_champion: Sequence[Float32], until_us: int
) -> list[RememberedEvent]:
    """Return the events of the windows until `until_us`, the end of the challenger's training. Scores are by series."""
    found = []
    for series, own, other in zip(recent.series, by_challenger, by_champion, strict=True):
        edges = np.flatnonzero(np.diff(series.event.astype(np.int8), prepend=0, append=0))
        for first, beyond in zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True):
            if series.end_us[beyond - 1] <= until_us:
                found.append(_event(series, first, beyond, own, other, recent.length * recent.interval_us))
    return found


def _event(
    series: Series, first: int, beyond: int, own: Float32, other: Float32, span_us: int
) -> RememberedEvent:
    scored = np.isfinite(own[first:beyond]) & np.isfinite(other[first:beyond])
    shares = [
        float((scores[first:beyond][scored] >= 1.0).mean()) if scored.any() else 0.0 for scores in (own, other)
    ]
    cause = series.cause[first:beyond]
    from_us, to_us = int(series.end_us[first]), int(series.end_us[beyond - 1])
    near_us = int(JOIN_SPANS * span_us)
    begin, end = np.searchsorted(series.end_us, (from_us - near_us, to_us + near_us))
    return RememberedEvent(
        asset=series.asset,
        alert=int(cause[cause >= 0][0]) if (cause >= 0).any() else None,
        from_us=min(from_us + span_us, to_us),  # its windows begin a length before
        to_us=to_us,
        n_windows=beyond - first,
        challenger=shares[0],
        champion=shares[1],
        is_accepted=bool(series.accepted[begin:end].any()),
    )
