"""The judgement, the words and the picture of a drill."""

from __future__ import annotations

from typing import Any

import pytest

from monitor import drawing
from monitor.drill_report import KINDS, LEGEND, NEVER, cell_text, judge, level, picture, sentences
from monitor.lifecycle import injection

SIZED = {"bias": 4.0, "ramp": 4.0, "spike": 4.0, "noise": 4.0, "lag": 16.0}


def cell(kind: str, *, size: float | None = 2.0, detected: int = 30, at_reference: int = 30) -> dict[str, Any]:
    is_sized = kind in SIZED
    return {
        "n": 30, "found": detected, "is_found": detected >= 27, "recall": detected / 30,
        "size": size if is_sized and detected >= 27 else None, "largest": SIZED[kind] * 4 if is_sized else None,
        "unit": ("rows" if kind == "lag" else "spreads") if is_sized else None, "delay_s": 5400.0,
        "by": {"process": detected, "sensor": 0}, "reference": {"size": SIZED.get(kind), "found": at_reference},
    }  # fmt: skip


def document(*, alarmed: int = 1, allowed: float = 0.1, **changed: dict[str, Any]) -> dict[str, Any]:
    """Return a drill of three sensors. `changed`: other facts of the cells of a kind."""
    cells = {kind: cell(kind, **changed.get(kind, {})) for kind in KINDS}
    summary = {
        kind: {"sensors": 3, "found": 3 * cells[kind]["is_found"], "size": cells[kind]["size"],
               "unit": cells[kind]["unit"], "reference": SIZED.get(kind), "delay_s": 5400.0}
        for kind in KINDS
    }  # fmt: skip
    return {
        "fleet": "pumps", "version": "auto-1", "copies": 30, "assets": 4, "interval_s": 600.0, "window_s": 38400.0,
        "horizon_s": 76800.0, "n_sensors": 3, "n_drilled": 3, "kinds": summary,
        "healthy": {"copies": 60, "alarmed": alarmed, "allowed": allowed},
        "sensors": [{"name": name, "kinds": cells} for name in ("flow", "heat", "load")],
    }  # fmt: skip


def test_kinds_are_those_that_are_injected() -> None:
    assert KINDS == injection.KINDS


def test_a_usual_drill_has_no_problem() -> None:
    assert judge(document(), None) is None
    assert judge(document(), document()) is None
    lucky = document(spike={"at_reference": 22}, lag={"at_reference": 24})
    assert judge(document(spike={"at_reference": 15}, lag={"at_reference": 17}), lucky) is None


def test_alarms_in_healthy_copies_are_a_problem_unless_budgeted() -> None:
    problem = judge(document(alarmed=30), None)
    assert problem is not None
    assert problem.kind == "alarms"
    assert "30 of 60 healthy stretches" in problem.text
    assert judge(document(alarmed=30, allowed=0.4), None) is None


def test_a_model_that_finds_hardly_a_fault_is_blind() -> None:
    nothing = {kind: {"detected": 1, "at_reference": 1} for kind in ("bias", "ramp", "spike", "noise", "lag", "broken")}
    problem = judge(document(**nothing), None)
    assert problem is not None
    assert problem.kind == "blind"
    assert "18 of 540 injected faults" in problem.text  # three sensors, six kinds, one copy each


def test_a_clear_loss_since_the_first_drill_is_a_problem() -> None:
    problem = judge(document(bias={"detected": 12, "at_reference": 12}), document())
    assert problem is not None
    assert problem.kind == "worse"
    assert "bias of 4 in 40% of the copies, 100% then" in problem.text


def test_other_sensors_drawn_by_chance_are_compared_as_a_whole() -> None:
    other = document()
    other["sensors"] = [each | {"name": each["name"] + "2"} for each in other["sensors"]]
    assert judge(other, document()) is None
    assert judge(document(bias={"at_reference": 9}), other) is not None


@pytest.mark.parametrize(
    ("kind", "changed", "text", "shade"),
    [
        ("bias", {}, "2", 2),
        ("bias", {"detected": 20}, "> 16", NEVER),
        ("lag", {"size": 4.0}, "40m", 1),
        ("lag", {"detected": 0}, "> 11h", NEVER),
        ("stuck", {}, "90m", 2),
        ("broken", {"detected": 0}, "no", NEVER),
    ],
)
def test_cells_say_the_least_size_or_the_time(kind: str, changed: dict[str, Any], text: str, shade: int) -> None:
    assert cell_text(cell(kind, **changed), kind, document()) == text
    assert level(cell(kind, **changed), kind, document()) == shade
    assert cell_text({"skipped": "counts"}, kind, document()) == "–"


def test_sentences_name_the_middle_sensor_and_the_missed_kinds() -> None:
    said = " ".join(sentences(document(lag={"detected": 3})))
    assert "3 sensors, 30 copies" in said
    assert "bias from 2" in said
    assert "stuck after 90m" in said
    assert "lag in 3" in said


def test_the_picture_holds_the_table_and_its_words() -> None:
    drawn = drawing.standalone(picture(document(lag={"detected": 3})), 700)
    for words in ("flow", "heat", "load", *KINDS, "90m", "&gt; 11h"):
        assert words in drawn
    assert drawing.text(LEGEND) in drawn
