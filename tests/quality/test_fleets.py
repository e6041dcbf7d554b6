"""Fleets whose assets sit at other levels and gains: detection with and without a scale for each asset.

VUS-PR of each asset by its fault, and false alarms by the pipeline's decider, with the threshold for one alarm a week.
`MONITOR_QUALITY=full` takes more fleets and the default ensemble in place of the PCA. `-s` shows the table. Seeds from
1000 on are for reports: choices are made with others.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pytest

from monitor.budget import Budget
from monitor.evaluation.metrics import vus_pr
from monitor.models.spec import FleetSpec, ModelSpec, TrainingSet
from monitor.stream.alerting import AlertPolicy, Decider
from monitor.training import fit as fit_module
from monitor.training.fit import fit
from monitor.types import AlertState, Scores, Windows
from tests.quality.fleets import DAY, FleetAsset, fleet

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from monitor.models.detector import TrainedModel

IS_FULL = os.environ.get("MONITOR_QUALITY") == "full"
SEEDS = range(1000, 1008 if IS_FULL else 1002)
SPEC = ModelSpec("auto" if IS_FULL else "pca")
LENGTH, SENSORS, INTERVAL_S = 64, ("a", "b", "c", "d"), 600.0
STEP_US = int(INTERVAL_S * 1e6)
BUDGET = Budget(alarms_per_week=1.0, confirm=3, among=5, recover=6, step_s=INTERVAL_S)
SCALED = ("levels", "gains", "both")


class Outcome(NamedTuple):
    vus_pr: float
    found: float
    false_per_week: float


def windows_of(readings: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.lib.stride_tricks.sliding_window_view(readings, LENGTH, axis=0).transpose(0, 2, 1)


def trained(assets: list[FleetAsset]) -> TrainedModel:
    parts = [windows_of(each.healthy) for each in assets]
    train = TrainingSet(
        np.concatenate(parts),
        np.concatenate([np.full(len(part), number, np.int32) for number, part in enumerate(parts)]),
        np.concatenate([(np.arange(len(part)) + LENGTH) * STEP_US for part in parts]),
        assets=tuple(f"machine-{number}" for number in range(len(assets))),
    )
    return fit(train, SPEC, FleetSpec("f", SENSORS, INTERVAL_S, BUDGET))


def outcome(model: TrainedModel, assets: list[FleetAsset], names: list[str]) -> Outcome:
    """Return the means over the assets, scored under these names."""
    ranked, n_found, n_false, weeks = [], 0, 0, 0.0
    for each, name in zip(assets, names, strict=True):
        readings = np.concatenate([each.healthy[1 - LENGTH :], each.test])
        values = windows_of(readings)
        score = model.score(values, [name] * len(values)).score
        ranked.append(vus_pr(each.label.astype(np.int8), np.nan_to_num(score).astype(np.float64), DAY // 2))
        rows = np.flatnonzero(each.label)
        spans = alert_spans(score)
        n_found += any(rows[0] < opened <= rows[-1] + BUDGET.recover for opened, _ in spans)
        n_false += sum(opened > rows[-1] + LENGTH or closed <= rows[0] for opened, closed in spans)
        weeks += float((~each.label).sum()) / (7 * DAY)
    return Outcome(float(np.mean(ranked)), n_found / len(assets), n_false / weeks)


def alert_spans(score: NDArray[np.float32]) -> list[tuple[int, int]]:
    """Return first and last row of the alerts that the pipeline would open."""
    n = len(score)
    nothing = np.zeros(n, np.int64)
    shape = np.zeros((n, 1, 1), np.float32)
    windows = Windows("f", np.zeros(n, np.int32), np.arange(n), shape, np.ones(n, np.int32), nothing, nothing)
    closed: dict[int, int] = {}
    decider = Decider("f", AlertPolicy(BUDGET.confirm, BUDGET.among, BUDGET.recover))
    for change in decider.decide(Scores(windows, score, ["v"] * n, {}), np.arange(n) + 1):
        closed[change.opened_us] = change.at_us if change.state is AlertState.CLOSED else n + 1
    return list(closed.items())


def mean(outcomes: list[Outcome]) -> Outcome:
    return Outcome(*np.mean(outcomes, axis=0).tolist())


def measured(differs: str) -> tuple[Outcome, Outcome]:
    """Return the outcome of known assets, and of the same machines under names that the model has not seen."""
    known, new = [], []
    for seed in SEEDS:
        assets = fleet(seed, differs)
        model = trained(assets)
        known.append(outcome(model, assets, [f"machine-{number}" for number in range(len(assets))]))
        new.append(outcome(model, assets, ["never seen"] * len(assets)))
    return mean(known), mean(new)


def show(what: str, each: Outcome) -> None:
    print(f"{what:40} VUS-PR {each.vus_pr:.3f}  found {each.found:.0%}  false/week {each.false_per_week:.2f}")


def test_assets_that_differ_are_watched_like_assets_that_are_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    reached = {differs: measured(differs) for differs in ("identical", *SCALED)}
    monkeypatch.setattr(fit_module, "choose_scales", lambda *_arguments: None)
    without = {differs: measured(differs)[0] for differs in ("identical", *SCALED)}
    for differs, (known, new) in reached.items():
        show(f"{differs}: one scale for all", without[differs])
        show(f"{differs}: a scale for each asset", known)
        show(f"{differs}: as a new asset", new)
    assert reached["identical"][0].vus_pr >= without["identical"].vus_pr - 0.03
    for differs in SCALED:
        known, new = reached[differs]
        assert known.vus_pr >= reached["identical"][0].vus_pr - 0.05
        assert known.vus_pr >= without[differs].vus_pr + 0.15
        assert known.found >= without[differs].found
        assert new.vus_pr >= without[differs].vus_pr - 0.05


@pytest.mark.parametrize("differs", ["both", "couplings"])
def test_a_seed_draws_the_same_fleet_again(differs: str) -> None:
    one, again, other = fleet(1, differs), fleet(1, differs), fleet(2, differs)
    for a, b, c in zip(one, again, other, strict=True):
        assert np.array_equal(a.test, b.test)
        assert not np.array_equal(a.test, c.test)
        assert a.label.any()
        assert np.isfinite(a.healthy).all()
