"""Queries of the answers that operators gave: the history, incidents, shelves, maintenance windows, labels of times."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

from monitor.errors import NotFound
from monitor.printable import normal_name
from monitor.store.matching import Subject, Target, Window, blamed_of_rows
from monitor.store.queries.backend import MAX_ID, Backend, Row, Where, iso, limited, us, with_times

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

_ACT_TIMES = {"at_us": "at"}
_INCIDENT_TIMES = {"opened_us": "opened_at", "closed_us": "closed_at"}
_SHELF_TIMES = {"made_us": "made_at", "until_us": "until_at", "ended_us": "ended_at"}
_LABEL_TIMES = {"from_us": "from", "to_us": "to", "made_us": "made_at", "removed_us": "removed_at"}


class AnswerQueries(Backend):
    """Queries of answers."""

    def history(
        self,
        *,
        alert: int | None = None,
        fleet: str | None = None,
        asset: str | None = None,
        by: str | None = None,
        act: str | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        limit: int | None = None,
    ) -> list[Row]:
        """Return the acts, in order for one alert, else the newest first. Times are processing time."""
        where = Where()
        where.add("alert_id = :alert", alert=alert)
        where.add("act.fleet = :fleet", fleet=fleet)
        if asset is not None:
            where.add(self.glob("act.asset", "asset"), asset=self.pattern(normal_name(asset)))
        where.add("actor = :actor", actor=by)
        where.add("act = :act", act=act)
        where.add("at_us >= :since", since=us(since))
        where.add("at_us < :until", until=us(until))
        order = "DESC" if alert is None else "ASC"
        rows = self.fetch(f"{_ACTS} {where} ORDER BY act.id {order}{limited(limit)}", where.values)
        return [
            with_times(row, _ACT_TIMES) | {"detail": None if row["detail"] is None else json.loads(row["detail"])}
            for row in rows
        ]

    def incidents(
        self,
        *,
        fleet: str | None = None,
        state: str | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        limit: int | None = None,
    ) -> list[Row]:
        """Return incidents opened in [since, until), the newest first. `state`: open, closed."""
        where = Where()
        where.add("fleet = :fleet", fleet=fleet)
        if state is not None:
            where.add(f"closed_us IS {'NOT ' if state == 'closed' else ''}NULL")
        where.add("opened_us >= :since", since=us(since))
        where.add("opened_us < :until", until=us(until))
        rows = list(self.fetch(f"{_INCIDENTS} {where} ORDER BY opened_us DESC, id DESC{limited(limit)}", where.values))
        return self._with_alerts(rows)

    def incident(self, incident_id: int) -> Row:
        """Return one incident with the numbers of its alerts and the names of its assets. Raises NotFound."""
        known = abs(incident_id) <= MAX_ID
        rows = list(self.fetch(f"{_INCIDENTS} WHERE id = :id", {"id": incident_id})) if known else []
        if not rows:
            raise NotFound(f"incident {incident_id}")
        return self._with_alerts(rows)[0]

    def _with_alerts(self, rows: Sequence[Mapping[str, Any]]) -> list[Row]:
        alerts: dict[int, list[int]] = {row["id"]: [] for row in rows}
        names: dict[int, dict[str, None]] = {row["id"]: {} for row in rows}
        ids = list(alerts)
        for first in range(0, len(ids), 500):
            values = {f"i{place}": number for place, number in enumerate(ids[first : first + 500])}
            wanted = ", ".join(f":{name}" for name in values)
            for row in self.fetch(_ALERTS_OF.format(ids=wanted), values):
                alerts[row["incident_id"]].append(row["id"])
                if row["asset"] is not None:
                    names[row["incident_id"]][row["asset"]] = None
        return [
            with_times(row, _INCIDENT_TIMES) | {"alerts": alerts[row["id"]], "assets": list(names[row["id"]])}
            for row in rows
        ]

    def shelves(self, *, is_active: bool | None = True, limit: int | None = None) -> list[Row]:
        """Return shelves, the newest first. `is_active`: in force, ended, or None = all."""
        where = Where()
        if is_active is not None:
            where.add(f"ended_us IS {'' if is_active else 'NOT '}NULL")
        rows = self.fetch(f"{_SHELVES} {where} ORDER BY id DESC{limited(limit)}", where.values)
        return [with_times(row, _SHELF_TIMES) for row in rows]

    def shelves_of(self, alert: Mapping[str, Any]) -> list[Row]:
        """Return the shelves of one alert, and those in force that cover it. `alert`: as `Reader.alerts` gives it."""
        own = f"{_SHELVES} WHERE alert_id = :id OR (alert_id IS NULL AND ended_us IS NULL) ORDER BY id"
        sensors = (alert["sensor"],) if alert["sensor"] else blamed_of_rows(alert["sensors"])
        subject = Subject(alert["id"], alert["fleet"], alert["asset"], sensors, None, 0)
        rows = self.fetch(own, {"id": alert["id"]})
        return [with_times(row, _SHELF_TIMES) for row in rows if _target(row).covers(subject)]

    def maintenance(self, *, is_active: bool | None = True, now_us: int | None = None) -> list[Row]:
        """Return maintenance windows by their beginning. `is_active`: planned or under way, over, or None = all.

        `state`: planned, active, over. `next_from` and `next_to`: of the occurrence in progress, or of the next one.
        """
        where = Where()
        if is_active is not None:
            where.add(f"ended_us IS {'' if is_active else 'NOT '}NULL")
        now = time.time_ns() // 1000 if now_us is None else now_us
        return [_maintenance(row, now) for row in self.fetch(f"{_MAINTENANCE} {where} ORDER BY from_us, id", {})]

    def interval_labels(
        self,
        *,
        fleet: str | None = None,
        asset: str | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
    ) -> list[Row]:
        """Return the labels in force on times of assets, by their beginning."""
        where = Where()
        where.add("removed_us IS NULL")
        where.add("asset.fleet = :fleet", fleet=fleet)
        if asset is not None:
            where.add(self.glob("asset.name", "asset"), asset=self.pattern(normal_name(asset)))
        where.add("to_us > :since", since=us(since))
        where.add("from_us < :until", until=us(until))
        rows = self.fetch(f"{_LABELS} {where} ORDER BY from_us, interval_label.id", where.values)
        return [with_times(row, _LABEL_TIMES) for row in rows]


def _target(row: Mapping[str, Any]) -> Target:
    return Target(row["alert_id"], row["fleet"], row["asset"], row["sensor"])


def _maintenance(row: Mapping[str, Any], now_us: int) -> Row:
    window = Window(**{name: row[name] for name in Window._fields})
    current = window.at(now_us)
    following = current or window.next(now_us)
    is_over = row["ended_us"] is not None or following is None
    return {
        "id": row["id"],
        "fleet": row["fleet"],
        "asset": row["asset"],
        "state": "over" if is_over else "active" if current else "planned",
        "from": iso(row["from_us"]),
        "to": iso(row["to_us"]),
        "cron": row["cron"],
        "duration_s": None if row["duration_us"] is None else row["duration_us"] / 1e6,
        "timezone": row["timezone"],
        "next_from": None if is_over or following is None else iso(following[0]),
        "next_to": None if is_over or following is None else iso(following[1]),
        "reason": row["reason"],
        "actor": row["actor"],
        "made_at": iso(row["made_us"]),
        "ended_at": iso(row["ended_us"]),
    }


_ACTS = """
    SELECT act.id, at_us, actor AS "by", via, act, alert_id, COALESCE(act.fleet, asset.fleet, alert.fleet) AS fleet,
        COALESCE(act.asset, asset.name, alert.asset_name) AS asset, note, detail
    FROM act LEFT JOIN alert ON alert.id = alert_id LEFT JOIN asset ON asset.id = alert.asset_id
"""
_INCIDENTS = "SELECT id, fleet, opened_us, closed_us, severity, n_alerts FROM incident"
_ALERTS_OF = """
    SELECT incident_id, alert.id, COALESCE(asset.name, alert.asset_name) AS asset
    FROM alert LEFT JOIN asset ON asset.id = asset_id WHERE incident_id IN ({ids}) ORDER BY alert.id
"""
_SHELVES = """
    SELECT id, alert_id, fleet, asset, sensor, until, until_us, made_us, ended_us, ended_why, reason, actor FROM shelf
"""
_MAINTENANCE = """
    SELECT id, fleet, asset, from_us, to_us, cron, duration_us, timezone, reason, actor, made_us, ended_us
    FROM maintenance
"""
_LABELS = """
    SELECT interval_label.id, asset.fleet, asset.name AS asset, from_us, to_us, label, note, actor, made_us, removed_us
    FROM interval_label JOIN asset ON asset.id = asset_id
"""
