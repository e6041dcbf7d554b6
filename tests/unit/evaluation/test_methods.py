from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from monitor.config.tree import ModelConfig
from monitor.errors import ConfigError, NotEnoughData
from monitor.evaluation import yardsticks
from monitor.evaluation.methods import (
    ALWAYS,
    ScoreSettings,
    _yardstick,
    moving_deviation,
    parse_method,
    parse_methods,
    score,
)
from monitor.evaluation.series import UnlabelledSeries
from tests import labelled_recording as sample

SETTINGS = ScoreSettings(window=16)


@pytest.fixture(autouse=True)
def _quick_yardstick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(yardsticks, "STEPS", 5)


def scored(name: str, data: UnlabelledSeries, settings: ScoreSettings = SETTINGS) -> np.ndarray:
    return score(parse_method(name, settings), data, settings, lambda _share, _text: None).score


def test_the_baselines_always_run() -> None:
    names = [method.name for method in parse_methods(["conv", "pca", "conv"], SETTINGS)]
    assert names == ["conv", *ALWAYS]


def test_default_is_the_configurations_default() -> None:
    spec, config = parse_method("default", SETTINGS).spec, ModelConfig()
    assert spec is not None
    assert (spec.architecture, spec.objective) == (config.architecture, config.objective)
    assert spec.max_train_s == config.max_train_s


def test_a_name_gives_the_model() -> None:
    spec = parse_method("conv+stacked+denoising", replace(SETTINGS, seed=7, max_train_s=3.0)).spec
    assert spec is not None
    assert (spec.architecture, spec.objective, spec.stacked) == ("conv", "denoising", True)
    assert (spec.seed, spec.max_train_s) == (7, 3.0)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("convv", 'method "convv" .* did you mean "conv"'),
        ("moving-deviatoin", 'did you mean "moving-deviation"'),
        ("dense-windw", 'did you mean "dense-window"'),
        ("conv+denoisng", 'did you mean "denoising"'),
        ("conv+stakced", 'did you mean "stacked"'),
        ("conv+denoising+sparse", r"ARCHITECTURE\[\+OBJECTIVE\]\[\+stacked\]"),
        ("pca+denoising", 'method "pca\\+denoising": .* does not go with pca'),
        ("", 'method ""'),
    ],
)
def test_a_wrong_name_is_corrected(name: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse_method(name, SETTINGS)


@pytest.mark.parametrize("name", [*ALWAYS, "random"])
def test_every_row_has_a_causal_score(name: str) -> None:
    data = sample.series().data
    found = scored(name, data)
    assert len(found) == sample.N_ROWS - sample.N_TRAIN
    assert np.isfinite(found).all()
    cut = replace(data, values=data.values[:-200])
    assert np.allclose(scored(name, cut), found[:-200], rtol=1e-4)


def test_the_window_of_a_row_ends_at_it() -> None:
    data = sample.series().data
    found = scored("pca", data)
    first = sample.EVENTS[0][0] - sample.N_TRAIN
    assert found[first - 1] < 1 < found[first + 3]
    assert found[:10].max() < 1


@pytest.mark.parametrize("name", ALWAYS)
def test_rows_behind_the_head_are_not_used(name: str) -> None:
    data = sample.series().data
    changed = data.values.copy()
    changed[-1] = 1e4
    assert np.allclose(scored(name, replace(data, values=changed))[:-1], scored(name, data)[:-1], rtol=1e-5)


def test_a_head_without_a_window_is_rejected() -> None:
    with pytest.raises(NotEnoughData, match="10 training rows hold no window of 64 rows; use a shorter --window"):
        scored("pca", replace(sample.series().data, train_rows=10), ScoreSettings())


def test_windows_without_values_are_unscored() -> None:
    data = sample.series().data
    gap = data.values.copy()
    gap[750:800] = np.nan
    found = scored("pca", replace(data, values=gap))
    assert np.isnan(found[750 + 15 - sample.N_TRAIN : 800 - sample.N_TRAIN]).all()
    assert np.isfinite(found[:50]).all()
    assert np.isfinite(found[820 - sample.N_TRAIN :]).all()


def test_moving_deviation_of_a_constant_sensor() -> None:
    values = np.zeros((100, 2), np.float32)
    values[:50, 0] = np.tile([-1, 1], 25)
    values[60, 0] = 2.0
    found = moving_deviation(UnlabelledSeries(("a", "still"), values, 50, 1.0))
    # The unit is training deviations. Two of them against the mean of the last twenty rows, which sum to 2: 2 · 19/20.
    # The constant sensor halves it.
    assert found[60] == pytest.approx(2 * 19 / 20 / 2, abs=0.03)


def test_random_scores_depend_on_the_seed() -> None:
    data = sample.series().data
    assert (scored("random", data) == scored("random", data)).all()
    assert (scored("random", data) != scored("random", data, replace(SETTINGS, seed=1))).any()


@pytest.mark.parametrize("name", yardsticks.YARDSTICKS)
def test_held_out_rows_are_scored_by_earlier(name: str) -> None:
    data, n_early, changed_from = sample.series().data, 560, 620
    values = data.values.copy()
    values[changed_from : data.train_rows] += 5.0
    (held, _), (changed, _) = (
        _yardstick(name, one, SETTINGS, n_early) for one in (data, replace(data, values=values))
    )
    assert len(held) == data.train_rows - n_early
    same = changed_from - n_early
    assert np.array_equal(held[:same], changed[:same])
    assert changed[same + 1 :].max() > held.max()


@pytest.mark.parametrize("name", yardsticks.YARDSTICKS)
def test_a_short_head_is_learnt_from_whole(name: str) -> None:
    data = replace(sample.series().data, train_rows=20)
    found = scored(name, data)
    assert len(found) == sample.N_ROWS - 20
    assert np.isfinite(found).all()
    with pytest.raises(NotEnoughData, match="20 training rows hold no window of 30 rows"):
        scored(name, data, replace(SETTINGS, window=30))


# ---------------------------------------------------------------- windows of one cycle


def cyclic(cycle: int) -> UnlabelledSeries:
    values = np.sin(2 * np.pi * np.arange(1400) / cycle) + 0.1 * np.random.default_rng(0).standard_normal(1400)
    return UnlabelledSeries(("a",), values[:, None].astype(np.float32), 1000, 60.0)


@pytest.mark.parametrize(("cycle", "rows"), [(90, 90), (20, 64)])
def test_recordings_have_their_own_windows(cycle: int, rows: int) -> None:
    auto, given = replace(SETTINGS, window=None), replace(SETTINGS, window=rows)
    found = score(parse_method("pca", auto), cyclic(cycle), auto, lambda _share, _text: None)
    assert found.model["window"] == rows
    assert np.array_equal(found.score, scored("pca", cyclic(cycle), given))


def test_yardsticks_have_the_same_windows() -> None:
    auto, given = replace(SETTINGS, window=None), replace(SETTINGS, window=90)
    assert np.array_equal(scored("pca-window", cyclic(90), auto), scored("pca-window", cyclic(90), given))
