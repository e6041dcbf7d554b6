"""`monitor alerts`, `scores`, `quarantine` and `models list`: the JSON contracts and the tables."""

from __future__ import annotations

import re
import shlex
import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner

from monitor.cli import main
from monitor.cli.output import print_json, print_json_list
from monitor.cli.terminal import _display_width

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Ask = Callable[[str], Any]
    Show = Callable[[str], str]

# A contract with other tools: keys may be added, never renamed.
CONTRACTS = {
    "alerts list": "id asset fleet state severity opened_at closed_at peak_score sensors version acknowledged_by label",
    "scores show R80711": "asset start end score verdict version",
    "models list": "fleet asset version state trained_at metrics",
    "quarantine list": "topic partition offset reason sample at",
}


@pytest.mark.parametrize("command", CONTRACTS)
@pytest.mark.usefixtures("filled")
def test_json_keeps_its_contract(command: str, ask: Ask) -> None:
    rows = ask(command)
    assert rows
    for row in rows:
        assert set(CONTRACTS[command].split()) <= row.keys()
        times = [value for key, value in row.items() if re.fullmatch(r"start|end|at|.*_at", key) and value]
        assert all(re.fullmatch(r"\d{4}-\d\d-\d\dT[\d:.]+Z", value) for value in times)


@pytest.mark.parametrize("command", ["alerts list", "models list", "quarantine list"])
@pytest.mark.usefixtures("empty")
def test_an_empty_result_is_no_error(command: str, ask: Ask, show: Show) -> None:
    assert ask(command) == []
    shown = " ".join(show(command).split())
    assert shown.startswith("No ")
    assert "No daemon has written here yet" in shown
    assert "monitor run" in shown


@pytest.mark.usefixtures("filled")
def test_an_empty_result_names_the_filters(show: Show) -> None:
    shown = show("alerts list --from 2020-01-01 --asset R80711")
    assert shown.startswith("No alerts match from 2020-01-01 00:00 UTC, asset R80711. A daemon last wrote")


# ---------------------------------------------------------------- alerts


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ("", ["R80736", "R80711"]),
        ("--state open", ["R80736"]),
        ("--state firing", ["R80736"]),
        ("--state closed", ["R80711"]),
        ("--asset R80711", ["R80711"]),
        ("--asset R807*", ["R80736", "R80711"]),
        ("--fleet pumps", []),
        ("--from 2015-07-27T05:00", ["R80736"]),
        ("--to 2015-07-27T05:00Z", ["R80711"]),
        ("--from -2h", []),
        ("--from now-99w", []),
        ("--limit 1", ["R80736"]),
    ],
)
@pytest.mark.usefixtures("filled")
def test_filters_select_alerts(options: str, expected: list[str], ask: Ask) -> None:
    assert [alert["asset"] for alert in ask(f"alerts list {options}")] == expected


@pytest.mark.usefixtures("filled")
def test_the_table_has_a_row_for_each_alert(show: Show) -> None:
    table = show("alerts list")
    firing, closed = table.splitlines()[1:3]
    assert re.search(
        r"● firing\s+R80736\s+2015-07-27 08:30\s+0 s\s+1\.30\s+power 61 %, pitch 22 %, rotor_speed 17 %", firing
    )
    assert re.search(r"○ closed\s+R80711\s+2015-07-27 03:30\s+7 h 20 min\s+18\.42\s+power 61 %", closed)
    assert "Times are UTC." in table


@pytest.mark.usefixtures("filled")
def test_local_times_name_their_time_zone(show: Show, monkeypatch: pytest.MonkeyPatch) -> None:
    import time

    monkeypatch.setenv("TZ", "Europe/Berlin")
    time.tzset()
    try:
        table = show("alerts list --local")
    finally:
        monkeypatch.delenv("TZ")
        time.tzset()
    assert "2015-07-27 05:30" in table
    assert re.search(r"Times are local \(CES?T\)", table)


@pytest.mark.usefixtures("filled")
def test_an_alert_is_shown(ask: Ask, show: Show) -> None:
    shown = show("alerts show 1")
    assert "Alert 1 · R80711 of turbines" in shown
    assert "18.4 × the threshold at 2015-07-27 03:40" in shown
    assert re.search(r"power\s+61 %\s+█+\s+1,873\s+-3.1", shown)
    assert re.search(r"rotor_speed\s+17 %\s+█+\s+14.2\s+–", shown)
    assert shown.index("● firing") < shown.index("◐ recovering") < shown.rindex("○ closed")
    assert "1.0 ┤" in shown
    alert = ask("alerts show 1")
    assert [step["state"] for step in alert["transitions"]] == ["firing", "recovering", "closed"]
    values = {"share": 0.61, "expected": 1873.2, "actual": -3.1}
    assert alert["sensors"][0] == {"name": "power", **values, "quantity": "value", "onset": None}


