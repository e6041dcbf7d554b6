"""Mail, pagers, phones and other services, through the library Apprise (extra `notify`).

Input: a notification. Output: one call of Apprise, in a thread with a time limit. Invariant: the address is a secret.
Apprise writes parts of it into its log, which is therefore silenced. A thread that hangs is left alone, and no second
one is started for the channel before it has ended.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import logging
from threading import Thread
from typing import TYPE_CHECKING

from monitor.errors import ConfigError
from monitor.notify.failure import Failure
from monitor.notify.rendering import message_of
from monitor.timing import DEFAULT_TIMING

if TYPE_CHECKING:
    from monitor.config import NotifyConfig
    from monitor.timing import Timing

EXTRA = 'pip install "sensor-anomaly-monitor[notify]"'


class AppriseService:
    """The receiver of one channel of kind `apprise`. Raises ConfigError for an address that Apprise does not know."""

    def __init__(self, config: NotifyConfig, timing: Timing = DEFAULT_TIMING) -> None:
        self.name = config.name
        self._url = config.url
        self._template = config.template
        self._zone = config.timezone
        self._limit_s = timing.apprise_limit_s
        self._running: concurrent.futures.Future[bool] | None = None
        check_address(config)

    async def send(self, key: str, body: bytes) -> Failure | None:  # noqa: ARG002 (services know no key)
        """Send one notification once; None = the service took it."""
        if self._running is not None and not self._running.done():
            return Failure("the attempt before has not ended")
        title, text = self.title_and_text(body)
        outcome: concurrent.futures.Future[bool] = concurrent.futures.Future()
        outcome.set_running_or_notify_cancel()
        self._running = outcome
        # A daemon thread: the event loop would wait at its end for a thread of its executor.
        Thread(target=_notify, args=(self._url, title, text, outcome), name=f"apprise {self.name}", daemon=True).start()
        try:
            async with asyncio.timeout(self._limit_s):
                is_taken = await asyncio.shield(asyncio.wrap_future(outcome))
        except TimeoutError:
            return Failure(f"no answer within {self._limit_s:g} s")
        return None if is_taken else Failure("the service did not take it; `monitor notify test` tries it again")

    def content(self, body: bytes) -> bytes:
        """Return subject and text below each other."""
        title, text = self.title_and_text(body)
        return f"{title}\n\n{text}".encode()

    async def close(self) -> None:
        """Leave a running attempt alone."""

    def title_and_text(self, body: bytes) -> tuple[str, str]:
        """Return the subject and the text of the message."""
        message = message_of(body, self._template, self._zone)
        links = "".join(f"\n{label}: {url}" for label, url in message.links)
        return message.title, f"{message.text}\n{links}" if links else message.text


def check_address(config: NotifyConfig) -> None:
    """Raise ConfigError if Apprise is missing, or does not know the address. No connection is made."""
    logging.getLogger("apprise").disabled = True
    try:
        import apprise
    except ImportError:
        raise ConfigError(f"[[notify]] {config.name}: kind apprise needs the extra notify: {EXTRA}") from None
    if not apprise.Apprise().add(config.url):
        service = config.url.partition("://")[0]
        raise ConfigError(f"[[notify]] {config.name}: Apprise does not know this {service}:// address; see its manual")


def _notify(url: str, title: str, text: str, outcome: concurrent.futures.Future[bool]) -> None:
    import apprise

    try:
        service = apprise.Apprise()
        is_taken = bool(service.add(url)) and bool(
            service.notify(body=text, title=title, body_format=apprise.NotifyFormat.TEXT)
        )
    except Exception:  # noqa: BLE001 (a plugin's error, whatever it is, is the outcome)
        is_taken = False
    outcome.set_result(is_taken)
