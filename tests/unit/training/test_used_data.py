"""The data of a training, time by time, and what alerts and people say of it."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from monitor.models.spec import ModelSpec, TrainingSet, UsedTime
from monitor.training import used_data as module
from monitor.training.fit import fit
from monitor.training.judge import judge
from monitor.training.split import split
from monitor.training.used_data import MAX_INTERVALS, data_digest, used_data
from monitor.types import JudgedTime
from tests.unit.training.sine_windows import FLEET_SPEC, LENGTH, MINUTE_US, SENSORS, readings, windows

if TYPE_CHECKING:
    from monitor.models.detector import TrainedModel

N = 3000
SPAN_US = LENGTH * MINUTE_US
SPEC = ModelSpec("pca", min_windows=50)
DAY = 1440


def judged(*times: JudgedTime, n: int = N, new_normal_us: int | None = None) -> TrainingSet:
    named = replace(windows(readings(n)), assets=("R1",))
    return judge(named, {"R1": times}, span_us=SPAN_US, step_us=MINUTE_US, new_normal_us=new_normal_us)


def at(first: int, last: int, reason: str, source: str = "alert", number: int = 7) -> JudgedTime:
    return JudgedTime(first * MINUTE_US, last * MINUTE_US, reason, source, number)


def trained(train: TrainingSet, spec: ModelSpec = SPEC) -> TrainedModel:
    return fit(train, spec, FLEET_SPEC, now=lambda: 0.0)


def receipt(train: TrainingSet) -> dict[str, Any]:
    found: dict[str, Any] = trained(train).card.training["receipt"]
    return found


# ---------------------------------------------------------------- marks


def test_a_fault_takes_its_windows_and_an_alert_marks_them() -> None:
    train = judged(at(100, 110, "fault"), at(500, 510, "unlabelled", number=8))
    assert train.n_labelled == 10 + LENGTH - 1
    assert train.skipped == (
        UsedTime("R1", 100 * MINUTE_US, 121 * MINUTE_US, "left_out", "fault", "alert", 7, 10 + LENGTH - 1),
    )
    assert train.alerted is not None
    assert train.end_us[train.alerted].tolist() == [minute * MINUTE_US for minute in range(501, 510 + LENGTH)]


def test_alerts_one_after_another_are_one_event() -> None:
    train = judged(at(500, 508, "unlabelled"), at(525, 540, "unlabelled"), at(900, 908, "unlabelled"))
    assert train.event is not None
    assert train.alerted is not None
    assert train.end_us[train.event].tolist() == [minute * MINUTE_US for minute in range(489, 540 + LENGTH + 1)]
    assert (train.alerted | ~train.event).all()
    assert train.alerted.sum() == train.event.sum() + 8 + LENGTH - 1


def test_events_that_recur_move_the_threshold_again() -> None:
    twice = judged(at(300, 330, "unlabelled"), at(500, 530, "unlabelled", number=8))
    assert twice.event is not None
    assert twice.event.sum() > 60
    recurring = judged(*(at(first, first + 30, "unlabelled", number=first) for first in (300, 500, 700)))
    assert recurring.event is not None
    assert recurring.alerted is not None
    assert not recurring.event.any()
    assert recurring.alerted.sum() == 3 * (30 + LENGTH - 1)  # and they are not learnt from


def test_accepted_windows_are_no_longer_alerted() -> None:
    train = judged(at(500, 520, "accepted", "label"), at(520, 600, "unlabelled"))
    assert train.accepted is not None
    assert train.alerted is not None
    assert train.end_us[train.accepted].tolist() == [minute * MINUTE_US for minute in range(501, 521)]
    assert train.end_us[train.alerted].min() == 521 * MINUTE_US


def test_an_alert_that_lasts_is_the_new_normal() -> None:
    lasting = JudgedTime(1000 * MINUTE_US, 1 << 62, "open", "alert", 7, 900 * MINUTE_US)
    as_normal = judged(lasting, new_normal_us=(N - 901) * MINUTE_US)
    assert as_normal.accepted is not None
    assert as_normal.accepted.sum() == N - 1000
    not_yet = judged(lasting, new_normal_us=(N - 900) * MINUTE_US)
    assert not_yet.accepted is not None
    assert not not_yet.accepted.any()
    never = judged(lasting)
    assert never.alerted is not None
    assert never.alerted.sum() == N - 1000 + LENGTH  # an event begins a length before its alert


# ---------------------------------------------------------------- split


def test_half_of_an_accepted_time_is_learnt() -> None:
    train = judged(at(2600, 2800, "accepted", "label"))
    parts = split(train, np.arange(len(train)), SPAN_US / 1e6)
    moved = train.end_us[parts.train[train.accepted[parts.train]]] // MINUTE_US  # type: ignore[index]
    assert (moved.min(), moved.max()) == (2601, 2700)
    held = train.end_us[parts.held_out]
    begin, end = train.end_us[parts.train[-1]] - 99 * MINUTE_US, train.end_us[parts.train[-1]]
    assert not ((held > begin - SPAN_US) & (held < end + SPAN_US)).any()
    assert parts.n_purged > 0
    assert held.max() == N * MINUTE_US


def test_an_accepted_time_that_is_known_stays_held_out() -> None:
    plain = judged()
    train = judged(at(1000, N, "accepted", "label"))
    both = [split(each, np.arange(len(each)), SPAN_US / 1e6) for each in (plain, train)]
    assert (both[0].held_out == both[1].held_out).all()


# ---------------------------------------------------------------- the receipt


def test_the_times_of_an_asset_follow_one_another() -> None:
    train = judged(
        at(100, 110, "fault"), at(500, 520, "unlabelled", number=8), at(900, 950, "accepted", "label", 2),
        at(1500, 1510, "maintenance", "maintenance", 3), at(2700, 2710, "open", number=9),
    )  # fmt: skip
    rows = np.ones(len(train), dtype=bool)
    rows[1200:1300] = False  # no readings
    kept = replace(
        train, values=train.values[rows], asset=train.asset[rows], end_us=train.end_us[rows],
        alerted=train.alerted[rows], accepted=train.accepted[rows], cause=train.cause[rows],  # type: ignore[index]
    )  # fmt: skip
    found = receipt(kept)
    intervals = found["intervals"]
    assert [one["to"] for one in intervals[:-1]] == [one["from"] for one in intervals[1:]]
    reasons = {(one["use"], one["reason"], one.get("source"), one.get("id")) for one in intervals}
    assert {
        ("left_out", "fault", "alert", 7), ("left_out", "unlabelled", "alert", 8), ("trained", "accepted", "label", 2),
        ("left_out", "maintenance", "maintenance", 3), ("held_out", "open", "alert", 9),
        ("left_out", "gap", None, None), ("trained", "normal", None, None), ("held_out", "normal", None, None),
    } <= reasons  # fmt: skip
    assert next(one["why"] for one in intervals if one["reason"] == "fault") == "alert 7 is labelled fault"
    counted = sum(one["n_windows"] for one in intervals)
    assert counted == len(kept) + kept.n_labelled == sum(one["n_windows"] for one in found["totals"])


def test_the_same_data_have_the_same_digest() -> None:
    one, two = readings(500), readings(400, seed=1)
    first = replace(windows(one, two), assets=("a", "b"))
    other = replace(windows(two, one), assets=("b", "a"))
    assert data_digest(first, np.arange(len(first))) == data_digest(other, np.arange(len(other))[::-1])
    gaps = first.values.copy()
    gaps[3, 2, 1] = np.nan
    with_gap = replace(first, values=gaps)
    assert data_digest(with_gap, np.arange(len(first))) != data_digest(first, np.arange(len(first)))
    again = gaps.copy()
    again.view(np.uint32)[3, 2, 1] |= 1 << 31  # another NaN
    assert data_digest(replace(first, values=again), np.arange(len(first))) == data_digest(
        with_gap, np.arange(len(first))
    )
    assert data_digest(replace(first, assets=("a", "c")), np.arange(len(first))) != data_digest(
        first, np.arange(len(first))
    )


def test_a_receipt_is_bounded_and_its_totals_are_not() -> None:
    short = [at(minute, minute + 1, "unlabelled", number=minute) for minute in range(20, 20 * 700, 20)]
    train = judged(*short, n=20 * 700)
    parts = split(train, np.arange(len(train)), SPAN_US / 1e6)
    none = np.empty(0, dtype=bool)
    nothing = (np.zeros(len(parts.train), bool), np.zeros(len(parts.held_out), bool))
    assert none.size == 0
    found = used_data(train, parts, parts.train, parts.held_out, *nothing, SPEC, FLEET_SPEC)
    assert len(found["intervals"]) <= MAX_INTERVALS
    joined = [one for one in found["intervals"] if "n_joined" in one]
    assert joined
    assert sum(one["n_windows"] for one in found["intervals"]) == len(train)
    listed = sum(one.get("n_joined", 1) for one in found["intervals"])
    assert listed == sum(one["n_intervals"] for one in found["totals"])
    assert all(one.get("id") for one in found["intervals"] if one["reason"] == "unlabelled" and "n_joined" not in one)


def test_an_exclusion_that_nobody_settles_is_told() -> None:
    n = 12 * DAY
    old, new = at(DAY, DAY + 30, "unlabelled"), at(10 * DAY, 10 * DAY + 30, "unlabelled", number=8)
    [warning] = module.warnings(
        judged(old, new, n=n),
        [UsedTime("R1", DAY * MINUTE_US, (DAY + 30) * MINUTE_US, "left_out", "unlabelled", "alert", 7, 40),
         UsedTime("R1", 10 * DAY * MINUTE_US, n * MINUTE_US, "left_out", "unlabelled", "alert", 8, 40)],
        "pumps",
    )  # fmt: skip
    assert warning == (
        "alert 7 of R1 has had no label for 11 days; if it is a fault: monitor alerts label 7 fault (or normal); if it "
        "is the new normal: monitor retrain pumps --accept-normal 1970-01-02T00:00:00+00:00 1970-01-02T00:30:00+00:00 "
        "--asset R1"
    )


# ---------------------------------------------------------------- the model


def shifted(first: int, last: int, size: float, *times: JudgedTime, n: int = N) -> TrainingSet:
    """Return windows of which one sensor is at another level for a time."""
    values = readings(n)
    values[first:last, 0] += size
    named = replace(windows(values), assets=("R1",))
    return judge(named, {"R1": times}, span_us=SPAN_US, step_us=MINUTE_US, new_normal_us=None)


def test_accepted_windows_are_never_trimmed() -> None:
    first, last = 300, 420
    times = (at(first, last + LENGTH, "accepted", "label"),)
    trimmed, learnt = trained(shifted(first, last, 6.0)), trained(shifted(first, last, 6.0, *times))
    assert trimmed.card.training["left_out"]["suspected_fault_train"] > 0
    assert learnt.card.training["left_out"]["suspected_fault_train"] == 0


def test_a_long_unlabelled_alert_does_not_lift_the_threshold() -> None:
    first, last = 2600, 2900  # most of the last fold
    clean = trained(judged()).card.threshold.raw
    fault = shifted(first, last, 2.0, at(first, last + LENGTH, "unlabelled"))
    known = trained(fault)
    assert known.card.threshold.raw < 1.3 * clean
    assert trained(shifted(first, last, 2.0)).card.threshold.raw > 2 * clean


def test_settings_and_data_have_their_own_digests() -> None:
    one, same = receipt(judged()), receipt(judged())
    assert one == same
    other = trained(judged(), replace(SPEC, max_trim=0.05)).card.training["receipt"]
    assert other["config_digest"] != one["config_digest"]
    assert len(SENSORS) == 2
