"""Incidents: the alerts of a fleet that overlap in time.

Input: an alert that opened or closed, inside its transaction. Output: rows of `incident`. Invariant: an id stays, and
an alert stays in its incident. `lock` keeps two commits from opening two incidents for alerts that overlap.

An incident takes in alerts for a day after it opened. A later alert opens the next one, because an alert that fires for
weeks must not hide the others of its fleet. An alert without a fleet has an incident of its own. An incident closes
with its last open alert, and opens again with the next one that overlaps.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from sqlalchemy import text

from monitor.types import Severity

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sqlalchemy import Connection

TAKES_US = 86_400_000_000
"""Time after its opening in which an incident takes in alerts."""

_LOCK = text("SELECT pg_advisory_xact_lock(key) FROM unnest(CAST(:keys AS BIGINT[])) AS key")
_FIND = text("""
    SELECT id FROM incident
    WHERE fleet = :fleet AND opened_us <= :at_us AND opened_us > :since_us
        AND (closed_us IS NULL OR closed_us >= :opened_us)
    ORDER BY opened_us DESC, id DESC LIMIT 1
""")
_OPEN = text("""
    INSERT INTO incident (fleet, opened_us, severity, n_alerts) VALUES (:fleet, :opened_us, :severity, 1) RETURNING id
""")
_JOIN = text("""
    UPDATE incident SET n_alerts = n_alerts + 1, closed_us = NULL,
        opened_us = CASE WHEN :opened_us < opened_us THEN :opened_us ELSE opened_us END,
        severity = CASE WHEN CAST(:severity AS TEXT) = 'critical' THEN 'critical' ELSE severity END
    WHERE id = :id
""")
_RAISE = text("UPDATE incident SET severity = :severity WHERE id = :id AND severity <> :severity")
_REOPEN = text("UPDATE incident SET closed_us = NULL WHERE id = :id")
# `closed_us` is NULL as long as the state is another: the index then holds all that is asked.
_CLOSE = text("""
    UPDATE incident SET closed_us = (
        SELECT CASE WHEN MAX(closed_us) > :at_us THEN MAX(closed_us) ELSE :at_us END
        FROM alert WHERE incident_id = :id
    )
    WHERE id = :id AND NOT EXISTS (
        SELECT 1 FROM alert WHERE incident_id = :id AND closed_us IS NULL AND closed_by_hand_us IS NULL
    )
""")

def lock(connection: Connection, fleets: Iterable[str | None]) -> None:
    """Keep other transactions from changing the incidents of these fleets, until this one ends.

    Call it before the transaction changes an alert, and once: two transactions then lock in the same order.
    """
    if connection.dialect.name == "postgresql":  # SQLite has one writer at a time
        keys = sorted({_key(fleet) for fleet in fleets if fleet is not None})
        if keys:
            connection.execute(_LOCK, {"keys": keys})


def _key(fleet: str) -> int:
    return int.from_bytes(hashlib.sha256(f"incidents of {fleet}".encode()).digest()[:8], signed=True)


def join(connection: Connection, fleet: str | None, opened_us: int, at_us: int, severity: Severity) -> int:
    """Count an alert that opened in its incident, and return the incident's id. `at_us`: event time of its firing."""
    values = {"fleet": fleet, "opened_us": opened_us, "at_us": at_us, "severity": str(severity)}
    values["since_us"] = opened_us - TAKES_US
    found: int | None = None if fleet is None else connection.execute(_FIND, values).scalar_one_or_none()
    if found is None:
        return int(connection.execute(_OPEN, values).scalar_one())
    connection.execute(_JOIN, values | {"id": found})
    return found


def raise_severity(connection: Connection, incident_id: int) -> None:
    """Make an incident critical: one of its alerts has become so."""
    connection.execute(_RAISE, {"id": incident_id, "severity": str(Severity.CRITICAL)})


def reopen(connection: Connection, incident_id: int) -> None:
    """Open an incident again with one of its alerts."""
    connection.execute(_REOPEN, {"id": incident_id})


def close_if_over(connection: Connection, incident_id: int, at_us: int) -> None:
    """Close an incident unless one of its alerts is open. `at_us`: event time at which an alert of it closed."""
    connection.execute(_CLOSE, {"id": incident_id, "at_us": at_us})
