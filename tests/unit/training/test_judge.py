"""Alerts by which an accepted time goes on do not speak against the version that learnt it."""

from __future__ import annotations

from monitor.training.judge import without_continued
from monitor.types import JudgedTime

SPAN_US = 100
ACCEPTED = JudgedTime(1_000, 2_000, "accepted", "label", 1)


def test_an_alert_that_goes_on_after_an_acceptance_is_left_out() -> None:
    before, rest = JudgedTime(900, 1_000, "open", "alert", 7), JudgedTime(2_000, 9_000, "open", "alert", 7, 900)
    assert without_continued({"pump": [before, ACCEPTED, rest]}, SPAN_US) == {"pump": [before, ACCEPTED]}


def test_alerts_that_follow_each_other_closely_go_on_too() -> None:
    near, next_one = JudgedTime(2_150, 2_300, "unlabelled"), JudgedTime(2_480, 2_600, "open")
    assert without_continued({"pump": [ACCEPTED, near, next_one]}, SPAN_US) == {"pump": [ACCEPTED]}


def test_a_later_alert_and_a_labelled_one_stay() -> None:
    later, fault = JudgedTime(2_300, 2_400, "unlabelled"), JudgedTime(2_050, 2_100, "fault", "alert", 9)
    times = {"pump": [ACCEPTED, fault, later], "fan": [later]}
    assert without_continued(times, SPAN_US) == times
