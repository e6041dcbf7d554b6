"""What a live run has accounted for, at one moment: offsets, gaps and homes, and the results that they led to.

`at_once` opens a database as it is at one moment, however busy a daemon is; the others read through it or through any
`Reader`. The law: every record below `end` and in no gap is in the results of that moment, and no other is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from sqlalchemy import text

from monitor.store.engine import AsyncStore
from monitor.store.queries import Reader
from monitor.types import Partition

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from sqlalchemy import Connection

T = TypeVar("T")

LIMIT_S = 3600.0
"""How long the look at one moment may take: it reads every window."""
ROWS_AT_ONCE = 5_000

_STANDS = """
    SELECT topic, partition, start_offset, next_offset FROM source_partition
    WHERE pipeline = :pipeline AND next_offset IS NOT NULL ORDER BY topic, partition
"""
_GAPS = """
    SELECT topic, partition, from_offset, to_offset FROM gap WHERE pipeline = :pipeline ORDER BY from_offset
"""
_HOMES = "SELECT fleet, name, topic, partition, since_offset FROM asset ORDER BY id"


class Consumed(NamedTuple):
    """A stretch of one partition's log: [first, end) without the gaps."""

    first: int
    """Where the first run began: `[kafka] start`."""
    end: int
    gaps: tuple[tuple[int, int], ...] = ()
    """[from, to): offsets that were stepped over."""


class Home(NamedTuple):
    """Where an asset lives, and since when."""

    partition: Partition
    since: int
    """Offset of its first reading that counts: what came before was refused."""


def consumed(reader: Reader, pipeline: str) -> dict[Partition, Consumed]:
    """Return what a pipeline (a consumer group) has consumed of each partition that it ever began."""
    gaps: dict[Partition, list[tuple[int, int]]] = {}
    for row in reader.fetch(_GAPS, {"pipeline": pipeline}):
        gaps.setdefault(Partition(row["topic"], row["partition"]), []).append((row["from_offset"], row["to_offset"]))
    found = {}
    for row in reader.fetch(_STANDS, {"pipeline": pipeline}):
        partition = Partition(row["topic"], row["partition"])
        found[partition] = Consumed(row["start_offset"], row["next_offset"], tuple(gaps.get(partition, ())))
    return found


def homes(reader: Reader) -> dict[tuple[str, str], Home]:
    """Return, by fleet and asset, where each asset lives."""
    return {
        (row["fleet"], row["name"]): Home(Partition(row["topic"], row["partition"]), row["since_offset"])
        for row in reader.fetch(_HOMES)
    }


async def at_once(url: str, fn: Callable[[Reader], T]) -> T:
    """Run `fn(reader)` over the database as it is at one moment, while a daemon may go on writing."""
    async with AsyncStore(url, timeout_s=LIMIT_S) as store:
        return await store.read(lambda connection: fn(_Moment(connection)))


class _Moment(Reader):
    """One transaction that sees nothing of what is committed meanwhile."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        if connection.dialect.name != "sqlite":  # there, a transaction that has begun to read is so by itself
            connection.execute(text("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ"))

    def fetch(self, sql: str, values: Mapping[str, object] | None = None) -> Iterator[Mapping[str, Any]]:
        """Run one SELECT, some rows at a time."""
        stream = {"stream_results": True, "yield_per": ROWS_AT_ONCE}
        for row in self._connection.execute(text(sql), values or {}, execution_options=stream).mappings():
            yield dict(row)

    def glob(self, column: str, value: str) -> str:
        """Patterns are for people, who look at what is now."""
        raise NotImplementedError

    def pattern(self, glob: str) -> str:
        """See `glob`."""
        raise NotImplementedError

    def close(self) -> None:
        """The transaction ends with `at_once`."""
