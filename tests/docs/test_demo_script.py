"""deploy/demo with a uv that only notes its arguments: which build of PyTorch it takes, and what it tells."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.needs import need
from tests.servers import ROOT

UV = """#!/bin/sh
echo "$*" >>"$LOG"
case "$*" in
  *--torch-backend=cpu*) [ ! "$WITHOUT_INDEX" ] || exit 1
    mkdir -p "$ROOT/.venv/lib/python3.12/site-packages/torch-2.15.0+cpu.dist-info" ;;
  *sync*|*--editable*) mkdir -p "$ROOT/.venv/bin"
    printf '#!/bin/sh\\necho "started: $*"' >"$ROOT/.venv/bin/monitor"; chmod +x "$ROOT/.venv/bin/monitor" ;;
  --version|*venv*) ;;
  *export*) echo torch==2.15.0; echo nvidia-cudnn==9 ;;
esac
"""


class Script:
    """A clone of the project with nothing but what deploy/demo reads."""

    def __init__(self, folder: Path) -> None:
        self.root = folder
        self.log = folder / "uv.log"
        (folder / "bin").mkdir()
        (folder / "deploy").mkdir()
        for name in ("demo", "python.sh"):
            shutil.copy(ROOT / "deploy" / name, folder / "deploy" / name)
        (folder / "uv.lock").touch()
        self.program("uv", UV)
        self.program("nvidia-smi", "#!/bin/sh\nexit 1\n")

    def program(self, name: str, text: str) -> None:
        (self.root / "bin" / name).write_text(text)
        (self.root / "bin" / name).chmod(0o755)

    def run(self, *arguments: str, **environment: str) -> str:
        self.log.write_text("")
        path = f"{self.root / 'bin'}:{Path(sys.executable).parent}:{os.environ['PATH']}"
        done = subprocess.run(
            [self.root / "deploy" / "demo", *arguments],
            capture_output=True, text=True, check=False, timeout=60,
            env={"PATH": path, "ROOT": str(self.root), "LOG": str(self.log), "WITHOUT_INDEX": "", **environment},
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    @property
    def cpu(self) -> bool:
        """Whether the CPU build was asked for in the last run."""
        return "--torch-backend=cpu" in self.log.read_text()

    @property
    def default(self) -> bool:
        """Whether the environment was made from the lock file in the last run."""
        return "sync" in self.log.read_text()


@pytest.fixture
def script(tmp_path: Path) -> Script:
    need(sys.platform == "linux" and not Path("/proc/driver/nvidia/version").exists(), "Linux without an NVIDIA driver")
    need(shutil.disk_usage(tmp_path).free > 9e9, "9 GB of free disk, which deploy/demo asks for")
    return Script(tmp_path)


def test_without_a_driver_the_cpu_build_is_taken(script: Script) -> None:
    said = script.run("--folder", "x")
    assert (script.cpu, script.default) == (True, False)
    assert "0.4 GB with PyTorch's CPU build" in said
    assert said.splitlines()[-1] == "started: demo --folder x"
    assert (script.root / ".cache" / "versions.txt").read_text() == "torch==2.15.0\n"
    script.run()
    assert (script.cpu, script.default) == (True, False), "an environment keeps its build"


def test_with_a_driver_the_default_build_is_taken_unless_asked(script: Script) -> None:
    script.program("nvidia-smi", "#!/bin/sh\nexit 0\n")
    said = script.run("--cpu", "--live")
    assert (script.cpu, script.default) == (True, False)
    assert said.splitlines()[-1] == "started: demo --live"
    shutil.rmtree(script.root / ".venv")
    script.run()
    assert (script.cpu, script.default) == (False, True)
    assert "has PyTorch with CUDA already" in script.run("--cpu")
    assert (script.cpu, script.default) == (False, True)


def test_without_its_index_the_default_build_is_taken(script: Script) -> None:
    said = script.run(WITHOUT_INDEX="1")
    assert (script.cpu, script.default) == (True, True)
    assert "PyTorch's own index, which has the CPU build, cannot be used here: taking the default build." in said
    assert "started: demo" in said
