"""Mutations: the protocol with one rule removed. The verification must notice each one.

A mutation changes a simulation before its run: a store function, the source, or a function of the pipeline.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any
from unittest import mock

from monitor.store import registry, scores, versions
from monitor.stream.evidence import EvidenceRecorder
from monitor.stream.reader import SourceReader
from monitor.stream.sensor_alerts import SensorAlerts
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
    """The removed rule."""
    change: Callable[[Simulation], None] = lambda simulation: None
    patched: Callable[[], contextlib.AbstractContextManager[Any]] = _nothing


class TwoTransactions(SimulatedStore):
    """The offset in one transaction, the rows of its records in the next."""

    async def save(self, commit: Commit) -> Saved:
        return await mutations.save_in_two_transactions(self.run, commit)


def _two_transactions(simulation: Simulation) -> None:
    simulation.make_store = TwoTransactions


class UnpausedSource(MemberSource):
    """A source that does not pause assigned partitions. It fetches at once from the committed offset, and returns those
    records even after a `seek`.
    """

    def _assign(self, partition: Partition) -> None:
        log = self._broker.logs[partition]
        at = max(self._broker.committed.get(partition, log.first_kept), log.first_kept)
        self._expected[partition] = at
        self._fetched[partition] = log.fetch(at, self._broker.fault_plan.max_records)

    def seek(self, partition: Partition, offset: int) -> None:
        in_flight = self._fetched.get(partition, ())
        super().seek(partition, offset)
        if in_flight and partition in self._assigned:
            self._fetched[partition] = in_flight


def _no_pause_first(simulation: Simulation) -> None:
    def make(process: Process) -> MemberSource:
        return UnpausedSource(simulation.broker, process)

    simulation.make_source = make  # type: ignore[method-assign]


@contextlib.contextmanager
def _no_discard() -> Iterator[None]:
    with mock.patch.object(SourceReader, "discard_batches"):
        yield


def _no_snapshots() -> contextlib.AbstractContextManager[Any]:
    return mutations.claims_with(lambda claim: replace(claim, snapshots=()))  # type: ignore[no-any-return]


@contextlib.contextmanager
def _no_activation_check() -> Iterator[None]:
    with mock.patch.object(versions, "check_activation_seq", return_value=None):
        yield


@contextlib.contextmanager
def _no_verdict() -> Iterator[None]:
    with mock.patch.object(registry, "_check_may_decide", return_value=None):
        yield


@contextlib.contextmanager
def _boundary_at_the_last_one() -> Iterator[None]:
    with mock.patch.object(scores, "newest_windows", return_value={}):
        yield


@contextlib.contextmanager
def _no_moved_aliases() -> Iterator[None]:
    with mock.patch.object(registry, "_move_champion", return_value=None):
        yield


@contextlib.contextmanager
def _no_former_evidence() -> Iterator[None]:
    with mock.patch.object(EvidenceRecorder, "restore"):
        yield


@contextlib.contextmanager
def _no_former_sensor_state() -> Iterator[None]:
    with mock.patch.object(SensorAlerts, "restore"):
        yield


MUTATIONS = {
    each.name: each
    for each in (
        Mutation(
            "compare-and-set",
            "a commit moves the offset only in its epoch and from its present place",
            patched=mutations.no_compare_and_set,
        ),
        Mutation(
            "sensor-state", "windows of a sensor count for its alert across a restart", patched=_no_former_sensor_state
        ),
        Mutation("one-transaction", "the offset moves in the transaction of the rows", _two_transactions),
        Mutation("rewind", "a claim reads again from the rewind offset", patched=mutations.no_rewind),
        Mutation("pause-first", "no record of a partition is returned before `seek`", _no_pause_first),
        Mutation("drop-stale", "a claim drops batches that were polled before", patched=_no_discard),
        Mutation("snapshots", "a claim restores the snapshots", patched=_no_snapshots),
        Mutation("evidence", "a claim continues the evidence of open alerts", patched=_no_former_evidence),
        Mutation("verdict", "a rejected version is not promoted", patched=_no_verdict),
        Mutation(
            "boundary", "a version decides after every decided window", patched=_boundary_at_the_last_one
        ),
        Mutation("aliases", "a promotion moves the aliases", patched=_no_moved_aliases),
        Mutation("models", "a commit is refused if the models changed", patched=_no_activation_check),
    )
}
