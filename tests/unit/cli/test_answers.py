"""`monitor alerts ack|shelve|label|close|…` and `monitor maintenance`: their acts, output and refusals."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from monitor.cli import main
from monitor.cli.terminal import _display_width

if TYPE_CHECKING:
    from collections.abc import Callable

    from click.testing import CliRunner

    Ask = Callable[[str], Any]
    Show = Callable[[str], str]

pytestmark = pytest.mark.usefixtures("filled")
OPEN, CLOSED = 2, 1
"""Alerts of the example database."""


def refused(runner: CliRunner, *words: str) -> tuple[int, str]:
    result = runner.invoke(main, list(words))
    return result.exit_code, " ".join(result.stderr.split())


def test_an_answer_is_seen_in_list_and_show(ask: Ask, show: Show) -> None:
    assert show(f"alerts ack {OPEN} --by ann --note on_my_way") == f"Alert {OPEN} is acknowledged.\n"
    show(f"alerts label {OPEN} fault --note bearing --by bob")
    assert "● firing ack" in show("alerts list")
    assert "fault: power 61 %" in show("alerts list")
    shown = show(f"alerts show {OPEN}")
    assert "by ann at 20" in shown
    assert "fault: bearing" in shown
    assert "ann (cli): acknowledge on_my_way" in " ".join(shown.split())
    assert [act["by"] for act in ask(f"alerts show {OPEN}")["acts"]] == ["ann", "bob"]
    assert [row["act"] for row in ask("alerts history --by bob")] == ["label"]
    assert "bob (cli)" in show("alerts history")


def test_several_alerts_are_answered_and_errors_reported(runner: CliRunner, ask: Ask) -> None:
    code, error = refused(runner, "alerts", "ack", str(OPEN), str(CLOSED), "99")
    assert code == 1
    assert f"alert {CLOSED} closed by itself at 2015-07-27 10:50 UTC" in error
    assert "alert 99" in error
    assert [row["id"] for row in ask("alerts list --acknowledged")] == [OPEN]
    assert [row["id"] for row in ask("alerts list --unacknowledged")] == [CLOSED]


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["alerts", "unack", "2"], 1, "alert 2 is not acknowledged"),
        (["alerts", "ack", "99"], 1, "Not found: alert 99; monitor alerts list shows their numbers"),
        (["alerts", "close", "2", "--reason", " "], 2, "a reason is needed"),
        (["alerts", "close", "2"], 2, "Missing option '--reason'"),
        (["alerts", "shelve", "2", "--until", "soon", "--reason", "r"], 2, 'until "soon" cannot be read; write "7d"'),
        (["alerts", "shelve", "--until", "7d", "--reason", "r"], 2, "Name alerts by their ID"),
        (["alerts", "shelve", "2", "--asset", "R*", "--until", "7d", "--reason", "r"], 2, "Name alerts by their ID"),
        (["alerts", "unshelve", "7"], 1, "shelf 7; monitor alerts shelves lists those in force"),
        (["alerts", "label", "R80711", "fault"], 2, "Write ID… LABEL or ASSET FROM TO LABEL"),
        (["alerts", "label", "R80711", "2015", "now", "fault"], 2, '"2015" is not a time'),
        (["alerts", "label", "R8", "2015-07-27", "2015-07-28", "fault"], 1, "asset R8"),
        (["alerts", "label", "R80711", "2015-07-28", "2015-07-27", "fault"], 2, "must end after it begins"),
        (["maintenance", "plan", "--for", "2h", "--reason", "r"], 2, "Name --asset or --fleet"),
        (["maintenance", "plan", "--asset", "R*", "--reason", "r"], 2, "Give the end with --to or --for"),
        (["maintenance", "plan", "--asset", "R*", "--cron", "x", "--for", "1h", "--reason", "r"], 2, "five fields"),
        (["maintenance", "end", "9"], 1, "maintenance 9; monitor maintenance list shows those planned"),
    ],
)
def test_a_refusal_names_the_fix(runner: CliRunner, words: list[str], code: int, message: str) -> None:
    found, error = refused(runner, *words)
    assert (found, message in error) == (code, True), error


def test_a_shelf_is_made_listed_and_ended(ask: Ask, show: Show) -> None:
    made = show("alerts shelve --asset R807* --sensor power --until worse:2x --reason repair --by ann")
    assert made == "Shelf 1: asset R807*, sensor power until worse:2x. End it: monitor alerts unshelve 1\n"
    assert "● firing shelved" in show("alerts list")
    assert "until worse:2x, by ann: repair (shelf 1: asset R807*, sensor power)" in show(f"alerts show {OPEN}")
    assert "asset R807*, sensor power" in show("alerts shelves")
    assert [row["until"] for row in ask("alerts shelves")] == ["worse:2x"]
    assert show("alerts unshelve 1") == "Shelf 1 is ended.\n"
    assert show("alerts shelves").startswith("Nothing is shelved.")
    assert "ended: by hand" in show("alerts shelves --all")


def test_a_time_of_an_asset_is_labelled(ask: Ask, show: Show) -> None:
    assert "labelled ignore" in show("alerts label R80711 2015-07-27 2015-07-28 ignore --note test")
    [row] = ask("alerts labels")
    assert (row["asset"], row["from"], row["label"]) == ("R80711", "2015-07-27T00:00:00Z", "ignore")
    assert "ignore" in show("alerts labels")
    show(f"alerts unlabel {row['id']}")
    assert ask("alerts labels") == []


def test_an_alert_closed_by_hand_is_listed_as_closed(ask: Ask, show: Show) -> None:
    show(f"alerts close {OPEN} --reason known --by ann")
    assert ask("alerts list --state open") == []
    assert {row["state"] for row in ask("alerts list --state closed")} == {"closed"}
    assert "ann (cli): close" in show(f"alerts show {OPEN}")


def test_alerts_that_overlap_are_listed_as_incidents(ask: Ask, show: Show) -> None:
    [incident] = ask("alerts incidents")
    assert (incident["n_alerts"], incident["assets"]) == (2, ["R80711", "R80736"])
    assert "R80711, R80736" in show("alerts incidents")
    assert [row["id"] for row in ask(f"alerts list --incident {incident['id']}")] == [OPEN, CLOSED]
    assert "with 1 other alert" in show(f"alerts show {OPEN}")


def test_maintenance_is_planned_and_ended(ask: Ask, show: Show) -> None:
    assert "Maintenance 1 is planned." in show("maintenance plan --asset R80711 --for 2h --reason oil --by ann")
    plan = ["maintenance", "plan", "--fleet", "turbines", "--cron", "0 6 * * mon", "--for", "1h", "--reason", "wash"]
    from click.testing import CliRunner

    result = CliRunner().invoke(main, [*plan, "--timezone", "Europe/Berlin", "--json"])
    assert json.loads(result.stdout) == [{"maintenance": 2}]
    rows = ask("maintenance list")
    assert [(row["state"], row["asset"], row["cron"]) for row in rows] == [
        ("active", "R80711", None), ("planned", "*", "0 6 * * mon")
    ]  # fmt: skip
    shown = show("maintenance list")
    assert "fleet turbines" in shown
    assert show("maintenance end 1") == "Maintenance 1 has ended.\n"
    assert [row["state"] for row in ask("maintenance list --all")] == ["over", "planned"]


def test_answered_alerts_fit_eighty_columns(show: Show, monkeypatch: pytest.MonkeyPatch) -> None:
    show(f"alerts ack {OPEN} --by ann")
    show(f"alerts label {OPEN} {CLOSED} ignore")
    show("alerts shelve --asset R* --until 7d --reason because_we_say_so_and_at_great_length_for_a_table")
    show("maintenance plan --asset R80711 --for 2h --reason because_we_say_so_and_at_great_length_for_a_table")
    monkeypatch.setattr("monitor.cli.terminal.columns", lambda: 80)
    for command in ("alerts list", "alerts shelves", "alerts history", "alerts incidents", "maintenance list"):
        lines = show(command).splitlines()
        assert max(map(_display_width, lines)) <= 80, "\n".join(lines)
