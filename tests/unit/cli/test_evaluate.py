"""`monitor evaluate`: the JSON contract, the tables, refused arguments, and stored scores under other policies."""

from __future__ import annotations

import json
import re
import sqlite3
from typing import TYPE_CHECKING, Any

import pytest

from monitor.cli import main
from monitor.config.tree import ARCHITECTURES, OBJECTIVES
from monitor.evaluation import evaluate as module
from monitor.evaluation import yardsticks
from monitor.evaluation.methods import ALWAYS
from tests import labelled_recording as sample

if TYPE_CHECKING:
    from pathlib import Path

    from click.testing import CliRunner, Result

# A contract with other tools: keys may be added, never renamed.
RANKING, ALARMS = {"vus_pr", "auc_pr", "auc_roc"}, {"events", "events_found", "false_alarms_per_week", "delay_s"}
CONTRACT = {"set", "name", "method", "fit_s", "score_s"} | RANKING | ALARMS
QUICK = ["--methods", "pca", "--window", "16", "--processes", "1"]


@pytest.fixture(autouse=True)
def _quick_yardstick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(yardsticks, "STEPS", 5)


def run(runner: CliRunner, *arguments: object) -> Result:
    return runner.invoke(main, ["evaluate", *map(str, arguments)])


def ask(runner: CliRunner, *arguments: object) -> Any:
    result = run(runner, *arguments, "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return sample.write_csv(tmp_path / "plant" / "pump.csv")


def test_json_keeps_its_contract(runner: CliRunner, file: Path) -> None:
    found = ask(runner, file, *QUICK)
    assert [row["method"] for row in found["series"]] == list(ALWAYS)
    for row in found["series"]:
        assert row.keys() >= CONTRACT
        assert (row["set"], row["name"], row["error"]) == ("plant", "pump", None)
    assert found["mean"].keys() == set(ALWAYS)
    assert found["mean"]["pca"]["vus_pr"] == found["series"][0]["vus_pr"]
    assert found["mean"]["pca"].keys() >= CONTRACT - {"set", "name", "method"}


def test_json_compares_the_default(runner: CliRunner, file: Path) -> None:
    other = sample.write_csv(file.parent.parent / "other" / "fan.csv", seed=1)
    third = sample.write_csv(file.parent / "third.csv", seed=2)
    found = ask(runner, file, third, other, *QUICK, "--methods", "random")
    assert [one["method"] for one in found["comparison"]] == list(ALWAYS)
    for one in found["comparison"]:
        assert one.keys() >= {"method", "base", "difference", "low", "high", "better", "worse", "is_beaten", "per_set"}
        assert one["base"] == "random"
        mean = found["mean"]["random"]["vus_pr"] - found["mean"][one["method"]]["vus_pr"]
        assert one["difference"] == pytest.approx(mean, abs=1e-5)
        assert one["low"] <= one["difference"] <= one["high"]
        assert one["per_set"].keys() == {"plant", "other"}


def test_text_names_rows_not_beaten(runner: CliRunner, file: Path) -> None:
    other = sample.write_csv(file.parent.parent / "other" / "fan.csv", seed=1)
    shown = run(runner, file, other, *QUICK, "--methods", "random").stdout
    assert re.search(r"^random against +difference +95 % interval +better on +worse on$", shown, re.MULTILINE)
    assert re.search(r"^better–worse +plant +other$", shown, re.MULTILINE)
    assert re.search(r"^pca +−0\.\d{3} +– +0 of 2 +2 of 2$", shown, re.MULTILINE)
    assert "random does not beat pca (−0." in " ".join(shown.split())


def test_tables_fit_eighty_columns(runner: CliRunner, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sets = [f"{name}-plant-of-the-north" for name in ("first", "second", "third")]
    others = [sample.write_csv(file.parent.parent / name / "fan.csv", seed=1) for name in sets]
    monkeypatch.setattr("monitor.cli.terminal.columns", lambda: 80)
    shown = run(runner, file, *others, *QUICK).stdout
    assert max(map(len, shown.splitlines())) <= 80
    assert shown.count("better–worse") == 2
    assert all(name in shown for name in sets)


def test_tables_show_means_and_policies(runner: CliRunner, file: Path, tmp_path: Path) -> None:
    report, cache = tmp_path / "out.html", tmp_path / "cache"
    options = (*QUICK, "--policy", "confirm=1 of 1", "--report", report, "--into", cache)
    shown = run(runner, file, *options).stdout
    assert shown.count("plant pump") == 1
    assert "moving-deviation" in shown
    assert "2 of 2" in shown
    assert "confirm=1 of 1 instead, by the same scores:" in shown
    assert f"The plots are in {report}" in shown
    assert report.read_text().startswith("<!doctype html>")
    n = len(ALWAYS)
    assert f"{n} of {n} scores came from an earlier run" in " ".join(run(runner, file, *options).stdout.split())


def test_a_failed_series_stops_no_other(runner: CliRunner, file: Path) -> None:
    bare = sample.write_csv(file.parent.parent / "bare" / "fan.csv", train_rows=None)
    result = run(runner, file, bare, *QUICK, "--json")
    assert result.exit_code == 0
    assert result.stderr.count("nothing says how many leading rows are healthy") == 1
    n = len(ALWAYS)
    assert [bool(row["error"]) for row in json.loads(result.stdout)["series"]] == [*[False] * n, *[True] * n]
    alone = run(runner, bare, *QUICK)
    assert alone.exit_code == 2
    assert "--train-rows N" in alone.stderr
    assert run(runner, bare, "--train-rows", "700", *QUICK).exit_code == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--methods", "convv"], 'did you mean "conv"'),
        (["--methods", ","], "names no method"),
        (["--policy", "confirm=8 of 5"], 'write "5 of 8"'),
        (["--max-train", "60"], "write a number and a unit"),
        (["--max-train", "0s"], "leaves no time to train"),
        (["--budget", "often"], 'write "1/week"'),
        (["--window", "1"], "write 2 or more, or auto"),
        (["--window", "one cycle"], "write 2 or more, or auto"),
        (["--report", "nowhere/out.html"], "there is no folder nowhere"),
        (["--report", "/proc/out.html"], "name a folder you may write to"),
        (["--seed", "1e20"], "is not a valid int"),
        (["--seed", str(10**20)], "is not in the range"),
        (["-c", "monitor.toml"], "-c is for stored scores; files are evaluated with the defaults"),
        (["--into", "/proc/nowhere"], "name a folder you may write to"),
        (["--from", "now-1d"], "files are evaluated whole"),
    ],
)
def test_invalid_arguments_are_refused(runner: CliRunner, file: Path, arguments: list[str], message: str) -> None:
    result = run(runner, file, *arguments)
    assert result.exit_code == 2
    assert message in " ".join(result.stderr.split())


