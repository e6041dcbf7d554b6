"""The outbox: what people are to be told, written in the transaction that made it true, and sent afterwards.

Enters: an alert's change, of either class, inside its save. Leaves: letters, one for each channel that wants to know;
`monitor.notify` sends them. People are told of three steps of an alert, each of which comes at most once in its life:

    firing     it opened; also if it is critical from the start
    critical   its peak rose to critical since
    closed     it is over

Recovering, and firing again after it, are not sent: an alert that wavers for an hour would ring the phone for an hour.

Law: channel, fleet, asset, opening time and step are the letter's key; of an alert of class `data`, channel, kind,
partition, first offset and step. None of them is a number that the database gave out, so the same records lead to the
same key on any retry, rebuild or restored backup. A key is written once: a clash is a broken invariant.
"""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import quote

import msgspec
from sqlalchemy import bindparam, text

from monitor.clock import from_us
from monitor.store import alerts, leases
from monitor.types import AlertState, Severity

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from sqlalchemy import Connection

    from monitor.types import AlertChange, DataAlertChange

LEASE = "outbox"
"""Who holds it sends; everybody may write."""
AT_ONCE_US = 0
"""`next_try_us` of a new letter. Not the writer's time: the sender may have another clock."""
GIVEN_UP_US = 2**62
"""`next_try_us` of a letter that is not tried any more; `error` says why."""
LONGEST_WAIT_US = 3_600_000_000
"""The longest pause between two tries. A letter that waits for longer was written by a clock that has been set back."""
NO_OUTCOME = "the sender stopped, or lost the database, while a try was under way"
"""`error` from the beginning of a try to its end. Who finds it there knows that the letter may have arrived."""
WAITING_SEEN = 500
"""Letters of a channel looked at: so many alerts may fail on their own before one holds up the next."""


@dataclass(frozen=True, slots=True)
class Channel:
    """Somebody to tell, and of what."""

    name: str
    min_severity: Severity = Severity.WARNING
    fleets: Sequence[str] = ("*",)
    """Names or globs."""
    max_age_us: int | None = None
    """From an event to our knowledge of it: what took longer is history, not news. None = all is news."""

    def wants(self, change: AlertChange | DataAlertChange) -> bool:
        """Say whether this change is for this channel. What befell all of a partition is for every channel."""
        is_grave = self.min_severity is Severity.WARNING or change.severity is Severity.CRITICAL
        return is_grave and (change.fleet is None or any(fnmatchcase(change.fleet, each) for each in self.fleets))

    def takes_for_news(self, change: AlertChange | DataAlertChange, at_us: int) -> bool:
        """Say whether this change is recent enough, for somebody who learns of it at `at_us`."""
        return self.max_age_us is None or at_us - change.at_us <= self.max_age_us


class Letter(NamedTuple):
    """A row that waits."""

    key: str
    """The same for every try."""
    created_us: int
    attempts: int
    """Tries begun so far."""
    next_try_us: int
    error: str | None
    """What the last try met."""

    @property
    def alert(self) -> str:
        """The key without its step: letters of one alert go out in order."""
        return self.key.rpartition(":")[0]


# ---------------------------------------------------------------- write, inside a save

_BEFORE = text("""
    SELECT asset.name AS asset, alert.severity FROM asset
    LEFT JOIN alert ON alert.asset_id = asset.id AND alert.opened_us = :opened_us
    WHERE asset.id = :asset_id
""")
_PUT = text("""
    INSERT INTO outbox (dedup_key, channel, body, created_us, next_try_us)
    VALUES (:dedup_key, :channel, :body, :created_us, :next_try_us)
""")


def apply(connection: Connection, channels: Sequence[Channel], asset_id: int, change: AlertChange, at_us: int) -> None:
    """Write one step of an alert's life (`alerts.apply`), and to whom it is news.

    `at_us`: processing time.
    """
    if not channels:
        alerts.apply(connection, asset_id, change)
        return
    before = connection.execute(_BEFORE, {"asset_id": asset_id, "opened_us": change.opened_us}).one()
    alert_id = alerts.apply(connection, asset_id, change)
    names = _wanting(channels, change, at_us)
    if names and (step := _step(change, before.severity)) is not None:
        story = f"{change.fleet}/{quote(before.asset, safe='/:')}:{change.opened_us}:{step}"
        _put(connection, names, story, _body(alert_id, before.asset, step, change), at_us)


def apply_data(connection: Connection, channels: Sequence[Channel], change: DataAlertChange, at_us: int) -> None:
    """The same for an alert of class `data`: people are told that it opened, and that it is over."""
    alert_id = alerts.apply_data(connection, change)
    names = _wanting(channels, change, at_us)
    if names and change.is_transition:
        step = "closed" if change.state is AlertState.CLOSED else "firing"
        story = f"data:{change.kind}/{change.partition}:{change.from_offset}:{step}"
        _put(connection, names, story, _body_of_data(alert_id, step, change), at_us)


def _wanting(channels: Sequence[Channel], change: AlertChange | DataAlertChange, at_us: int) -> list[str]:
    return [each.name for each in channels if each.wants(change) and each.takes_for_news(change, at_us)]


def _put(connection: Connection, names: Sequence[str], story: str, body: dict[str, Any], at_us: int) -> None:
    rows = [
        {
            "dedup_key": f"{name}:{story}",
            "channel": name,
            "body": msgspec.json.encode({"key": f"{name}:{story}"} | body).decode(),
            "created_us": at_us,
            "next_try_us": AT_ONCE_US,
        }
        for name in names
    ]
    connection.execute(_PUT, rows)


