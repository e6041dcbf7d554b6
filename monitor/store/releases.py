"""Releases: alerts that are no longer suppressed, and shelves and maintenance windows that end.

Input: the time now. Output: ended rows, and notifications of alerts that still fire. Invariant: an alert is released
by one transaction only, which notifies in the same step. A suppressed alert is released as soon as nothing suppresses
it:

    shelf        no shelf in force covers it
    maintenance  the last window of its asset ends outside of every maintenance window. Event time decides. For an alert
                 that is not about the readings of one asset it is processing time
    flapping     it has been open for longer than the time within which alerts count as flapping

The end of an alert that was closed by hand is notified here, too, because the operator's command knows no channels.

`find` reads, and costs little while there is nothing to do. `release` writes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from sqlalchemy import bindparam, text

from monitor.store import life, maintenance_windows, outbox, shelves, subjects

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Connection

    from monitor.store.outbox import Channel

# The literal condition is that of the partial index `uq_alert_open`.
_SUPPRESSED = text("""
    SELECT alert.id, suppressed_by, is_flapping, opened_us, last_window.end_us,
        last_window.end_us - last_window.start_us AS span_us
    FROM alert LEFT JOIN asset ON alert.class = 'sensor' AND asset.fleet = alert.fleet AND asset.name = alert.asset_name
        LEFT JOIN last_window ON last_window.asset_id = COALESCE(alert.asset_id, asset.id)
    WHERE state <> 'closed' AND suppressed_by IS NOT NULL AND closed_by_hand_us IS NULL
    ORDER BY alert.id
""")
_IS_EXPIRED = text("""
    SELECT EXISTS (SELECT 1 FROM shelf WHERE ended_us IS NULL AND until_us <= :now_us)
        OR EXISTS (SELECT 1 FROM maintenance WHERE ended_us IS NULL AND to_us <= :now_us)
""")
_RELEASE = text("""
    UPDATE alert SET suppressed_by = :after
    WHERE id = :id AND suppressed_by = :before AND state <> 'closed' AND closed_by_hand_us IS NULL
""")


_CLOSED_BY_HAND = text("""
    SELECT alert.id FROM alert
    WHERE state <> 'closed' AND closed_by_hand_us IS NOT NULL AND EXISTS (
        SELECT 1 FROM notified WHERE channel IN :channels AND (
            subject = 'alert ' || CAST(alert.id AS TEXT) OR (
                subject = 'incident ' || CAST(incident_id AS TEXT) AND NOT EXISTS (
                    SELECT 1 FROM alert AS other
                    WHERE other.incident_id = alert.incident_id AND other.state <> 'closed'
                        AND other.closed_by_hand_us IS NULL AND other.suppressed_by IS NULL
                )
            )
        )
    )
    ORDER BY alert.id
""").bindparams(bindparam("channels", expanding=True))


class Release(NamedTuple):
    """An alert with another reason to be suppressed, or none."""

    alert_id: int
    before: str
    after: str | None
    """None = it is notified from now on."""


def is_due(connection: Connection, channels: Sequence[Channel], now_us: int) -> bool:
    """Return True if `release` would change something."""
    if connection.execute(_IS_EXPIRED, {"now_us": now_us}).scalar_one() or find(connection, now_us):
        return True
    return bool(_closed_by_hand(connection, channels))


def _closed_by_hand(connection: Connection, channels: Sequence[Channel]) -> list[int]:
    """Return the alerts closed by hand of which a channel knows the beginning and not the end."""
    names = [channel.name for channel in channels]
    return list(connection.execute(_CLOSED_BY_HAND, {"channels": names}).scalars()) if names else []


def find(connection: Connection, now_us: int) -> list[Release]:
    """Return the open alerts that are suppressed by something that is over."""
    rows = connection.execute(_SUPPRESSED).all()
    if not rows:
        return []
    in_force = shelves.active(connection, now_us)
    known = subjects.some(connection, [row.id for row in rows])
    found = []
    for row in rows:
        subject = known[row.id]
        at_us = now_us if row.end_us is None else row.end_us
        windows = maintenance_windows.at(connection, at_us)
        after = None
        is_calm = row.end_us is None or row.end_us - row.opened_us > life.flap_us(row.span_us)
        if row.is_flapping and not is_calm:
            after = life.FLAPPING
        if shelves.covering(in_force, subject) is not None:
            after = life.SHELF
        # Only an alert that opened in maintenance: one that fired before stays as it is.
        if row.suppressed_by == life.MAINTENANCE and maintenance_windows.covering(
            windows, subject.fleet, subject.asset, at_us
        ):
            after = life.MAINTENANCE
        if after != row.suppressed_by:
            found.append(Release(row.id, row.suppressed_by, after))
    return found


def release(connection: Connection, channels: Sequence[Channel], now_us: int) -> list[int]:
    """End shelves and windows in time, and notify alerts that still fire. Return the ids of these alerts."""
    shelves.end_expired(connection, now_us)
    maintenance_windows.end_expired(connection, now_us)
    released = []
    for each in find(connection, now_us):
        changed = connection.execute(_RELEASE, {"id": each.alert_id, "before": each.before, "after": each.after})
        if changed.rowcount == 1 and each.after is None:
            outbox.write_step(connection, channels, each.alert_id, "again", now_us)
            released.append(each.alert_id)
    for alert_id in _closed_by_hand(connection, channels):
        outbox.write_step(connection, channels, alert_id, "closed", now_us)
    return released
