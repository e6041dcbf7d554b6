"""The history: acts on alerts, with name, time and origin.

Input: an act inside its transaction. Output: a row of `act`. Invariant: rows are only added, by the transaction that
acts, so the history is complete. `at_us` is processing time.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, NamedTuple

from sqlalchemy import text

from monitor.clock import from_us
from monitor.errors import ConfigError, NotFound, WrongState
from monitor.printable import escape_unprintable

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sqlalchemy import Connection

    from monitor.types import Act

MAX_NOTE = 1000
"""Characters of a note or reason."""
MAX_ACTOR = 128


class Actor(NamedTuple):
    """The person who acts, and the way in which."""

    name: str
    via: str
    """cli, console, api, link."""


MONITOR = Actor("monitor", "daemon")
"""monitor itself: an answer ended by its own rule."""

_PUT = text("""
    INSERT INTO act (at_us, actor, via, act, alert_id, fleet, asset, note, detail)
    VALUES (:at_us, :actor, :via, :act, :alert_id, :fleet, :asset, :note, :detail)
""")


def record(
    connection: Connection,
    act: Act,
    actor: Actor,
    at_us: int,
    *,
    alert_id: int | None = None,
    fleet: str | None = None,
    asset: str | None = None,
    note: str = "",
    detail: Mapping[str, object] | None = None,
) -> None:
    """Add a row to the history."""
    values = {
        "at_us": at_us,
        "actor": clean_name(actor),
        "via": actor.via,
        "act": str(act),
        "alert_id": alert_id,
        "fleet": fleet,
        "asset": asset,
        "note": note,
        "detail": None if detail is None else json.dumps(detail),
    }
    connection.execute(_PUT, values)


def clean_name(actor: Actor) -> str:
    """Return the actor's name as the history keeps it."""
    return escape_unprintable(actor.name)[:MAX_ACTOR] or "unknown"


def clean_note(text_: str) -> str:
    """Return a note that is safe to show. Raises ConfigError for one that is too long."""
    note = escape_unprintable(text_.strip().replace("\r\n", "\n"), keep="\n")
    if len(note) > MAX_NOTE:
        raise ConfigError(f"the note has {len(note):,} characters; use at most {MAX_NOTE:,}")
    return note


def clean_reason(text_: str) -> str:
    """Return a reason that is safe to show. Raises ConfigError for one that is empty or too long."""
    reason = clean_note(text_)
    if not reason:
        raise ConfigError("a reason is needed: say it for those who come later")
    return reason


# ---------------------------------------------------------------- the alert that an act is about

MAX_ID = 2**31 - 1
_STATE = text("""
    SELECT alert.class, alert.state, alert.closed_us, closed_by_hand_us, acknowledged_by, acknowledged_us,
        COALESCE(asset.fleet, alert.fleet) AS fleet, COALESCE(asset.name, alert.asset_name) AS asset, incident_id,
        label, label_note
    FROM alert LEFT JOIN asset ON asset.id = alert.asset_id WHERE alert.id = :id
""")


class AlertRow(NamedTuple):
    """The facts of an alert on which acts depend."""

    alert_class: str
    state: str
    closed_us: int | None
    closed_by_hand_us: int | None
    acknowledged_by: str | None
    acknowledged_us: int | None
    fleet: str | None
    asset: str | None
    incident_id: int | None
    label: str | None
    label_note: str | None

    def check_open(self, alert_id: int) -> None:
        """Raise WrongState for an alert that is closed."""
        if self.closed_by_hand_us is not None:
            raise WrongState(f"alert {alert_id} was closed by hand; it opens by itself if it fires again")
        if self.closed_us is not None:
            at = f"{from_us(self.closed_us):%Y-%m-%d %H:%M} UTC"
            raise WrongState(f"alert {alert_id} closed by itself at {at}; a closed alert can only be labelled")


def alert_row(connection: Connection, alert_id: int) -> AlertRow:
    """Return the facts of an alert. Raises NotFound."""
    row = connection.execute(_STATE, {"id": alert_id}).one_or_none() if abs(alert_id) <= MAX_ID else None
    if row is None:
        raise NotFound(f"alert {alert_id}; monitor alerts list shows their numbers")
    return AlertRow(*row)
