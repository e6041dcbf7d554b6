"""aiokafka's corner: settings, credentials, and what its records and errors mean to us."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from typing import TYPE_CHECKING, Any

import numpy as np
from aiokafka import errors as kafka

from monitor.errors import SourceRefused, SourceUnavailable
from monitor.types import RecordBatch

if TYPE_CHECKING:
    from collections.abc import Coroutine, Iterator, Sequence

    from aiokafka import AIOKafkaConsumer, ConsumerRecord

    from monitor.config import KafkaConfig
    from monitor.types import Partition

MAX_RECORDS = 4096
"""Per poll: large enough that batches pay, small enough that the event loop stays responsive."""
STOP_LIMIT_S = 3.0
"""`AIOKafkaConsumer.stop` can hang; then the object is dropped."""


def as_batch(partition: Partition, records: Sequence[ConsumerRecord[bytes, bytes]]) -> RecordBatch:
    """Turn aiokafka's records into columns."""
    n = len(records)
    timestamps_ms = np.fromiter((-1 if r.timestamp is None else r.timestamp for r in records), np.int64, n)
    return RecordBatch(
        partition=partition,
        offsets=np.fromiter((record.offset for record in records), np.int64, n),
        timestamps_us=np.where(timestamps_ms < 0, -1, timestamps_ms * 1000),
        keys=[record.key for record in records],
        values=[record.value for record in records],
    )


def consumer_settings(config: KafkaConfig) -> dict[str, Any]:
    """Client settings that the group member, the history reader and the look-ups share."""
    return client_settings(config) | {
        "enable_auto_commit": False,
        "auto_offset_reset": "none",
        "isolation_level": "read_committed",
        "fetch_max_bytes": 8 * 1024 * 1024,
        "max_partition_fetch_bytes": 1024 * 1024,
        "fetch_max_wait_ms": 250,
    }


def client_settings(config: KafkaConfig) -> dict[str, Any]:
    """Address and credentials, for consumers and producers alike."""
    settings: dict[str, Any] = {
        "bootstrap_servers": [server.strip() for server in config.bootstrap.split(",")],
        "request_timeout_ms": 20_000,
        "security_protocol": config.security_protocol,
    }
    if config.security_protocol.endswith("SSL"):
        settings["ssl_context"] = ssl.create_default_context(cafile=config.ca_file)
    if config.sasl_mechanism is not None:
        settings["sasl_mechanism"] = config.sasl_mechanism
        settings["sasl_plain_username"] = config.username
        settings["sasl_plain_password"] = config.password.get_secret_value() if config.password else None
    return settings


@contextlib.contextmanager
def translated(bootstrap: str) -> Iterator[None]:
    """Turn aiokafka's errors into ours: will waiting help, or must somebody act?"""
    try:
        yield
    except kafka.KafkaError as error:
        raise as_refusal(error) or SourceUnavailable(f"{bootstrap}: {error}") from error
    except OSError as error:
        raise SourceUnavailable(f"{bootstrap}: {error}") from error


def as_refusal(error: kafka.KafkaError) -> SourceRefused | None:
    """Return the refusal that an error stands for, with the fix; None = not a refusal."""
    meaning = {
        kafka.TopicAuthorizationFailedError: "it does not let this user read the topic; grant READ and DESCRIBE on it",
        kafka.GroupAuthorizationFailedError: "it does not let this user join the group; grant READ on [kafka] group",
        kafka.AuthenticationFailedError: "it does not know this user or password; check [kafka] username and password",
        kafka.IllegalSaslStateError: "it speaks another SASL mechanism; check [kafka] sasl_mechanism",
        kafka.UnsupportedSaslMechanismError: "it does not offer this SASL mechanism; check [kafka] sasl_mechanism",
        kafka.InvalidTopicError: "a topic's name is not valid; check [kafka] topics",
    }
    for kind, sentence in meaning.items():
        if isinstance(error, kind):
            return SourceRefused(f"{sentence} ({error})")
    return None


async def stop(consumer: AIOKafkaConsumer) -> None:
    """Stop a consumer, or give it up."""
    with contextlib.suppress(kafka.KafkaError, OSError, TimeoutError):
        async with asyncio.timeout(STOP_LIMIT_S):
            if await _ends_cancelled(consumer.stop()):
                await consumer._client.close()


async def _ends_cancelled(work: Coroutine[Any, Any, None]) -> bool:
    """Await work in a task of its own; say whether it ended as if it had been cancelled, though nobody did.

    aiokafka 0.14: where a fetch waits to try again, because the broker is away, `stop` cancels it and lets that
    CancelledError out, with the connections still open. Taken for ours, it would end the river.
    """
    task = asyncio.ensure_future(work)
    try:
        await asyncio.wait({task})
    finally:
        task.cancel()
    if not task.cancelled():
        task.result()
    return task.cancelled()
