from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from monitor.evaluation import evaluate as module
from monitor.evaluation.evaluate import by_policy, evaluate, means, plan
from monitor.evaluation.methods import Settings
from monitor.evaluation.policy import PolicyChange
from tests.unit.evaluation import made

if TYPE_CHECKING:
    from pathlib import Path

    from monitor.evaluation.evaluate import Finished, Plan

SETTINGS = Settings(window=16)


def run(wanted: Plan) -> list[Finished]:
    return evaluate(wanted, processes=1, on_progress=lambda _share, _text: None)


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    return [made.write(tmp_path / "plant" / f"pump{n}.csv", seed=n) for n in (1, 2)]


def test_every_series_meets_every_method_in_the_order_asked_for(files: list[Path]) -> None:
    finished = run(plan([*files, files[0]], ["random"], SETTINGS))
    assert [(one.name, one.method) for one in finished] == [
        (name, method) for name in ("pump1", "pump2") for method in ("random", "pca", "moving-deviation")
    ]
    pca = finished[1].row()
    assert pca["vus_pr"] > 0.9
    assert pca["error"] is None
    assert finished[1].alarms is not None
    assert finished[1].alarms.events_found == 2
    assert pca["model"]["architecture"] == "pca"


def test_a_series_that_fails_is_a_row_with_its_error_and_stops_nobody(tmp_path: Path, files: list[Path]) -> None:
    short = made.write(tmp_path / "plant" / "short.csv", train_rows=60)
    bad = tmp_path / "plant" / "bad.csv"
    bad.write_text("timestamp,flow\n0,1\n1,many\n")
    finished = run(plan([bad, short, files[0]], ["pca"], SETTINGS))
    errors = {(one.name, one.method): one.error for one in finished if one.error}
    assert "bad.csv" in (errors["bad", "pca"] or "")
    assert "bad.csv" in (errors["bad", "moving-deviation"] or "")
    assert "plant/short: There is not enough healthy data" in (errors["short", "pca"] or "")
    assert set(errors) == {("bad", "pca"), ("bad", "moving-deviation"), ("short", "pca")}
    assert finished[0].row()["vus_pr"] is None


def test_a_second_run_does_only_what_is_missing(
    tmp_path: Path, files: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    first = run(plan(files[:1], ["pca"], SETTINGS, into=tmp_path / "kept"))
    asked, score = [], module.score
    monkeypatch.setattr(module, "score", lambda method, *rest: asked.append(method.name) or score(method, *rest))
    second = run(plan(files, ["pca", "random"], SETTINGS, into=tmp_path / "kept"))
    assert asked == ["random", "pca", "random", "moving-deviation"]
    assert [one.was_kept for one in second] == [True, False, True, False, False, False]
    assert second[0].row() == first[0].row()


def test_policies_are_decided_by_the_same_scores(files: list[Path]) -> None:
    policies = (PolicyChange.parse("confirm=1 of 1"), PolicyChange.parse("confirm=60 of 60"))
    wanted = plan(files[:1], ["pca"], SETTINGS, policies=policies)
    finished = run(wanted)
    eager, slow = by_policy(wanted, finished)
    assert [eager["policy"], slow["policy"]] == ["confirm=1 of 1", "confirm=60 of 60"]
    default = finished[0].row()
    assert eager["series"][0]["delay_s"] < default["delay_s"] < slow["series"][0]["delay_s"]
    assert eager["series"][0]["vus_pr"] == slow["series"][0]["vus_pr"] == default["vus_pr"]
    assert eager["mean"]["pca"]["events_found"] == 2


def row(folder: str, **more: Any) -> dict[str, Any]:
    known = dict.fromkeys((*module.MEANS, "events", "events_found", "false_alarms", "weeks", "alerts"))
    return {"set": folder, "method": "m", "error": None, **known, **more}


def test_the_mean_is_a_mean_of_set_means() -> None:
    found = means([row("a", vus_pr=0.2), row("a", vus_pr=0.4), row("a"), row("b", vus_pr=0.9)])["m"]
    assert found["vus_pr"] == pytest.approx((0.3 + 0.9) / 2)
    assert (found["n_series"], found["n_failed"], found["auc_pr"]) == (4, 0, None)


def test_false_alarms_and_events_are_pooled_within_a_set() -> None:
    found = means(
        [
            row("a", false_alarms=1, weeks=0.1, events=1, events_found=0),
            row("a", false_alarms=0, weeks=0.9, events=3, events_found=3),
            row("b", false_alarms=6, weeks=2.0, events=0, events_found=0),
            row("b", error="broken"),
        ]
    )["m"]
    assert found["false_alarms_per_week"] == pytest.approx((1 / 1.0 + 6 / 2.0) / 2)
    assert found["event_recall"] == 0.75
    assert (found["events"], found["events_found"], found["false_alarms"], found["weeks"]) == (4, 3, 7, 3.0)
    assert (found["n_series"], found["n_failed"]) == (3, 1)
