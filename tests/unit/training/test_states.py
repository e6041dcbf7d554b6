"""Operating states: found where they are, and nothing changes where they are not."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

from monitor.budget import Budget
from monitor.config.states import StatesConfig
from monitor.errors import CheckpointDamaged
from monitor.models import checkpoint
from monitor.models.detector import TrainedModel
from monitor.models.spec import FleetSpec, ModelSpec, TrainingSet
from monitor.training.fit import fit
from monitor.training.states import find_states, off_rows

if TYPE_CHECKING:
    from pathlib import Path

LENGTH, N_ROWS, STEP_US = 16, 3000, 60_000_000
SENSORS = ("rpm", "power", "noise")
BUDGET = Budget(alarms_per_week=7.0, confirm=3, among=5, recover=6, step_s=60.0)


def duty(seed: int = 0, run: int = 120, rest: int = 80, n: int = N_ROWS) -> np.ndarray:
    """Return readings [n, 3] of a machine that runs and rests in turn, for about so many rows each."""
    draw = np.random.default_rng(seed)
    lengths = draw.integers([run * 3 // 4, rest * 3 // 4], [run * 5 // 4, rest * 5 // 4], (n, 2)).ravel()
    on = np.repeat(np.tile([1.0, 0.0], n), lengths)[:n, None]
    load = np.cumsum(draw.normal(0, 0.3, (n, 1)), 0)
    load -= np.round(load / 6) * 6
    readings = on * (np.array([20.0, 8.0, 5.0]) + load * [1.0, 0.5, -0.3] + draw.normal(0, 0.4, (n, 3)))
    return (readings + draw.normal(0, 0.01, (n, 3))).astype(np.float32)


def windows_of(readings: np.ndarray) -> np.ndarray:
    return np.lib.stride_tricks.sliding_window_view(readings, LENGTH, axis=0).transpose(0, 2, 1)


def training_set(*assets: np.ndarray) -> TrainingSet:
    parts = [windows_of(each) for each in assets]
    asset = np.repeat(np.arange(len(parts), dtype=np.int32), [len(part) for part in parts])
    end_us = np.concatenate([(np.arange(len(part)) + LENGTH) * STEP_US for part in parts])
    return TrainingSet(np.concatenate(parts), asset, end_us, assets=tuple(f"m{n}" for n in range(len(parts))))


def trained(*assets: np.ndarray, **states: object) -> TrainedModel:
    torch.set_num_threads(1)
    fleet = FleetSpec("f", SENSORS, 60.0, BUDGET, states=StatesConfig.model_validate(states))
    return fit(training_set(*assets), ModelSpec("pca"), fleet)


@pytest.fixture(scope="module")
def model() -> TrainedModel:
    return trained(duty())


def test_a_machine_that_rests_has_states(model: TrainedModel) -> None:
    assert model.states is not None
    assert set(model.states.names) == {"off", "running"}
    shares = dict(zip(model.states.classes, model.states.shares, strict=True))
    assert min(shares["off"], shares["running"], shares["transition"]) > 0.1
    assert shares["unknown"] == 0
    assert model.registry_card()["states"]["says"][0].startswith("Operating states by ")


@pytest.mark.parametrize("kind", ["steady", "season", "drift", "walk", "one change", "quantised"])
def test_other_machines_have_none(kind: str) -> None:
    draw, rows = np.random.default_rng(1), np.arange(N_ROWS)[:, None]
    noise = draw.normal(0, 0.3, (N_ROWS, 3))
    signal = {
        "steady": 0 * rows,
        "season": 3 * np.sin(rows / 100),
        "drift": rows / 300,
        "walk": np.cumsum(draw.normal(0, 0.1, (N_ROWS, 1)), 0),
        "one change": np.where(rows > N_ROWS / 2, 20.0, 0.0),
        "quantised": np.round(2 * np.sin(rows / 100)) - noise + np.round(noise),
    }[kind]
    readings = (signal + noise).astype(np.float32)
    own, never = trained(readings), trained(readings, detect="never")
    assert own.card.states is None
    assert own.card.threshold == never.card.threshold
    fresh = windows_of(readings[:100])
    np.testing.assert_array_equal(own.score(fresh).score, never.score(fresh).score)


def test_assets_at_different_levels_are_no_states() -> None:
    draw = np.random.default_rng(2)
    assets = [(level + draw.normal(0, 0.3, (1500, 3))).astype(np.float32) for level in (0.0, 20.0)]
    assert trained(*assets).card.states is None


def test_scores_by_state_survive_saving(model: TrainedModel, tmp_path: Path) -> None:
    fresh = np.ascontiguousarray(windows_of(duty(seed=5, n=600)))
    loaded = TrainedModel.load(tmp_path / model.save(tmp_path))
    loaded.self_test()
    assert loaded.version == model.version
    np.testing.assert_array_equal(loaded.score(fresh).score, model.score(fresh).score)
    alone = np.concatenate([loaded.score(fresh[row : row + 1]).score for row in range(0, 600 - LENGTH, 40)])
    np.testing.assert_allclose(alone, model.score(fresh[:: 40]).score[: len(alone)], rtol=1e-4, atol=1e-5)
    assert loaded.thresholds() == model.thresholds()


def test_other_terms_and_back_are_the_same_version(model: TrainedModel) -> None:
    from dataclasses import replace

    rarer = model.derive(replace(model.terms, alarms_per_week=1.0))
    assert rarer.card.threshold.raw > model.card.threshold.raw
    assert rarer.card.states == model.card.states
    assert rarer.derive(model.terms).version == model.version


def test_a_release_without_states_refuses_the_card(model: TrainedModel, tmp_path: Path) -> None:
    folder = tmp_path / model.save(tmp_path)
    assert json.loads((folder / "card.json").read_text())["format"] == 5


@pytest.mark.parametrize("entry", [{"n_states": 9}, {"n_states": -1}])
def test_a_card_with_other_states_than_weights_is_refused(
    model: TrainedModel, tmp_path: Path, entry: dict[str, int]
) -> None:
    card = model._card_json()
    card["members"] = [{**member, **entry} for member in card["members"]]
    name = checkpoint.write(tmp_path, model._tensors(), card)
    with pytest.raises(CheckpointDamaged):
        TrainedModel.load(tmp_path / name)


def test_a_fault_at_rest_is_found_earlier_with_states(model: TrainedModel) -> None:
    alike = trained(duty(), detect="never")
    fresh = duty(seed=7, n=1200)
    faulty, off = fresh.copy(), fresh[:, 0] < 5
    faulty[off, 1] += 0.5
    rest = np.ascontiguousarray(windows_of(faulty)[(windows_of(off[:, None].astype(float)).min((1, 2)) > 0)])
    assert len(rest) > 50
    assert (model.score(rest).score >= 1).mean() > (alike.score(rest).score >= 1).mean() + 0.5


def test_a_level_never_seen_is_not_silent(model: TrainedModel) -> None:
    left_out = trained(duty(), transitions="left_out")
    between = np.full((1, LENGTH, 3), [10.0, 4.0, 2.5], np.float32)
    between += np.random.default_rng(0).normal(0, 0.4, between.shape).astype(np.float32)
    for each in (model, left_out):
        assert each.states is not None
        assert each.states.classify(between)[0] == each.states.unknown
        assert np.isfinite(each.score(between).score).all()


def test_transitions_left_out_have_no_score() -> None:
    left_out = trained(duty(), transitions="left_out")
    fresh = np.ascontiguousarray(windows_of(duty(seed=5, n=600)))
    states, score = left_out.states, left_out.score(fresh).score
    assert states is not None
    state = states.classify(fresh)
    np.testing.assert_array_equal(np.isnan(score), state == states.transition)
    assert np.isnan(score).any()


def test_a_named_sensor_gives_the_states() -> None:
    model = trained(duty(), sensor="power", off_below=1.0, running_above=3.0)
    assert model.card.states is not None
    assert [each["name"] for each in model.card.states["states"]] == ["off", "idle", "running"]
    assert model.card.states["found_by"] == "settings"


def test_a_named_sensor_alone_takes_its_levels_from_the_data() -> None:
    model = trained(duty(), sensor="noise")
    assert model.states is not None
    assert model.states.sensor == "noise"


def test_windows_at_rest_do_not_dominate_the_training() -> None:
    mostly_off = trained(duty(run=60, rest=500, n=6000))
    assert mostly_off.card.training["n_off_thinned"] > 1000
    # An asset that was off all the time must not make the others' scales small.
    resting = np.random.default_rng(3).normal(0, 0.01, (N_ROWS, 3)).astype(np.float32)
    both, alone = trained(duty(), resting), trained(duty())
    for one, other in zip(both.scaler.sensors, alone.scaler.sensors, strict=True):
        assert one.scale == pytest.approx(other.scale, rel=0.3)


def test_the_mask_of_a_receipt_is_of_windows_at_rest() -> None:
    readings = duty()
    windows = training_set(readings)
    fleet = FleetSpec("f", SENSORS, 60.0, BUDGET)
    from monitor.models.inputs import ModelInputs

    states = find_states(windows, np.arange(len(windows)), ModelInputs(SENSORS), fleet)
    every = np.arange(len(windows))
    off = off_rows(states, windows, every)
    assert 0.1 < off.mean() < 0.4
    assert np.abs(windows.values[off]).max() < 1
    assert not off_rows(None, windows, every).any()