def test_a_report_never_overwrites_a_recording(runner: CliRunner, file: Path) -> None:
    before = file.read_bytes()
    (link := file.parent.parent / "link.csv").symlink_to(file)
    for report in (file, link):
        result = run(runner, file, *QUICK, "--report", report)
        assert result.exit_code == 2
        assert "is one of the recordings" in " ".join(result.stderr.split())
    assert file.read_bytes() == before


def test_a_failed_report_keeps_the_figures(
    runner: CliRunner, file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    report = tmp_path / "out.html"
    report.write_text("earlier report")

    def fails(*_: Any) -> str:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pathlib.Path.replace", fails)
    result = run(runner, file, *QUICK, "--report", report, "--json")
    assert result.exit_code == 1
    assert len(json.loads(result.stdout)["series"]) == len(ALWAYS)
    assert "No space left on device" in result.stderr
    assert report.read_text() == "earlier report"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.html", "plant"]


def test_equal_series_names_show_their_path(runner: CliRunner, file: Path, tmp_path: Path) -> None:
    other = sample.write_csv(tmp_path / "other" / "plant" / "pump.csv", seed=1)
    lines = run(runner, file, other, *QUICK).stdout.splitlines()
    assert [line for line in lines if line.startswith("plant ")] == [
        f"plant {tmp_path.name}/plant/pump.csv", "plant other/plant/pump.csv"
    ]  # fmt: skip
    rows = ask(runner, file, other, *QUICK)["series"]
    assert [row["path"] for row in rows[:: len(ALWAYS)]] == [str(file), str(other)]


def test_a_warning_is_printed_once(runner: CliRunner, tmp_path: Path) -> None:
    bare = sample.write_csv(tmp_path / "bare" / "fan.csv", labelled=False)
    result = run(runner, bare, *QUICK, "--json")
    assert result.exit_code == 0
    warning = f'{bare} has no column "label"; its columns are flow, pressure; use --label-column'
    assert result.stderr.count(warning) == 1
    assert [row["warnings"] for row in json.loads(result.stdout)["series"]] == [[warning]] * len(ALWAYS)


def test_a_method_without_results_fails(runner: CliRunner, file: Path) -> None:
    result = run(runner, file, "--methods", "pca", "--window", "700", "--processes", "1", "--json")
    errors = {row["method"]: row["error"] for row in json.loads(result.stdout)["series"]}
    assert result.exit_code == 1
    assert errors["moving-deviation"] is None
    assert "not enough healthy data" in errors["pca"]
    # The PCA was added, not requested.
    assert run(runner, file, "--methods", "random", "--window", "700", "--processes", "1").exit_code == 0


def test_a_defect_fails_the_run(runner: CliRunner, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = sample.write_csv(file.parent.parent / "other" / "fan.csv", seed=1)
    score = module.score

    def fails(method: Any, data: Any, *rest: Any) -> Any:
        if method.name == "pca" and data.values[0, 0] == sample.values(1)[0, 0].round(5):
            raise ZeroDivisionError("a defect")
        return score(method, data, *rest)

    monkeypatch.setattr(module, "score", fails)
    result = run(runner, file, other, *QUICK, "--json")
    assert result.exit_code == 1
    assert f"unexpected: {other}: ZeroDivisionError: a defect" in result.stderr
    failed = [(row["path"], row["method"]) for row in json.loads(result.stdout)["series"] if row["error"]]
    assert failed == [(str(other), "pca")]


def test_a_mean_shows_its_number_of_series(runner: CliRunner, file: Path) -> None:
    short = sample.write_csv(file.parent / "short.csv", train_rows=60)
    shown = run(runner, file, short, *QUICK).stdout
    assert re.search(r"^pca .* 1 of 2$", shown, re.MULTILINE)


def test_help_names_every_method(runner: CliRunner) -> None:
    shown = run(runner, "--help").stdout
    assert all(re.search(rf"\b{name}\b", shown) for name in (*ARCHITECTURES, *OBJECTIVES, *ALWAYS))


# ---------------------------------------------------------------- stored scores


@pytest.mark.usefixtures("filled")
def test_stored_scores_are_decided_again(runner: CliRunner, tmp_path: Path) -> None:
    before = sqlite3.connect(tmp_path / "monitor.db").execute("SELECT COUNT(*), SUM(n_anomalous) FROM alert").fetchall()
    own, strict, eager = ask(runner, "--policy", "confirm=21 of 30", "--policy", "1 of 1, recover=1")["policies"]
    assert (own["fleet"], own["policy"], own["confirm"], own["recover"]) == ("turbines", "configured", "3 of 5", 6)
    assert (own["alerts"], own["gained"], own["lost"], own["assets"]) == (1, 0, 0, 2)
    # R80711 has twenty anomalous windows in a row, R80736 has none.
    assert (strict["confirm"], strict["alerts"], strict["gained"], strict["lost"]) == ("21 of 30", 0, 0, 1)
    assert (eager["policy"], eager["alerts"], eager["lost"]) == ("confirm=1 of 1, recover=1", 1, 0)
    assert own["windows"] == 119  # one of 120 is unscored
    assert own["per_week"] == pytest.approx(1 / (119 * 600 / 604_800), rel=1e-4)
    after = sqlite3.connect(tmp_path / "monitor.db").execute("SELECT COUNT(*), SUM(n_anomalous) FROM alert").fetchall()
    assert after == before


@pytest.mark.usefixtures("filled")
def test_the_configured_policy_comes_first(runner: CliRunner) -> None:
    shown = run(runner, "--policy", "confirm=21 of 30").stdout
    assert "3 of 5 (configured)" in shown
    assert "21 of 30" in shown


@pytest.mark.usefixtures("filled")
def test_stored_scores_within_a_range(runner: CliRunner) -> None:
    [own, _] = ask(runner, "--policy", "3 of 5", "--to", "2015-07-27T03:00")["policies"]
    assert (own["alerts"], own["windows"]) == (0, 34)


@pytest.mark.usefixtures("empty")
def test_no_stored_scores_gives_a_sentence(runner: CliRunner) -> None:
    assert run(runner, "--policy", "3 of 5").stdout.startswith("No stored scores.")
    assert ask(runner, "--policy", "3 of 5")["policies"][0]["windows"] == 0


@pytest.mark.usefixtures("empty")
@pytest.mark.parametrize(
    "option", [("--report", "out.html"), ("--methods", "pca"), ("--into", "cache"), ("--seed", "0"), ("--window", "9")]
)
def test_file_options_need_files(runner: CliRunner, option: tuple[str, str]) -> None:
    result = run(runner, "--policy", "3 of 5", *option)
    assert result.exit_code == 2
    assert f"{option[0]} is for FILES; stored scores take --policy" in " ".join(result.stderr.split())


def test_files_or_a_policy_are_required(runner: CliRunner) -> None:
    result = run(runner)
    assert result.exit_code == 2
    assert "Name FILES to evaluate, or a --policy" in result.stderr