def _step(change: AlertChange, severity_before: str | None) -> str | None:
    """Name the step that people are told of; None = they are not."""
    if severity_before is None:
        return "firing"
    if change.state is AlertState.CLOSED:
        return "closed"
    return "critical" if change.severity is Severity.CRITICAL and severity_before != Severity.CRITICAL else None


def _body(alert_id: int, asset: str, step: str, change: AlertChange) -> dict[str, Any]:
    """The names of `monitor alerts list --json`, where there is the same fact; `text` is what chats show."""
    says = {"firing": "is anomalous", "critical": "is critically anomalous", "closed": "is normal again"}[step]
    worst = max(change.contributions, key=lambda sensor: sensor.share, default=None)
    most = f", most of it {worst.name}'s" if worst else ""
    opened = f"{from_us(change.opened_us):%Y-%m-%d %H:%M} UTC"
    return {
        "step": step,
        "text": f"{asset} ({change.fleet}) {says}: alert {alert_id} since {opened}, score up to "
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
        "peak_score": change.peak_score,
        "peak_at": from_us(change.peak_us),
        "n_anomalous": change.n_anomalous,
        "sensors": change.contributions,
        "version": change.version,
    }


def _body_of_data(alert_id: int, step: str, change: DataAlertChange) -> dict[str, Any]:
    """The same names; what only an asset has is null."""
    is_over = change.state is AlertState.CLOSED
    return {
        "step": step,
        "text": f"{change.partition}: {change.kind}, alert {alert_id} {'is over' if is_over else 'opened'}. "
        f"{change.message}",
        "id": alert_id,
        "class": "data",
        "kind": change.kind,
        "fleet": change.fleet,
        "asset": None,
        "topic": change.partition.topic,
        "partition": change.partition.number,
        "from_offset": change.from_offset,
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


# ---------------------------------------------------------------- send

_WAITING = text("""
    SELECT dedup_key, created_us, attempts, next_try_us, error FROM outbox
    WHERE channel = :channel AND delivered_us IS NULL AND next_try_us < :given_up_us ORDER BY id LIMIT :n
""")
_BEGIN = text("""
    UPDATE outbox SET attempts = attempts + 1, error = :error WHERE dedup_key = :key AND delivered_us IS NULL
    RETURNING body
""")
_DELIVERED = text("""
    UPDATE outbox SET delivered_us = :at_us, error = NULL WHERE dedup_key = :key AND delivered_us IS NULL
""")
_FAILED = text("""
    UPDATE outbox SET next_try_us = :next_try_us, error = :error WHERE dedup_key = :key AND delivered_us IS NULL
""")
_RESUME = text("""
    UPDATE outbox SET next_try_us = :at_once_us
    WHERE channel = :channel AND delivered_us IS NULL AND next_try_us < :given_up_us
""")


def next_due(connection: Connection, channel: str, now_us: int) -> Letter | None:
    """Return the channel's oldest letter that is due and has no elder of its own alert waiting."""
    values = {"channel": channel, "given_up_us": GIVEN_UP_US, "n": WAITING_SEEN}
    held: set[str] = set()
    for row in connection.execute(_WAITING, values):
        letter = Letter(*row)
        if letter.alert not in held and not now_us < letter.next_try_us <= now_us + LONGEST_WAIT_US:
            return letter
        held.add(letter.alert)
    return None


def begin(connection: Connection, epoch: int, key: str) -> str | None:
    """Count a try, before it is made, and return what to send; None = it was delivered meanwhile.

    Raises Fenced when the lease is over: then it is another daemon's to send. One that slept for long learns it here.
    """
    leases.check(connection, LEASE, epoch)
    body: str | None = connection.execute(_BEGIN, {"key": key, "error": NO_OUTCOME}).scalar_one_or_none()
    return body


def delivered(connection: Connection, key: str, at_us: int) -> None:
    """Write down that it arrived.

    Under no lease: it is a fact, whoever learnt it, and withheld it would only make the next holder send again.
    """
    connection.execute(_DELIVERED, {"key": key, "at_us": at_us})


def failed(connection: Connection, epoch: int, key: str, error: str, next_try_us: int) -> None:
    """Write down what a try met, and when to try again: at a time, or GIVEN_UP_US. Raises Fenced."""
    leases.check(connection, LEASE, epoch)
    connection.execute(_FAILED, {"key": key, "error": error, "next_try_us": next_try_us})


def resume(connection: Connection, channel: str) -> None:
    """The channel answers again: what waited for it is due now."""
    values = {"channel": channel, "at_once_us": AT_ONCE_US, "given_up_us": GIVEN_UP_US}
    connection.execute(_RESUME, values)


# ---------------------------------------------------------------- keep tidy

_PRUNE = text("""
    DELETE FROM outbox
    WHERE delivered_us < :before_us OR (delivered_us IS NULL AND next_try_us = :given_up_us AND created_us < :before_us)
""")
_FORSAKE = text("""
    UPDATE outbox SET next_try_us = :given_up_us, error = 'the configuration names this channel no more'
    WHERE delivered_us IS NULL AND next_try_us < :given_up_us AND created_us < :before_us AND channel NOT IN :channels
    RETURNING dedup_key
""").bindparams(bindparam("channels", expanding=True))


def prune(connection: Connection, before_us: int) -> int:
    """Remove letters that were delivered before `before_us`, and those given up that are as old; return how many."""
    return connection.execute(_PRUNE, {"before_us": before_us, "given_up_us": GIVEN_UP_US}).rowcount


def forsake(connection: Connection, channels: Iterable[str], before_us: int) -> list[str]:
    """Give up letters older than `before_us` to channels other than these; return their keys."""
    values = {"channels": list(channels), "before_us": before_us, "given_up_us": GIVEN_UP_US}
    return list(connection.execute(_FORSAKE, values).scalars())
