"""Model versions in words, and the difference of two of them by their cards."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from monitor.version_differences import differences, replay_command
from monitor.version_words import TimeLeft, checks, lost_faults, outcome, projected_alerts, time_left_s, why

VERDICT: dict[str, Any] = {
    "passed": False, "why": "one confirmed fault is lost", "champion": "v1",
    "alerts": {"same": 12, "gained": 2, "lost": 1},
    "checks": [
        {"name": "budget", "passed": True, "why": "4 alerts", "n_alerts": 4, "weeks": 8.0, "champion_alerts": 2,
         "per_week": 1.0},
        {"name": "memory", "passed": False, "why": "alert 7 is lost", "n_judged": 3, "n_lost": 1,
         "faults": [{"alert": 7, "asset": "T1", "lost": True}, {"alert": 8, "asset": "T1", "lost": False}]},
        {"name": "new_check", "passed": True},
    ],
}  # fmt: skip


def row(state: str, verdict: dict[str, Any] | None = None) -> dict[str, Any]:
    return {"version": "v2", "state": state, "gate_verdict": verdict}


def event(word: str, actor: str = "maria", via: str = "cli", note: str = "") -> dict[str, Any]:
    return {"event": word, "actor": actor, "via": via, "note": note}


@pytest.mark.parametrize(
    ("version", "newest", "expected"),
    [
        (row("rejected", VERDICT), event("rejected", "monitor", "daemon"), "one confirmed fault is lost"),
        (row("rejected", VERDICT), event("rejected", note="too few starts"), "rejected by maria: too few starts"),
        (row("rejected", VERDICT), event("rejected", "monitor", "daemon", "superseded by v3"), "superseded by v3"),
        (row("candidate", VERDICT), None, "waits for a decision: one confirmed fault is lost"),
        (row("shadow"), None, "scores live records and decides nothing"),
        (row("rolled_back", VERDICT), event("rolled_back"), "rolled back by maria"),
        (row("champion", VERDICT), event("promoted", note="looks right"), "promoted by maria: looks right"),
        (row("champion"), None, None),
        (row("retired", VERDICT), event("promoted", "monitor", "daemon"), None),
    ],
)
def test_a_state_has_its_reason_in_a_sentence(version: Any, newest: Any, expected: str | None) -> None:
    assert why(version, newest) == expected


def test_a_state_is_not_repeated_by_its_verdict() -> None:
    passed = {"passed": True, "why": "passed: no alerts in 3 weeks"}
    assert why(row("champion", passed), None) == "no alerts in 3 weeks"
    assert outcome({"state": "done", "message": ""}, row("champion", passed)) == "v2 is promoted: no alerts in 3 weeks"
    refused = {"passed": False, "why": "refused: another sensor", "checks": []}
    assert outcome({"state": "done", "message": ""}, row("rejected", refused)).endswith("stays: another sensor")


def test_a_check_shows_the_figures_of_both_sides() -> None:
    budget, memory, unknown = checks(VERDICT)
    assert (budget["challenger"], budget["champion"], budget["allowed"]) == ("0.5 a week", "0.25 a week", "1 a week")
    assert (memory["challenger"], memory["allowed"]) == ("2 of 3 found", "none lost")
    assert (unknown["title"], unknown["challenger"]) == ("new check", "")
    assert [fault["alert"] for fault in lost_faults(VERDICT)] == [7]
    assert checks(None) == []


def test_alerts_are_compared_only_with_a_champion() -> None:
    assert projected_alerts(VERDICT) == "12 alerts like the champion's, 2 gained, 1 lost"
    assert projected_alerts(VERDICT | {"champion": None}) is None


@pytest.mark.parametrize(
    ("job", "version", "expected"),
    [
        ({"state": "failed", "message": "too little data"}, None, "failed: too little data"),
        ({"state": "done", "message": ""}, row("rejected", VERDICT), "the champion stays: alert 7 is lost"),
        ({"state": "done", "message": ""}, row("champion"), "v2 is promoted"),
        ({"state": "done", "message": ""}, row("candidate"), "v2 is proposed"),
    ],
)
def test_the_end_of_a_training_is_said_in_words(job: Any, version: Any, expected: str) -> None:
    assert expected in outcome(job, version)


def test_the_remaining_time_follows_from_the_progress() -> None:
    now = datetime(2026, 1, 1, tzinfo=UTC)
    job = {"state": "running", "progress": 0.25, "started_at": (now - timedelta(seconds=60)).isoformat()}
    assert time_left_s(job, now) == 180
    assert time_left_s(job | {"progress": 0.01}, now) is None
    assert time_left_s(job | {"state": "queued", "started_at": None}, now) is None


def test_a_step_of_the_progress_moves_the_remaining_time_little() -> None:
    left = TimeLeft()
    assert left.update(None, 1.0) is None
    assert left.update(60.0, 60.0) == 60
    stalled = left.update(90.0, 90.0)
    assert stalled is not None
    assert 30 < stalled < 60


# ---------------------------------------------------------------- differences

CARD: dict[str, Any] = {
    "length": 36, "interval_s": 600.0, "sensors": ["power", "pitch"], "seed": 0,
    "members": [{"name": "pca"}, {"name": "conv"}],
    "threshold": {"raw": 2.0, "confirm": 3, "among": 5, "alarms_per_week": 1.0, "state": "certified"},
    "scaler": [
        {"name": "power", "kind": "continuous", "centre": 100.0, "scale": 10.0},
        {"name": "pitch", "kind": "continuous", "centre": 1.0, "scale": 1.0},
    ],
    "training": {"n_train": 100, "left_out": {"alerted": 4}},
}  # fmt: skip


def changes(**changed: Any) -> dict[str, Any]:
    return {each.name: each for each in differences({"card": CARD}, {"card": CARD | changed})}


def test_equal_cards_do_not_differ() -> None:
    assert changes() == {}


def test_a_drift_is_told_in_spreads_of_the_first_version() -> None:
    scaler = [CARD["scaler"][0] | {"centre": 125.0}, CARD["scaler"][1] | {"centre": 1.05}]
    found = changes(scaler=scaler)
    assert found.keys() == {"power"}
    assert found["power"].note == "moved 2.5 spreads, spread × 1"
    assert found["power"].is_large


def test_new_and_lost_sensors_stand_out() -> None:
    found = changes(sensors=["power", "flow"])
    assert (found["flow"].note, found["pitch"].note) == ("new", "gone")
    assert found["flow"].is_large


def test_window_members_threshold_and_data_are_compared() -> None:
    found = changes(
        length=72,
        members=[{"name": "pca", "weight": 0.25}, {"name": "lstm"}],
        threshold=CARD["threshold"] | {"raw": 3.0, "confirm": 2, "among": 3},
        training={"n_train": 120, "left_out": {"alerted": 4, "labelled": 2}},
    )
    assert (found["window"].before, found["window"].after) == ("36 cells, 6 h", "72 cells, 12 h")
    assert found["member pca"].after == "weight 0.25"
    assert (found["member conv"].after, found["member lstm"].before) == ("–", "–")
    assert found["raw score"].note.startswith("× 1.5")
    assert (found["an alarm"].before, found["an alarm"].after) == ("3 of 5 windows", "2 of 3 windows")
    assert found["windows used"].after == "120"
    assert found["left out: labelled"].before == "0"
    assert "left out: alerted" not in found


def test_a_part_that_one_card_lacks_is_no_difference() -> None:
    assert differences({"card": {}}, {"card": CARD}) == []


def test_the_command_compares_both_on_history() -> None:
    assert replay_command("v1", "v2") == "monitor replay --from now-7d --diff v1 --diff v2"
