"""Recurring times: occurrences, time zones with summer time, and refused expressions."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from monitor.clock import from_us, to_us
from monitor.schedules import Recurrence
from monitor.store.matching import Window

HOUR_US = 3_600_000_000
NIGHT = Recurrence("0 3 * * *", 2 * HOUR_US, "Europe/Berlin")


def us(text: str) -> int:
    return to_us(datetime.fromisoformat(text).replace(tzinfo=UTC))


def test_a_moment_lies_in_an_occurrence_or_not() -> None:
    assert NIGHT.at(us("2026-01-10T01:59:59")) is None
    assert NIGHT.at(us("2026-01-10T02:00:00")) == (us("2026-01-10T02:00:00"), us("2026-01-10T04:00:00"))
    assert NIGHT.at(us("2026-01-10T03:59:59")) is not None
    assert NIGHT.at(us("2026-01-10T04:00:00")) is None


@pytest.mark.parametrize("day", ["2026-03-28", "2026-10-24"])
def test_summer_time_neither_skips_nor_repeats_an_occurrence(day: str) -> None:
    first = us(f"{day}T00:00:00")
    found = list(NIGHT.between(first, first + 3 * 24 * HOUR_US))
    assert len({from_us(start).date() for start, _ in found}) == len(found) == 3
    assert all(end - start == 2 * HOUR_US for start, end in found)


def test_the_next_occurrence_begins_after_a_moment() -> None:
    start = us("2026-01-10T02:00:00")
    assert NIGHT.next(start) == (start + 24 * HOUR_US, start + 26 * HOUR_US)
    assert Recurrence("0 0 30 2 *", HOUR_US).problem() is not None


@pytest.mark.parametrize(
    ("recurrence", "problem"),
    [
        (NIGHT, None),
        (Recurrence("0 3 * *", HOUR_US), "no cron expression of five fields"),
        (Recurrence("0 99 * * *", HOUR_US), "no cron expression"),
        (Recurrence("0 3 * * *", HOUR_US, "Mars/Olympus"), "no time zone"),
        (Recurrence("0 3 * * *", HOUR_US, "../../etc/passwd"), "no time zone"),
        (Recurrence("0 3 * * *", 1), "from 1m to 31d"),
        (Recurrence("0 * * * *", 2 * HOUR_US), "occurs again before"),
    ],
)
def test_an_unusable_recurrence_says_why(recurrence: Recurrence, problem: str | None) -> None:
    found = recurrence.problem()
    assert found is None if problem is None else problem in (found or "")


def test_a_name_matches_itself_whatever_its_characters() -> None:
    window = Window("f", "pump[1]*", 0, 10)
    assert window.covers("f", "pump[1]*")
    assert window.covers("f", "pump[1]a")
    assert not window.covers("f", "pump1")
    assert not window.covers("f", None)
