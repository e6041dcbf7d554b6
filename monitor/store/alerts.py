"""Alerts and their transitions: each change updates the alert's row, and each transition is kept.

(asset, opened_us) identifies an alert of class `process`, (kind, partition, from_offset, subject) one of class `data`,
(kind, partition, opened_us, subject) one of class `sensor`.
Invariant: an alert begins with FIRING, and a closed alert never changes again.
"""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any, NamedTuple

from sqlalchemy import text

from monitor.errors import InvariantBroken
from monitor.types import AlertClass, AlertState, Contribution

if TYPE_CHECKING:
    from sqlalchemy import Connection, TextClause

    from monitor.types import AlertChange, DataAlertChange


class Written(NamedTuple):
    """An alert as it was before the change that was written just now, and the answers that operators gave to it."""

    id: int
    asset: str | None
    """Name. None = it is about no single asset."""
    severity_before: str | None
    """None = the change opened the alert."""
    acknowledged_by: str | None = None
    acknowledged_peak: float | None = None
    """Peak at the acknowledgement, or at the closing by hand."""
    closed_by_hand_us: int | None = None
    suppressed_by: str | None = None
    incident_id: int | None = None
    span_us: int | None = None
    """Length of the asset's windows. None = unknown."""
    former_us: int | None = None
    """When the asset's former alert opened. None = there is none, or the alert is about no single asset."""

    @property
    def is_new(self) -> bool:
        """Whether the change opened the alert."""
        return self.severity_before is None


_ANSWERS = """
    alert.severity AS severity_before, acknowledged_by, acknowledged_peak, closed_by_hand_us, suppressed_by, incident_id
"""
_BEFORE = text(f"""
    SELECT alert.id, asset.name AS asset, {_ANSWERS}, last_window.end_us - last_window.start_us AS span_us,
        (SELECT MAX(former.opened_us) FROM alert AS former
         WHERE former.asset_id = asset.id AND former.opened_us < :opened_us) AS former_us
    FROM asset LEFT JOIN alert ON alert.asset_id = asset.id AND alert.opened_us = :opened_us
        LEFT JOIN last_window ON last_window.asset_id = asset.id
    WHERE asset.id = :asset_id
""")  # noqa: S608 - a constant
_UPDATE = text("""
    UPDATE alert SET state = :state, severity = :severity, updated_us = :at_us, closed_us = :closed_us,
        peak_score = :peak_score, peak_us = :peak_us, n_anomalous = :n_anomalous, sensors = :sensors,
        clearing = :clearing, version = :version
    WHERE asset_id = :asset_id AND opened_us = :opened_us AND state <> 'closed'
    RETURNING id
""")
_INSERT = text("""
    INSERT INTO alert (asset_id, opened_us, state, severity, updated_us, closed_us, peak_score, peak_us, n_anomalous,
        sensors, clearing, version, stored_us)
    VALUES (:asset_id, :opened_us, :state, :severity, :at_us, :closed_us, :peak_score, :peak_us, :n_anomalous,
        :sensors, :clearing, :version, :stored_us)
    RETURNING id
""")
_BEFORE_DATA = text(f"""
    SELECT alert.id, alert.asset_name AS asset, {_ANSWERS} FROM alert
    WHERE topic = :topic AND partition = :partition AND kind = :kind AND from_offset = :from_offset
        AND subject = :subject
""")  # noqa: S608 - a constant
_BEFORE_SENSOR = text(f"""
    SELECT alert.id, alert.asset_name AS asset, {_ANSWERS} FROM alert
    WHERE topic = :topic AND partition = :partition AND kind = :kind AND opened_us = :opened_us
        AND subject = :subject AND class = 'sensor' AND state <> 'closed'
""")  # noqa: S608 - a constant
_UPDATE_DATA = text("""
    UPDATE alert SET state = :state, updated_us = :at_us, closed_us = :closed_us, n_anomalous = :n_anomalous,
        message = :message
    WHERE topic = :topic AND partition = :partition AND kind = :kind AND from_offset = :from_offset
        AND subject = :subject AND state <> 'closed'
    RETURNING id
""")
_UPDATE_SENSOR = text("""
    UPDATE alert SET state = :state, updated_us = :at_us, closed_us = :closed_us, n_anomalous = :n_anomalous,
        message = :message
    WHERE topic = :topic AND partition = :partition AND kind = :kind AND opened_us = :opened_us
        AND subject = :subject AND class = 'sensor' AND state <> 'closed'
    RETURNING id
""")
_INSERT_DATA = text("""
    INSERT INTO alert (class, kind, topic, partition, fleet, from_offset, subject, message, asset_name, sensor,
        opened_us, state, severity, updated_us, n_anomalous, sensors, stored_us)
    VALUES (:class, :kind, :topic, :partition, :fleet, :from_offset, :subject, :message, :asset_name, :sensor,
        :opened_us, :state, :severity, :at_us, :n_anomalous, '[]',
        :stored_us)
    RETURNING id
""")
_SPAN = text("""
    SELECT last_window.end_us - last_window.start_us FROM last_window JOIN asset ON asset.id = asset_id
    WHERE fleet = :fleet AND name = :name
""")
_TRANSITION = text("""
    INSERT INTO alert_transition (alert_id, seq, state, severity, at_us, peak_score, n_anomalous)
    SELECT :alert_id, COALESCE(MAX(seq), 0) + 1, :state, :severity, :at_us, :peak_score, :n_anomalous
    FROM alert_transition WHERE alert_id = :alert_id
""")


