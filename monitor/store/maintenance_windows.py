"""Maintenance windows: times in which assets are scored without notifications.

Input: a plan, once or recurring by a cron expression. Output: rows of `maintenance`, and whether an asset is in
maintenance at an event time. Invariant: event time decides, so a replay and a late reading see the same windows. Rows
are kept when they are over: training and budget leave those times out.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import text

from monitor.clock import from_us
from monitor.errors import ConfigError, NotFound, WrongState
from monitor.printable import escape_unprintable
from monitor.store import acts, subjects
from monitor.store.matching import Window
from monitor.types import Act

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sqlalchemy import Connection

    from monitor.store.acts import Actor

MAX_ONCE_US = 366 * 86_400_000_000

_PUT = text("""
    INSERT INTO maintenance (fleet, asset, from_us, to_us, cron, duration_us, timezone, reason, actor, made_us)
    VALUES (:fleet, :asset, :from_us, :to_us, :cron, :duration_us, :timezone, :reason, :actor, :made_us)
    RETURNING id
""")
_END = text("""
    UPDATE maintenance SET ended_us = :now_us,
        to_us = CASE WHEN from_us >= :now_us THEN from_us WHEN to_us < :now_us THEN to_us ELSE :now_us END
    WHERE id = :id AND ended_us IS NULL
    RETURNING fleet, asset, from_us
""")
_GET = text("SELECT ended_us FROM maintenance WHERE id = :id")
_OVER = text("""
    UPDATE maintenance SET ended_us = :now_us WHERE ended_us IS NULL AND to_us <= :now_us RETURNING id, fleet, asset
""")
_ALL = "SELECT fleet, asset, from_us, to_us, cron, duration_us, timezone FROM maintenance"
_NOT_OVER_AT = text(f"{_ALL} WHERE from_us <= :at_us AND (to_us IS NULL OR to_us > :at_us)")


def check(window: Window) -> None:
    """Raise ConfigError for a window that cannot be used."""
    if window.cron is None:
        if window.to_us is None or window.to_us <= window.from_us:
            raise ConfigError("a maintenance window needs an end after its beginning")
        if window.to_us - window.from_us > MAX_ONCE_US:
            raise ConfigError("a maintenance window of more than a year; take the assets out of the configuration")
    elif window.duration_us is None:
        raise ConfigError("a recurring maintenance window needs a duration")
    elif (problem := window.recurrence.problem()) is not None:
        raise ConfigError(problem)
    elif window.to_us is not None and window.to_us <= window.from_us:
        raise ConfigError("a maintenance window needs an end after its beginning")


def plan(connection: Connection, window: Window, reason: str, actor: Actor, now_us: int) -> int:
    """Plan a maintenance window and return its id. Raises ConfigError, NotFound."""
    check(window)
    subjects.check_known(connection, window.fleet, window.asset)
    reason = acts.clean_reason(reason)
    who = escape_unprintable(actor.name)[: acts.MAX_ACTOR]
    row = window._asdict() | {"reason": reason, "actor": who, "made_us": now_us}
    maintenance_id: int = connection.execute(_PUT, row).scalar_one()
    detail: dict[str, object] = {"maintenance": maintenance_id, "from": from_us(window.from_us).isoformat()}
    detail |= {} if window.to_us is None else {"to": from_us(window.to_us).isoformat()}
    if window.cron is not None and window.duration_us is not None:
        detail |= {"cron": window.cron, "duration_s": window.duration_us / 1e6, "timezone": window.timezone}
    acts.record(connection, Act.PLAN_MAINTENANCE, actor, now_us, fleet=window.fleet, asset=window.asset, note=reason,
                detail=detail)  # fmt: skip
    return maintenance_id


def end(connection: Connection, maintenance_id: int, actor: Actor, now_us: int) -> None:
    """Cancel a maintenance window, or end it now: later times are not in maintenance. Raises NotFound, WrongState."""
    row = connection.execute(_END, {"id": maintenance_id, "now_us": now_us}).one_or_none()
    if row is None:
        known = connection.execute(_GET, {"id": maintenance_id}).one_or_none()
        if known is None:
            raise NotFound(f"maintenance {maintenance_id}; monitor maintenance list shows those planned")
        ended = f"{from_us(known.ended_us):%Y-%m-%d %H:%M} UTC"
        raise WrongState(f"maintenance {maintenance_id} has ended at {ended}")
    note = "cancelled" if row.from_us >= now_us else "ended"
    acts.record(connection, Act.END_MAINTENANCE, actor, now_us, fleet=row.fleet, asset=row.asset, note=note,
                detail={"maintenance": maintenance_id})  # fmt: skip


def end_expired(connection: Connection, now_us: int) -> list[int]:
    """Note the end of windows, by processing time, and return their ids."""
    over = connection.execute(_OVER, {"now_us": now_us}).all()
    for row in over:
        acts.record(connection, Act.END_MAINTENANCE, acts.MONITOR, now_us, fleet=row.fleet, asset=row.asset,
                    note="its time is over", detail={"maintenance": row.id})  # fmt: skip
    return [row.id for row in over]


def at(connection: Connection, at_us: int) -> list[Window]:
    """Return the windows that contain an event time, and recurring ones that may."""
    return [Window(*row) for row in connection.execute(_NOT_OVER_AT, {"at_us": at_us})]


def covering(windows: Iterable[Window], fleet: str | None, asset: str | None, at_us: int) -> Window | None:
    """Return a window in which an asset is in maintenance at an event time, or None."""
    found = (window for window in windows if window.covers(fleet, asset) and window.at(at_us) is not None)
    return next(found, None)
