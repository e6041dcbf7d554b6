from __future__ import annotations

import numpy as np
import pytest

from monitor.evaluation.assess import alarms, figures
from monitor.stream.alerting import AlertPolicy
from tests.unit.evaluation import made

POLICY = AlertPolicy(confirm=3, among=5, recover=6)
WEEK_ROWS = 7 * 24 * 60
FIRST = [first - made.TRAIN for first, _ in made.EVENTS]


def quiet() -> np.ndarray:
    return np.full(made.N - made.TRAIN, 0.5, np.float32)


def test_alerts_are_those_of_the_river_and_the_delay_is_until_one_fired() -> None:
    score = quiet()
    score[FIRST[0] + 10 : FIRST[0] + 30] = 2.0
    found, course = alarms(made.series(), score, POLICY)
    assert (found.alerts, found.events, found.events_found, found.false_alarms) == (1, 2, 1, 0)
    # The third anomalous row confirms, and its window has ended a row later.
    assert found.delay_s == (10 + 3) * 60
    [alert] = course.alerts
    # Dated back to the first anomalous row; closed by the sixth normal one.
    assert (alert.first, alert.beyond, alert.is_met) == (FIRST[0] + 10, FIRST[0] + 30 + 6, True)
    assert [event.is_met for event in course.events] == [True, False]


def test_a_false_alarm_is_one_that_meets_no_event_per_week_of_scored_normal_time() -> None:
    score = quiet()
    score[20:40] = 2.0
    score[:10] = np.nan
    found, course = alarms(made.series(), score, POLICY)
    assert (found.alerts, found.false_alarms, found.events_found, found.delay_s) == (1, 1, 0, None)
    n_normal = made.N - made.TRAIN - 110 - 10
    assert found.weeks == pytest.approx(n_normal / WEEK_ROWS)
    assert found.alarmed_share == pytest.approx(26 / n_normal)  # six normal rows close it
    assert found.false_alarms_per_week == pytest.approx(WEEK_ROWS / n_normal)
    assert [alert.is_met for alert in course.alerts] == [False]


def test_two_anomalous_rows_are_no_alert() -> None:
    score = quiet()
    score[[FIRST[0], FIRST[0] + 1]] = 2.0
    assert alarms(made.series(), score, POLICY)[0].alerts == 0
    assert alarms(made.series(), score, AlertPolicy(2, 5, 6))[0].events_found == 1


def test_an_alert_that_is_still_open_ends_with_the_recording() -> None:
    score = quiet()
    score[-3:] = 2.0
    _, course = alarms(made.series(), score, POLICY)
    assert [(alert.first, alert.beyond) for alert in course.alerts] == [(len(score) - 3, len(score))]


def test_a_recording_without_labels_has_alerts_and_nothing_to_hold_them_against() -> None:
    score = quiet()
    score[20:40] = 2.0
    one = made.series(labelled=False)
    found, _ = alarms(one, score, POLICY)
    assert (found.alerts, found.events, found.false_alarms, found.false_alarms_per_week) == (1, None, None, None)
    assert figures(one, score).vus_pr is None


def test_a_recording_without_an_event_has_false_alarms_and_no_ranking() -> None:
    score = quiet()
    score[20:40] = 2.0
    one = made.series()
    assert one.label is not None
    one.label[:] = 0
    assert (figures(one, score).vus_pr, figures(one, score).auc_pr) == (None, None)
    assert alarms(one, score, POLICY)[0].false_alarms == 1


def test_an_unscored_row_ranks_lowest_and_is_counted() -> None:
    one, score = made.series(), quiet()
    perfect = np.where(one.rest, 2.0, 0.5).astype(np.float32)
    assert figures(one, perfect).auc_pr == 1.0
    assert figures(one, perfect).range_f1 == 1.0
    perfect[FIRST[0]] = np.nan
    missing = figures(one, perfect)
    assert missing.unscored == 1
    assert missing.auc_pr is not None
    assert missing.auc_pr < 1.0
    assert figures(one, score).rows == len(score)
