"""The outbox: notifications of alerts, written in the transaction that changes the alert and sent afterwards.

    channel.py    a recipient and the changes it wants
    write.py      a change of an alert → a notification for each channel that wants it. Read this first
    bodies.py     an alert → the payload of its notifications
    send.py       the queries of the sender, which works under a lease: due rows, attempts, outcomes
    digest.py     many notifications of one channel → one
    context.py    facts for people, read when a notification is sent

Input: an alert's change, of any class, inside its commit. Output: notifications, which `monitor.notify` sends.
Invariant: a notification is written once under its key, in the transaction of the change. No part of a key is generated
by the database, so the same records lead to the same key in any retry, rebuild or restored backup.
"""

from __future__ import annotations

from monitor.store.outbox.channel import Channel
from monitor.store.outbox.context import Context, context_of, start_attempt_in_context, still_firing
from monitor.store.outbox.digest import digest_waiting, take_earlier
from monitor.store.outbox.send import (
    ABANDONED_US,
    DUE_NOW_US,
    LEASE,
    MAX_WAIT_US,
    MAX_WAITING_READ,
    OUTCOME_UNKNOWN,
    Notification,
    abandon_unknown,
    count_waiting,
    make_due,
    mark_delivered,
    mark_failed,
    next_due,
    prune,
    start_attempt,
)
from monitor.store.outbox.write import write_change, write_data_change, write_step

__all__ = [
    "ABANDONED_US",
    "DUE_NOW_US",
    "LEASE",
    "MAX_WAITING_READ",
    "MAX_WAIT_US",
    "OUTCOME_UNKNOWN",
    "Channel",
    "Context",
    "Notification",
    "abandon_unknown",
    "context_of",
    "count_waiting",
    "digest_waiting",
    "make_due",
    "mark_delivered",
    "mark_failed",
    "next_due",
    "prune",
    "start_attempt",
    "start_attempt_in_context",
    "still_firing",
    "take_earlier",
    "write_change",
    "write_data_change",
    "write_step",
]
