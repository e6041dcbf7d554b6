"""The protocol with one of its rules taken out. A checker that lets one of these pass checks nothing.

Each changes a simulation before it lives: the real store functions, what a source hands out, or a line of the engine.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any
from unittest import mock

from monitor.store import versions
from monitor.stream.reader import SourceReader
from tests import mutations
from tests.simulation.broker import MemberSource
from tests.simulation.store import SimulatedStore

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from monitor.store.commit import Commit, Saved
    from monitor.types import Partition
    from tests.simulation.clockwork import Process
    from tests.simulation.simulation import Simulation


def _nothing() -> contextlib.AbstractContextManager[Any]:
    return contextlib.nullcontext()


@dataclass(frozen=True)
class Mutation:
    name: str
    without: str
    """The rule that is broken."""
    change: Callable[[Simulation], None] = lambda simulation: None
    patched: Callable[[], contextlib.AbstractContextManager[Any]] = _nothing


class TwoTransactions(SimulatedStore):
    """The offset in one transaction, the rows of its records in the next."""

    async def save(self, commit: Commit) -> Saved:
        return await mutations.save_in_two_transactions(self.run, commit)


def _two_transactions(simulation: Simulation) -> None:
    simulation.make_store = TwoTransactions


class HastySource(MemberSource):
    """Does not pause what it is assigned: fetching begins at once where the group stands, and `seek` comes too late
    for what is on its way.
    """

    def _assign(self, partition: Partition) -> None:
        log = self._broker.logs[partition]
        at = max(self._broker.committed.get(partition, log.first_kept), log.first_kept)
        self._expected[partition] = at
        self._fetched[partition] = log.fetch(at, self._broker.fault_plan.most_records)

    def seek(self, partition: Partition, offset: int) -> None:
        on_its_way = self._fetched.get(partition, ())
        super().seek(partition, offset)
        if on_its_way and partition in self._assigned:
            self._fetched[partition] = on_its_way


def _no_pause_first(simulation: Simulation) -> None:
    def make(process: Process) -> MemberSource:
        return HastySource(simulation.broker, process)

    simulation.make_source = make  # type: ignore[method-assign]


@contextlib.contextmanager
def _stale_batches_are_kept() -> Iterator[None]:
    with mock.patch.object(SourceReader, "discard_batches"):
        yield


def _no_watermark() -> contextlib.AbstractContextManager[Any]:
    return mutations.claims_with(lambda claim: replace(claim, rewind_state={}))  # type: ignore[no-any-return]


@contextlib.contextmanager
def _models_change_unseen() -> Iterator[None]:
    with mock.patch.object(versions, "check_activation_seq", return_value=None):
        yield


MUTATIONS = {
    each.name: each
    for each in (
        Mutation(
            "compare-and-set",
            "a save moves the offset only in its epoch and from where it stood",
            patched=mutations.no_compare_and_set,
        ),
        Mutation("one-transaction", "the offset moves in the transaction of the rows", _two_transactions),
        Mutation("rewind", "a claim reads again from the rewind offset", patched=mutations.no_rewind),
        Mutation("pause-first", "nothing of a partition is handed out before it has begun", _no_pause_first),
        Mutation("drop-stale", "a claim drops what was polled before it", patched=_stale_batches_are_kept),
        Mutation("watermark", "a claim takes up the watermark", patched=_no_watermark),
        Mutation("models", "a save is refused when the models changed", patched=_models_change_unseen),
    )
}
