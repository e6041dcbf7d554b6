"""Signals to stop, and the limits of a stop.

Input: SIGTERM or SIGINT. Output: an event that the daemon waits for, and a forced exit should anything hang. Invariant:
a stop takes at most `Timing.stop_limit_s`; a second signal ends the process at once.
"""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from typing import TYPE_CHECKING, TypeVar

from monitor import logs

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from monitor.timing import Timing

log = logs.get("daemon")
T = TypeVar("T")


class StopRequested(BaseException):
    """The signal came before the pipeline ran: there is nothing to drain."""


def stop_on_signals(timing: Timing) -> asyncio.Event:
    """Return an event that the first SIGTERM or SIGINT sets. Call it in the running event loop."""
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()

    def stop(number: signal.Signals) -> None:
        if stopping.is_set():
            os._exit(128 + number)
        stopping.set()
        # A thread: the event loop itself may hang, or a thread that the interpreter's exit waits for.
        timer = threading.Timer(timing.stop_limit_s, force_exit)
        timer.daemon = True
        timer.start()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop, number)
    return stopping


def force_exit() -> None:
    """End the process at once. The next start reads the committed state, as after a kill."""
    log.warning("stop_cut_short", meaning="something hangs; nothing that was saved is lost")
    os._exit(0)


async def unless_stopped(work: Coroutine[object, object, T], stopping: asyncio.Event, grace_s: float) -> T:
    """Await `work`, or cancel it at the signal and give it `grace_s` to end. Raises StopRequested."""
    if stopping.is_set():
        work.close()
        raise StopRequested
    task, stopper = asyncio.create_task(work), asyncio.create_task(stopping.wait())
    try:
        await asyncio.wait({task, stopper}, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            return task.result()
        task.cancel()
        await asyncio.wait({task}, timeout=grace_s)
        raise StopRequested
    finally:  # also when a background task has failed
        stopper.cancel()
        task.cancel()
