"""`monitor models promote`, `rollback` and `reject`: what they change, what they say, and what they refuse."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest

from monitor.cli import main

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from click.testing import CliRunner

    Ask = Callable[[str], Any]
    Show = Callable[[str], str]


@pytest.fixture(autouse=True)
def _with_checkpoints(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take every checkpoint as intact: `test_control.py` tests the damaged ones."""

    async def verified(*_arguments: object) -> None:
        return None

    monkeypatch.setattr("monitor.control._verify", verified)


def aliases(ask: Ask, fleet: str = "turbines") -> dict[str, str]:
    return {alias: row["version"] for row in ask(f"models list --fleet {fleet}") for alias in row["aliases"]}


@pytest.mark.usefixtures("registry")
def test_a_promotion_says_what_changes_and_how_to_undo_it(show: Show, ask: Ask) -> None:
    shown = " ".join(show("models promote challenger --fleet turbines --note warmer --by jo").split())
    assert shown.startswith("★ turbines-5 is the champion of turbines before turbines-2 decides windows that end")
    assert "open alerts stay open and follow the new version's scores" in shown
    assert "to undo monitor models rollback turbines" in shown
    assert aliases(ask) == {"champion": "turbines-5", "previous": "turbines-2"}
    [event, *_] = ask("models show turbines-5")["events"]
    assert (event["event"], event["actor"], event["via"], event["note"]) == ("promoted", "jo", "cli", "warmer")


@pytest.mark.usefixtures("registry")
def test_a_roll_back_returns_and_a_second_one_undoes_it(show: Show, ask: Ask) -> None:
    show("models promote turbines-5")
    done = ask("models rollback turbines --note noisy")
    assert (done["done"], done["former"], done["version"]) == ("rolled back", "turbines-5", "turbines-2")
    assert done["undo"] == "monitor models rollback turbines"
    row = ask("models show turbines-5")
    assert (row["state"], row["why"].endswith(": noisy")) == ("rolled_back", True)
    again = " ".join(show("models rollback turbines").split())
    assert again.startswith("↺ turbines is rolled back to turbines-5 before turbines-2")
    assert ask("models show turbines-5")["rolled_back_at"] is None


@pytest.mark.usefixtures("registry")
def test_a_rejected_version_needs_force_and_a_reason(runner: CliRunner, ask: Ask) -> None:
    refused = runner.invoke(main, ["models", "promote", "turbines-4"])
    assert refused.exit_code == 1
    assert "was rejected: 2 of 5 confirmed faults would score below the threshold" in refused.stderr
    assert 'monitor models promote turbines-4 --force --note "the reason"' in refused.stderr
    unexplained = runner.invoke(main, ["models", "promote", "turbines-4", "--force"])
    assert unexplained.exit_code == 2
    assert "--force needs --note" in unexplained.stderr
    assert aliases(ask)["champion"] == "turbines-2"
    forced = runner.invoke(main, ["models", "promote", "turbines-4", "--force", "--note", "labels were wrong"])
    assert forced.exit_code == 0, forced.output
    assert ask("models show turbines-4")["why"].endswith(": labels were wrong")


@pytest.mark.usefixtures("registry")
@pytest.mark.parametrize(
    ("command", "code", "message"),
    [
        ("models promote turbines-2", 1, "turbines-2 is the champion of turbines already; nothing was changed"),
        ("models promote turbines-9", 1, "did you mean turbines-"),
        ("models promote chalenger --fleet turbines", 1, "did you mean challenger?"),
        ("models promote challenger", 1, "one challenger: fleets turbines, pumps have one each; say"),
        ("models promote pumps-1", 1, "was pruned on"),
        ("models rollback", 2, "Several fleets have a champion; name one of pumps, turbines."),
        ("models rollback compressors", 1, "a champion of compressors, so there is nothing to leave"),
        ("models rollback nothing", 1, "fleet nothing"),
        ("models reject turbines-2", 1, "only a candidate or a shadow can be rejected"),
    ],
)
def test_a_refusal_names_the_remedy(runner: CliRunner, ask: Ask, command: str, code: int, message: str) -> None:
    result = runner.invoke(main, command.split())
    assert (result.exit_code, result.stdout) == (code, "")
    assert message in " ".join(result.stderr.split())
    assert aliases(ask)["champion"] == "turbines-2"


def test_a_fleet_without_an_earlier_version_has_no_way_back(runner: CliRunner, registry: Path) -> None:
    with closing(sqlite3.connect(registry.parent / "monitor.db")) as connection, connection:
        connection.execute("DELETE FROM model_alias WHERE alias = 'previous'")
    result = runner.invoke(main, ["models", "rollback", "turbines"])
    assert result.exit_code == 1
    assert "has no version before turbines-2" in result.stderr
    assert "monitor models promote VERSION" in result.stderr


@pytest.mark.usefixtures("registry")
def test_a_rejected_proposal_leaves_the_champion(show: Show, ask: Ask) -> None:
    shown = show("models reject turbines-5 --note waiting")
    assert "turbines-5 of turbines is rejected. The champion goes on deciding." in shown
    assert aliases(ask) == {"champion": "turbines-2", "previous": "turbines-3"}
    assert ask("models show turbines-5")["why"].endswith(": waiting")


@pytest.mark.usefixtures("registry")
def test_without_a_daemon_the_promotion_waits_for_one(runner: CliRunner, registry: Path) -> None:
    with closing(sqlite3.connect(registry.parent / "monitor.db")) as connection, connection:
        connection.execute("DELETE FROM daemon")
    result = runner.invoke(main, ["models", "promote", "turbines-5"])
    assert result.exit_code == 0
    assert "No daemon is running: it takes effect when one starts" in result.stderr


@pytest.mark.usefixtures("registry")
def test_alerts_of_a_version_that_was_rolled_back_are_marked(show: Show, ask: Ask) -> None:
    [number] = [alert["id"] for alert in ask("alerts list") if alert["rolled_back_at"]]
    shown = " ".join(show(f"alerts show {number}").split())
    assert "version turbines-3, rolled back on 20" in shown
    assert "monitor models show turbines-3 says why" in shown
    assert " ".join(show("alerts list").split()).count("fault, ↺ rolled back: power") == 1
