"""Records → a topic, for the bench and for `monitor replay --publish`.

The law: what this returns from is acknowledged by the broker. Records carry no timestamp of the past: a broker's
retention would delete them at once.
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
"""Batches that wait for their acknowledgement at once."""
SAY_EVERY = 1000
"""Records between two looks at their acknowledgements, and two words of progress."""


@contextlib.asynccontextmanager
async def producer(bootstrap: str, **connection: Any) -> AsyncIterator[AIOKafkaProducer]:
    """Open a producer; what it was given is sent before it closes."""
    with map_kafka_errors(bootstrap):
        client = AIOKafkaProducer(**{**producer_settings(bootstrap), **connection})
        await client.start()
        try:
            yield client
        finally:
            await client.stop()


async def fill(bootstrap: str, topic: str, records: Iterable[tuple[bytes, bytes]]) -> int:
    """Write records to partition 0 as fast as it goes; return how many."""
    n = 0
    async with producer(bootstrap) as client:
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


async def send_steadily(bootstrap: str, topic: str, records: Iterable[tuple[bytes, bytes]], *, per_s: float) -> None:
    """Send records one by one at a steady rate, each as soon as its time has come."""
    async with producer(bootstrap, linger_ms=0) as client:
        began, sent = time.perf_counter(), []
        for n, (key, value) in enumerate(records):
            ahead_s = n / per_s - (time.perf_counter() - began)
            if ahead_s > 0:
                await asyncio.sleep(ahead_s)
            sent.append(await client.send(topic, value, key))
        await asyncio.gather(*sent)


async def delete_topic(bootstrap: str, topic: str) -> None:
    """Remove a topic of ours; a broker that will not is left alone."""
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    with contextlib.suppress(kafka.KafkaError, OSError):
        await admin.start()
        try:
            await admin.delete_topics([topic])
        finally:
            await admin.close()


# ---------------------------------------------------------------- recordings


Sent = tuple[int, bytes, bytes]
"""A record to send: its event time, key and value."""


def as_messages(recordings: Sequence[Recording], *, as_blocks: bool) -> Iterator[Sent]:
    """Turn recordings into records, all of them together in order of event time.

    Wide JSON, a reading each; or MessagePack blocks of many readings of one asset. Blocks of several assets would make
    each other late in a shared partition, so there a block holds one reading (see `as_records`).
    """
    make = _blocks if as_blocks else _readings
    is_shared = len({name for recording in recordings for name in recording.assets}) > 1
    return heapq.merge(*(make(recording, is_shared) for recording in recordings), key=itemgetter(0))


def _readings(recording: Recording, _is_shared: bool) -> Iterator[Sent]:
    for row in np.argsort(recording.ts_us, kind="stable").tolist():
        asset, ts_us = recording.assets[recording.asset[row]], int(recording.ts_us[row])
        if np.isfinite(recording.values[row]).any():
            yield ts_us, asset.encode(), reading_json(asset, ts_us, recording.values[row], recording.sensors)


def _blocks(recording: Recording, is_shared: bool) -> Iterator[Sent]:
    for batch in as_records(recording, block=1 if is_shared else 256):
        for ts_us, key, value in zip(batch.timestamps_us.tolist(), batch.keys, batch.values, strict=True):
            yield ts_us, key or b"", value or b""


async def publish(
    config: KafkaConfig,
    topic: str,
    messages: Iterable[Sent],
    *,
    speed: float | None,
    clock: Clock,
    on_sent: Callable[[int, int], None],
) -> int:
    """Send records to the topic, keyed by asset; return how many. `on_sent`: number so far, and its event time.

    `speed`: event time passes so many times as fast as `clock`; None = as fast as the broker takes them. A topic that
    does not exist is created, with one partition.
    """
    if not await partitions_of(config, [topic]):
        await create_topic(config.bootstrap, topic, 1, **_credentials(config))
    n, began_s, began_us, waiting = 0, clock.monotonic_s(), 0, []
    async with producer(config.bootstrap, **_credentials(config)) as client:
        for ts_us, key, value in messages:
            began_us = ts_us if n == 0 else began_us
            if speed is not None:
                ahead_s = began_s + (ts_us - began_us) / 1e6 / speed - clock.monotonic_s()
                if ahead_s > 0:
                    await clock.sleep(ahead_s)
            waiting.append(await client.send(topic, value, key))
            n += 1
            if len(waiting) >= SAY_EVERY:
                await asyncio.gather(*waiting)
                waiting.clear()
                on_sent(n, ts_us)
        await asyncio.gather(*waiting)
    return n


def _credentials(config: KafkaConfig) -> dict[str, Any]:
    settings = client_settings(config)
    return {name: settings[name] for name in settings if name not in ("bootstrap_servers", "request_timeout_ms")}
