"""Per-sensor knobs: deviations that do not count, for every architecture, and their effect on a version."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

from monitor.errors import NotFound
from monitor.models.detector import TrainedModel
from monitor.models.inputs import ModelInputs, SensorInput
from monitor.models.knobs import Knobs
from monitor.models.scaler import Scaler, SensorScale
from monitor.models.spec import ModelSpec
from monitor.models.terms import SensorKnob, Terms
from monitor.training.fit import fit
from tests.unit.training.sine_windows import BUDGET, FLEET_SPEC, LENGTH, readings, windows

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from monitor.types import Float32

ARCHITECTURES = ("auto", "conv", "dense", "forecast", "lstm", "pca")


@pytest.fixture(scope="module")
def trained() -> Callable[[str], TrainedModel]:
    """Return a small model of an architecture, trained once."""
    made: dict[str, TrainedModel] = {}

    def of(architecture: str) -> TrainedModel:
        if architecture not in made:
            spec = ModelSpec(architecture, max_steps=10)
            made[architecture] = fit(windows(readings(300)), spec, FLEET_SPEC)
        return made[architecture]

    return of


def terms(**knobs: SensorKnob) -> Terms:
    return Terms(BUDGET.alarms_per_week, BUDGET.confirm, BUDGET.among, BUDGET.recover, knobs)


def with_fault(sensor: int, size: float) -> Float32:
    """Return healthy windows, each with a deviation of one sensor in its last steps."""
    values = np.array(windows(readings(60, 7)).values, dtype=np.float32)
    values[:, -4:, sensor] += size
    return values


# ---------------------------------------------------------------- what counts


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_only_deviations_in_the_direction_count(trained: Callable[[str], TrainedModel], architecture: str) -> None:
    model = trained(architecture)
    only_up = model.derive(terms(power=SensorKnob("up")))
    above, below = with_fault(1, 3.0), with_fault(1, -3.0)
    assert only_up.score(above).score.mean() > 0.5 * model.score(above).score.mean()
    assert only_up.score(below).score.mean() < 0.6 * model.score(below).score.mean()
    assert (only_up.score(below).score <= model.score(below).score * (1 + 1e-5)).all()


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_smaller_deviations_do_not_count(trained: Callable[[str], TrainedModel], architecture: str) -> None:
    model = trained(architecture)
    values = with_fault(1, 3.0)
    loose = model.derive(terms(power=SensorKnob(least=50.0), speed=SensorKnob(least=50.0)))
    scored = loose.score(values)
    assert (scored.score < 0.2).all()
    assert (model.score(values).score > 2 * scored.score).any()
    tight = model.derive(terms(power=SensorKnob(least=1e-9)))
    assert np.array_equal(tight.score(values).score, model.score(values).score)


def test_a_deviation_beyond_the_clip_counts_as_measured(trained: Callable[[str], TrainedModel]) -> None:
    """Standardised values end at ten spreads: a deviation of 500 units must not look like one of ten."""
    model = trained("pca").derive(terms(power=SensorKnob(least=100.0)))
    assert (model.score(with_fault(1, 500.0)).score > 1).all()
    plain = trained("pca").score(with_fault(1, 50.0)).score
    assert (model.score(with_fault(1, 50.0)).score < 0.5 * plain).all()


def test_a_deviation_that_does_not_count_alarms_on_no_other_sensor(trained: Callable[[str], TrainedModel]) -> None:
    """It distorts the reconstruction of the other sensors, which would deviate in its place."""
    model = trained("pca").derive(terms(power=SensorKnob(weight=0.0)))
    values = with_fault(1, 3.0)
    healthy = model.score(with_fault(1, 0.0)).score
    assert (trained("pca").score(values).score > 3).all()
    assert np.median(model.score(values).score) < 1
    assert (healthy < 1).all()


def test_a_relative_deviation_is_of_the_expected_value() -> None:
    scaler = Scaler((SensorScale("a", "continuous", 100.0, 10.0),))
    knobs = Knobs(ModelInputs(("a",)), scaler, {"a": SensorKnob(least_share=0.05)})
    expected = torch.tensor([[[100.0, 100.0, 200.0]]])
    actual = torch.tensor([[[104.9, 105.0, 209.0]]])
    assert knobs.factor(actual, expected).tolist() == [[[0.0, 1.0, 0.0]]]


def test_an_angle_deviates_by_degrees() -> None:
    inputs = ModelInputs(("wind",), (SensorInput("angle"),))
    scale = tuple(SensorScale(name, "continuous", 0.0, 1.0) for name in inputs.channels)
    knobs = Knobs(inputs, Scaler(scale), {"wind": SensorKnob(least=10.0)})

    def channels(*degrees: float) -> torch.Tensor:
        turn = torch.deg2rad(torch.tensor(degrees))
        return torch.stack([turn.sin(), turn.cos()])[None]                # (1, 2, T)

    factor = knobs.factor(channels(358.0, 350.0, 5.0), channels(2.0, 2.0, 8.0))
    assert factor.tolist() == [[[0.0, 1.0, 0.0], [0.0, 1.0, 0.0]]]


def test_a_missing_value_has_no_factor() -> None:
    knobs = Knobs(ModelInputs(("a",)), Scaler((SensorScale("a", "continuous", 0.0, 1.0),)), {"a": SensorKnob("up")})
    assert knobs.factor(torch.full((1, 1, 2), torch.nan), torch.zeros(1, 1, 2)).tolist() == [[[0.0, 0.0]]]


def test_a_counter_deviates_by_its_change() -> None:
    """Whatever it counted before: the channel is the change since the window began."""
    change = SensorInput("change", low=0.0, high=12.0)
    values = np.cumsum(np.ones((1, LENGTH, 1), np.float32), axis=1) + 1000
    inputs = ModelInputs(("energy",), (change,))
    knobs = Knobs(inputs, Scaler((SensorScale("energy", "continuous", 0.0, 1.0),)), {"energy": SensorKnob(least=5.0)})
    actual = torch.from_numpy(inputs.to_channels(values)).transpose(1, 2)
    assert knobs.factor(actual, torch.zeros(1, 1, LENGTH))[0, 0].tolist() == [0.0] * 5 + [1.0] * 7


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_sensor_of_weight_zero_raises_nothing(trained: Callable[[str], TrainedModel], architecture: str) -> None:
    model = trained(architecture).derive(terms(power=SensorKnob(weight=0.0)))
    if architecture in ("forecast", "pca"):  # the others reconstruct both sensors from one latent
        assert (model.score(with_fault(1, 1.0)).share[:, 1] == 0).all()
    values = with_fault(1, 3.0)
    assert (model.score(values).share[:, 1] == 0).all()
    assert (model.score(values).score < trained(architecture).score(values).score).all()


def test_contributions_follow_the_knobs(trained: Callable[[str], TrainedModel]) -> None:
    model = trained("pca").derive(terms(power=SensorKnob("down")))
    values = with_fault(1, 3.0)
    scored = model.score(values)
    assert (scored.share[:, 1] < trained("pca").score(values).share[:, 1]).all()
    shown = {each.name: each for each in model.explain(values[:1], scored.share[:1])[0]}
    actual, expected = shown["power"].actual, shown["power"].expected
    assert actual is not None
    assert expected is not None
    assert actual <= expected, "the step is one that counts"


# ---------------------------------------------------------------- versions


def test_a_version_with_knobs_survives_saving(trained: Callable[[str], TrainedModel], tmp_path: Path) -> None:
    base = trained("pca")
    model = base.derive(terms(power=SensorKnob("up", least=0.2, weight=0.5), nothing=SensorKnob("up")))
    version = model.save(tmp_path)
    assert version != base.version
    loaded = TrainedModel.load(tmp_path / version)
    values = with_fault(1, 3.0)
    assert np.array_equal(loaded.score(values).score, model.score(values).score)
    assert loaded.card.knobs is not None
    assert list(loaded.card.knobs) == ["power"], "a sensor that the model does not know is left out"
    assert loaded.card.derived == {"from": base.version, "why": "sensor power: only up, from 0.2 on, weight 0.5"}
    assert loaded.card.threshold == base.card.threshold


def test_an_older_release_refuses_a_card_with_knobs(trained: Callable[[str], TrainedModel], tmp_path: Path) -> None:
    """It would score without them. A card without knobs is as it was."""
    plain = json.loads((tmp_path / trained("pca").save(tmp_path) / "card.json").read_text())
    model = trained("pca").derive(terms(power=SensorKnob("up")))
    knobs = json.loads((tmp_path / model.save(tmp_path) / "card.json").read_text())
    assert (plain["format"], knobs["format"]) == (2, 3)
    assert "knobs" not in plain


def test_a_budget_is_derived_from_the_kept_scores(trained: Callable[[str], TrainedModel], tmp_path: Path) -> None:
    base = trained("pca")
    model = base.derive(replace(terms(), alarms_per_week=2.0, confirm=5, among=8))
    assert model.card.threshold.alarms_per_week == 2.0
    assert model.card.threshold.raw > base.card.threshold.raw
    assert model.card.derived is not None
    assert model.card.derived["why"] == "budget 20 → 2 per asset and week; confirm 3 of 5 → 5 of 8"
    version = model.save(tmp_path)
    other = TrainedModel.load(tmp_path / version).derive(replace(terms(), alarms_per_week=5.0))
    assert other.card.derived is not None
    assert other.card.derived["from"] == base.version, "the trained version, not the one between"


def test_the_former_terms_give_the_trained_version(trained: Callable[[str], TrainedModel]) -> None:
    """Else each change of a budget and back would add a version, and a folder."""
    base = trained("pca")
    for wanted in (replace(terms(), alarms_per_week=2.0), terms(power=SensorKnob("up", weight=3.0))):
        again = base.derive(wanted).derive(terms())
        assert (again.version, again.card) == (base.version, base.card)


def test_derivation_is_deterministic(trained: Callable[[str], TrainedModel]) -> None:
    wanted = terms(power=SensorKnob(weight=2.0))
    assert trained("pca").derive(wanted).version == trained("pca").derive(wanted).version


def test_a_weight_above_one_moves_the_threshold(trained: Callable[[str], TrainedModel]) -> None:
    base = trained("pca")
    model = base.derive(terms(power=SensorKnob(weight=4.0)))
    assert model.card.threshold.raw > base.card.threshold.raw
    assert base.derive(terms(power=SensorKnob(weight=0.5))).card.threshold == base.card.threshold


def test_without_held_out_scores_only_knobs_can_change(trained: Callable[[str], TrainedModel]) -> None:
    base = trained("pca")
    old = TrainedModel(replace(base.card, held_out=None), base.members, base.scaler, base.device)
    assert old.derive(terms(power=SensorKnob("up"))).card.threshold == base.card.threshold
    with pytest.raises(NotFound, match="held-out scores"):
        old.derive(replace(terms(), alarms_per_week=2.0))
    with pytest.raises(NotFound, match="held-out scores"):
        old.derive(terms(power=SensorKnob(weight=2.0)))


def test_training_takes_the_knobs_of_the_configuration(trained: Callable[[str], TrainedModel]) -> None:
    spec = replace(FLEET_SPEC, knobs={"power": SensorKnob("up"), "nothing": SensorKnob("up")})
    model = fit(windows(readings(300)), ModelSpec("pca"), spec)
    values = with_fault(1, -3.0)
    expected = trained("pca").derive(terms(power=SensorKnob("up"))).score(values).score
    assert np.array_equal(model.score(values).score, expected)
    assert model.card.derived is None
