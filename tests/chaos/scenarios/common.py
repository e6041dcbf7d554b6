"""What several scenarios do: wait while faults heal, and say what did not happen."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tests.chaos.figures import Figures
    from tests.chaos.stage import Stage


class Later:
    """What is to be done at a time of its own: faults heal while others begin."""

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


def vacuity(figures: Figures, *, of: Sequence[str] = ("rebuilt", "late", "quarantined", "duplicate", "alerts")) -> None:
    """What should have happened, and did not."""
    figures.vacuous += [f"no {name}" for name in of if not getattr(figures, name)]


def wait(stage: Stage, later: Later, seconds: float) -> None:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        later.tick()
        stage.look()
        time.sleep(0.05)
