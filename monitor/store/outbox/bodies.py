"""The payload of a notification, from the row of its alert.

Input: an alert's id and the step. Output: a JSON object with the keys of `monitor alerts list --json` for the same
facts. Facts of another class are null. Chats show `text`. Invariant: the keys are a contract: they are added, never
renamed.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import msgspec
from sqlalchemy import text

from monitor.clock import from_us
from monitor.printable import escape_json, escape_unprintable
from monitor.store.queries.backend import number
from monitor.types import AlertClass, AlertState

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sqlalchemy import Connection

_ALERT = text("""
    SELECT alert.id, alert.class, COALESCE(asset.name, alert.asset_name) AS asset,
        COALESCE(asset.fleet, alert.fleet) AS fleet, alert.state, severity, opened_us, closed_us, closed_by_hand_us,
        updated_us, peak_score, peak_us, n_anomalous, sensors, version, kind, alert.topic, alert.partition, from_offset,
        subject, message, sensor, clearing, incident_id, suppressed_by
    FROM alert LEFT JOIN asset ON asset.id = alert.asset_id WHERE alert.id = :id
""")

_PROCESS_VERBS = {
    "firing": "is anomalous",
    "critical": "is critically anomalous",
    "closed": "is normal again",
    "worse": "has become much worse since it was acknowledged",
    "reopened": "is anomalous again after its alert was closed by hand",
    "again": "is still anomalous, after it was shelved, in maintenance or flapping",
    "flapping": "goes in and out of alarm",
}
"""Step → the state of the asset."""
_OTHER_VERBS = {
    "firing": "opened",
    "critical": "is critical",
    "closed": "is over",
    "worse": "has become much worse",
    "reopened": "is open again",
    "again": "is still open, after it was shelved, in maintenance or flapping",
    "flapping": "comes and goes",
}
"""Step → the state of the alert, in classes `data` and `sensor`."""
STEPS = tuple(_PROCESS_VERBS)


def alert_row(connection: Connection, alert_id: int) -> dict[str, Any]:
    """Return the facts of an alert."""
    return dict(connection.execute(_ALERT, {"id": alert_id}).mappings().one())


def alert_key(row: Mapping[str, Any]) -> str:
    """Return the key of an alert: the same in every database that has its records."""
    if row["class"] == AlertClass.PROCESS:
        return f"{row['fleet']}/{quote(row['asset'], safe='/:')}:{row['opened_us']}"
    subject = f":{quote(row['subject'], safe='/:')}" if row["subject"] else ""
    place = f"{row['class']}:{row['kind']}/{row['topic']}/{row['partition']}"
    # One record may hold two faults of one sensor: their times tell them apart.
    return f"{place}:{row['opened_us'] if row['class'] == AlertClass.SENSOR else row['from_offset']}{subject}"


def body(row: Mapping[str, Any], step: str, at_us: int) -> dict[str, Any]:
    """Return the payload. `at_us`: event time of the step, or processing time of an operator's act."""
    is_process = row["class"] == AlertClass.PROCESS
    closed_us = row["closed_us"] if row["closed_us"] is not None else row["closed_by_hand_us"]
    facts = {
        "step": step,
        "text": _process_text(row, step) if is_process else _other_text(row, step),
        "id": row["id"],
        "class": row["class"],
        "fleet": row["fleet"],
        "asset": row["asset"],
        "state": row["state"] if closed_us is None else AlertState.CLOSED,
        "severity": row["severity"],
        "opened_at": from_us(row["opened_us"]),
        "closed_at": None if closed_us is None else from_us(closed_us),
        "at": from_us(at_us),
        "peak_score": number(row["peak_score"]),
        "peak_at": None if row["peak_us"] is None else from_us(row["peak_us"]),
        "n_anomalous": row["n_anomalous"] if is_process else None,
        "sensors": _sensors(row["sensors"]),
        "version": row["version"],
        "incident": row["incident_id"],
        "clearing": None if row["clearing"] is None else json.loads(row["clearing"]),
    }
    if is_process:
        return facts
    return facts | {
        "kind": row["kind"],
        "topic": row["topic"],
        "partition": row["partition"],
        "from_offset": row["from_offset"],
        "subject": row["subject"] or None,
        "sensor": row["sensor"],
        "n_records": row["n_anomalous"],
        "message": row["message"],
    }


def _verb(verbs: Mapping[str, str], row: Mapping[str, Any], step: str) -> str:
    is_by_hand = step == "closed" and row["closed_by_hand_us"] is not None and row["closed_us"] is None
    return "was closed by hand" if is_by_hand else verbs[step]


def _process_text(row: Mapping[str, Any], step: str) -> str:
    sensors = json.loads(row["sensors"])
    worst = max(sensors, key=lambda each: each["share"], default=None)
    most = f", most of it {escape_unprintable(worst['name'])}'s" if worst else ""
    verb = _verb(_PROCESS_VERBS, row, step)
    return (
        f"{escape_unprintable(row['asset'])} ({row['fleet']}) {verb}: alert {row['id']} since "
        f"{from_us(row['opened_us']):%Y-%m-%d %H:%M} UTC, score up to {row['peak_score']:.1f} where 1.0 is the "
        f"threshold{most}"
    )


def _other_text(row: Mapping[str, Any], step: str) -> str:
    place = f"{row['topic']}/{row['partition']}"
    if row["class"] == AlertClass.SENSOR:
        place = row["fleet"] if row["asset"] is None else f"{escape_unprintable(row['asset'])} ({row['fleet']})"
    return (
        f"{place}: {row['kind']}, alert {row['id']} {_verb(_OTHER_VERBS, row, step)}. "
        f"{escape_unprintable(row['message'])}"
    )


def _sensors(stored: str) -> list[dict[str, Any]]:
    return [
        {
            "name": each["name"],
            "share": number(each["share"]) or 0.0,
            "expected": number(each["expected"]),
            "actual": number(each["actual"]),
            "quantity": each.get("quantity", "value"),
        }
        for each in json.loads(stored)
    ]


def encode(payload: dict[str, Any]) -> str:
    """Return a payload as JSON, without characters that terminals obey."""
    return escape_json(msgspec.json.encode(payload).decode())
