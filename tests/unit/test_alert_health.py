"""Alarm health against examples computed by hand, and the binomial bound against its definition."""

from __future__ import annotations

import math
from datetime import timedelta
from typing import Any

import numpy as np
import pytest

from monitor import alert_health
from monitor.alert_health import (
    HOUR_US,
    WEEK_US,
    Alarm,
    Range,
    figures,
    proportion_at_any_time,
    proportion_at_least,
)

MINUTE_US = HOUR_US // 60
MONDAY_US = 2864 * WEEK_US + 4 * 24 * HOUR_US  # 2024-11-25
WEEK = Range(MONDAY_US, MONDAY_US + WEEK_US)


def alarm(minute: float, subject: str = "a", *, lasts: float | None = 5, **facts: Any) -> Alarm:
    """Return an alarm that opens `minute` minutes after Monday and lasts `lasts` minutes, None = still open."""
    opened_us = MONDAY_US + round(minute * MINUTE_US)
    closed_us = None if lasts is None else opened_us + round(lasts * MINUTE_US)
    plain: dict[str, Any] = {"id": round(minute), "alert_class": "process", "severity": "warning"}
    return Alarm(**(plain | {"subject": subject, "opened_us": opened_us, "closed_us": closed_us} | facts))


def test_rates_are_per_hour_and_per_asset_and_week() -> None:
    found = figures([alarm(each * 60) for each in range(84)], WEEK, n_assets=4)
    assert found["alarms"] == 84
    assert found["alarms_per_hour"] == 0.5
    assert found["alarms_per_asset_week"] == 21
    assert (found["from"], found["to"]) == ("2024-11-25T00:00:00Z", "2024-12-02T00:00:00Z")


def test_a_range_is_without_its_end() -> None:
    edges = [alarm(-1), alarm(0), alarm(7 * 24 * 60 - 1), alarm(7 * 24 * 60)]
    assert figures(edges, WEEK, 1)["alarms"] == 2


def test_floods_are_periods_with_more_than_ten_alarms() -> None:
    alarms = [alarm(30 + each / 10, f"s{each}") for each in range(11)]
    alarms += [alarm(90 + each / 10, f"s{each}") for each in range(10)]
    found = figures(alarms, WEEK, 20)
    assert found["flood_share"] == 1 / 1008
    assert (found["peak"], found["peak_at"]) == (11, "2024-11-25T00:30:00Z")


