from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

from monitor.budget import Budget
from monitor.config.states import CalendarConfig
from monitor.models.detector import TrainedModel
from monitor.models.spec import FleetSpec, ModelSpec, TrainingSet
from monitor.training.fit import fit

if TYPE_CHECKING:
    from pathlib import Path

LENGTH, STEP_US, DAY = 8, 1_800_000_000, 48
MONDAY_US = 1_767_571_200_000_000  # 2026-01-05 00:00 UTC
BUDGET = Budget(alarms_per_week=1.0, confirm=3, among=5, recover=6, step_s=1800.0)


def readings(seed: int, n_days: int = 56, *, shifts: bool = True) -> np.ndarray:
    """Return readings [n, 3] whose noise is three times as large from 6 to 18 h of work days."""
    draw, row = np.random.default_rng(seed), np.arange(n_days * DAY)
    works = (row // DAY % 7 < 5) & (row % DAY >= 12) & (row % DAY < 36)
    common = draw.normal(0, 1, (len(row), 1))
    for number in range(1, len(common)):
        common[number] = 0.8 * common[number - 1] + 0.6 * common[number]
    size = np.where(works, 3.0, 1.0)[:, None] if shifts else 1.0
    return (common * [1.0, -0.7, 0.4] + 0.3 * size * draw.normal(0, 1, (len(row), 3))).astype(np.float32)


def windows_of(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    windows = np.lib.stride_tricks.sliding_window_view(values, LENGTH, axis=0).transpose(0, 2, 1)
    return windows, MONDAY_US + (np.arange(len(windows)) + LENGTH) * STEP_US


def trained(values: np.ndarray, **calendar: object) -> TrainedModel:
    torch.set_num_threads(1)
    windows, end_us = windows_of(values)
    fleet = FleetSpec("f", ("a", "b", "c"), 1800.0, BUDGET, calendar=CalendarConfig.model_validate(calendar))
    return fit(TrainingSet(windows, np.zeros(len(windows), np.int32), end_us), ModelSpec("pca"), fleet)


@pytest.fixture(scope="module")
def model() -> TrainedModel:
    return trained(readings(0))


def test_shifts_are_found_and_the_night_is_judged_more_strictly(model: TrainedModel) -> None:
    assert model.calendar is not None
    by_kind = model.card.calendar["factors"] if model.card.calendar is not None else {}
    assert by_kind["work day"][12] > 1.3 * by_kind["work day"][3]
    assert by_kind["work day"][12] > 1.3 * by_kind["Sunday"][12]
    assert model.registry_card()["calendar"]["says"][0].startswith("Thresholds follow hour and day in UTC")
    windows, end_us = windows_of(readings(5, 7))
    ratio = model.score(windows).score / model.score(windows, end_us=end_us).score
    np.testing.assert_allclose(ratio, model.calendar.of(end_us), rtol=1e-4)


@pytest.mark.parametrize("seed", range(6))
def test_a_machine_without_hours_has_no_calendar(seed: int) -> None:
    own, never = trained(readings(seed, shifts=False)), trained(readings(seed, shifts=False), use="never")
    assert own.card.calendar is None
    assert own.card.threshold == never.card.threshold


def test_days_too_few_for_a_trial_have_no_calendar() -> None:
    assert trained(readings(0, 20)).card.calendar is None


def test_a_calendar_survives_saving_and_other_terms(model: TrainedModel, tmp_path: Path) -> None:
    windows, end_us = windows_of(readings(5, 7))
    loaded = TrainedModel.load(tmp_path / model.save(tmp_path))
    expected = model.score(windows, end_us=end_us).score
    np.testing.assert_array_equal(loaded.score(windows, end_us=end_us).score, expected)
    assert loaded.thresholds() == model.thresholds()
    assert loaded.held_out is not None
    assert loaded.held_out.threshold(loaded.budget) == model.card.threshold


def test_holidays_come_from_a_list_or_a_file(tmp_path: Path) -> None:
    file = tmp_path / "holidays.txt"
    file.write_text("2026-12-25  # Christmas\n\n2026-01-01\n")
    context = {"folder": tmp_path}
    settings = CalendarConfig.model_validate({"holidays": "holidays.txt"}, context=context)
    assert settings.dates == ("2026-01-01", "2026-12-25")
    assert CalendarConfig.model_validate({"holidays": ["2026-01-01"]}).dates == ("2026-01-01",)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"timezone": "Europe/Nowhere"}, '"Europe/Nowhere" is not a time zone'),
        ({"holidays": ["25.12.2026"]}, '"25.12.2026" is not a date; write "2026-12-25"'),
        ({"holidays": "missing.txt"}, '"missing.txt" cannot be read'),
        ({"use": "always"}, "is not offered"),
    ],
)
def test_a_bad_calendar_names_value_and_fix(settings: dict[str, object], expected: str) -> None:
    with pytest.raises(ValueError, match=expected.replace(".", r"\.")):
        CalendarConfig.model_validate(settings)
