"""Consumed offsets, missing ranges and home partitions of a live run, all of the same moment.

`repeatable_read` opens the database as it is at one moment, while a daemon goes on writing. The other functions read
through it or through any `RowReader`. Invariant: the results of that moment contain every record below `end` outside
the missing ranges, and no other record.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from sqlalchemy import text

from monitor.store.engine import AsyncStore
from monitor.store.queries.backend import RowReader
from monitor.types import Partition

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from sqlalchemy import Connection

T = TypeVar("T")

LIMIT_S = 3600.0
"""Time limit of the transaction, which reads every window."""
FETCHED_ROWS = 5_000

_CONSUMED = """
    SELECT topic, partition, start_offset, next_offset FROM source_partition
    WHERE pipeline = :pipeline AND next_offset IS NOT NULL ORDER BY topic, partition
"""
_GAPS = """
    SELECT topic, partition, from_offset, to_offset FROM gap WHERE pipeline = :pipeline ORDER BY from_offset
"""
_DEFAULT_GROUP = "SELECT consumer_group FROM identity"
_HOMES = "SELECT fleet, name, topic, partition, since_offset FROM asset ORDER BY id"


class Consumed(NamedTuple):
    """Consumed offsets of one partition: [first, end) without the gaps."""

    first: int
    """Start of the first run: `[kafka] start`."""
    end: int
    gaps: tuple[tuple[int, int], ...] = ()
    """[from, to): offsets that were skipped because Kafka had deleted them."""


class HomePartition(NamedTuple):
    """The partition of an asset, and its first accepted record."""

    partition: Partition
    since: int
    """Offset of the first accepted record. Earlier records were rejected."""


def consumed(reader: RowReader, pipeline: str) -> dict[Partition, Consumed]:
    """Return the consumed offsets of each partition that a pipeline (a consumer group) has started."""
    gaps: dict[Partition, list[tuple[int, int]]] = {}
    for row in reader.fetch(_GAPS, {"pipeline": pipeline}):
        gaps.setdefault(Partition(row["topic"], row["partition"]), []).append((row["from_offset"], row["to_offset"]))
    found = {}
    for row in reader.fetch(_CONSUMED, {"pipeline": pipeline}):
        partition = Partition(row["topic"], row["partition"])
        found[partition] = Consumed(row["start_offset"], row["next_offset"], tuple(gaps.get(partition, ())))
    return found


def default_group(reader: RowReader) -> str:
    """Return the consumer group of the database's daemons where the configuration names none."""
    return str(next(iter(reader.fetch(_DEFAULT_GROUP)))["consumer_group"])


def home_partitions(reader: RowReader) -> dict[tuple[str, str], HomePartition]:
    """Return each asset's partition, by (fleet, asset)."""
    return {
        (row["fleet"], row["name"]): HomePartition(Partition(row["topic"], row["partition"]), row["since_offset"])
        for row in reader.fetch(_HOMES)
    }


async def repeatable_read(url: str, fn: Callable[[RowReader], T]) -> T:
    """Run `fn(reader)` over the database as it is at one moment, while a daemon may go on writing."""
    async with AsyncStore(url, timeout_s=LIMIT_S) as store:
        return await store.read(lambda connection: fn(_RepeatableRead(connection)))


class _RepeatableRead(RowReader):
    """A transaction that does not see later commits of others."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        if connection.dialect.name != "sqlite":  # there, every transaction that has begun to read is one
            connection.execute(text("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ"))

    def fetch(self, sql: str, values: Mapping[str, object] | None = None) -> Iterator[Mapping[str, Any]]:
        """Run one SELECT, a few thousand rows at a time."""
        options = {"stream_results": True, "yield_per": FETCHED_ROWS}
        for row in self._connection.execute(text(sql), values or {}, execution_options=options).mappings():
            yield dict(row)
