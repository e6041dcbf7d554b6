"""Facts around a notification that its stored payload lacks, read when it is sent.

Input: a payload. Output: the key of links, the alerts of an incident that is over, and the evidence. Invariant: read in
the transaction that counts the attempt, so a message tells the state of one moment.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from sqlalchemy import text

from monitor.store import links
from monitor.store.outbox import bodies
from monitor.store.outbox.digest import MAX_LISTED, alert_facts
from monitor.store.outbox.send import start_attempt
from monitor.store.queries.backend import iso
from monitor.store.queries.evidence import CARD, CHUNKS
from monitor.types import AlertClass

if TYPE_CHECKING:
    from sqlalchemy import Connection

MAX_REPEATED = 2_000
"""Firing alerts of a channel that are posted again and again."""

_CHUNKS, _CARD = text(CHUNKS), text(CARD)
_OF_INCIDENT = text("SELECT id FROM alert WHERE incident_id = :id ORDER BY opened_us, id LIMIT :n")
_BEGUN = text("""
    SELECT subject FROM notified WHERE channel = :channel AND subject LIKE :alerts ORDER BY at_us DESC LIMIT :n
""")


@dataclass(frozen=True, slots=True)
class Context:
    """Facts for readers of a notification."""

    link_key: bytes
    alerts: list[dict[str, Any]] = field(default_factory=list)
    """Of the incident, if it is over."""
    alert: dict[str, Any] | None = None
    """The alert as `explain.sentence` takes it. None = there is nothing to explain."""
    chunks: list[bytes] = field(default_factory=list)
    """Of its evidence."""
    card: str | None = None
    """Of the version that scored it."""


def start_attempt_in_context(connection: Connection, epoch: int, key: str) -> tuple[str, Context] | None:
    """Count an attempt as `start_attempt` does. Return the payload and its context, or None. Raises Fenced."""
    body = start_attempt(connection, epoch, key)
    return None if body is None else (body, context_of(connection, json.loads(body)))


def context_of(connection: Connection, body: dict[str, Any]) -> Context:
    """Return the context of a payload."""
    alerts: list[dict[str, Any]] = []
    incident = body.get("incident")
    if incident is not None and body["step"] == "closed":
        ids = connection.execute(_OF_INCIDENT, {"id": incident, "n": MAX_LISTED}).scalars().all()
        alerts = [alert_facts(bodies.alert_row(connection, alert_id)) for alert_id in ids]
    key = links.key(connection)
    if body.get("class") != AlertClass.PROCESS:
        return Context(key, alerts)
    row = bodies.alert_row(connection, body["id"])
    alert = {
        "sensors": json.loads(row["sensors"]),
        "clearing": None if row["clearing"] is None else json.loads(row["clearing"]),
        "opened_at": iso(row["opened_us"]),
    }
    chunks = [bytes(chunk) for chunk in connection.execute(_CHUNKS, {"id": row["id"]}).scalars()]
    card = connection.execute(_CARD, {"id": row["id"]}).scalar_one_or_none() if chunks else None
    return Context(key, alerts, alert, chunks, card)


def still_firing(connection: Connection, channel: str) -> list[tuple[str, Context]]:
    """Return payloads of the alerts that a channel was notified of and that are still open and not suppressed."""
    values = {"channel": channel, "alerts": "alert %", "n": MAX_REPEATED}
    found, context = [], Context(links.key(connection))
    for subject in connection.execute(_BEGUN, values).scalars().all():
        row = bodies.alert_row(connection, int(subject.removeprefix("alert ")))
        if row["closed_us"] is None and row["closed_by_hand_us"] is None and row["suppressed_by"] in (None, "flapping"):
            body = bodies.body(row, "firing", row["updated_us"])
            found.append((bodies.encode(body), context))
    return found
