"""`monitor replay --diff`: the tables, the summary and the refused arguments."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from monitor.cli import main, terminal
from monitor.cli.diff import MAX_ROWS, print_difference
from monitor.clock import to_us
from monitor.config import parse
from monitor.replay.diff import Side, SideAlert, SideResults, difference
from monitor.types import Contribution, Severity
from tests.example_database import START, STEP

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from click.testing import CliRunner

    from monitor.replay.diff import Difference

FLEETS = parse(
    {
        "kafka": {"bootstrap": "b:9092", "topics": ["plant"]},
        "fleet": [
            {"name": name, "interval": "10m", "sensors": ["power", "pitch"], "assets": [f"{name}/*"]}
            for name in ("turbines", "compressors")
        ],
    }
).fleets
WEEK = 7 * 24 * 6
CONTRIBUTIONS = (Contribution("power", 0.61, 1873.2, -3.1), Contribution("pitch", 0.39, 0.52, 89.99))
DAY = 144


@pytest.fixture(params=[100, 80])
def width(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(terminal, "columns", lambda: request.param)
    columns: int = request.param
    return columns


def _alert(asset: str, opened: int, closed: int | None, *, fired: int | None = None, peak: float = 1.5) -> SideAlert:
    opened_us, fired_us, closed_us = (
        None if step is None else to_us(START + STEP * step) for step in (opened, fired or opened + 2, closed)
    )
    assert opened_us is not None
    assert fired_us is not None
    severity = Severity.CRITICAL if peak >= 3 else Severity.WARNING
    return SideAlert(asset, opened_us, fired_us, closed_us, severity, peak, 3, CONTRIBUTIONS, "turbines-old")


def _difference(
    before: Sequence[SideAlert], after: Sequence[SideAlert], sides: tuple[str, str] = ("live", "turbines-new")
) -> Difference:
    return _of_fleets({"turbines": (before, after)}, sides)


def _of_fleets(
    alerts_by_fleet: dict[str, tuple[Sequence[SideAlert], Sequence[SideAlert]]],
    sides: tuple[str, str] = ("live", "turbines-new"),
) -> Difference:
    results = (SideResults(), SideResults())
    for fleet, both in alerts_by_fleet.items():
        for side, alerts in zip(results, both, strict=True):
            side.alerts[fleet] = {(alert.asset, alert.opened_us): alert for alert in alerts}
            side.assets[fleet] = {"R80711", "R80736"}
            side.scored[fleet] = 2 * WEEK
    return difference((Side.parse(sides[0]), Side.parse(sides[1])), results, FLEETS)


def _shown(found: Difference, capsys: pytest.CaptureFixture[str]) -> list[str]:
    print_difference(found, "as live")
    return capsys.readouterr().out.splitlines()


def test_a_row_shows_the_change(width: int, capsys: pytest.CaptureFixture[str]) -> None:
    lines = _shown(
        _difference(
            [_alert("R80711", 6, 26, peak=5.21), _alert("R80736", 200, 240), _alert("R80711", 400, None, peak=3.4)],
            [_alert("R80736", 200, 234, fired=204), _alert("R80711", 400, 420), _alert("R80736", 500, 510, peak=1.2)],
        ),
        capsys,
    )
    assert all(len(line) <= width for line in lines), "no line is wider than the terminal"
    rows = [" ".join(line.replace("\xa0", " ").split()) for line in lines]
    text = " ".join(rows)
    assert "− lost R80711 2015-07-27 01:20" in text
    assert "power 61 %, pitch 39 %" in text
    assert "~ moved R80736 2015-07-28 09:40" in text
    assert "fires +20 min, closes −1 h" in text
    assert "3.40 → 1.50 critical → warning, closes" in text
    assert "+ gained R80736" in text
    assert text.index("lost R80711") < text.index("moved R80736") < text.index("gained R80736"), "in order of time"
    windows = " 2,016" if width == 100 else ""
    assert f"before as live 3 of 5 6 3 2 1.5{windows}" in rows
    assert f"after turbines-new 3 of 5 6 3 0 1.5{windows}" in rows
    assert "turbines-new would have fired 3 times, as often as live: 1 gained, 1 lost, 2 moved." in text
    assert rows[-1] == "In the median, moved alerts fire 10 min later and close 1 h earlier."


def test_a_split_shows_the_number_of_parts(width: int, capsys: pytest.CaptureFixture[str]) -> None:
    lines = _shown(_difference([_alert("R80711", 6, 60)], [_alert("R80711", 6, 20), _alert("R80711", 30, 60)]), capsys)
    assert all(len(line) <= width for line in lines)
    assert any("~ moved" in line and "1 alert → 2" in line for line in lines)


def test_fleet_names_stand_above_their_rows(width: int, capsys: pytest.CaptureFixture[str]) -> None:
    lines = _shown(
        _of_fleets({"turbines": ([_alert("R80711", 6, 26)], []), "compressors": ([], [_alert("R80736", 9, 12)])}),
        capsys,
    )
    assert all(len(line) <= width for line in lines)
    assert [line for line in lines if line in ("turbines", "compressors")] == ["turbines", "compressors"] * 2
    assert lines[-1] == "turbines-new would have fired once, as often as live: 1 gained, 1 lost."


def test_no_difference_is_one_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    same = [_alert("R80711", 6, 26), _alert("R80711", 60, 80)]
    assert _shown(_difference(same, same), capsys)[-1] == (
        "turbines-new changes nothing: both would have fired 2 times, at the same times."
    )
    assert _shown(_difference([], []), capsys)[-1] == "turbines-new changes nothing: neither would have fired."


def test_a_long_table_is_cut_to_the_newest(capsys: pytest.CaptureFixture[str]) -> None:
    lines = _shown(_difference([], [_alert("R80711", 50 * n, 50 * n + 9) for n in range(200)]), capsys)
    assert sum("+ gained" in line for line in lines) == MAX_ROWS
    assert f"The newest {MAX_ROWS} of 200; --json has all." in lines
    assert "would have fired 200 times instead of 0: 200 gained." in lines[-1]


def test_unscored_windows_show_a_reason(capsys: pytest.CaptureFixture[str]) -> None:
    results = (SideResults(), SideResults())
    for side in results:
        side.assets["turbines"] = {"R80711"}
        side.why_unscored["turbines"] = "There is no model for this fleet yet"
    results[0].scored["turbines"] = results[1].scored["turbines"] = 9
    sides = (Side(), Side.parse("turbines-new"))
    assert "no model" not in "".join(_shown(difference(sides, results, FLEETS), capsys)), "the same on both sides"
    results[1].why_unscored["turbines"] = "turbines-new was trained on 36 cells"
    text = "\n".join(_shown(difference(sides, results, FLEETS), capsys))
    assert "turbines, turbines-new: some windows have no score: turbines-new was trained on 36 cells" in text


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--diff", "confirm=8 of 5"], "can never be met"),
        (["--diff", "live"], 'both sides are "live"'),
        (["--diff", "a-1", "--diff", "a-1"], 'both sides are "a-1"'),
        (["--diff", "a-1", "--diff", "b-1", "--diff", "c-1"], "compares two sides; 3 are named"),
        (["--diff", "a-1", "--version", "b-1"], "leave out --version"),
        (["FILE", "--diff", "a-1", "--publish"], "leave out --version and --publish"),
        (["FILE", "--offsets", "live"], "--offsets is for Kafka"),
    ],
)
def test_contradictory_arguments_are_refused(args: list[str], message: str, config: Path, runner: CliRunner) -> None:
    (config.parent / "FILE").write_text("timestamp,power\n0,1\n")
    run = runner.invoke(main, ["replay", *args])
    assert run.exit_code == 2, run.output
    assert message in run.stderr
