"""`monitor drill`: the stored drill as table, JSON and picture, and the arguments that it refuses."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from monitor.cli import drill as command
from monitor.cli import jobs, main, terminal
from monitor.drill_report import KINDS

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from click.testing import CliRunner

FLEET = "turbines"


@pytest.mark.usefixtures("registry")
def test_the_stored_drill_is_a_table_that_fits_80_columns(
    show: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(terminal, "columns", lambda: 80)
    monkeypatch.setattr(command, "columns", lambda: 80)
    shown = show(f"drill {FLEET} --stored")
    header = next(line for line in shown.splitlines() if line.startswith("sensor"))
    assert header.split() == ["sensor", *KINDS]
    assert max(map(len, shown.splitlines())) <= 80
    assert "spreads of the sensor" in shown
    assert "no problem" in shown


@pytest.mark.usefixtures("registry")
def test_long_names_of_sensors_are_cut_to_fit(show: Callable[[str], str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(terminal, "columns", lambda: 80)
    monkeypatch.setattr(command, "columns", lambda: 80)
    long = "temperature_of_the_bearing_at_the_drive_end"
    original = command._stored

    def renamed(fleet: str) -> dict[str, Any]:
        found = original(fleet)
        found["result"]["sensors"][0]["name"] = long
        return found

    monkeypatch.setattr(command, "_stored", renamed)
    shown = show(f"drill {FLEET} --stored")
    assert max(map(len, shown.splitlines())) <= 80
    assert "temperatu" in shown
    assert "…" in shown


@pytest.mark.usefixtures("registry")
def test_the_stored_drill_is_one_json_document(ask: Callable[[str], Any]) -> None:
    found = ask(f"drill {FLEET} --stored")
    assert found.keys() == {"fleet", "version", "at", "requested_by", "problem", "result"}
    assert found["result"]["sensors"][0]["kinds"].keys() == set(KINDS)


@pytest.mark.usefixtures("registry")
def test_the_picture_is_written_beside_the_table(show: Callable[[str], str], tmp_path: Path) -> None:
    shown = show(f"drill {FLEET} --stored --plot drill.svg")
    assert "The picture is in drill.svg" in shown
    assert (tmp_path / "drill.svg").read_text().startswith("<svg")


@pytest.mark.usefixtures("filled")
def test_a_fleet_without_a_drill_says_how_to_make_one(runner: CliRunner) -> None:
    result = runner.invoke(main, ["drill", "--stored"])
    assert result.exit_code == 1
    assert "`monitor drill turbines` makes one now" in result.stderr


@pytest.mark.usefixtures("registry")
@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["--stored", "--version", "conv-1"], "leave out --data, --version"),
        (["--stored", "--sensor", "power"], "leave out --data, --version"),
        (["nowhere"], "has no fleet nowhere"),
    ],
)
def test_arguments_without_effect_are_refused(runner: CliRunner, arguments: list[str], problem: str) -> None:
    result = runner.invoke(main, ["drill", *arguments])
    assert result.exit_code == 2
    assert problem in " ".join(result.output.split())


@pytest.mark.usefixtures("registry")
def test_a_drill_by_the_daemon_needs_a_daemon(
    runner: CliRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jobs, "ALONE_FOR_S", 0.0)
    alone = runner.invoke(main, ["drill", FLEET, "--daemon"])
    assert alone.exit_code == 1
    assert "no daemon is running, and the job stays queued" in " ".join(alone.output.split())
    again = runner.invoke(main, ["drill", FLEET, "--daemon"])
    assert "is queued" in again.output
    mixed = runner.invoke(main, ["drill", FLEET, "--daemon", "--seed", "1"])
    assert (mixed.exit_code, "leave out" in mixed.output) == (2, True)
