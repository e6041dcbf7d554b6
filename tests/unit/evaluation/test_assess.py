from __future__ import annotations

import numpy as np
import pytest

from monitor.evaluation.assess import assess_alerts, assess_ranking
from monitor.stream.alerting import AlertPolicy
from tests import labelled_recording as sample

POLICY = AlertPolicy(confirm=3, among=5, recover=6)
WEEK_ROWS = 7 * 24 * 60
FIRST = [first - sample.N_TRAIN for first, _ in sample.EVENTS]


def quiet() -> np.ndarray:
    return np.full(sample.N_ROWS - sample.N_TRAIN, 0.5, np.float32)


def test_the_delay_ends_when_an_alert_fires() -> None:
    score = quiet()
    score[FIRST[0] + 10 : FIRST[0] + 30] = 2.0
    found, timeline = assess_alerts(sample.series(), score, POLICY)
    assert (found.alerts, found.events, found.events_found, found.false_alarms) == (1, 2, 1, 0)
    # The third anomalous row confirms the alert, and its window ends one row later.
    assert found.delay_s == (10 + 3) * 60
    [alert] = timeline.alerts
    # The alert opens at the first anomalous row and is closed by the sixth normal one.
    assert (alert.first, alert.end, alert.is_matched) == (FIRST[0] + 10, FIRST[0] + 30 + 6, True)
    assert [event.is_matched for event in timeline.events] == [True, False]


def test_false_alarms_are_per_normal_week() -> None:
    score = quiet()
    score[20:40] = 2.0
    score[:10] = np.nan
    found, timeline = assess_alerts(sample.series(), score, POLICY)
    assert (found.alerts, found.false_alarms, found.events_found, found.delay_s) == (1, 1, 0, None)
    n_normal = sample.N_ROWS - sample.N_TRAIN - 110 - 10
    assert found.weeks == pytest.approx(n_normal / WEEK_ROWS)
    assert found.alarmed_share == pytest.approx(26 / n_normal)  # six normal rows close the alert
    assert found.false_alarms_per_week == pytest.approx(WEEK_ROWS / n_normal)
    assert [alert.is_matched for alert in timeline.alerts] == [False]


def test_two_anomalous_rows_raise_no_alert() -> None:
    score = quiet()
    score[[FIRST[0], FIRST[0] + 1]] = 2.0
    assert assess_alerts(sample.series(), score, POLICY)[0].alerts == 0
    assert assess_alerts(sample.series(), score, AlertPolicy(2, 5, 6))[0].events_found == 1


def test_an_open_alert_ends_with_the_recording() -> None:
    score = quiet()
    score[-3:] = 2.0
    _, timeline = assess_alerts(sample.series(), score, POLICY)
    assert [(alert.first, alert.end) for alert in timeline.alerts] == [(len(score) - 3, len(score))]


def test_without_labels_events_are_unknown() -> None:
    score = quiet()
    score[20:40] = 2.0
    one = sample.series(labelled=False)
    found, _ = assess_alerts(one, score, POLICY)
    assert (found.alerts, found.events, found.false_alarms, found.false_alarms_per_week) == (1, None, None, None)
    assert assess_ranking(one, score).vus_pr is None


def test_no_event_means_no_ranking() -> None:
    score = quiet()
    score[20:40] = 2.0
    one = sample.series()
    assert one.label is not None
    one.label[:] = 0
    assert (assess_ranking(one, score).vus_pr, assess_ranking(one, score).auc_pr) == (None, None)
    assert assess_alerts(one, score, POLICY)[0].false_alarms == 1


def test_an_unscored_row_ranks_lowest() -> None:
    one, score = sample.series(), quiet()
    perfect = np.where(one.test_labels, 2.0, 0.5).astype(np.float32)
    assert assess_ranking(one, perfect).auc_pr == 1.0
    assert assess_ranking(one, perfect).range_f1 == 1.0
    perfect[FIRST[0]] = np.nan
    missing = assess_ranking(one, perfect)
    assert missing.unscored == 1
    assert missing.auc_pr is not None
    assert missing.auc_pr < 1.0
    assert assess_ranking(one, score).rows == len(score)
