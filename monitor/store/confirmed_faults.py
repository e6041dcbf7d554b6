"""The last confirmed faults of a fleet with their kept evidence, for the gate of new versions.

Input: a connection. Output: alerts of class `process` that are labelled `fault`, the last labelled first.
Invariant: only a label that stands counts. Retention deletes scores, never alerts or their evidence, so a fault is
remembered however short Kafka's retention and `[store] scores_keep` are. Of several alerts of one asset in one incident
only that with the highest peak counts: a fault that flaps does not push the others out.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from sqlalchemy import bindparam, text

from monitor.types import ConfirmedFault

if TYPE_CHECKING:
    from sqlalchemy import Connection

MAX_BYTES = 24 << 20
"""Evidence in all, compressed: it goes to the training process in one message. Faults beyond it come without theirs,
so that they are told as not judged."""
_ROWS_PER_FAULT = 20
"""Alerts that are looked at for each fault that is wanted."""

_FAULTS = text("""
    SELECT alert.id, alert.asset_id, asset.name, opened_us, peak_score, sensors, clearing, label_note, incident_id,
        COALESCE((SELECT MAX(act.id) FROM act WHERE act.alert_id = alert.id AND act = 'label'), 0) AS act_id
    FROM alert JOIN asset ON asset.id = alert.asset_id
    WHERE asset.fleet = :fleet AND class = 'process' AND label = 'fault'
    ORDER BY act_id DESC, alert.id DESC LIMIT :n
""")
_CHUNKS = text("SELECT alert_id, body FROM evidence WHERE alert_id IN :ids ORDER BY alert_id, seq").bindparams(
    bindparam("ids", expanding=True)
)


def confirmed_faults(connection: Connection, fleet: str, n: int) -> list[ConfirmedFault]:
    """Return the last `n` confirmed faults of a fleet. About 2 ms each."""
    if not n:
        return []
    kept: dict[tuple[int, str], Any] = {}
    for row in connection.execute(_FAULTS, {"fleet": fleet, "n": n * _ROWS_PER_FAULT}):
        key = row.asset_id, f"incident {row.incident_id}" if row.incident_id is not None else f"alert {row.id}"
        if key not in kept and len(kept) == n:
            continue
        if key not in kept or (row.peak_score or 0.0) > (kept[key].peak_score or 0.0):
            kept[key] = row
    chunks: dict[int, list[bytes]] = {row.id: [] for row in kept.values()}
    n_bytes = 0
    for row in kept.values():
        found = [bytes(each.body) for each in connection.execute(_CHUNKS, {"ids": [row.id]})]
        n_bytes += sum(map(len, found))
        if n_bytes <= MAX_BYTES:
            chunks[row.id] = found
    return [
        ConfirmedFault(
            alert=row.id,
            asset=row.name,
            opened_us=row.opened_us,
            sensors=_blamed(row),
            note=row.label_note or "",
            chunks=tuple(chunks[row.id]),
        )
        for row in kept.values()
    ]


def _blamed(row: Any) -> tuple[str, ...]:
    """Return the clearing sensors, or the first at the onset."""
    clearing = json.loads(row.clearing) if row.clearing else []
    if clearing:
        return tuple(clearing)
    sensors = json.loads(row.sensors)
    ranked = sorted(sensors, key=lambda sensor: -float((sensor.get("onset") or sensor).get("share") or 0.0))
    return tuple(sensor["name"] for sensor in ranked[:1])
