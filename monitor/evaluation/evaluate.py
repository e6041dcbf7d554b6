"""`monitor evaluate`: labelled recordings × methods, over several processes.

In: files, methods, settings. Out: a `Finished` for each series and method, in the order asked for, and their means.
The law: one series that cannot be learnt or read, and even a defect of ours, is a row with its error and stops nobody;
the same files, methods and settings give the same figures, whatever the number of processes (unless a time budget cuts
training short).
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import statistics
import sys
import threading
import traceback
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from monitor import logs
from monitor.config.tree import AlertConfig
from monitor.errors import BadRecording, MonitorError, NotFound
from monitor.evaluation.assess import Alarms, Course, Figures, alarms, figures
from monitor.evaluation.methods import Method, Settings, parse_methods, score
from monitor.evaluation.report.picture import Picture, picture
from monitor.evaluation.result_cache import Kept
from monitor.evaluation.series import Reading, Refused, read_series
from monitor.recordings.recording import stem
from monitor.stream.shard import alert_policy

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from multiprocessing.process import BaseProcess

    from monitor.evaluation.methods import Scored
    from monitor.evaluation.policy import PolicyChange
    from monitor.evaluation.series import Series

    Key = tuple[str, str]
    """A series: its file as it was given, and its name; folders and names may be alike."""
    Show = Callable[[float, str], None]
    Task = tuple[Path, tuple[Method, ...]]

T = TypeVar("T")

MEANS = ("vus_pr", "auc_pr", "auc_roc", "range_f1", "range_precision", "range_recall", "alarmed_share", "delay_s",
         "fit_s", "score_s")  # fmt: skip
"""Figures of a series whose mean says something; alarms are pooled within a set, since most recordings are short."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What to evaluate, and how."""

    paths: tuple[Path, ...]
    methods: tuple[Method, ...]
    settings: Settings = field(default_factory=Settings)
    reading: Reading = field(default_factory=Reading)
    policies: tuple[PolicyChange, ...] = ()
    """To decide by beside the default."""
    into: Path | None = None
    """Folder of finished scores; None = nothing is kept."""
    with_pictures: bool = False


@dataclass(frozen=True, slots=True)
class Finished:
    """A series and a method: what came of it, or why nothing did."""

    path: str
    """The file, as it was given."""
    set: str
    name: str
    method: str
    train_rows: int | None = None
    figures: Figures | None = None
    alarms: Alarms | None = None
    """By the default policy."""
    policies: tuple[Alarms, ...] = ()
    """By the plan's, in their order."""
    course: Course | None = None
    fit_s: float | None = None
    score_s: float | None = None
    model: dict[str, Any] = field(default_factory=dict)
    was_kept: bool = False
    """The scores were there from an earlier run."""
    picture: Picture | None = None
    error: str | None = None
    exit_code: int = 0
    """Of the error."""
    is_unexpected: bool = False
    """The error is a defect of ours, or a process was killed: the run as a whole has failed."""
    warnings: tuple[str, ...] = ()
    """What an operator should know before believing the figures."""

    @property
    def key(self) -> Key:
        """Tell the series from those of the same name."""
        return self.path, self.name

    def __str__(self) -> str:
        known = self.error or (self.figures and self.figures.vus_pr and f"VUS-PR {self.figures.vus_pr:.3f}") or "done"
        return f"{self.set}/{self.name} {self.method}: {known}"

    def row(self) -> dict[str, Any]:
        """Return what `--json` says of it."""
        empty = dict.fromkeys((*Figures.__dataclass_fields__, *Alarms.__dataclass_fields__))
        known = {**(asdict(self.figures) if self.figures else {}), **(asdict(self.alarms) if self.alarms else {})}
        return {
            "path": self.path,
            "set": self.set,
            "name": self.name,
            "method": self.method,
            **{name: _rounded(value) for name, value in {**empty, **known}.items()},
            "fit_s": self.fit_s,
            "score_s": self.score_s,
            "train_rows": self.train_rows,
            "model": self.model,
            "error": self.error,
            "warnings": list(self.warnings),
        }


def plan(paths: Sequence[Path], methods: Sequence[str], settings: Settings, **rest: Any) -> Plan:
    """Check what is asked for. Raises ConfigError. A file named twice is evaluated once."""
    unique: dict[Path, Path] = {}
    for path in paths:
        unique.setdefault(path.parent.resolve() / path.name, path)
    return Plan(tuple(unique.values()), tuple(parse_methods(methods, settings)), settings, **rest)


