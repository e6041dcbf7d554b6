"""models show: the card for people and the same for programs, and what of the budget is used."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from monitor.cli import main
from tests.unit.cli.test_queries import ask, show

if TYPE_CHECKING:
    from click.testing import CliRunner

FORMAT_1 = Path(__file__).parents[1] / "format1" / "pca-e0ac6e46"
THRESHOLD = {
    "raw": 1.4375, "alarms_per_week": 1.0, "bound_per_week": 3.49, "weeks": 0.857, "n_assets": 2, "n_episodes": 0,
    "state": "provisional", "weeks_missing": 2.14, "worst_asset": None, "worst_per_week": 0.0,
    "confirm": 3, "among": 5, "recover": 6, "step_s": 600.0, "method": "a tail over 12 independent peaks",
    "reason": "no alerts in 0.86 held-out weeks of 2 assets",
}  # fmt: skip
CARD: dict[str, Any] = {
    "architecture": "conv", "objective": "denoising", "members": [{"name": "conv", "hyper": {"width": 32}}],
    "length": 36, "interval_s": 600.0,
    "seed": 0, "sensors": ["power", "pitch", "door"],
    "training": {
        "n_assets": 2, "from": "2015-06-15T00:00:00+00:00", "to": "2015-07-15T00:00:00+00:00",
        "n_train": 6900, "n_held_out": 1728,
        "left_out": {"too_many_gaps": 12, "reaches_into_held_out": 70, "thinned": 0, "something_new": 3},
        "suspected_faults": [
            {"asset": 1, "from": "2015-07-02T10:00:00+00:00", "to": "2015-07-02T14:10:00+00:00", "n_windows": 26}
        ],
        "stopped": "no better", "n_steps": 700, "best_step": 450, "restarts": [],
        "diagnosis": {"curve": [[0, 1.0, 0.9], [350, 0.2, 0.3], [700, 0.1, 0.28]]},
        "troubles": ["the code is as wide as the window: it copies"],
        "held_out_error": {"mean": 0.28}, "took_s": 42.0,
        "explained_variance": {"all": 0.71, "power": 0.95, "pitch": 0.04, "door": None},
    },
    "baseline": {
        "architecture": "pca", "held_out_error": {"mean": 0.31},
        "explained_variance": {"all": 0.69, "power": 0.94, "pitch": 0.02, "door": None},
    },
    "threshold": THRESHOLD,
}  # fmt: skip


@pytest.fixture
def carded(filled: Path) -> Path:
    """The filled database, with the champion's checkpoint beside it."""
    folder = filled.parent / "checkpoints" / "turbines-new"
    folder.mkdir(parents=True)
    (folder / "card.json").write_text(json.dumps(CARD))
    return folder


@pytest.mark.usefixtures("carded")
def test_the_champion_is_shown_when_no_version_is_named(runner: CliRunner) -> None:
    said = show(runner, "models show")
    assert said.startswith("turbines-new of turbines  ★ champion")
    for expected in (
        "conv, objective denoising; 36 cells (6 h) of 3 sensors; width 32",
        "6,900 windows to learn from, 1,728 held out",
        "12 with too many gaps; 70 that reach into held-out time; 3 something new",
        "asset 1, 2015-07-02 10:00 – 2015-07-02 14:10, 26 windows",
        "no better, after 700 steps (best 450)",
        "– the code is as wide as the window: it copies",
        "1 per asset and week; an alarm: 3 of 5 windows, 6 to recover",
        "◌ provisional",
        "no alerts in 0.86 held-out weeks of 2 assets",
    ):
        assert expected in said
    lines = said.splitlines()
    assert any("pitch" in line and "4 %" in line and "2 %" in line and "cannot rebuild it" in line for line in lines)
    assert any("door" in line and "stood still" in line for line in lines)
    assert not any("power" in line and "cannot rebuild" in line for line in lines)


