"""Figures of the database for gauges: open alerts, acts of operators, champions.

Input: a connection. Output: numbers by fixed words and fleets. Each query is an index seek or reads a small table.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from sqlalchemy import text

from monitor.store import scores

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sqlalchemy import Connection

# The condition of the index `uq_alert_open`.
_OPEN = text("""
    SELECT class, severity, CASE WHEN suppressed_by IS NOT NULL THEN 'suppressed'
        WHEN acknowledged_us IS NOT NULL THEN 'acknowledged' ELSE 'unanswered' END AS answer, COUNT(*) AS n
    FROM alert WHERE state <> 'closed' AND closed_by_hand_us IS NULL GROUP BY 1, 2, 3
""")
_ACTS = text("SELECT act, COUNT(*) FROM act GROUP BY act")
_CHAMPIONS = text("SELECT fleet FROM model_version WHERE state = 'champion'")


class Figures(NamedTuple):
    """Figures of one moment."""

    open_alerts: Mapping[tuple[str, str, str], int]
    """By class, severity, and answer: unanswered, acknowledged, suppressed."""
    acts: Mapping[str, int]
    """Acts in the history, by kind."""
    champions: frozenset[str]
    """Fleets with a champion."""
    newest_window_us: Mapping[str, int]
    """End of each fleet's newest window that is not in the future, event time."""


def fetch(connection: Connection) -> Figures:
    """Return the figures of now."""
    return Figures(
        open_alerts={(row[0], row[1], row[2]): row.n for row in connection.execute(_OPEN)},
        acts={act: n for act, n in connection.execute(_ACTS)},  # noqa: C416 - a Row is no tuple for mypy
        champions=frozenset(connection.execute(_CHAMPIONS).scalars()),
        newest_window_us=scores.newest_us(connection),
    )
