"""Subjects of stored alerts, and the check that an operator's names exist.

Input: rows of alerts. Output: a `Subject` of each. Invariant: a name that matches nothing is refused.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from sqlalchemy import bindparam, text

from monitor.errors import NotFound
from monitor.printable import escape_unprintable
from monitor.store import assets
from monitor.store.matching import Subject, blamed_of_rows, matches

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sqlalchemy import Connection, Row


def check_known(connection: Connection, fleet: str | None, asset: str | None) -> None:
    """Raise NotFound unless the database knows a fleet and an asset that match. A typing error must not pass."""
    fleets = sorted(assets.fleets(connection))
    if fleet not in (None, "*") and not any(matches(fleet, name) for name in fleets):
        known = ", ".join(fleets) or "none yet: start the daemon once"
        raise NotFound(f"fleet {escape_unprintable(fleet or '')}; the database knows {known}")
    if asset in (None, "*"):
        return
    if not any(matches(fleet, each) and matches(asset, name) for each, name in assets.names(connection)):
        where = f" of fleet {escape_unprintable(fleet)}" if fleet else ""
        raise NotFound(f"no asset{where} matches {escape_unprintable(asset or '')}; check its spelling")


_COLUMNS = """
    SELECT alert.id, COALESCE(asset.fleet, alert.fleet) AS fleet, COALESCE(asset.name, alert.asset_name) AS asset,
        alert.sensor, alert.sensors, alert.peak_score, alert.opened_us
    FROM alert LEFT JOIN asset ON asset.id = alert.asset_id
"""
_GET = text(f"{_COLUMNS} WHERE alert.id = :id")
_OPEN = text(f"{_COLUMNS} WHERE alert.state <> 'closed' AND closed_by_hand_us IS NULL ORDER BY alert.id")
_SINCE = text(f"{_COLUMNS} WHERE alert.opened_us > :from_us AND alert.id > :since_id")
_SOME = text(f"{_COLUMNS} WHERE alert.id IN :ids").bindparams(bindparam("ids", expanding=True))


def get(connection: Connection, alert_id: int) -> Subject:
    """Return the subject of an alert that exists."""
    return _subject(connection.execute(_GET, {"id": alert_id}).one())


def open_alerts(connection: Connection) -> list[Subject]:
    """Return the subjects of the open alerts, except those closed by hand."""
    return [_subject(row) for row in connection.execute(_OPEN)]


def opened_after(connection: Connection, from_us: int, since_id: int) -> list[Subject]:
    """Return the alerts that opened after an event time and were stored after another alert."""
    return [_subject(row) for row in connection.execute(_SINCE, {"from_us": from_us, "since_id": since_id})]


def some(connection: Connection, ids: Iterable[int]) -> dict[int, Subject]:
    """Return the subjects of these alerts."""
    return {row.id: _subject(row) for row in connection.execute(_SOME, {"ids": list(ids)})}


def _subject(row: Row[tuple[object, ...]]) -> Subject:
    sensors = (row.sensor,) if row.sensor else blamed_of_rows(json.loads(row.sensors))
    return Subject(row.id, row.fleet, row.asset, sensors, row.peak_score, row.opened_us)
