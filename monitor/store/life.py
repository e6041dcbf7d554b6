"""Consequences of an alert's change for the answers that operators gave: acknowledgement, shelf, maintenance, incident.

Input: a change that was written in this transaction. Output: what notifications must know of it. Invariant: the
pipeline's own columns of the alert are never changed here, so an operator's act changes neither scores nor digests.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from monitor.types import AlertChange, DataAlertChange


class Effect(NamedTuple):
    """Consequences of one change of an alert."""

    suppressed_by: str | None = None
    """shelf, maintenance, closed, flapping: nobody is notified. None = not suppressed."""
    incident_id: int | None = None
    is_first_of_incident: bool = True
    """Whether the incident was opened by this alert."""
    steps: tuple[str, ...] = ()
    """Further steps to notify: `worse` (much worse than at its acknowledgement), `reopened`, `flapping`."""


def apply(connection: Connection, alert_id: int, change: AlertChange | DataAlertChange, at_us: int) -> Effect:  # noqa: ARG001
    """Apply a change that was written just now. `at_us`: processing time."""
    return Effect()
