"""Many waiting notifications of one channel, sent as one: after an outage, a flood, or quiet hours.

Input: the waiting notifications of a channel for people. Output: a notification of its own, the digest, which counts
them and lists their alerts, those still open first. Invariant: a digest is written under the lease in one transaction
with the rows that it takes. Its key is made of theirs, and a row is taken by one digest only.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from typing import TYPE_CHECKING, Any

from sqlalchemy import bindparam, text

from monitor.clock import from_us
from monitor.printable import escape_unprintable
from monitor.store import leases
from monitor.store.outbox import bodies
from monitor.store.outbox.send import ABANDONED_US, DUE_NOW_US, LEASE, Notification
from monitor.store.queries.backend import number
from monitor.types import AlertState, Severity
from monitor.wording import count

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Connection

MAX_LISTED = 20
"""Alerts that a digest names. It counts the others."""
MAX_TAKEN = 10_000
"""Notifications of one digest."""
STEP = "digest"

_WAITING = text("""
    SELECT dedup_key, body, severity FROM outbox
    WHERE channel = :channel AND delivered_us IS NULL AND digest_key IS NULL AND next_try_us < :abandoned_us
        AND dedup_key NOT LIKE :digests
    ORDER BY id LIMIT :n
""")
# By their keys: another daemon may have committed further ones since they were read.
_TAKE = text("""
    UPDATE outbox SET digest_key = :digest_key
    WHERE dedup_key IN :keys AND delivered_us IS NULL AND digest_key IS NULL
""").bindparams(bindparam("keys", expanding=True))
_COUNT_OLD = text("""
    SELECT COUNT(*) FROM outbox
    WHERE channel = :channel AND delivered_us IS NULL AND digest_key IS NULL AND next_try_us < :abandoned_us
        AND created_us <= :until_us AND dedup_key NOT LIKE :digests
""")
_PUT = text("""
    INSERT INTO outbox (dedup_key, channel, body, severity, created_us, next_try_us)
    VALUES (:dedup_key, :channel, :body, :severity, :created_us, :next_try_us)
""")


def digest_waiting(
    connection: Connection, epoch: int, channel: str, why: str, at_least: int, until_us: int, now_us: int
) -> int:
    """Replace the waiting notifications by one, if `at_least` so many were written until `until_us`.

    Return their number, or 0. `why`: reason for people. Raises Fenced.
    """
    values = {"channel": channel, "abandoned_us": ABANDONED_US, "digests": f"%:{STEP}"}
    if connection.execute(_COUNT_OLD, values | {"until_us": until_us}).scalar_one() < at_least:
        return 0
    leases.check(connection, LEASE, epoch)
    rows = connection.execute(_WAITING, values | {"n": MAX_TAKEN}).all()
    digest = hashlib.sha256("\n".join(row.dedup_key for row in rows).encode()).hexdigest()[:24]
    key = f"{channel}:{digest}:{STEP}"
    severity = Severity.CRITICAL if any(row.severity == Severity.CRITICAL for row in rows) else Severity.WARNING
    body = {"key": key} | _body(connection, [json.loads(row.body) for row in rows], why, severity, now_us)
    connection.execute(
        _PUT,
        {
            "dedup_key": key,
            "channel": channel,
            "body": bodies.encode(body),
            "severity": severity,
            "created_us": now_us,
            "next_try_us": DUE_NOW_US,
        },
    )
    connection.execute(_TAKE, {"digest_key": key, "keys": [row.dedup_key for row in rows]})
    return len(rows)


_EARLIER = text("""
    SELECT dedup_key FROM outbox
    WHERE channel = :channel AND delivered_us IS NULL AND digest_key IS NULL AND next_try_us < :abandoned_us
        AND id < (SELECT id FROM outbox WHERE dedup_key = :key)
""")


def take_earlier(connection: Connection, epoch: int, channel: str, later: Notification) -> None:
    """Let a notification that overtakes earlier ones of its alert replace them. Raises Fenced.

    They would say at the end of quiet hours that an alert fires which has closed.
    """
    values = {"channel": channel, "abandoned_us": ABANDONED_US, "key": later.key}
    waiting = [Notification(key, 0, 0, 0, None) for key in connection.execute(_EARLIER, values).scalars()]
    if keys := [each.key for each in waiting if each.alert_key == later.alert_key]:
        leases.check(connection, LEASE, epoch)
        connection.execute(_TAKE, {"digest_key": later.key, "keys": keys})


def _body(
    connection: Connection, taken: Sequence[dict[str, Any]], why: str, severity: Severity, now_us: int
) -> dict[str, Any]:
    ids = dict.fromkeys(body["id"] for body in taken)  # in the order of their first notification
    rows = [bodies.alert_row(connection, alert_id) for alert_id in ids]
    alerts = [alert_facts(row) for row in rows]
    still_open = [each for each in alerts if each["state"] != AlertState.CLOSED]
    still_open.sort(key=lambda each: (each["severity"] != Severity.CRITICAL, -(each["peak_score"] or 0.0)))
    closed = [each for each in alerts if each["state"] == AlertState.CLOSED]
    steps = Counter(body["step"] for body in taken)
    counts = f"{count(len(still_open), 'alert')} still open, {len(closed)} closed"
    return {
        "step": STEP,
        "text": f"{len(taken)} notifications {why}: {counts}",
        "severity": severity,
        "at": from_us(now_us),
        "n_notifications": len(taken),
        "steps": dict(steps),
        "n_open": len(still_open),
        "n_closed": len(closed),
        "alerts": (still_open + closed)[:MAX_LISTED],
    }


def alert_facts(row: dict[str, Any]) -> dict[str, Any]:
    """Return an alert in one line of a list."""
    closed_us = row["closed_us"] if row["closed_us"] is not None else row["closed_by_hand_us"]
    about = row["asset"] or row["fleet"] or f"{row['topic']}/{row['partition']}"
    return {
        "id": row["id"],
        "class": row["class"],
        "kind": row["kind"],
        "fleet": row["fleet"],
        "about": escape_unprintable(about),
        "state": row["state"] if closed_us is None else AlertState.CLOSED,
        "severity": row["severity"],
        "opened_at": from_us(row["opened_us"]),
        "closed_at": None if closed_us is None else from_us(closed_us),
        "peak_score": number(row["peak_score"]),
    }
