"""Standard streams that a shell may leave: a full disk, a closed pipe, no stdout at all, an encoding without signs."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests import example_database

COMMANDS = ["alerts list", "alerts list --json", "scores show R80711 --json --limit 0", "models show", "--help"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("streams")
    fleet = '[[fleet]]\nname = "turbines"\ninterval = "10m"\n'
    (folder / "monitor.toml").write_text(f'kafka = {{bootstrap = "127.0.0.1:9", topics = ["plant"]}}\n{fleet}')
    asyncio.run(example_database.fill(folder / "monitor.db"))
    return folder


def shell(line: str, folder: Path, **variables: str) -> subprocess.CompletedProcess[bytes]:
    line = line.replace("MONITOR", f"{sys.executable} -m monitor")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), **variables}
    return subprocess.run(["bash", "-c", line], cwd=folder, env=environment, capture_output=True, timeout=60)


@pytest.mark.parametrize("command", COMMANDS)
def test_a_full_disk_is_a_sentence_and_a_failure(command: str, folder: Path) -> None:
    done = shell(f"MONITOR {command} > /dev/full", folder)
    assert done.returncode == 1
    expected = "monitor: The output could not be written: standard output: No space left on device\n"
    assert done.stderr.decode() == expected


@pytest.mark.parametrize("command", COMMANDS)
def test_a_reader_that_leaves_is_no_failure(command: str, folder: Path) -> None:
    done = shell(f"MONITOR {command} | head -c 1 > /dev/null; exit ${{PIPESTATUS[0]}}", folder)
    assert (done.returncode, done.stderr) == (0, b"")


def test_a_closed_stdout_is_a_sentence_and_a_failure(folder: Path) -> None:
    done = shell("MONITOR alerts list >&-", folder)
    assert done.returncode == 1
    assert done.stderr.decode() == "monitor: The output could not be written: standard output: it is closed\n"


@pytest.mark.parametrize("streams", ["2>&-", "2>/dev/full", "<&- 2>&-"])
def test_lost_messages_do_not_end_the_work(streams: str, folder: Path) -> None:
    assert shell(f"MONITOR alerts list {streams}", folder).stdout.startswith(b"id ")
    assert shell(f"MONITOR alerts list --bad {streams}", folder).returncode == 2


@pytest.mark.parametrize("encoding", ["latin-1", "ascii", "cp437", "utf-8"])
def test_any_encoding_can_be_printed(encoding: str, folder: Path) -> None:
    for command in COMMANDS:
        done = shell(f"MONITOR {command}", folder, PYTHONIOENCODING=encoding)
        assert (done.returncode, done.stderr) == (0, b"")
    rows = shell("MONITOR alerts list --json", folder, PYTHONIOENCODING=encoding).stdout
    assert len(json.loads(rows.decode("utf-8" if encoding == "ascii" else encoding))) == 2


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs /proc: the signals that a process handles")
def test_a_stop_during_the_imports_is_a_clean_stop(folder: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    args = [sys.executable, "-m", "monitor", "run"]
    with subprocess.Popen(args, cwd=folder, env=environment, stderr=subprocess.PIPE) as process:
        while not handles(process.pid, signal.SIGTERM) and process.poll() is None:
            time.sleep(0.005)
        process.terminate()
        _, stderr = process.communicate(timeout=60)
    assert (process.returncode, stderr) == (0, b"")


def handles(pid: int, number: signal.Signals) -> bool:
    [caught] = re.findall(r"^SigCgt:\s*(\w+)$", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    return bool(int(caught, 16) >> (number - 1) & 1)
