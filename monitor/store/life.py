"""Consequences of an alert's change for the answers that operators gave: acknowledgement, shelf, maintenance, incident.

Input: a change that was written in this transaction, or the act of an operator. Output: what notifications must know of
it. Invariant: the pipeline's own columns of the alert are never changed here, so an operator's act changes neither
scores nor digests.

- An *acknowledgement* ends with its alert, and when the alert becomes much worse (`[fleet.alerts] worse`). An alert
  that recovers and fires again is the same episode: it stays acknowledged.
- An alert *closed by hand* opens again when it fires again, or becomes much worse.
- An alert that fires inside a *maintenance* window, by event time, is suppressed until it closes or the window ends.
  One that fired before goes on, but what happens to it in the window is not notified.
- A *shelf* suppresses the alerts that it covers.
- An asset *flaps* from its fifth alert within `FLAP_US` (or two window lengths, if that is more) until no alert opened
  for that long. So does a sensor from its fifth alert of one kind. The fifth is notified as flapping, and the others
  are suppressed, except an asset's first critical one.

Closing is notified to channels that were told of the alert, suppressed or not.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from sqlalchemy import text

from monitor.clock import from_us
from monitor.errors import WrongState
from monitor.printable import escape_unprintable
from monitor.store import acts, incidents, maintenance_windows, shelves
from monitor.store.matching import Subject, blamed
from monitor.types import Act, AlertChange, AlertClass, AlertState, Severity

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from monitor.store.acts import Actor
    from monitor.store.alerts import Written
    from monitor.store.matching import Window
    from monitor.types import DataAlertChange

WORSE = 2.0
"""Default of `[fleet.alerts] worse`."""
FLAP_US = 3_600_000_000
"""Time, in event time, within which an asset flaps by its alerts …"""
N_FLAPS = 5
"""… if so many opened."""
SHELF, MAINTENANCE, FLAPPING = "shelf", "maintenance", "flapping"


class Effect(NamedTuple):
    """Consequences of one change of an alert."""

    suppressed_by: str | None = None
    """shelf, maintenance, closed, flapping: the change is not notified. None = not suppressed."""
    incident_id: int | None = None
    steps: tuple[str, ...] = ()
    """Further steps to notify, also if the change itself is suppressed: `worse` (much worse than at its
    acknowledgement), `reopened`, `flapping`."""


# ---------------------------------------------------------------- the pipeline's changes


class InForce:
    """Shelves and maintenance windows in force, read when first needed, once in a transaction.

    A flood of alerts would else read them for each of its alerts.
    """

    def __init__(self, connection: Connection, now_us: int) -> None:
        self._connection = connection
        self._now_us = now_us
        self._shelves: list[shelves.Shelf] | None = None
        self._windows: dict[int, list[Window]] = {}

    def end_shelves(self, subject: Subject, *, is_new: bool, is_closed: bool) -> bool:
        """End the shelves that an alert's change ends. Return whether the alert is covered by one that goes on."""
        if self._shelves is None:
            self._shelves = shelves.active(self._connection, self._now_us)
        if not self._shelves:
            return False
        self._shelves, is_covered = shelves.end_by_alert(
            self._connection, self._shelves, subject, is_new=is_new, is_closed=is_closed, now_us=self._now_us
        )
        return is_covered

    def has_maintenance(self, fleet: str | None, asset: str | None, at_us: int) -> bool:
        """Return whether an asset is in maintenance at an event time."""
        if at_us not in self._windows:
            self._windows[at_us] = maintenance_windows.at(self._connection, at_us)
        return maintenance_windows.covering(self._windows[at_us], fleet, asset, at_us) is not None


