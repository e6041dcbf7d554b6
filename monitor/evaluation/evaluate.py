"""`monitor evaluate`: every series by every method, over several processes.

Input: an `EvaluationPlan`. Output: a `MethodResult` for each series and method, in the order asked for.
Invariants: a file that cannot be read, a series that cannot be trained on, and even a defect of this program give a
result with an error. The other evaluations go on. The same files, methods and settings give the same figures for any
number of processes, unless a time budget cuts training short.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
import traceback
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from monitor import logs
from monitor.config.tree import AlertConfig
from monitor.errors import BadRecording, MonitorError, NotFound
from monitor.evaluation.assess import assess_alerts, assess_ranking
from monitor.evaluation.methods import Method, score
from monitor.evaluation.plots import plot_series
from monitor.evaluation.result_cache import ResultCache
from monitor.evaluation.results import MethodResult
from monitor.evaluation.series import ReadOptions, RejectedSeries, read_series
from monitor.recordings.recording import stem
from monitor.stream.alerting import AlertPolicy

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from multiprocessing.process import BaseProcess

    from monitor.evaluation.methods import MethodScores
    from monitor.evaluation.plan import EvaluationPlan
    from monitor.evaluation.series import Series

    OnProgress = Callable[[float, str], None]
    Task = tuple[Path, tuple[Method, ...]]
    """A file, and methods that train the same model under different names."""

T = TypeVar("T")


def evaluate(
    plan: EvaluationPlan, *, processes: int | None = None, on_progress: Callable[[float | None, str], None]
) -> list[MethodResult]:
    """Evaluate every series by every method. `processes`: None = one per core."""
    by_model: dict[Any, list[Method]] = {}
    for method in plan.methods:  # methods that train the same model are trained once
        by_model.setdefault(method.spec or method.name, []).append(method)
    tasks = [(path, tuple(methods)) for path in plan.paths for methods in by_model.values()]
    n_processes = min(processes or os.cpu_count() or 1, len(tasks))
    words = "one process" if n_processes == 1 else f"{n_processes} processes"
    on_progress(0.0, f"{len(tasks)} evaluations in {words}")
    if n_processes > 1:
        return _in_plan_order(plan, _run_in_processes(plan, tasks, n_processes, on_progress))
    results: dict[int, list[MethodResult]] = {}
    for number, (path, methods) in enumerate(tasks):

        def show(share: float, text: str, at: float = number, name: str = f"{path.name} {methods[0].name}") -> None:
            on_progress((at + share) / len(tasks), f"{name}: {text}")

        results[number] = _run_task(plan, path, methods, show)
        on_progress((number + 1) / len(tasks), str(results[number][-1]))
    return _in_plan_order(plan, results)


def _in_plan_order(plan: EvaluationPlan, results: dict[int, list[MethodResult]]) -> list[MethodResult]:
    """Sort by series and then by method, in the plan's order. The assets of one file are series of their own."""
    found = [one for number in sorted(results) for one in results[number]]
    series_order = {key: place for place, key in enumerate(dict.fromkeys(one.key for one in found))}
    method_order = {method.name: place for place, method in enumerate(plan.methods)}
    return sorted(found, key=lambda one: (series_order[one.key], method_order[one.method]))


# ---------------------------------------------------------------- processes


def _run_in_processes(
    plan: EvaluationPlan, tasks: Sequence[Task], n_processes: int, on_progress: OnProgress
) -> dict[int, list[MethodResult]]:
    """Return the results of each task. If a process is killed, the unfinished tasks of all fail."""
    results: dict[int, list[MethodResult]] = {}
    others = set(multiprocessing.active_children())
    context = multiprocessing.get_context("spawn")  # a fork would share torch's threads
    with _sigterm_exits(), _safe_path():
        pool = ProcessPoolExecutor(n_processes, mp_context=context, initializer=_start_worker)
        try:
            running = {pool.submit(_run_task, plan, path, methods): n for n, (path, methods) in enumerate(tasks)}
            for future in as_completed(running):
                number = running[future]
                try:
                    results[number] = future.result()
                except BrokenProcessPool:
                    results[number] = _killed(*tasks[number], n_processes)
                on_progress(len(results) / len(tasks), str(results[number][-1]))
        finally:
            if len(results) < len(tasks):  # interrupted: stop the trainings instead of waiting for them
                for worker in set(multiprocessing.active_children()) - others:
                    worker.terminate()
            pool.shutdown(cancel_futures=True)
    return results


def _killed(path: Path, methods: Sequence[Method], n_processes: int) -> list[MethodResult]:
    words = (
        "an evaluating process was ended from outside, perhaps for want of memory; "
        f"use fewer --processes than {n_processes}, and --into to go on from here"
    )
    return [replace(_empty(path, method), error=words, exit_code=1, is_unexpected=True) for method in methods]