def evaluate(
    wanted: Plan, *, processes: int | None = None, on_progress: Callable[[float | None, str], None]
) -> list[Finished]:
    """Evaluate every series by every method. `processes`: None = one per core."""
    together: dict[Any, list[Method]] = {}
    for method in wanted.methods:  # what learns the same is learnt once, whatever it is called
        together.setdefault(method.spec or method.name, []).append(method)
    tasks = [(path, tuple(methods)) for path in wanted.paths for methods in together.values()]
    n_processes = min(processes or os.cpu_count() or 1, len(tasks))
    words = "one process" if n_processes == 1 else f"{n_processes} processes"
    on_progress(0.0, f"{len(tasks)} evaluations in {words}")
    if n_processes > 1:
        return _in_order(wanted, _in_processes(wanted, tasks, n_processes, on_progress))
    results: dict[int, list[Finished]] = {}
    for number, (path, methods) in enumerate(tasks):

        def show(share: float, text: str, at: float = number, name: str = f"{path.name} {methods[0].name}") -> None:
            on_progress((at + share) / len(tasks), f"{name}: {text}")

        results[number] = _work(wanted, path, methods, show)
        on_progress((number + 1) / len(tasks), str(results[number][-1]))
    return _in_order(wanted, results)


def _in_processes(
    wanted: Plan, tasks: Sequence[Task], n_processes: int, on_progress: Show
) -> dict[int, list[Finished]]:
    """Return what came of each task. Where a process was killed, the tasks that were not finished have failed."""
    results: dict[int, list[Finished]] = {}
    others = set(multiprocessing.active_children())
    context = multiprocessing.get_context("spawn")  # a fork would share torch's threads
    with _unwound_by_sigterm():
        pool = ProcessPoolExecutor(n_processes, mp_context=context, initializer=_begin)
        try:
            running = {pool.submit(_work, wanted, path, methods): n for n, (path, methods) in enumerate(tasks)}
            for future in as_completed(running):
                number = running[future]
                try:
                    results[number] = future.result()
                except BrokenProcessPool:
                    results[number] = _killed(*tasks[number], n_processes)
                on_progress(len(results) / len(tasks), str(results[number][-1]))
        finally:
            if len(results) < len(tasks):  # interrupted: nobody waits for what is being learnt
                for worker in set(multiprocessing.active_children()) - others:
                    worker.terminate()
            pool.shutdown(cancel_futures=True)
    return results


def _killed(path: Path, methods: Sequence[Method], n_processes: int) -> list[Finished]:
    words = (
        "an evaluating process was ended from outside, perhaps for want of memory; "
        f"use fewer --processes than {n_processes}, and --into to go on from here"
    )
    return [replace(_nothing(path, method), error=words, exit_code=1, is_unexpected=True) for method in methods]


@contextmanager
def _unwound_by_sigterm() -> Iterator[None]:
    """Let SIGTERM end this process as an interrupt would, so that workers and semaphores go with it."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, lambda number, _frame: sys.exit(128 + number))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _in_order(wanted: Plan, results: dict[int, list[Finished]]) -> list[Finished]:
    """By series and then by method, as asked for; the assets of one file are series of their own."""
    found = [one for number in sorted(results) for one in results[number]]
    places = {key: place for place, key in enumerate(dict.fromkeys(one.key for one in found))}
    methods = {method.name: place for place, method in enumerate(wanted.methods)}
    return sorted(found, key=lambda one: (places[one.key], methods[one.method]))


def titles(finished: Sequence[Finished]) -> dict[Key, tuple[str, str]]:
    """Return set and name of each series as a person reads them: where two are alike, with what differs in the path."""
    alike: dict[tuple[str, str], list[Key]] = {}
    for one in finished:
        if one.key not in (keys := alike.setdefault((one.set, one.name), [])):
            keys.append(one.key)
    found = {}
    for (folder, name), keys in alike.items():
        parts = {key: Path(key[0]).parts for key in keys}
        depth = 1
        while len({each[-depth:] for each in parts.values()}) < len(keys):
            depth += 1
        for key in keys:
            file = "/".join(parts[key][-depth:])
            asset = name.removeprefix(stem(Path(key[0])))  # with several in the file: /ASSET
            found[key] = folder, name if len(keys) == 1 else f"{file}{asset}"
    return {one.key: found[one.key] for one in finished}


def _begin() -> None:
    """Prepare a process: whoever interrupts the parent ends it without a word, and it does not outlive the parent."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    threading.Thread(target=_follow, args=(multiprocessing.parent_process(),), daemon=True).start()
    logs.configure("error")


def _follow(parent: BaseProcess | None) -> None:
    """End with the parent. A killed one can send no word: its workers hold both ends of the queue they wait at."""
    if parent is not None:
        parent.join()
        os._exit(1)


