"""Records → a topic, for the bench and for `monitor replay --publish`.

The law: what this returns from is acknowledged by the broker. Records carry no timestamp of the past: a broker's
retention would delete them at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import TYPE_CHECKING, Any

from aiokafka import AIOKafkaProducer
from aiokafka import errors as kafka
from aiokafka.admin import AIOKafkaAdminClient

from monitor.broker import producer_settings
from monitor.stream.source.client import translated

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable

IN_FLIGHT = 64
"""Batches that wait for their acknowledgement at once."""


@contextlib.asynccontextmanager
async def producer(bootstrap: str, **connection: Any) -> AsyncIterator[AIOKafkaProducer]:
    """Open a producer; what it was given is sent before it closes."""
    with translated(bootstrap):
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
