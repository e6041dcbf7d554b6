"""What a training leaves in the card: figures that mean the same for every architecture, and what was left out."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from monitor.models.forecast import Forecast
from monitor.models.network import Network
from monitor.models.scaler import Scaler, SensorScale
from monitor.models.spec import TrainingSet
from monitor.training.loop import Learnt, Tensors
from monitor.training.receipt import MAX_SPELLS, course_of, figures_of, receipt_of, recurring
from monitor.training.split import Split

SENSORS = ("speed", "power")
SCALER = Scaler(tuple(SensorScale(name, "continuous", 0.0, 1.0) for name in SENSORS))
LENGTH = 16
HOUR_US = 3_600_000_000


class Half(Network):
    """Rebuilds half of everything, but for the first cells, of which it has no opinion."""

    def __init__(self, n_unscored: int = 0) -> None:
        super().__init__()
        self.n_unscored = n_unscored

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        wild = torch.full_like(x[..., : self.n_unscored], 1e3)
        return torch.cat([wild, x[..., self.n_unscored :] / 2], -1)


def held_out(n: int = 400) -> Tensors:
    return Tensors(torch.randn(n, len(SENSORS), LENGTH, generator=torch.Generator().manual_seed(0)), None)


def test_explained_variance_is_what_is_not_left_of_it() -> None:
    figures = figures_of(Half(), held_out(), SCALER)
    assert figures["explained_variance"] == pytest.approx({"all": 0.75, "speed": 0.75, "power": 0.75}, abs=1e-3)
    assert figures["held_out_error"]["mean"] == pytest.approx(0.25, rel=0.05)
    assert list(figures["held_out_error"]) == ["mean", "p50", "p90", "p99"]


def test_cells_a_network_has_no_opinion_about_count_in_no_figure() -> None:
    figures = figures_of(Half(n_unscored=4), held_out(), SCALER)
    assert figures["explained_variance"]["all"] == pytest.approx(0.75, abs=1e-3)
    assert figures["held_out_error"]["mean"] == pytest.approx(0.25, rel=0.05)


def test_a_forecaster_is_not_credited_with_the_cells_it_repeats() -> None:
    """Its first cells repeat the one before: on a slow wave that explains nearly all, and none of it is its merit."""
    at = torch.linspace(0, 0.5, LENGTH) + 6.28 * torch.rand(400, 1, generator=torch.Generator().manual_seed(1))
    wave = Tensors(torch.stack([at.sin(), at.cos()], dim=1), None)         # (N, 2, 16)
    network = Forecast(len(SENSORS), LENGTH)
    for parameter in network.parameters():
        torch.nn.init.zeros_(parameter)                                     # expects 0, wherever it has a say
    assert figures_of(network, wave, SCALER)["explained_variance"]["all"] == pytest.approx(0.0, abs=0.01)


def test_missing_cells_count_in_no_explained_variance() -> None:
    whole = held_out()
    present = torch.ones_like(whole.x, dtype=torch.bool)
    present[:, 1, 8:] = False
    wild = whole.x.clone()
    wild[:, 1, 8:] = 100.0
    explained = figures_of(Half(), Tensors(wild, present), SCALER)["explained_variance"]
    assert explained["speed"] == pytest.approx(0.75, abs=1e-3)
    assert explained["power"] > 0.7


def test_a_sensor_that_stood_still_has_nothing_to_explain() -> None:
    still = held_out()
    still.x[:, 1] = 0.0
    explained = figures_of(Half(), still, SCALER)["explained_variance"]
    assert explained["power"] is None
    assert explained["speed"] == pytest.approx(0.75, abs=1e-3)
    still.x[:] = 0.0
    assert figures_of(Half(), still, SCALER)["explained_variance"]["all"] is None


def test_how_learning_went_is_told_and_what_was_solved_says_so() -> None:
    assert course_of(None) == {"stopped": "solved", "restarts": []}
    course = course_of(Learnt(Half(), 3, n_steps=50, best_step=40, restarts=["seed 2: loss nan"]))
    assert (course["n_steps"], course["best_step"], course["restarts"]) == (50, 40, ["seed 2: loss nan"])


def receipt(suspected: np.ndarray, hours: np.ndarray) -> dict[str, Any]:
    """Of one asset; all windows are learnt from, and so many are suspected."""
    n = len(hours)
    train = TrainingSet(np.zeros((n, 2, 1), np.float32), np.zeros(n, np.int32), hours * HOUR_US)
    rows, none = np.arange(n), np.empty(0, dtype=np.int64)
    return receipt_of(train, 7, Split(rows, none, 5, 3, 2), rows, none, suspected, np.zeros(0, dtype=bool))


def test_every_window_is_used_or_left_out_with_a_reason() -> None:
    suspected = np.arange(100) < 9
    told = receipt(suspected, np.arange(100))
    assert told["n_train"] == 100
    assert told["n_overlapping"] == 3
    assert told["left_out"] == {
        "too_many_gaps": 7, "labelled": 0, "alerted": 2, "reaches_into_held_out": 5, "thinned": 0,
        "suspected_fault_train": 9, "suspected_fault_held_out": 0,
    }
    assert (told["from"], told["to"]) == ("1970-01-01T00:00:00+00:00", "1970-01-05T03:00:00+00:00")


def test_suspected_windows_within_a_day_are_one_spell_and_the_longest_comes_first() -> None:
    hours = np.arange(0, 2400)
    suspected = np.isin(hours, [10, 100, 110, 134, 200])
    spells = receipt(suspected, hours)["suspected_faults"]
    assert spells == [
        {"asset": 0, "from": "1970-01-05T04:00:00+00:00", "to": "1970-01-06T14:00:00+00:00", "n_windows": 3},
        {"asset": 0, "from": "1970-01-01T10:00:00+00:00", "to": "1970-01-01T10:00:00+00:00", "n_windows": 1},
        {"asset": 0, "from": "1970-01-09T08:00:00+00:00", "to": "1970-01-09T08:00:00+00:00", "n_windows": 1},
    ]
    assert len(receipt(hours % 30 == 0, hours)["suspected_faults"]) == MAX_SPELLS


def test_suspected_faults_of_many_days_may_be_a_habit_and_are_told_with_their_times() -> None:
    hours = np.arange(24 * 10)
    train = TrainingSet(
        np.zeros((len(hours), 2, 1), np.float32), np.zeros(len(hours), np.int32), hours * HOUR_US, assets=("R1",)
    )
    nightly = np.flatnonzero(np.isin(hours % 24, (2, 3)))
    [told] = recurring(train, nightly)
    assert told.startswith("suspected faults recur: 10 spells on 10 days, last 1970-01-08T02:00:00+00:00 on R1, ")
    assert "max_trim = 0" in told
    assert recurring(train, np.arange(30, 200)) == []   # one long fault
    assert recurring(train, nightly[:4]) == []
