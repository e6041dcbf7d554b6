"""The data of one commit: all that one step of a partition adds to the database.

Input: the pipeline's results of a batch. Output: a `Commit`, which `AsyncStore.save` writes in one transaction.
Invariant: a commit moves its partition's offset forward, because the offset tells a finished step from an unfinished
one.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from monitor.store.outbox import Channel
    from monitor.types import (
        AlertChange,
        Counters,
        DataAlertChange,
        EvidencePart,
        Float32,
        Int8,
        Int32,
        Int64,
        Partition,
        Quarantined,
    )


@dataclass(frozen=True, slots=True)
class FleetRows:
    """The additions of one shard (partition, fleet). N windows, A assets in the shard."""

    fleet: str
    asset_ids: Int32
    """[A], database id by asset index. -1 = an asset of another partition, which has no rows here."""
    asset: Int32
    """[N], asset index."""
    start_us: Int64
    """[N], of the window; (asset, start) is the key."""
    end_us: Int64
    """[N]. All windows of a shard are equally long."""
    score: Float32
    """[N], 1.0 = threshold. NaN = unscored, stored as NULL."""
    verdict: Int8
    """[N], types.Verdict."""
    version: Sequence[str | None]
    """[N], the model version that scored."""
    n_present: Int32
    """[N], cells with at least one sensor."""
    first_offset: Int64
    """[N], smallest offset of a record in the window."""
    last_offset: Int64
    """[N], greatest offset of a record in the window."""
    alerts: Sequence[AlertChange] = ()
    """In order."""
    worse: float = 2.0
    """`[fleet.alerts] worse`: multiple of the peak at an operator's answer, at which an alert is much worse."""
    evidence: Sequence[EvidencePart] = ()
    """In order. Of alerts that are open, or changed in this step."""
    sensors: Sequence[str] | None = None
    """The fleet's sensors, if this step is the first to see them. None = stored already."""
    recent: Mapping[int, Sequence[int]] = field(default_factory=dict)
    """Asset index → its last scored verdicts, end_us * 2 + is_anomalous, oldest first. An asset of `asset` that is
    missing here has no anomalous verdict among them.
    """
    admitted: Mapping[int, int] = field(default_factory=dict)
    """Asset index → offset of its first accepted record, for the assets admitted in this step."""
    activation_seq: int | None = None
    """`fleet.activation_seq` when the versions were chosen. None = do not check it."""


class MissingRange(NamedTuple):
    """Offsets that Kafka had deleted before they were read: [from_offset, to_offset)."""

    from_offset: int
    to_offset: int


class Digest(NamedTuple):
    """Expected state of a rebuild that has reached an offset."""

    offset: int
    value: str
    """Opaque. Computed by the pipeline."""


class Snapshot(NamedTuple):
    """Unfinished windows of assets that send seldom or no more. A rebuild of these assets begins here."""

    fleet: str
    at_offset: int
    """The records of these assets below it are in the state."""
    state: bytes
    """Opaque."""


@dataclass(frozen=True, slots=True)
class Commit:
    """One step of one partition: the offset moves from `old_next` to `new_next`, with all results of those records."""

    pipeline: str
    partition: Partition
    epoch: int
    """From the claim."""
    old_next: int
    new_next: int
    """> old_next"""
    rewind_offset: int
    """At or before the oldest record that an asset needs; ≤ new_next."""
    rewind_state: Mapping[str, Any]
    """State that records cannot restore (open data alerts, …). Plain JSON types."""
    counters: Counters
    """Since the partition's start, this step included."""
    at_us: int
    """Processing time, for operators."""
    log_end: int | None = None
    """End of Kafka's log as last seen."""
    fleets: Sequence[FleetRows] = ()
    quarantined: Sequence[Quarantined] = ()
    gaps: Sequence[MissingRange] = ()
    data_alerts: Sequence[DataAlertChange] = ()
    """In order."""
    channels: Sequence[Channel] = ()
    """Recipients of notifications about the alerts."""
    digest: Digest | None = None
    """The latest. Belongs to this rewind offset."""
    snapshots: Sequence[Snapshot] = ()

    def __post_init__(self) -> None:
        if self.new_next <= self.old_next:
            raise ValueError(f"a save must move the offset: {self.old_next} → {self.new_next}")


@dataclass(frozen=True, slots=True)
class Saved:
    """Outcome of a commit that did not raise."""

    was_done: bool = False
    """An earlier call committed this step, and its answer was lost. Nothing was written now."""
