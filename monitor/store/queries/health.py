"""Queries of alarm health. `monitor.alert_health` defines the figures."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from monitor import alert_health
from monitor.alert_health import Alarm, Range
from monitor.clock import to_us
from monitor.store import judged
from monitor.store.judged import JudgedCount
from monitor.store.queries.backend import Backend, Row, Where

if TYPE_CHECKING:
    from collections.abc import Mapping

SPAN = timedelta(weeks=4)
"""Range without `since`."""
MICROSECOND = timedelta(microseconds=1)


class HealthQueries(Backend):
    """Queries of alarm health."""

    def alert_health(
        self,
        fleet: str | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        *,
        now: datetime | None = None,
    ) -> Row:
        """Return the figures of alerts opened in [since, until): `fleets`, one entry each, and `all` of them together.

        Default: the four weeks up to the newest window that is not in the future. Alerts about whole partitions belong
        to the fleet None.
        """
        until_us = self._newest_us(fleet, now or datetime.now(UTC)) if until is None else to_us(until)
        within = Range(until_us - SPAN // MICROSECOND if since is None else to_us(since), until_us)
        if within.from_us >= within.to_us:
            within = Range(within.from_us, within.from_us)
        alarms = self._alarms(fleet, within)
        where = Where()
        where.add("name = :fleet", fleet=fleet)
        sizes = {row["fleet"]: row["assets"] for row in self.fetch(f"{_SIZES} {where} ORDER BY name", where.values)}
        lives = self._shortest_lives_us()
        known = judged.counts(self.fetch)
        names = [*sizes, *(name for name in sorted(alarms.keys() - sizes.keys(), key=str) if alarms[name])]
        fleets = [
            {"fleet": name}
            | alert_health.figures(
                alarms.get(name, []),
                within,
                sizes.get(name, 0),
                lives.get(name, 0),
                judged=known.get(name, JudgedCount()),
            )
            for name in names
        ]
        # A subject is an asset of one fleet: two fleets may have one of the same name.
        every = [
            each._replace(subject=f"{name}/{each.subject}" if name else each.subject)
            for name in names
            for each in alarms.get(name, ())
        ]
        own = [known.get(name, JudgedCount()) for name in names]
        total = alert_health.figures(
            every, within, sum(sizes.values()), max(lives.values(), default=0),
            judged=(sum(each.n_real for each in own), sum(each.n for each in own)),
        )  # fmt: skip
        return {"from": total["from"], "to": total["to"], "fleets": fleets, "all": total}

    def _newest_us(self, fleet: str | None, now: datetime) -> int:
        where = Where()
        where.add("fleet = :fleet", fleet=fleet)
        where.add("end_us <= :now", now=to_us(now))
        [row] = self.fetch(f"{_NEWEST} {where}", where.values)
        return to_us(now) if row["newest_us"] is None else row["newest_us"] + 1

    def _alarms(self, fleet: str | None, within: Range) -> dict[str | None, list[Alarm]]:
        """Return the alarms that opened in a range or were open in it, by fleet."""
        found: dict[str | None, list[Alarm]] = {}
        values: Row = {"since": within.from_us, "until": within.to_us}
        of_fleet = "" if fleet is None else " AND COALESCE(asset.fleet, alert.fleet) = :fleet"
        if fleet is not None:
            values["fleet"] = fleet
        for condition in (_OPENED, _STILL_OPEN, _CLOSED_SINCE):
            for row in self.fetch(f"{_ALARMS} WHERE {condition}{of_fleet}", values):
                found.setdefault(row["fleet"], []).append(_alarm(row))
        return found

    def _shortest_lives_us(self) -> dict[str | None, int]:
        """Return the shortest life of an alert by fleet, by the policy that its champion was calibrated for."""
        found: dict[str | None, int] = {}
        for row in self.fetch(_CARDS):
            policy = json.loads(row["card"]).get("threshold") or {}
            step_s, confirm, recover = (policy.get(name) for name in ("step_s", "confirm", "recover"))
            if step_s and confirm and recover:
                life = alert_health.shortest_life(timedelta(seconds=step_s), confirm, recover)
                found[row["fleet"]] = life // MICROSECOND
        return found


def _alarm(row: Mapping[str, Any]) -> Alarm:
    return Alarm(
        id=row["id"],
        alert_class=row["class"],
        subject=row["subject"],
        severity=row["severity"],
        opened_us=row["opened_us"],
        closed_us=row["closed_us"],
        label=row["label"],
        suppressed_by=row["suppressed_by"],
        stored_us=row["stored_us"],
        acknowledged_us=row["acknowledged_us"],
        is_shelved=bool(row["is_shelved"]),
    )


_SIZES = "SELECT name AS fleet, (SELECT COUNT(*) FROM asset WHERE asset.fleet = fleet.name) AS assets FROM fleet"
_NEWEST = "SELECT MAX(end_us) AS newest_us FROM last_window JOIN asset ON asset.id = asset_id"
_CARDS = "SELECT fleet, card FROM model_version WHERE state = 'champion'"
_ALARMS = """
    SELECT alert.id, alert.class, COALESCE(asset.fleet, alert.fleet) AS fleet, severity, opened_us,
        COALESCE(closed_by_hand_us, closed_us) AS closed_us, label, suppressed_by, stored_us,
        COALESCE(asset.name, asset_name, alert.topic || '/' || CAST(alert.partition AS TEXT)) || CASE
            WHEN sensor IS NOT NULL THEN ' ' || sensor WHEN kind IS NOT NULL THEN ' ' || kind ELSE '' END AS subject,
        (SELECT MIN(at_us) FROM act WHERE act.alert_id = alert.id AND act = 'acknowledge') AS acknowledged_us,
        EXISTS (SELECT 1 FROM act WHERE act.alert_id = alert.id AND act = 'shelve') AS is_shelved
    FROM alert LEFT JOIN asset ON asset.id = alert.asset_id
"""
# Three disjoint parts, each found through an index of its own: the + keeps that of the openings out of the others.
_OPENED = "opened_us >= :since AND opened_us < :until"
_STILL_OPEN = "alert.state <> 'closed' AND +opened_us < :since AND +opened_us < :until"
_CLOSED_SINCE = "alert.state = 'closed' AND closed_us >= :since AND +opened_us < :since AND +opened_us < :until"
