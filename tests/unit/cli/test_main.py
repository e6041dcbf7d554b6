from __future__ import annotations

import os
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import click
import pytest

import monitor
from monitor import errors
from monitor.cli import COMMANDS, main, print_error

if TYPE_CHECKING:
    from pathlib import Path

    from click.testing import CliRunner

HEAVY = (
    "torch", "numpy", "sqlalchemy", "pydantic", "structlog", "asyncio", "aiokafka", "rich.table", "alembic",
    "prometheus_client", "httpx",
)  # fmt: skip


def python(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)


def test_help_lists_every_command_and_imports_nothing_heavy() -> None:
    code = f"""
import sys
from monitor.cli import main
try:
    main(["--help"])
except SystemExit as exit:
    assert not exit.code, exit.code
print("HEAVY", [name for name in {HEAVY!r} if name in sys.modules])
"""
    done = python(code)
    assert done.returncode == 0, done.stderr
    assert done.stdout.rstrip().endswith("HEAVY []")
    assert all(f"\n  {name} " in done.stdout for name in COMMANDS)


def test_help_is_quick() -> None:
    def run() -> float:
        before = time.monotonic()
        python("from monitor.cli import main; main(['--help'])")
        return time.monotonic() - before

    run()  # compiles the modules
    assert min(run() for _ in range(3)) < 1.0  # 0.12 s on an idle machine, several times that on a busy one


def test_version(runner: CliRunner) -> None:
    assert runner.invoke(main, ["--version"]).output == f"monitor {monitor.__version__}\n"


def test_an_unknown_command_suggests_the_nearest(runner: CliRunner) -> None:
    result = runner.invoke(main, ["alert"])
    assert result.exit_code == 2
    assert "alerts" in result.stderr


@pytest.mark.parametrize(
    ("raised", "code"),
    [
        (errors.ConfigError("x"), 2),
        (errors.SourceRefused("x"), 3),
        (errors.SchemaMismatch("x"), 4),
        (errors.NotFound("x"), 1),
        (errors.StoreUnavailable("x"), 1),
        (click.UsageError("x"), 2),
        (KeyboardInterrupt(), 130),
    ],
    ids=lambda value: type(value).__name__,
)
def test_errors_become_a_message_and_an_exit_code(
    raised: BaseException, code: int, runner: CliRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    @click.command()
    def alerts() -> None:
        raise raised

    monkeypatch.setattr("monitor.cli.alerts.alerts", alerts)
    result = runner.invoke(main, ["alerts"])
    assert result.exit_code == code
    assert result.stdout == ""
    assert "Traceback" not in result.stderr
    if isinstance(raised, errors.MonitorError):
        assert result.stderr == f"monitor: {raised}\n"
    elif isinstance(raised, KeyboardInterrupt):
        assert result.stderr.strip() == ""


def test_each_configuration_problem_has_its_own_line(capsys: pytest.CaptureFixture[str]) -> None:
    print_error("The configuration cannot be used: f has 2 problems\n  kafka.topics: missing\n  device: no")
    assert capsys.readouterr().err.splitlines() == [
        "monitor: The configuration cannot be used: f has 2 problems",
        "  kafka.topics: missing",
        "  device: no",
    ]


def test_a_closed_pipe_is_no_error(tmp_path: Path) -> None:
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


@pytest.mark.parametrize("arguments", [["-c", "x.toml", "check"], ["check", "-c", "x.toml"], ["check"]])
def test_the_configuration_is_named_by_option_or_variable(arguments: list[str], runner: CliRunner) -> None:
    result = runner.invoke(main, [*arguments, "--offline"], env={"MONITOR_CONFIG": "y.toml"})
    assert result.exit_code == 2
    assert f"there is no file {'x' if '-c' in arguments else 'y'}.toml" in result.stderr