def apply(
    connection: Connection,
    written: Written,
    change: AlertChange | DataAlertChange,
    at_us: int,
    worse: float = WORSE,
    in_force: InForce | None = None,
) -> Effect:
    """Apply a change that was written just now. `at_us`: processing time. `worse`: `[fleet.alerts] worse`.

    `in_force`: of this transaction. A change of an alert without answers, incident or transition costs no statement.
    """
    in_force = in_force or InForce(connection, at_us)
    if written.is_new:
        return _open(connection, written, change, in_force)
    steps = _answer(connection, written, change, at_us, worse)
    suppressed_by = written.suppressed_by
    rises = change.severity is Severity.CRITICAL and written.severity_before != Severity.CRITICAL
    if suppressed_by == SHELF:
        is_closed = change.state is AlertState.CLOSED
        in_force.end_shelves(_subject(written, change), is_new=False, is_closed=is_closed)
    elif suppressed_by == FLAPPING and rises and not _is_in_maintenance(in_force, written, change) and (
        _is_first_critical(connection, written.id, change)
    ):
        connection.execute(_LIFT, {"id": written.id})
        suppressed_by = None
    elif suppressed_by is None and (rises or steps) and _is_in_maintenance(in_force, written, change):
        suppressed_by = MAINTENANCE
    if rises and written.incident_id is not None:
        incidents.raise_severity(connection, written.incident_id)
    if suppressed_by is not None:
        steps = ()
    elif written.closed_by_hand_us is not None and "reopened" not in steps:
        suppressed_by = "closed"
    return Effect(suppressed_by, written.incident_id, steps)


def _open(
    connection: Connection, written: Written, change: AlertChange | DataAlertChange, in_force: InForce
) -> Effect:
    """Apply the change that opened an alert."""
    steps: tuple[str, ...] = ()
    is_flapping, suppressed_by = False, None
    is_flapping, has_begun = _flaps(connection, written, change)
    if is_flapping:
        suppressed_by, steps = FLAPPING, ("flapping",) if has_begun else ()
        is_critical = change.severity is Severity.CRITICAL
        if is_critical and not has_begun and _is_first_critical(connection, written.id, change):
            suppressed_by = None
    subject = _subject(written, change)
    if in_force.end_shelves(subject, is_new=True, is_closed=False):
        suppressed_by, steps = SHELF, ()
    if _is_in_maintenance(in_force, written, change):
        suppressed_by, steps = MAINTENANCE, ()
    incident_id = incidents.join(connection, change.fleet, change.opened_us, change.at_us, change.severity)
    values = {"id": written.id, "suppressed_by": suppressed_by, "is_flapping": is_flapping}
    connection.execute(_OPENED, values | {"incident_id": incident_id})
    return Effect(suppressed_by, incident_id, steps)


_OPENED = text("""
    UPDATE alert SET suppressed_by = :suppressed_by, is_flapping = :is_flapping, incident_id = :incident_id
    WHERE id = :id
""")
_UNACKNOWLEDGE = text("""
    UPDATE alert SET acknowledged_by = NULL, acknowledged_us = NULL, acknowledged_peak = NULL WHERE id = :id
""")
_REOPEN = text("""
    UPDATE alert SET closed_by_hand_us = NULL, acknowledged_peak = NULL
    WHERE id = :id AND closed_by_hand_us IS NOT NULL
""")


def _answer(
    connection: Connection, written: Written, change: AlertChange | DataAlertChange, at_us: int, worse: float
) -> tuple[str, ...]:
    """End an acknowledgement, or a closing by hand, that the change refutes. Return the steps to notify."""
    steps: tuple[str, ...] = ()
    if change.state is AlertState.CLOSED:
        if written.acknowledged_by is not None:
            _unacknowledge(connection, written, at_us, "the alert closed")
    elif written.acknowledged_by is not None:
        if (why := _worse(written, change, worse)) is not None:
            _unacknowledge(connection, written, at_us, why)
            steps = ("worse",)
    elif written.closed_by_hand_us is not None:
        fires = change.state is AlertState.FIRING and change.is_transition
        why = "it fires again" if fires else _worse(written, change, worse)
        if why is not None:
            connection.execute(_REOPEN, {"id": written.id})
            if written.incident_id is not None:
                incidents.reopen(connection, written.incident_id)
            acts.record(connection, Act.REOPEN, acts.MONITOR, at_us, alert_id=written.id, note=why)
            steps = ("reopened",)
    if change.state is AlertState.CLOSED and written.incident_id is not None:
        incidents.close_if_over(connection, written.incident_id, change.at_us)
    return steps


