"""The test for drift: seldom without drift, soon with it, and not for one faulty machine of several."""

from __future__ import annotations

from datetime import timedelta

import numpy as np
import pytest

from monitor.config.values import Rate
from monitor.lifecycle.drift import DAY_US, HOUR_US, HourlyScores, bound, detector, find_drift, hourly

RATE = Rate(1, timedelta(days=90))
N_BEFORE, N_SINCE = 20, 20


def scores(seed: int, days: range, n_assets: int = 1, shift: float = 0.0, n_shifted: int | None = None) -> HourlyScores:
    """Hourly maxima with a level of each day. The first `n_shifted` assets are shifted, None = all."""
    draw = np.random.default_rng([seed, days.start])
    level = draw.standard_normal((n_assets, len(days)))
    level[:n_shifted] += shift
    hours = np.array([day * DAY_US + hour * HOUR_US for day in days for hour in range(24)])
    names = np.repeat([f"R{n}" for n in range(n_assets)], len(hours))
    noise = draw.standard_normal((n_assets, len(hours)))
    return HourlyScores(np.tile(hours, n_assets), names, np.exp(np.repeat(level, 24, axis=1) + 0.2 * noise).ravel())


BEFORE, SINCE = range(N_BEFORE), range(N_BEFORE, N_BEFORE + N_SINCE)


@pytest.mark.parametrize("n_before", [8, 20])
def test_exchangeable_days_trigger_less_often_than_stated(n_before: int) -> None:
    draw = np.random.default_rng(n_before)
    n_triggers = n_days = 0
    for _ in range(200):
        values = detector(draw.standard_normal(n_before), draw.standard_normal(90))
        reached = np.flatnonzero(values >= bound(RATE))
        n_triggers += len(reached) > 0
        n_days += reached[0] + 1 if len(reached) else 90
    assert n_days > 10_000
    assert n_triggers / n_days <= 1 / 90


def test_a_lasting_rise_of_all_assets_is_a_change_of_regime() -> None:
    found = find_drift(scores(1, BEFORE, 5), scores(1, SINCE, 5, shift=4), RATE)
    assert found is not None
    assert found.reached_on is not None
    assert found.reached_on // DAY_US - N_BEFORE < 5
    assert found.is_regime
    assert found.to_json()["reason"] == "regime"


def test_one_faulty_machine_of_several_is_no_drift() -> None:
    found = find_drift(scores(2, BEFORE, 5), scores(2, SINCE, 5, shift=8, n_shifted=1), RATE)
    assert found is not None
    assert found.reached_on is None
    assert not found.is_regime


def test_lower_scores_are_no_drift() -> None:
    found = find_drift(scores(3, BEFORE), scores(3, SINCE, shift=-6), RATE)
    assert found is not None
    assert found.value < 0.1


def test_a_rarer_trigger_needs_more_evidence() -> None:
    often, seldom = (find_drift(scores(4, BEFORE), scores(4, SINCE, shift=2), Rate(1, timedelta(days=days)))
                     for days in (10, 1000))  # fmt: skip
    assert often is not None
    assert seldom is not None
    assert often.value == pytest.approx(100 * seldom.value)


def test_days_with_few_hours_and_short_references_do_not_count() -> None:
    assert find_drift(scores(5, range(5)), scores(5, SINCE), RATE) is None
    half = scores(5, SINCE)
    early = half.hour_us % DAY_US < 8 * HOUR_US
    assert find_drift(scores(5, BEFORE), HourlyScores(*(column[early] for column in half)), RATE) is None


def test_hours_keep_their_highest_score_and_ignore_unscored_windows() -> None:
    end_us = np.array([0, 1, 2, HOUR_US, 5, 6])
    found = hourly(end_us, np.array(["a", "a", "a", "a", "b", "b"]), np.array([1.0, 3.0, np.nan, 2.0, np.nan, np.nan]))
    rows = sorted(zip(found.asset.tolist(), found.hour_us.tolist(), found.score.tolist(), strict=True))
    assert rows[:2] == [("a", 0, 3.0), ("a", HOUR_US, 2.0)]
    assert np.isnan(rows[2][2])
