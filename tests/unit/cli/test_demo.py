"""The result of the demo: at most twenty lines of at most 80 columns, with the figures of its database."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from monitor.cli import demo as cli
from monitor.demo import ALERTS_PER_WEEK, STOP_FROM, STOPPED, TURBINES, DemoResult
from tests.picture import CELL, COLOURS, MARGIN, svg
from tests.servers import ROOT

SENSORS = [{"name": f"wind_direction_{n}", "share": 0.25, "expected": 1.0, "actual": 1234.5678} for n in range(4)]


def alert(number: int, asset: str, after_h: float, lasted_h: float, peak: float) -> dict[str, Any]:
    opened = STOP_FROM + timedelta(hours=after_h)
    closed = opened + timedelta(hours=lasted_h)
    return {
        "id": number, "asset": asset, "opened_at": opened.isoformat(), "closed_at": closed.isoformat(),
        "updated_at": closed.isoformat(), "peak_score": peak, "severity": "critical" if peak >= 3 else "warning",
        "sensors": SENSORS,
    }  # fmt: skip


def result(*alerts: dict[str, Any], stop_score: float = 0.97, stop_share: float = 0.0) -> DemoResult:
    return DemoResult(351_336, 16.0, 51.0, list(alerts), 344.7, {"empty": 2527}, stop_score, stop_share)


MANY = [alert(n, f"R807{n % 4}{n % 2}", -9000 + 100 * n, 1 + n / 10, 1 + n / 100) for n in range(60)]


def printed(capsys: pytest.CaptureFixture[str], found: DemoResult) -> list[str]:
    cli._print_result(found)
    return capsys.readouterr().out.splitlines()


@pytest.mark.parametrize("alerts", [[], MANY, [*MANY, alert(60, STOPPED, 1, 48, 9.5), alert(61, STOPPED, 48.5, 1, 2)]])
def test_the_result_fits_twenty_lines(alerts: list[dict[str, Any]], capsys: pytest.CaptureFixture[str]) -> None:
    lines = printed(capsys, result(*alerts))
    assert len(lines) <= 20
    assert max(map(len, lines)) <= 80, max(lines, key=len)
    assert f"{len(alerts)} alerts of 345 that the budget allows" in "\n".join(lines)
    assert "2,527 records in quarantine have no value at all: gaps of the recording." in lines


def test_the_stop_is_ranked_among_all_alerts(capsys: pytest.CaptureFixture[str]) -> None:
    found = result(*MANY, alert(60, STOPPED, 1, 5.55, 9.5), alert(61, STOPPED, 20, 1, 2), stop_share=0.127)
    words = " ".join(printed(capsys, found))
    assert "in 8 m/s of wind, 13% of them anomalous: 2 alerts." in words
    assert "2 alerts. Number 60 is the 15th longest (5 h 33 min) and the highest (9.50) of 62." in words


def test_a_stop_that_was_missed_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    words = " ".join(printed(capsys, result(*MANY, alert(60, "R80790", 1, 5, 9.5))))
    assert "no alert. Its highest score is 0.97, and three windows above 1.0 among five open an alert." in words


def test_alerts_at_one_moment_are_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    found = result(
        alert(1, "R80711", 0, 3, 1.5), alert(2, "R80721", 2, 4, 3.5), alert(3, "R80736", 5, 0.5, 1.2),
        alert(4, "R80711", 6.5, 1, 1.1),
    )  # fmt: skip
    assert [[each["id"] for each in group] for group in found.incidents()] == [[1, 2, 3], [4]]
    lines = printed(capsys, found)
    assert "at 2 moments." in lines[1]
    [row] = [line for line in lines if " of 4 " in line]
    assert row.split()[:2] == ["2015-07-26", "06:40"]
    assert "3 of 4" in row
    assert "6 h  3.50" in row


@pytest.mark.parametrize("keep", [True, False])
def test_the_hints_name_an_alert_of_this_run(keep: bool, capsys: pytest.CaptureFixture[str]) -> None:
    cli._print_next_steps(Path("monitor-demo"), result(*MANY, alert(60, STOPPED, 1, 5, 9.5)), keep=keep)
    said = capsys.readouterr().out
    assert "alerts show 60 " in said
    assert ("retrain turbines --wait" in said) is keep
    assert ("Ctrl-C here ends both" in said) is keep
    assert "console " in said
    assert "http://127.0.0.1:8420/" in said


def test_with_the_console_the_hints_say_what_runs_on(capsys: pytest.CaptureFixture[str]) -> None:
    cli._print_next_steps(Path("monitor-demo"), result(*MANY), keep=False, console=True)
    said = capsys.readouterr().out
    assert "Broker, daemon and console run on." in said
    assert "retrain turbines --wait" in said
    assert "8420" not in said, "the address follows, as the port may be another"


@pytest.mark.parametrize(("n", "words"), [(1, "high"), (2, "2nd high"), (12, "12th high"), (23, "23rd high")])
def test_ranks_are_words(n: int, words: str) -> None:
    assert cli._rank(n, "high") == words


def test_the_picture_holds_every_line_at_its_column() -> None:
    picture = ElementTree.fromstring(svg(["$ deploy/demo", "\x1b[31m\x1b[1m●\x1b[0m 3 < 4 & 5", ""], "a demo"))
    rows = [row for row in picture.iter() if row.tag.endswith("}text")]
    assert ["".join(row.itertext()) for row in rows] == ["$ deploy/demo", "● 3 < 4 & 5", ""]
    sign, rest = list(rows[1])
    assert sign.get("fill") == COLOURS["31"]
    assert sign.get("font-weight") == "bold"
    assert float(rest.get("x", 0)) == pytest.approx(MARGIN + CELL)


def test_the_picture_in_the_readme_is_of_this_program() -> None:
    text = "".join(ElementTree.parse(ROOT / "deploy" / "demo.svg").getroot().itertext())
    assert "that the budget allows" in text
    assert f"The known stop: {STOPPED} from " in text


def test_the_budget_in_the_result_is_the_configured_one() -> None:
    assert f'budget = "{ALERTS_PER_WEEK}/week"' in TURBINES