def _work(
    wanted: Plan, path: Path, methods: Sequence[Method], on_progress: Show = lambda _share, _text: None
) -> list[Finished]:
    """Evaluate a file's series by methods that learn the same."""
    first = _nothing(path, methods[0])
    read = _tried(lambda: _read(path, wanted.reading), str(path), first)
    found = [read] if isinstance(read, Finished) else [_one(wanted, first, series, on_progress) for series in read]
    return [replace(one, method=method.name) for one in found for method in methods]


def _nothing(path: Path, method: Method) -> Finished:
    return Finished(str(path), path.parent.resolve().name, stem(path), method.name)


def _tried(do: Callable[[], T], place: str, at: Finished) -> T | Finished:
    """Return what comes of it, or `at` with the reason why nothing did: others' results are not lost to it."""
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
def _read(path: Path, how: Reading) -> list[Series | Refused]:
    """A file is read once for all methods that follow each other in a process."""
    return read_series(path, how)


def _one(wanted: Plan, first: Finished, series: Series | Refused, on_progress: Show) -> Finished:
    at = replace(first, set=series.set, name=series.name)
    if isinstance(series, Refused):
        return replace(at, error=str(series.error), exit_code=series.error.exit_code)
    at = replace(at, train_rows=series.data.train_rows, warnings=series.warnings)
    is_alone = series.name == stem(Path(series.path))
    place = series.path if is_alone else f"{series.path}, {series.name}"
    method = next(method for method in wanted.methods if method.name == first.method)
    return _tried(lambda: _judged(wanted, at, series, *_scored(wanted, series, method, on_progress)), place, at)


def _scored(wanted: Plan, series: Series, method: Method, on_progress: Show) -> tuple[Scored, bool]:
    """Return the scores, and whether they were there from an earlier run."""
    kept = Kept(wanted.into) if wanted.into else None
    if kept and (found := kept.find(series, method, wanted.settings)):
        return found, True
    scored = score(method, series.data, wanted.settings, on_progress)
    if kept:
        kept.keep(series, method, wanted.settings, scored)
    return scored, False


def _judged(wanted: Plan, at: Finished, series: Series, scored: Scored, was_kept: bool) -> Finished:
    base = alert_policy(AlertConfig())
    found, course = alarms(series, scored.score, base)
    return replace(
        at,
        figures=figures(series, scored.score),
        alarms=found,
        policies=tuple(alarms(series, scored.score, change.on(base))[0] for change in wanted.policies),
        course=course,
        fit_s=scored.fit_s,
        score_s=scored.score_s,
        model=scored.model,
        was_kept=was_kept,
        picture=picture(series, scored.score) if wanted.with_pictures else None,
    )


# ---------------------------------------------------------------- means


def means(rows: Sequence[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Return by method the mean of set means, of the rows without an error; None = no series has the figure.

    A set's false alarms per week are those of all its series over all their normal time, its recall of events those
    found over all there are; `events`, `events_found`, `false_alarms` and `weeks` are sums.
    """
    found = {}
    for method in dict.fromkeys(row["method"] for row in rows):
        mine = [row for row in rows if row["method"] == method]
        good = [row for row in mine if row["error"] is None]
        sets = [[row for row in good if row["set"] == name] for name in dict.fromkeys(row["set"] for row in good)]
        found[method] = {
            **{name: _rounded(_mean([_mean([row[name] for row in rows]) for rows in sets])) for name in MEANS},
            "event_recall": _rounded(_mean([_ratio(rows, "events_found", "events") for rows in sets])),
            "false_alarms_per_week": _rounded(_mean([_ratio(rows, "false_alarms", "weeks") for rows in sets])),
            **{name: _sum(good, name) for name in ("events", "events_found", "false_alarms", "weeks", "alerts")},
            "n_series": len(good),
            "n_failed": len(mine) - len(good),
        }
    return found


def by_policy(wanted: Plan, finished: Sequence[Finished]) -> list[dict[str, Any]]:
    """Return, for each policy beside the default, what the same scores would have led to: rows and means."""
    found = []
    for number, change in enumerate(wanted.policies):
        rows = [
            (one if one.alarms is None else replace(one, alarms=one.policies[number])).row() for one in finished
        ]
        found.append({"policy": str(change), "series": rows, "mean": means(rows)})
    return found


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return statistics.fmean(known) if known else None


def _ratio(rows: Sequence[dict[str, Any]], above: str, below: str) -> float | None:
    """Return the quotient of two sums, over the rows that know both."""
    known = [(row[above], row[below]) for row in rows if row[above] is not None and row[below]]
    return sum(a for a, _ in known) / sum(b for _, b in known) if known else None


def _sum(rows: Sequence[dict[str, Any]], name: str) -> Any:
    known = [row[name] for row in rows if row[name] is not None]
    return _rounded(sum(known)) if known else None


def _rounded(value: Any) -> Any:
    return float(f"{value:.6g}") if isinstance(value, float) else value
