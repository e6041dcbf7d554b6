"""The sender's queries of the outbox: due rows, attempts and their outcomes, under a lease.

Input: the name of a channel, the epoch of the lease. Output: notifications to send. Invariant: an attempt is counted
before it is made, and only by the holder of the lease. The notifications of one alert are sent in order. One that a
digest has taken is not sent by itself, and shares the outcome of the digest.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from sqlalchemy import bindparam, text

from monitor.store import leases

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sqlalchemy import Connection

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


_WAITING = text("""
    SELECT dedup_key, created_us, attempts, next_try_us, error FROM outbox
    WHERE channel = :channel AND delivered_us IS NULL AND digest_key IS NULL AND next_try_us < :abandoned_us
        AND (severity = 'critical' OR :holds_warnings = 0)
    ORDER BY id LIMIT :n
""")
_START_ATTEMPT = text("""
    UPDATE outbox SET attempts = attempts + 1, error = :error WHERE dedup_key = :key AND delivered_us IS NULL
    RETURNING body
""")
_DELIVERED = text("""
    UPDATE outbox SET delivered_us = :at_us, error = NULL
    WHERE (dedup_key = :key OR digest_key = :key) AND delivered_us IS NULL
""")
_FAILED = text("""
    UPDATE outbox SET next_try_us = :next_try_us, error = :error WHERE dedup_key = :key AND delivered_us IS NULL
""")
_ABANDON_TAKEN = text("""
    UPDATE outbox SET next_try_us = :abandoned_us, error = :error WHERE digest_key = :key AND delivered_us IS NULL
""")
_MAKE_DUE = text("""
    UPDATE outbox SET next_try_us = :due_now_us
    WHERE channel = :channel AND delivered_us IS NULL AND next_try_us < :abandoned_us
""")


def next_due(
    connection: Connection, channel: str, now_us: int, holds_warnings: bool = False
) -> Notification | None:
    """Return the channel's oldest notification that is due and has no earlier one of its own alert waiting.

    `holds_warnings`: only critical ones, because it is quiet now.
    """
    values = {
        "channel": channel, "abandoned_us": ABANDONED_US, "n": MAX_WAITING_READ, "holds_warnings": int(holds_warnings),
    }  # fmt: skip
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
    if next_try_us == ABANDONED_US:
        connection.execute(_ABANDON_TAKEN, {"key": key, "error": error, "abandoned_us": ABANDONED_US})


def make_due(connection: Connection, channel: str) -> None:
    """Make all waiting notifications of a channel due now, because the channel answers again."""
    connection.execute(_MAKE_DUE, {"channel": channel, "due_now_us": DUE_NOW_US, "abandoned_us": ABANDONED_US})


_COUNT_WAITING = text("""
    SELECT COUNT(*) FROM outbox
    WHERE channel = :channel AND delivered_us IS NULL AND digest_key IS NULL AND next_try_us < :abandoned_us
""")


def count_waiting(connection: Connection, channel: str) -> int:
    """Return the number of notifications that wait to be sent to a channel."""
    values = {"channel": channel, "abandoned_us": ABANDONED_US}
    return int(connection.execute(_COUNT_WAITING, values).scalar_one())


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
_FORGET_UNKNOWN = text("DELETE FROM notified WHERE at_us < :before_us AND channel NOT IN :channels").bindparams(
    bindparam("channels", expanding=True)
)


def prune(connection: Connection, before_us: int) -> int:
    """Delete notifications delivered before `before_us`, and abandoned ones created before it. Return their number."""
    return connection.execute(_PRUNE, {"before_us": before_us, "abandoned_us": ABANDONED_US}).rowcount


def abandon_unknown(connection: Connection, channels: Iterable[str], before_us: int) -> list[str]:
    """Abandon notifications to channels other than these, created before `before_us`. Return their keys."""
    values = {"channels": list(channels), "before_us": before_us, "abandoned_us": ABANDONED_US}
    connection.execute(_FORGET_UNKNOWN, values)
    return list(connection.execute(_ABANDON_UNKNOWN, values).scalars())
