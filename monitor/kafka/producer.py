"""A producer of few records, each written before the next.

Input: `[kafka]`, a topic, records. Output: records that all in-sync replicas have. Invariant: a record ends within a
time limit. After a failure the connection is dropped, and the next record makes a new one.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

from aiokafka import AIOKafkaProducer
from aiokafka import errors as kafka

from monitor.errors import SourceUnavailable
from monitor.kafka.client import client_settings
from monitor.kafka.error_mapping import map_kafka_errors

if TYPE_CHECKING:
    from collections.abc import Sequence

    from monitor.config import KafkaConfig

STOP_LIMIT_S = 2.0


class RecordWriter:
    """One connection, made at the first record."""

    def __init__(self, config: KafkaConfig, limit_s: float) -> None:
        self._config = config
        self._limit_s = limit_s
        self._producer: AIOKafkaProducer | None = None

    async def write(self, topic: str, key: bytes, value: bytes, headers: Sequence[tuple[str, bytes]] = ()) -> None:
        """Write one record. Raises SourceUnavailable, SourceRefused."""
        is_written = False
        try:
            with map_kafka_errors(self._config.bootstrap):
                async with asyncio.timeout(self._limit_s):
                    if self._producer is None:
                        # No idempotence: not every broker has it, and the receiver knows a notification by its key.
                        self._producer = AIOKafkaProducer(
                            **client_settings(self._config), acks="all", enable_idempotence=False
                        )
                        await self._producer.start()
                    await self._producer.send_and_wait(topic, value, key, headers=list(headers))
            is_written = True
        except TimeoutError:
            raise SourceUnavailable(f"{self._config.bootstrap}: no answer within {self._limit_s:g} s") from None
        finally:
            if not is_written:
                await self.close()

    async def close(self) -> None:
        """Close the connection, or abandon it where that takes too long."""
        producer, self._producer = self._producer, None
        if producer is None:
            return
        with contextlib.suppress(kafka.KafkaError, OSError, TimeoutError):
            async with asyncio.timeout(STOP_LIMIT_S):
                await producer.stop()