def _worse(written: Written, change: AlertChange | DataAlertChange, worse: float) -> str | None:
    """Return why an alert is much worse than at the answer to it, or None."""
    before = written.acknowledged_peak
    if not isinstance(change, AlertChange) or before is None or change.peak_score < worse * before:
        return None
    return f"worse: peak {change.peak_score:.2f} after {before:.2f}"


def _unacknowledge(connection: Connection, written: Written, at_us: int, why: str) -> None:
    connection.execute(_UNACKNOWLEDGE, {"id": written.id})
    acts.record(connection, Act.UNACKNOWLEDGE, acts.MONITOR, at_us, alert_id=written.id, note=why)


_FLAPS = text("""
    SELECT opened_us, is_flapping FROM alert
    WHERE asset_id = (SELECT asset_id FROM alert WHERE id = :id) AND opened_us < :opened_us AND opened_us > :since_us
    ORDER BY opened_us DESC LIMIT :n
""")


def flap_us(span_us: int | None) -> int:
    """Return the time within which alerts make an asset flap. `span_us`: length of its windows."""
    return max(FLAP_US, 2 * (span_us or 0))


_SENSOR_FLAPS = text("""
    SELECT opened_us, is_flapping FROM alert
    WHERE class = 'sensor' AND topic = :topic AND partition = :partition AND kind = :kind AND subject = :subject
        AND opened_us < :opened_us AND opened_us > :since_us
    ORDER BY opened_us DESC LIMIT :n
""")


def _flaps(connection: Connection, written: Written, change: AlertChange | DataAlertChange) -> tuple[bool, bool]:
    """Return whether the asset, or the sensor of an asset, flaps, and whether that begins with this alert."""
    since_us = change.opened_us - flap_us(written.span_us)
    values = {"opened_us": change.opened_us, "since_us": since_us, "n": N_FLAPS - 1}
    if isinstance(change, AlertChange):
        if written.former_us is None or written.former_us <= since_us:
            return False, False
        before = connection.execute(_FLAPS, values | {"id": written.id}).all()
    elif change.alert_class is AlertClass.SENSOR:
        place = {"topic": change.partition.topic, "partition": change.partition.number}
        before = connection.execute(
            _SENSOR_FLAPS, values | place | {"kind": change.kind, "subject": change.subject}
        ).all()
    else:
        return False, False
    if before and before[0].is_flapping:
        return True, False
    return len(before) == N_FLAPS - 1, True


_CRITICAL = text("""
    SELECT COUNT(*) FROM alert
    WHERE asset_id = :asset_id AND id <> :id AND is_flapping AND severity = 'critical' AND opened_us > (
        SELECT COALESCE(MAX(opened_us), 0) FROM alert WHERE asset_id = :asset_id AND NOT is_flapping
    )
""")
_ASSET = text("SELECT asset_id FROM alert WHERE id = :id")
_LIFT = text("UPDATE alert SET suppressed_by = NULL WHERE id = :id")


def _is_first_critical(connection: Connection, alert_id: int, change: AlertChange | DataAlertChange) -> bool:
    """Return whether an alert of an asset is the first critical one since the asset flaps."""
    if not isinstance(change, AlertChange):
        return False
    asset_id = connection.execute(_ASSET, {"id": alert_id}).scalar_one()
    return not connection.execute(_CRITICAL, {"id": alert_id, "asset_id": asset_id}).scalar_one()


def _is_in_maintenance(in_force: InForce, written: Written, change: AlertChange | DataAlertChange) -> bool:
    return in_force.has_maintenance(change.fleet, written.asset, change.at_us)


def _subject(written: Written, change: AlertChange | DataAlertChange) -> Subject:
    if isinstance(change, AlertChange):
        sensors = blamed(change.onset, change.contributions)
        return Subject(written.id, change.fleet, written.asset, sensors, change.peak_score, change.opened_us)
    sensors = () if change.sensor is None else (change.sensor,)
    return Subject(written.id, change.fleet, written.asset, sensors, None, change.opened_us)


