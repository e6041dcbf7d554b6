"""The threshold that learns from labels: its guarantee, its bounds, and what removing a label does."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from monitor.models.label_factor import HIGHEST, LOWEST, STEP, TARGET, learnt_factor
from monitor.types import JudgedAlert

LEVELS = st.floats(0.5, 20, allow_nan=False)
ALERTS = st.lists(st.builds(JudgedAlert, st.booleans(), LEVELS), max_size=60)


def normal(level: float, n: int = 1) -> list[JudgedAlert]:
    return [JudgedAlert(False, level)] * n


def fault(level: float, n: int = 1) -> list[JudgedAlert]:
    return [JudgedAlert(True, level)] * n


def test_without_labels_the_calibrated_threshold_stays() -> None:
    assert learnt_factor([]) == 1.0


def test_a_label_normal_raises_and_a_fault_lowers() -> None:
    assert learnt_factor(normal(9.0)) == pytest.approx(1.0725, abs=0.001)
    assert learnt_factor(fault(9.0)) == pytest.approx(0.971, abs=0.0005)
    assert learnt_factor(normal(9.0, 10)) == pytest.approx(2.02, abs=0.01)


def test_an_alert_that_stays_shut_teaches_nothing() -> None:
    """Ten weak false alarms raise the threshold just above them, and no further."""
    assert 1.2 < learnt_factor(normal(1.2, 10)) < 1.2 * math.exp(STEP)
    assert learnt_factor(normal(1.2, 100)) == learnt_factor(normal(1.2, 10))


@given(ALERTS)
def test_every_labelled_fault_still_opens(judged: list[JudgedAlert]) -> None:
    factor = learnt_factor(judged)
    assert LOWEST <= factor <= HIGHEST
    assert all(factor <= alert.level for alert in judged if alert.is_fault)


@given(st.lists(st.builds(JudgedAlert, st.booleans(), st.floats(4, 20)), min_size=1, max_size=80))
def test_the_share_of_normal_keeps_its_guarantee(judged: list[JudgedAlert]) -> None:
    """Whatever the labels are, as long as the factor stays below its bound: no assumption about the data."""
    factors = [learnt_factor(judged[:n]) for n in range(len(judged) + 1)]
    n = next((n for n, factor in enumerate(factors) if factor >= HIGHEST), len(judged))
    share = sum(not alert.is_fault for alert in judged[:n]) / n
    assert share <= TARGET + math.log(HIGHEST) / (STEP * n) + 1e-9


@pytest.mark.parametrize("seed", range(5))
def test_simulated_false_alarms_fall_to_the_target(seed: int) -> None:
    """Levels of false alarms and of faults are drawn. Only alerts that open are judged, as in life.

    200 false candidates with a lighter tail, 40 faults: at the calibrated threshold 83 % of the alerts are false.
    """
    draw = np.random.default_rng(seed)
    is_fault = draw.permutation(np.arange(240) < 40)
    level = np.where(is_fault, 3.0, 1.0) * np.exp(draw.exponential(0.25, 240))
    judged: list[JudgedAlert] = []
    for fault_now, each in zip(is_fault.tolist(), level.tolist(), strict=True):
        if each >= learnt_factor(judged):
            judged.append(JudgedAlert(fault_now, each))
    late = judged[len(judged) // 2 :]
    assert sum(alert.is_fault for alert in judged) == 40
    assert np.mean([not alert.is_fault for alert in late]) < 0.5
    assert np.mean([not alert.is_fault for alert in judged]) <= TARGET + math.log(HIGHEST) / (STEP * len(judged))
