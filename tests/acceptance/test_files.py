"""Files of the field through the command line: the fault in each is found, and what was recognised is told."""

from __future__ import annotations

import json
import math
import random
import shlex
import subprocess
import sys
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner

from monitor.cli import main
from tests.daemon_process import process_environment

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

START = datetime(2025, 1, 6)  # noqa: DTZ001  # local times are what such files hold


def wave(rng: random.Random, i: int, period: int, size: float, noise: float) -> float:
    return size * math.sin(2 * math.pi * i / period) + rng.gauss(0, noise)


def decimal_comma(rng: random.Random) -> Iterator[str]:
    yield "Zeitstempel;Vorlauf;Ruecklauf;Druck;Drehzahl"
    for i in range(900):
        flow = 60 + wave(rng, i, 96, 5, 0.3)
        back, pressure, speed = flow - 12 + rng.gauss(0, 0.3), 1.8 + rng.gauss(0, 0.02), 1450 + int(rng.gauss(0, 3))
        if 700 <= i < 760:
            flow, pressure = flow + 25, 0.4
        cells = f"{flow:.2f};{back:.2f};{pressure:.3f};{speed}".replace(".", ",")
        yield f"{(START + timedelta(minutes=15 * i)).isoformat()};{cells}"


def with_sentinels(rng: random.Random) -> Iterator[str]:
    yield "timestamp,co,temp,hum"
    gone = 0
    for i in range(1500):
        gone = gone - 1 if gone else (rng.randint(3, 9) if rng.random() < 0.01 else 0)
        cells = [2 + abs(wave(rng, i, 24, 1, 0.3)), 18 + wave(rng, i, 24, 6, 0.7), 50 + wave(rng, i, 24, -15, 3)]
        if 1200 <= i < 1248:
            cells[1] += 45
        texts = ["-200" if gone else f"{cell:.1f}" for cell in cells]
        yield f"{(START + timedelta(hours=i)).isoformat()},{','.join(texts)}"


def compact_hours(rng: random.Random) -> Iterator[str]:
    yield "STATIONS_ID;MESS_DATUM;TT_TU;RF_TU;eor"
    for i in range(1000):
        temperature = 5 + wave(rng, i, 24, 4, 0.5) + (30 if 800 <= i < 840 else 0)
        at = (START + timedelta(hours=i)).strftime("%Y%m%d%H")
        yield f"433;{at};{-999 if i % 211 == 0 else temperature:.1f};{80 + wave(rng, i, 24, -8, 1):.0f};eor"


def without_times(rng: random.Random) -> Iterator[str]:
    yield "sensor_value"
    for i in range(1200):
        yield f"{math.sin(i / 7) + rng.gauss(0, 0.05) + (4 if 1000 <= i < 1030 else 0):.5f}"


def write_config(tmp_path: Path, *, interval: str) -> str:
    config = tmp_path / "monitor.toml"
    config.write_text(
        f"[kafka]\nbootstrap = '127.0.0.1:1'\ntopics = ['t']\ngroup = 'g'\n[[fleet]]\nname = 'all'\n"
        f"interval = '{interval}'\nwindow = 16\n[fleet.model]\narchitecture = 'pca'\n"
    )
    return str(config)


def replay(tmp_path: Path, rows: Iterator[str], *options: str, interval: str) -> tuple[dict[str, Any], str]:
    """Return the document and the printed text of a replay by pca."""
    file = tmp_path / "export.csv"
    file.write_text("\n".join(rows) + "\n")
    command = ["replay", "-c", write_config(tmp_path, interval=interval), str(file), *options]
    said = CliRunner().invoke(main, command)
    assert said.exit_code == 0, said.output
    document = CliRunner().invoke(main, [*command, "--json"])
    return json.loads(document.stdout), said.output


def sensors_of_the_peak(document: dict[str, Any]) -> set[str]:
    alert = max(document["alert_list"], key=lambda each: each["peak_score"])
    return {sensor["name"] for sensor in alert["sensors"] if sensor["share"] > 0.15}


@pytest.fixture
def rng() -> random.Random:
    return random.Random(7)


def test_a_decimal_comma_hides_no_column(tmp_path: Path, rng: random.Random) -> None:
    document, said = replay(tmp_path, decimal_comma(rng), "--train-rows", "600", interval="15m")
    assert sensors_of_the_peak(document) >= {"Vorlauf", "Druck"}
    assert "export: numbers have a decimal comma" in said
    assert "grid: one cell is 15m" in said
    assert document["weeks"] == pytest.approx(300 * 900 / 604_800, abs=1e-3)
    assert "false ones allowed" in said


def test_sentinels_do_not_blind_the_model(tmp_path: Path, rng: random.Random) -> None:
    document, said = replay(tmp_path, with_sentinels(rng), "--train-rows", "1000", interval="1h")
    assert "temp" in sensors_of_the_peak(document)
    assert max(alert["peak_score"] for alert in document["alert_list"]) > 2
    assert "× -200, far outside its range, is taken as missing" in " ".join(said.split())
    assert "(--missing none keeps such values)" in " ".join(said.split())


def test_compact_dates_are_times(tmp_path: Path, rng: random.Random) -> None:
    document, said = replay(tmp_path, compact_hours(rng), "--train-rows", "600", interval="1h")
    [asset] = {alert["asset"] for alert in document["alert_list"]}
    assert asset == "433"
    assert min(alert["opened_at"] for alert in document["alert_list"]) > "2025-01-31"
    assert max(alert["opened_at"] for alert in document["alert_list"]) < "2025-02-18"
    assert "its times are dates written as YYYYMMDDHH" in " ".join(said.split())
    assert "TT_TU" in sensors_of_the_peak(document)


