"""The engine with one line of the protocol taken out: the checker must notice each. `MUTATIONS`: name → how.

    python -m tests.chaos.mutant no_rewind run --config monitor.toml

The law: a mutation changes the one thing that it names, and is only ever applied in a process of its own.
"""

from __future__ import annotations

import asyncio
import sys
import time
from dataclasses import replace
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    from aiokafka import TopicPartition


def no_compare_and_set() -> None:
    """A save moves the offset whoever owns the partition and wherever the offset stands."""
    from monitor.store import partitions

    statement = str(partitions._MOVE)
    condition = statement[statement.index("AND epoch = :epoch") :]
    assert "next_offset = :old_next" in condition
    partitions._MOVE = partitions.text(statement.replace(condition, ""))


def offset_apart() -> None:
    """The offset is committed first, the rows that belong to it in a second transaction."""
    from monitor.store import partitions
    from monitor.store.engine import AsyncStore

    whole = partitions.commit

    class WithoutTheMove:
        """A connection on which moving the offset is said to have worked already."""

        def __init__(self, connection: Any) -> None:
            self._connection = connection

        def __getattr__(self, name: str) -> Any:
            return getattr(self._connection, name)

        def execute(self, statement: Any, *values: Any) -> Any:
            if statement is partitions._MOVE:
                return SimpleNamespace(rowcount=1)
            return self._connection.execute(statement, *values)

    def rows_only(connection: Any, commit: Any) -> Any:
        return whole(WithoutTheMove(connection), commit)

    async def save(self: AsyncStore, commit: Any) -> Any:
        await self.run(whole, replace(commit, fleets=(), quarantined=(), gaps=()))
        await asyncio.sleep(0.05)  # a busy database would take as long; the kill need not be so lucky
        return await self.run(rows_only, commit)

    AsyncStore.save = save  # type: ignore[method-assign]


def no_rewind() -> None:
    """A claim begins at the next offset: windows that were open are forgotten."""
    from monitor.store import partitions

    real = partitions.claim

    def claim(*arguments: Any, **named: Any) -> Any:
        found = real(*arguments, **named)
        return replace(found, rewind_offset=found.next_offset)

    partitions.claim = claim


def no_pause() -> None:
    """Partitions are not paused when they are assigned, and what was fetched before a seek is not dropped."""
    from monitor.kafka import consumer_group
    from monitor.stream.reader import SourceReader
    from monitor.types import Partition

    async def on_partitions_assigned(self: Any, assigned: Any) -> None:
        if assigned:
            self._events.append(consumer_group.Assigned(tuple(Partition(*key) for key in sorted(assigned))))

    def as_batch(self: Any, key: TopicPartition, records: Any) -> Any:
        self._expected[key] = records[-1].offset + 1
        return consumer_group.as_batch(Partition(*key), records)

    def consumer_seek(self: Any, key: TopicPartition) -> None:
        if self._consumer is not None and key in self._consumer.assignment() and key in self._expected:
            self._consumer.seek(key, self._expected[key])

    consumer_group._RebalanceListener.on_partitions_assigned = on_partitions_assigned  # type: ignore[method-assign]
    consumer_group.KafkaSource._as_batch = as_batch  # type: ignore[method-assign]
    consumer_group.KafkaSource._consumer_seek = consumer_seek  # type: ignore[method-assign]
    SourceReader.discard_batches = lambda *_: None  # type: ignore[method-assign]


def letters_apart() -> None:
    """What people are to be told is written down after the save, in a second transaction."""
    from monitor.store import outbox, partitions
    from monitor.store.engine import AsyncStore

    class KeepingLetters:
        """A connection on which letters are said to have been written."""

        def __init__(self, connection: Any) -> None:
            self._connection = connection

        def __getattr__(self, name: str) -> Any:
            return getattr(self._connection, name)

        def execute(self, statement: Any, *values: Any) -> Any:
            if statement is outbox._PUT:
                kept.extend(values[0])
                return None
            return self._connection.execute(statement, *values)

    whole, real_save = partitions.commit, AsyncStore.save
    kept: list[Any] = []

    def rows_only(connection: Any, commit: Any) -> Any:
        kept.clear()
        return whole(KeepingLetters(connection), commit)

    async def save(self: AsyncStore, commit: Any) -> Any:
        saved, letters = await real_save(self, commit), [*kept]
        if letters:
            await self.run(lambda connection: connection.execute(outbox._PUT, letters))
        return saved

    partitions.commit = rows_only
    AsyncStore.save = save  # type: ignore[method-assign]


def told_unsent() -> None:
    """A letter is marked as delivered before it is sent, and what comes of the try is not looked at."""
    from monitor.store import outbox

    begin = outbox.start_attempt

    def begin_and_be_done(connection: Any, epoch: int, key: str) -> str | None:
        body = begin(connection, epoch, key)
        outbox.mark_delivered(connection, key, time.time_ns() // 1000)
        return body

    outbox.start_attempt = begin_and_be_done


MUTATIONS: dict[str, Callable[[], None]] = {
    "no_compare_and_set": no_compare_and_set,
    "offset_apart": offset_apart,
    "no_rewind": no_rewind,
    "no_pause": no_pause,
    "letters_apart": letters_apart,
    "told_unsent": told_unsent,
}

if __name__ == "__main__":
    MUTATIONS[sys.argv.pop(1)]()
    from monitor.cli import main

    main()
