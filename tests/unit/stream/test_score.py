"""Scores by a version whose sensors differ from those of the windows."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pytest

from monitor.models.spec import FleetSpec, ModelSpec
from monitor.stream import score as score_module
from monitor.stream.score import ActiveVersion, DetectorScorer
from monitor.training.fit import fit
from monitor.types import Windows
from tests.fakes import RecordedLog
from tests.unit.training.sine_windows import BUDGET, LENGTH, readings, windows

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from monitor.types import Float32, Scores

SENSORS = ("a", "b", "c", "d")
END_US = 10**12


def plant(n: int, seed: int = 0) -> Float32:
    return np.concatenate([readings(n, seed), readings(n, seed + 100)], axis=1)


class Case(NamedTuple):
    scorer: DetectorScorer
    version: str
    log: RecordedLog

    async def score(self, values: Float32, sensors: Sequence[str]) -> Scores:
        n = len(values)
        zero = np.zeros(n, np.int64)
        all_ = Windows("pumps", np.zeros(n, np.int32), zero, values, np.full(n, LENGTH, np.int32), zero, zero)
        return await self.scorer.score(all_, np.full(n, END_US), sensors)


@pytest.fixture
def case(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[Case]:
    log = RecordedLog()
    monkeypatch.setattr(score_module, "log", log)
    folder: Path = tmp_path_factory.mktemp("checkpoints")
    model = fit(windows(plant(400)), ModelSpec("pca"), FleetSpec("pumps", SENSORS, 60.0, BUDGET))
    version = model.save(folder)
    scorer = DetectorScorer("cpu")
    scorer.activate("pumps", ActiveVersion(0, version, folder / version))
    yield Case(scorer, version, log)
    scorer.close()


FRESH = np.ascontiguousarray(windows(plant(100, 7)).values)


async def test_other_columns_are_ignored_in_any_order(case: Case) -> None:
    expected = await case.score(FRESH, SENSORS)
    wide = np.concatenate([np.full_like(FRESH[..., :1], 9e9), FRESH[..., ::-1]], axis=2)
    scored = await case.score(wide, ("new", "d", "c", "b", "a"))
    np.testing.assert_array_equal(scored.score, expected.score)
    assert set(scored.version) == {case.version}


async def test_expected_values_are_those_of_the_windows_columns(case: Case) -> None:
    wide = np.concatenate([np.full_like(FRESH[..., :1], 9e9), FRESH[..., ::-1]], axis=2)
    wide[5, -6:, 2] += 300  # sensor c, not so far that it counts as broken
    names = ("new", "d", "c", "b", "a")
    scored = await case.score(wide, names)
    assert scored.score[5] > 1
    assert scored.reconstruct is not None
    found = await scored.reconstruct(scored, np.array([3, 5]), np.array([5]), names)
    assert found.expected.shape == (2, LENGTH, 5)
    assert np.isnan(found.expected[..., 0]).all()
    np.testing.assert_allclose(found.expected[0, :, 1:], wide[3, :, 1:], atol=5 * np.ptp(wide[3, :, 1:], axis=0).max())
    assert abs(found.expected[1, -1, 2]) < 150
    assert found.clearing == {5: ("c",)}


async def test_windows_without_a_version_have_no_expected_values(case: Case) -> None:
    scored = await case.score(np.full_like(FRESH[:2], np.nan), SENSORS)
    assert scored.reconstruct is not None
    unknown = replace(scored, version=[None, None])
    found = await unknown.reconstruct(unknown, np.array([0, 1]), np.array([1]), SENSORS)
    assert np.isnan(found.expected).all()
    assert found.clearing == {}


async def test_a_sensor_that_the_windows_lack_is_masked(case: Case) -> None:
    masked = FRESH.copy()
    masked[..., 3] = np.nan
    expected = await case.score(masked, SENSORS)
    scored = await case.score(FRESH[..., :3], SENSORS[:3])
    np.testing.assert_array_equal(scored.score, expected.score)
    assert np.mean(scored.score >= 1) < 0.1


async def test_differing_sensors_are_told_once(case: Case) -> None:
    for _ in range(3):
        await case.score(FRESH[:5, :, :3], (*SENSORS[:2], "new"))
    assert [(line["missing"], line["ignored"]) for line in case.log.of("sensors_differ")] == [(["c", "d"], ["new"])]
    await case.score(FRESH[:5], SENSORS)
    assert len(case.log.of("sensors_differ")) == 1


async def test_with_fewer_than_half_of_the_sensors_nothing_is_scored(case: Case) -> None:
    assert not np.isnan((await case.score(FRESH[..., :2], SENSORS[:2])).score).any()
    scored = await case.score(FRESH[..., :1], SENSORS[:1])
    assert np.isnan(scored.score).all()
    assert scored.unscored_reason is not None
    assert "knows 1 of the sensors a, and needs half of the 4 that it was trained on" in scored.unscored_reason


async def test_another_length_is_not_scored(case: Case) -> None:
    scored = await case.score(FRESH[:, :5], SENSORS)
    assert scored.unscored_reason is not None
    assert "windows of 12 cells; the configuration now has 5: retrain" in scored.unscored_reason


async def test_windows_of_dead_sensors_are_unscored_and_told_once(case: Case) -> None:
    dead = FRESH.copy()
    dead[:40, :, :2] = np.nan  # half of the sensors
    dead[40:60, :, :3] = np.nan
    dead[60:, :, :] = np.nan
    for _ in range(2):
        scored = await case.score(dead, SENSORS)
        assert np.isnan(scored.score).tolist() == [False] * 40 + [True] * (len(dead) - 40)
    [line] = case.log.of("too_few_sensors")
    assert line["windows"] == 20
    assert line["needs"] == "values of 2 of 4 channels in a window"


def test_assets_that_always_lack_sensors_stay_scored() -> None:
    one, other = plant(400), plant(400, 3)
    other[:, 1:] = np.nan
    model = fit(windows(one, other), ModelSpec("pca"), FleetSpec("pumps", SENSORS, 60.0, BUDGET))
    assert model.card.min_channels == 1
    alone = FRESH.copy()
    alone[..., 1:] = np.nan
    assert not np.isnan(model.score(alone).score).any()


async def test_windows_are_scored_by_the_threshold_of_their_asset(tmp_path: Path) -> None:
    assets = [readings(900, seed) for seed in (0, 1)]
    assets[1] = assets[1] + np.random.default_rng(5).normal(0, 0.4 * assets[1].std(0), assets[1].shape)
    model = fit(replace(windows(*assets), assets=("north", "south")), ModelSpec("pca"),
                FleetSpec("pumps", SENSORS[:2], 60.0, BUDGET))  # fmt: skip
    assert model.card.asset_factors is not None
    version = model.save(tmp_path)
    scorer = DetectorScorer("cpu")
    scorer.activate("pumps", ActiveVersion(0, version, tmp_path / version))
    values, zero = FRESH[:3, :, :2], np.zeros(3, np.int64)
    some = Windows("pumps", np.array([1, 0, 2], np.int32), zero, values, np.full(3, LENGTH, np.int32), zero, zero,
                   names=("north", "south", "new"))  # fmt: skip
    scored = await scorer.score(some, np.full(3, END_US), SENSORS[:2])
    unnamed = await scorer.score(replace(some, names=()), np.full(3, END_US), SENSORS[:2])
    factors = [model.card.asset_factors[name] for name in ("south", "north")]
    np.testing.assert_allclose(scored.score, unnamed.score / np.array([*factors, 1.0], np.float32), rtol=1e-5)
    scorer.close()
