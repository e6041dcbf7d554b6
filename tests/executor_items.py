"""Functions that the tests of executors apply in worker processes. They import little, so that a worker starts soon."""

from __future__ import annotations

import os
import signal
import time

from monitor.errors import NotEnoughData


def square(number: int) -> int:
    return number * number


def fails_on_two(number: int) -> int:
    if number == 2:
        raise NotEnoughData("two is too few")
    if number == 3:
        raise KeyError("three")
    return number


def dies_on_one(number: int) -> int:
    if number == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    return number


def writes_its_pid(path: str) -> None:
    with open(path, "w") as file:  # noqa: PTH123
        file.write(str(os.getpid()))
    time.sleep(600)
