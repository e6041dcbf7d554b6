"""Daemons with one rule of the protocol removed: the verification must notice each. `MUTATIONS`: name → function.

    python -m tests.chaos.mutant no_rewind run --config monitor.toml

Invariant: a mutation changes only the rule that it names, and is applied only in a process of its own.
"""

from __future__ import annotations

import asyncio
import sys
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    from aiokafka import TopicPartition


def no_compare_and_set() -> None:
    """Move the offset for any owner of the partition and from any place."""
    from tests import mutations

    mutations.no_compare_and_set().start()


def offset_apart() -> None:
    """Commit the offset first, and the rows that belong to it in a second transaction."""
    from monitor.store.engine import AsyncStore
    from tests import mutations

    async def save(self: AsyncStore, commit: Any) -> Any:
        # A hanging database needs as long, and a kill at a random moment must have its chance.
        return await mutations.save_in_two_transactions(self.run, commit, lambda: asyncio.sleep(0.25))

    AsyncStore.save = save  # type: ignore[method-assign]


def no_rewind() -> None:
    """Start a claimed partition at its next offset: unfinished windows are forgotten."""
    from tests import mutations

    mutations.no_rewind().start()


def no_pause() -> None:
    """Do not pause assigned partitions, and keep batches that were fetched before a seek."""
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


def notifications_apart() -> None:
    """Write the notifications after the commit, in a second transaction."""
    from monitor.store import outbox, partitions
    from monitor.store.engine import AsyncStore
    from tests.mutations import without_statement

    whole, real_save = partitions.commit, AsyncStore.save
    kept: list[Any] = []

    def rows_only(connection: Any, commit: Any) -> Any:
        kept.clear()
        return whole(without_statement(connection, outbox._PUT, kept), commit)

    async def save(self: AsyncStore, commit: Any) -> Any:
        saved, notifications = await real_save(self, commit), [*kept]
        if notifications:
            await self.run(lambda connection: connection.execute(outbox._PUT, notifications))
        return saved

    partitions.commit = rows_only
    AsyncStore.save = save  # type: ignore[method-assign]


def marked_before_sent() -> None:
    """Mark a notification as delivered before it is sent, and ignore the outcome of the attempt."""
    from monitor.store import outbox

    begin = outbox.start_attempt

    def begin_and_mark(connection: Any, epoch: int, key: str) -> str | None:
        body = begin(connection, epoch, key)
        outbox.mark_delivered(connection, key, time.time_ns() // 1000)
        return body

    outbox.start_attempt = begin_and_mark


MUTATIONS: dict[str, Callable[[], None]] = {
    "no_compare_and_set": no_compare_and_set,
    "offset_apart": offset_apart,
    "no_rewind": no_rewind,
    "no_pause": no_pause,
    "notifications_apart": notifications_apart,
    "marked_before_sent": marked_before_sent,
}

if __name__ == "__main__":
    MUTATIONS[sys.argv.pop(1)]()
    from monitor.cli import main

    main()
