"""Settings of all Kafka clients, records as columns, and the end of a consumer.

Input: `[kafka]`. Output: keyword arguments of aiokafka's clients. Invariant: the group member, the log reader and the
look-ups connect and read alike.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any

import numpy as np
from aiokafka import errors as kafka

from monitor.kafka.auth import auth_settings
from monitor.timing import DEFAULT_TIMING
from monitor.types import RecordBatch

if TYPE_CHECKING:
    from collections.abc import Coroutine, Sequence

    from aiokafka import AIOKafkaConsumer, ConsumerRecord

    from monitor.config import KafkaConfig
    from monitor.types import Partition


def client_settings(config: KafkaConfig) -> dict[str, Any]:
    """Return addresses and credentials, for consumers, producers and admin clients. Raises ConfigError."""
    return {
        "bootstrap_servers": [server.strip() for server in config.bootstrap.split(",")],
        # Longer than a rebalance may take (20 s). A join that waits for a dead member would otherwise time out just
        # before its answer, again and again (measured on Kafka 4.4 with static membership).
        "request_timeout_ms": 30_000,
        **auth_settings(config),
    }


def consumer_settings(config: KafkaConfig) -> dict[str, Any]:
    """Return the settings of a consumer: those of `client_settings` and of its fetches."""
    return client_settings(config) | {
        "enable_auto_commit": False,
        "auto_offset_reset": "none",
        "isolation_level": "read_committed",
        "fetch_max_bytes": 8 * 1024 * 1024,
        "max_partition_fetch_bytes": 1024 * 1024,
        "fetch_max_wait_ms": 250,
    }


def as_batch(partition: Partition, records: Sequence[ConsumerRecord[bytes, bytes]]) -> RecordBatch:
    """Return records as columns. A record without a timestamp has -1."""
    n = len(records)
    timestamps_ms = np.fromiter((-1 if r.timestamp is None else r.timestamp for r in records), np.int64, n)
    return RecordBatch(
        partition=partition,
        offsets=np.fromiter((record.offset for record in records), np.int64, n),
        timestamps_us=np.where(timestamps_ms < 0, -1, timestamps_ms * 1000),
        keys=[record.key for record in records],
        values=[record.value for record in records],
        headers=[tuple(record.headers) for record in records] if any(record.headers for record in records) else None,
    )


async def stop(consumer: AIOKafkaConsumer, limit_s: float = DEFAULT_TIMING.consumer_stop_limit_s) -> None:
    """Stop a consumer. Abandon it where that fails or takes longer than the limit."""
    with contextlib.suppress(kafka.KafkaError, OSError, TimeoutError):
        async with asyncio.timeout(limit_s):
            if await _ends_cancelled(consumer.stop()):
                await consumer._client.close()


async def _ends_cancelled(work: Coroutine[Any, Any, None]) -> bool:
    """Await `work` in a task of its own. Return True if it ended with a CancelledError that no caller asked for.

    In aiokafka 0.14, while a fetch waits for its next attempt because the broker is unavailable, `stop` cancels it,
    lets the CancelledError out and leaves the connections open. In the caller's task that error would end the pipeline.
    """
    task = asyncio.ensure_future(work)
    try:
        await asyncio.wait({task})
    finally:
        task.cancel()
    if not task.cancelled():
        task.result()
    return task.cancelled()
