"""Records → a topic, for the benchmark and for `monitor replay --publish`.

Input: recordings or ready records. Output: records in a topic.
Invariant: when a function returns, the broker has acknowledged all records. A record's Kafka timestamp is never its
event time, because the broker's retention would delete old ones at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import heapq
import time
from operator import itemgetter
from typing import TYPE_CHECKING, Any

import numpy as np
from aiokafka import AIOKafkaProducer
from aiokafka import errors as kafka
from aiokafka.admin import AIOKafkaAdminClient

from monitor.decode import reading_json
from monitor.kafka.client import client_settings
from monitor.kafka.embedded_broker import create_topic, producer_settings
from monitor.kafka.error_mapping import map_kafka_errors
from monitor.kafka.log_reader import partitions_of
from monitor.recordings import as_records

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence

    from monitor.clock import Clock
    from monitor.config import KafkaConfig
    from monitor.recordings import Recording

IN_FLIGHT = 64
"""Batches that may wait for their acknowledgement at the same time."""
PROGRESS_EVERY = 1000
"""Records between two waits for acknowledgements, and between two progress reports."""


@contextlib.asynccontextmanager
async def open_producer(bootstrap: str, **connection: Any) -> AsyncIterator[AIOKafkaProducer]:
    """Open a producer. It sends its pending records before it closes."""
    with map_kafka_errors(bootstrap):
        client = AIOKafkaProducer(**{**producer_settings(bootstrap), **connection})
        await client.start()
        try:
            yield client
        finally:
            await client.stop()


async def write_all(bootstrap: str, topic: str, records: Iterable[tuple[bytes, bytes]]) -> int:
    """Write records (key, value) to partition 0 at full speed and return their number."""
    n = 0
    async with open_producer(bootstrap) as client:
        waiting: set[asyncio.Future[Any]] = set()
        batch = client.create_batch()
        for key, value in records:
            n += 1
            while batch.append(key=key, value=value, timestamp=None) is None:
                waiting.add(await client.send_batch(batch, topic, partition=0))
                batch = client.create_batch()
                if len(waiting) >= IN_FLIGHT:
                    done, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
                    for sent in done:
                        sent.result()
        waiting.add(await client.send_batch(batch, topic, partition=0))
        for sent in waiting:
            await sent
    return n


async def write_at_rate(bootstrap: str, topic: str, records: Iterable[tuple[bytes, bytes]], *, per_s: float) -> None:
    """Write records (key, value) one by one at a steady rate, without waiting to fill a batch."""
    async with open_producer(bootstrap, linger_ms=0) as client:
        began_s, waiting = time.perf_counter(), []
        for n, (key, value) in enumerate(records):
            ahead_s = n / per_s - (time.perf_counter() - began_s)
            if ahead_s > 0:
                await asyncio.sleep(ahead_s)
            waiting.append(await client.send(topic, value, key))
        await asyncio.gather(*waiting)


async def delete_topic(bootstrap: str, topic: str) -> None:
    """Delete a topic that the benchmark created. Errors of the broker are ignored."""
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    with contextlib.suppress(kafka.KafkaError, OSError):
        await admin.start()
        try:
            await admin.delete_topics([topic])
        finally:
            await admin.close()


# ---------------------------------------------------------------- recordings


TimedRecord = tuple[int, bytes, bytes]
"""A record to write: event time in microseconds, key and value."""


def as_timed_records(recordings: Sequence[Recording], *, as_blocks: bool) -> Iterator[TimedRecord]:
    """Yield the records of all recordings in order of event time.

    A record is wide JSON with one reading, or a MessagePack block with many readings of one asset. Blocks of several
    assets in a shared partition would make each other late, so there a block holds one reading (see `as_records`).
    """
    make = _blocks if as_blocks else _readings
    is_shared = len({name for recording in recordings for name in recording.assets}) > 1
    return heapq.merge(*(make(recording, is_shared) for recording in recordings), key=itemgetter(0))


def _readings(recording: Recording, _is_shared: bool) -> Iterator[TimedRecord]:
    for row in np.argsort(recording.ts_us, kind="stable").tolist():
        asset, ts_us = recording.assets[recording.asset[row]], int(recording.ts_us[row])
        if np.isfinite(recording.values[row]).any():
            yield ts_us, asset.encode(), reading_json(asset, ts_us, recording.values[row], recording.sensors)


def _blocks(recording: Recording, is_shared: bool) -> Iterator[TimedRecord]:
    for batch in as_records(recording, block=1 if is_shared else 256):
        for ts_us, key, value in zip(batch.timestamps_us.tolist(), batch.keys, batch.values, strict=True):
            yield ts_us, key or b"", value or b""


async def publish(
    config: KafkaConfig,
    topic: str,
    records: Iterable[TimedRecord],
    *,
    speed: float | None,
    clock: Clock,
    on_sent: Callable[[int, int], None],
) -> int:
    """Write records to the topic, keyed by asset, and return their number.

    `speed` is event time per `clock` time. None = as fast as the broker accepts records. `on_sent` gets the number of
    records so far and the event time of the last one. A missing topic is created with one partition.
    """
    if not await partitions_of(config, [topic]):
        await create_topic(config.bootstrap, topic, 1, **_credentials(config))
    n, began_s, began_us, waiting = 0, clock.monotonic_s(), 0, []
    async with open_producer(config.bootstrap, **_credentials(config)) as client:
        for ts_us, key, value in records:
            began_us = ts_us if n == 0 else began_us
            if speed is not None:
                ahead_s = began_s + (ts_us - began_us) / 1e6 / speed - clock.monotonic_s()
                if ahead_s > 0:
                    await clock.sleep(ahead_s)
            waiting.append(await client.send(topic, value, key))
            n += 1
            if len(waiting) >= PROGRESS_EVERY:
                await asyncio.gather(*waiting)
                waiting.clear()
                on_sent(n, ts_us)
        await asyncio.gather(*waiting)
    return n


def _credentials(config: KafkaConfig) -> dict[str, Any]:
    settings = client_settings(config)
    return {name: settings[name] for name in settings if name not in ("bootstrap_servers", "request_timeout_ms")}
