from __future__ import annotations

import numpy as np

from monitor.evaluation.compare import (
    AlertSpan,
    Event,
    LabelComparison,
    combine,
    compare_with_labels,
    group_episodes,
    is_overlapping,
    overlapping_pairs,
)

S = 1_000_000
FAULT = Event("pump", 100 * S, 200 * S)


def _alert(opened_s: int, closed_s: int | None, asset: str = "pump", fired_s: int | None = None) -> AlertSpan:
    return AlertSpan(asset, opened_s * S, (fired_s or opened_s + 2) * S, None if closed_s is None else closed_s * S)


def test_an_alert_during_an_event_finds_it() -> None:
    found = compare_with_labels([FAULT], [_alert(120, 150)])
    assert found == LabelComparison(1, events=1, found=1, outside=0, delay_s=22.0)


def test_an_alert_open_before_finds_the_event() -> None:
    assert compare_with_labels([FAULT], [_alert(50, 101)]).found == 1
    assert compare_with_labels([FAULT], [_alert(199, None)]).found == 1


def test_an_alert_touching_the_event_is_outside() -> None:
    before, after = _alert(50, 100), _alert(201, 260)
    assert compare_with_labels([FAULT], [before, after]) == LabelComparison(2, events=1, found=0, outside=2)


def test_a_window_ending_with_the_event_is_inside() -> None:
    assert compare_with_labels([FAULT], [_alert(200, 260)]).found == 1


def test_an_alert_of_another_asset_is_outside() -> None:
    assert compare_with_labels([FAULT], [_alert(120, 150, "valve")]) == LabelComparison(1, events=1, found=0, outside=1)


def test_an_event_is_found_once() -> None:
    found = compare_with_labels([FAULT], [_alert(120, 130), _alert(140, 150)])
    assert (found.found, found.outside) == (1, 0)


def test_an_alert_before_the_event_has_no_delay() -> None:
    assert compare_with_labels([FAULT], [_alert(50, 150)]).delay_s == 0


def test_without_labels_only_alerts_count() -> None:
    assert compare_with_labels(None, [_alert(1, 2)]) == LabelComparison(1)
    assert compare_with_labels([], [_alert(1, 2)]) == LabelComparison(1, events=0, found=0, outside=1)


def test_combine_skips_unlabelled_files() -> None:
    parts = [LabelComparison(1, 2, 1, 0, 5.0), LabelComparison(3), LabelComparison(2, 1, 1, 1, 9.0)]
    assert combine(parts) == LabelComparison(6, events=3, found=2, outside=1, delay_s=7.0)


def test_the_median_of_two_is_their_mean() -> None:
    later = Event("pump", 300 * S, 400 * S)
    assert compare_with_labels([FAULT, later], [_alert(110, 120), _alert(330, 340)]).delay_s == (12 + 32) / 2


def test_overlapping_pairs_equal_full_search() -> None:
    random = np.random.default_rng(0)
    for _ in range(50):
        starts = random.integers(0, 60, (2, 12)).tolist()
        lengths = random.integers(1, 9, (2, 12)).tolist()
        assets = random.choice(["a", "b"], (2, 12)).tolist()
        events = [Event(*one) for one in zip(assets[0], starts[0], np.add(starts[0], lengths[0]).tolist(), strict=True)]
        ends = [None if n % 5 == 0 else start + n for start, n in zip(starts[1], lengths[1], strict=True)]
        alerts = [AlertSpan(name, at, at, end) for name, at, end in zip(assets[1], starts[1], ends, strict=True)]
        every = {(event, alert) for event in events for alert in alerts if is_overlapping(event, alert)}
        assert set(overlapping_pairs(events, alerts)) == every


def test_touching_alerts_are_one_episode() -> None:
    first, second, later, other = _alert(10, 20), _alert(30, 40), _alert(60, 70), _alert(10, 20, "valve")
    link = _alert(20, 30)
    assert list(group_episodes([first, second, later, other], [link])) == [
        ([first, second], [link]),
        ([later], []),
        ([other], []),
    ]


def test_an_open_alert_overlaps_all_later_ones() -> None:
    old, new, other = _alert(10, None), _alert(500, 510), _alert(1, 2, "valve")
    assert list(group_episodes([new], [old, other])) == [([new], [old]), ([], [other])]
    assert list(group_episodes([], [])) == []


def test_an_alert_that_is_always_open_finds_nothing() -> None:
    events = [Event("pump", first * S, (first + 10) * S) for first in range(100, 1000, 200)]
    period = {"pump": (0, 1000 * S)}
    always = _alert(50, None)
    found = compare_with_labels(events, [always], period)
    assert (found.events, found.found, found.outside, found.always_open) == (5, 0, 1, 1)
    assert found.alarmed_share == (950 - 50) / (1000 - 50)
    assert compare_with_labels(events, [always]).found == 5  # without a period nobody knows


def test_an_alert_that_outlasts_its_event_still_finds_it() -> None:
    found = compare_with_labels([FAULT], [_alert(110, 400)], {"pump": (0, 1000 * S)})
    assert (found.found, found.outside, found.always_open) == (1, 0, 0)
    assert found.alarmed_share == 200 / 900


def test_the_alarmed_share_needs_no_labels() -> None:
    found = compare_with_labels(None, [_alert(100, 350)], {"pump": (0, 1000 * S)})
    assert (found.events, found.alarmed_share) == (None, 0.25)
