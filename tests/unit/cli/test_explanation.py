"""`monitor alerts show`: the explanation of an alert, as text and as JSON."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest

from monitor.cli.explanation import sparkline

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Ask = Callable[[str], Any]
    Show = Callable[[str], str]


@pytest.fixture
def with_units(filled: Path) -> Path:
    unit = '[fleet.sensor.power]\nunit = "kW"\ndescription = "active power"\n'
    filled.write_text(filled.read_text() + unit)
    return filled


@pytest.mark.usefixtures("with_units")
def test_an_alert_explains_itself(show: Show) -> None:
    shown = show("alerts show 1")
    assert "active power fell to −3.1 kW where 1,790 ± 86 kW was expected, for 3.3 h." in shown
    assert "Without power, the window that fired is below the threshold." in shown
    power = next(line for line in shown.splitlines() if line.startswith("power ") and "actual" in line)
    assert "▁▁▁" in power
    assert "███" in power
    assert "\x1b" not in shown
    assert "\\x1b" not in shown


@pytest.mark.usefixtures("filled")
def test_similar_alerts_are_shown_with_their_labels(show: Show, ask: Ask) -> None:
    row = next(line for line in show("alerts show 2").splitlines() if line.startswith("1  "))
    assert "R80711" in row
    assert "100 %" in row
    (similar,) = ask("alerts show 2")["explanation"]["similar"]
    assert similar["id"] == 1
    assert 0.9 < similar["similarity"] <= 1


@pytest.mark.usefixtures("with_units")
def test_json_has_explanation_and_on_request_arrays(ask: Ask) -> None:
    found = ask("alerts show 1")
    assert found["explanation"]["sentence"].startswith("active power fell")
    assert found["explanation"]["clearing"] == ["power"]
    assert "evidence" not in found
    arrays = ask("alerts show 1 --evidence")["evidence"]
    n, sensors = len(arrays["at"]), ["power", "pitch", "rotor_speed"]
    assert arrays["sensors"] == sensors
    assert {len(arrays[key]) for key in ("actual", "expected")} == {n}
    assert {len(row) for row in arrays["actual"]} == {3}
    assert None in [row[2] for row in arrays["actual"]]
    assert len(arrays["end"]) == len(arrays["score"]) > 0


@pytest.mark.usefixtures("with_data_alerts")
def test_an_alert_about_the_data_has_no_explanation(ask: Ask) -> None:
    found = ask("alerts show 3 --evidence")
    assert found["explanation"] is None
    assert found["evidence"] is None


@pytest.mark.usefixtures("filled")
def test_an_old_alert_without_evidence_is_told_from_its_sensors(filled: Path, show: Show) -> None:
    with closing(sqlite3.connect(filled.with_name("monitor.db"))) as db, db:
        db.execute("DELETE FROM evidence")
        db.execute("UPDATE alert SET clearing = NULL")
    shown = show("alerts show 1")
    assert "power fell to −3.1 where 1,870 was expected." in shown
    assert "evidence" not in shown


def test_a_sparkline_shows_levels_gaps_and_holes() -> None:
    nan = float("nan")
    assert sparkline([0, 1, 2, 3, 4, 5, 6, 7], [0, 1, 2, 3, 4, 5, 6, 7], 8, 0, 7) == "▁▂▃▄▅▆▇█"
    assert sparkline([0, 1, 2, 3], [0, nan, nan, 7], 4, 0, 7) == "▁··█"
    assert sparkline([0, 7], [0, 7], 8, 0, 7) == "▁▁▁▁▁▁▁█"  # thinned out between
    assert sparkline([0], [5], 3, 5, 5) == "▅▅▅"
