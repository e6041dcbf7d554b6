"""Times of a week, by the clock on the wall."""

from __future__ import annotations

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest

from monitor.clock import to_us
from monitor.config.hours import Hours


def contains(text: str | list[str], at: str, timezone: str = "UTC") -> bool:
    """`at`: local time of the zone, or one with an offset."""
    moment = datetime.fromisoformat(at)
    moment = moment if moment.tzinfo else moment.replace(tzinfo=ZoneInfo(timezone))
    hours = Hours.parse([text] if isinstance(text, str) else text, timezone)
    return hours.contains(to_us(moment.astimezone(UTC)))


@pytest.mark.parametrize(
    ("text", "at", "expected"),
    [
        ("22:00-06:00", "2026-03-02T22:00", True),
        ("22:00-06:00", "2026-03-03T05:59", True),
        ("22:00-06:00", "2026-03-03T06:00", False),
        ("22:00-06:00", "2026-03-02T21:59", False),
        ("Mon-Fri 06:00-18:00", "2026-03-02T06:00", True),  # a Monday
        ("Mon-Fri 06:00-18:00", "2026-03-07T12:00", False),
        ("Sat,Sun 00:00-24:00", "2026-03-08T23:59", True),
        ("Sat,Sun 00:00-24:00", "2026-03-09T00:00", False),
        ("Fri 22:00-06:00", "2026-03-07T05:00", True),  # the night that began on Friday
        ("Fri 22:00-06:00", "2026-03-06T05:00", False),
        ("Fri-Mon 10:00-11:00", "2026-03-08T10:30", True),
        ("Fri-Mon 10:00-11:00", "2026-03-04T10:30", False),
        ("monday 10:00–11:00", "2026-03-02T10:30", True),
        ("10:00-10:00", "2026-03-02T09:00", True),
    ],
)
def test_a_moment_lies_in_the_hours_of_its_day(text: str, at: str, expected: bool) -> None:
    assert contains(text, at) is expected


def test_several_times_add_up() -> None:
    texts = ["Mon-Fri 06:00-18:00", "Sat 08:00-12:00"]
    assert [contains(texts, at) for at in ("2026-03-02T07:00", "2026-03-07T09:00", "2026-03-07T13:00")] == [
        True,
        True,
        False,
    ]


@pytest.mark.parametrize(
    ("at", "expected"),
    [
        ("2026-03-29T00:30:00+00:00", True),  # 01:30 in Berlin
        ("2026-03-29T03:59:00+00:00", True),  # 05:59, after the clock was set forward
        ("2026-03-29T04:00:00+00:00", False),
        ("2026-10-25T04:59:00+00:00", True),  # 05:59, after it was set back
        ("2026-10-25T05:00:00+00:00", False),
    ],
)
def test_quiet_hours_follow_daylight_saving(at: str, expected: bool) -> None:
    assert contains("22:00-06:00", at, "Europe/Berlin") is expected


@pytest.mark.parametrize("text", ["", "22-6", "25:00-26:00", "10:60-11:00", "Moo 10:00-11:00", "10:00", "10:00-24:30"])
def test_another_notation_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(ValueError, match=r'write "(22:00-06:00|Mon)'):
        Hours.parse([text], "UTC")
