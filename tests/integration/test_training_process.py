"""The end of the training process when its daemon has ended."""

from __future__ import annotations

import socket
import subprocess
import sys
from typing import TYPE_CHECKING

import msgspec

from monitor.lifecycle.training_process import TrainingOrder

if TYPE_CHECKING:
    from pathlib import Path


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
