"""A wrong wall clock for chosen processes, by libfaketime: it jumps by up to a day, forward and back.

Input: the library and a folder. Output: environment variables. Processes with them see the jumps, in Python and in C.
Invariant: monotonic time is unchanged.
"""

from __future__ import annotations

import random
import threading
from pathlib import Path

JUMPS_S = (0, 0, -1, 1, -3600, 3600, -86_400, 86_400)
"""A failed notification older than three days is given up. Two clocks at the ends of this range are two days apart."""
EVERY_S = (1.0, 4.0)


def find_library() -> Path | None:
    """Return Debian's libfaketime, if it is installed."""
    return next(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"), None)


class WrongClock:
    """One wrong clock. Context manager: it jumps while the context lasts."""

    def __init__(self, library: Path, folder: Path, seed: int) -> None:
        self._file = folder / "clock"
        self._rng = random.Random(f"clock/{seed}")
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._jump, daemon=True)
        self.n_jumps = 0
        self._show(0)
        self.environment = {
            "LD_PRELOAD": str(library),
            "FAKETIME_TIMESTAMP_FILE": str(self._file),
            "FAKETIME_CACHE_DURATION": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        }

    def __enter__(self) -> WrongClock:
        self._thread.start()
        return self

    def __exit__(self, *_exc: object) -> None:
        self._over.set()
        self._thread.join()

    def _jump(self) -> None:
        while not self._over.wait(self._rng.uniform(*EVERY_S)):
            self._show(self._rng.choice(JUMPS_S))
            self.n_jumps += 1

    def _show(self, ahead_s: int) -> None:
        new = self._file.with_suffix(".new")
        new.write_text(f"{ahead_s:+d}\n")
        new.replace(self._file)
