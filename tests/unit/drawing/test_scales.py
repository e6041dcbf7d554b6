from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from monitor.clock import from_us, to_us
from monitor.drawing.scales import score_position, short_number, time_ticks, value_ticks

BERLIN = ZoneInfo("Europe/Berlin")


def ticks(begin: datetime, span: timedelta, zone=UTC) -> list[str]:
    return [tick.label for tick in time_ticks(to_us(begin), to_us(begin + span), zone)]


def test_hours_are_round_and_midnight_is_a_date() -> None:
    found = ticks(datetime(2026, 11, 28, 20, 7, tzinfo=UTC), timedelta(hours=12))
    assert found == ["22:00", "Nov 29", "02:00", "04:00", "06:00", "08:00"]


def test_longer_times_have_days_then_months_then_years() -> None:
    begin = datetime(2026, 1, 3, tzinfo=UTC)
    assert ticks(begin, timedelta(days=6)) == ["Jan 3", "Jan 4", "Jan 5", "Jan 6", "Jan 7", "Jan 8", "Jan 9"]
    assert ticks(begin, timedelta(days=150))[:3] == ["Feb", "Mar", "Apr"]
    assert ticks(begin, timedelta(days=3000))[:2] == ["2028", "2030"]


@pytest.mark.parametrize("day", [datetime(2026, 3, 28, 20, tzinfo=UTC), datetime(2026, 10, 24, 20, tzinfo=UTC)])
def test_ticks_stay_round_across_daylight_saving(day: datetime) -> None:
    found = time_ticks(to_us(day), to_us(day + timedelta(hours=14)), BERLIN)
    local = [from_us(tick.at_us).astimezone(BERLIN) for tick in found]
    assert len(found) >= 5
    assert all(at.hour % 2 == 0 and at.minute == 0 for at in local)


@settings(deadline=None, max_examples=40)
@given(
    st.integers(0, 60 * 365 * 86_400),
    st.integers(1, 20 * 365 * 86_400),
    st.sampled_from([UTC, BERLIN, ZoneInfo("Asia/Kolkata"), ZoneInfo("America/St_Johns")]),
)
def test_ticks_are_few_ordered_and_inside(begin_s: int, span_s: int, zone) -> None:
    since, until = begin_s * 1_000_000, (begin_s + span_s) * 1_000_000
    at = [tick.at_us for tick in time_ticks(since, until, zone)]
    assert at == sorted(set(at))
    assert all(since <= each <= until for each in at)
    assert len(at) <= 10


def test_values_have_few_round_ticks() -> None:
    assert value_ticks(0, 97, 3) == [0, 50]
    assert value_ticks(-3.2, 640, 3) == [0, 250, 500]
    assert value_ticks(5, 5) == [5]
    assert value_ticks(float("nan"), 1) == []


def test_scores_are_linear_below_one_and_logarithmic_above() -> None:
    height = score_position(np.array([0.0, 0.5, 1.0, 10.0, 100.0, 1e9]), threshold=0.5)
    assert height.tolist() == [0.0, 0.25, 0.5, 0.75, 1.0, 1.0]


def test_numbers_on_axes_are_short() -> None:
    shown = [short_number(value) for value in (0.012345, 560.4, 1240.0, 43_000.0, 2.5e6, -3.0)]
    assert shown == ["0.0123", "560", "1,240", "43k", "2.5M", "−3"]


@settings(deadline=None, max_examples=100)
@given(st.floats(-1e9, 1e9), st.floats(1e-3, 1e9))
def test_any_range_has_two_to_six_ticks(low: float, span: float) -> None:
    found = value_ticks(low, low + span, 2)
    assert 1 <= len(found) <= 6
    assert len(found) > 1 or span <= 1e-8 * abs(low)
    assert all(low - 1e-6 * span <= tick <= low + span * (1 + 1e-6) for tick in found)
