"""Is the event loop turning? Measured inside it, noticed from outside it, told to systemd.

Heartbeats to Kafka share the loop: one that stands still for a session's time loses its partitions, and whoever runs in
it cannot say so. So a thread of its own looks at when the loop turned last, and logs the stack that holds it up.

The law: the thread reads numbers that the loop writes, and waits for nothing to do so. A call that keeps Python's
interpreter lock stops this thread too; systemd's watchdog is for that.
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

if TYPE_CHECKING:
    from collections.abc import Callable

log = logs.get("watchdog")

TURN_EVERY_S = 0.5
"""How often the loop says that it turns, and how often the thread looks."""
BLOCKED_S = 5.0
"""Silence of the loop that is worth a line with its stack."""
STOOD_STILL_S = 3.0
"""The thread itself came this late: the whole process had no CPU, and the stack is innocent."""
WORST_OF_S = 60.0
"""Over how long `worst_lag_s` is the maximum."""
N_FRAMES = 16
"""Innermost frames that are logged."""


class LoopWatch:
    """Watches the event loop it is entered in. `each_turn` is called inside the loop, with the time, twice a second."""

    def __init__(
        self,
        each_turn: Callable[[float], None] = lambda _now: None,
        *,
        session_s: float = 30.0,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._each_turn = each_turn
        self._session_s = session_s
        """Silence after which Kafka gives our partitions to others."""
        self._monotonic = monotonic
        now = monotonic()
        self._turned_at_s = now
        self._lags: deque[tuple[float, float]] = deque()
        """(when, lag) of the last minute, each smaller than those before it: the first is the worst."""
        self._worst_s = 0.0
        self._longest_s = 0.0
        """The longest silence since the last one that was told."""
        self._looked_at_s = now
        self._excused_until_s = now
        self._blocked_since_s: float | None = None
        self._is_warned = False
        self._thread_id = 0
        self._task: asyncio.Task[None] | None = None
        self._thread = threading.Thread(target=self._look_on, name="watchdog", daemon=True)
        self._closing = threading.Event()

    async def __aenter__(self) -> Self:
        self._thread_id = threading.get_ident()
        self.turned(self._monotonic())
        self._task = asyncio.create_task(self._turn_on())
        self._thread.start()
        return self

    async def __aexit__(self, *_exc: object) -> None:
        self._closing.set()
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})
        self._thread.join(2 * TURN_EVERY_S)

    # ------------------------------------------------------------------ in the loop

    def turned(self, now: float) -> None:
        """Say that the loop turns."""
        silence_s = now - self._turned_at_s
        lag_s = max(0.0, silence_s - TURN_EVERY_S)
        while self._lags and self._lags[-1][1] <= lag_s:
            self._lags.pop()
        self._lags.append((now, lag_s))
        while now - self._lags[0][0] > WORST_OF_S:
            self._lags.popleft()
        self._worst_s = self._lags[0][1]
        self._longest_s = max(self._longest_s, silence_s)
        self._turned_at_s = now
        self._each_turn(now)

    async def _turn_on(self) -> None:
        is_told = False
        while True:
            await asyncio.sleep(TURN_EVERY_S)
            try:
                self.turned(self._monotonic())
            except Exception:  # a defect in what only looks must not pass for a loop that hangs: no restart mends it
                if not is_told:
                    log.exception("health_unknown", doing="going on; /ready says no until it can be told again")
                is_told = True

    # ------------------------------------------------------------------ from any thread

    def silent_s(self, now: float) -> float:
        """Return for how long the loop has not turned; up to half a second is what it should be."""
        return now - self._turned_at_s

    def worst_lag_s(self, now: float) -> float:
        """Return how late the loop came at worst within the last minute, this very moment included."""
        return max(self._worst_s, self.silent_s(now) - TURN_EVERY_S)

    # ------------------------------------------------------------------ in the watching thread

    def look(self, now: float) -> None:
        """Notice that the loop stands still, and that it turns again."""
        since_look_s, self._looked_at_s = now - self._looked_at_s, now
        if since_look_s > STOOD_STILL_S:
            # SIGSTOP, a suspended machine, a starved container. The loop gets a moment to come back, too.
            self._excused_until_s = now
            log.warning(
                "process_stood_still",
                seconds=round(since_look_s, 1),
                meaning="the whole process had no CPU; Kafka heard no heartbeat in that time",
            )
        silent_s = now - max(self._turned_at_s, self._excused_until_s)
        if self._blocked_since_s is not None and self._turned_at_s > self._blocked_since_s:
            self._tell_free()
        if silent_s > BLOCKED_S and self._blocked_since_s is None:
            self._blocked_since_s = self._turned_at_s
            self._longest_s = 0.0
            metrics.loop_blocked.inc()
            log.error("loop_blocked", seconds=round(silent_s, 1), stack=stack_of(self._thread_id))
        if silent_s > self._session_s / 2 and self._blocked_since_s is not None and not self._is_warned:
            self._is_warned = True
            log.error(
                "partitions_at_risk",
                seconds=round(silent_s, 1),
                meaning=f"no heartbeat reaches Kafka while the loop stands still; after {self._session_s:.0f} s the "
                "group gives our partitions to other daemons, and what we hold of them is dropped",
                stack=stack_of(self._thread_id),
            )

    def _tell_free(self) -> None:
        longest_s, self._longest_s = self._longest_s, 0.0
        self._blocked_since_s, self._is_warned = None, False
        may_be_lost = longest_s > self._session_s / 2
        log.warning("loop_free", after_s=round(longest_s, 1), partitions_may_be_lost=may_be_lost)

    def _look_on(self) -> None:
        while not self._closing.wait(TURN_EVERY_S):
            self.look(self._monotonic())


def stack_of(thread_id: int) -> list[str]:
    """Say where a thread is: "folder/file.py:line function", the innermost last. Places only, no values."""
    frame = sys._current_frames().get(thread_id)
    places = traceback.extract_stack(frame)[-N_FRAMES:] if frame is not None else []
    return [f"{'/'.join(Path(each.filename).parts[-3:])}:{each.lineno} {each.name}" for each in places]


class Systemd:
    """systemd's side of a unit with `Type=notify`: that we are up, how we do, and that the loop still turns.

    Where nobody listens (no $NOTIFY_SOCKET) nothing happens. Sent from inside the loop: a loop that hangs says nothing,
    and with `WatchdogSec=` systemd then restarts the process.
    """

    def __init__(self) -> None:
        # Taken away: a training in a process of its own must not speak for us.
        address = os.environ.pop("NOTIFY_SOCKET", "")
        self._address = f"\0{address[1:]}" if address.startswith("@") else address
        limit_us = os.environ.pop("WATCHDOG_USEC", "")
        self._every_s = int(limit_us) / 1e6 / 4 if limit_us.isdigit() else 5.0
        self._said = ""
        self._next_s = 0.0

    def turned(self, now: float, status: Callable[[], str]) -> None:
        """Say that the loop turns, a few times within systemd's limit; the first time also that we are up."""
        if not self._address or now < self._next_s:
            return
        words = ["WATCHDOG=1"] if self._next_s else ["READY=1", "WATCHDOG=1"]
        self._next_s = now + self._every_s
        if (said := status()) != self._said:
            self._said = said
            words.append(f"STATUS={said}")
        self._send(words)

    def stopping(self) -> None:
        """Say that we drain."""
        if self._address:
            self._send(["STOPPING=1"])

    def _send(self, words: list[str]) -> None:
        # Never waited for: a full socket, or a manager that restarts, must not hold up the loop.
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
            channel.setblocking(False)
            channel.sendto("\n".join(words).encode(), self._address)
