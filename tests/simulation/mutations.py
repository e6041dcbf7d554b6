"""The protocol with one of its rules taken out. A checker that lets one of these pass checks nothing.

Each changes a world before it lives: the fake database's answers, what a source hands out, or a line of the engine.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any
from unittest import mock

from monitor.errors import Fenced
from monitor.store import partitions
from monitor.store.commit import Saved
from monitor.stream import pipeline as river
from tests.simulation import database
from tests.simulation.broker import MemberSource
from tests.simulation.database import SimulatedStore

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from monitor.store.commit import Commit
    from monitor.store.partitions import Claim
    from monitor.types import Partition
    from tests.simulation.clockwork import Process
    from tests.simulation.database import Database
    from tests.simulation.world import World


def _nothing() -> contextlib.AbstractContextManager[Any]:
    return contextlib.nullcontext()


@dataclass(frozen=True)
class Mutation:
    name: str
    without: str
    """The rule that is broken."""
    change: Callable[[World], None] = lambda world: None
    patched: Callable[[], contextlib.AbstractContextManager[Any]] = _nothing


# ---------------------------------------------------------------- (a)


def _save_whatever(db: Database, commit: Commit) -> Saved:
    database.move(db, commit)
    return database.insert_rows(db, commit)


def _no_compare_and_set(world: World) -> None:
    world.database.functions[partitions.commit] = _save_whatever


# ---------------------------------------------------------------- (b)


def _offset_only(db: Database, commit: Commit) -> bool:
    """Move the offset by compare-and-set; whether it stood there already."""
    row = db.partition[commit.pipeline, commit.partition]
    if (row.epoch, row.next_offset) == (commit.epoch, commit.new_next):
        return True
    if (row.epoch, row.next_offset) != (commit.epoch, commit.old_next):
        raise Fenced(f"{commit.partition}")
    database.move(db, commit)
    return False


class TwoTransactions(SimulatedStore):
    """The offset in one transaction, what the records led to in the next: as with automatic commits."""

    async def save(self, commit: Commit) -> Saved:
        was_done = await self.run(_offset_only, commit)
        if was_done:
            return Saved(was_done=True)
        saved: Saved = await self.run(database.insert_rows, commit)
        return saved


def _two_transactions(world: World) -> None:
    world.database.functions |= {_offset_only: _offset_only, database.insert_rows: database.insert_rows}
    world.make_store = TwoTransactions


# ---------------------------------------------------------------- (c)


def _claim_without_rewind(db: Database, pipeline: str, partition: Partition, owner: str) -> Claim:
    claim = database.claim(db, pipeline, partition, owner)
    return replace(claim, rewind_offset=claim.next_offset)


def _no_rewind(world: World) -> None:
    world.database.functions[partitions.claim] = _claim_without_rewind


# ---------------------------------------------------------------- (d)


class HastySource(MemberSource):
    """Does not pause what it is assigned: fetching begins at once where the group stands, and `seek` comes too late
    for what is on its way.
    """

    def _assign(self, partition: Partition) -> None:
        log = self._broker.logs[partition]
        at = max(self._broker.committed.get(partition, log.first_kept), log.first_kept)
        self._expected[partition] = at
        self._fetched[partition] = log.fetch(at, self._broker.weather.most_records)

    def seek(self, partition: Partition, offset: int) -> None:
        on_its_way = self._fetched.get(partition, ())
        super().seek(partition, offset)
        if on_its_way and partition in self._assigned:
            self._fetched[partition] = on_its_way


def _no_pause_first(world: World) -> None:
    def make(process: Process) -> MemberSource:
        return HastySource(world.broker, process)

    world.make_source = make  # type: ignore[method-assign]


@contextlib.contextmanager
def _stale_batches_are_kept() -> Iterator[None]:
    with mock.patch.object(river, "_is_of", return_value=False):
        yield


# ---------------------------------------------------------------- and some more of the protocol


def _claim_without_watermark(db: Database, pipeline: str, partition: Partition, owner: str) -> Claim:
    return replace(database.claim(db, pipeline, partition, owner), rewind_state={})


def _no_watermark(world: World) -> None:
    world.database.functions[partitions.claim] = _claim_without_watermark


@contextlib.contextmanager
def _models_change_unseen() -> Iterator[None]:
    with mock.patch.object(database, "expect_seq", return_value=None):
        yield


MUTATIONS = {
    each.name: each
    for each in (
        Mutation(
            "compare-and-set", "a save moves the offset only in its epoch and from where it stood", _no_compare_and_set
        ),
        Mutation("one-transaction", "the offset moves in the transaction of the rows", _two_transactions),
        Mutation("rewind", "a claim reads again from the rewind offset", _no_rewind),
        Mutation("pause-first", "nothing of a partition is handed out before it has begun", _no_pause_first),
        Mutation("drop-stale", "a claim drops what was polled before it", patched=_stale_batches_are_kept),
        Mutation("watermark", "a claim takes up the watermark", _no_watermark),
        Mutation("models", "a save is refused when the models changed", patched=_models_change_unseen),
    )
}
