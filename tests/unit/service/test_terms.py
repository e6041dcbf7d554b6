"""`monitor check` on a changed budget, alert policy or sensor setting."""

from __future__ import annotations

from typing import Any

from monitor.config import parse
from monitor.service.terms import terms_findings

THRESHOLD = {"alarms_per_week": 1.0, "confirm": 3, "among": 5, "recover": 6}
CARD: dict[str, Any] = {"threshold": THRESHOLD, "thresholds": {"per_week": []}}


def findings(fleet: dict[str, Any], card: dict[str, Any] | None = CARD) -> list[tuple[str, str, str]]:
    table = {"name": "pumps", "interval": "1m"} | fleet
    made = parse({"kafka": {"bootstrap": "b:9092", "topics": ["t"]}, "fleet": [table]}).fleets[0]
    champion = None if card is None else ("pca-00000000", card)
    return [(each.level, each.text, each.fix) for each in terms_findings(made, champion, ("speed", "power"))]


def test_the_same_terms_are_no_finding() -> None:
    assert findings({}) == []
    assert findings({"alerts": {"budget": "1/7d"}, "sensor": {"power": {"unit": "kW"}}}) == []


def test_other_terms_are_taken_over_at_the_next_start() -> None:
    [(level, text, _)] = findings({"alerts": {"budget": "2/week"}, "sensor": {"power": {"direction": "up"}}})
    assert level == "ok"
    assert text == (
        "pca-00000000 has other terms: budget 1 → 2 per asset and week; sensor power: only up. "
        "The next start derives a version, without a training"
    )


def test_without_held_out_scores_a_training_is_needed() -> None:
    [(level, _, fix)] = findings({"alerts": {"budget": "2/week"}}, {"threshold": THRESHOLD})
    assert (level, fix) == ("warning", "monitor retrain pumps")
    [(level, *_)] = findings({"sensor": {"power": {"direction": "up"}}}, {"threshold": THRESHOLD})
    assert level == "ok"


def test_settings_of_a_sensor_that_is_not_read_are_reported() -> None:
    [(level, text, fix)] = findings({"sensor": {"powr": {"range": [0, 5]}}}, None)
    assert (level, text) == ("warning", "[fleet.sensor.powr] is no sensor that is read")
    assert fix == "did you mean [fleet.sensor.power]?"


def test_an_unreadable_card_is_no_finding() -> None:
    assert findings({"alerts": {"budget": "2/week"}}, {"threshold": None}) == []


def test_a_factor_without_its_setting_is_a_finding() -> None:
    moved = CARD | {"labels": {"factor": 1.2, "calibrated": THRESHOLD}}
    assert findings({"alerts": {"learn_from_labels": True}}, moved) == []
    [(level, text, _)] = findings({}, moved)
    assert (level, "labels: threshold × 1.2 → × 1" in text) == ("ok", True)
