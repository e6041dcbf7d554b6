"""Priority and memory of the training process."""

from __future__ import annotations

import os
import queue
from typing import TYPE_CHECKING

from monitor.lifecycle import child_limits
from monitor.lifecycle.child_limits import memory_limit, resident_bytes, watch_memory

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


def test_the_resident_size_follows_memory_that_is_used() -> None:
    before = resident_bytes()
    used = bytearray(os.urandom(1 << 20) * 100)
    assert 90e6 < resident_bytes() - before < 200e6
    del used


def test_reserved_addresses_are_no_memory() -> None:
    """torch and OpenBLAS reserve gigabytes that they never touch."""
    import mmap

    before = resident_bytes()
    with mmap.mmap(-1, 4 << 30):
        assert resident_bytes() - before < 50e6


def test_too_much_memory_names_the_setting() -> None:
    told: queue.Queue[str] = queue.Queue()
    watch_memory(1_000_000, told.put)
    assert "[fleet.retrain] memory_limit" in told.get(timeout=10)


def test_enough_memory_is_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    looks: queue.Queue[int] = queue.Queue()
    told: queue.Queue[str] = queue.Queue()
    sizes = iter((1, 2, 3, 11))

    def size() -> int:
        looks.put(found := next(sizes))
        return found

    monkeypatch.setattr(child_limits, "resident_bytes", size)
    monkeypatch.setattr(child_limits, "LOOK_EVERY_S", 0.001)
    watch_memory(10, told.put)
    assert told.get(timeout=10).startswith("the training needed 0.00 GB")
    assert looks.qsize() == 4


def test_a_container_halves_its_own_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "memory.max").write_text("800000000\n")
    monkeypatch.setattr(child_limits, "_CGROUP_LIMITS", (str(tmp_path / "memory.max"),))
    assert memory_limit(None) == 400_000_000
    assert memory_limit(5) == 5
    (tmp_path / "memory.max").write_text("max\n")
    assert memory_limit(None) == round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2)
