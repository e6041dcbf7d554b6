"""One function applied to many items, one after the other or in several processes, with results in their order.

Input: a picklable function of a module, and items. Output: for each item a result or a `Failure`, in the order of the
items. Invariant: the results do not depend on the executor. An item that raises, or whose process dies, costs no other
its result. No worker outlives its caller, however that ends.

    serial   in this process
    pool     processes of this machine that begin with a fresh interpreter: torch does not survive a fork
    ray      tasks of a Ray cluster, that of RAY_ADDRESS or one on this machine (extra `ray`)

At most `workers` items are in memory besides the results: items come from an iterator, each when a worker is free.
"""

from __future__ import annotations

import importlib
import multiprocessing
import os
import threading
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.connection import wait
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from monitor.errors import ConfigError, MonitorError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from multiprocessing.connection import Connection
    from multiprocessing.context import SpawnProcess

T = TypeVar("T")
R = TypeVar("R")

EXECUTORS = ("serial", "pool", "ray")
THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
"""One thread for each worker: several processes with several threads each were twenty times slower on two cores."""


@dataclass(frozen=True, slots=True)
class Failure:
    """An item without a result."""

    error: str
    """Name of the exception's class, or `WorkerDied`."""
    why: str


def map_ordered(
    function: Callable[[T], R],
    items: Iterable[T],
    executor: str = "serial",
    workers: int = 1,
    on_done: Callable[[int], None] = lambda _n_done: None,
) -> list[R | Failure]:
    """Apply a function of a module to each item. `on_done` gets the number of items done so far.

    Raises ConfigError for `ray` where it is not installed.
    """
    if executor not in EXECUTORS:
        raise ConfigError(f'executor "{executor}" is not one of {", ".join(EXECUTORS)}')
    with _lanes(executor, workers) as lanes:
        results: dict[int, R | Failure] = {}
        queue, free, n_given, is_empty = iter(items), list(lanes), 0, False
        while not is_empty or len(results) < n_given:
            while free and not is_empty:
                try:
                    item = next(queue)
                except StopIteration:
                    is_empty = True
                    break
                free.pop().give(n_given, function, item)
                del item
                n_given += 1
            if len(results) < n_given:
                for lane, number, result in _finished(lanes):
                    results[number] = result
                    free.append(lane)
                    on_done(len(results))
    return [results[number] for number in range(n_given)]


class _Lane(Protocol):
    """A place where one item at a time is worked on."""

    def give(self, number: int, function: Callable[[Any], Any], item: object) -> None:
        """Begin with an item."""

    def finished(self) -> tuple[int, Any] | None:
        """Return the number of an item and its result, if it is done. None = not yet, or nothing was given."""

    @property
    def signals(self) -> list[Any]:
        """Objects of which one is ready when the item may be done. None = `finished` itself waits for a moment."""

    def close(self) -> None:
        """End it, done or not."""


@contextmanager
def _lanes(executor: str, workers: int) -> Iterator[list[_Lane]]:
    if executor == "ray":
        with _ray_lanes(max(1, workers)) as rays:
            yield list(rays)
        return
    # One worker process would do what this process can do by itself.
    lanes: list[_Lane] = [_Here()] if executor == "serial" or workers <= 1 else [_Process() for _ in range(workers)]
    try:
        yield lanes
    finally:
        for lane in lanes:
            lane.close()


def _finished(lanes: list[_Lane]) -> list[tuple[_Lane, int, Any]]:
    """Wait until at least one lane is done."""
    while True:
        done = [(lane, *found) for lane in lanes if (found := lane.finished()) is not None]
        if done:
            return done
        if signals := [signal for lane in lanes for signal in lane.signals]:
            wait(signals)


def attempt(function: Callable[[T], R], item: T) -> R | Failure:
    """Apply the function. An error is a result."""
    try:
        return function(item)
    except Exception as error:  # noqa: BLE001  one asset's error, of whatever library, must not lose the others
        text = error.detail or str(error) if isinstance(error, MonitorError) else repr(error)
        return Failure(type(error).__name__, text)


# ---------------------------------------------------------------- serial


class _Here:
    """This process."""

    def __init__(self) -> None:
        self._done: tuple[int, Any] | None = None

    def give(self, number: int, function: Callable[[Any], Any], item: object) -> None:
        self._done = (number, attempt(function, item))

    def finished(self) -> tuple[int, Any] | None:
        done, self._done = self._done, None
        return done

    @property
    def signals(self) -> list[Any]:
        return []  # `give` returns with the result

    def close(self) -> None:
        self._done = None


# ---------------------------------------------------------------- pool


