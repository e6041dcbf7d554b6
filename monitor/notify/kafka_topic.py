"""A topic on the fleet's broker: one record per notification.

Input: a notification. Output: a record with the alert's key, so that all notifications of an alert are in one partition
and in order. Its header `idempotency-key` is the notification's key. Invariant: a record ends within a time limit.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from monitor.errors import SourceRefused, SourceUnavailable
from monitor.kafka.producer import RecordWriter
from monitor.notify.failure import Failure
from monitor.notify.rendering import rendered
from monitor.timing import DEFAULT_TIMING

if TYPE_CHECKING:
    from monitor.config import KafkaConfig, NotifyConfig
    from monitor.timing import Timing


class KafkaTopic:
    """The receiver of one channel of kind `kafka`."""

    def __init__(self, config: NotifyConfig, kafka: KafkaConfig, timing: Timing = DEFAULT_TIMING) -> None:
        self.name = config.name
        self._topic = config.topic or ""
        self._template = config.template
        self._zone = config.timezone
        self._writer = RecordWriter(kafka, timing.kafka_notification_limit_s)

    async def send(self, key: str, body: bytes) -> Failure | None:
        """Send one notification once; None = it arrived."""
        alert = key.removeprefix(f"{self.name}:").rpartition(":")[0]
        headers = [("idempotency-key", key.encode())]
        try:
            await self._writer.write(self._topic, alert.encode(), self.content(body), headers)
        except SourceRefused as error:
            return Failure(error.detail, is_refusal=True)
        except SourceUnavailable as error:
            return Failure(error.detail)
        return None

    def content(self, body: bytes) -> bytes:
        """Return the record's value."""
        return body if self._template is None else rendered(self._template, body, self._zone).encode()

    async def close(self) -> None:
        """Close the connection."""
        await self._writer.close()
