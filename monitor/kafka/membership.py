"""The static member id of a daemon in its consumer group (Kafka's `group.instance.id`, KIP-345).

A killed daemon without such an id leaves a dead member in the group, and its successor waits until that member's
session ends. With the same id the successor takes over the partitions at once.

Input: a folder that outlives the process. Output: an id that no other living process uses. Invariant: the operating
system releases a lock when its process ends, in whatever way. So no living process has the lowest free number.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import socket
import time
from contextlib import contextmanager, suppress
from secrets import token_hex
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

MAX_MEMBERS = 64
"""Daemons of one machine with a common folder. Any further one gets no id, and its successor waits."""
FOLDER_ID_LIMIT_S = 1.0
"""Time for another process to write the folder's id after it has created the file."""


@contextmanager
def static_member_id(folder: Path, group: str) -> Iterator[str | None]:
    """Reserve an id while the context lasts. It is None if the folder is not writable or all numbers are taken."""
    lock, number = _lock_lowest_free(folder, group)
    if lock is None:
        yield None
        return
    try:
        host = re.sub(r"[^A-Za-z0-9._-]", "-", socket.gethostname())[:100]
        folder_id = _folder_id(folder)
        yield f"monitor-{host}-{folder_id}-{number}" if folder_id else None
    finally:
        os.close(lock)


def _folder_id(folder: Path) -> str:
    """Return the folder's random id, which tells apart two containers with the same host name and path."""
    path = folder / ".member-folder"
    try:
        with suppress(FileExistsError), path.open("x") as new:
            new.write(token_hex(4))
        deadline = time.monotonic() + FOLDER_ID_LIMIT_S
        while not (folder_id := path.read_text().strip()) and time.monotonic() < deadline:
            time.sleep(0.01)  # another process has created the file and is about to write
    except OSError:
        return ""
    return folder_id


def _lock_lowest_free(folder: Path, group: str) -> tuple[int | None, int]:
    """Return the file descriptor of the lock, which is None if there is none, and its number."""
    name = hashlib.sha256(group.encode()).hexdigest()[:8]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for number in range(MAX_MEMBERS):
            lock = os.open(folder / f".member-{name}-{number}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(lock)
            else:
                return lock, number
    except OSError:
        pass
    return None, MAX_MEMBERS
