"""A blocked event loop is logged once, with its stack, by a thread outside it."""

from __future__ import annotations

import asyncio
import threading
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
import structlog

from monitor import metrics
from monitor.service.watchdog import LoopWatch
from monitor.timing import DEFAULT_TIMING

if TYPE_CHECKING:
    from collections.abc import Iterator


class Watch:
    """A watch with a clock that tests set. `turn` is called by the loop, `check` by the thread."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.turns: list[float] = []
        self.watch = LoopWatch(self.turns.append, session_s=30.0, monotonic=lambda: self.now)

    def turn(self, after_s: float = 0.5) -> None:
        self.now += after_s
        self.watch.record_turn(self.now)

    def check(self, after_s: float = 0.5) -> None:
        self.now += after_s
        self.watch.check(self.now)

    def block(self, seconds: float) -> None:
        """Let the thread check while the loop does not turn."""
        for _ in range(round(seconds / 0.5)):
            self.check()


@pytest.fixture
def logged() -> Iterator[list[dict[str, Any]]]:
    with structlog.testing.capture_logs() as events:
        yield events  # type: ignore[misc]


def names(logged: list[dict[str, Any]]) -> list[str]:
    return [event["event"] for event in logged]


def test_a_turning_loop_logs_nothing(logged: list[dict[str, Any]]) -> None:
    loop = Watch()
    for _ in range(100):
        loop.turn(0.25)
        loop.check(0.25)
    assert not logged
    assert len(loop.turns) == 100
    assert loop.watch.worst_lag_s(loop.now) == 0.0


def test_a_block_is_logged_once_and_its_end_with_its_length(logged: list[dict[str, Any]]) -> None:
    before = metrics.registry.get_sample_value("monitor_loop_blocked_total")
    loop = Watch()
    loop.turn()
    loop.block(9)
    loop.turn(0.1)
    loop.check()
    for _ in range(20):
        loop.turn(0.25)
        loop.check(0.25)
    assert names(logged) == ["loop_blocked", "loop_free"]
    assert logged[0]["seconds"] == pytest.approx(DEFAULT_TIMING.loop_blocked_after_s, abs=0.6)
    assert logged[1]["after_s"] == pytest.approx(9.1, abs=0.01)
    assert logged[1]["partitions_may_be_lost"] is False
    assert metrics.registry.get_sample_value("monitor_loop_blocked_total") == (before or 0) + 1


def test_a_block_of_half_a_session_puts_partitions_at_risk(logged: list[dict[str, Any]]) -> None:
    loop = Watch()
    loop.block(20)
    loop.turn()
    loop.check()
    assert names(logged) == ["loop_blocked", "partitions_at_risk", "loop_free"]
    assert logged[1]["seconds"] == pytest.approx(15, abs=0.6)
    assert logged[2]["partitions_may_be_lost"] is True


def test_a_second_block_is_logged_again(logged: list[dict[str, Any]]) -> None:
    loop = Watch()
    for _ in range(2):
        loop.block(6)
        loop.turn()
        loop.check()
    assert names(logged) == ["loop_blocked", "loop_free"] * 2


def test_a_process_without_cpu_is_not_a_blocked_loop(logged: list[dict[str, Any]]) -> None:
    loop = Watch()
    loop.turn()
    loop.check(40)  # SIGSTOP: the thread did not run either
    loop.check()
    loop.turn()
    loop.check()
    assert names(logged) == ["process_stood_still"]
    assert logged[0]["seconds"] == 40.5


def test_a_loop_still_blocked_after_a_stall_is_logged(logged: list[dict[str, Any]]) -> None:
    loop = Watch()
    loop.check(40)
    loop.block(6)
    assert names(logged) == ["process_stood_still", "loop_blocked"]


def test_the_worst_lag_covers_the_last_minute_and_now() -> None:
    loop = Watch()
    loop.turn(2.5)
    assert loop.watch.worst_lag_s(loop.now) == 2.0
    for _ in range(60):
        loop.turn()
    assert loop.watch.worst_lag_s(loop.now) == 2.0
    for _ in range(61):
        loop.turn()
    assert loop.watch.worst_lag_s(loop.now) == 0.0
    loop.now += 4.0
    assert loop.watch.worst_lag_s(loop.now) == 3.5


async def test_a_defect_of_on_turn_is_logged_once_and_is_no_block(logged: list[dict[str, Any]]) -> None:
    n = 0
    often = asyncio.Event()

    def fails_later(_now: float) -> None:
        nonlocal n
        n += 1
        if n == 5:
            often.set()
        if n > 1:
            raise ValueError("by the test")

    async with LoopWatch(fails_later, timing=replace(DEFAULT_TIMING, loop_turn_every_s=0.01)) as watch:
        await often.wait()
        assert watch.silent_s(time.monotonic()) < 1
    assert names(logged) == ["health_unknown"]


async def test_the_stack_names_the_blocking_function_and_no_values(logged: list[dict[str, Any]]) -> None:
    def blocks_the_loop(password: str) -> None:
        deadline = time.monotonic() + 5
        while not logged and time.monotonic() < deadline:
            time.sleep(0.01)

    async with LoopWatch(timing=replace(DEFAULT_TIMING, loop_turn_every_s=0.02, loop_blocked_after_s=0.1)):
        await asyncio.sleep(0.05)
        blocks_the_loop("s3cret")
        await asyncio.sleep(0.1)
    assert names(logged) == ["loop_blocked", "loop_free"]
    assert any("test_watchdog.py" in place and "blocks_the_loop" in place for place in logged[0]["stack"])
    assert "s3cret" not in str(logged)
    assert not [thread for thread in threading.enumerate() if thread.name == "watchdog"]
