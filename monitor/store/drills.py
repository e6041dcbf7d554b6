"""Stored drills, and the alert `drill_failed` of class `data` that a bad one opens.

Input: the document of a drill and its problem. Output: a row of `model_check`, and the change of the fleet's alert, in
one transaction under the lease. Invariant: a fleet has at most one open alert of this kind, and a repeated call changes
nothing. The next good drill closes it.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from sqlalchemy import text

from monitor.store import leases, outbox, registry
from monitor.types import AlertState, DataAlertChange, ModelCheckKind, Partition, Severity

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sqlalchemy import Connection

    from monitor.store.outbox import Channel
    from monitor.store.registry import ModelCheck

DRILL_FAILED = "drill_failed"
BASELINE_AGE_US = 14 * 24 * 3_600_000_000
"""Age up to which a drill of another version is a baseline. A loss that lasts longer is the new normal."""

_IS_STORED = text("""
    SELECT 1 FROM model_check JOIN model_version ON model_version.id = version_id
    WHERE kind = 'drill' AND version = :version AND at_us = :at_us
""")
_OPEN = text("""
    SELECT topic, partition, from_offset, opened_us, severity, message FROM alert
    WHERE class = 'data' AND kind = :kind AND subject = :fleet AND state <> 'closed'
""")
_LAST_ALERT = text("""
    SELECT MAX(from_offset) FROM alert WHERE topic = :topic AND partition = 0 AND kind = :kind AND subject = :fleet
""")
_NEXT_OFFSET = text("""
    SELECT next_offset FROM source_partition WHERE topic = :topic AND partition = 0 AND pipeline = :pipeline
""")


def baseline(connection: Connection, fleet: str, version: str, at_us: int) -> ModelCheck | None:
    """Return the drill that a drill of this version is compared with. None = there is none.

    The first one of the version itself that had no problem, or else the last one of the versions before it.
    """
    good = [each for each in registry.checks(connection, ModelCheckKind.DRILL, fleet) if each.problem is None]
    if own := [each for each in good if each.version == version]:
        return own[-1]
    recent = [each for each in good if at_us - int(each.at.timestamp() * 1e6) <= BASELINE_AGE_US]
    return recent[0] if recent else None


def record(
    connection: Connection,
    document: Mapping[str, Any],
    *,
    problem: str | None,
    severity: Severity = Severity.WARNING,
    message: str = "",
    topic: str,
    pipeline: str,
    at_us: int,
    requested_by: str,
    lease: tuple[str, int] | None = None,
    channels: Sequence[Channel] = (),
) -> list[DataAlertChange]:
    """Store a drill, open or close the alert of its fleet, and return the change.

    `problem`, `message`: None = it passed, or one sentence, and the alert's message. `topic`: the fleet's first.
    Raises Fenced, and NotFound for a version that is not in the registry.
    """
    if lease is not None:
        leases.check(connection, *lease)
    fleet, version = str(document["fleet"]), str(document["version"])
    if connection.execute(_IS_STORED, {"version": version, "at_us": at_us}).one_or_none() is not None:
        return []
    registry.record_check(
        connection, ModelCheckKind.DRILL, version, at_us=at_us, requested_by=requested_by, problem=problem,
        result=document,
    )  # fmt: skip
    known = _open_alert(connection, fleet)
    if problem is None:
        changes = [] if known is None else [_closed(known, at_us)]
    elif known is None:
        changes = [_opened(fleet, topic, _from_offset(connection, fleet, topic, pipeline), at_us, severity, message)]
    else:
        changes = [replace(known, at_us=max(at_us, known.opened_us), message=message, is_transition=False)]
    for change in changes:
        outbox.write_data_change(connection, channels, change, at_us)
    return changes


def _open_alert(connection: Connection, fleet: str) -> DataAlertChange | None:
    row = connection.execute(_OPEN, {"kind": DRILL_FAILED, "fleet": fleet}).first()
    if row is None:
        return None
    opened = _opened(fleet, row.topic, row.from_offset, row.opened_us, Severity(row.severity), row.message)
    return replace(opened, partition=Partition(row.topic, row.partition))


def _from_offset(connection: Connection, fleet: str, topic: str, pipeline: str) -> int:
    """Return the offset of the next record, or a later one: no two alerts of a fleet have the same."""
    values = {"topic": topic, "pipeline": pipeline, "kind": DRILL_FAILED, "fleet": fleet}
    last = connection.execute(_LAST_ALERT, values).scalar_one_or_none()
    following = connection.execute(_NEXT_OFFSET, values).scalar_one_or_none()
    return max(-1 if last is None else int(last), -1 if following is None else int(following) - 1) + 1


def _opened(
    fleet: str, topic: str, from_offset: int, at_us: int, severity: Severity, message: str
) -> DataAlertChange:
    return DataAlertChange(
        kind=DRILL_FAILED,
        partition=Partition(topic, 0),
        fleet=fleet,
        from_offset=from_offset,
        opened_us=at_us,
        at_us=at_us,
        state=AlertState.FIRING,
        severity=severity,
        n_records=0,
        message=message,
        is_transition=True,
        subject=fleet,
    )


def _closed(known: DataAlertChange, at_us: int) -> DataAlertChange:
    return replace(known, at_us=max(at_us, known.opened_us), state=AlertState.CLOSED)
