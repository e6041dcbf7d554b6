"""Time that is a number, and processes that can be frozen or killed between any two steps.

`SimulatedLoop` is asyncio's own loop without a selector: where it would wait, it sets its clock forward. A `Process`
stands for one daemon: all that it does to the outside goes through `pause`, so it can be made to stop there, for a
while (SIGSTOP) or for good (kill -9). The dead are not cancelled: nothing of theirs runs again, no `finally` either.
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
    """Nothing is left that could ever happen, or it has gone on for too long."""


class SimulatedLoop(asyncio.BaseEventLoop):
    """Runs what is ready in order of arrival; then jumps to the next timer."""

    def __init__(self, most_steps: int = 200_000) -> None:
        super().__init__()
        self._now_s = 0.0
        self._steps_left = most_steps
        self._selector = self
        self._dead: list[asyncio.Future[None]] = []

    def time(self) -> float:
        return self._now_s

    def select(self, timeout: float | None) -> list[Any]:
        """Stand in for the selector: waiting takes no time."""
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
        """There is one thread: whoever asks to be woken up is awake."""

    def run(self, main: Coroutine[Any, Any, Any]) -> None:
        """Run to the end, then let nothing survive."""
        self.set_exception_handler(lambda _loop, _context: None)  # who cares for what the dead leave behind
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
    """One daemon's life. It may be frozen and thawed, and it dies once."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.died = asyncio.Event()
        self.thaws_at = 0.0
        loop = asyncio.get_running_loop()
        assert isinstance(loop, SimulatedLoop)
        self._loop = loop

    @property
    def is_dead(self) -> bool:
        return self.died.is_set()

    @property
    def is_frozen(self) -> bool:
        return self._loop.time() < self.thaws_at

    async def pause(self, seconds: float) -> None:
        """Let time pass. Returns when the process runs again; never to the dead."""
        await asyncio.sleep(seconds)
        while self.is_frozen:  # noqa: ASYNC110  # it may be frozen again meanwhile, and time costs nothing here
            await asyncio.sleep(self.thaws_at - self._loop.time())
        if self.is_dead:
            await self._loop.never()

    def freeze(self, seconds: float) -> None:
        """SIGSTOP, and SIGCONT after so long."""
        self.thaws_at = max(self.thaws_at, self._loop.time() + seconds)

    def die(self) -> None:
        """kill -9."""
        self.died.set()


def simulated_now_us() -> int:
    """Return the right time: simulated µs since 1970. Before and after a run, its start."""
    with contextlib.suppress(RuntimeError):
        return START_US + round(asyncio.get_running_loop().time() * 1e6)
    return START_US


class SimulatedClock:
    """A `monitor.clock.Clock` of one process. Its wall clock may jump; the time it measures with never does."""

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
