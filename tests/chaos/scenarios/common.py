"""Parts of several scenarios: wait while faults end, and check that they occurred."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tests.chaos.environment import Environment
    from tests.chaos.figures import Figures


class Later:
    """Calls at a later time: some faults end while others begin."""

    def __init__(self) -> None:
        self._due: list[tuple[float, Callable[[], None]]] = []

    def at(self, in_s: float, do: Callable[[], None]) -> None:
        self._due.append((time.monotonic() + in_s, do))

    def tick(self) -> None:
        now = time.monotonic()
        due = [each for each in self._due if each[0] <= now]
        self._due = [each for each in self._due if each[0] > now]
        for _, do in due:
            do()


def require(figures: Figures, *, of: Sequence[str] = ("rebuilt", "late", "quarantined", "duplicate", "alerts")) -> None:
    """Note the counters that are zero: the run is vacuous then."""
    figures.vacuous += [f"no {name}" for name in of if not getattr(figures, name)]


def wait(env: Environment, later: Later, seconds: float) -> None:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        later.tick()
        env.restart_ended()
        time.sleep(0.05)
