"""`monitor replay` over the records that Kafka holds. For recordings see `from_files`.

Input: a range of the log, and the versions that decide. Output: a `ReplayResult`.
Invariant: equal records, configuration and versions give an equal digest, live or replayed.
"""

from __future__ import annotations

import asyncio
from dataclasses import asdict, replace
from datetime import timedelta
from typing import TYPE_CHECKING

from monitor.kafka.memory import iterate
from monitor.replay.flow import ReplayInput, needed_cell, scored_from_us, scratch
from monitor.replay.offsets import find_offset_range, summarize_run
from monitor.replay.run import ReplayRun, open_scorers
from monitor.replay.versions import RegistryCopy, copy_live_registry, unreadable_versions, with_deciding_lengths
from monitor.store.reader import open_reader

if TYPE_CHECKING:
    from collections.abc import AsyncIterable, AsyncIterator, Sequence

    from monitor.clock import Clock
    from monitor.config import Config
    from monitor.replay.flow import ReplayObserver
    from monitor.replay.offsets import KafkaRange, RunSummary
    from monitor.replay.run import ReplayOptions, ReplayResult
    from monitor.replay.versions import UnreadableVersion
    from monitor.store.engine import AsyncStore
    from monitor.types import RecordBatch


async def replay_kafka(
    config: Config, wanted: KafkaRange, *, options: ReplayOptions, observer: ReplayObserver, clock: Clock
) -> ReplayResult:
    """Replay the records of the wanted range.

    Raises NotFound: see `find_offset_range` and `versions_by_fleet`. Raises NoChampion, CheckpointDamaged.
    """
    observer.on_progress(None, "looking up what live has consumed, and what came of it")
    config = await with_deciding_lengths(config, options.deciding_version)
    unreadable = await unreadable_versions(config) if options.decides_as_live else []
    offsets = await find_offset_range(
        config, wanted, summarize_live=options.decides_as_live, unreadable=unreadable
    )
    batches = skip_old_records(offsets, config, wanted.from_us, options.memory(config))
    replay_input = ReplayInput(
        config, batches, offsets.partitions, wanted.from_us, wanted.to_us, homes=offsets.homes
    )
    result = await replay_log(
        replay_input, options=options, observer=observer, clock=clock, live=offsets.live, unreadable=unreadable
    )
    result.offsets, result.missing = offsets.kind, offsets.count_missing()
    return result


async def replay_log(
    replay_input: ReplayInput,
    *,
    options: ReplayOptions,
    observer: ReplayObserver,
    clock: Clock,
    live: RunSummary | None = None,
    unreadable: Sequence[UnreadableVersion] = (),
) -> ReplayResult:
    """Replay a log of the configured topics with the versions, sensors and assets of the configured database.

    `live`: summary of the live results to compare with. `unreadable`: versions whose windows are left unscored.
    """
    config, from_us, to_us = replay_input.config, replay_input.from_us, replay_input.to_us
    replay_input = replace(replay_input, memory=options.memory(config))
    run = ReplayRun(options, observer, clock, options.side_by_side(from_us))
    after_us = min(scored_from_us(fleet, from_us, replay_input.memory) for fleet in config.fleets)
    async with (
        scratch(options.into) as (store, _),
        open_scorers(config, run.side_by_side, after_us=after_us, to_us=to_us) as scorer,
    ):
        registry = RegistryCopy(
            options.deciding_version, has_partitions=True, after_us=after_us, to_us=to_us, unreadable=unreadable
        )
        await copy_live_registry(config, store, scorer, registry)
        await run.process(replay_input, store, scorer)
        await run.read_results(store, {fleet.name: from_us for fleet in config.fleets}, to_us)
        if live is not None:
            run.result.live = live
            run.result.unreadable = [asdict(each) for each in unreadable] if live.n_skipped else []
            # The digests also differ if the live run has deleted each fleet's oldest windows.
            run.result.equals_live = run.result.digest == live.digest or await asyncio.to_thread(
                _equals_live, store, replay_input, live, unreadable
            )
    return run.result


def _equals_live(
    store: AsyncStore, replay_input: ReplayInput, live: RunSummary, unreadable: Sequence[UnreadableVersion]
) -> bool:
    """Compare with the live results from each fleet's first live window on."""
    assets = set(replay_input.homes or ())
    with open_reader(store.address.url) as reader:
        replayed = summarize_run(
            reader, replay_input.config, replay_input.from_us, replay_input.to_us, assets, live.first_us,
            unreadable=unreadable, like=live,
        )
    return replayed.digest == live.digest


async def skip_old_records(
    history: AsyncIterable[RecordBatch], config: Config, from_us: int, memory: int = 0
) -> AsyncIterator[RecordBatch]:
    """Skip leading records that are, by their Kafka timestamp, too old to matter. They are not decoded.

    A reading's event time is ahead of its record's Kafka timestamp by `max_skew` at most, or it is quarantined.
    `memory`: see `ReplayInput`.
    """
    skew_us = config.kafka.max_skew // timedelta(microseconds=1)
    needed_us = min(needed_cell(fleet, from_us, memory) * fleet.interval_us for fleet in config.fleets) - skew_us
    async with iterate(history) as batches:
        async for batch in batches:
            # Producers set the timestamps, so these need not rise. Only a leading run of old records is skipped.
            is_old = (batch.timestamps_us >= 0) & (batch.timestamps_us < needed_us)
            first = len(batch) if is_old.all() else int(is_old.argmin())
            if first < len(batch):
                yield batch.rows(slice(first, None))
