"""Processes of operators' commands: they import no slow library, start quickly, and end when their reader does."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest

from monitor.cli import COMMANDS
from tests import example_database
from tests.daemon_process import process_environment

if TYPE_CHECKING:
    from pathlib import Path

HEAVY = (
    "torch", "numpy", "sqlalchemy", "pydantic", "structlog", "asyncio", "aiokafka", "rich.table", "alembic",
    "prometheus_client", "httpx", "asyncpg", "aiosqlite",
)  # fmt: skip
HELP = "from monitor.cli import main; main(['--help'])"
RUN = f"""
import sys
from monitor.cli import main
try:
    main(sys.argv[1:])
except SystemExit as exit:
    assert not exit.code, exit.code
print([name for name in {HEAVY!r} if name in sys.modules], file=sys.stderr)
"""
READING = ("alerts list", "alerts show 1", "scores show R80711", "quarantine list", "models list", "models show")


def python(code: str, *arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        cwd=cwd, capture_output=True, text=True, timeout=60, check=False,
        env=process_environment(),
    )  # fmt: skip


def test_help_lists_every_command_and_imports_nothing_heavy() -> None:
    done = python(RUN, "--help")
    assert done.returncode == 0, done.stderr
    assert done.stderr.strip() == "[]"
    assert all(f"\n  {name} " in done.stdout for name in COMMANDS)


def test_the_library_costs_nothing_before_its_use() -> None:
    code = "import monitor, sys; print(*sys.modules); from monitor import Detector; print('torch' in sys.modules)"
    before, after = python(code).stdout.splitlines()
    assert not set(before.split()) & {*HEAVY, "monitor.api", "monitor.errors"}
    assert after == "False"


def test_operators_actions_do_not_import_torch() -> None:
    """A promotion verifies the checkpoint without it."""
    done = python("import sys, monitor.control; print('torch' in sys.modules, 'safetensors' in sys.modules)")
    assert done.stdout.split() == ["False", "True"], done.stderr


def test_a_topic_of_json_loads_no_library_of_another_format() -> None:
    code = """
import sys
import numpy as np
import monitor.kafka.log_reader, monitor.stream.pipeline
from monitor.decode import Decoder, FleetSchema, reading_json
from monitor.types import Partition, RecordBatch

value = reading_json("R1", 10**15, [1.0], ("a",))
batch = RecordBatch(Partition("t", 0), np.arange(1), np.array([10**15]), [b"R1"], [value])
assert Decoder([FleetSchema("f", 10**6, sensors=("a",))]).decode(batch).n_accepted == 1
others = ("fastavro", "google.protobuf", "pyarrow", "line_protocol_parser", "httpx")
print([name for name in others if name in sys.modules])
"""
    done = python(code)
    assert done.stdout.strip() == "[]", done.stderr


def test_help_of_evaluate_imports_nothing_heavy() -> None:
    assert python(RUN, "evaluate", "--help").stderr.strip() == "[]"


def test_help_is_quick() -> None:
    def run() -> float:
        before = time.monotonic()
        python(HELP)
        return time.monotonic() - before

    run()  # compiles
    assert min(run() for _ in range(3)) < 1.0  # 0.12 s alone; a busy machine may be several times slower


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with monitor.toml and a database."""
    folder = tmp_path_factory.mktemp("reading")
    fleet = '[[fleet]]\nname = "turbines"\ninterval = "10m"\n'
    (folder / "monitor.toml").write_text(f'kafka = {{bootstrap = "b:9092", topics = ["plant"]}}\n{fleet}')
    asyncio.run(example_database.fill(folder / "monitor.db"))
    return folder


@pytest.mark.parametrize("command", READING)
def test_reading_commands_import_nothing_heavy(command: str, folder: Path) -> None:
    done = python(RUN, *command.split(), cwd=folder)
    assert done.stdout
    # The evidence of an alert is arrays: NumPy costs 0.1 s of the half second.
    assert done.stderr.strip() == ("['numpy']" if command == "alerts show 1" else "[]")


def test_the_reader_of_sqlite_imports_nothing_heavy(tmp_path: Path) -> None:
    code = (
        "import sys; from monitor.store.reader import open_reader; from monitor.errors import NotFound\n"
        f"try: open_reader('sqlite:///{tmp_path}/none.db')\n"
        "except NotFound: print(*sys.modules)"
    )
    loaded = {name.partition(".")[0] for name in python(code).stdout.split()}
    assert "sqlite3" in loaded
    assert not loaded & set(HEAVY)


def test_operators_commands_do_not_import_prometheus_client() -> None:
    done = python("import sys, monitor.control, monitor.store.engine; print('prometheus_client' in sys.modules)")
    assert done.stdout.strip() == "False"


def test_a_closed_pipe_is_no_error() -> None:
    code = """
import sys, click
from monitor.cli import main
import monitor.cli.alerts
@click.command()
def alerts():
    for _ in range(100_000):
        click.echo("x" * 100)
monitor.cli.alerts.alerts = alerts
main(["alerts"])
"""
    read, write = os.pipe()
    process = subprocess.Popen([sys.executable, "-c", code], stdout=write, stderr=subprocess.PIPE, text=True)
    os.close(write)
    os.read(read, 10)
    os.close(read)
    _, stderr = process.communicate(timeout=60)
    assert stderr == ""
    assert process.returncode in (0, 1)