@pytest.mark.usefixtures("filled")
def test_an_unknown_alert_is_not_found(runner: CliRunner) -> None:
    result = runner.invoke(main, ["alerts", "show", "99"])
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == "monitor: Not found: alert 99; monitor alerts list shows their numbers\n"


# ---------------------------------------------------------------- alerts about the data


@pytest.mark.parametrize(
    ("options", "ids"), [("", [4, 3, 2, 1]), ("--class data", [4, 3]), ("--class process", [2, 1]),
                         ("--class data --state open", [3]), ("--fleet turbines --class data", [3])]
)  # fmt: skip
@pytest.mark.usefixtures("with_data_alerts")
def test_alerts_are_listed_by_class(options: str, ids: list[int], ask: Ask) -> None:
    rows = ask(f"alerts list {options}")
    assert [row["id"] for row in rows] == ids
    for row in rows:
        assert set(CONTRACTS["alerts list"].split()) | {"class", "kind", "message"} <= row.keys()
        if row["class"] == "data":
            assert (row["asset"], row["peak_score"], row["version"], row["sensors"]) == (None, None, None, [])


@pytest.mark.usefixtures("with_data_alerts")
def test_data_alerts_are_listed_with_records(show: Show) -> None:
    lost, limit, asset = show("alerts list").splitlines()[1:4]
    assert re.search(r"○ closed\s+plant/3\s+–\s+2015-07-27 10:10\s+1 d\s+–\s+records_lost, 1,200 records", lost)
    assert re.search(r"● firing\s+plant/3\s+turbines\s.*10 min\s+–\s+asset_limit, 999,987 records", limit)
    assert re.search(r"● firing\s+R80736\s+turbines\s", asset)
    assert show("alerts list --class data --asset R1").startswith("No alerts match class data, asset R1.")


@pytest.mark.usefixtures("with_data_alerts")
def test_a_data_alert_is_shown_without_score(ask: Ask, show: Show) -> None:
    shown = show("alerts show 3")
    assert "Alert 3 · asset_limit in plant/3 of turbines" in shown
    assert "1 record was kept out: raise the fleet's max_assets." in shown
    assert re.search(r"records\s+999,987 records, the first at offset 203", shown)
    assert "monitor quarantine list --topic plant" in shown
    assert "threshold" not in shown
    assert "sensor" not in shown
    assert ask("alerts show 4")["transitions"][1]["state"] == "closed"


# ---------------------------------------------------------------- scores


@pytest.mark.usefixtures("filled")
def test_scores_are_in_time_order(ask: Ask) -> None:
    rows = ask("scores show R80736")
    assert [row["end"] for row in rows] == sorted(row["end"] for row in rows)
    assert len(rows) == 60
    assert (rows[-1]["score"], rows[-1]["verdict"], rows[-1]["version"]) == (None, "unscored", None)


@pytest.mark.usefixtures("filled")
def test_scores_within_a_range(ask: Ask) -> None:
    rows = ask("scores show R80711 --from 2015-07-27T03:00 --to 2015-07-27T04:00")
    assert [row["end"][11:16] for row in rows] == ["03:00", "03:10", "03:20", "03:30", "03:40", "03:50"]


@pytest.mark.usefixtures("filled")
def test_scores_are_plotted(show: Show) -> None:
    shown = show("scores show R80711 --limit 3")
    assert "60 windows: 40 normal, 20 anomalous" in shown
    assert "1.0 ┤" in shown
    assert shown.count("turbines-new") == 3
    assert "2015-07-27 10:00" in shown
    assert "┤" not in show("scores show R80711 --no-plot")


@pytest.mark.parametrize("options", [[], ["--json"]])
@pytest.mark.usefixtures("filled")
def test_an_unknown_asset_suggests_the_nearest(options: list[str], runner: CliRunner) -> None:
    result = runner.invoke(main, ["scores", "show", "R8071", *options])
    assert (result.exit_code, result.stdout) == (1, "")
    assert "did you mean R80711?" in result.stderr


# ---------------------------------------------------------------- quarantine, models, the database


