from __future__ import annotations

import gzip
from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from monitor.evaluation import evaluate as module
from monitor.evaluation import yardsticks
from monitor.evaluation.evaluate import evaluate
from monitor.evaluation.methods import ALWAYS, ScoreSettings
from monitor.evaluation.plan import make_plan
from monitor.evaluation.policy import PolicyChange
from monitor.evaluation.results import MEANS, means, results_by_policy, titles
from tests import labelled_recording as sample

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from monitor.evaluation.methods import Method, MethodScores
    from monitor.evaluation.plan import EvaluationPlan
    from monitor.evaluation.results import MethodResult
    from monitor.evaluation.series import UnlabelledSeries

SETTINGS = ScoreSettings(window=16)


@pytest.fixture(autouse=True)
def _quick_yardstick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(yardsticks, "STEPS", 5)


def run(plan: EvaluationPlan) -> list[MethodResult]:
    return evaluate(plan, processes=1, on_progress=lambda _share, _text: None)


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    return [sample.write_csv(tmp_path / "plant" / f"pump{n}.csv", seed=n) for n in (1, 2)]


def test_results_are_in_the_order_asked_for(files: list[Path]) -> None:
    results = run(make_plan([*files, files[0]], ["random"], SETTINGS))
    assert [(one.name, one.method) for one in results] == [
        (name, method) for name in ("pump1", "pump2") for method in ("random", *ALWAYS)
    ]
    pca = results[1].row()
    assert pca["vus_pr"] > 0.9
    assert pca["error"] is None
    assert results[1].alerts is not None
    assert results[1].alerts.events_found == 2
    assert pca["model"]["architecture"] == "pca"


def test_a_failed_series_is_an_error_row(tmp_path: Path, files: list[Path]) -> None:
    short = sample.write_csv(tmp_path / "plant" / "short.csv", train_rows=60)
    bad = tmp_path / "plant" / "bad.csv"
    bad.write_text("timestamp,flow\n0,1\n1,many\n")
    results = run(make_plan([bad, short, files[0]], ["pca"], SETTINGS))
    errors = {(one.name, one.method): one.error for one in results if one.error}
    assert "bad.csv" in (errors["bad", "pca"] or "")
    assert "bad.csv" in (errors["bad", "moving-deviation"] or "")
    assert "plant/short.csv: There is not enough healthy data" in (errors["short", "pca"] or "")
    assert set(errors) == {*(("bad", name) for name in ALWAYS), ("short", "pca")}
    assert results[0].row()["vus_pr"] is None


