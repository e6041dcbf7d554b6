"""Split: the latest time is held out as a whole, and no training window reaches into it."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from monitor.models.inputs import ModelInputs
from monitor.models.spec import TrainingSet
from monitor.training import split as split_module
from monitor.training.split import latest, readings, split, thin, usable_rows

if TYPE_CHECKING:
    import pytest

LENGTH = 12
MINUTE_US = 60_000_000
SPAN_S = LENGTH * 60.0
PLAIN = ModelInputs(("a", "b"))


def windows(*sizes: int) -> TrainingSet:
    """Return so many windows of each asset, at stride 1 and one reading a minute, asset after asset."""
    n = sum(sizes)
    values = np.arange(n, dtype=np.float32)[:, None, None] + np.zeros((1, LENGTH, 2), np.float32)
    asset = np.repeat(np.arange(len(sizes), dtype=np.int32), sizes)
    return TrainingSet(values, asset, np.concatenate([(np.arange(size) + LENGTH) * MINUTE_US for size in sizes]))


def test_the_latest_fifth_is_held_out() -> None:
    train = windows(489, 289)
    parts = split(train, np.arange(len(train)), SPAN_S)
    for asset in (0, 1):
        early = train.end_us[parts.train[train.asset[parts.train] == asset]]
        late = train.end_us[parts.held_out[train.asset[parts.held_out] == asset]]
        assert len(late) == round(0.2 * (train.asset == asset).sum())
        assert early.max() <= late.min() - LENGTH * MINUTE_US
    assert parts.n_purged == 2 * (LENGTH - 1)


def test_a_short_history_keeps_the_overlap() -> None:
    train = windows(40)
    parts = split(train, np.arange(len(train)), SPAN_S)
    assert (len(parts.train), len(parts.held_out), parts.n_purged, parts.n_overlapping) == (32, 8, 0, 11)


def test_alerted_windows_are_not_trained_on() -> None:
    train = windows(500)
    alerted = np.isin(np.arange(500), [3, 4, 5, 450])
    parts = split(replace(train, alerted=alerted), np.arange(500), SPAN_S)
    whole = split(train, np.arange(500), SPAN_S)
    assert parts.train.tolist() == [row for row in whole.train if not alerted[row]]
    assert parts.held_out.tolist() == whole.held_out.tolist()
    assert (parts.n_alerted, whole.n_alerted, whole.n_overlapping) == (3, 0, 0)


def test_one_window_holds_out_nothing() -> None:
    train = windows(1, 1)
    parts = split(train, np.arange(2), SPAN_S)
    assert (len(parts.train), len(parts.held_out)) == (2, 0)


def test_windows_with_many_gaps_are_unusable() -> None:
    train = windows(10)
    train.values[2, : LENGTH // 2] = np.nan
    train.values[3, : LENGTH // 2 + 1] = np.nan
    train.values[4, :, 0] = np.inf   # one sensor is missing, the other is present
    assert usable_rows(train.values, PLAIN).tolist() == [0, 1, 2, 4, 5, 6, 7, 8, 9]
    assert usable_rows(train.values[:0], PLAIN).tolist() == []


def test_the_latest_held_out_time_is_kept() -> None:
    train = windows(1489, 189)
    parts = split(train, np.arange(len(train)), SPAN_S)
    rows = latest(parts.held_out, train, 100)
    assert len(rows) <= 100
    for asset in (0, 1):
        mine = train.end_us[rows[train.asset[rows] == asset]]
        assert mine.max() == train.end_us[train.asset == asset].max()
        assert set(np.diff(mine)) == {MINUTE_US}


def test_rows_are_thinned_evenly() -> None:
    assert thin(np.arange(10), 4).tolist() == [0, 3, 6, 9]
    assert thin(np.arange(3), 4).tolist() == [0, 1, 2]


def test_readings_are_of_the_given_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    train = windows(100)
    assert set(readings(train.values, np.array([3, 5]), PLAIN)[:, 0]) == {3.0, 5.0}
    monkeypatch.setattr(split_module, "N_SCALE", 10 * LENGTH)
    some = readings(train.values, np.arange(100), PLAIN)
    assert some.shape == (10 * LENGTH, 2)
    assert {0.0, 99.0} <= set(some[:, 0])
