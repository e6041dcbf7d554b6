from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from monitor.config.tree import ModelConfig
from monitor.errors import ConfigError, NotEnoughData
from monitor.evaluation.methods import Settings, moving_deviation, parse_method, parse_methods, score
from monitor.evaluation.series import Unlabelled
from tests.unit.evaluation import made

SETTINGS = Settings(window=16)


def scored(name: str, data: Unlabelled, settings: Settings = SETTINGS) -> np.ndarray:
    return score(parse_method(name, settings), data, settings, lambda _share, _text: None).score


def test_the_baselines_always_run_and_nothing_runs_twice() -> None:
    names = [method.name for method in parse_methods(["conv", "pca", "conv"], SETTINGS)]
    assert names == ["conv", "pca", "moving-deviation"]


def test_default_is_what_an_operator_gets_who_configures_nothing() -> None:
    spec, config = parse_method("default", SETTINGS).spec, ModelConfig()
    assert spec is not None
    assert (spec.architecture, spec.objective) == (config.architecture, config.objective)
    assert spec.max_train_s == config.max_train_s


def test_a_name_says_architecture_objective_and_stacking_in_any_order() -> None:
    spec = parse_method("conv+stacked+denoising", replace(SETTINGS, seed=7, max_train_s=3.0)).spec
    assert spec is not None
    assert (spec.architecture, spec.objective, spec.stacked) == ("conv", "denoising", True)
    assert (spec.seed, spec.max_train_s) == (7, 3.0)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("convv", 'method "convv" .* did you mean "conv"'),
        ("moving-deviatoin", 'did you mean "moving-deviation"'),
        ("conv+denoisng", 'did you mean "denoising"'),
        ("conv+stakced", 'did you mean "stacked"'),
        ("conv+denoising+sparse", r"ARCHITECTURE\[\+OBJECTIVE\]\[\+stacked\]"),
        ("pca+denoising", 'method "pca\\+denoising": .* does not go with pca'),
        ("", 'method ""'),
    ],
)
def test_a_wrong_name_is_told_the_right_one(name: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        parse_method(name, SETTINGS)


@pytest.mark.parametrize("name", ["pca", "moving-deviation", "random"])
def test_every_row_behind_the_head_has_a_score_and_it_is_causal(name: str) -> None:
    data = made.series().data
    found = scored(name, data)
    assert len(found) == made.N - made.TRAIN
    assert np.isfinite(found).all()
    cut = replace(data, values=data.values[:-200])
    assert np.allclose(scored(name, cut), found[:-200], rtol=1e-4)


def test_a_rows_window_ends_at_it_and_reaches_back_into_the_head() -> None:
    data = made.series().data
    found = scored("pca", data)
    first = made.EVENTS[0][0] - made.TRAIN
    assert found[first - 1] < 1 < found[first + 3]
    assert found[:10].max() < 1


@pytest.mark.parametrize("name", ["pca", "moving-deviation"])
def test_nothing_behind_the_head_touches_learning_or_threshold(name: str) -> None:
    data = made.series().data
    changed = data.values.copy()
    changed[-1] = 1e4
    assert np.allclose(scored(name, replace(data, values=changed))[:-1], scored(name, data)[:-1], rtol=1e-5)


def test_what_holds_no_window_says_so() -> None:
    with pytest.raises(NotEnoughData, match="10 training rows hold no window of 64 rows; use a shorter --window"):
        scored("pca", replace(made.series().data, train_rows=10), Settings())


def test_a_window_without_a_value_is_unscored() -> None:
    data = made.series().data
    gap = data.values.copy()
    gap[750:800] = np.nan
    found = scored("pca", replace(data, values=gap))
    assert np.isnan(found[750 + 15 - made.TRAIN : 800 - made.TRAIN]).all()
    assert np.isfinite(found[:50]).all()
    assert np.isfinite(found[820 - made.TRAIN :]).all()


def test_moving_deviation_is_in_training_deviations_and_minds_no_constant_sensor() -> None:
    values = np.zeros((100, 2), np.float32)
    values[:50, 0] = np.tile([-1, 1], 25)
    values[60, 0] = 2.0
    found = moving_deviation(Unlabelled(("a", "still"), values, 50, 1.0))
    # Two deviations against a mean of the last twenty, ten of which are ±1: 2 · 19/20, halved by the still sensor.
    assert found[60] == pytest.approx(2 * 19 / 20 / 2, abs=0.03)


def test_random_is_the_seeds_and_nobody_elses() -> None:
    data = made.series().data
    assert (scored("random", data) == scored("random", data)).all()
    assert (scored("random", data) != scored("random", data, replace(SETTINGS, seed=1))).any()
