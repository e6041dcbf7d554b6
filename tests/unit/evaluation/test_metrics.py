"""The metrics against stored figures of reference implementations, and against the definitions computed here.

REFERENCE and PERIODS were printed by `tests/quality/reference.py` for the cases of `tests/quality/cases.py`. VUS-PR
(`opt`, 250 thresholds), range-based F1 and the period come from TSB-AD 1.5, AUC-PR and AUC-ROC from scikit-learn 1.9.
"""

from __future__ import annotations

import time

import numpy as np
import pytest

from monitor.evaluation import metrics
from tests.quality import metrics as oracle
from tests.quality.cases import case, wave

REFERENCE = {
    0: (0.5065938379, 0.4290135773, 0.7817037983, 0.0940525588),
    1: (0.9995730081, 0.9994462901, 0.9999559898, 0.1364705882),
    2: (0.1460835861, 0.2086606145, 0.6286766758, 0.0803408399),
    3: (0.4591461448, 0.4476840791, 0.8960063130, 0.0677411820),
    4: (0.3429956225, 0.0911564626, 0.5000000000, None),
    5: (0.7811118033, 1.0000000000, 1.0000000000, 0.0225352113),
    6: (0.9941705075, 0.9892541857, 0.9985686654, 0.2526881720),
    7: (1.0000000000, 1.0000000000, 1.0000000000, None),
    8: (0.9830031399, 0.9849546752, 0.9988706286, 0.0566233245),
    9: (0.8896408579, 0.7347420564, 0.7783783784, 0.1925133690),
    10: (0.5453823717, 0.4448209578, 0.8087334519, 0.1489028213),
    11: (0.9187514330, 0.9066468999, 0.9737464659, 0.4115437581),
    12: (0.3966981043, 0.3510482032, 0.6856633260, 0.1926500177),
    13: (0.2488041157, 0.0813622593, 0.5409202298, 0.0962076072),
    14: (0.3595461905, 0.0512820513, 0.5000000000, None),
    15: (0.7789136862, 0.8043478261, 0.9472450176, 0.0547945205),
    16: (0.9372360732, 0.8771312230, 0.9673338142, 0.3172961735),
    17: (1.0000000000, 1.0000000000, 1.0000000000, None),
    18: (0.4581167526, 0.6476988600, 0.9281250000, 0.0553122269),
    19: (0.5493584564, 0.3787203661, 0.6755905512, 0.3146593140),
    20: (0.6033098836, 0.5515864937, 0.8974327122, 0.1217553505),
    21: (0.7590719154, 0.7009473420, 0.9347350395, 0.1629629630),
    22: (0.2908106370, 0.2299381531, 0.6663474838, 0.1329898608),
    23: (0.9151625517, 0.8997003296, 0.9860824742, 0.1363636364),
    24: (0.1263136645, 0.0642722117, 0.5000000000, None),
    25: (0.9335317460, 1.0000000000, 1.0000000000, 0.0880121396),
    26: (0.9651936404, 0.9340882118, 0.9866482072, 0.2114740472),
    27: (1.0000000000, 1.0000000000, 1.0000000000, None),
    28: (0.8718911590, 0.8770792864, 0.9671061219, 0.1701245525),
    29: (0.6687622539, 0.6602951696, 0.8344100198, 0.3417934331),
}
"""Seed → VUS-PR, AUC-PR, AUC-ROC, range F1 of the upper fifth. None = all rows are found: TSB-AD has no answer."""

PERIODS = [
    10, 125, 126, 61, 194, 28, 125, 24, 55, 21, 32, 91, 100, 125, 173,
    118, 73, 125, 125, 181, 9, 125, 125, 107, 175, 7, 55, 10, 125, 108,
]  # fmt: skip


def upper_fifth(score: np.ndarray) -> np.ndarray:
    return (score >= np.quantile(score, 0.8)).astype(np.int64)


@pytest.mark.parametrize("seed", REFERENCE)
def test_the_metrics_equal_the_reference(seed: int) -> None:
    label, score, buffer = case(seed)
    vus_pr, auc_pr, auc_roc, range_f1 = REFERENCE[seed]
    assert metrics.vus_pr(label, score, buffer) == pytest.approx(vus_pr, abs=1e-9)
    assert metrics.auc_pr(label, score) == pytest.approx(auc_pr, abs=1e-9)
    assert metrics.auc_roc(label, score) == pytest.approx(auc_roc, abs=1e-9)
    if range_f1 is not None:
        assert metrics.range_f1(label, upper_fifth(score)).f1 == pytest.approx(range_f1, abs=1e-9)


