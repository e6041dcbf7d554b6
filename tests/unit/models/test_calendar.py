from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import numpy as np
import pytest

from monitor.models.calendar import KINDS, N_HOURS, Calendar, Days

BERLIN = ZoneInfo("Europe/Berlin")


def us(*parts: int, zone: ZoneInfo = BERLIN, fold: int = 0) -> int:
    return round(datetime(*parts, tzinfo=zone, fold=fold).timestamp() * 1e6)


def cell(at_us: int, *holidays: str) -> tuple[str, int]:
    found = int(Days("Europe/Berlin", holidays).cells(np.array([at_us]))[0])
    return KINDS[found // N_HOURS], found % N_HOURS


@pytest.mark.parametrize(
    ("end_us", "expected"),
    [
        (us(2026, 1, 5, 8, 30), ("work day", 8)),
        (us(2026, 1, 5, 9, 0), ("work day", 8)),  # a window that ends at nine is of the hour before
        (us(2026, 1, 9, 12, 1), ("work day", 12)),
        (us(2026, 1, 10, 12, 1), ("Saturday", 12)),
        (us(2026, 1, 11, 12, 1), ("Sunday", 12)),
        (us(2026, 1, 12, 0, 0), ("Sunday", 23)),
        (us(2026, 7, 6, 8, 30), ("work day", 8)),  # the clock on the wall, in summer too
        (us(2026, 3, 29, 1, 30), ("Sunday", 1)),
        (us(2026, 3, 29, 3, 30), ("Sunday", 3)),
        (us(2026, 10, 25, 2, 30), ("Sunday", 2)),
        (us(2026, 10, 25, 2, 30, fold=1), ("Sunday", 2)),
    ],
)
def test_a_window_belongs_to_the_hour_on_the_wall(end_us: int, expected: tuple[str, int]) -> None:
    assert cell(end_us) == expected


def test_the_night_of_a_clock_change_has_its_hours() -> None:
    start = datetime(2026, 3, 28, 23, tzinfo=UTC)
    ends = np.array([round((start + timedelta(minutes=m)).timestamp() * 1e6) for m in range(30, 5 * 60, 60)])
    assert (Days("Europe/Berlin").cells(ends) % N_HOURS).tolist() == [0, 1, 3, 4, 5]


def test_a_holiday_counts_as_a_sunday() -> None:
    assert cell(us(2026, 12, 25, 10, 1)) == ("work day", 10)
    assert cell(us(2026, 12, 25, 10, 1), "2026-12-25") == ("Sunday", 10)
    assert cell(us(2026, 12, 26, 10, 1), "2026-12-25") == ("Saturday", 10)


def test_a_calendar_survives_the_card() -> None:
    calendar = Calendar(Days("Europe/Berlin", ("2026-12-25",)), tuple(1 + n / 100 for n in range(72)), 0.2)
    assert Calendar.from_json(json.loads(json.dumps(calendar.to_json()))) == calendar
    assert calendar.of(np.array([us(2026, 1, 5, 8, 30)])).tolist() == pytest.approx([1.08])
    assert calendar.of(np.empty(0, np.int64)).shape == (0,)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("timezone", "Europe/Nowhere"),
        ("holidays", ["25.12."]),
        ("factors", {}),
        ("factors", {kind: [1] for kind in KINDS}),
    ],
)
def test_a_malformed_calendar_is_refused(key: str, value: object) -> None:
    entry = Calendar(Days(), (1.0,) * 72).to_json()
    with pytest.raises((KeyError, TypeError, ValueError, AttributeError)):
        Calendar.from_json({**entry, key: value})
