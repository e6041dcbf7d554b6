"""Stored results of a range of event time: windows with their verdicts, alerts with their transitions.

Input: a `RowReader`. Output: rows, for comparing runs. Invariant: a range (from_us, to_us] contains the
windows that end in it, like the range in which a model version decides.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

    from monitor.store.queries.backend import RowReader

FIRST_US, LAST_US = -(1 << 62), 1 << 62
"""Before and after all event times, and far enough from the ends of int64 for arithmetic."""

_WINDOWS = """
    SELECT asset.fleet, asset.name, score.start_us, end_us, n_present, verdict, version
    FROM score JOIN asset ON asset.id = asset_id LEFT JOIN model_version ON model_version.id = version_id
    WHERE score.start_us < :to_us AND end_us > :from_us AND end_us <= :to_us
    ORDER BY score.start_us
"""
_TRANSITIONS = """
    SELECT asset.fleet, asset.name, opened_us, alert_transition.state, alert_transition.severity, at_us,
        alert_transition.n_anomalous
    FROM alert JOIN asset ON asset.id = asset_id JOIN alert_transition ON alert_id = alert.id
    WHERE opened_us > :from_us AND opened_us <= :to_us AND at_us <= :to_us
    ORDER BY alert.id, seq
"""


class WindowRow(NamedTuple):
    """One stored window, without its score."""

    fleet: str
    asset: str
    start_us: int
    end_us: int
    n_present: int
    verdict: int
    version: str | None


class TransitionRow(NamedTuple):
    """One transition of an alert."""

    fleet: str
    asset: str
    opened_us: int
    state: str
    severity: str
    at_us: int
    n_anomalous: int


def windows(reader: RowReader, from_us: int = FIRST_US, to_us: int = LAST_US) -> Iterator[WindowRow]:
    """Yield the windows that end in (from_us, to_us], in order of start. Scans all scores that start before `to_us`."""
    for row in reader.fetch(_WINDOWS, {"from_us": from_us, "to_us": to_us}):
        yield WindowRow(*row.values())


def alert_transitions(reader: RowReader, from_us: int = FIRST_US, to_us: int = LAST_US) -> Iterator[TransitionRow]:
    """Yield the transitions up to `to_us` of process alerts opened in (from_us, to_us], by alert and in order."""
    for row in reader.fetch(_TRANSITIONS, {"from_us": from_us, "to_us": to_us}):
        yield TransitionRow(*row.values())
