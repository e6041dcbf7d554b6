"""`alerts export`, `alerts health`, `scores export`, and the hours of `scores show`."""

from __future__ import annotations

import csv
import io
import shlex
from typing import TYPE_CHECKING, Any

import pytest

from monitor.cli import main, scores
from monitor.cli.terminal import _display_width

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from click.testing import CliRunner

    Ask = Callable[[str], Any]
    Show = Callable[[str], str]

pytestmark = pytest.mark.usefixtures("filled")


def table(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


def test_scores_are_printed_as_csv(ask: Ask, show: Show) -> None:
    rows = table(show("scores export R80711"))
    expected = ask("scores show R80711")
    assert [row["start"] for row in rows] == [row["start"] for row in expected]
    assert [float(row["score"]) for row in rows] == [row["score"] for row in expected]
    every = table(show("scores export --fleet turbines --verdict unscored"))
    assert [(row["asset"], row["score"]) for row in every] == [("R80736", "")]
    hours = table(show("scores export R80711 --hourly"))
    assert sum(int(row["n_windows"]) for row in hours) == len(rows)


def test_a_file_is_not_overwritten_unforced(runner: CliRunner, tmp_path: Path) -> None:
    def export(options: str) -> Any:
        return runner.invoke(main, shlex.split(f"alerts export -o alerts.csv {options}"))

    done = export("")
    assert (done.exit_code, done.stdout) == (0, "")
    assert "alerts.csv  2 alerts" in done.stderr
    [newest, oldest] = table((tmp_path / "alerts.csv").read_text())
    assert (newest["asset"], oldest["state"], newest["closed_at"]) == ("R80736", "closed", "")
    again = export("--state open")
    assert again.exit_code == 1
    assert "alerts.csv is there already" in again.stderr
    assert export("--state open --force").exit_code == 0
    assert len(table((tmp_path / "alerts.csv").read_text())) == 1


@pytest.mark.parametrize(
    ("options", "n"), [("--state open", 1), ("--label none", 2), ("--label fault", 0), ("--unacknowledged", 2)]
)
def test_alerts_are_exported_with_filters(options: str, n: int, show: Show) -> None:
    assert len(table(show(f"alerts export {options}"))) == n


def test_parquet_is_written(runner: CliRunner, tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    assert runner.invoke(main, shlex.split("scores export R80711 -o s.parquet")).exit_code == 0
    assert parquet.read_table(tmp_path / "s.parquet").num_rows == 60


@pytest.mark.parametrize(
    ("command", "code", "message"),
    [
        ("scores export", 2, "name an ASSET, or a fleet"),
        ("scores export --fleet turbines --hourly", 2, "--hourly needs an ASSET"),
        ("scores export R8071", 1, "Not found: asset R8071"),
        ("scores export R80711 -o s.xlsx", 1, "names no format"),
        ("alerts export -o nowhere/a.csv", 1, "nowhere/a.csv: No such file"),
    ],
)
def test_a_wrong_export_says_why(command: str, code: int, message: str, runner: CliRunner) -> None:
    done = runner.invoke(main, shlex.split(command))
    assert (done.exit_code, done.stdout) == (code, "")
    assert message in done.stderr


# ---------------------------------------------------------------- hours


def test_hours_of_an_asset_are_shown(ask: Ask, show: Show) -> None:
    rows = ask("scores show R80711 --hourly")
    assert {"asset", "fleet", "start", "end", "score", "n_windows", "n_anomalous", "n_unscored"} == rows[0].keys()
    assert max(row["score"] for row in rows) == 18.42
    shown = show("scores show R80711 --hourly")
    assert "60 windows: 40 normal, 20 anomalous" in shown
    assert "The plot has the highest of each hour." in shown
    assert shown.count("2015-07-27 0") >= 9, "ten rows of hours"


def test_many_windows_are_plotted_by_hour(show: Show, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scores, "MAX_PLOTTED", 50)
    shown = show("scores show R80711")
    assert "60 windows: 40 normal, 20 anomalous" in shown
    assert "The plot has the highest of each hour" in shown
    assert "turbines-new" in shown, "the rows below are windows"
    assert "The plot has the highest of each hour" not in show("scores show R80711 --to 2015-07-27T05:00")


# ---------------------------------------------------------------- health


def test_health_shows_figures_beside_targets(ask: Ask, show: Show) -> None:
    found = ask("alerts health")
    [fleet] = found["fleets"]
    assert (fleet["fleet"], fleet["alarms"], fleet["standing"]) == ("turbines", 2, 2)
    shown = show("alerts health")
    assert "turbines  2 assets" in shown
    assert "alarms per operator hour" in shown
    assert "ISA-18.2-2016" in shown
    assert "none yet; label alerts as fault or normal" in shown
    assert show("alerts health --fleet turbines --from 2010-01-01 --to 2010-02-01").count("\n") < 10, "nothing happened"


@pytest.mark.parametrize("command", ["alerts health", "scores show R80711 --hourly"])
def test_tables_fit_eighty_columns(command: str, show: Show, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("monitor.cli.terminal.columns", lambda: 80)
    for line in show(command).splitlines():
        assert _display_width(line) <= 80, line