@contextmanager
def _sigterm_exits() -> Iterator[None]:
    """Make SIGTERM raise SystemExit, so that worker processes and semaphores are cleaned up as on an interrupt."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, lambda number, _frame: sys.exit(128 + number))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def _safe_path() -> Iterator[None]:
    """Start Python processes without the working directory in their path: a `logging.py` there is not imported."""
    before = os.environ.get("PYTHONSAFEPATH")
    os.environ["PYTHONSAFEPATH"] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ["PYTHONSAFEPATH"]
        else:
            os.environ["PYTHONSAFEPATH"] = before


def _start_worker() -> None:
    """Prepare a worker process: an interrupt ends it without a traceback, and it ends with its parent."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    threading.Thread(target=_exit_with_parent, args=(multiprocessing.parent_process(),), daemon=True).start()
    logs.configure("error")


def _exit_with_parent(parent: BaseProcess | None) -> None:
    """Exit when the parent has ended. Workers hold both ends of their queue, so a killed parent does not close it."""
    if parent is not None:
        parent.join()
        os._exit(1)


# ---------------------------------------------------------------- one task


def _run_task(
    plan: EvaluationPlan, path: Path, methods: Sequence[Method], on_progress: OnProgress = lambda _share, _text: None
) -> list[MethodResult]:
    """Evaluate the series of a file by methods that train the same model."""
    first = _empty(path, methods[0])
    series = _catch_errors(lambda: _read(path, plan.reading), str(path), first)
    found = [series] if isinstance(series, MethodResult) else [
        _run_series(plan, first, one, on_progress) for one in series
    ]
    return [replace(one, method=method.name) for one in found for method in methods]


def _empty(path: Path, method: Method) -> MethodResult:
    return MethodResult(str(path), path.parent.resolve().name, stem(path), method.name)


def _catch_errors(do: Callable[[], T], place: str, at: MethodResult) -> T | MethodResult:
    """Return the value of `do()`, or `at` with the error, so that the results of the other series are kept."""
    try:
        return do()
    except MonitorError as problem:  # a bad file, not enough data, training that diverged
        names_its_file = isinstance(problem, (BadRecording, NotFound))
        words = str(problem) if names_its_file else f"{place}: {problem}"
        return replace(at, error=words, exit_code=problem.exit_code)
    except Exception as problem:  # noqa: BLE001 - the one of this loop
        where = traceback.extract_tb(problem.__traceback__)[-1]
        words = " ".join(f"{type(problem).__name__}: {problem}".split())
        words = f"unexpected: {place}: {words} ({Path(where.filename).name}:{where.lineno}); please report this"
        return replace(at, error=words, exit_code=MonitorError.exit_code, is_unexpected=True)


@lru_cache(maxsize=1)
def _read(path: Path, options: ReadOptions) -> list[Series | RejectedSeries]:
    """Read a file once for all methods that follow each other in a process."""
    return read_series(path, options)


def _run_series(
    plan: EvaluationPlan, first: MethodResult, series: Series | RejectedSeries, on_progress: OnProgress
) -> MethodResult:
    at = replace(first, set=series.set, name=series.name)
    if isinstance(series, RejectedSeries):
        return replace(at, error=str(series.error), exit_code=series.error.exit_code)
    at = replace(at, train_rows=series.data.train_rows, warnings=series.warnings, notes=series.notes)
    is_only_asset = series.name == stem(Path(series.path))
    place = series.path if is_only_asset else f"{series.path}, {series.name}"
    method = next(method for method in plan.methods if method.name == first.method)
    return _catch_errors(lambda: _assess(plan, at, series, *_score(plan, series, method, on_progress)), place, at)


def _score(
    plan: EvaluationPlan, series: Series, method: Method, on_progress: OnProgress
) -> tuple[MethodScores, bool]:
    """Return the scores, and True if they come from an earlier run."""
    cache = ResultCache(plan.into) if plan.into else None
    if cache and (found := cache.get(series, method, plan.settings)):
        return found, True
    scores = score(method, series.data, plan.settings, on_progress)
    if cache:
        cache.put(series, method, plan.settings, scores)
    return scores, False


def _assess(
    plan: EvaluationPlan, at: MethodResult, series: Series, scores: MethodScores, from_cache: bool
) -> MethodResult:
    base = AlertPolicy.of(AlertConfig())
    alerts, timeline = assess_alerts(series, scores.score, base)
    return replace(
        at,
        ranking=assess_ranking(series, scores.score),
        alerts=alerts,
        by_policy=tuple(assess_alerts(series, scores.score, change.apply_to(base))[0] for change in plan.policies),
        timeline=timeline,
        explained=scores.explained,
        fit_s=scores.fit_s,
        score_s=scores.score_s,
        model=scores.model,
        from_cache=from_cache,
        plot=plot_series(series, scores.score) if plan.with_plots else None,
    )
