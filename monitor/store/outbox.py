"""The outbox: notifications of alerts, written in the transaction that changes the alert and sent afterwards.

Input: an alert's change, of either class, inside its commit. Output: notifications, one for each channel that wants the
change, which `monitor.notify` sends. Three steps of an alert are notified, each at most once per alert:

    firing     it opened, critical or not
    critical   its severity rose from warning to critical
    closed     it closed

Recovering, and firing again after it, are not sent: an alert that flaps for an hour would notify for an hour.

Invariant: the key of a notification consists of channel, fleet, asset, opening time and step. In class `data` it is
channel, kind, partition, first offset and step, in class `sensor` the opening time as well. No part of it is generated
by the database, so the same records lead to the same key in any retry, rebuild or restored backup. A key is written
once. Writing it again raises.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import quote

import msgspec
from sqlalchemy import bindparam, text

from monitor.clock import from_us
from monitor.printable import escape_json, escape_unprintable
from monitor.store import alerts, leases, life
from monitor.store.queries.backend import number
from monitor.types import AlertClass, AlertState, Severity

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from sqlalchemy import Connection

    from monitor.types import AlertChange, DataAlertChange

LEASE = "outbox"
"""Lease of the only daemon that sends. Every daemon writes."""
DUE_NOW_US = 0
"""`next_try_us` of a new notification. Not the writer's time: the sender may have another clock."""
ABANDONED_US = 2**62
"""`next_try_us` of a notification that is not tried any more. `error` states the reason."""
MAX_WAIT_US = 3_600_000_000
"""The longest pause between two attempts. A longer one was written by a clock that has been set back: it is due."""
OUTCOME_UNKNOWN = "the sender stopped, or lost the database, while a try was under way"
"""`error` during an attempt. Found at the next attempt, it means that the notification may have arrived."""
MAX_WAITING_READ = 500
"""Waiting notifications read per channel. More failing ones than this delay those of other alerts."""


@dataclass(frozen=True, slots=True)
class Channel:
    """A recipient of notifications, and the changes it wants."""

    name: str
    min_severity: Severity = Severity.WARNING
    fleets: Sequence[str] = ("*",)
    """Names or globs."""
    max_age_us: int | None = None
    """Longest delay from an event to its processing. A later change, as in a catch-up over old records, is not sent.
    None = every change is sent.
    """
    first_started_us: int = 0
    """First start of a daemon on this database. Alerts that opened earlier in event time are history, found by the
    first start: they are stored and not sent, unless every change is.
    """

    def wants(self, change: AlertChange | DataAlertChange) -> bool:
        """Return True if severity and fleet match. A change of a whole partition matches every channel's fleets."""
        is_severe = self.min_severity is Severity.WARNING or change.severity is Severity.CRITICAL
        return is_severe and (change.fleet is None or any(fnmatchcase(change.fleet, each) for each in self.fleets))

    def is_recent(self, change: AlertChange | DataAlertChange, at_us: int) -> bool:
        """Return True if the change, processed at `at_us`, is recent enough to be sent."""
        if self.max_age_us is None:
            return True
        return change.opened_us >= self.first_started_us and at_us - change.at_us <= self.max_age_us


class Notification(NamedTuple):
    """A row that waits to be sent."""

    key: str
    """The same for every attempt."""
    created_us: int
    attempts: int
    """Attempts started so far."""
    next_try_us: int
    error: str | None
    """Outcome of the last attempt."""

    @property
    def alert_key(self) -> str:
        """The key without its step: notifications of one alert are sent in order."""
        return self.key.rpartition(":")[0]


# ---------------------------------------------------------------- write, inside a commit

_BEFORE = text("""
    SELECT asset.name AS asset, alert.severity FROM asset
    LEFT JOIN alert ON alert.asset_id = asset.id AND alert.opened_us = :opened_us
    WHERE asset.id = :asset_id
""")
_PUT = text("""
    INSERT INTO outbox (dedup_key, channel, body, created_us, next_try_us)
    VALUES (:dedup_key, :channel, :body, :created_us, :next_try_us)
""")


def write_change(
    connection: Connection, channels: Sequence[Channel], asset_id: int, change: AlertChange, at_us: int
) -> None:
    """Write one change of an alert of class `process`, and its notifications. `at_us`: processing time."""
    before = None
    if channels:
        before = connection.execute(_BEFORE, {"asset_id": asset_id, "opened_us": change.opened_us}).one()
    alert_id = alerts.write_change(connection, asset_id, change)
    effect = life.apply(connection, alert_id, change, at_us)
    if before is None or effect.suppressed_by is not None:
        return
    names = _recipients(channels, change, at_us)
    if names and (step := _step(change, before.severity)) is not None:
        event = f"{change.fleet}/{quote(before.asset, safe='/:')}:{change.opened_us}:{step}"
        _put(connection, names, event, _body(alert_id, before.asset, step, change), at_us)


