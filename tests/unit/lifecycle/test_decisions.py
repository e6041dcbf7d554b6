"""The fate of a trained version, by the mode of promotion and the gate's verdict."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from monitor.config.values import Promotion
from monitor.lifecycle.promotion import decide, decide_shadow, next_comparison
from monitor.types import JobView, VersionInfo

NOW = datetime(2026, 3, 10, 12, 0, tzinfo=UTC)
HOUR = timedelta(hours=1)
DAY_IN_SHADOW = Promotion.parse("shadow:24h")
SHADOW = VersionInfo("v2", "pumps", "shadow", NOW, "x", None)
GOOD = {"passed": True, "why": "it keeps the budget", "n_windows": 500}
BAD = GOOD | {"passed": False, "why": "it breaks the budget"}


@pytest.mark.parametrize(
    ("mode", "state"),
    [("auto", "champion"), ("manual", "candidate"), ("suggest", "candidate"), ("shadow:1h", "shadow")],
)
def test_a_version_that_passed_follows_the_mode(mode: str, state: str) -> None:
    assert decide(Promotion.parse(mode), GOOD, has_champion=True).state == state
    assert decide(Promotion.parse(mode), None, has_champion=True).state == state
    assert decide(Promotion.parse(mode), BAD, has_champion=True).state == "rejected"
    assert decide(Promotion.parse(mode), BAD, has_champion=False).state == "champion", "windows are unscored otherwise"


def ended(at: datetime) -> JobView:
    return JobView(1, "pumps", "done", 1.0, "", at, at, at, kind="judge")


def test_a_shadow_is_compared_four_times_and_at_its_end() -> None:
    at, times = NOW, []
    last = ended(NOW - HOUR)  # of an earlier challenger
    for _ in range(5):
        at = next_comparison(DAY_IN_SHADOW, SHADOW, last).at
        times.append((at - NOW) / HOUR)
        last = ended(at + timedelta(minutes=3))
    assert times == [6, pytest.approx(12.05), pytest.approx(18.1), 24, pytest.approx(30.05)]


def test_a_shadow_is_decided_on_at_its_end() -> None:
    early = decide_shadow(DAY_IN_SHADOW, SHADOW, GOOD, NOW + 23 * HOUR, 200)
    assert (early.state, early.why) == (None, "the comparison ends at 2026-03-11 12:00 UTC")
    assert decide_shadow(DAY_IN_SHADOW, SHADOW, GOOD, NOW + 24 * HOUR, 200).state == "champion"
    assert decide_shadow(DAY_IN_SHADOW, SHADOW, BAD, NOW + 24 * HOUR, 200).state == "rejected"


def test_a_shadow_with_few_windows_waits_for_three_periods() -> None:
    few, fewer = GOOD | {"n_windows": 50}, GOOD | {"n_windows": 10}
    waiting = decide_shadow(DAY_IN_SHADOW, SHADOW, few, NOW + 71 * HOUR, 200)
    assert (waiting.state, waiting.why) == (None, "50 windows are too few to decide on, 200 are needed")
    assert decide_shadow(DAY_IN_SHADOW, SHADOW, few, NOW + 72 * HOUR, 200).state == "champion"
    at_last = decide_shadow(DAY_IN_SHADOW, SHADOW, fewer, NOW + 72 * HOUR, 200)
    assert (at_last.state, "only 10 windows" in at_last.why) == ("rejected", True)


def test_a_shadow_under_another_mode_is_decided_on_at_once() -> None:
    auto = Promotion.parse("auto")
    assert next_comparison(auto, SHADOW, None).at <= NOW + timedelta(minutes=1)
    assert decide_shadow(auto, SHADOW, GOOD, NOW, 200).state == "champion"
