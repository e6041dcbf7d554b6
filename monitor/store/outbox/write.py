"""The notifications of an alert's change, written in the transaction of the change.

Input: a change that the pipeline found, or a step that follows from an operator's act. Output: rows of `outbox`, one
for each channel that is notified. These steps are notified:

    firing     the alert opened, critical or not
    critical   its severity rose from warning to critical
    closed     it closed, or was closed by hand
    worse      it has become much worse since it was acknowledged
    reopened   it fired again after it was closed by hand
    again      it is still firing, and its shelf, the maintenance or the flapping ended. Not to machines that know it
    flapping   alerts of its asset come and go: further ones are not notified to people

Recovering, and firing again after it, are not sent: an alert that flaps for an hour would notify for an hour.

A channel for machines gets each alert by itself. A channel for people gets an incident: one notification for its first
alert, one when it becomes critical, and one when none of its alerts is open. Nobody is notified of an alert that is
shelved, in maintenance or closed by hand. The end of an alert goes only where its beginning went (table `notified`).
Machines get that end even while the alert is shelved: their own alert would stay open for ever.

Invariant: the key of a notification consists of channel, alert and step. An alert of class `process` is its fleet,
asset and opening time, one of class `sensor` its kind, partition, opening time and subject, any other its kind,
partition, first offset and subject. Notifications of an incident have the alert that it was first notified of. A step
that may happen twice has its time, and its own alert.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from sqlalchemy import bindparam, text

from monitor.store import alerts, life
from monitor.store.outbox import bodies
from monitor.store.outbox.send import DUE_NOW_US
from monitor.types import AlertState, Severity

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Connection

    from monitor.store.outbox.channel import Channel
    from monitor.types import AlertChange, DataAlertChange

ONCE = ("firing", "critical", "closed")
"""Steps that an alert has at most once, unless an operator's act begins it anew."""
FLAPPING = "flapping"
"""Cause of suppression, and step. It keeps people from a flood. Machines count, so they get every alert."""

_NOTIFIED = text("""
    SELECT channel, subject, key, suffix, severity FROM notified WHERE subject IN (:alert, :incident)
""")
_PUT_NOTIFIED = text("""
    INSERT INTO notified (channel, subject, key, suffix, severity, at_us)
    VALUES (:channel, :subject, :key, :suffix, :severity, :at_us)
    ON CONFLICT (channel, subject) DO UPDATE
    SET key = excluded.key, suffix = excluded.suffix, severity = excluded.severity
""")
_FORGET = text("DELETE FROM notified WHERE channel = :channel AND subject = :subject")
_OTHER_OPEN = text("""
    SELECT 1 FROM alert
    WHERE incident_id = :incident_id AND closed_us IS NULL AND id <> :id AND state <> 'closed'
        AND suppressed_by IS NULL AND closed_by_hand_us IS NULL AND class IN :classes
    LIMIT 1
""").bindparams(bindparam("classes", expanding=True))
_PUT = text("""
    INSERT INTO outbox (dedup_key, channel, body, severity, created_us, next_try_us)
    VALUES (:dedup_key, :channel, :body, :severity, :created_us, :next_try_us)
""")


def write_change(
    connection: Connection,
    channels: Sequence[Channel],
    asset_id: int,
    change: AlertChange,
    at_us: int,
    worse: float = life.WORSE,
    in_force: life.InForce | None = None,
) -> None:
    """Write one change of an alert of class `process`, and its notifications.

    `at_us`: processing time. `worse`: `[fleet.alerts] worse`. `in_force`: of this transaction, if it writes more.
    """
    written = alerts.write_change(connection, asset_id, change, at_us)
    effect = life.apply(connection, written, change, at_us, worse, in_force)
    _notify_change(connection, channels, written.id, change, _step(change, written.severity_before), effect, at_us)


def write_data_change(
    connection: Connection,
    channels: Sequence[Channel],
    change: DataAlertChange,
    at_us: int,
    in_force: life.InForce | None = None,
) -> None:
    """Write one change of an alert of class `data` or `sensor`, and its notifications: that it opened, and closed."""
    written = alerts.write_data_change(connection, change, at_us)
    effect = life.apply(connection, written, change, at_us, in_force=in_force)
    step = None
    if change.is_transition:
        step = "closed" if change.state is AlertState.CLOSED else "firing"
    _notify_change(connection, channels, written.id, change, step, effect, at_us)


def write_step(connection: Connection, channels: Sequence[Channel], alert_id: int, step: str, at_us: int) -> None:
    """Write the notifications of a step that follows from an operator's act: `again`, `closed`, … `at_us`: now.

    `again` and the others go to every channel that wants the alert. `closed` goes where its beginning went.
    """
    row = bodies.alert_row(connection, alert_id)
    subject = _Subject(connection, row, at_us)
    for channel in channels:
        facts = (row["class"], row["fleet"], row["severity"], (row["opened_us"], at_us))
        is_history = channel.max_age_us is not None and row["opened_us"] < channel.first_started_us
        if step == "closed" or (channel.covers(*facts) and not is_history):
            subject.notify(channel, step, at_us)


def _step(change: AlertChange, severity_before: str | None) -> str | None:
    """Return the step that a change makes by itself."""
    if severity_before is None:
        return "firing"
    if change.state is AlertState.CLOSED:
        return "closed"
    return "critical" if change.severity is Severity.CRITICAL and severity_before != Severity.CRITICAL else None


