"""`monitor models show`: the card and the budget, in words and as JSON."""

from __future__ import annotations

import json
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from monitor.cli import main

if TYPE_CHECKING:
    from collections.abc import Callable

    from click.testing import CliRunner

    Ask = Callable[[str], Any]
    Show = Callable[[str], str]

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
def with_card(filled: Path) -> Path:
    """Add the champion's card and return its folder."""
    folder = filled.parent / "checkpoints" / "turbines-new"
    folder.mkdir(parents=True)
    (folder / "card.json").write_text(json.dumps(CARD))
    return folder


@pytest.mark.usefixtures("with_card")
def test_the_champion_is_shown_by_default(show: Show) -> None:
    shown = show("models show")
    assert shown.startswith("turbines-new of turbines  ★ champion")
    for expected in (
        "conv, objective denoising, width 32; windows of 36 cells (6 h), 3 sensors",
        "6,900 windows for training, 1,728 held out",
        "12 with too many gaps; 70 that reach into held-out time; 3 something new",
        "asset 1, 2015-07-02 10:00 – 2015-07-02 14:10, 26 windows",
        "no better, after 700 steps (best 450)",
        "– the code is as wide as the window: it copies",
        "1 per asset and week; an alarm: 3 of 5 windows, 6 to recover",
        "◌ provisional",
        "no alerts in 0.86 held-out weeks of 2 assets",
    ):
        assert expected in shown
    lines = shown.splitlines()
    assert any("pitch" in line and "4 %" in line and "2 %" in line and "not reconstructed" in line for line in lines)
    assert any("door" in line and "constant" in line for line in lines)
    assert not any("power" in line and "not reconstructed" in line for line in lines)


def test_the_choice_of_the_ensemble_is_shown(show: Show, with_card: Path) -> None:
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
    (with_card / "card.json").write_text(json.dumps(CARD | changed))
    shown = show("models show")
    for expected in (
        "auto (level + conv), objective denoising, width 32; windows of 36 cells (6 h), 3 sensors",
        "a spike at its first reading, a drift after about 45 min",
        "Share of 588 faults, injected into held-out windows, that each detects with 2 % false alarms",
        "pca was fitted again with the held-out windows included",
        "– dense could not be trained: seed 0: loss nan",
    ):
        assert expected in " ".join(shown.split())
    lines = [line.replace("\xa0", " ").split() for line in shown.splitlines()]
    assert ["★", "level", "+", "conv", "31", "%", "spike", "20", "%"] in lines
    assert ["conv", "25", "%", "stuck", "10", "%"] in lines


def test_many_members_stand_in_one_row_with_their_weights(show: Show, with_card: Path) -> None:
    names = ["level", "moving", "memory", "shape", "pca"]
    members = [
        {"name": name, "hyper": {}, "half_life": 0.125, "weight": 0.25 if name in ("moving", "pca") else 1.0}
        for name in names
    ]
    choice = {
        "chosen": "pca", "objective": "plain", "n_faults": 588, "false_share": 0.02, "renewed": "every member",
        "failed": {}, "rows": [
            {"members": ["pca"], "found": 0.25, "by_kind": {"spike": 0.9, "stuck": 0.1}},
            {"members": names, "found": 0.31, "by_kind": {"spike": 0.2, "stuck": 0.3}},
        ],
    }  # fmt: skip
    changed = {"architecture": "auto", "objective": "plain", "members": members, "choice": choice}
    (with_card / "card.json").write_text(json.dumps(CARD | changed))
    shown = show("models show")
    lines = [" ".join(line.replace("\xa0", " ").split()) for line in shown.splitlines()]
    assert "★ all 5 together 31 % spike 20 %" in lines
    assert "pca (weight 0.25) 25 % stuck 10 %" in lines
    assert "A member with less weight drifted in healthy time" in " ".join(lines)
    assert "auto (5 members), objective plain; windows of 36 cells" in " ".join(lines)


def test_a_threshold_moved_by_labels_says_so(show: Show, ask: Ask, with_card: Path) -> None:
    labels = {"factor": 1.073, "calibrated": THRESHOLD | {"raw": 1.34}}
    why = "labels: threshold × 1 → × 1.07"
    changed = {"labels": labels, "derived": {"from": "turbines-old", "why": why}}
    (with_card / "card.json").write_text(json.dumps(CARD | changed))
    shown = " ".join(show("models show").split())
    assert "labels they moved the threshold to 1.07 of the calibrated one (1.34)" in shown
    assert f"from turbines-old, without a training: {why}" in shown
    assert ask("models show")["card"]["labels"]["factor"] == 1.073


