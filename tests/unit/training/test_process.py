"""The training process, seen from outside."""

from __future__ import annotations

import subprocess
import sys


def test_a_child_whose_daemon_went_before_it_said_what_to_train_ends_silently() -> None:
    child = subprocess.run([sys.executable, "-m", "monitor.training"], input=b"", capture_output=True, check=False)
    assert (child.returncode, child.stdout, child.stderr) == (0, b"", b"")
