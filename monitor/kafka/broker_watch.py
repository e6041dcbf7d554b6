"""The health of a consumer: the broker's silence, waiting records, failed polls.

Input: the outcomes of polls and pings. Output: the moments to ping, and to replace the consumer. Invariant: it measures
processing time only, so no result depends on it.
"""

from __future__ import annotations

import time
from collections import deque
from typing import TYPE_CHECKING

from monitor import logs

if TYPE_CHECKING:
    from monitor.timing import Timing

log = logs.get("source")

MAX_FAILURES = 3
"""Failed polls within `FAILURES_WITHIN_S` after which the consumer is replaced."""
FAILURES_WITHIN_S = 10.0


class BrokerWatch:
    """The health of one consumer. Another consumer gets another watch."""

    def __init__(self, bootstrap: str, timing: Timing) -> None:
        self._bootstrap = bootstrap
        self._timing = timing
        self._last_received_s = self._last_ping_s = time.monotonic()
        self._records_wait = False
        self._failures: deque[float] = deque(maxlen=MAX_FAILURES)
        self.unreachable_since_s: float | None = None

    def answered(self, *, records_wait: bool) -> None:
        """Note that the broker answered. `records_wait`: it has records that it did not deliver."""
        if not records_wait:
            self._last_received_s = time.monotonic()
        self._records_wait = records_wait
        if self.unreachable_since_s is not None:
            after_s = round(time.monotonic() - self.unreachable_since_s, 1)
            log.info("broker_back", bootstrap=self._bootstrap, after_s=after_s)
            self.unreachable_since_s = None

    def unreachable(self, error: BaseException) -> None:
        """Note that the broker did not answer."""
        self._records_wait = False
        if self.unreachable_since_s is None:
            self.unreachable_since_s = time.monotonic()
            detail = "no answer" if isinstance(error, TimeoutError) else str(error) or repr(error)
            log.warning("broker_away", bootstrap=self._bootstrap, error=detail, doing="waiting for it")

    def should_ping(self) -> bool:
        """Return True if it is time to ping the broker. The caller must then do so."""
        now_s = time.monotonic()
        if now_s - max(self._last_received_s, self._last_ping_s) < self._timing.ping_after_s:
            return False
        self._last_ping_s = now_s
        return True

    def is_stalled(self) -> bool:
        """Return True if the broker has had records for too long without delivering any: the consumer is unusable."""
        return self._records_wait and time.monotonic() - self._last_received_s > self._timing.consumer_stalled_after_s

    def failed_too_often(self) -> bool:
        """Note a failed poll. Return True if too many failed in a short time."""
        now_s = time.monotonic()
        self._failures.append(now_s)
        return len(self._failures) == MAX_FAILURES and now_s - self._failures[0] < FAILURES_WITHIN_S
