"""Scales of single assets: measured, shrunk, tried, and used for scores, explanations and reconstructions."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest

from monitor.errors import CheckpointDamaged
from monitor.models import checkpoint, checkpoint_files
from monitor.models.detector import TrainedModel
from monitor.models.inputs import ModelInputs
from monitor.models.scaler import Scaler
from monitor.models.spec import ModelSpec, TrainingSet
from monitor.training.fit import fit
from monitor.training.scales import MAX_GAIN, measure
from tests.unit.training.sine_windows import FLEET_SPEC, LENGTH, SENSORS, readings, windows

if TYPE_CHECKING:
    from pathlib import Path

    from monitor.models.asset_scales import AssetScales
    from monitor.types import Float32

LEVELS = {"north": (0.0, 0.0), "south": (40.0, -20.0), "west": (-30.0, 60.0)}


def shifted(name: str, n: int, seed: int) -> Float32:
    return readings(n, seed) + np.array(LEVELS[name], np.float32)


def fleet_of(*series: Float32, names: tuple[str, ...]) -> TrainingSet:
    return replace(windows(*series), assets=names)


def measured(train: TrainingSet) -> AssetScales | None:
    rows, inputs = np.arange(len(train)), ModelInputs(SENSORS)
    scaler = Scaler.fit(SENSORS, train.values.reshape(-1, len(SENSORS)))
    return measure(train, rows, inputs, scaler)


@pytest.fixture(scope="module")
def unlike() -> TrainedModel:
    train = fleet_of(*(shifted(name, 500, seed) for seed, name in enumerate(LEVELS)), names=tuple(LEVELS))
    return fit(train, ModelSpec("pca"), FLEET_SPEC)


def fresh(name: str, seed: int = 9) -> Float32:
    return windows(shifted(name, 300, seed)).values.copy()


def test_assets_of_other_levels_have_scales_of_their_own(unlike: TrainedModel) -> None:
    assert unlike.asset_scales is not None
    assert unlike.asset_scales.names == tuple(LEVELS)
    assert unlike.asset_scales.centre == pytest.approx(np.array(list(LEVELS.values())), abs=0.2)
    assert unlike.card.training["asset_scales"]["used"] is True
    assert unlike.card.training["asset_scales"]["found_asset"] > unlike.card.training["asset_scales"]["found_fleet"]


def test_assets_that_are_alike_have_the_fleets_scales() -> None:
    model = fit(fleet_of(readings(500, 0), readings(500, 1), names=("a", "b")), ModelSpec("pca"), FLEET_SPEC)
    assert model.asset_scales is None
    assert model.card.asset_scales is None
    assert model.card.training["asset_scales"]["used"] is False


def test_a_fault_of_usual_size_shows_in_any_asset(unlike: TrainedModel) -> None:
    for name in LEVELS:
        healthy, faulty = fresh(name), fresh(name)
        faulty[:, -4:, 0] += 1.5
        assert np.mean(unlike.score(healthy, [name] * len(healthy)).score >= 1.0) < 0.08
        assert np.mean(unlike.score(faulty, [name] * len(faulty)).score >= 1.0) > 0.9


def test_a_new_asset_keeps_quiet_from_its_first_window(unlike: TrainedModel) -> None:
    assert unlike.asset_scales is not None
    assert unlike.asset_scales.new_asset_factor >= 1.0
    for name in LEVELS:
        healthy = fresh(name)
        score = unlike.score(healthy, ["never seen"] * len(healthy)).score
        assert np.isfinite(score).all()
        assert np.mean(score >= 1.0) < 0.05
        np.testing.assert_array_equal(score, unlike.score(healthy).score)


def test_a_mixed_batch_scores_like_each_asset_alone(unlike: TrainedModel) -> None:
    names = [name for name in (*LEVELS, "never seen") for _ in range(3)]
    values = np.concatenate([fresh(name if name in LEVELS else "north")[:3] for name in (*LEVELS, "never seen")])
    order = np.random.default_rng(0).permutation(len(names))
    mixed = unlike.score(values[order], [names[row] for row in order])
    for place, row in enumerate(order.tolist()):
        alone = unlike.score(values[row : row + 1], [names[row]])
        np.testing.assert_allclose(alone.score, mixed.score[place : place + 1], rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(alone.share, mixed.share[place : place + 1], atol=1e-5)


def test_expected_values_are_at_the_level_of_the_asset(unlike: TrainedModel) -> None:
    for name, level in LEVELS.items():
        values = fresh(name)[:20]
        values[:, -2:, 0] += 5.0
        named = [name] * len(values)
        assert np.abs(unlike.reconstruct(fresh(name), [name] * 289) - fresh(name)).mean() < 0.2
        contributions = unlike.explain(values, unlike.score(values, named).share, named)
        assert all(each[0].name == "speed" for each in contributions)
        assert all(abs((each[0].expected or 0.0) - level[0]) < 5.0 for each in contributions)


def test_scales_survive_saving_and_other_terms(unlike: TrainedModel, tmp_path: Path) -> None:
    version = unlike.save(tmp_path)
    loaded = TrainedModel.load(tmp_path / version)
    values, names = fresh("south"), ["south"] * len(fresh("south"))
    np.testing.assert_array_equal(loaded.score(values, names).score, unlike.score(values, names).score)
    assert loaded.version == version
    derived = loaded.derive(replace(loaded.terms, confirm=1, among=1))
    assert derived.version != version
    again = TrainedModel.load(tmp_path / derived.save(tmp_path))
    np.testing.assert_array_equal(again.score(values, names).score, derived.score(values, names).score)
    assert checkpoint.read(tmp_path / version)[1]["format"] == checkpoint_files.format_of({"asset_scales": True})


@pytest.mark.parametrize("change", [
    {"assets": ["north", "south"]}, {"assets": ["north", "north", "west"]}, {"new_asset_factor": 0.0},
    {"new_asset_factor": None}, {"assets": None},
])  # fmt: skip
def test_malformed_scales_are_refused(unlike: TrainedModel, tmp_path: Path, change: dict[str, object]) -> None:
    assert unlike.asset_scales is not None
    entry = unlike.asset_scales.to_json() | change
    broken = TrainedModel(
        replace(unlike.card, asset_scales=entry), unlike.members, unlike.scaler, unlike.device,
        asset_scales=unlike.asset_scales, held_out=unlike.held_out,
    )  # fmt: skip
    with pytest.raises(CheckpointDamaged):
        TrainedModel.load(tmp_path / broken.save(tmp_path))


def test_a_gap_of_a_whole_sensor_leaves_its_scale_to_the_fleet() -> None:
    series = [shifted(name, 400, seed) for seed, name in enumerate(LEVELS)]
    series[1][:, 1] = np.nan
    train = fleet_of(*series, names=tuple(LEVELS))
    scaler = Scaler.fit(SENSORS, train.values.reshape(-1, len(SENSORS)))
    scales = measured(train)
    assert scales is not None
    assert scales.scale[1, 1] == pytest.approx(scaler.sensors[1].scale)
    assert scales.centre[1, 0] == pytest.approx(LEVELS["south"][0], abs=0.2)


def test_a_sensor_that_hardly_moves_in_one_asset_may_move() -> None:
    series = [readings(600, seed) for seed in range(4)]
    series[0][:, 1] *= 0.001
    scales = measured(fleet_of(*series, names=("a", "b", "c", "d")))
    assert scales is not None
    assert scales.scale[0, 1] >= scales.scale[1:, 1].mean() / (2 * MAX_GAIN)


def test_few_windows_give_no_scales_of_their_own() -> None:
    train = fleet_of(shifted("north", 500, 0), shifted("south", 500, 1), shifted("west", 60, 2), names=tuple(LEVELS))
    scales = measured(train)
    assert scales is not None
    assert scales.names == ("north", "south")
    model = fit(train, ModelSpec("pca"), FLEET_SPEC)
    assert model.asset_scales is not None
    limits = model.limits(["north", "west", "never seen"])
    assert limits is not None
    assert limits[1] == limits[2] == pytest.approx(model.card.threshold.raw * model.asset_scales.new_asset_factor)
    assert model.card.length == LENGTH
