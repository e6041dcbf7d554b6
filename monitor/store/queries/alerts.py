"""Queries of alerts of all classes."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from monitor.errors import NotFound
from monitor.printable import normal_name
from monitor.store.queries.answers import AnswerQueries
from monitor.store.queries.backend import MAX_ID, Row, Where, limited, number, us, with_times

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime


_TIMES = {
    "opened_us": "opened_at",
    "closed_us": "closed_at",
    "peak_us": "peak_at",
    "updated_us": "updated_at",
    "at_us": "at",
    "acknowledged_us": "acknowledged_at",
    "closed_by_hand_us": "closed_by_hand_at",
    "rolled_back_us": "rolled_back_at",
}
CLOSED_BY_HAND = "closed_by_hand_us IS NOT NULL"


class AlertQueries(AnswerQueries):
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
        show_suppressed: bool = False,
        incident: int | None = None,
        label: str | None = None,
        acknowledged: bool | None = None,
    ) -> list[Row]:
        """Return alerts opened in [since, until), newest first, or in an order of `ALERT_ORDERS`.

        `asset` may be a pattern. State "open" = not closed. An alert closed by hand counts as closed. `label`: "none" =
        not labelled. `show_suppressed`: also alerts in maintenance, which are left out.
        """
        where = Where()
        where.add("alert.class = :class", **{"class": alert_class})
        where.add(_IS_OF_FLEET, fleet=fleet)
        if asset is not None:
            names = [self.glob(name, "asset") for name in ("name", "alert.asset_name")]
            where.add(_IS_OF_ASSET.format(*names), asset=self.pattern(normal_name(asset)))
        if state == "open":
            where.add(f"alert.state <> 'closed' AND NOT {CLOSED_BY_HAND}")
        elif state == "closed":
            where.add(f"(alert.state = 'closed' OR {CLOSED_BY_HAND})")
        elif state is not None:
            where.add(f"alert.state = :state AND NOT {CLOSED_BY_HAND}", state=state)
        if not show_suppressed:
            where.add("(suppressed_by IS NULL OR suppressed_by <> 'maintenance')")
        where.add("incident_id = :incident", incident=incident)
        where.add("label IS NULL" if label == "none" else "label = :label", label=label)
        if acknowledged is not None:
            where.add(f"acknowledged_us IS {'NOT ' if acknowledged else ''}NULL")
        where.add("opened_us >= :since", since=us(since))
        where.add("opened_us < :until", until=us(until))
        chosen = str(where)
        if limit is not None:
            # The rows of a list are chosen in an index that holds all that is filtered and sorted by.
            source = _BY_ASSET if sort == "asset" else "FROM alert"
            chosen = f"WHERE alert.id IN (SELECT alert.id {source} {where} ORDER BY {_CHOICE[sort]}{limited(limit)})"
        sql = f"{_ALERTS} {chosen} ORDER BY {ALERT_ORDERS[sort]}"
        return [_alert(row) for row in self.fetch(sql, where.values)]

    def alert(self, alert_id: int) -> Row:
        """Return one alert with its transitions, its history, its incident and its shelves. Raises NotFound."""
        for row in self.fetch(f"{_ALERTS} WHERE alert.id = :id", {"id": alert_id}) if abs(alert_id) <= MAX_ID else ():
            steps = self.fetch(_TRANSITIONS, {"id": alert_id})
            found = _alert(row)
            return found | {
                "transitions": [_with_counts(step, row["class"]) for step in steps],
                "acts": self.history(alert=alert_id, limit=None),
                "incident": None if row["incident_id"] is None else self.incident(row["incident_id"]),
                "shelves": self.shelves_of(found),
            }
        raise NotFound(f"alert {alert_id}; monitor alerts list shows their numbers")


# The + keeps both databases from looking each asset up in another index, which lacks the rest of the conditions.
_IS_OF_FLEET = """
    (+alert.asset_id IN (SELECT id FROM asset WHERE fleet = :fleet)
        OR (alert.asset_id IS NULL AND alert.fleet = :fleet))
"""
_IS_OF_ASSET = "(+alert.asset_id IN (SELECT id FROM asset WHERE {}) OR {})"
_BY_ASSET = "FROM alert LEFT JOIN asset ON asset.id = alert.asset_id"
_FIRST = {
    "opened": "",
    "peak": "COALESCE(peak_score, -1) DESC, ",
    "lasted": "COALESCE(alert.closed_us, updated_us) - opened_us DESC, ",
    "severity": "CASE severity WHEN 'critical' THEN 0 ELSE 1 END, ",
    "asset": "COALESCE(asset.name, alert.topic), ",
}
_CHOICE = {name: f"{first}opened_us DESC, alert.id DESC" for name, first in _FIRST.items()}
# Alerts of one moment by name, not by their partition.
ALERT_ORDERS = {name: f"{first}opened_us DESC, asset.name, alert.id DESC" for name, first in _FIRST.items()}
"""Name of an order → ORDER BY. Alerts about the data have no peak, and are last by it."""
_ALERTS = """
    SELECT alert.id, alert.class, COALESCE(asset.name, alert.asset_name) AS asset,
        COALESCE(asset.fleet, alert.fleet) AS fleet, alert.state, severity, opened_us, alert.closed_us, peak_score,
        sensors, version, acknowledged_by, label, peak_us, updated_us, n_anomalous, kind, alert.topic,
        alert.partition, from_offset, subject, message, sensor, clearing, incident_id, acknowledged_us, label_note,
        closed_by_hand_us, suppressed_by, is_flapping,
        (SELECT rolled_back_us FROM model_version WHERE model_version.version = alert.version) AS rolled_back_us
    FROM alert LEFT JOIN asset ON asset.id = alert.asset_id
"""
_TRANSITIONS = """
    SELECT state, severity, at_us, peak_score, n_anomalous FROM alert_transition WHERE alert_id = :id ORDER BY seq
"""


def _alert(row: Mapping[str, Any]) -> Row:
    """Return one dictionary for all classes: facts of other classes are None or empty.

    An alert closed by hand is shown as closed. `pipeline_state` is the state that follows from the scores alone.
    """
    by_hand_us = row["closed_by_hand_us"]
    state = {} if by_hand_us is None else {"state": "closed", "closed_us": by_hand_us}
    return _with_counts({**row, **state}, row["class"]) | {
        "sensors": json.loads(row["sensors"]),
        "subject": row["subject"] or None,
        "clearing": None if row["clearing"] is None else json.loads(row["clearing"]),
        "is_flapping": bool(row["is_flapping"]),
        "pipeline_state": row["state"],
    }


def _with_counts(row: Mapping[str, Any], alert_class: str) -> Row:
    n, is_process = row["n_anomalous"], alert_class == "process"
    return with_times(row, _TIMES) | {
        "peak_score": number(row["peak_score"]),
        "n_anomalous": n if is_process else None,
        "n_records": None if is_process else n,
    }
