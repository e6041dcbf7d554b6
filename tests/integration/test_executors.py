"""Executors: results in order, equal for all of them, errors that cost one item, and workers that end."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import time
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from monitor.errors import ConfigError
from monitor.models.spec import ModelSpec
from monitor.training.executors import EXECUTORS, Failure, map_ordered
from monitor.training.fleet_fit import Workers, fit_fleet
from tests.executor_items import dies_on_one, fails_on_two, square
from tests.unit.training.sine_windows import FLEET_SPEC, readings, windows

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

HAS_RAY = importlib.util.find_spec("ray") is not None
of_each_executor = pytest.mark.parametrize(
    "executor",
    [pytest.param(name, marks=pytest.mark.skipif(name == "ray" and not HAS_RAY, reason="extra `ray`"))
     for name in EXECUTORS],
)  # fmt: skip


@of_each_executor
def test_results_come_in_the_order_of_the_items(executor: str) -> None:
    assert map_ordered(square, range(7), executor, 2) == [0, 1, 4, 9, 16, 25, 36]
    assert map_ordered(square, [], executor, 2) == []


@of_each_executor
def test_an_error_costs_no_other_item_its_result(executor: str) -> None:
    found = map_ordered(fails_on_two, range(5), executor, 2)
    assert found[:2] + found[4:] == [0, 1, 4]
    assert found[2] == Failure("NotEnoughData", "two is too few")
    assert found[3] == Failure("KeyError", "KeyError('three')")


@pytest.mark.parametrize("executor", [
    "pool", pytest.param("ray", marks=pytest.mark.skipif(not HAS_RAY, reason="extra `ray`")),
])  # fmt: skip
def test_a_worker_that_dies_costs_no_other_item_its_result(executor: str) -> None:
    found = map_ordered(dies_on_one, range(5), executor, 2)
    assert [found[0], *found[2:]] == [0, 2, 3, 4]
    assert isinstance(found[1], Failure)
    assert found[1].error == "WorkerDied"


@of_each_executor
def test_every_executor_gives_the_same_version(executor: str) -> None:
    train = replace(windows(readings(300, 0), readings(300, 1)), assets=("north", "south"))
    spec = replace(FLEET_SPEC, budget=replace(FLEET_SPEC.budget, alarms_per_week=100.0))
    here = fit_fleet(train, ModelSpec("pca"), spec, scope="asset")
    there = fit_fleet(train, ModelSpec("pca"), spec, scope="asset", workers=Workers(executor, 2))
    assert there.version == here.version
    assert list(there.own) == ["north", "south"]


def test_items_are_made_when_a_worker_is_free() -> None:
    n_ahead, n_made, n_done = 0, 0, 0

    def items() -> Iterator[int]:
        nonlocal n_made, n_ahead
        for number in range(8):
            n_made += 1
            n_ahead = max(n_ahead, n_made - n_done)
            yield number

    def on_done(n: int) -> None:
        nonlocal n_done
        n_done = n

    assert map_ordered(square, items(), "pool", 2, on_done) == [square(number) for number in range(8)]
    assert n_done == 8
    assert n_ahead <= 2


def test_an_unknown_executor_is_refused_with_the_valid_ones() -> None:
    with pytest.raises(ConfigError, match=r"threads.*serial, pool, ray"):
        map_ordered(square, [1], "threads", 2)


def test_a_missing_ray_is_told_with_the_fix(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)  # its import fails
    with pytest.raises(ConfigError, match=r"sensor-anomaly-monitor\[ray\]"):
        map_ordered(square, [1], "ray", 2)


def test_workers_end_with_a_caller_that_is_killed(tmp_path: Path) -> None:
    files = [tmp_path / str(number) for number in range(2)]
    code = (
        "from monitor.training.executors import map_ordered; from tests.executor_items import writes_its_pid; "
        "import sys; map_ordered(writes_its_pid, sys.argv[1:], 'pool', 2)"
    )
    caller = subprocess.Popen([sys.executable, "-c", code, *map(str, files)])
    try:
        until_s = time.monotonic() + 120
        while not all(file.exists() and file.read_text() for file in files):
            assert time.monotonic() < until_s, "the workers did not start"
            time.sleep(0.05)
        pids = [int(file.read_text()) for file in files]
        assert all(is_running(pid) for pid in pids)
    finally:
        caller.kill()
        caller.wait()
    until_s = time.monotonic() + 10
    while any(is_running(pid) for pid in pids):
        assert time.monotonic() < until_s, "a worker outlived its caller"
        time.sleep(0.05)


def is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
