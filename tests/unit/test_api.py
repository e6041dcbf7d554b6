"""The library: scores per row, alerts, explanations, saving, and the conventions of PyOD and scikit-learn."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import polars as pl
import pytest

import monitor
from monitor import Detector
from monitor.errors import BadArgument, NotEnoughData, NotFound
from monitor.types import Severity
from tests import labelled_recording

if TYPE_CHECKING:
    from pathlib import Path

WINDOW = 16
N_TRAIN = labelled_recording.N_TRAIN
FIRST, END = labelled_recording.EVENTS[0]
VALUES = labelled_recording.values()
SENSORS = ["flow", "pressure"]
START = datetime(2026, 1, 1, tzinfo=UTC)
ARGUMENTS: dict[str, Any] = {"window": WINDOW, "architecture": "pca", "device": "cpu"}


def frame(values: np.ndarray = VALUES) -> pd.DataFrame:
    """Return the readings with an index of times."""
    index = pd.date_range(START, periods=len(values), freq="1min", name="at")
    return pd.DataFrame(values, columns=SENSORS, index=index)


@pytest.fixture(scope="module")
def fitted() -> Detector:
    return Detector(**ARGUMENTS).fit(frame()[:N_TRAIN])


def test_scores_belong_to_their_rows(fitted: Detector) -> None:
    score = fitted.score(frame())
    assert score.shape == (len(VALUES),)
    assert score.dtype == np.float32
    assert np.isnan(score[: WINDOW - 1 - WINDOW // 8]).all()
    assert np.isfinite(score[WINDOW - 1 :]).all()
    assert score[FIRST - 1] < 1
    assert score[FIRST + 1] > 1
    np.testing.assert_array_equal(fitted.decision_function(frame()), score)
    np.testing.assert_array_equal(fitted.predict(frame()), (score >= fitted.threshold_).astype(int))


def test_array_and_frames_score_alike(fitted: Detector) -> None:
    score = fitted.score(frame())
    for other in (VALUES, pl.from_pandas(frame().reset_index()), frame().reset_index()):
        np.testing.assert_array_equal(fitted.score(other), score)
    by_array = Detector(**ARGUMENTS, interval="1m", sensors=SENSORS).fit(VALUES[:N_TRAIN])
    np.testing.assert_array_equal(by_array.score(VALUES), score)


def test_rows_may_be_shuffled(fitted: Detector) -> None:
    order = np.random.default_rng(0).permutation(len(VALUES))
    np.testing.assert_array_equal(fitted.score(frame().iloc[order]), fitted.score(frame())[order])


def test_other_columns_are_ignored_when_scoring(fitted: Detector) -> None:
    wider = frame().assign(note="x", extra=1.0)[["extra", "pressure", "note", "flow"]]
    np.testing.assert_array_equal(fitted.score(wider), fitted.score(frame()))


def test_assets_have_windows_of_their_own() -> None:
    one, other = frame(), frame(labelled_recording.values(seed=1))
    both = pd.concat([one.assign(machine="a"), other.assign(machine="b")]).sort_index(kind="stable")
    detector = Detector(**ARGUMENTS).fit(both[both.index < both.index[2 * N_TRAIN]])
    score = detector.score(both)
    is_first = (both.machine == "a").to_numpy()
    np.testing.assert_array_equal(score[is_first], detector.score(one))
    np.testing.assert_array_equal(score[~is_first], detector.score(other))
    assert {alert.asset for alert in detector.alerts(both)} == {"a", "b"}


def test_a_hole_longer_than_max_gap_is_not_scored(fitted: Detector) -> None:
    values = VALUES.copy()
    values[800:803] = np.nan  # three cells, and an eighth of the window is two
    score = fitted.score(frame(values))
    assert np.isnan(score[802 : 803 + WINDOW - 3]).all()
    assert np.isfinite(score[803 + WINDOW])
    lenient = Detector(**ARGUMENTS, max_gap="5m").fit(frame()[:N_TRAIN])
    assert np.isfinite(lenient.score(frame(values))[WINDOW:]).all()


def test_rows_between_two_windows_have_the_score_before() -> None:
    score = Detector(**ARGUMENTS, stride=4).fit(frame()[:N_TRAIN]).score(frame())
    rows = score[100:1100].reshape(-1, 4)
    assert all(len(set(row)) <= 2 for row in rows.tolist())
    assert np.isfinite(rows).all()


def test_alerts_name_time_rows_and_sensors(fitted: Detector) -> None:
    [first] = [each for each in fitted.alerts(frame()) if each.first_row < END and each.last_row > FIRST]
    assert first.asset == "frame"
    assert FIRST <= first.first_row <= FIRST + 2
    assert END < first.last_row < END + 2 * WINDOW
    assert first.start == START + timedelta(minutes=first.first_row + 1)
    assert first.end == START + timedelta(minutes=first.last_row + 1)
    assert first.start <= first.peak_at < first.end
    assert first.severity is Severity.CRITICAL
    assert sum(sensor.share for sensor in first.sensors) == pytest.approx(1)
    assert first.sensors[0].name == "pressure"
    assert first.sensors[0].actual == 3.0


def test_an_alert_at_the_end_is_open(fitted: Detector) -> None:
    alert = fitted.alerts(frame()[: FIRST + 10])[-1]
    assert alert.end is None
    assert alert.last_row == FIRST + 9


def test_explanations_are_of_anomalous_rows_or_of_any(fitted: Detector) -> None:
    score = fitted.score(frame())
    found = fitted.explain(frame())
    assert [each.row for each in found] == np.flatnonzero(score >= 1).tolist()
    assert [each.score for each in found] == pytest.approx(score[score >= 1].tolist())
    [one, last] = fitted.explain(frame(), [100, -1])
    assert (one.row, last.row) == (100, len(VALUES) - 1)
    assert one.at == START + timedelta(minutes=100)
    assert {sensor.name for sensor in one.sensors} == set(SENSORS)


def test_a_checkpoint_scores_alike(fitted: Detector, tmp_path: Path) -> None:
    path = fitted.save(tmp_path)
    assert (path / "card.json").is_file()
    loaded = Detector.load(path, device="cpu")
    assert loaded.get_params()["window"] == WINDOW
    assert loaded.budget == "1/week"
    np.testing.assert_array_equal(loaded.score(frame()), fitted.score(frame()))
    assert loaded.alerts(frame()) == fitted.alerts(frame())
    with pytest.raises(NotFound, match="call fit first"):
        _ = loaded.decision_scores_


def test_the_attributes_of_pyod_are_there() -> None:
    detector = Detector(**ARGUMENTS)
    labels = detector.fit_predict(frame()[:N_TRAIN], None)
    np.testing.assert_array_equal(detector.decision_scores_, detector.score(frame()[:N_TRAIN]))
    np.testing.assert_array_equal(detector.labels_, labels)
    assert set(labels.tolist()) <= {0, 1}
    assert detector.card_.length == WINDOW


def test_arguments_are_read_and_set_as_in_scikit_learn() -> None:
    detector = Detector(24, "2/day", interval="1m", missing=[-999.0], circular=["flow"])
    again = Detector(**detector.get_params())
    assert repr(again) == repr(detector)
    assert again.set_params(window=32).window == 32
    with pytest.raises(BadArgument, match="windw: there is no such argument; there are window, budget"):
        again.set_params(windw=3)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"window": 2}, "window: 2 is out of range; use at least 4"),
        ({"budget": "1 week"}, 'budget: "1 week" is not a rate; write "1/week"'),
        ({"interval": 60}, 'interval: 60 has no unit; did you mean "60s"?'),
        ({"interval": "1m", "max_gap": "2h"}, "max_gap: "),
        ({"confirm": "6 of 5"}, 'confirm: "6 of 5" can never be met'),
        ({"architecture": "cnn"}, 'architecture: "cnn" is not offered; '),
        ({"device": "gpu"}, "device: "),
        ({"sensors": "ab"}, 'sensors: \'ab\' is no list; write sensors=["flow"]'),
        ({"circular": 5}, 'circular: 5 is no list; write circular=["flow"]'),
        ({"missing": -999}, "missing: -999 is no list; write missing=[-999]"),
        ({"missing": ["x"]}, "missing: 'x' is no number; write [-999]"),
        ({"window": 2, "recover": 0}, "window: 2 is out of range; use at least 4; recover: 0"),
    ],
)
def test_a_wrong_argument_is_named_with_its_fix(arguments: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match="The argument cannot be used") as refused:
        Detector(**arguments)
    assert words in str(refused.value)


def test_too_few_rows_are_told() -> None:
    with pytest.raises(NotEnoughData, match=r"100 are needed: .* a shorter window \(it is 16\)"):
        Detector(**ARGUMENTS).fit(frame()[:50])


def test_a_detector_without_a_model_says_so() -> None:
    with pytest.raises(NotFound, match="call fit first"):
        Detector().score(VALUES)


def test_rows_at_one_moment_have_no_interval() -> None:
    with pytest.raises(BadArgument, match='give interval="10m"'):
        Detector().fit({"time": [1.7e9] * 300, "flow": np.arange(300.0)})


def test_the_package_offers_the_library() -> None:
    assert set(monitor.__all__) == {"DetectedAlert", "Detector", "Explanation", "__version__"}
    assert monitor.Detector is Detector
    with pytest.raises(AttributeError, match="no attribute 'Detectr'"):
        _ = monitor.Detectr  # type: ignore[attr-defined]


def test_missing_values_and_angles_are_those_of_the_arguments() -> None:
    head = frame()[:N_TRAIN].assign(course=lambda each: np.arange(len(each)) * 7.0 % 360)
    arguments = ARGUMENTS | {"missing": [-999.0], "circular": ["course"], "max_gap": "5m"}
    detector = Detector(**arguments).fit(head)
    coded, blank = head.copy(), head.copy()
    coded.iloc[300:303, 0], blank.iloc[300:303, 0] = -999.0, np.nan
    np.testing.assert_allclose(detector.score(coded), detector.score(blank), rtol=1e-5)
    assert not detector.predict(coded)[290:320].any()
    turned = head.assign(course=(head.course + 359.999) % 360)  # 0° becomes 359.999°
    np.testing.assert_allclose(detector.score(turned), detector.score(head), rtol=1e-2)


@pytest.mark.parametrize(
    ("data", "arguments", "words"),
    [
        ({"a": VALUES[:200, 0]}, {"circular": ["dir"]}, 'circular: "dir" is no sensor; there are a'),
        ({"a": np.full(200, np.nan)}, {}, "the frame has no reading: all of a is missing"),
        ({"a": np.arange(5.0), "b": np.arange(3.0)}, {}, 'column "b" has 3 rows, and "a" has 5'),
        ({"a": np.array(["1.5", "2"])}, {}, 'column "a" holds numbers as texts ("1.5"): convert them'),
    ],
)
def test_a_wrong_frame_is_named_with_its_fix(data: dict[str, Any], arguments: dict[str, Any], words: str) -> None:
    with pytest.raises(BadArgument) as refused:
        Detector(**ARGUMENTS, interval="1m", **arguments).fit(data)
    assert words in str(refused.value)


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        (5, "rows: 5 is no list of row numbers"),
        ([99_999], "rows: 99999 is no row of the frame; it has"),
        (["a"], "rows: "),
    ],
)
def test_wrong_rows_are_told(fitted: Detector, rows: Any, words: str) -> None:
    with pytest.raises(BadArgument, match=words):
        fitted.explain(frame(), rows)


def test_values_that_are_not_learnt_are_warned_of() -> None:
    data = frame()[:N_TRAIN]
    data["dead"], data["hot"] = np.nan, data["flow"]
    data.loc[data.index[3], "hot"] = np.inf
    with pytest.warns(UserWarning, match="no reading|infinite") as said:
        detector = Detector(**ARGUMENTS).fit(data)
    assert 'column "dead" has no reading' in detector.notes_
    assert 'column "hot": 1 × infinite or too large for float32 is taken as missing' in detector.notes_
    assert {str(each.message) for each in said} <= set(detector.notes_)


def test_rows_of_another_step_are_warned_of(fitted: Detector) -> None:
    data = frame()
    for step, words in (("7s", "share an interval of 1m with an earlier row"), ("1h", "rows are 1h apart")):
        other = data.set_axis(pd.date_range(START, periods=len(data), freq=step, name="at"))
        with pytest.warns(UserWarning, match=words):
            fitted.score(other)


def test_a_row_without_a_score_has_no_explanation(fitted: Detector) -> None:
    with pytest.warns(UserWarning, match="rows: 0 has no score of its own"):
        assert fitted.explain(frame(), [0]) == []
