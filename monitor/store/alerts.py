"""Alerts and their transitions. A change enters, the alert's row follows it, and each transition is kept.

(asset, opened_us) names an alert of class `process`, (kind, partition, from_offset) one of class `data`; an alert
begins with FIRING and, once closed, never changes again.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from sqlalchemy import text

from monitor.errors import InvariantBroken
from monitor.types import AlertState

if TYPE_CHECKING:
    from sqlalchemy import Connection, TextClause

    from monitor.types import AlertChange, DataAlertChange

FOREVER_US = 2**62
"""Later than any event; far enough from the end of int64 for arithmetic."""

_FOLLOW = text("""
    UPDATE alert SET state = :state, severity = :severity, updated_us = :at_us, closed_us = :closed_us,
        peak_score = :peak_score, peak_us = :peak_us, n_anomalous = :n_anomalous, sensors = :sensors, version = :version
    WHERE asset_id = :asset_id AND opened_us = :opened_us AND state <> 'closed'
    RETURNING id
""")

_OPEN = text("""
    INSERT INTO alert (asset_id, opened_us, state, severity, updated_us, closed_us, peak_score, peak_us, n_anomalous,
        sensors, version)
    VALUES (:asset_id, :opened_us, :state, :severity, :at_us, :closed_us, :peak_score, :peak_us, :n_anomalous,
        :sensors, :version)
    RETURNING id
""")

_TRANSITION = text("""
    INSERT INTO alert_transition (alert_id, seq, state, severity, at_us, peak_score, n_anomalous)
    SELECT :alert_id, COALESCE(MAX(seq), 0) + 1, :state, :severity, :at_us, :peak_score, :n_anomalous
    FROM alert_transition WHERE alert_id = :alert_id
""")


def apply(connection: Connection, asset_id: int, change: AlertChange) -> int:
    """Write one step of an alert's life; return the alert's id."""
    facts = {
        "asset_id": asset_id,
        "peak_score": change.peak_score,
        "n_anomalous": change.n_anomalous,
        "peak_us": change.peak_us,
        "sensors": json.dumps([asdict(sensor) for sensor in change.contributions]),
        "version": change.version,
    }
    return _write(connection, change, _FOLLOW, _OPEN, facts, f"asset {asset_id}, {change.opened_us}")


_FOLLOW_DATA = text("""
    UPDATE alert SET state = :state, updated_us = :at_us, closed_us = :closed_us, n_anomalous = :n_anomalous,
        message = :message
    WHERE topic = :topic AND partition = :partition AND kind = :kind AND from_offset = :from_offset
        AND state <> 'closed'
    RETURNING id
""")

_OPEN_DATA = text("""
    INSERT INTO alert (class, kind, topic, partition, fleet, from_offset, message, opened_us, state, severity,
        updated_us, n_anomalous, sensors)
    VALUES ('data', :kind, :topic, :partition, :fleet, :from_offset, :message, :opened_us, :state, :severity,
        :at_us, :n_anomalous, '[]')
    RETURNING id
""")


def apply_data(connection: Connection, change: DataAlertChange) -> int:
    """Write one step of the life of an alert of class `data`; return the alert's id."""
    facts = {
        "kind": change.kind,
        "topic": change.partition.topic,
        "partition": change.partition.number,
        "fleet": change.fleet,
        "from_offset": change.from_offset,
        "peak_score": None,
        "n_anomalous": change.n_records,
        "message": change.message,
    }
    return _write(connection, change, _FOLLOW_DATA, _OPEN_DATA, facts, f"{change.kind}, {change.from_offset}")


def _write(
    connection: Connection,
    change: AlertChange | DataAlertChange,
    follow: TextClause,
    begin: TextClause,
    facts: dict[str, Any],
    name: str,
) -> int:
    row = facts | {
        "state": str(change.state),
        "severity": str(change.severity),
        "at_us": change.at_us,
        "opened_us": change.opened_us,
        "closed_us": change.at_us if change.state is AlertState.CLOSED else None,
    }
    alert_id: int | None = connection.execute(follow, row).scalar_one_or_none()
    if alert_id is None:
        if change.state is not AlertState.FIRING:
            raise InvariantBroken(f"{change.state} for an alert that is not open: {name}")
        alert_id = connection.execute(begin, row).scalar_one()
    if change.is_transition:
        connection.execute(_TRANSITION, row | {"alert_id": alert_id})
    return alert_id


_INTERVALS = text("""
    SELECT asset.name, opened_us, closed_us, label FROM alert JOIN asset ON asset.id = asset_id
    WHERE asset.fleet = :fleet ORDER BY opened_us
""")


def intervals(connection: Connection, fleet: str) -> dict[str, list[tuple[int, int, str | None]]]:
    """Return, by asset, the event time (from_us, to_us) of its alerts and their labels, for training to judge.

    `opened_us` is the end of a window, and that window counts. An open alert has no end yet.
    """
    found: dict[str, list[tuple[int, int, str | None]]] = {}
    for name, opened_us, closed_us, label in connection.execute(_INTERVALS, {"fleet": fleet}):
        found.setdefault(name, []).append((opened_us - 1, FOREVER_US if closed_us is None else closed_us, label))
    return found
