from __future__ import annotations

from monitor.evaluation.compare import AlertSpan, Compared, Event, compare, together

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
    assert together(parts) == Compared(6, events=3, found=2, outside=1, delay_s=9.0)