class _Process:
    """A worker process, started with its first item, and again after it died."""

    def __init__(self) -> None:
        self._process: SpawnProcess | None = None
        self._pipe: Connection | None = None
        self._number: int | None = None

    def give(self, number: int, function: Callable[[Any], Any], item: object) -> None:
        if self._process is None or not self._process.is_alive():
            self._start()
        self._number = number
        with suppress(OSError):  # it just died: `finished` finds out
            self._connection.send((function, item))

    def finished(self) -> tuple[int, Any] | None:
        number, process = self._number, self._process
        if number is None or process is None:
            return None
        # Asked before the pipe: a result that was sent before the end is still in the pipe.
        has_ended = not process.is_alive()
        with suppress(EOFError, OSError):
            if self._connection.poll():
                result = self._connection.recv()
                self._number = None
                return number, result
            if not has_ended:
                return None
        process.join()
        why = f"its worker process ended with exit status {process.exitcode}"
        self.close()
        return number, Failure("WorkerDied", f"{why}: killed, or out of memory" if process.exitcode == -9 else why)

    @property
    def signals(self) -> list[Any]:
        return [] if self._process is None or self._number is None else [self._connection, self._process.sentinel]

    def close(self) -> None:
        self._number = None
        if self._process is not None:
            self._process.kill()
            self._process.join()
            self._connection.close()
        self._process = self._pipe = None

    @property
    def _connection(self) -> Connection:
        if self._pipe is None:
            raise MonitorError("the worker process has no pipe")
        return self._pipe

    def _start(self) -> None:
        self.close()
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        with _environment(dict.fromkeys(THREADS, "1")):
            self._process = context.Process(target=_work, args=(theirs,), daemon=True)
            self._process.start()
        theirs.close()


def _work(pipe: Connection) -> None:
    """Run in a worker: answer items until the caller ends."""
    threading.Thread(target=_exit_with_caller, daemon=True).start()
    with suppress(EOFError, OSError):
        while True:
            function, item = pipe.recv()
            result = attempt(function, item)
            del item
            pipe.send(result)


def _exit_with_caller() -> None:
    """Exit when the caller's process ends, even if it was killed: a worker may be busy for minutes."""
    caller = multiprocessing.parent_process()
    if caller is not None:
        wait([caller.sentinel])
    os._exit(1)


@contextmanager
def _environment(values: dict[str, str]) -> Iterator[None]:
    """Set variables that the processes started in the body inherit."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


# ---------------------------------------------------------------- ray

POLL_S = 0.2


@contextmanager
def _ray_lanes(workers: int) -> Iterator[list[_RayLane]]:
    """Connect to the cluster of RAY_ADDRESS, or start one on this machine. Raises ConfigError where Ray is missing.

    `max_retries=0`: a training that killed its worker would kill the next one as well. A worker serves many tasks: with
    a fresh one for each, sixteen trainings of half a second took 193 s, most of it importing torch.
    """
    try:
        ray = importlib.import_module("ray")
    except ImportError as cause:
        raise ConfigError(
            'retrain.executor "ray" needs Ray: install sensor-anomaly-monitor[ray], or use "pool"'
        ) from cause
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # it reports to its maker otherwise
    runtime = {"env_vars": dict.fromkeys(THREADS, "1")}
    if os.environ.get("RAY_ADDRESS"):
        ray.init(log_to_driver=False, runtime_env=runtime)
    else:
        ray.init(num_cpus=workers, include_dashboard=False, log_to_driver=False, runtime_env=runtime)
    task = ray.remote(num_cpus=1, max_retries=0)(attempt)
    lanes = [_RayLane(ray, task) for _ in range(workers)]
    try:
        yield lanes
    finally:
        for lane in lanes:
            lane.close()
        ray.shutdown()


class _RayLane:
    """One task at a time."""

    def __init__(self, ray: Any, task: Any) -> None:
        self._ray, self._task = ray, task
        self._number: int | None = None
        self._reference: Any = None

    def give(self, number: int, function: Callable[[Any], Any], item: object) -> None:
        self._number, self._reference = number, self._task.remote(function, item)

    def finished(self) -> tuple[int, Any] | None:
        if self._number is None:
            return None
        ready, _ = self._ray.wait([self._reference], timeout=POLL_S)
        if not ready:
            return None
        number, self._number = self._number, None
        try:
            return number, self._ray.get(self._reference)
        except self._ray.exceptions.RayError as error:
            return number, Failure("WorkerDied", str(error).splitlines()[0])
        finally:
            self._reference = None

    @property
    def signals(self) -> list[Any]:
        return []  # `finished` waits

    def close(self) -> None:
        if self._number is not None:
            self._ray.cancel(self._reference, force=True)
        self._number = self._reference = None
