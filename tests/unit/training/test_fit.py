"""Fit: from windows to a detector with its receipt, or an error that names the reason."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from monitor.budget import Budget
from monitor.errors import ConfigError, NotEnoughData
from monitor.models.calibrate import episodes
from monitor.models.spec import FleetSpec, ModelSpec, TrainingSet
from monitor.training import fit as fit_module
from monitor.training.fit import fit
from tests.unit.training.sine_windows import BUDGET, FLEET_SPEC, LENGTH, MINUTE_US, SENSORS, readings, windows

if TYPE_CHECKING:
    from pathlib import Path

    from monitor.models.detector import TrainedModel
    from monitor.training.auto import Timeline

def trained(train: TrainingSet, spec: ModelSpec | None = None, *, budget: Budget = BUDGET, **more: Any) -> TrainedModel:
    return fit(train, spec or ModelSpec("pca"), replace(FLEET_SPEC, budget=budget), **more)


def test_too_few_windows_are_refused() -> None:
    with pytest.raises(NotEnoughData, match="60 usable windows of 60, 100 are needed: 40 more"):
        trained(windows(readings(71)))


def test_windows_with_many_gaps_do_not_count() -> None:
    values = readings(160)
    values[:80] = np.nan
    with pytest.raises(NotEnoughData, match=r"\d\d usable windows of 149, 100 are needed"):
        trained(windows(values))


def test_assets_need_a_history() -> None:
    values = windows(readings(160)).values
    one_each = TrainingSet(values, np.arange(len(values), dtype=np.int32), np.full(len(values), MINUTE_US))
    with pytest.raises(NotEnoughData, match="0 of 149 windows could be held out, 10 are needed"):
        trained(one_each)


def test_absent_sensors_do_not_stop_others() -> None:
    values = readings(400)
    names = ("speed", "power", "x", "y", "z")
    gone = np.concatenate([values, np.full((400, 3), np.nan, np.float32)], axis=1)
    detector = fit(windows(gone), ModelSpec("pca"), FleetSpec("f", names, 60.0, BUDGET))
    assert detector.card.training["left_out"]["too_many_gaps"] == 0


def test_held_out_time_needs_a_known_sensor() -> None:
    values = np.concatenate([readings(400), np.full((400, 1), np.nan, np.float32)], axis=1)
    values[311:, :2], values[311:, 2] = np.nan, 1.0
    with pytest.raises(NotEnoughData, match="no held-out window has a sensor"):
        fit(windows(values), ModelSpec("pca"), FleetSpec("f", (*SENSORS, "new"), 60.0, BUDGET))


def test_no_windows_are_refused() -> None:
    empty = TrainingSet(np.empty((0, LENGTH, 2), np.float32), np.empty(0, np.int32), np.empty(0, np.int64))
    with pytest.raises(NotEnoughData, match="0 usable windows of 0"):
        trained(empty)


def test_a_missing_device_is_refused_first() -> None:
    with pytest.raises(ConfigError):
        trained(windows(readings(400)), ModelSpec(), device="cuda:99")


def test_held_out_values_change_no_weight() -> None:
    healthy = readings(500)
    faulty = healthy.copy()
    faulty[-60:] *= 50
    spec = ModelSpec("dense", max_steps=20)   # `pca` and `auto` learn from all windows in the end
    one, two = trained(windows(healthy), spec), trained(windows(faulty), spec)
    assert one.scaler.to_json() == two.scaler.to_json()
    assert all(map(torch.equal, one.network.state_dict().values(), two.network.state_dict().values()))


def test_a_held_out_fault_raises_no_threshold() -> None:
    healthy = readings(3000)
    faulty = healthy.copy()
    faulty[-40:-20] = 8.0
    one, two = trained(windows(healthy)), trained(windows(faulty))
    assert two.card.training["left_out"]["suspected_fault_held_out"] >= 20
    assert two.card.threshold.raw < 1.3 * one.card.threshold.raw
    spell = two.card.training["suspected_faults"][0]
    assert spell["asset"] == 0
    assert spell["n_windows"] >= 20
    assert "1970-01-03T01:" in spell["from"]


def test_retraining_keeps_the_threshold() -> None:
    """Windows of alerts are not trained on. Held out they count, or each retraining would lower the threshold."""
    train = windows(readings(6000))
    budget = Budget(alarms_per_week=200.0, confirm=3, among=5, recover=6, step_s=60.0)
    first = trained(train, budget=budget)
    score = first.score(np.ascontiguousarray(train.values)).score
    near = np.convolve(score >= 1.1, np.ones(2 * LENGTH), mode="same") > 0
    n_held_out = first.card.training["n_held_out"]
    assert near[-n_held_out:].sum() > 50
    again = trained(replace(train, alerted=near), budget=budget).card
    assert again.training["left_out"]["alerted"] == near[:-n_held_out].sum() > 200
    assert again.training["n_held_out"] == n_held_out
    assert again.threshold.raw == pytest.approx(first.card.threshold.raw, rel=0.05)


def test_recurring_bursts_certify_nothing() -> None:
    """Nightly bursts were once left out as suspected faults. The card stated `no alerts`, and each burst raised one."""
    values = readings(12_000)
    values[np.arange(12_000) % 600 < 20] += 8.0
    budget = Budget(alarms_per_week=20.0, confirm=3, among=5, recover=6, step_s=60.0)
    card = trained(windows(values, values.copy()), budget=budget).card
    limit = card.threshold
    assert limit.state == "provisional"
    assert limit.n_suspected > 6
    assert limit.n_episodes >= limit.n_suspected
    assert any("suspected faults recur" in trouble for trouble in card.training["troubles"])
    trusting = trained(windows(values, values.copy()), ModelSpec("pca", max_trim=0.0), budget=budget).card
    assert trusting.threshold.n_suspected == 0
    assert trusting.threshold.raw > limit.raw


def test_a_history_of_alerts_is_refused() -> None:
    train = windows(readings(1000))
    with pytest.raises(NotEnoughData, match="0 windows are left to learn from, for 495 overlap alerts"):
        trained(replace(train, alerted=np.arange(len(train)) < len(train) - 198))
    with pytest.raises(NotEnoughData, match="50 usable windows of 989"):
        trained(replace(train, alerted=np.arange(len(train)) < len(train) - 50))


def test_a_short_history_certifies_nothing() -> None:
    """A fleet of many assets holds out weeks of time, although each has a short history."""
    train = windows(*(readings(70, seed) for seed in range(60)))
    budget = Budget(alarms_per_week=500.0, confirm=3, among=5, recover=6, step_s=60.0)
    card = trained(train, budget=budget).card
    assert card.training["n_overlapping"] == 60 * (LENGTH - 1)
    assert card.threshold.state == "provisional"
    assert card.threshold.bound_per_week < 500.0
    assert "reach into that time" in card.threshold.reason


def test_assets_are_named_by_their_names() -> None:
    faulty = readings(3000)
    faulty[-40:-20] = 8.0
    train = windows(readings(3000, 1), faulty)
    card = trained(replace(train, assets=("R1", "R2"))).card
    assert card.training["suspected_faults"][0]["asset"] == "R2"
    assert card.threshold.worst_asset in {"R1", "R2"}


def test_the_card_is_a_receipt(tmp_path: Path) -> None:
    train = windows(readings(600), readings(600, 1))
    spec = ModelSpec("conv", max_steps=60)
    detector = trained(train, spec, trained_at=datetime(2026, 11, 23, tzinfo=UTC))
    card = json.loads((tmp_path / detector.save(tmp_path) / "card.json").read_text())
    assert card["trained_at"] == "2026-11-23T00:00:00+00:00"
    receipt = card["training"]
    assert receipt["n_assets"] == 2
    assert receipt["n_train"] + receipt["n_held_out"] + receipt["left_out"]["reaches_into_held_out"] == len(train)
    assert receipt["from"] == "1970-01-01T00:12:00+00:00"
    assert card["threshold"]["state"] == "provisional"
    assert card["threshold"]["weeks"] == pytest.approx(receipt["n_held_out"] / (7 * 24 * 60), rel=1e-3)
    assert card["baseline"]["architecture"] == "pca"
    assert set(card["baseline"]["explained_variance"]) == {"all", *SENSORS}
    assert card["metrics"]["pca_held_out_error"] == card["baseline"]["held_out_error"]["mean"]
    assert card["metrics"]["held_out_error"] == card["training"]["held_out_error"]["mean"]
    assert all(isinstance(value, float) for value in card["metrics"].values())


def test_held_out_windows_keep_the_budget() -> None:
    train = windows(readings(6000))
    budget = Budget(alarms_per_week=200.0, confirm=3, among=5, recover=6, step_s=60.0)
    detector = trained(train, budget=budget)
    limit = detector.card.threshold
    assert limit.state == "certified"
    assert limit.bound_per_week <= 200.0
    held = slice(-(len(train) // 2), None)
    score = detector.score(np.ascontiguousarray(train.values[held])).score
    seen = episodes(score, train.asset[held], train.end_us[held], budget, 1.0)
    assert len(seen) == pytest.approx(limit.n_episodes, rel=0.25)  # the members were solved on other windows
    assert limit.n_episodes > 5


def test_unusual_sensors_train_and_score() -> None:
    """A constant, a binary, a heavy-tailed and an absent sensor beside a good one."""
    draw = np.random.default_rng(0)
    n = 500
    binary, heavy = draw.random(n) < 0.1, draw.standard_t(1.5, n)
    columns = (np.full(n, 5.0), binary, heavy, np.full(n, np.nan), np.sin(np.arange(n) / 3))
    values = np.stack(columns, axis=1).astype(np.float32)
    names = ("constant", "binary", "heavy", "absent", "good")
    train = TrainingSet(
        np.lib.stride_tricks.sliding_window_view(values, LENGTH, axis=0).transpose(0, 2, 1),
        np.zeros(n - LENGTH + 1, np.int32), (np.arange(n - LENGTH + 1) + LENGTH) * MINUTE_US,
    )
    detector = fit(train, ModelSpec("pca"), FleetSpec("f", names, 60.0, BUDGET))
    scored = detector.score(np.ascontiguousarray(train.values))
    assert np.isfinite(scored.score).all()
    assert (scored.share[:, 3] == 0).all()
    moved = np.ascontiguousarray(train.values[-50:]).copy()
    moved[..., 0] = 7.0
    assert detector.score(moved).score.min() > 1.0
    assert (detector.score(moved).share.argmax(1) == 0).all()


def test_progress_only_rises_and_ends_at_one() -> None:
    shares: list[float] = []
    spec = ModelSpec("conv", max_steps=60)
    trained(windows(readings(400)), spec, on_progress=lambda share, _message: shares.append(share))
    assert shares == sorted(shares)
    assert shares[-1] == 1.0


def test_training_windows_are_thinned(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fit_module, "MAX_TRAIN", 200)
    detector = trained(windows(readings(1500)))
    assert detector.card.training["n_train"] == 200
    assert detector.card.training["left_out"]["thinned"] > 500


def test_held_out_windows_are_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fit_module, "MAX_HELD_OUT", 100)
    receipt = trained(windows(readings(1500), readings(200, 1))).card.training
    assert receipt["n_held_out"] <= 100
    assert receipt["left_out"]["thinned"] > 200


@pytest.mark.parametrize("n_windows", [2, 4])
def test_assets_with_a_few_windows_can_be_trained_on(n_windows: int) -> None:
    """Each holds out one or two windows. Forward folds without a window once stopped the training."""
    assets = [readings(LENGTH - 1 + n_windows, seed) for seed in range(400)]
    detector = trained(windows(*assets), ModelSpec("auto"))
    assert detector.card.training["n_held_out"] == 400 * n_windows // 2
    assert np.isfinite(detector.score(windows(readings(100)).values).score).all()


def test_cycles_are_looked_for_before_windows_are_thinned(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Timeline] = []
    solve = fit_module.fit_ensemble
    monkeypatch.setattr(fit_module, "MAX_TRAIN", 60)
    monkeypatch.setattr(fit_module, "fit_ensemble", lambda each, *rest: (seen.append(each), solve(each, *rest))[1])
    assert trained(windows(readings(3033)), ModelSpec("auto")).card.training["n_train"] == 60
    [timeline] = seen
    assert timeline.repeats
    assert timeline.periodic.all()


def test_the_scaler_knows_no_window_of_an_alert() -> None:
    values = readings(1500)
    values[800:1100] += 50.0
    train = windows(values)
    marked = replace(train, alerted=np.ptp(train.values, axis=1).max(1) > 40)
    marked = replace(marked, alerted=marked.alerted | (train.values.max((1, 2)) > 20))
    known, unknown = (trained(each, ModelSpec("auto")).scaler.sensors[0].scale for each in (train, marked))
    assert known > 5 * unknown