def _notify_change(
    connection: Connection,
    channels: Sequence[Channel],
    alert_id: int,
    change: AlertChange | DataAlertChange,
    step: str | None,
    effect: life.Effect,
    at_us: int,
) -> None:
    steps = [*([step] if step else []), *effect.steps]
    if not channels or not steps:
        return
    subject = _Subject(connection, bodies.alert_row(connection, alert_id), at_us)
    for channel in channels:
        is_suppressed = effect.suppressed_by is not None and (
            channel.by_incident or effect.suppressed_by != FLAPPING
        )
        is_wanted = channel.wants(change) and channel.is_recent(change, at_us)
        for each in steps:
            if each == "closed" and is_suppressed and channel.by_incident:
                subject.forget(channel)
            elif each == "closed" or (is_wanted and not is_suppressed) or (is_wanted and each == FLAPPING):
                subject.notify(channel, each, change.at_us)


class _Notified(NamedTuple):
    """The notification that an alert or incident began with, in one channel."""

    key: str
    """Of the alert that it was about."""
    suffix: str
    """Of the steps that follow: the alert had begun before, and its own steps may be used up."""
    severity: str
    """The highest that was notified."""


@dataclass(slots=True)
class _Subject:
    """An alert and its incident, and the channels that were notified of them."""

    connection: Connection
    row: dict[str, Any]
    at_us: int
    """Processing time."""
    _begun: dict[tuple[str, str], _Notified] = field(init=False)
    _is_open: dict[tuple[str, ...], bool] = field(default_factory=dict)
    """By classes: whether another alert of the incident is open."""

    def __post_init__(self) -> None:
        subjects = {"alert": self._name(by_incident=False), "incident": self._name(by_incident=True)}
        rows = self.connection.execute(_NOTIFIED, subjects)
        self._begun = {(channel, subject): _Notified(*rest) for channel, subject, *rest in rows}

    def notify(self, channel: Channel, step: str, step_us: int) -> None:
        """Write the notification of a step, if the channel gets it. `step_us`: time of the step."""
        name = self._name(by_incident=channel.by_incident)
        begun = self._begun.get((channel.name, name))
        if step == "closed":
            if begun is not None and not self._others_open(channel):
                self._put(channel, begun, "closed", step_us)
                self.forget(channel)
            return
        if not channel.by_incident and (step == FLAPPING or (step == "again" and begun is not None)):
            return  # machines get each alert, and one that they know to be firing is no news
        if begun is not None and channel.by_incident and step in ("firing", "critical"):
            if step == "firing" and not self._others_open(channel):
                begun = None  # all that was notified is over or shelved: this alert is news
            elif self.row["severity"] != Severity.CRITICAL or begun.severity == Severity.CRITICAL:
                return  # the incident was notified, and has not become worse
            else:
                step = "critical"
        repeated = "" if step in ONCE else f".{step_us}"
        if begun is None:
            begun = _Notified(bodies.alert_key(self.row), repeated, self.row["severity"])
        worst = max(begun.severity, self.row["severity"], key=lambda each: each == Severity.CRITICAL)
        self._put(channel, begun._replace(severity=worst), step, step_us, repeated)
        self._remember(channel, begun._replace(severity=worst))

    def forget(self, channel: Channel) -> None:
        """Forget that a channel was notified: the alert or the incident is over there."""
        name = self._name(by_incident=channel.by_incident)
        if (channel.name, name) in self._begun and not self._others_open(channel):
            self.connection.execute(_FORGET, {"channel": channel.name, "subject": name})
            del self._begun[channel.name, name]

    def _name(self, *, by_incident: bool) -> str:
        incident = self.row["incident_id"]
        return f"incident {incident}" if by_incident and incident is not None else f"alert {self.row['id']}"

    def _others_open(self, channel: Channel) -> bool:
        """Return whether another alert of the incident is open that the channel cares about."""
        if not channel.by_incident or self.row["incident_id"] is None:
            return False
        classes = tuple(str(each) for each in channel.classes)
        if classes not in self._is_open:
            values = {"incident_id": self.row["incident_id"], "id": self.row["id"], "classes": list(classes)}
            self._is_open[classes] = self.connection.execute(_OTHER_OPEN, values).first() is not None
        return self._is_open[classes]

    def _remember(self, channel: Channel, begun: _Notified) -> None:
        name = self._name(by_incident=channel.by_incident)
        values = {"channel": channel.name, "subject": name, "at_us": self.at_us}
        self.connection.execute(_PUT_NOTIFIED, values | begun._asdict())
        self._begun[channel.name, name] = begun

    def _put(self, channel: Channel, begun: _Notified, step: str, step_us: int, repeated: str | None = None) -> None:
        # Two alerts of an incident may take the same step at the same moment: a repeated step has its own alert's key.
        alert_key, suffix = (bodies.alert_key(self.row), repeated) if repeated else (begun.key, begun.suffix)
        key = f"{channel.name}:{alert_key}:{step}{suffix}"
        body = {"key": key} | bodies.body(self.row, step, step_us)
        row = {
            "dedup_key": key,
            "channel": channel.name,
            "body": bodies.encode(body),
            "severity": begun.severity,
            "created_us": self.at_us,
            "next_try_us": DUE_NOW_US,
        }
        self.connection.execute(_PUT, row)
