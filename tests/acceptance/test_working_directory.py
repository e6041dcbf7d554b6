"""A `monitor.py`, `torch.py` or `logging.py` in the working directory is imported by no process that monitor starts."""

from __future__ import annotations

import ast
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests import labelled_recording
from tests.daemon_process import process_environment
from tests.servers import ROOT

if TYPE_CHECKING:
    from pathlib import Path

HOSTILE = ("monitor", "torch", "numpy", "logging", "json", "socket", "msgspec", "pip", "multiprocessing")
TRAIN = """
import asyncio
from monitor.errors import MonitorError
from monitor.lifecycle.training_process import TrainingOrder, run_training_process
async def ignore(_share, _text): pass
try:
    asyncio.run(run_training_process(TrainingOrder("none.toml", "pumps", None, {}), ignore))
except MonitorError as error:
    print(error)
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A working directory whose modules leave a file when they are imported."""
    for name in HOSTILE:
        text = f"open({str(tmp_path / 'imported')!r}, 'a').write('{name} ')\nraise SystemExit(9)\n"
        (tmp_path / f"{name}.py").write_text(text)
    return tmp_path


def python(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run Python in the folder, itself with -P: how the first process is started is the user's choice."""
    done = subprocess.run(
        [sys.executable, "-P", *arguments],
        cwd=folder, capture_output=True, text=True, timeout=120, check=False, env=process_environment(),
    )  # fmt: skip
    imported = folder / "imported"
    assert not imported.exists(), imported.read_text()
    return done


def test_a_training_imports_nothing_from_the_working_directory(folder: Path) -> None:
    done = python(folder, "-c", TRAIN)
    assert "none.toml" in done.stdout, done.stdout + done.stderr


def test_evaluating_processes_import_nothing_from_there(folder: Path) -> None:
    files = [str(labelled_recording.write_csv(folder / "plant" / f"{name}.csv")) for name in ("pump", "fan")]
    done = python(folder, "-m", "monitor", "evaluate", *files, "--methods", "pca", "--processes", "2", "--json")
    assert done.returncode == 0, done.stderr
    assert '"pca"' in done.stdout


def test_the_modules_are_hostile(folder: Path) -> None:
    """Without -P the same folder takes the process over, so the tests above can fail."""
    subprocess.run([sys.executable, "-c", "import json"], cwd=folder, check=False, env=process_environment())
    assert (folder / "imported").read_text()


def test_every_start_of_python_has_the_option() -> None:
    commands = [
        (path, ast.unparse(node))
        for path in (ROOT / "monitor").rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.List | ast.Call)
        for words in [node.elts if isinstance(node, ast.List) else node.args]
        if len(words) > 1 and ast.unparse(words[0]) == "sys.executable"
    ]
    assert len(commands) >= 4
    assert [f"{path}: {text}" for path, text in commands if "sys.executable, '-P'," not in text] == []
