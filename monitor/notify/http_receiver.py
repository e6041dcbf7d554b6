"""The common part of the channels that speak HTTP.

Input: a notification. Output: one POST of what `content` makes of it, with the key as `Idempotency-Key`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

from monitor.notify.http_post import HttpPost
from monitor.timing import DEFAULT_TIMING

if TYPE_CHECKING:
    from monitor.config import NotifyConfig
    from monitor.notify.failure import Failure
    from monitor.timing import Timing


class HttpReceiver(ABC):
    """The receiver of one channel. `path`: added to that of the URL."""

    def __init__(self, config: NotifyConfig, timing: Timing = DEFAULT_TIMING, path: str = "") -> None:
        self.name = config.name
        self._template = config.template
        self._zone = config.timezone
        self._post = HttpPost(config, timing, path)

    @abstractmethod
    def content(self, body: bytes) -> bytes:
        """Return the body of the request, JSON."""

    def headers(self, key: str, content: bytes) -> dict[str, str]:  # noqa: ARG002 (a signature needs it)
        """Return the headers that depend on the notification."""
        return {"Idempotency-Key": key}

    async def send(self, key: str, body: bytes) -> Failure | None:
        """Send one notification once; None = it arrived."""
        content = self.content(body)
        return await self._post.post(content, self.headers(key, content))

    async def close(self) -> None:  # noqa: B027 (each request has a connection of its own)
        """Do nothing."""
