"""The training process, seen from outside."""

from __future__ import annotations

import socket
import subprocess
import sys
from typing import TYPE_CHECKING

import msgspec

from monitor.lifecycle.training_process import Order

if TYPE_CHECKING:
    from pathlib import Path


def test_a_child_whose_daemon_went_before_it_said_what_to_train_ends_silently() -> None:
    child = subprocess.run([sys.executable, "-m", "monitor.lifecycle"], input=b"", capture_output=True, check=False)
    assert (child.returncode, child.stdout, child.stderr) == (0, b"", b"")


def test_a_child_whose_daemon_dies_while_it_trains_ends_with_it(tmp_path: Path) -> None:
    """Its standard input ends, with the pipe's other end; the broker it reads from here never answers."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        config = tmp_path / "monitor.toml"
        config.write_text(
            f"[kafka]\nbootstrap = '127.0.0.1:{silent.getsockname()[1]}'\ntopics = ['t']\n"
            "[[fleet]]\nname = 'pumps'\ninterval = '1m'\nwindow = 4\n"
        )
        order = msgspec.json.encode(Order(str(config), "pumps", None, {})) + b"\n"
        command = [sys.executable, "-m", "monitor.lifecycle"]
        child = subprocess.run(command, input=order, capture_output=True, check=False, timeout=60)
    assert (child.returncode, child.stdout, child.stderr) == (1, b"", b"")