def test_who_speaks_and_how_it_was_chosen_is_shown(runner: CliRunner, carded: Path) -> None:
    members = [
        {"name": "level", "hyper": {}, "half_life": None},
        {"name": "conv", "hyper": {"width": 32}, "half_life": 0.125},
    ]
    choice = {
        "chosen": "conv", "objective": "denoising", "n_faults": 588, "false_share": 0.02, "renewed": "pca",
        "failed": {"dense": "seed 0: loss nan"},
        "rows": [
            {"members": ["conv"], "found": 0.25, "by_kind": {"spike": 0.9, "stuck": 0.1}},
            {"members": ["level", "conv"], "found": 0.31, "by_kind": {"spike": 0.2, "stuck": 0.3}},
        ],
    }  # fmt: skip
    changed = {"architecture": "auto", "objective": "plain", "members": members, "choice": choice}
    (carded / "card.json").write_text(json.dumps(CARD | changed))
    said = show(runner, "models show")
    for expected in (
        "auto (conv beside level), objective denoising; 36 cells (6 h) of 3 sensors; width 32",
        "a spike in the reading that has it, a drift after about 45 min",
        "found of 588 faults put into held-out windows, with 2 % false; no labels",
        "pca was solved again on the held-out windows too",
        "– dense could not be trained: seed 0: loss nan",
    ):
        assert expected in said.replace("\xa0", " ")
    lines = [line.replace("\xa0", " ").split() for line in said.splitlines()]
    assert ["★", "level", "+", "conv", "31", "%", "spike", "20", "%"] in lines
    assert ["conv", "25", "%", "stuck", "10", "%"] in lines


@pytest.mark.usefixtures("carded")
def test_no_line_is_wider_than_the_terminal(runner: CliRunner, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("monitor.cli.terminal.columns", lambda: 80)
    assert max(len(line) for line in show(runner, "models show").splitlines()) <= 80


@pytest.mark.usefixtures("carded")
def test_the_burn_of_the_budget_is_counted_from_scores_and_alerts(runner: CliRunner) -> None:
    shown = ask(runner, "models show turbines-new")
    assert shown["card"] == CARD
    budget = shown["budget"]
    assert budget["status"] == "provisional"
    assert budget["version"]["weeks"] == pytest.approx(119 / 1008)
    assert budget["version"]["n_alarms"] == 2
    assert budget["version"]["ratio"] == pytest.approx(2 / (119 / 1008))
    # One alarm each, and R80736 was unscored once.
    assert [one["asset"] for one in budget["worst"]] == ["R80736", "R80711"]


@pytest.mark.usefixtures("filled")
def test_without_a_checkpoint_folder_what_the_database_knows_is_shown(runner: CliRunner) -> None:
    said = show(runner, "models show turbines-old")
    assert "turbines-old of turbines  ○ retired" in said
    assert "There is no card.json in checkpoints/turbines-old" in said
    assert ask(runner, "models show turbines-old")["budget"] is None


@pytest.mark.usefixtures("carded")
def test_an_older_card_is_shown_as_far_as_it_goes(runner: CliRunner, carded: Path) -> None:
    training = {name: value for name, value in CARD["training"].items() if name not in ("diagnosis", "troubles")}
    old = CARD | {"threshold": {"raw": 1.4, "provisional": True}, "training": training}
    (carded / "card.json").write_text(json.dumps(old))
    said = show(runner, "models show")
    assert "6,900 windows" in said
    assert "troubles" not in said
    assert "Threshold" not in said


@pytest.mark.usefixtures("carded")
def test_a_card_of_format_1_is_shown_as_far_as_it_goes(runner: CliRunner, carded: Path) -> None:
    """One that the first released format wrote; it named its network itself, and promised a quantile."""
    shutil.copy(FORMAT_1 / "card.json", carded / "card.json")
    said = show(runner, "models show")
    assert "pca, objective plain; 12 cells (12 min) of 2 sensors; n_components 2" in said
    assert "460 windows to learn from, 118 held out" in said
    assert "11 that reach into held-out time" in said
    assert "Threshold" not in said
    assert ask(runner, "models show")["budget"] is None


@pytest.mark.parametrize("card", ["[]", "null", '{"threshold": {"step_s": 600.0}}', '{"threshold": null}'])
def test_what_is_no_card_is_no_crash(runner: CliRunner, carded: Path, card: str) -> None:
    (carded / "card.json").write_text(card)
    assert "turbines-new of turbines" in show(runner, "models show")
    assert "turbines-new" in show(runner, "models list")


@pytest.mark.parametrize(
    ("command", "says"),
    [("models show nothing", "version nothing; `monitor models list` shows the 2 there are"),
     ("models show --fleet pumps", "a champion of pumps; `monitor models list`")],
)  # fmt: skip
@pytest.mark.usefixtures("filled")
def test_a_version_that_is_not_there_is_not_found(runner: CliRunner, command: str, says: str) -> None:
    result = runner.invoke(main, command.split())
    assert result.exit_code == 1
    assert says in result.stderr


@pytest.mark.usefixtures("carded")
def test_the_list_tells_programs_how_the_champions_promise_stands(runner: CliRunner) -> None:
    assert [row["budget"] for row in ask(runner, "models list")] == ["provisional", None]
