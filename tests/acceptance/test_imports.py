"""The imports of operators' commands: libraries that take time to import are left out."""

from __future__ import annotations

import subprocess
import sys


def test_operators_commands_do_not_import_prometheus_client() -> None:
    code = "import sys, monitor.control, monitor.store.engine; print('prometheus_client' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
