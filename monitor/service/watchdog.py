"""The watchdog of the event loop: measures its lag, logs the code that blocks it, and informs systemd.

Kafka's heartbeats run in the same loop. A loop that blocks for a session's time loses its partitions, and no code in
the loop can report that. So a thread compares the time of the last turn with its own clock, and logs the stack of the
loop's thread.

Input: timestamps that the loop writes. Output: log events, a metric, the lag for `Health`. Invariant: the thread waits
for nothing in the loop. A call that holds Python's interpreter lock stops this thread too, which is why systemd has a
watchdog of its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import sys
import threading
import time
import traceback
from collections import deque
from pathlib import Path
from typing import TYPE_CHECKING, Self

from monitor import logs, metrics
from monitor.timing import DEFAULT_TIMING

if TYPE_CHECKING:
    from collections.abc import Callable

    from monitor.timing import Timing

log = logs.get("watchdog")

N_FRAMES = 16
"""Innermost frames that are logged."""


class LoopWatch:
    """Watches the event loop in which it is entered.

    `on_turn` is called in the loop twice a second, with the monotonic time.
    """

    def __init__(
        self,
        on_turn: Callable[[float], None] = lambda _now: None,
        *,
        session_s: float = 30.0,
        timing: Timing = DEFAULT_TIMING,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """`session_s`: silence after which Kafka gives the partitions to other daemons."""
        self._on_turn = on_turn
        self._session_s = session_s
        self._timing = timing
        self._monotonic = monotonic
        now = monotonic()
        self._turned_at_s = now
        self._lags: deque[tuple[float, float]] = deque()
        """(when, lag) of the last minute, each lag smaller than those before it: the first is the worst."""
        self._worst_s = 0.0
        self._longest_s = 0.0
        """The longest silence since the last `loop_free`."""
        self._checked_at_s = now
        self._stalled_until_s = now
        """Until then the whole process had no CPU."""
        self._blocked_since_s: float | None = None
        self._is_warned = False
        self._thread_id = 0
        self._task: asyncio.Task[None] | None = None
        self._thread = threading.Thread(target=self._check_regularly, name="watchdog", daemon=True)
        self._closing = threading.Event()

    async def __aenter__(self) -> Self:
        self._thread_id = threading.get_ident()
        self.record_turn(self._monotonic())
        self._task = asyncio.create_task(self._record_turns())
        self._thread.start()
        return self

    async def __aexit__(self, *_exc: object) -> None:
        self._closing.set()
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})
        self._thread.join(2 * self._timing.loop_turn_every_s)

    # ------------------------------------------------------------------ in the event loop

    def record_turn(self, now: float) -> None:
        """Record that the loop turns."""
        silent_s = now - self._turned_at_s
        lag_s = max(0.0, silent_s - self._timing.loop_turn_every_s)
        while self._lags and self._lags[-1][1] <= lag_s:
            self._lags.pop()
        self._lags.append((now, lag_s))
        while now - self._lags[0][0] > self._timing.loop_lag_window_s:
            self._lags.popleft()
        self._worst_s = self._lags[0][1]
        self._longest_s = max(self._longest_s, silent_s)
        self._turned_at_s = now
        self._on_turn(now)

    async def _record_turns(self) -> None:
        is_logged = False
        while True:
            await asyncio.sleep(self._timing.loop_turn_every_s)
            try:
                self.record_turn(self._monotonic())
            except Exception:  # a defect of `on_turn` must not look like a blocked loop: no restart would mend it
                if not is_logged:
                    log.exception("health_unknown", doing="going on; /ready answers 503 until this succeeds again")
                is_logged = True

    # ------------------------------------------------------------------ from any thread

    def silent_s(self, now: float) -> float:
        """Return the seconds since the last turn. Up to 0.5 s is normal."""
        return now - self._turned_at_s

    def worst_lag_s(self, now: float) -> float:
        """Return the largest delay of the loop within the last minute, the present one included."""
        return max(self._worst_s, self.silent_s(now) - self._timing.loop_turn_every_s)

    # ------------------------------------------------------------------ in the watchdog thread

    def check(self, now: float) -> None:
        """Log that the loop is blocked, or that it turns again."""
        since_check_s, self._checked_at_s = now - self._checked_at_s, now
        if since_check_s > self._timing.process_stalled_after_s:
            # SIGSTOP, a suspended machine, a starved container. The loop gets time to turn again before it is reported.
            self._stalled_until_s = now
            log.warning(
                "process_stood_still",
                seconds=round(since_check_s, 1),
                meaning="the whole process had no CPU; Kafka received no heartbeat in that time",
            )
        silent_s = now - max(self._turned_at_s, self._stalled_until_s)
        if self._blocked_since_s is not None and self._turned_at_s > self._blocked_since_s:
            self._log_end_of_block()
        if silent_s > self._timing.loop_blocked_after_s and self._blocked_since_s is None:
            self._blocked_since_s = self._turned_at_s
            self._longest_s = 0.0
            metrics.loop_blocked.inc()
            log.error("loop_blocked", seconds=round(silent_s, 1), stack=stack_of(self._thread_id))
        if silent_s > self._session_s / 2 and self._blocked_since_s is not None and not self._is_warned:
            self._is_warned = True
            log.error(
                "partitions_at_risk",
                seconds=round(silent_s, 1),
                meaning=f"Kafka receives no heartbeat while the loop is blocked; after {self._session_s:.0f} s the "
                "group gives the partitions to other daemons, and this daemon drops its state of them",
                stack=stack_of(self._thread_id),
            )

    def _log_end_of_block(self) -> None:
        longest_s, self._longest_s = self._longest_s, 0.0
        self._blocked_since_s, self._is_warned = None, False
        may_be_lost = longest_s > self._session_s / 2
        log.warning("loop_free", after_s=round(longest_s, 1), partitions_may_be_lost=may_be_lost)

    def _check_regularly(self) -> None:
        while not self._closing.wait(self._timing.loop_turn_every_s):
            self.check(self._monotonic())


def stack_of(thread_id: int) -> list[str]:
    """Return the stack of a thread as "folder/file.py:line function", innermost last, without values."""
    frame = sys._current_frames().get(thread_id)
    places = traceback.extract_stack(frame)[-N_FRAMES:] if frame is not None else []
    return [f"{'/'.join(Path(each.filename).parts[-3:])}:{each.lineno} {each.name}" for each in places]


class Systemd:
    """Notifications to systemd for a unit with `Type=notify`: ready, status, watchdog and stopping.

    Without $NOTIFY_SOCKET nothing is sent. The messages are sent from the event loop: a loop that blocks sends none,
    and with `WatchdogSec=` systemd restarts the process.
    """

    def __init__(self) -> None:
        # Removed from the environment: the training process must not notify systemd in place of this one.
        address = os.environ.pop("NOTIFY_SOCKET", "")
        self._address = f"\0{address[1:]}" if address.startswith("@") else address
        limit_us = os.environ.pop("WATCHDOG_USEC", "")
        self._every_s = int(limit_us) / 1e6 / 4 if limit_us.isdigit() else 5.0
        self._status = ""
        self._next_s = 0.0

    def loop_turned(self, now: float, status: Callable[[], str]) -> None:
        """Send the watchdog signal four times within systemd's limit; the first time also READY, and a new status."""
        if not self._address or now < self._next_s:
            return
        lines = ["WATCHDOG=1"] if self._next_s else ["READY=1", "WATCHDOG=1"]
        self._next_s = now + self._every_s
        if (current := status()) != self._status:
            self._status = current
            lines.append(f"STATUS={current}")
        self._send(lines)

    def stopping(self) -> None:
        """Send that the daemon drains."""
        if self._address:
            self._send(["STOPPING=1"])

    def _send(self, lines: list[str]) -> None:
        # Without waiting: a full socket, or a manager that restarts, must not block the loop.
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
            channel.setblocking(False)
            channel.sendto("\n".join(lines).encode(), self._address)