def write_data_change(
    connection: Connection, channels: Sequence[Channel], change: DataAlertChange, at_us: int
) -> None:
    """Write one change of an alert of class `data` or `sensor`. Notify that it opened, and that it closed."""
    alert_id = alerts.write_data_change(connection, change)
    effect = life.apply(connection, alert_id, change, at_us)
    if effect.suppressed_by is not None:
        return
    names = _recipients(channels, change, at_us)
    if names and change.is_transition:
        step = "closed" if change.state is AlertState.CLOSED else "firing"
        subject = f":{quote(change.subject, safe='/:')}" if change.subject else ""
        # The opening time tells two faults of one sensor in one record apart.
        opened = f":{change.opened_us}" if change.alert_class is AlertClass.SENSOR else ""
        name = f"{change.kind}/{change.partition}:{change.from_offset}{subject}{opened}"
        event = f"{change.alert_class}:{name}:{step}"
        _put(connection, names, event, _data_body(alert_id, step, change), at_us)


def _recipients(channels: Sequence[Channel], change: AlertChange | DataAlertChange, at_us: int) -> list[str]:
    return [each.name for each in channels if each.wants(change) and each.is_recent(change, at_us)]


def _put(connection: Connection, names: Sequence[str], event: str, body: dict[str, Any], at_us: int) -> None:
    rows = [
        {
            "dedup_key": f"{name}:{event}",
            "channel": name,
            "body": escape_json(msgspec.json.encode({"key": f"{name}:{event}"} | body).decode()),
            "created_us": at_us,
            "next_try_us": DUE_NOW_US,
        }
        for name in names
    ]
    connection.execute(_PUT, rows)


def _step(change: AlertChange, severity_before: str | None) -> str | None:
    """Return the step that is notified. None = the change is not notified."""
    if severity_before is None:
        return "firing"
    if change.state is AlertState.CLOSED:
        return "closed"
    return "critical" if change.severity is Severity.CRITICAL and severity_before != Severity.CRITICAL else None


def _body(alert_id: int, asset: str, step: str, change: AlertChange) -> dict[str, Any]:
    """Return the payload, with the keys of `monitor alerts list --json` for the same facts. Chats show `text`."""
    verb = {"firing": "is anomalous", "critical": "is critically anomalous", "closed": "is normal again"}[step]
    worst = max(change.contributions, key=lambda sensor: sensor.share, default=None)
    most = f", most of it {escape_unprintable(worst.name)}'s" if worst else ""
    opened = f"{from_us(change.opened_us):%Y-%m-%d %H:%M} UTC"
    return {
        "step": step,
        "text": f"{escape_unprintable(asset)} ({change.fleet}) {verb}: alert {alert_id} since {opened}, score up to "
        f"{change.peak_score:.1f} where 1.0 is the threshold{most}",
        "id": alert_id,
        "class": "process",
        "fleet": change.fleet,
        "asset": asset,
        "state": change.state,
        "severity": change.severity,
        "opened_at": from_us(change.opened_us),
        "closed_at": from_us(change.at_us) if change.state is AlertState.CLOSED else None,
        "at": from_us(change.at_us),
        "peak_score": number(change.peak_score),
        "peak_at": from_us(change.peak_us),
        "n_anomalous": change.n_anomalous,
        "sensors": [
            replace(each, share=number(each.share) or 0.0, expected=number(each.expected), actual=number(each.actual))
            for each in change.contributions
        ],
        "version": change.version,
    }


def _data_body(alert_id: int, step: str, change: DataAlertChange) -> dict[str, Any]:
    """Return the payload of class `data` or `sensor`, with the same keys. Facts that only an asset has are null."""
    is_over = change.state is AlertState.CLOSED
    place = str(change.partition)
    if change.alert_class is AlertClass.SENSOR:
        place = f"{escape_unprintable(change.asset or '')} ({change.fleet})" if change.asset else str(change.fleet)
    return {
        "step": step,
        "text": f"{place}: {change.kind}, alert {alert_id} {'is over' if is_over else 'opened'}. "
        f"{escape_unprintable(change.message)}",
        "id": alert_id,
        "class": change.alert_class,
        "kind": change.kind,
        "fleet": change.fleet,
        "asset": change.asset,
        "sensor": change.sensor,
        "topic": change.partition.topic,
        "partition": change.partition.number,
        "from_offset": change.from_offset,
        "subject": change.subject or None,
        "n_records": change.n_records,
        "message": change.message,
        "state": change.state,
        "severity": change.severity,
        "opened_at": from_us(change.opened_us),
        "closed_at": from_us(change.at_us) if is_over else None,
        "at": from_us(change.at_us),
        "peak_score": None,
        "peak_at": None,
        "n_anomalous": None,
        "sensors": [],
        "version": None,
    }