def test_three_alarms_of_a_subject_in_ten_minutes_chatter() -> None:
    def chattering(*minutes: float, life: timedelta = timedelta()) -> list[str]:
        alarms = [alarm(minute) for minute in minutes] + [alarm(0, "b"), alarm(5, "b")]
        found: list[str] = figures(alarms, WEEK, 1, life // timedelta(microseconds=1))["chattering_subjects"]
        return found

    assert chattering(0, 5, 10) == ["a"]
    assert chattering(0, 5, 10.1) == []
    assert chattering(0, 60, 300, 305, 309) == ["a"]
    # Windows of 10 minutes, 3 to confirm and 6 to recover: an alert lives 90 minutes or longer, six of them 9 hours.
    life = alert_health.shortest_life(timedelta(minutes=10), 3, 6)
    assert chattering(0, 270, 540, life=life) == ["a"]
    assert chattering(0, 270, 541, life=life) == []


def test_stale_and_standing_alarms_are_told_apart() -> None:
    day = 24 * 60
    alarms = [
        alarm(0, lasts=day),  # closed at 24 h: not stale
        alarm(1, lasts=day + 1),
        alarm(-3 * day, lasts=None),  # open since before the week
        alarm(-3 * day + 1, lasts=2 * day),  # stale before the week, and closed before it
        alarm(6.5 * day, lasts=None),  # open for half a day at the end
        alarm(2 * day, lasts=None, suppressed_by="shelf"),
    ]
    found = figures(alarms, WEEK, 1)
    assert found["stale_alerts"] == [1, -3 * day]
    assert (found["stale"], found["standing"]) == (2, 2)
    assert found["alarms"] == 3, "two are from before"


def test_suppressed_alerts_are_no_alarms() -> None:
    alarms = [alarm(0), alarm(1, suppressed_by="maintenance"), alarm(2, suppressed_by="shelf", is_shelved=True)]
    found = figures(alarms, WEEK, 1)
    assert (found["alarms"], found["suppressed"], found["shelved"]) == (1, 2, 1)
    assert found["suppressed_by"] == {"maintenance": 1, "shelf": 1}


def test_the_ten_most_frequent_have_their_share() -> None:
    alarms = [alarm(100 * each, f"s{each % 12:02d}") for each in range(24)] + [alarm(9, "s03")]
    found = figures(alarms, WEEK, 12)
    assert found["top_share"] == 21 / 25
    assert found["top"][0] == {"subject": "s03", "alarms": 3, "share": 3 / 25}
    assert len(found["top"]) == 10


def test_ten_subjects_or_fewer_have_no_share() -> None:
    found = figures([alarm(each, f"s{each}") for each in range(10)], WEEK, 10)
    assert found["top_share"] is None
    assert {each["figure"]: each["is_met"] for each in found["targets"]}["top_share"] is None


def test_priorities_and_classes_are_counted() -> None:
    alarms = [alarm(0, severity="critical"), alarm(1, alert_class="sensor"), alarm(2), alarm(3)]
    found = figures(alarms, WEEK, 1)
    assert found["by_severity"] == {"critical": 1, "warning": 3}
    assert found["by_class"] == {"process": 3, "sensor": 1}
    assert found["critical_share"] == 0.25


def test_time_to_acknowledge_is_the_median_of_the_answered() -> None:
    def answered(took_s: int | None) -> Alarm:
        return alarm(0, stored_us=1_000_000, acknowledged_us=None if took_s is None else (1 + took_s) * 1_000_000)

    found = figures([answered(took) for took in (30, 90, 600, None)], WEEK, 1)
    assert found["acknowledged"] == {"alarms": 3, "share": 0.75, "median_s": 90}
    unknown = figures([alarm(0, acknowledged_us=5)], WEEK, 1)["acknowledged"]
    assert unknown == {"alarms": 1, "share": 1.0, "median_s": None}


def test_precision_counts_judged_alerts() -> None:
    labels = ["fault"] * 9 + ["normal"] + ["ignore"] * 5 + [None] * 7
    found = figures([alarm(each, label=label) for each, label in enumerate(labels)], WEEK, 1)["precision"]
    assert (found["judged"], found["real"]) == (10, 9)
    assert found["at_least"] == pytest.approx(0.6058, abs=1e-4)


def test_precision_at_any_time_counts_all() -> None:
    found = figures([], WEEK, 1, judged=(26, 30))["precision"]["any_time"]
    assert found == {"judged": 30, "real": 26, "at_least": pytest.approx(0.637, abs=0.001), "confidence": 0.95}
    assert figures([], WEEK, 1)["precision"]["any_time"]["at_least"] is None


@pytest.mark.parametrize(
    ("k", "n", "bound"), [(0, 5, 0.0), (1, 1, 0.033), (11, 11, 0.708), (20, 30, 0.399), (900, 1000, 0.867)]
)
def test_bounds_at_any_time_are_the_lower_ones(k: int, n: int, bound: float) -> None:
    found = proportion_at_any_time(k, n)
    assert found == pytest.approx(bound, abs=0.001)
    assert found <= proportion_at_least(k, n) <= k / n


def test_a_bound_at_any_time_is_rarely_wrong() -> None:
    """Looks after each of 300 judgements. By the bound of one look, a quarter of the fleets would be misjudged."""
    draw = np.random.default_rng(11)
    real = (draw.random((4000, 300)) < 0.7).cumsum(1)
    n = np.arange(1, 301)
    least = {name: np.full(301, 301) for name in ("any_time", "one_look")}  # fewest real ones that show 70 %, by n
    for judged in n:
        for name, bound in (("any_time", proportion_at_any_time), ("one_look", proportion_at_least)):
            low, high = 0, int(judged) + 1
            while high - low > 1:
                middle = (low + high) // 2
                low, high = (low, middle) if bound(middle, int(judged)) > 0.7 else (middle, high)
            least[name][judged] = high
    wrong = {name: float((real >= fewest[n]).any(1).mean()) for name, fewest in least.items()}
    assert 0.01 < wrong["any_time"] <= 0.05
    assert wrong["one_look"] > 0.2


def test_weeks_are_iso_weeks_with_their_own_figures() -> None:
    within = Range(MONDAY_US - 24 * HOUR_US, MONDAY_US + WEEK_US + 12 * HOUR_US)
    alarms = [alarm(-60), alarm(0), alarm(60), alarm(7 * 24 * 60, severity="critical")]
    found = figures(alarms, within, 2)
    assert [(week["week"], week["alarms"]) for week in found["weeks"]] == [
        ("2024-W47", 1),
        ("2024-W48", 2),
        ("2024-W49", 1),
    ]
    assert [week["alarms_per_asset_week"] for week in found["weeks"]] == [3.5, 1.0, 7.0]
    assert found["weeks"][2]["critical_share"] == 1


def test_each_target_stands_beside_its_value() -> None:
    found = figures([alarm(0, f"s{each}", lasts=None) for each in range(20)], WEEK, 1)
    targets = {each["figure"]: each for each in found["targets"]}
    assert targets["alarms_per_hour"]["is_met"] is True
    assert targets["top_share"] == {
        "figure": "top_share",
        "meaning": "share of the ten most frequent",
        "value": 0.5,
        "target": "≤ 5 %",
        "source": "ISA",
        "is_met": False,
    }


def test_nothing_at_all_has_no_shares() -> None:
    found = figures([], WEEK, 0)
    assert (found["alarms"], found["peak"], found["flood_share"]) == (0, 0, 0)
    assert found["top_share"] is found["critical_share"] is found["alarms_per_asset_week"] is None
    assert found["precision"]["at_least"] is None
    assert {each["is_met"] for each in found["targets"]} == {True, None}
    empty = figures([], Range(MONDAY_US, MONDAY_US), 1)
    assert (empty["alarms_per_hour"], empty["weeks"]) == (0.0, [])


# ---------------------------------------------------------------- the binomial bound


@pytest.mark.parametrize(
    ("k", "n", "bound"), [(0, 5, 0), (1, 1, 0.05), (20, 20, 0.05 ** (1 / 20)), (5, 10, 0.22244), (9, 10, 0.60584)]
)
def test_the_bound_has_known_values(k: int, n: int, bound: float) -> None:
    assert proportion_at_least(k, n) == pytest.approx(bound, abs=1e-5)


@pytest.mark.parametrize(("k", "n"), [(3, 7), (1, 300), (299, 300), (180, 400)])
def test_the_bound_is_where_the_tail_is_five_percent(k: int, n: int) -> None:
    p = proportion_at_least(k, n)
    tail = math.fsum(math.comb(n, i) * p**i * (1 - p) ** (n - i) for i in range(k, n + 1))
    assert tail == pytest.approx(0.05, rel=1e-9)


def test_the_bound_of_many_approaches_the_normal_one() -> None:
    n, k = 1_000_000, 900_000
    assert proportion_at_least(k, n) == pytest.approx(0.9 - 1.6449 * math.sqrt(0.09 / n), abs=2e-6)


@pytest.mark.parametrize(("k", "n"), [(0, 0), (-1, 4), (5, 4)])
def test_no_proportion_is_refused(k: int, n: int) -> None:
    with pytest.raises(ValueError, match="is no proportion"):
        proportion_at_least(k, n)
