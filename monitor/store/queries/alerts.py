"""Queries of alerts of both classes."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from monitor.errors import NotFound
from monitor.printable import normal_name
from monitor.store.queries.backend import MAX_ID, Backend, Row, Where, limited, number, us, with_times

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime


_TIMES = {
    "opened_us": "opened_at",
    "closed_us": "closed_at",
    "peak_us": "peak_at",
    "updated_us": "updated_at",
    "at_us": "at",
}


class AlertQueries(Backend):
    """Queries of alerts."""

    def alerts(
        self,
        *,
        alert_class: str | None = None,
        fleet: str | None = None,
        asset: str | None = None,
        state: str | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        limit: int | None = None,
        sort: str = "opened",
    ) -> list[Row]:
        """Return alerts opened in [since, until), newest first, or in an order of `ALERT_ORDERS`.

        `asset` may be a pattern. State "open" = not closed.
        """
        where = Where()
        where.add("alert.class = :class", **{"class": alert_class})
        where.add("COALESCE(asset.fleet, alert.fleet) = :fleet", fleet=fleet)
        if asset is not None:
            where.add(self.glob("asset.name", "asset"), asset=self.pattern(normal_name(asset)))
        if state == "open":
            where.add("alert.state <> :closed", closed="closed")
        else:
            where.add("alert.state = :state", state=state)
        where.add("opened_us >= :since", since=us(since))
        where.add("opened_us < :until", until=us(until))
        sql = f"{_ALERTS} {where} ORDER BY {ALERT_ORDERS[sort]}{limited(limit)}"
        return [_alert(row) for row in self.fetch(sql, where.values)]

    def alert(self, alert_id: int) -> Row:
        """Return one alert with its transitions. Raises NotFound."""
        for row in self.fetch(f"{_ALERTS} WHERE alert.id = :id", {"id": alert_id}) if abs(alert_id) <= MAX_ID else ():
            steps = self.fetch(_TRANSITIONS, {"id": alert_id})
            return _alert(row) | {"transitions": [_with_counts(step, row["class"]) for step in steps]}
        raise NotFound(f"alert {alert_id}")


_NEWEST = "opened_us DESC, asset.name, alert.id DESC"  # alerts of one moment by name, not by their partition
ALERT_ORDERS = {
    "opened": _NEWEST,
    "peak": f"COALESCE(peak_score, -1) DESC, {_NEWEST}",
    "lasted": f"COALESCE(closed_us, updated_us) - opened_us DESC, {_NEWEST}",
    "severity": f"CASE severity WHEN 'critical' THEN 0 ELSE 1 END, {_NEWEST}",
    "asset": f"COALESCE(asset.name, alert.topic), {_NEWEST}",
}
"""Name of an order → ORDER BY. Alerts about the data have no peak, and are last by it."""
_ALERTS = """
    SELECT alert.id, alert.class, asset.name AS asset, COALESCE(asset.fleet, alert.fleet) AS fleet, alert.state,
        severity, opened_us, closed_us, peak_score, sensors, version, acknowledged_by, label, peak_us, updated_us,
        n_anomalous, kind, alert.topic, alert.partition, from_offset, subject, message
    FROM alert LEFT JOIN asset ON asset.id = alert.asset_id
"""
_TRANSITIONS = """
    SELECT state, severity, at_us, peak_score, n_anomalous FROM alert_transition WHERE alert_id = :id ORDER BY seq
"""


def _alert(row: Mapping[str, Any]) -> Row:
    """Return one dictionary for both classes: facts of the other class are None or empty."""
    return _with_counts(row, row["class"]) | {"sensors": json.loads(row["sensors"]), "subject": row["subject"] or None}


def _with_counts(row: Mapping[str, Any], alert_class: str) -> Row:
    n, is_process = row["n_anomalous"], alert_class == "process"
    return with_times(row, _TIMES) | {
        "peak_score": number(row["peak_score"]),
        "n_anomalous": n if is_process else None,
        "n_records": None if is_process else n,
    }