# ---------------------------------------------------------------- operators' acts


_ACKNOWLEDGE = text("""
    UPDATE alert SET acknowledged_by = :by, acknowledged_us = :now_us, acknowledged_peak = peak_score
    WHERE id = :id AND state <> 'closed' AND closed_by_hand_us IS NULL AND acknowledged_by IS NULL
""")
_TAKE_BACK = text("""
    UPDATE alert SET acknowledged_by = NULL, acknowledged_us = NULL, acknowledged_peak = NULL
    WHERE id = :id AND state <> 'closed' AND acknowledged_by IS NOT NULL
""")
_CLOSE = text("""
    UPDATE alert SET acknowledged_by = NULL, acknowledged_us = NULL, acknowledged_peak = peak_score,
        closed_by_hand_us = (
            SELECT COALESCE(MAX(CASE WHEN last_window.end_us > alert.updated_us THEN last_window.end_us END),
                alert.updated_us)
            FROM last_window WHERE last_window.asset_id = alert.asset_id
        )
    WHERE id = :id AND state <> 'closed' AND closed_by_hand_us IS NULL
    RETURNING closed_by_hand_us
""")
_SHELVES_OF = text("SELECT id FROM shelf WHERE alert_id = :id AND ended_us IS NULL")


def acknowledge(connection: Connection, alert_id: int, note: str, actor: Actor, now_us: int) -> None:
    """Acknowledge an open alert. Raises NotFound, WrongState."""
    note = acts.clean_note(note)
    alert = acts.alert_row(connection, alert_id)
    by = escape_unprintable(actor.name)[: acts.MAX_ACTOR] or "unknown"
    if connection.execute(_ACKNOWLEDGE, {"id": alert_id, "by": by, "now_us": now_us}).rowcount != 1:
        alert = acts.alert_row(connection, alert_id)
        alert.check_open(alert_id)
        at = from_us(alert.acknowledged_us or 0)
        raise WrongState(f"alert {alert_id} was acknowledged by {alert.acknowledged_by} at {at:%Y-%m-%d %H:%M} UTC")
    acts.record(connection, Act.ACKNOWLEDGE, actor, now_us, alert_id=alert_id, fleet=alert.fleet, asset=alert.asset,
                note=note)  # fmt: skip


def unacknowledge(connection: Connection, alert_id: int, note: str, actor: Actor, now_us: int) -> None:
    """Take an acknowledgement back. Raises NotFound, WrongState."""
    note = acts.clean_note(note)
    alert = acts.alert_row(connection, alert_id)
    if connection.execute(_TAKE_BACK, {"id": alert_id}).rowcount != 1:
        acts.alert_row(connection, alert_id).check_open(alert_id)
        raise WrongState(f"alert {alert_id} is not acknowledged")
    acts.record(connection, Act.UNACKNOWLEDGE, actor, now_us, alert_id=alert_id, fleet=alert.fleet, asset=alert.asset,
                note=note)  # fmt: skip


def close(connection: Connection, alert_id: int, reason: str, actor: Actor, now_us: int) -> None:
    """Close an alert by hand. Its acknowledgement and its shelves end. Raises NotFound, WrongState, ConfigError."""
    reason = acts.clean_reason(reason)
    alert = acts.alert_row(connection, alert_id)
    incidents.lock(connection, [alert.fleet])
    at_us = connection.execute(_CLOSE, {"id": alert_id}).scalar_one_or_none()
    if at_us is None:
        acts.alert_row(connection, alert_id).check_open(alert_id)
        raise WrongState(f"alert {alert_id} cannot be closed now; ask again")
    acts.record(connection, Act.CLOSE, actor, now_us, alert_id=alert_id, fleet=alert.fleet, asset=alert.asset,
                note=reason)  # fmt: skip
    for shelf_id in connection.execute(_SHELVES_OF, {"id": alert_id}).scalars().all():
        shelves.end(connection, shelf_id, "the alert was closed by hand", acts.MONITOR, now_us)
    if alert.incident_id is not None:
        incidents.close_if_over(connection, alert.incident_id, at_us)
