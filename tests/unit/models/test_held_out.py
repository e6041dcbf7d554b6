"""Held-out scores in the checkpoint: the same threshold again, others without a training, refused when malformed."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest

from monitor.models.detector import TrainedModel
from monitor.models.held_out import PREFIX, HeldOut, parts_every
from monitor.models.spec import ModelSpec
from monitor.models.terms import SensorKnob
from monitor.training.fit import fit
from tests.unit.training.sine_windows import BUDGET, FLEET_SPEC, readings, windows

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="module")
def model() -> TrainedModel:
    assets = [readings(400, seed) for seed in (0, 1)]
    return fit(replace(windows(*assets), assets=("north", "south")), ModelSpec("pca"), FLEET_SPEC)


def kept(model: TrainedModel) -> HeldOut:
    assert model.held_out is not None
    return model.held_out


def test_the_kept_scores_give_the_threshold_of_the_training(model: TrainedModel) -> None:
    assert kept(model).threshold(BUDGET) == model.card.threshold
    assert model.budget == BUDGET
    assert kept(model).names == ("north", "south")


def test_a_smaller_budget_gives_a_higher_threshold(model: TrainedModel) -> None:
    lower = kept(model).threshold(replace(BUDGET, alarms_per_week=1.0))
    assert lower.raw > model.card.threshold.raw
    assert lower.alarms_per_week == 1.0
    fewer = kept(model).threshold(replace(BUDGET, confirm=1, among=1))
    assert (fewer.confirm, fewer.among) == (1, 1)
    assert fewer.raw > model.card.threshold.raw


def test_they_survive_saving(model: TrainedModel, tmp_path: Path) -> None:
    version = model.save(tmp_path)
    loaded = TrainedModel.load(tmp_path / version)
    for name in ("raw", "asset", "end_us", "outlier", "parts"):
        assert np.array_equal(getattr(kept(loaded), name), getattr(kept(model), name), equal_nan=True)
    assert kept(loaded).threshold(BUDGET) == model.card.threshold
    assert loaded.save(tmp_path) == version


def test_the_parts_give_the_raw_scores(model: TrainedModel) -> None:
    held_out = kept(model)
    raw = held_out.weighted(model.members, [1.0, 1.0])
    assert raw == pytest.approx(held_out.raw[:: held_out.every], rel=5e-3, abs=5e-3)
    assert (held_out.weighted(model.members, [1.0, 3.0]) >= raw).all()


def test_a_greater_weight_raises_the_threshold(model: TrainedModel) -> None:
    weighted = kept(model).threshold(BUDGET, model.members, [1.0, 3.0])
    assert weighted.raw > 1.2 * model.card.threshold.raw


def test_the_parts_are_bounded_in_size() -> None:
    assert parts_every(100, 8) == 1
    every = parts_every(40_000, 4 * 2 * 50)
    assert 40_000 / every * 4 * 2 * 50 * 2 <= 2 << 20


def test_the_table_has_the_present_threshold(model: TrainedModel) -> None:
    table = model.thresholds()
    assert table is not None
    [own] = [row for row in table["policies"] if (row["confirm"], row["among"]) == (BUDGET.confirm, BUDGET.among)]
    assert own["raw"][table["per_week"].index(BUDGET.alarms_per_week)] == model.card.threshold.raw
    assert own["raw"] == sorted(own["raw"], reverse=True)


@pytest.mark.parametrize("change", [{"every": 0}, {"every": 2}, {"assets": ["north"]}, {"stride_factor": 0}])
def test_a_malformed_entry_is_refused(model: TrainedModel, change: dict[str, object]) -> None:
    tensors = kept(model).tensors()
    assert HeldOut.load(kept(model).to_json(), tensors).names == ("north", "south")
    with pytest.raises(ValueError, match="held_out"):
        HeldOut.load(kept(model).to_json() | change, tensors)
    with pytest.raises(ValueError, match="held_out"):
        HeldOut.load(kept(model).to_json(), tensors | {f"{PREFIX}raw": tensors[f"{PREFIX}raw"].double()})


@pytest.fixture(scope="module")
def unlike() -> TrainedModel:
    """A fleet whose second asset is noisier."""
    assets = [readings(900, seed) for seed in (0, 1, 2)]
    assets[1] = assets[1] + np.random.default_rng(5).normal(0, 0.4 * assets[1].std(0), assets[1].shape)
    return fit(replace(windows(*assets), assets=("north", "south", "west")), ModelSpec("pca"), FLEET_SPEC)


def test_scores_are_in_units_of_the_assets_threshold(unlike: TrainedModel) -> None:
    factors = unlike.card.asset_factors
    assert factors is not None
    assert factors["south"] > factors["north"]
    values = windows(readings(200, 7)).values
    fleet = unlike.score(values).score
    names = ["south", "new", "north"] + ["west"] * (len(values) - 3)
    own = unlike.score(values, names).score
    expected = fleet / np.array([factors.get(name, 1.0) for name in names], np.float32)
    np.testing.assert_allclose(own, expected, rtol=1e-5)
    assert own[1] == fleet[1]  # a new asset has the fleet's threshold


def test_the_factors_survive_saving_and_other_terms(unlike: TrainedModel, tmp_path: Path) -> None:
    loaded = TrainedModel.load(tmp_path / unlike.save(tmp_path))
    assert loaded.card.asset_factors == unlike.card.asset_factors
    assert kept(loaded).threshold(BUDGET) == unlike.card.threshold
    derived = loaded.derive(replace(loaded.terms, alarms_per_week=1.0))
    assert derived.card.asset_factors == unlike.card.asset_factors
    assert derived.card.threshold.raw > unlike.card.threshold.raw
    assert derived.derive(unlike.terms).version == unlike.version


def test_a_sensor_that_does_not_count_alarms_by_no_assets_threshold(unlike: TrainedModel) -> None:
    """Windows above the threshold of their own asset are scored again where knobs do not count a deviation."""
    values = windows(readings(200, 7)).values.copy()
    values[:, -8:, 0] += 4 * values[..., 0].std()
    quiet = unlike.derive(replace(unlike.terms, knobs={unlike.sensors[0]: SensorKnob(weight=0.0)}))
    for name in ("north", "south"):
        names = [name] * len(values)
        loud, own = unlike.score(values, names), quiet.score(values, names)
        assert (own.score[loud.score >= 1] < loud.score[loud.score >= 1]).all()
        found = unlike.clearing(values[:4], loud.share[:4], names[:4])
        assert len(found) == 4