@pytest.mark.usefixtures("filled")
def test_quarantine_shows_each_record(ask: Ask, show: Show) -> None:
    shown = show("quarantine list")
    assert "plant/3 @7" in shown
    assert "not_json" in shown
    assert "{oops" in shown
    assert [row["offset"] for row in ask("quarantine list")] == [8, 7]
    assert [row["offset"] for row in ask("quarantine list --reason late")] == [8]


@pytest.mark.usefixtures("filled")
def test_the_champion_is_marked(show: Show) -> None:
    champion, reason, retired = show("models list").splitlines()[1:4]
    assert reason == "  it keeps the budget, and finds 9 of 10 injected faults like the champion"
    assert re.search(r"★ champion\s+turbines-new\s+2015-07-15 00:00\s+–\s+loss 0.0123", champion)
    assert "○ retired" in retired


@pytest.mark.usefixtures("config")
def test_a_missing_database_is_named(runner: CliRunner, tmp_path: Path) -> None:
    result = runner.invoke(main, ["alerts", "list", "--json"])
    assert (result.exit_code, result.stdout) == (1, "")
    assert str(tmp_path / "monitor.db") in result.stderr


@pytest.mark.usefixtures("filled")
def test_reading_ignores_other_settings_errors(ask: Ask, config: Path) -> None:
    config.write_text(config.read_text().replace("10m", "often"))
    assert len(ask("alerts list")) == 2


# ---------------------------------------------------------------- width, order and digits


@pytest.mark.usefixtures("filled")
def test_alerts_show_their_severity_and_an_order(ask: Ask, show: Show) -> None:
    for sort, first in (("opened", 2), ("peak", 1), ("lasted", 1), ("severity", 1), ("asset", 1)):
        assert ask(f"alerts list --sort {sort}")[0]["id"] == first
        table = show(f"alerts list --sort {sort}").splitlines()
        assert table[1].split()[:2] == [str(first), {1: "critical", 2: "warning"}[first]]
    assert "The first 1; --limit 0 shows all." in show("alerts list --sort peak --limit 1")


@pytest.mark.usefixtures("filled")
def test_quarantine_counts_reasons(ask: Ask, show: Show) -> None:
    assert "Stored in all: late 1, not_json 1." in show("quarantine list --limit 1")
    counts = [(row["reason"], row["records"]) for row in ask("quarantine list --counts")]
    assert counts == [("late", 1), ("not_json", 1)]
    assert re.search(r"late\s+1\s+2015-07-27 00:10", show("quarantine list --counts --reason late"))
    assert "No records in quarantine match reason nothing" in show("quarantine list --counts --reason nothing")


@pytest.mark.parametrize(
    "command",
    ["alerts list", "alerts show 1", "models list", "models show", "quarantine list", "quarantine list --counts",
     "scores show R80711"],
)  # fmt: skip
def test_no_line_is_wider_than_the_terminal(command: str, filled: Path, show: Show, monkeypatch: Any) -> None:
    with closing(sqlite3.connect(filled.parent / "monitor.db")) as database:
        database.execute("UPDATE asset SET name = ? WHERE name = 'R80736'", ("線路" * 30,))
        database.execute("UPDATE quarantine SET reason = ?", ("unknown_sensor: " + "long " * 60,))
        database.commit()
    monkeypatch.setattr("monitor.cli.terminal.columns", lambda: 80)
    for line in show(command).splitlines():
        assert _display_width(line) <= 80, line


@pytest.mark.usefixtures("filled")
def test_a_name_like_an_option_can_be_typed_as_printed(filled: Path, show: Show) -> None:
    with closing(sqlite3.connect(filled.parent / "monitor.db")) as database:
        database.execute("UPDATE asset SET name = '-1 (süd)' WHERE name = 'R80711'")
        database.commit()
    command = show("alerts show 1").rpartition("More: monitor ")[2].strip()
    assert command == "scores show -- '-1 (süd)'"
    result = CliRunner().invoke(main, shlex.split(command))
    assert (result.exit_code, result.stdout[:8]) == (0, "-1 (süd)")


def test_numbers_in_json_have_seven_digits(capsys: pytest.CaptureFixture[str]) -> None:
    print_json({"a": [1 / 3, {"b": 2e-7 / 3}], "n": 123456789, "t": (0.1 + 0.2,)})
    print_json_list([{"a": 1e9 / 3}])
    assert re.findall(r"[\d.e-]+", capsys.readouterr().out) == [
        "0.3333333", "6.666667e-08", "123456789", "0.3", "333333300.0",
    ]  # fmt: skip