def test_a_certificate_says_what_it_rests_on(show: Show, ask: Ask, with_card: Path) -> None:
    threshold = THRESHOLD | {"weeks": 12.0, "alarms_per_week": 6.0, "state": "certified"}
    for changed, basis, words in (
        ({}, "held_out", "It rests on the finished held-out time (Poisson bound)"),
        ({"state": "provisional"}, "watched", "It rests on the time watched, by a test that may be looked at every"),
    ):
        (with_card / "card.json").write_text(json.dumps(CARD | {"threshold": threshold | changed}))
        found = ask("models show")["budget"]
        assert (found["status"], found["basis"], found["version"]["basis"]) == ("certified", basis, basis)
        assert words in " ".join(show("models show").split())


@pytest.mark.usefixtures("with_card")
def test_no_line_is_wider_than_the_terminal(show: Show, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("monitor.cli.terminal.columns", lambda: 80)
    assert max(len(line) for line in show("models show").splitlines()) <= 80


@pytest.mark.usefixtures("with_card")
def test_the_burn_is_counted(ask: Ask) -> None:
    shown = ask("models show turbines-new")
    assert shown["card"] == CARD
    budget = shown["budget"]
    assert budget["status"] == "provisional"
    assert budget["version"]["weeks"] == pytest.approx(119 / 1008)
    assert budget["version"]["n_alarms"] == 2
    assert budget["version"]["ratio"] == pytest.approx(2 / (119 / 1008))
    # Each has one alarm, and R80736 has one window less, since that is unscored.
    assert [one["asset"] for one in budget["worst"]] == ["R80736", "R80711"]


@pytest.mark.usefixtures("filled")
def test_a_missing_card_is_reported(ask: Ask, show: Show) -> None:
    shown = show("models show turbines-old")
    assert "turbines-old of turbines  ○ retired" in shown
    assert "There is no card.json in checkpoints/turbines-old" in shown
    assert ask("models show turbines-old")["budget"] is None


def test_missing_parts_of_a_card_are_left_out(show: Show, with_card: Path) -> None:
    training = {name: value for name, value in CARD["training"].items() if name not in ("diagnosis", "troubles")}
    old = CARD | {"threshold": {"raw": 1.4, "provisional": True}, "training": training}
    (with_card / "card.json").write_text(json.dumps(old))
    shown = show("models show")
    assert "6,900 windows" in shown
    assert "troubles" not in shown
    assert "Threshold" not in shown


def test_a_card_of_format_1_is_shown(ask: Ask, show: Show, with_card: Path) -> None:
    """The first released format names one network without members, and its threshold is a quantile."""
    shutil.copy(FORMAT_1 / "card.json", with_card / "card.json")
    shown = show("models show")
    assert "pca, objective plain, n_components 2; windows of 12 cells (12 min), 2 sensors" in shown
    assert "460 windows for training, 118 held out" in shown
    assert "11 that reach into held-out time" in shown
    assert "Threshold" not in shown
    assert ask("models show")["budget"] is None


@pytest.mark.parametrize("card", ["[]", "null", '{"threshold": {"step_s": 600.0}}', '{"threshold": null}'])
def test_an_invalid_card_is_no_error(show: Show, with_card: Path, card: str) -> None:
    (with_card / "card.json").write_text(card)
    assert "turbines-new of turbines" in show("models show")
    assert "turbines-new" in show("models list")


@pytest.mark.parametrize(
    ("command", "message"),
    [("models show nothing", "version nothing; `monitor models list` shows the versions"),
     ("models show turbines-now", "did you mean turbines-new? `monitor models list`"),
     ("models show challenger", "the alias challenger: no version waits for a decision; `monitor models list`"),
     ("models show --fleet pumps", "the alias champion of pumps: nothing was promoted yet; `monitor models list`")],
)  # fmt: skip
@pytest.mark.usefixtures("filled")
def test_an_unknown_version_is_not_found(runner: CliRunner, command: str, message: str) -> None:
    result = runner.invoke(main, command.split())
    assert result.exit_code == 1
    assert message in result.stderr


@pytest.mark.usefixtures("with_card")
def test_the_list_has_the_budget_status(ask: Ask) -> None:
    assert [row["budget"] for row in ask("models list")] == ["provisional", None]


# ---------------------------------------------------------------- the preview of budgets


@pytest.mark.usefixtures("filled")
def test_a_preview_without_held_out_scores_names_the_way(ask: Ask, show: Show) -> None:
    with closing(sqlite3.connect("monitor.db")) as database, database:
        database.execute("UPDATE model_version SET card = ?", [json.dumps({"threshold": THRESHOLD})])
    assert "monitor retrain turbines" in show("models preview turbines")
    [row] = ask("models preview turbines --budget 1/day --confirm 3of5")
    assert (row["budget"], row["confirm"], row["alerts"]) == ("1/day", "3 of 5", None)


@pytest.mark.usefixtures("filled")
def test_a_preview_counts_alerts_of_stored_scores(show: Show) -> None:
    policies = [{"confirm": 3, "among": 5, "raw": [2 * THRESHOLD["raw"], THRESHOLD["raw"]]},
                {"confirm": 1, "among": 1, "raw": [2 * THRESHOLD["raw"], THRESHOLD["raw"]]}]  # fmt: skip
    card = {"threshold": THRESHOLD, "thresholds": {"per_week": [1.0, 2.0], "recover": 6, "policies": policies}}
    with closing(sqlite3.connect("monitor.db")) as database, database:
        database.execute("UPDATE model_version SET card = ?", [json.dumps(card)])
    shown = show("models preview turbines --budget 1/week,2/week --confirm 3of5")
    assert "★  1/week  3 of 5" in shown
    assert "scored asset-weeks" in shown


@pytest.mark.usefixtures("filled")
@pytest.mark.parametrize("option", ["--budget often", "--confirm never"])
def test_a_malformed_budget_of_a_preview_is_a_usage_error(runner: CliRunner, option: str) -> None:
    result = runner.invoke(main, ["models", "preview", "turbines", *option.split()])
    assert result.exit_code == 2
    assert "write" in result.stderr


# ---------------------------------------------------------------- list, diff, aliases


@pytest.mark.usefixtures("registry")
def test_the_list_names_states_aliases_and_reasons(show: Show, ask: Ask) -> None:
    shown = " ".join(show("models list").split())
    for expected in (
        "◌ candidate turbines-5 (challenger)",
        "✗ rejected turbines-4",
        "2 of 5 confirmed faults would score below the threshold: alerts 3 and 6",
        "↺ rolled back turbines-3 (previous)",
        "rolled back by maria: alarmed at every start of T0021 <b>",
        "◐ shadow pumps-3 (challenger)",
        "its checkpoint is removed",
        "monitor models diff pumps-3 compares it with the champion.",
    ):
        assert expected in shown
    rows = {row["version"]: row for row in ask("models list --fleet turbines")}
    assert rows["turbines-2"]["aliases"] == ["champion"]
    assert rows["turbines-3"]["rolled_back_at"] is not None
    assert rows["turbines-4"]["gate_verdict"]["passed"] is False


@pytest.mark.usefixtures("registry")
def test_the_list_fits_a_narrow_terminal(show: Show, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("monitor.cli.version_list.is_wide", lambda: False)
    monkeypatch.setattr("monitor.cli.terminal.columns", lambda: 80)
    assert max(len(line) for line in show("models list").splitlines()) <= 80


@pytest.mark.usefixtures("registry")
def test_a_rejected_version_shows_the_check_that_failed(show: Show) -> None:
    lines = [" ".join(line.split()) for line in show("models show turbines-4").splitlines()]
    assert "Gate ✗ not passed" in lines
    assert any("off (power below 20) in 12 % of the windows" in line for line in lines)
    assert "fault memory ✗ 3 of 5 found 5 of 5 found none lost" in lines
    assert "alarm budget ✓ 0.43 a week 0.53 a week 1 a week" in lines
    assert "lost alert 3 of T0018, confirmed by an operator" in lines
    assert any(line.endswith("rejected") and line.startswith("20") for line in lines)


@pytest.mark.usefixtures("registry")
def test_an_alias_stands_for_a_version(ask: Ask, runner: CliRunner) -> None:
    assert ask("models show challenger --fleet turbines")["version"] == "turbines-5"
    assert ask("models show previous --fleet turbines")["version"] == "turbines-3"
    several = runner.invoke(main, ["models", "show", "previous"])
    assert several.exit_code == 1
    assert "one previous: fleets turbines, pumps have one each; say which with --fleet" in several.stderr


@pytest.mark.usefixtures("registry")
def test_a_diff_compares_champion_and_challenger(show: Show, ask: Ask) -> None:
    shown = [" ".join(line.split()) for line in show("models diff --fleet turbines").splitlines()]
    assert shown[0].startswith("− turbines-2 ★ champion")
    assert shown[1].startswith("+ turbines-5 ◌ candidate")
    assert "gearbox_temperature 57.4 ± 4.1 63.5 ± 4.3 moved 1.5 spreads, spread × 1" in shown
    assert "oil_pressure – used new" in shown
    assert "to compare monitor replay --from now-7d --diff turbines-2 --diff turbines-5" in shown
    assert "to promote monitor models promote turbines-5" in shown
    assert show("models diff turbines-5") == show("models diff --fleet turbines")
    found = ask("models diff turbines-1 turbines-2")
    assert (found["before"]["version"], found["after"]["version"]) == ("turbines-1", "turbines-2")
    assert found["differences"] == []


@pytest.mark.usefixtures("registry")
@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("models diff turbines-2 turbines-2", "are the same version, turbines-2; name two."),
        ("models diff turbines-2 pumps-2", "compare versions of one fleet"),
    ],
)
def test_a_diff_of_no_pair_is_refused(runner: CliRunner, command: str, message: str) -> None:
    result = runner.invoke(main, command.split())
    assert result.exit_code == 2
    assert message in result.stderr
