"""Receipt: metrics that mean the same for every architecture, and the windows left out with their reasons."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from monitor.models.forecast import Forecast
from monitor.models.network import Network
from monitor.models.scaler import Scaler, SensorScale
from monitor.models.spec import TrainingSet
from monitor.training.loop import TrainingResult
from monitor.training.receipt import (
    MAX_SPELLS,
    data_receipt,
    reconstruction_metrics,
    recurring_faults,
    training_summary,
)
from monitor.training.split import Split
from monitor.training.tensors import WindowTensors

SENSORS = ("speed", "power")
SCALER = Scaler(tuple(SensorScale(name, "continuous", 0.0, 1.0) for name in SENSORS))
LENGTH = 16
HOUR_US = 3_600_000_000


class HalvingNetwork(Network):
    """Reconstructs half of each value, and does not score the first steps."""

    def __init__(self, n_unscored: int = 0) -> None:
        super().__init__()
        self.n_unscored = n_unscored

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        unscored = torch.full_like(x[..., : self.n_unscored], 1e3)
        return torch.cat([unscored, x[..., self.n_unscored :] / 2], -1)


def held_out(n: int = 400) -> WindowTensors:
    return WindowTensors(torch.randn(n, len(SENSORS), LENGTH, generator=torch.Generator().manual_seed(0)), None)


def test_explained_variance_is_relative() -> None:
    metrics = reconstruction_metrics(HalvingNetwork(), held_out(), SCALER)
    assert metrics["explained_variance"] == pytest.approx({"all": 0.75, "speed": 0.75, "power": 0.75}, abs=1e-3)
    assert metrics["held_out_error"]["mean"] == pytest.approx(0.25, rel=0.05)
    assert list(metrics["held_out_error"]) == ["mean", "p50", "p90", "p99"]


def test_unscored_steps_count_in_no_metric() -> None:
    metrics = reconstruction_metrics(HalvingNetwork(n_unscored=4), held_out(), SCALER)
    assert metrics["explained_variance"]["all"] == pytest.approx(0.75, abs=1e-3)
    assert metrics["held_out_error"]["mean"] == pytest.approx(0.25, rel=0.05)


def test_unscored_steps_explain_nothing() -> None:
    """Its first steps repeat the step before. On a slow wave that would explain nearly all the variance."""
    at = torch.linspace(0, 0.5, LENGTH) + 6.28 * torch.rand(400, 1, generator=torch.Generator().manual_seed(1))
    wave = WindowTensors(torch.stack([at.sin(), at.cos()], dim=1), None)         # (N, 2, 16)
    network = Forecast(len(SENSORS), LENGTH)
    for parameter in network.parameters():
        torch.nn.init.zeros_(parameter)                                     # predicts 0 in every scored step
    assert reconstruction_metrics(network, wave, SCALER)["explained_variance"]["all"] == pytest.approx(0.0, abs=0.01)


def test_missing_values_explain_nothing() -> None:
    whole = held_out()
    present = torch.ones_like(whole.x, dtype=torch.bool)
    present[:, 1, 8:] = False
    gappy = whole.x.clone()
    gappy[:, 1, 8:] = 100.0
    explained = reconstruction_metrics(HalvingNetwork(), WindowTensors(gappy, present), SCALER)["explained_variance"]
    assert explained["speed"] == pytest.approx(0.75, abs=1e-3)
    assert explained["power"] > 0.7


def test_a_constant_sensor_explains_nothing() -> None:
    still = held_out()
    still.x[:, 1] = 0.0
    explained = reconstruction_metrics(HalvingNetwork(), still, SCALER)["explained_variance"]
    assert explained["power"] is None
    assert explained["speed"] == pytest.approx(0.75, abs=1e-3)
    still.x[:] = 0.0
    assert reconstruction_metrics(HalvingNetwork(), still, SCALER)["explained_variance"]["all"] is None


def test_a_solved_model_says_so() -> None:
    assert training_summary(None) == {"stopped": "solved", "restarts": []}
    result = TrainingResult(HalvingNetwork(), 3, n_steps=50, best_step=40, restarts=["seed 2: loss nan"])
    summary = training_summary(result)
    assert (summary["n_steps"], summary["best_step"], summary["restarts"]) == (50, 40, ["seed 2: loss nan"])


def receipt(suspected: np.ndarray, hours: np.ndarray) -> dict[str, Any]:
    """Return the receipt of one asset: all windows are training windows, some of them suspected."""
    n = len(hours)
    windows = TrainingSet(np.zeros((n, 2, 1), np.float32), np.zeros(n, np.int32), hours * HOUR_US)
    rows, none = np.arange(n), np.empty(0, dtype=np.int64)
    return data_receipt(windows, 7, Split(rows, none, 5, 3, 2, rows), rows, none, suspected, np.zeros(0, dtype=bool))


def test_each_window_is_used_or_has_a_reason() -> None:
    suspected = np.arange(100) < 9
    entries = receipt(suspected, np.arange(100))
    assert entries["n_train"] == 100
    assert entries["n_overlapping"] == 3
    assert entries["left_out"] == {
        "too_many_gaps": 7, "labelled": 0, "alerted": 2, "reaches_into_held_out": 5, "thinned": 0,
        "suspected_fault_train": 9, "suspected_fault_held_out": 0,
    }
    assert (entries["from"], entries["to"]) == ("1970-01-01T00:00:00+00:00", "1970-01-05T03:00:00+00:00")


def test_faults_within_a_day_are_one_spell() -> None:
    hours = np.arange(0, 2400)
    suspected = np.isin(hours, [10, 100, 110, 134, 200])
    spells = receipt(suspected, hours)["suspected_faults"]
    assert spells == [
        {"asset": 0, "from": "1970-01-05T04:00:00+00:00", "to": "1970-01-06T14:00:00+00:00", "n_windows": 3},
        {"asset": 0, "from": "1970-01-01T10:00:00+00:00", "to": "1970-01-01T10:00:00+00:00", "n_windows": 1},
        {"asset": 0, "from": "1970-01-09T08:00:00+00:00", "to": "1970-01-09T08:00:00+00:00", "n_windows": 1},
    ]
    assert len(receipt(hours % 30 == 0, hours)["suspected_faults"]) == MAX_SPELLS


def test_faults_on_many_days_are_a_warning() -> None:
    hours = np.arange(24 * 10)
    windows = TrainingSet(
        np.zeros((len(hours), 2, 1), np.float32), np.zeros(len(hours), np.int32), hours * HOUR_US, assets=("R1",)
    )
    nightly = np.flatnonzero(np.isin(hours % 24, (2, 3)))
    [warning] = recurring_faults(windows, nightly)
    assert warning.startswith("suspected faults recur: 10 spells on 10 days, last 1970-01-08T02:00:00+00:00 on R1, ")
    assert "max_trim = 0" in warning
    assert recurring_faults(windows, np.arange(30, 200)) == []   # one long fault
    assert recurring_faults(windows, nightly[:4]) == []