def test_a_second_run_scores_the_missing_only(
    tmp_path: Path, files: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    first = run(make_plan(files[:1], ["pca"], SETTINGS, into=tmp_path / "cache"))
    asked, score = [], module.score
    monkeypatch.setattr(module, "score", lambda method, *rest: asked.append(method.name) or score(method, *rest))
    second = run(make_plan(files, ["pca", "random"], SETTINGS, into=tmp_path / "cache"))
    assert asked == ["random", *ALWAYS[:1], "random", *ALWAYS[1:]]
    n = len(ALWAYS)
    assert [one.from_cache for one in second] == [True, False, *[True] * (n - 1), *[False] * (n + 1)]
    assert second[0].row() == first[0].row()


def test_policies_use_the_same_scores(files: list[Path]) -> None:
    policies = (PolicyChange.parse("confirm=1 of 1"), PolicyChange.parse("confirm=60 of 60"))
    plan = make_plan(files[:1], ["pca"], SETTINGS, policies=policies)
    results = run(plan)
    eager, slow = results_by_policy(plan, results)
    assert [eager["policy"], slow["policy"]] == ["confirm=1 of 1", "confirm=60 of 60"]
    default = results[0].row()
    assert eager["series"][0]["delay_s"] < default["delay_s"] < slow["series"][0]["delay_s"]
    assert eager["series"][0]["vus_pr"] == slow["series"][0]["vus_pr"] == default["vus_pr"]
    assert eager["mean"]["pca"]["events_found"] == 2


def test_a_defect_is_an_error_row(files: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    score = module.score

    def breaks(method: Method, data: UnlabelledSeries, *rest: Any) -> MethodScores:
        if method.name == "pca" and data.values[0, 0] == sample.values(1)[0, 0].round(5):
            raise OverflowError("too\nlarge")
        return score(method, data, *rest)

    monkeypatch.setattr(module, "score", breaks)
    first, *others = run(make_plan(files, ["pca"], SETTINGS))
    assert first.is_unexpected
    assert first.exit_code == 1
    assert (first.error or "").startswith(f"unexpected: {files[0]}: OverflowError: too large (test_evaluate.py:")
    assert [one.error for one in others] == [None] * (2 * len(ALWAYS) - 1)


def test_a_defect_in_reading_is_an_error_row(files: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    module._read.cache_clear()
    monkeypatch.setattr(module, "read_series", lambda *_: 1 // 0)
    assert {one.is_unexpected for one in run(make_plan(files, ["pca"], SETTINGS))} == {True}


def test_a_killed_worker_keeps_its_results(files: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    class Pool:
        def __init__(self, *_args: Any, **_options: Any) -> None:
            self.number = 0

        def submit(self, work: Callable[..., Any], *args: Any) -> Future[Any]:
            future: Future[Any] = Future()
            self.number += 1
            future.set_result(work(*args)) if self.number < 3 else future.set_exception(BrokenProcessPool("killed"))
            return future

        def shutdown(self, **_options: Any) -> None: ...

    monkeypatch.setattr(module, "ProcessPoolExecutor", Pool)
    results = evaluate(make_plan(files, ["pca"], SETTINGS), processes=2, on_progress=lambda _share, _text: None)
    assert [one.error is None for one in results] == [n < 2 for n in range(2 * len(ALWAYS))]
    assert "ended from outside" in (results[2].error or "")
    assert results[2].is_unexpected


def test_one_model_is_trained_once(files: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    asked, score = [], module.score
    monkeypatch.setattr(module, "score", lambda method, *rest: asked.append(method.name) or score(method, *rest))
    plan = make_plan(files[:1], ["pca"], SETTINGS)
    pca, moving = (method for method in plan.methods if method.name in ("pca", "moving-deviation"))
    plan = replace(plan, methods=(pca, moving, replace(pca, name="again")))
    results = run(plan)
    assert asked == ["pca", "moving-deviation"]
    assert [one.method for one in results] == ["pca", "moving-deviation", "again"]
    assert results[2].row() | {"method": "pca"} == results[0].row()


def test_series_of_equal_names_stay_apart(tmp_path: Path) -> None:
    paths = [sample.write_csv(tmp_path / part / "same" / "a.csv", seed=n) for n, part in enumerate("xy")]
    packed = paths[1].with_name("a.csv.gz")
    packed.write_bytes(gzip.compress(paths[0].read_bytes()))
    results = run(make_plan([*paths, packed], ["pca"], SETTINGS))
    assert [one.method for one in results] == [*ALWAYS] * 3
    assert [one.row()["path"] for one in results[:: len(ALWAYS)]] == [str(path) for path in (*paths, packed)]
    assert list(titles(results).values()) == [
        ("same", "x/same/a.csv"), ("same", "y/same/a.csv"), ("same", "y/same/a.csv.gz")
    ]  # fmt: skip
    assert list(titles(results[:2]).values()) == [("same", "a")]


def row(folder: str, **more: Any) -> dict[str, Any]:
    known = dict.fromkeys((*MEANS, "events", "events_found", "false_alarms", "weeks", "alerts"))
    return {"set": folder, "method": "m", "error": None, **known, **more}


def test_the_mean_is_a_mean_of_set_means() -> None:
    found = means([row("a", vus_pr=0.2), row("a", vus_pr=0.4), row("a"), row("b", vus_pr=0.9)])["m"]
    assert found["vus_pr"] == pytest.approx((0.3 + 0.9) / 2)
    assert (found["n_series"], found["n_failed"], found["auc_pr"]) == (4, 0, None)


def test_alarms_are_pooled_within_a_set() -> None:
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


def test_time_without_labels_is_not_free_of_false_alarms() -> None:
    labelled = row("a", false_alarms=2, weeks=1.0, alerts=3)
    found = means([labelled, row("a", false_alarms=None, weeks=9.0, alerts=40)])["m"]
    assert (found["false_alarms"], found["weeks"], found["false_alarms_per_week"]) == (2, 1.0, 2.0)
    assert (found["unlabelled_weeks"], found["unlabelled_alerts"]) == (9.0, 40)