def write_change(connection: Connection, asset_id: int, change: AlertChange, stored_us: int | None = None) -> Written:
    """Write one change of an alert of class `process` and return the alert before it. Raises InvariantBroken.

    `stored_us`: processing time.
    """
    values = {
        "stored_us": stored_us,
        "asset_id": asset_id,
        "peak_score": change.peak_score,
        "n_anomalous": change.n_anomalous,
        "peak_us": change.peak_us,
        "sensors": _sensors_json(change),
        "clearing": None if change.clearing is None else json.dumps(change.clearing),
        "version": change.version,
    }
    before = connection.execute(_BEFORE, {"asset_id": asset_id, "opened_us": change.opened_us}).one()
    name = f"asset {asset_id}, {change.opened_us}"
    alert_id = _write(connection, change, None if before.id is None else _UPDATE, _INSERT, values, name)
    return Written(alert_id, *before[1:])


def write_data_change(connection: Connection, change: DataAlertChange, stored_us: int | None = None) -> Written:
    """Write one change of an alert of class `data` or `sensor`, like `write_change`."""
    is_sensor = change.alert_class is AlertClass.SENSOR
    values = {
        "stored_us": stored_us,
        "opened_us": change.opened_us,
        "class": str(change.alert_class),
        "asset_name": change.asset,
        "sensor": change.sensor,
        "kind": change.kind,
        "topic": change.partition.topic,
        "partition": change.partition.number,
        "fleet": change.fleet,
        # One record may hold two faults of one sensor, so an offset identifies neither.
        "from_offset": None if is_sensor else change.from_offset,
        "subject": change.subject,
        "peak_score": None,
        "n_anomalous": change.n_records,
        "message": change.message,
    }
    before = connection.execute(_BEFORE_SENSOR if is_sensor else _BEFORE_DATA, values).one_or_none()
    name = f"{change.kind}, {change.from_offset}, {change.opened_us}, {change.subject}"
    update = None if before is None else _UPDATE_SENSOR if is_sensor else _UPDATE_DATA
    alert_id = _write(connection, change, update, _INSERT_DATA, values, name)
    if before is not None:
        return Written(alert_id, *before[1:])
    place = {"fleet": change.fleet, "name": change.asset}
    span_us = connection.execute(_SPAN, place).scalar_one_or_none() if is_sensor else None
    return Written(alert_id, change.asset, None, span_us=span_us)


def _sensors_json(change: AlertChange) -> str:
    """Return the contributions at the peak as JSON, largest first, each beside those at the onset."""
    onset = {each.name: each for each in change.onset}
    peak = {each.name: each for each in change.contributions}
    # A version that was activated meanwhile may take other sensors.
    rest = [replace(each, share=0.0, expected=None, actual=None) for each in change.onset if each.name not in peak]
    rows = [
        asdict(each) | {"onset": _values_json(onset[each.name]) if each.name in onset else None}
        for each in (*change.contributions, *rest)
    ]
    return json.dumps(rows)


def _values_json(each: Contribution) -> dict[str, float | None]:
    return {"share": each.share, "expected": each.expected, "actual": each.actual}


def contributions_of(sensors: str) -> tuple[tuple[Contribution, ...], tuple[Contribution, ...]]:
    """Read the column `sensors`: the contributions at the peak, and those at the onset, each largest first."""
    peak, onset = [], []
    for row in json.loads(sensors):
        values = row.pop("onset", None)   # alerts of former releases have none
        peak.append(Contribution(**row))
        if values is not None:
            onset.append(replace(peak[-1], **values))
    return tuple(peak), tuple(sorted(onset, key=lambda each: -each.share))


def _write(
    connection: Connection,
    change: AlertChange | DataAlertChange,
    update: TextClause | None,
    insert: TextClause,
    values: dict[str, Any],
    name: str,
) -> int:
    row = values | {
        "state": str(change.state),
        "severity": str(change.severity),
        "at_us": change.at_us,
        "opened_us": change.opened_us,
        "closed_us": change.at_us if change.state is AlertState.CLOSED else None,
    }
    alert_id: int | None = None
    if update is not None:
        alert_id = connection.execute(update, row).scalar_one_or_none()
    if alert_id is None:
        if change.state is not AlertState.FIRING:
            raise InvariantBroken(f"{change.state} for an alert that is not open: {name}")
        alert_id = connection.execute(insert, row).scalar_one()
    if change.is_transition:
        connection.execute(_TRANSITION, row | {"alert_id": alert_id})
    return alert_id
