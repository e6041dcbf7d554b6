"""Quarantined records, each with its reason and its first bytes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import text

from monitor.types import SAMPLE_BYTES

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Connection

    from monitor.types import Quarantined

REASON_LENGTH = 500

_INSERT = text("""
    INSERT INTO quarantine (topic, partition, record_offset, reason, sample, at_us, saved_us)
    VALUES (:topic, :partition, :record_offset, :reason, :sample, :at_us, :saved_us)
""")

_PRUNE = text("""
    DELETE FROM quarantine WHERE saved_us < :before_us AND id <= (
        SELECT MAX(id) FROM (SELECT id FROM quarantine ORDER BY id LIMIT :limit) AS oldest
    )
""")


def insert(connection: Connection, records: Sequence[Quarantined], saved_us: int) -> None:
    """Insert records. A reason may quote any bytes of a producer: text that a database cannot store is replaced."""
    connection.execute(
        _INSERT,
        [
            {
                "topic": record.partition.topic,
                "partition": record.partition.number,
                "record_offset": record.offset,
                "reason": _storable(record.reason),
                "sample": record.sample[:SAMPLE_BYTES],
                "at_us": record.at_us,
                "saved_us": saved_us,
            }
            for record in records
        ],
    )


def _storable(reason: str) -> str:
    # PostgreSQL refuses NUL in text, and both drivers refuse lone surrogates: one such record would stop its partition.
    return reason[:REASON_LENGTH].replace("\0", "\ufffd").encode("utf-8", "replace").decode()


def prune(connection: Connection, before_us: int, limit: int = 10_000) -> int:
    """Delete at most `limit` records saved before `before_us` (processing time) and return their number. 0 = done."""
    return connection.execute(_PRUNE, {"before_us": before_us, "limit": limit}).rowcount
