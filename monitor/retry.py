"""Retries of a call while one of the daemon's dependencies is unavailable.

Input: an awaitable call that is safe to repeat, and the pause between two attempts. Output: its result. Invariant: only
transient errors are repeated, without a limit of attempts. Any other error, and the caller's own cancellation, ends the
wait at once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from monitor.errors import TRANSIENT_ERRORS

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Awaitable, Callable

    from monitor.errors import MonitorError

T = TypeVar("T")


class OutageObserver:
    """Callbacks of one call of `retry_transient`. The default callbacks do nothing."""

    def failed(self, error: MonitorError, n_failures: int) -> None:
        """Note a failed attempt that will be repeated. `n_failures`: 1 at the beginning of the outage."""

    def ended(self) -> None:
        """Note the end of an outage, by success, another error or cancellation. Called once if any attempt failed."""


async def retry_transient(
    work: Callable[[], Awaitable[T]],
    *,
    pause: Callable[[], Awaitable[object]],
    errors: tuple[type[MonitorError], ...] = TRANSIENT_ERRORS,
    observer: OutageObserver | None = None,
    stop: asyncio.Event | None = None,
) -> T:
    """Call `work` until it succeeds, and return its result.

    `pause` is awaited between two attempts: `partial(clock.sleep, 2.0)`, or a coroutine function of the caller that
    also keeps a connection alive meanwhile. `errors` are repeated. Once `stop` is set, the next of them is raised.
    """
    observer = observer or OutageObserver()
    n_failures = 0
    try:
        while True:
            try:
                return await work()
            except errors as error:
                if stop is not None and stop.is_set():
                    raise
                n_failures += 1
                observer.failed(error, n_failures)
            await pause()
    finally:
        if n_failures:
            observer.ended()


def backoff_s(n_failures: int, *, first_s: float, longest_s: float) -> float:
    """Return the seconds to wait after the n-th failure in a row, n ≥ 1: doubled each time, up to `longest_s`."""
    return min(first_s * 2.0 ** min(n_failures - 1, 30), longest_s)
