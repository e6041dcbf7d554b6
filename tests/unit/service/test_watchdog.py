"""A loop that stands still is noticed from outside it, with its stack, once."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest
import structlog

from monitor import metrics
from monitor.service import watchdog
from monitor.service.watchdog import BLOCKED_S, LoopWatch

if TYPE_CHECKING:
    from collections.abc import Iterator


class Watch:
    """A watch whose time is moved by hand: `turn` is the loop, `look` the thread."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.turns: list[float] = []
        self.watch = LoopWatch(self.turns.append, session_s=30.0, monotonic=lambda: self.now)

    def turn(self, after_s: float = 0.5) -> None:
        self.now += after_s
        self.watch.turned(self.now)

    def look(self, after_s: float = 0.5) -> None:
        self.now += after_s
        self.watch.look(self.now)

    def block(self, seconds: float) -> None:
        """The thread goes on looking, and the loop does not turn."""
        for _ in range(round(seconds / 0.5)):
            self.look()


@pytest.fixture
def said() -> Iterator[list[dict[str, Any]]]:
    with structlog.testing.capture_logs() as events:
        yield events  # type: ignore[misc]


def names(said: list[dict[str, Any]]) -> list[str]:
    return [event["event"] for event in said]


def test_a_turning_loop_is_no_news(said: list[dict[str, Any]]) -> None:
    at = Watch()
    for _ in range(100):
        at.turn(0.25)
        at.look(0.25)
    assert not said
    assert len(at.turns) == 100
    assert at.watch.worst_lag_s(at.now) == 0.0


def test_a_block_is_told_once_with_the_stack_and_its_end_with_how_long_it_was(said: list[dict[str, Any]]) -> None:
    before = metrics.registry.get_sample_value("monitor_loop_blocked_total")
    at = Watch()
    at.turn()
    at.block(9)
    at.turn(0.1)
    at.look()
    for _ in range(20):
        at.turn(0.25)
        at.look(0.25)
    assert names(said) == ["loop_blocked", "loop_free"]
    assert said[0]["seconds"] == pytest.approx(BLOCKED_S, abs=0.6)
    assert said[1]["after_s"] == pytest.approx(9.1, abs=0.01)
    assert said[1]["partitions_may_be_lost"] is False
    assert metrics.registry.get_sample_value("monitor_loop_blocked_total") == (before or 0) + 1


def test_a_block_of_half_a_session_says_that_partitions_are_at_risk(said: list[dict[str, Any]]) -> None:
    at = Watch()
    at.block(20)
    at.turn()
    at.look()
    assert names(said) == ["loop_blocked", "partitions_at_risk", "loop_free"]
    assert said[1]["seconds"] == pytest.approx(15, abs=0.6)
    assert said[2]["partitions_may_be_lost"] is True


def test_a_second_block_is_told_again(said: list[dict[str, Any]]) -> None:
    at = Watch()
    for _ in range(2):
        at.block(6)
        at.turn()
        at.look()
    assert names(said) == ["loop_blocked", "loop_free"] * 2


def test_a_process_without_cpu_does_not_blame_the_loop(said: list[dict[str, Any]]) -> None:
    at = Watch()
    at.turn()
    at.look(40)  # SIGSTOP: the thread did not look either
    at.look()
    at.turn()
    at.look()
    assert names(said) == ["process_stood_still"]
    assert said[0]["seconds"] == 40.5


def test_a_loop_that_stays_away_after_the_process_came_back_is_told(said: list[dict[str, Any]]) -> None:
    at = Watch()
    at.look(40)
    at.block(6)
    assert names(said) == ["process_stood_still", "loop_blocked"]


def test_the_worst_lag_is_that_of_the_last_minute_and_of_now() -> None:
    at = Watch()
    at.turn(2.5)
    assert at.watch.worst_lag_s(at.now) == 2.0
    for _ in range(60):
        at.turn()
    assert at.watch.worst_lag_s(at.now) == 2.0
    for _ in range(61):
        at.turn()
    assert at.watch.worst_lag_s(at.now) == 0.0
    at.now += 4.0
    assert at.watch.worst_lag_s(at.now) == 3.5


async def test_a_defect_in_what_is_told_each_turn_is_logged_once_and_the_loop_still_counts_as_turning(
    said: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watchdog, "TURN_EVERY_S", 0.01)
    n = 0
    often = asyncio.Event()

    def fails_later(_now: float) -> None:
        nonlocal n
        n += 1
        if n == 5:
            often.set()
        if n > 1:
            raise ValueError("by the test")

    async with LoopWatch(fails_later) as watch:
        await often.wait()
        assert watch.silent_s(time.monotonic()) < 1
    assert names(said) == ["health_unknown"]


async def test_the_stack_names_what_holds_the_loop_up_and_shows_no_values(
    said: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watchdog, "TURN_EVERY_S", 0.02)
    monkeypatch.setattr(watchdog, "BLOCKED_S", 0.1)

    def holds_the_loop_up(password: str) -> None:
        deadline = time.monotonic() + 5
        while not said and time.monotonic() < deadline:
            time.sleep(0.01)

    async with LoopWatch():
        await asyncio.sleep(0.05)
        holds_the_loop_up("s3cret")
        await asyncio.sleep(0.1)
    assert names(said) == ["loop_blocked", "loop_free"]
    assert any("test_watchdog.py" in place and "holds_the_loop_up" in place for place in said[0]["stack"])
    assert "s3cret" not in str(said)
    assert not [thread for thread in threading.enumerate() if thread.name == "watchdog"]
