"""Alerts of class `data` about whole streams. One daemon writes them under a lease, outside of the pipeline.

Input: the conditions that a watch sees now. Output: alerts that open and close. Invariant: one transaction checks the
lease and writes all, so of several daemons one writes, and a repetition changes nothing. The open alerts in the
database are the state: a restart goes on with them.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import msgspec
from sqlalchemy import bindparam, text

from monitor.store import leases, outbox
from monitor.types import AlertState, Counters, DataAlertChange, Partition, Severity

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Connection

    from monitor.store.outbox import Channel

_PROGRESS = text("""
    SELECT topic, partition, next_offset, saved_us, counters FROM source_partition WHERE pipeline = :pipeline
""")
_OPEN = text("""
    SELECT kind, topic, partition, from_offset, opened_us, severity, n_anomalous, message FROM alert
    WHERE class = 'data' AND state <> 'closed' AND kind IN :kinds
""").bindparams(bindparam("kinds", expanding=True))
_EXISTS = text("""
    SELECT 1 FROM alert WHERE topic = :topic AND partition = :partition AND kind = :kind
        AND from_offset = :from_offset AND subject = :subject
""")


@dataclass(frozen=True, slots=True)
class StreamState:
    """Facts of all streams, from the database."""

    progress: dict[Partition, tuple[int | None, int | None, Counters]]
    """By partition: next offset, processing time of the last commit, counters."""
    open: list[DataAlertChange]
    """The open alerts of these kinds, as they were opened."""


def read(connection: Connection, pipeline: str, kinds: Sequence[str]) -> StreamState:
    """Read the progress of all partitions, and the open alerts of these kinds."""
    progress = {
        Partition(row[0], row[1]): (row[2], row[3], Counters(**msgspec.json.decode(row[4])))
        for row in connection.execute(_PROGRESS, {"pipeline": pipeline})
    }
    return StreamState(progress, _open_alerts(connection, kinds))


def write(
    connection: Connection,
    lease: tuple[str, int] | None,
    channels: Sequence[Channel],
    kinds: Sequence[str],
    wanted: Sequence[DataAlertChange],
    at_us: int,
) -> list[DataAlertChange]:
    """Open the alerts that are wanted and not open, close the others of these kinds, and return the changes.

    `wanted`: as they open, one of each kind and topic. `lease`: name and epoch, None = no other daemon. Raises Fenced.
    """
    if lease is not None:
        leases.check(connection, *lease)
    known = {(each.kind, each.partition.topic): each for each in _open_alerts(connection, kinds)}
    new = {(each.kind, each.partition.topic): each for each in wanted}
    changes = [
        replace(each, at_us=max(at_us, each.opened_us), state=AlertState.CLOSED)
        for key, each in known.items() if key not in new
    ]  # fmt: skip
    for key, change in new.items():
        values = {
            "topic": change.partition.topic,
            "partition": change.partition.number,
            "kind": change.kind,
            "from_offset": change.from_offset,
            "subject": change.subject,
        }
        # One that is closed at this very offset was closed with its topic's settings, and has been told.
        if key not in known and connection.execute(_EXISTS, values).one_or_none() is None:
            changes.append(change)
    for change in changes:
        outbox.write_data_change(connection, channels, change, at_us)
    return changes


def _open_alerts(connection: Connection, kinds: Sequence[str]) -> list[DataAlertChange]:
    return [
        DataAlertChange(
            kind=row.kind,
            partition=Partition(row.topic, row.partition),
            fleet=None,
            from_offset=row.from_offset,
            opened_us=row.opened_us,
            at_us=row.opened_us,
            state=AlertState.FIRING,
            severity=Severity(row.severity),
            n_records=row.n_anomalous,
            message=row.message,
            is_transition=True,
        )
        for row in connection.execute(_OPEN, {"kinds": list(kinds)})
    ]