def test_the_interval_is_the_clock_of_a_file_without_times(tmp_path: Path, rng: random.Random) -> None:
    rows = list(without_times(rng))
    document, _ = replay(tmp_path, iter(rows), "--train-rows", "700", "--interval", "1s", interval="1s")
    assert any(alert["sensors"][0]["name"] == "sensor_value" for alert in document["alert_list"])
    (tmp_path / "meta.json").write_text('{"sampling_interval_s": 1, "series": {"export": {"train_rows": 700}}}')
    by_meta, _ = replay(tmp_path, iter(rows), interval="1s")
    assert by_meta["digest"] == document["digest"]


def test_files_that_follow_each_other_are_one_recording(tmp_path: Path, rng: random.Random) -> None:
    header, *rows = decimal_comma(rng)
    first, second = tmp_path / "jan.csv", tmp_path / "feb.csv"
    first.write_text("\n".join([header, *rows[:500]]) + "\n")
    second.write_text("\n".join([header, *rows[500:]]) + "\n")
    joined, _ = replay(tmp_path, iter([header, *rows]), "--train-rows", "600", interval="15m")
    config = str(tmp_path / "monitor.toml")
    args = ["replay", "-c", config, str(second), str(first), "--train-rows", "600"]
    both = json.loads(CliRunner().invoke(main, [*args, "--json"]).stdout)
    assert [file["train_rows"] for file in both["files"]] == [600]
    assert both["alerts"] == joined["alerts"] > 0
    assert "jan.csv and feb.csv follow each other" in " ".join(both["files"][0]["notes"])
    apart = CliRunner().invoke(main, [*args, "--no-join"])
    assert apart.exit_code == 2
    assert "feb.csv: all of its 400 rows are to be learnt from" in apart.output


def test_a_wrong_header_costs_no_import_of_torch(tmp_path: Path) -> None:
    file = tmp_path / "a.csv"
    file.write_text("x,y\n1,2\n3,4\n")
    code = (
        "import sys\nfrom monitor.cli import main\n"
        "try:\n    main(sys.argv[1:])\nexcept SystemExit as exit:\n    print(exit.code, 'torch' in sys.modules)\n"
    )
    for command in ("replay", "evaluate"):
        done = subprocess.run(
            [sys.executable, "-c", code, command, str(file), "--train-rows", "1"],
            cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False, env=process_environment(),
        )  # fmt: skip
        assert done.stdout.split() == ["2", "False"], done.stderr
        assert "--time-column NAME" in done.stderr


def test_the_printed_command_works_as_printed(tmp_path: Path, rng: random.Random) -> None:
    folder = tmp_path / "my results"
    folder.mkdir()
    file = tmp_path / "export.csv"
    file.write_text("\n".join(without_times(rng)) + "\n")
    config = write_config(tmp_path, interval="1s")
    args = ["-c", config, str(file), "--train-rows", "700", "--interval", "1s"]
    said = CliRunner().invoke(main, ["replay", *args, "--into", f"sqlite:///{folder}/a.db"])
    assert said.exit_code == 0, said.output
    printed = " ".join(said.output.split()).partition("See: ")[2].partition(" monitor alerts list")[0]
    [setting] = shlex.split(printed)
    assert setting == f"MONITOR_STORE__URL=sqlite:///{folder}/a.db"



def test_data_sent_on_change_is_held(tmp_path: Path, rng: random.Random) -> None:
    at, rows = START, ["entity_id,state,last_changed"]
    for i in range(1500):
        at += timedelta(seconds=rng.randint(20, 900))
        name = ("sensor.room", "sensor.flow")[i % 2]
        level = 20 + 5 * (i % 2) + rng.gauss(0, 0.2) + (9 if 1300 <= i < 1330 else 0)
        rows.append(f"{name},{level:.2f},{at.isoformat()}Z")
    _, bare = replay(tmp_path, iter(rows), "--train-rows", "900", interval="10m")
    assert "if they are sent on change, use --interval 10m --hold 30m" in " ".join(bare.split())
    document, said = replay(
        tmp_path, iter(rows), "--train-rows", "900", "--interval", "10m", "--hold", "30m", interval="10m"
    )
    assert document["alerts"] >= 1
    assert "the last value of a sensor counts for 30m (--hold)" in " ".join(said.split())
    assert "sent on change" not in said


def test_the_next_step_after_init_works_as_printed(
    tmp_path: Path, rng: random.Random, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "my export.csv"
    file.write_text("\n".join(without_times(rng)) + "\n")
    made = CliRunner().invoke(main, ["init", str(file), "--interval", "1s", "--missing", "-200,n/v"])
    assert made.exit_code == 0, made.output
    assert "rows are 1 s apart" in " ".join(made.output.split())
    printed = " ".join(made.output.split()).partition("Next: ")[2].partition(" learns its first half")[0]
    program, *arguments = shlex.split(printed)
    assert (program, arguments[:2]) == ("monitor", ["replay", str(file)])
    assert arguments[2:] == ["--interval", "1s", "--missing", "-200,n/v", "--train-rows", "600"]
    config = tmp_path / "monitor.toml"
    config.write_text(config.read_text() + "\n[fleet.model]\narchitecture = 'pca'\n")
    said = CliRunner().invoke(main, arguments)
    assert said.exit_code == 0, said.output
