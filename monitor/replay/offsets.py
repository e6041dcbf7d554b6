"""The range of Kafka offsets that a replay reads: all that Kafka holds, or exactly the ones consumed live.

Input: the configuration and a `KafkaRange`. Output: an `OffsetRange` with the records and a live summary.
Invariant: over the offsets that a live run has consumed, without the gaps that it skipped and the assets that it
rejected, a replay gives the live digest. That holds for any first and last offset of the live run.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from monitor.errors import NotFound
from monitor.kafka.log_reader import KafkaHistory, LogBounds, partitions_of
from monitor.kafka.memory import iterate
from monitor.replay import digest
from monitor.store import results
from monitor.store.offsets import consumed, default_group, home_partitions, repeatable_read
from monitor.types import AlertState

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Mapping, Sequence

    from monitor.config import Config
    from monitor.replay.versions import UnreadableVersion
    from monitor.store.offsets import Consumed, HomePartition
    from monitor.store.queries.backend import RowReader
    from monitor.types import Partition, RecordBatch

LIVE, ALL = "live", "all"


@dataclass(frozen=True, slots=True)
class KafkaRange:
    """The part of Kafka to replay: topics, event times and offsets."""

    topics: Sequence[str]
    from_us: int = results.FIRST_US
    to_us: int = results.LAST_US
    """Windows that end in (from_us, to_us] are replayed."""
    offsets: str | None = None
    """LIVE or ALL. None = LIVE for all event times if a live run has ever begun, else ALL."""

    @property
    def has_all_times(self) -> bool:
        """True if no event time is left out."""
        return (self.from_us, self.to_us) == (results.FIRST_US, results.LAST_US)


class RunSummary(NamedTuple):
    """Results of one run over the records, for comparison with another run."""

    digest: str
    windows: int
    first_us: Mapping[str, int]
    """By fleet, the start of its first window. Older windows were deleted by retention or never existed."""
    n_skipped: int = 0
    """Windows of versions that this release cannot load. They are not in the digest."""
    skipped_until_us: Mapping[tuple[str, str], int] = {}
    """By fleet and asset, the end of the last alert that overlaps such windows. Alerts up to there are not compared."""


@dataclass(slots=True)
class OffsetRange:
    """Records of Kafka within a range of offsets. Iterate over it to read them."""

    history: KafkaHistory
    partitions: Sequence[Partition]
    consumed: Mapping[Partition, Consumed] | None = None
    """Offsets that the live run has consumed. None = read all that Kafka holds."""
    homes: Mapping[tuple[str, str], HomePartition] | None = None
    """Assets that the live run knew at those offsets. None = all assets count."""
    live: RunSummary | None = None
    """Results of the live run over the same records. None = not asked for."""

    @property
    def kind(self) -> str:
        """LIVE or ALL."""
        return ALL if self.consumed is None else LIVE

    async def __aiter__(self) -> AsyncIterator[RecordBatch]:
        async with iterate(self.history) as batches:
            async for batch in batches:
                is_kept = np.ones(len(batch), dtype=bool)
                for first, end in self.consumed[batch.partition].gaps if self.consumed else ():
                    is_kept &= (batch.offsets < first) | (batch.offsets >= end)
                if is_kept.all():
                    yield batch
                elif is_kept.any():
                    yield batch.pick(np.flatnonzero(is_kept))

    def count_missing(self) -> int:
        """Count the offsets that the live run consumed and Kafka no longer holds. Call it after reading everything."""
        missing = 0
        for partition, live in (self.consumed or {}).items():
            kept = self.history.bounds.get(partition, LogBounds(live.end, live.end))
            missing += _count_outside_gaps(live.first, min(live.end, kept.first), live.gaps)
            missing += _count_outside_gaps(max(live.first, kept.end), live.end, live.gaps)
        return missing


def _count_outside_gaps(first: int, end: int, gaps: Sequence[tuple[int, int]]) -> int:
    """Count the offsets in [first, end) that lie in no gap."""
    return max(0, end - first) - sum(max(0, min(end, gap_end) - max(first, gap)) for gap, gap_end in gaps)


async def find_offset_range(
    config: Config, wanted: KafkaRange, *, summarize_live: bool, unreadable: Sequence[UnreadableVersion] = ()
) -> OffsetRange:
    """Determine the offsets to read.

    With `summarize_live`, the live results in the wanted event times are summarized as of the same moment as the
    consumed offsets. Those of `unreadable` versions are left out.

    Raises NotFound: LIVE is asked for, and no run of this consumer group has begun with any of these topics.
    """
    if wanted.offsets == ALL or (wanted.offsets is None and not wanted.has_all_times):
        return await _all_offsets(config, wanted)

    def read(reader: RowReader) -> OffsetRange:
        nonlocal config
        config = config.with_default_group(default_group(reader))
        by_partition = consumed(reader, config.kafka.group)
        by_partition = {p: each for p, each in by_partition.items() if p.topic in wanted.topics}
        known = {name: home for name, home in home_partitions(reader).items() if home.partition in by_partition}
        bounds = {partition: (each.first, each.end) for partition, each in by_partition.items()}
        history = KafkaHistory(config.kafka, wanted.topics, bounds)
        found = OffsetRange(history, list(by_partition), by_partition, known)
        if by_partition and summarize_live:
            found.live = summarize_run(
                reader, config, wanted.from_us, wanted.to_us, set(known), unreadable=unreadable
            )
        return found

    found = await repeatable_read(config.store.url, read)
    if found.partitions:
        return found
    if wanted.offsets is None:
        return await _all_offsets(config, wanted)
    raise NotFound(
        f"offsets of group {config.kafka.group} in {', '.join(wanted.topics)}: no daemon has begun there; "
        "--offsets all reads all that lies in Kafka"
    )


async def _all_offsets(config: Config, wanted: KafkaRange) -> OffsetRange:
    return OffsetRange(KafkaHistory(config.kafka, wanted.topics), await partitions_of(config.kafka, wanted.topics))


def summarize_run(
    reader: RowReader,
    config: Config,
    from_us: int,
    to_us: int,
    assets: set[tuple[str, str]],
    since_us: Mapping[str, int] | None = None,
    *,
    unreadable: Sequence[UnreadableVersion] = (),
    like: RunSummary | None = None,
) -> RunSummary:
    """Summarize the results in a database for the configured fleets and these assets (fleet, name).

    Counts windows that end, and alerts that opened, in (from_us, to_us]. `since_us`: by fleet, the start of the first
    window that counts. No window of a fleet that is not in it counts. None = all windows count.
    `unreadable`: versions whose windows do not count, nor alerts that overlap them. `like`: the live summary, which
    says how long these alerts were. None = this is the live one.
    """
    fleets = {fleet.name for fleet in config.fleets}
    n_windows, n_skipped, first_us = 0, 0, dict[str, int]()

    def is_skipped(fleet: str, after_us: int, until_us: int) -> bool:
        return any(each.fleet == fleet and after_us <= each.to_us and until_us > each.after_us for each in unreadable)

    def counted() -> Iterator[results.WindowRow]:
        nonlocal n_windows, n_skipped
        for window in results.windows(reader, from_us, to_us):  # in order of start
            is_recent = since_us is None or window.start_us >= since_us.get(window.fleet, results.LAST_US)
            if is_recent and window.fleet in fleets and (window.fleet, window.asset) in assets:
                n_windows += 1
                first_us.setdefault(window.fleet, window.start_us)
                if is_skipped(window.fleet, window.end_us, window.end_us):
                    n_skipped += 1
                else:
                    yield window

    found = [
        each
        for each in results.alert_transitions(reader, from_us, to_us)
        if each.fleet in fleets and (each.fleet, each.asset) in assets
    ]
    if like is None:
        until_us = dict[tuple[str, str], int]()
        for (fleet, asset, opened_us), closed_us in _closing_times(found).items():
            if is_skipped(fleet, opened_us, closed_us):
                until_us[fleet, asset] = max(closed_us, until_us.get((fleet, asset), closed_us))
    else:
        until_us = dict(like.skipped_until_us)
    transitions = (
        each
        for each in found
        if each.opened_us > until_us.get((each.fleet, each.asset), results.FIRST_US)
        and not is_skipped(each.fleet, each.opened_us, each.opened_us)
    )
    return RunSummary(digest.digest(counted(), transitions), n_windows, first_us, n_skipped, until_us)


def _closing_times(transitions: Sequence[results.TransitionRow]) -> dict[tuple[str, str, int], int]:
    """Return the closing time of each alert by fleet, asset and opening time. Of an open one, after all times."""
    found: dict[tuple[str, str, int], int] = {}
    for each in transitions:
        key = (each.fleet, each.asset, each.opened_us)
        found[key] = each.at_us if each.state == AlertState.CLOSED else results.LAST_US
    return found