# ---------------------------------------------------------------- send, under the lease

_WAITING = text("""
    SELECT dedup_key, created_us, attempts, next_try_us, error FROM outbox
    WHERE channel = :channel AND delivered_us IS NULL AND next_try_us < :abandoned_us ORDER BY id LIMIT :n
""")
_START_ATTEMPT = text("""
    UPDATE outbox SET attempts = attempts + 1, error = :error WHERE dedup_key = :key AND delivered_us IS NULL
    RETURNING body
""")
_DELIVERED = text("""
    UPDATE outbox SET delivered_us = :at_us, error = NULL WHERE dedup_key = :key AND delivered_us IS NULL
""")
_FAILED = text("""
    UPDATE outbox SET next_try_us = :next_try_us, error = :error WHERE dedup_key = :key AND delivered_us IS NULL
""")
_MAKE_DUE = text("""
    UPDATE outbox SET next_try_us = :due_now_us
    WHERE channel = :channel AND delivered_us IS NULL AND next_try_us < :abandoned_us
""")


def next_due(connection: Connection, channel: str, now_us: int) -> Notification | None:
    """Return the channel's oldest notification that is due and has no earlier one of its own alert waiting."""
    values = {"channel": channel, "abandoned_us": ABANDONED_US, "n": MAX_WAITING_READ}
    held_up: set[str] = set()
    for row in connection.execute(_WAITING, values):
        waiting = Notification(*row)
        if waiting.alert_key not in held_up and not now_us < waiting.next_try_us <= now_us + MAX_WAIT_US:
            return waiting
        held_up.add(waiting.alert_key)
    return None


def start_attempt(connection: Connection, epoch: int, key: str) -> str | None:
    """Count an attempt before it is made, and return the payload. None = it was delivered meanwhile.

    Raises Fenced when the lease is lost, as after a long suspension: then another daemon sends.
    """
    leases.check(connection, LEASE, epoch)
    body: str | None = connection.execute(_START_ATTEMPT, {"key": key, "error": OUTCOME_UNKNOWN}).scalar_one_or_none()
    return body


def mark_delivered(connection: Connection, key: str, at_us: int) -> None:
    """Store that the notification arrived, with or without the lease: otherwise its next holder sends again."""
    connection.execute(_DELIVERED, {"key": key, "at_us": at_us})


def mark_failed(connection: Connection, epoch: int, key: str, error: str, next_try_us: int) -> None:
    """Store the outcome of an attempt and the time of the next one, or ABANDONED_US. Raises Fenced."""
    leases.check(connection, LEASE, epoch)
    connection.execute(_FAILED, {"key": key, "error": error, "next_try_us": next_try_us})


def make_due(connection: Connection, channel: str) -> None:
    """Make all waiting notifications of a channel due now, because the channel answers again."""
    connection.execute(_MAKE_DUE, {"channel": channel, "due_now_us": DUE_NOW_US, "abandoned_us": ABANDONED_US})


# ---------------------------------------------------------------- maintenance

_PRUNE = text("""
    DELETE FROM outbox
    WHERE delivered_us < :before_us
        OR (delivered_us IS NULL AND next_try_us = :abandoned_us AND created_us < :before_us)
""")
_ABANDON_UNKNOWN = text("""
    UPDATE outbox SET next_try_us = :abandoned_us, error = 'the configuration names this channel no more'
    WHERE delivered_us IS NULL AND next_try_us < :abandoned_us AND created_us < :before_us AND channel NOT IN :channels
    RETURNING dedup_key
""").bindparams(bindparam("channels", expanding=True))


def prune(connection: Connection, before_us: int) -> int:
    """Delete notifications delivered before `before_us`, and abandoned ones created before it. Return their number."""
    return connection.execute(_PRUNE, {"before_us": before_us, "abandoned_us": ABANDONED_US}).rowcount


def abandon_unknown(connection: Connection, channels: Iterable[str], before_us: int) -> list[str]:
    """Abandon notifications to channels other than these, created before `before_us`. Return their keys."""
    values = {"channels": list(channels), "before_us": before_us, "abandoned_us": ABANDONED_US}
    return list(connection.execute(_ABANDON_UNKNOWN, values).scalars())
