"""Simulated time, and processes that can be suspended or killed between any two steps.

`SimulatedLoop` is asyncio's loop without a selector: instead of waiting it sets its clock forward. A `Process` is one
daemon. All its calls to the outside go through `pause`, where it can be suspended (SIGSTOP) or killed (kill -9). The
tasks of a killed process are not cancelled: none of their code runs again, no `finally` either.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Coroutine
    from random import Random

START_US = 1_700_000_000_000_000


class Stuck(Exception):
    """Every task waits for another one, or the run has too many steps."""


class SimulatedLoop(asyncio.BaseEventLoop):
    """Runs ready callbacks in order of arrival, then jumps to the next timer."""

    def __init__(self, max_steps: int = 200_000) -> None:
        super().__init__()
        self._now_s = 0.0
        self._steps_left = max_steps
        self._selector = self
        self._dead: list[asyncio.Future[None]] = []

    def time(self) -> float:
        return self._now_s

    def select(self, timeout: float | None) -> list[Any]:
        """Replace the selector. Waiting takes no real time."""
        self._steps_left -= 1
        if timeout is None or self._steps_left < 0:
            raise Stuck("every task waits for another" if timeout is None else "no end in sight")
        self._now_s += timeout
        return []

    def never(self) -> asyncio.Future[None]:
        """Return a future that has no result until the run is over.

        The loop keeps it, and so the task that waits for it. Else the garbage collector would close the coroutines of
        dead processes at some later step: their locks would be released, and other coroutines of theirs would go on.
        """
        future = self.create_future()
        self._dead.append(future)
        return future

    def _process_events(self, event_list: list[Any]) -> None:
        assert not event_list

    def _write_to_self(self) -> None:
        """Do nothing: with one thread, the loop is awake."""

    def run(self, main: Coroutine[Any, Any, Any]) -> None:
        """Run to the end, then cancel all remaining tasks."""
        self.set_exception_handler(lambda _loop, _context: None)  # errors of killed processes do not matter
        try:
            self.run_until_complete(main)
        finally:
            self._steps_left = 100_000
            if left := asyncio.all_tasks(self):
                for task in left:
                    task.cancel()
                self.run_until_complete(asyncio.wait(left))
            self.run_until_complete(self.shutdown_asyncgens())
            self.close()


class Process:
    """One process of a daemon. It may be suspended and resumed, and is killed at most once."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.killed = asyncio.Event()
        self.thaws_at = 0.0
        loop = asyncio.get_running_loop()
        assert isinstance(loop, SimulatedLoop)
        self._loop = loop

    @property
    def is_dead(self) -> bool:
        return self.killed.is_set()

    @property
    def is_frozen(self) -> bool:
        return self._loop.time() < self.thaws_at

    async def pause(self, seconds: float) -> None:
        """Let time pass. Return when the process runs again. Never return if it was killed."""
        await asyncio.sleep(seconds)
        while self.is_frozen:  # noqa: ASYNC110  # it may be suspended again meanwhile, and waiting costs nothing here
            await asyncio.sleep(self.thaws_at - self._loop.time())
        if self.is_dead:
            await self._loop.never()

    def freeze(self, seconds: float) -> None:
        """SIGSTOP, and SIGCONT after so many seconds."""
        self.thaws_at = max(self.thaws_at, self._loop.time() + seconds)

    def die(self) -> None:
        """kill -9."""
        self.killed.set()


def simulated_now_us() -> int:
    """Return the correct time in simulated µs since 1970. Outside a run, it is the start of the run."""
    with contextlib.suppress(RuntimeError):
        return START_US + round(asyncio.get_running_loop().time() * 1e6)
    return START_US


class SimulatedClock:
    """A `monitor.clock.Clock` of one process. Its wall clock may jump, its monotonic time never does."""

    def __init__(self, process: Process, rng: Random, jumps: float) -> None:
        self._process = process
        self._rng = rng
        self._jumps = jumps
        self._wrong_us = 0

    def now_us(self) -> int:
        if self._rng.random() < self._jumps:
            self._wrong_us = self._rng.randrange(-86_400_000_000, 86_400_000_000)
        return simulated_now_us() + self._wrong_us

    def monotonic_s(self) -> float:
        return asyncio.get_running_loop().time()

    async def sleep(self, seconds: float) -> None:
        await self._process.pause(seconds)
