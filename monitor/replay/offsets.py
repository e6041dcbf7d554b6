"""How much of Kafka a replay reads: all that lies there now, or exactly what a live run has consumed.

In: the configuration, and how far. Out: a `Reach`: the records, and with `live` what live made of them. The law: over
the offsets that a live run consumed, without the gaps it stepped over and the assets it refused, a replay gives the
live digest, wherever the live run began and however far it has come.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from monitor.errors import NotFound
from monitor.kafka.log_reader import KafkaHistory, LogBounds, partitions_of
from monitor.replay import digest
from monitor.store import results
from monitor.store.offsets import at_once, consumed, homes
from monitor.types import RecordBatch

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Mapping, Sequence

    from monitor.config import Config
    from monitor.store.offsets import Consumed, Home
    from monitor.store.queries import Reader
    from monitor.types import Partition

LIVE, ALL = "live", "all"


class Said(NamedTuple):
    """What one side made of the records, in figures that can be held against each other."""

    digest: str
    windows: int
    first_us: Mapping[str, int]
    """By fleet, the start of its first window: what is older was pruned, or never was."""


@dataclass(slots=True)
class Reach:
    """Records of Kafka, and where they come from."""

    history: KafkaHistory
    partitions: Sequence[Partition]
    consumed: Mapping[Partition, Consumed] | None = None
    """What the live run has consumed of them; None = all that lies there is read."""
    homes: Mapping[tuple[str, str], Home] | None = None
    """Of the assets that the live run knew when it had come so far; None = all assets count."""
    live: Said | None = None
    """What it made of them; None = it is not asked."""

    @property
    def kind(self) -> str:
        """How far: `live` or `all`."""
        return ALL if self.consumed is None else LIVE

    async def __aiter__(self) -> AsyncIterator[RecordBatch]:
        async for batch in self.history:
            kept = np.ones(len(batch), dtype=bool)
            for gap in self.consumed[batch.partition].gaps if self.consumed else ():
                kept &= (batch.offsets < gap[0]) | (batch.offsets >= gap[1])
            if kept.all():
                yield batch
            elif kept.any():
                rows = np.flatnonzero(kept)
                yield RecordBatch(
                    partition=batch.partition,
                    offsets=batch.offsets[rows],
                    timestamps_us=batch.timestamps_us[rows],
                    keys=[batch.keys[row] for row in rows.tolist()],
                    values=[batch.values[row] for row in rows.tolist()],
                )

    def missing(self) -> int:
        """Count the offsets that live consumed and Kafka no longer has, once everything was read."""
        return sum(
            _left(mine.first, min(mine.end, there.first), mine.gaps)
            + _left(max(mine.first, there.end), mine.end, mine.gaps)
            for partition, mine in (self.consumed or {}).items()
            for there in [self.history.bounds.get(partition, LogBounds(mine.end, mine.end))]
        )


def _left(first: int, end: int, gaps: Sequence[tuple[int, int]]) -> int:
    """Count the offsets [first, end) outside the gaps."""
    return max(0, end - first) - sum(max(0, min(end, beyond) - max(first, begin)) for begin, beyond in gaps)


async def reach(
    config: Config, topics: Sequence[str], from_us: int, to_us: int, *, offsets: str | None, asks_live: bool
) -> Reach:
    """Find out how far to read. `offsets`: LIVE or ALL; None = LIVE for the whole log, if live ever began, else ALL.
    `asks_live`: say what live made of the windows that end in (from_us, to_us], as of the same moment.

    Raises NotFound: LIVE is asked for, and no run of this group has begun with any of these topics.
    """
    is_whole = (from_us, to_us) == (results.FIRST_US, results.LAST_US)
    if offsets == ALL or (offsets is None and not is_whole):
        return Reach(KafkaHistory(config.kafka, topics), await partitions_of(config.kafka, topics))

    def look(reader: Reader) -> Reach:
        stood = {p: each for p, each in consumed(reader, config.kafka.group).items() if p.topic in topics}
        known = {name: home for name, home in homes(reader).items() if home.partition in stood}
        within = {partition: (each.first, each.end) for partition, each in stood.items()}
        found = Reach(KafkaHistory(config.kafka, topics, within), list(stood), stood, known)
        if stood and asks_live:
            found.live = said(reader, config, from_us, to_us, set(known))
        return found

    found = await at_once(config.store.url, look)
    if not found.partitions:
        if offsets is None:
            return Reach(KafkaHistory(config.kafka, topics), await partitions_of(config.kafka, topics))
        raise NotFound(
            f"offsets of group {config.kafka.group} in {', '.join(topics)}: no daemon has begun there; "
            "--offsets all reads all that lies in Kafka"
        )
    return found


def said(
    reader: Reader,
    config: Config,
    from_us: int,
    to_us: int,
    only: set[tuple[str, str]],
    since_us: Mapping[str, int] | None = None,
) -> Said:
    """Read a database's results for these assets and the configured fleets: windows that end in (from_us, to_us] and
    start at the fleet's `since_us` or later, alerts that opened there. None = all; a fleet that is not in it has none.
    """
    fleets = {fleet.name for fleet in config.fleets}
    n_windows, first_us = 0, dict[str, int]()

    def counted() -> Iterator[results.WindowFact]:
        nonlocal n_windows
        for fact in results.windows(reader, from_us, to_us):  # in order of start
            is_asked = since_us is None or fact.start_us >= since_us.get(fact.fleet, results.LAST_US)
            if is_asked and fact.fleet in fleets and (fact.fleet, fact.asset) in only:
                n_windows += 1
                first_us.setdefault(fact.fleet, fact.start_us)
                yield fact

    lives = (
        life
        for life in results.alert_lives(reader, from_us, to_us)
        if life.fleet in fleets and (life.fleet, life.asset) in only
    )
    word = digest.digest(counted(), lives)
    return Said(word, n_windows, first_us)
