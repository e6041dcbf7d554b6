"""Scope "asset": one version with a model for each asset that has enough windows, and the fleet's for the others."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from monitor.errors import CheckpointDamaged
from monitor.models import bundle
from monitor.models.detector import TrainedModel
from monitor.models.spec import ModelSpec, TrainingSet
from monitor.training import fleet_fit
from monitor.training.fleet_fit import choose_assets, fit_fleet
from tests.unit.training import sine_windows
from tests.unit.training.sine_windows import readings, windows

if TYPE_CHECKING:
    from pathlib import Path

    from monitor.types import Float32

NAMES = ("north", "south", "few")
SPEC = ModelSpec("pca")
BUDGET = replace(sine_windows.BUDGET, alarms_per_week=100.0)
"""One at which hours of history are enough."""
FLEET_SPEC = replace(sine_windows.FLEET_SPEC, budget=BUDGET)


def other_kind(n: int, seed: int) -> Float32:
    """Return readings [n, 2] of an asset whose sensors are related the other way round."""
    return readings(n, seed)[:, ::-1].copy() * np.array([1.0, -1.0], np.float32)


def history() -> TrainingSet:
    return replace(windows(readings(400, 0), other_kind(400, 1), readings(60, 2)), assets=NAMES)


@pytest.fixture(scope="module")
def model() -> TrainedModel:
    torch.set_num_threads(1)  # like the training of an asset: sums of other numbers of threads differ
    return fit_fleet(history(), SPEC, FLEET_SPEC, scope="asset")


def mixed() -> tuple[Float32, list[str]]:
    values = np.concatenate([windows(each).values[:40] for each in (readings(60, 5), other_kind(60, 6))])
    names = ["north"] * 40 + ["south"] * 40
    order = np.random.default_rng(0).permutation(80)
    return values[order].copy(), [names[row] for row in order.tolist()]


def test_assets_with_enough_windows_have_their_own_model(model: TrainedModel) -> None:
    assert list(model.own) == ["north", "south"]
    assert model.card.bundle == {
        "own": ["north", "south"], "fleet": {"fewer than 100 windows": {"n": 1, "assets": ["few"]}}
    }  # fmt: skip
    assert model.registry_card()["bundle"] == model.card.bundle


def test_an_asset_with_too_little_time_for_its_budget_has_none() -> None:
    chosen, reasons = choose_assets(history(), 100, replace(BUDGET, alarms_per_week=1.0))
    assert chosen == []
    assert reasons["north"] == "less time than the budget allows 1.5 false alarms in"


def test_scope_fleet_gives_one_model() -> None:
    one = fit_fleet(history(), SPEC, FLEET_SPEC, scope="fleet")
    assert one.own == {}
    assert one.card.bundle is None


def test_each_window_is_scored_by_the_model_of_its_asset(model: TrainedModel) -> None:
    values, names = mixed()
    scored = model.score(values, names)
    for name in ("north", "south"):
        rows = np.flatnonzero([each == name for each in names])
        alone = model.own[name].score(values[rows], [name] * len(rows))
        np.testing.assert_array_equal(scored.score[rows], alone.score)
        np.testing.assert_array_equal(scored.share[rows], alone.share)


def test_a_new_asset_is_scored_by_the_fleets_model(model: TrainedModel) -> None:
    values = windows(readings(100, 7)).values
    fleets = fit_fleet(history(), SPEC, FLEET_SPEC)
    score = model.score(values, ["never seen"] * len(values)).score
    np.testing.assert_array_equal(score, fleets.score(values, ["never seen"] * len(values)).score)
    np.testing.assert_array_equal(score, model.score(values).score)
    assert np.isfinite(score).all()


def test_all_that_is_told_of_a_window_is_its_own_models(model: TrainedModel) -> None:
    values, names = mixed()
    values[:, -3:, 0] += 3.0
    share = model.score(values, names).share
    explained, rebuilt = model.explain(values, share, names), model.reconstruct(values, names)
    cleared, limits = model.clearing(values, share, names), model.limits(names)
    assert limits is not None
    for row in (0, 1, 33, 79):
        own, one = model.own[names[row]], slice(row, row + 1)
        assert limits[row] == pytest.approx(own.card.threshold.raw)
        (alone,) = own.explain(values[one], share[one], [names[row]])
        assert [each.name for each in explained[row]] == [each.name for each in alone]
        assert [each.expected for each in explained[row]] == pytest.approx([each.expected for each in alone], abs=1e-4)
        np.testing.assert_allclose(rebuilt[one], own.reconstruct(values[one], [names[row]]), atol=1e-4)
        assert cleared[row] == own.clearing(values[one], share[one], [names[row]])[0]


def test_a_bundle_survives_saving(model: TrainedModel, tmp_path: Path) -> None:
    version = model.save(tmp_path)
    loaded = TrainedModel.load(tmp_path / version)
    loaded.self_test()
    values, names = mixed()
    assert loaded.version == model.version == version
    np.testing.assert_array_equal(loaded.score(values, names).score, model.score(values, names).score)
    assert [file.name for file in tmp_path.iterdir()] == [version]
    assert TrainedModel.parse(model.dump(), model.device).version == version


def test_other_terms_derive_all_models_of_a_bundle(model: TrainedModel, tmp_path: Path) -> None:
    wanted = replace(model.terms, alarms_per_week=2.0)
    derived = TrainedModel.load(tmp_path / model.derive(wanted).save(tmp_path))
    assert derived.card.derived is not None
    assert derived.card.derived["from"] == model.version
    for name in model.own:
        assert derived.own[name].card.threshold.raw > model.own[name].card.threshold.raw
        assert derived.own[name].terms.alarms_per_week == pytest.approx(2.0)
    assert derived.derive(model.terms).version == model.version


@pytest.mark.parametrize("change", [
    {"own": ["north"]}, {"own": ["south", "north"]}, {"own": []}, {"own": None}, {},
])  # fmt: skip
def test_a_malformed_bundle_is_refused(model: TrainedModel, tmp_path: Path, change: dict[str, Any]) -> None:
    broken = model.with_own(model.own, {"fleet": {}})
    broken.card = replace(broken.card, bundle=change)
    with pytest.raises(CheckpointDamaged):
        TrainedModel.load(tmp_path / broken.save(tmp_path))


def test_an_asset_that_cannot_be_trained_has_the_fleets_model(monkeypatch: pytest.MonkeyPatch) -> None:
    train = history()
    values = train.values.copy()
    values[(train.asset == 1) & (np.arange(len(train)) % 8 != 0)] = np.nan
    one = fit_fleet(replace(train, values=values), SPEC, FLEET_SPEC, scope="asset")
    assert list(one.own) == ["north"]
    assert one.card.bundle is not None
    reasons = one.card.bundle["fleet"]
    assert [each["assets"] for why, each in reasons.items() if why.startswith("NotEnoughData: ")] == [["south"]]
    fresh = windows(other_kind(100, 8)).values
    assert np.isfinite(one.score(fresh, ["south"] * len(fresh)).score).all()


def test_a_version_holds_a_stated_number_of_models(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fleet_fit, "MAX_MODELS", 1)
    train = replace(windows(readings(300, 0), readings(400, 1), readings(60, 2)), assets=NAMES)
    chosen, reasons = choose_assets(train, 100, BUDGET)
    assert chosen == [1]
    assert reasons["north"] == "a version holds 1 models, of the assets with most windows"
    assert reasons["few"] == "fewer than 100 windows"
    assert bundle.MAX_MODELS == 100


def test_a_version_holds_a_stated_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fleet_fit, "MAX_BYTES", 0)
    one = fit_fleet(history(), SPEC, FLEET_SPEC, scope="asset")
    assert one.own == {}
    assert one.card.bundle is not None
    assert one.card.bundle["fleet"]["the checkpoint would be larger than 0 MB"]["assets"] == ["north", "south"]
