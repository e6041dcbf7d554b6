"""Detection on labelled recordings: VUS-PR of the PCA and the networks, not below the floors here.

A floor is the figure measured when it was written, less a margin for another machine's arithmetic. Raise it after an
improvement. Labels are used for the figures alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from monitor.budget import Budget
from monitor.models.spec import FleetSpec, ModelSpec, TrainingSet
from monitor.training.fit import fit
from tests.quality.metrics import auc_pr, softened, vus_pr
from tests.quality.recordings import load

if TYPE_CHECKING:
    from pathlib import Path

LENGTH = 64
BUFFER = 20

RECORDINGS = {
    "skab/valve1_10": {"pca": 0.93, "conv": 0.93, "auto": 0.96},
    "skab/valve2_1": {"pca": 0.87, "conv": 0.87, "auto": 0.87},
    "tep/fault07": {"pca": 0.97, "conv": 0.97, "auto": 0.97},
    # .28 for pca and conv with one slow time scale: the newest step, noisy in one sensor, now has half the weight.
    "nab/TravelTime_451": {"pca": 0.21, "conv": 0.22, "auto": 0.32},
}
"""Set and series → the least VUS-PR of each architecture. Small ones, so that all of them take about a minute."""


@pytest.mark.parametrize("name", RECORDINGS)
def test_detection_stays_above_its_floor(name: str, data_dir: Path) -> None:
    recording = load(data_dir, name)
    windows = np.lib.stride_tricks.sliding_window_view(recording.values, LENGTH, axis=0).transpose(0, 2, 1)
    n_train = recording.train_rows - LENGTH + 1
    end_us = ((np.arange(n_train) + LENGTH) * recording.interval_s * 1e6).astype(np.int64)
    train = TrainingSet(windows[:n_train], np.zeros(n_train, np.int32), end_us)
    label = recording.label[recording.train_rows :]

    reached = {}
    for architecture in ("pca", "conv", "auto"):
        spec = ModelSpec(architecture, max_steps=300, max_train_s=600)
        budget = Budget(alarms_per_week=1.0, confirm=3, among=5, recover=6, step_s=recording.interval_s)
        detector = fit(train, spec, FleetSpec(name, recording.sensors, recording.interval_s, budget))
        # A window's score belongs to its last row.
        score = detector.score(np.ascontiguousarray(windows[n_train:])).score.astype(np.float64)
        reached[architecture] = vus_pr(label, score, BUFFER)
        print(f"{name:24} {architecture:5} VUS-PR {reached[architecture]:.3f}  AUC-PR {auc_pr(label, score):.3f}")
    for architecture, floor in RECORDINGS[name].items():
        assert reached[architecture] >= floor, (architecture, reached)


def test_perfect_and_random_scores() -> None:
    label = np.zeros(2000, dtype=np.int64)
    label[300:360] = label[900:1000] = 1
    random = np.random.default_rng(0).random(2000)
    assert auc_pr(label, label + 0.5 * random) == pytest.approx(1.0)
    assert vus_pr(label, label + 0.5 * random, 0) > 0.97
    assert auc_pr(label, random) == pytest.approx(0.08, abs=0.02)
    assert vus_pr(label, random, 20) == pytest.approx(0.09, abs=0.03)
    assert auc_pr(label, np.zeros(2000)) == pytest.approx(0.08)


def test_early_alarms_count_with_a_buffer() -> None:
    label = np.zeros(500, dtype=np.int64)
    label[200:220] = 1
    early = np.zeros(500)
    early[195:200] = 1.0
    assert vus_pr(label, early, 30) > 2 * vus_pr(label, early, 0)
    assert softened(label, 10)[[194, 195, 199, 200, 219, 220, 225]].round(2).tolist() == [
        0.0, 0.71, 0.95, 1.0, 1.0, 0.95, 0.0,
    ]
