"""The end of the training process: of its own when its daemon has ended, and by a signal."""

from __future__ import annotations

import socket
import subprocess
import sys
from typing import TYPE_CHECKING

import msgspec
import pytest

from monitor.errors import MonitorError
from monitor.lifecycle import training_process
from monitor.lifecycle.training_process import MAX_RESTARTS, TrainingOrder, run_training_process
from tests.fakes import RecordedLog

if TYPE_CHECKING:
    from pathlib import Path

ORDER = TrainingOrder("monitor.toml", "pumps", None, {}, detail={"filler": "x" * 1_000_000})
"""Larger than a pipe: it is still being written when the process is killed."""


def test_a_process_without_an_order_ends_silently() -> None:
    child = subprocess.run([sys.executable, "-m", "monitor.lifecycle"], input=b"", capture_output=True, check=False)
    assert (child.returncode, child.stdout, child.stderr) == (0, b"", b"")


def test_a_process_ends_with_its_daemon_in_the_middle_of_training(tmp_path: Path) -> None:
    """Its standard input ends while it waits for a broker that never answers."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        config = tmp_path / "monitor.toml"
        config.write_text(
            f"[kafka]\nbootstrap = '127.0.0.1:{silent.getsockname()[1]}'\ntopics = ['t']\n"
            "[[fleet]]\nname = 'pumps'\ninterval = '1m'\nwindow = 4\n"
        )
        order = msgspec.json.encode(TrainingOrder(str(config), "pumps", None, {})) + b"\n"
        command = [sys.executable, "-m", "monitor.lifecycle"]
        child = subprocess.run(command, input=order, capture_output=True, check=False, timeout=60)
    assert (child.returncode, child.stdout, child.stderr) == (1, b"", b"")


def use_script(monkeypatch: pytest.MonkeyPatch, folder: Path, text: str) -> Path:
    """Let a shell script take the place of the training process. Return the file in which it counts its starts."""
    starts, script = folder / "starts", folder / "child"
    script.write_text(f"#!/bin/sh\necho started >> {starts}\n{text}\n")
    script.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(script))
    return starts


async def run(shown: list[tuple[float, str]]) -> str:
    async def on_progress(share: float, text: str) -> None:
        shown.append((share, text))

    return (await run_training_process(ORDER, on_progress)).version


async def test_a_killed_training_starts_again_at_once(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The first is killed while its order is written, the second in the middle of a message."""
    log = RecordedLog()
    monkeypatch.setattr(training_process, "log", log)
    starts = use_script(monkeypatch, tmp_path, f"""
        case $(wc -l < {tmp_path / "starts"}) in
            1) kill -KILL $$ ;;
            2) read order; echo '{{"progress": 0.5}}'; printf '{{"progress": 0.6, "mess'; kill -TERM $$ ;;
        esac
        read order; echo '{{"version": "v3", "path": "p"}}'""")
    shown: list[tuple[float, str]] = []
    assert await run(shown) == "v3"
    assert len(starts.read_text().split()) == 3
    assert shown == [
        (0.0, "killed; starting it again, 1 of 3"), (0.5, ""), (0.0, "killed; starting it again, 2 of 3"),
    ]  # fmt: skip
    first, second = log.of("training_killed")
    assert "memory_limit" in first["why"]
    assert second["why"].endswith("ended by SIGTERM")


async def test_a_training_that_is_always_killed_fails(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    starts = use_script(monkeypatch, tmp_path, "read order; kill -KILL $$")
    with pytest.raises(MonitorError, match=r"killed.*memory_limit.*started 4 times"):
        await run([])
    assert len(starts.read_text().split()) == MAX_RESTARTS + 1 == 4


async def test_a_training_that_fails_is_not_started_again(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    starts = use_script(monkeypatch, tmp_path, "read order; exit 3")
    with pytest.raises(MonitorError, match="ended without a word, exit status 3"):
        await run([])
    assert len(starts.read_text().split()) == 1
