"""A name of our own in the consumer group, the same after a restart: Kafka's static membership (KIP-345).

Without it a daemon that was killed leaves a dead member behind, and the one started in its place waits for that one's
session to end. With it the new one takes the dead one's partitions over at once.

Enters: a folder that stays where it is. Leaves: a name that no other living process has. The law: the operating system
drops a lock with its process, however that ends; so the lowest number that nobody holds is a dead one's, or new.
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

MOST = 64
"""Daemons on one machine that share a folder; what comes after has no name and waits, as all did before."""


@contextmanager
def static_member_id(folder: Path, group: str) -> Iterator[str | None]:
    """Hold the name for as long as the context lasts. None = the folder cannot be written to, or all are taken."""
    lock, number = _lowest_free(folder, group)
    if lock is None:
        yield None
        return
    try:
        host = re.sub(r"[^A-Za-z0-9._-]", "-", socket.gethostname())[:100]
        token = _token(folder)
        yield f"monitor-{host}-{token}-{number}" if token else None
    finally:
        os.close(lock)


def _token(folder: Path) -> str:
    """Read what tells this folder from any other: two containers may share a host's name and a path."""
    path = folder / ".member-folder"
    try:
        with suppress(FileExistsError), path.open("x") as new:
            new.write(token_hex(4))
        deadline = time.monotonic() + 1.0
        while not (token := path.read_text().strip()) and time.monotonic() < deadline:
            time.sleep(0.01)  # whoever made it is about to write
    except OSError:
        return ""
    return token


def _lowest_free(folder: Path, group: str) -> tuple[int | None, int]:
    name = hashlib.sha256(group.encode()).hexdigest()[:8]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for number in range(MOST):
            lock = os.open(folder / f".member-{name}-{number}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(lock)
            else:
                return lock, number
    except OSError:
        pass
    return None, MOST
