from __future__ import annotations

from typing import TYPE_CHECKING

import click
import pytest

import monitor
from monitor import errors
from monitor.cli import main, print_error

if TYPE_CHECKING:
    from click.testing import CliRunner


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


def test_each_problem_has_its_own_line(capsys: pytest.CaptureFixture[str]) -> None:
    print_error("The configuration cannot be used: f has 2 problems\n  kafka.topics: missing\n  device: no")
    assert capsys.readouterr().err.splitlines() == [
        "monitor: The configuration cannot be used: f has 2 problems",
        "  kafka.topics: missing",
        "  device: no",
    ]


@pytest.mark.parametrize("arguments", [["-c", "x.toml", "check"], ["check", "-c", "x.toml"], ["check"]])
def test_the_configuration_can_be_chosen(arguments: list[str], runner: CliRunner) -> None:
    result = runner.invoke(main, [*arguments, "--offline"], env={"MONITOR_CONFIG": "y.toml"})
    assert result.exit_code == 2
    assert f"there is no file {'x' if '-c' in arguments else 'y'}.toml" in result.stderr
