"""The next training of a fleet, by a clock that the tests set."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from monitor.config.retrain import RetrainConfig
from monitor.lifecycle.due import DriftFound, Due, TrainingFacts, next_training
from monitor.timing import DEFAULT_TIMING
from monitor.types import JobView

NOW = datetime(2026, 3, 10, 12, 0, tzinfo=UTC)
HOUR, DAY = timedelta(hours=1), timedelta(days=1)
DAILY, NEVER = RetrainConfig(), RetrainConfig(every="never")
FACTS = TrainingFacts(now=NOW, has_champion=True, champion_trained_at=NOW - HOUR)


def job(state: str, ended: datetime, reason: str = "schedule") -> JobView:
    return JobView(1, "pumps", state, 1.0, "12 usable windows", ended, ended, ended, reason=reason)


def due(retrain: RetrainConfig, **facts: Any) -> Due | None:
    return next_training(retrain, replace(FACTS, **facts), DEFAULT_TIMING)


def due_at(retrain: RetrainConfig, **facts: Any) -> datetime:
    found = due(retrain, **facts)
    assert found is not None
    return found.at


def test_a_fleet_without_a_model_trains_at_once() -> None:
    found = due(NEVER, has_champion=False)
    assert found is not None
    assert (found.at, found.reason) == (NOW, "first")


def test_a_period_begins_at_the_end_of_the_last_training() -> None:
    assert due_at(DAILY) == NOW - HOUR + DAY
    ended = [job("done", NOW - timedelta(minutes=5))]
    assert due_at(DAILY, champion_trained_at=NOW - 9 * DAY, ended=ended) == NOW - timedelta(minutes=5) + DAY
    assert due(NEVER, champion_trained_at=NOW - 9 * DAY) is None


def test_a_rejected_challenger_waits_for_a_whole_period() -> None:
    """The champion is old, and the training that ended made no new one."""
    ended = [job("done", NOW - HOUR), job("done", NOW - HOUR - DAY)]
    assert due_at(DAILY, champion_trained_at=NOW - 30 * DAY, ended=ended) == NOW - HOUR + DAY


def test_cron_takes_the_next_time_after_the_last_training() -> None:
    nightly = RetrainConfig(cron="0 3 * * *", timezone="Europe/Berlin")
    ended = [job("done", datetime(2026, 3, 10, 1, 59, tzinfo=UTC))]
    assert due_at(nightly, ended=ended, champion_trained_at=None) == datetime(2026, 3, 10, 2, 0, tzinfo=UTC)
    ended = [job("done", datetime(2026, 3, 10, 2, 20, tzinfo=UTC))]
    assert due_at(nightly, ended=ended, champion_trained_at=None) == datetime(2026, 3, 11, 2, 0, tzinfo=UTC)


def test_cron_in_summer_time_keeps_the_time_on_the_wall() -> None:
    nightly = RetrainConfig(cron="0 4 * * *", timezone="Europe/Berlin")
    before = datetime(2026, 3, 28, 12, 0, tzinfo=UTC)  # the clocks change in the night after
    assert due_at(nightly, champion_trained_at=before) == datetime(2026, 3, 29, 2, 0, tzinfo=UTC)


def test_a_schedule_that_was_missed_comes_once() -> None:
    weekly = RetrainConfig(cron="0 3 * * sun")
    assert due_at(weekly, champion_trained_at=NOW - 60 * DAY) < NOW
    assert due_at(weekly, champion_trained_at=NOW) == datetime(2026, 3, 15, 3, 0, tzinfo=UTC)


@pytest.mark.parametrize(("n_failures", "pause_s"), [(1, 60), (2, 120), (4, 480), (7, 3600), (20, 3600)])
def test_failures_double_the_pause_up_to_an_hour(n_failures: int, pause_s: int) -> None:
    ended = [job("failed", NOW - n * timedelta(seconds=1), "operator") for n in range(n_failures)]
    found = due(NEVER, ended=ended)
    assert found is not None
    assert found.at == NOW + timedelta(seconds=pause_s)
    assert found.reason == "operator"
    assert f"attempt {n_failures + 1} after: 12 usable windows" in found.why


def test_a_success_ends_the_retries() -> None:
    assert due(NEVER, ended=[job("done", NOW), job("failed", NOW - HOUR / 60)]) is None


def test_failures_before_the_champion_was_trained_are_over() -> None:
    assert due(NEVER, ended=[job("failed", NOW - 2 * HOUR)]) is None


def test_other_sensors_are_learnt_at_once() -> None:
    found = due(NEVER, has_other_sensors=True)
    assert found is not None
    assert (found.at, found.reason) == (NOW, "sensors")


def test_drift_comes_before_the_schedule() -> None:
    found = due(DAILY, drift=DriftFound(NOW, "regime", "all assets moved"))
    assert found is not None
    assert (found.at, found.reason, found.why) == (NOW, "regime", "all assets moved")


def test_drift_of_a_champion_that_stays_doubles_its_pause() -> None:
    """A challenger that was rejected would be rejected again."""
    pauses = []
    for n in range(1, 8):
        ended = [job("done", NOW - k * timedelta(minutes=1), "drift") for k in range(n)]
        at = due_at(NEVER, champion_trained_at=NOW - 90 * DAY, ended=ended, drift=DriftFound(NOW, "drift", ""))
        pauses.append((at - NOW) / DAY)
    assert pauses == [1, 2, 4, 8, 16, 16, 16]


def test_a_schedule_waits_for_the_decision_on_a_shadow() -> None:
    late = NOW + 3 * DAY
    assert due_at(DAILY, shadow_until=late) == late
    assert due_at(DAILY, shadow_until=NOW) == NOW - HOUR + DAY