def test_the_period_equals_the_reference() -> None:
    assert [metrics.period(wave(seed)) for seed in range(len(PERIODS))] == PERIODS


@pytest.mark.parametrize("seed", range(30, 60))
def test_the_metrics_equal_their_definitions(seed: int) -> None:
    label, score, buffer = case(seed)
    found = upper_fifth(score)
    assert metrics.vus_pr(label, score, buffer) == pytest.approx(oracle.vus_pr(label, score, buffer), abs=1e-12)
    assert metrics.auc_pr(label, score) == pytest.approx(oracle.auc_pr(label, score), abs=1e-12)
    assert metrics.auc_roc(label, score) == pytest.approx(oracle.auc_roc(label, score), abs=1e-12)
    assert metrics.range_f1(label, found).f1 == pytest.approx(oracle.range_f1(label, found), abs=1e-12)


def test_area_of_perfect_and_random_rankings() -> None:
    label = np.zeros(2000, dtype=np.int64)
    label[300:360] = label[900:1000] = 1
    random = np.random.default_rng(0).random(2000)
    assert metrics.auc_pr(label, label + 0.5 * random) == pytest.approx(1.0)
    assert metrics.auc_roc(label, label + 0.5 * random) == pytest.approx(1.0)
    assert metrics.vus_pr(label, label + 0.5 * random, 0) > 0.97
    assert metrics.auc_pr(label, random) == pytest.approx(0.08, abs=0.02)
    assert metrics.auc_roc(label, random) == pytest.approx(0.5, abs=0.04)


def test_only_the_order_of_scores_matters() -> None:
    label, score, buffer = case(12)
    assert metrics.vus_pr(label, np.exp(3 * score) - 7, buffer) == metrics.vus_pr(label, score, buffer)


def test_a_buffer_rewards_an_early_alarm() -> None:
    label = np.zeros(500, dtype=np.int64)
    label[200:220] = 1
    early = np.zeros(500)
    early[195:200] = 1.0
    assert metrics.vus_pr(label, early, 30) > 2 * metrics.vus_pr(label, early, 0)


def test_range_f1_rewards_unbroken_coverage() -> None:
    label = np.zeros(100, dtype=np.int64)
    label[40:60] = 1
    whole, point, pieces = (np.zeros(100, dtype=np.int64) for _ in range(3))
    whole[40:60] = point[50] = pieces[40:50] = pieces[52:60] = 1
    assert metrics.range_f1(label, whole) == (1.0, 1.0, 1.0)
    # One row of twenty: a fifth for touching the event, and a twentieth of the rest. Point adjustment would give 1.
    assert metrics.range_f1(label, point).recall == pytest.approx(0.2 + 0.8 / 20)
    assert metrics.range_f1(label, pieces).recall == pytest.approx(0.2 + 0.8 * 0.9 / 2)
    assert metrics.range_f1(label, np.zeros_like(label)) == (0.0, 0.0, 0.0)


def test_without_a_period_it_is_the_default() -> None:
    assert metrics.period(np.full(1000, 3.0, np.float32)) == metrics.NO_PERIOD
    assert metrics.period(np.full(1000, np.nan, np.float32)) == metrics.NO_PERIOD
    assert metrics.period(np.array([1.0], np.float32)) == metrics.NO_PERIOD
    sine = np.sin(2 * np.pi * np.arange(30_000) / 48).astype(np.float32)
    sine[100:103] = np.nan
    assert metrics.period(sine) == 48


def test_nan_takes_the_value_before_it() -> None:
    nan = np.nan
    values = np.array([[nan, nan], [1, nan], [nan, nan], [2, nan]], np.float32)
    assert metrics.forward_filled(values).tolist() == [[1, 0], [1, 0], [1, 0], [2, 0]]


def test_120_000_rows_take_under_five_seconds() -> None:
    random = np.random.default_rng(0)
    label = (random.random(120_000) < 0.3).astype(np.int64)  # the worst case: tens of thousands of events
    score = random.random(120_000)
    began = time.process_time()
    metrics.vus_pr(label, score, 300)
    assert time.process_time() - began < 5
