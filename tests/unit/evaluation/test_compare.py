from __future__ import annotations

import numpy as np

from monitor.evaluation.compare import AlertSpan, Compared, Event, compare, episodes, meetings, meets, together

S = 1_000_000
FAULT = Event("pump", 100 * S, 200 * S)


def _alert(opened_s: int, closed_s: int | None, asset: str = "pump", fired_s: int | None = None) -> AlertSpan:
    return AlertSpan(asset, opened_s * S, (fired_s or opened_s + 2) * S, None if closed_s is None else closed_s * S)


def test_an_alert_during_the_fault_finds_it() -> None:
    assert compare([FAULT], [_alert(120, 150)]) == Compared(1, events=1, found=1, outside=0, delay_s=22.0)


def test_one_that_was_open_before_and_one_that_never_closes_find_it_too() -> None:
    assert compare([FAULT], [_alert(50, 101)]).found == 1
    assert compare([FAULT], [_alert(199, None)]).found == 1


def test_an_alert_that_only_touches_the_fault_is_outside() -> None:
    before, after = _alert(50, 100), _alert(201, 260)
    assert compare([FAULT], [before, after]) == Compared(2, events=1, found=0, outside=2)


def test_a_window_that_ends_with_the_last_faulty_reading_is_inside() -> None:
    assert compare([FAULT], [_alert(200, 260)]).found == 1


def test_another_assets_alert_is_outside() -> None:
    assert compare([FAULT], [_alert(120, 150, "valve")]) == Compared(1, events=1, found=0, outside=1)


def test_several_alerts_in_one_fault_are_all_inside_and_it_is_found_once() -> None:
    found = compare([FAULT], [_alert(120, 130), _alert(140, 150)])
    assert (found.found, found.outside) == (1, 0)


def test_an_alert_that_fired_before_the_fault_has_no_negative_delay() -> None:
    assert compare([FAULT], [_alert(50, 150)]).delay_s == 0


def test_without_labels_nothing_is_claimed() -> None:
    assert compare(None, [_alert(1, 2)]) == Compared(1)
    assert compare([], [_alert(1, 2)]) == Compared(1, events=0, found=0, outside=1)


def test_files_add_up_and_those_without_labels_claim_nothing() -> None:
    parts = [Compared(1, 2, 1, 0, 5.0), Compared(3), Compared(2, 1, 1, 1, 9.0)]
    assert together(parts) == Compared(6, events=3, found=2, outside=1, delay_s=7.0)


def test_the_median_of_two_delays_lies_between_them() -> None:
    later = Event("pump", 300 * S, 400 * S)
    assert compare([FAULT, later], [_alert(110, 120), _alert(330, 340)]).delay_s == (12 + 32) / 2


def test_meetings_are_those_of_a_search_through_all_pairs() -> None:
    random = np.random.default_rng(0)
    for _ in range(50):
        starts = random.integers(0, 60, (2, 12)).tolist()
        lengths = random.integers(1, 9, (2, 12)).tolist()
        assets = random.choice(["a", "b"], (2, 12)).tolist()
        events = [Event(*one) for one in zip(assets[0], starts[0], np.add(starts[0], lengths[0]).tolist(), strict=True)]
        ends = [None if n % 5 == 0 else start + n for start, n in zip(starts[1], lengths[1], strict=True)]
        alerts = [AlertSpan(name, at, at, end) for name, at, end in zip(assets[1], starts[1], ends, strict=True)]
        every = {(event, alert) for event in events for alert in alerts if meets(event, alert)}
        assert set(meetings(events, alerts)) == every


def test_alerts_that_touch_are_one_episode_and_a_third_one_links_two() -> None:
    first, second, later, other = _alert(10, 20), _alert(30, 40), _alert(60, 70), _alert(10, 20, "valve")
    link = _alert(20, 30)
    assert list(episodes([first, second, later, other], [link])) == [
        ([first, second], [link]),
        ([later], []),
        ([other], []),
    ]


def test_one_that_is_still_open_meets_whatever_comes_after_it() -> None:
    old, new, other = _alert(10, None), _alert(500, 510), _alert(1, 2, "valve")
    assert list(episodes([new], [old, other])) == [([new], [old]), ([], [other])]
    assert list(episodes([], [])) == []
