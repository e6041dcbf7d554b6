"""Limits of the training process: the lowest useful priority, and a bound on its memory.

Input: the setting `[fleet.retrain] memory_limit`. Output: the process is niced, and ends with an error that names the
setting before the machine runs out of memory.
Invariant: best effort. A system without these means trains without them.

`nice` counts only within an autogroup, where Linux has them: one for each session, each with an equal share of the CPU.
So the process has a session of its own (`training_process.py`), and lowers its autogroup as well. RLIMIT_AS is no bound
on memory: torch and OpenBLAS reserve gigabytes of addresses that they never touch. So a thread reads the resident size.
"""

from __future__ import annotations

import errno
import os
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

NICE = 10
AUTOGROUP_NICE = 5
"""A third of the weight of another session. With 10, a ninth, a training beside twenty busy programs did not end."""
AUTOGROUP = Path("/proc/self/autogroup")
LOOK_EVERY_S = 0.25
"""Between two looks at the memory. A training grows by less than a gigabyte in this time."""
AUTO_SHARE = 0.5
"""Share of the memory of the machine or the container that "auto" allows."""
_CGROUP_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")
_STATM = Path("/proc/self/statm")


def lower_priority() -> None:
    """Let every other process go first."""
    os.nice(NICE)
    if os.getsid(0) != os.getpid():  # started by hand: the autogroup is that of a shell and all its programs
        return
    for _ in range(3):
        try:
            AUTOGROUP.write_text(str(AUTOGROUP_NICE))
        except OSError as error:
            if error.errno == errno.EAGAIN:
                time.sleep(0.2)  # the kernel takes ten changes a second, of all users together
                continue
        return  # lowered, or there are no autogroups here


def memory_limit(setting: int | None) -> int | None:
    """Return the bound on resident memory in bytes. `setting`: None = auto. None = it cannot be known."""
    if setting is not None:
        return setting
    found = []
    with suppress(OSError, ValueError):
        found.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    for path in _CGROUP_LIMITS:
        with suppress(OSError, ValueError):  # "max": there is no limit
            found.append(int(Path(path).read_text()))
    return round(min(found) * AUTO_SHARE) if found else None


def resident_bytes() -> int:
    """Return the resident memory of this process. 0 = the system does not say."""
    try:
        return int(_STATM.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        return 0


def watch_memory(limit: int | None, on_excess: Callable[[str], None]) -> None:
    """Call `on_excess` with a sentence, from a thread, once the process has more resident memory than `limit` bytes."""
    if limit is None:
        return

    def watch() -> None:
        while (used := resident_bytes()) <= limit:
            time.sleep(LOOK_EVERY_S)
        on_excess(
            f"the training needed {used / 1e9:.2f} GB of memory, and {limit / 1e9:.2f} GB are allowed; raise"
            " [fleet.retrain] memory_limit, or shorten history"
        )

    threading.Thread(target=watch, daemon=True, name="memory").start()
