"""`monitor evaluate`: labelled recordings × methods, over several processes.

In: files, methods, settings. Out: a `Finished` for each series and method, in the order asked for, and their means.
The law: one series that cannot be learnt or read is a row with its error and stops nobody; the same files, methods and
settings give the same figures, whatever the number of processes (unless a time budget cuts training short).
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import statistics
import threading
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass, field, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from monitor import logs
from monitor.config.tree import AlertConfig
from monitor.errors import BadRecording, MonitorError, NotFound
from monitor.evaluation.judge import Alarms, Course, Figures, alarms, figures
from monitor.evaluation.kept import Kept
from monitor.evaluation.methods import Method, Settings, parse_methods, score
from monitor.evaluation.policy import PolicyChange, policy_of
from monitor.evaluation.report.picture import Picture, picture
from monitor.evaluation.series import Reading, read_series
from monitor.stream.files.recording import stem

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from multiprocessing.process import BaseProcess
    from pathlib import Path

    from monitor.evaluation.series import Series

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

    def __str__(self) -> str:
        known = self.error or (self.figures and self.figures.vus_pr and f"VUS-PR {self.figures.vus_pr:.3f}") or "done"
        return f"{self.set}/{self.name} {self.method}: {known}"

    def row(self) -> dict[str, Any]:
        """Return what `--json` says of it."""
        empty = dict.fromkeys((*Figures.__dataclass_fields__, *Alarms.__dataclass_fields__))
        known = {**(asdict(self.figures) if self.figures else {}), **(asdict(self.alarms) if self.alarms else {})}
        return {
            "set": self.set,
            "name": self.name,
            "method": self.method,
            **{name: _rounded(value) for name, value in {**empty, **known}.items()},
            "fit_s": self.fit_s,
            "score_s": self.score_s,
            "train_rows": self.train_rows,
            "model": self.model,
            "error": self.error,
        }


def plan(paths: Sequence[Path], methods: Sequence[str], settings: Settings, **rest: Any) -> Plan:
    """Check what is asked for. Raises ConfigError. A file named twice is evaluated once."""
    unique: dict[Path, Path] = {}
    for path in paths:
        unique.setdefault(path.resolve(), path)
    return Plan(tuple(unique.values()), tuple(parse_methods(methods, settings)), settings, **rest)


def evaluate(
    wanted: Plan, *, processes: int | None = None, on_progress: Callable[[float | None, str], None]
) -> list[Finished]:
    """Evaluate every series by every method. `processes`: None = one per core. Raises MonitorError if one dies."""
    tasks = [(path, method) for path in wanted.paths for method in wanted.methods]
    n_processes = min(processes or os.cpu_count() or 1, len(tasks))
    results: dict[int, list[Finished]] = {}
    on_progress(0.0, f"{len(tasks)} evaluations in {n_processes} processes")
    if n_processes <= 1:
        for number, (path, method) in enumerate(tasks):

            def show(share: float, text: str, at: float = number, name: str = f"{path.name} {method.name}") -> None:
                on_progress((at + share) / len(tasks), f"{name}: {text}")

            results[number] = _work(wanted, path, method, show)
            on_progress((number + 1) / len(tasks), str(results[number][-1]))
        return _in_order(results)
    context = multiprocessing.get_context("spawn")  # a fork would share torch's threads
    with ProcessPoolExecutor(n_processes, mp_context=context, initializer=_begin) as pool:
        try:
            running = {pool.submit(_work, wanted, path, method): n for n, (path, method) in enumerate(tasks)}
            for future in as_completed(running):
                results[running[future]] = future.result()
                on_progress(len(results) / len(tasks), str(results[running[future]][-1]))
        except BrokenProcessPool as dead:
            raise MonitorError(
                "an evaluating process was ended from outside, perhaps for want of memory; "
                f"use fewer --processes than {n_processes}, and --into to go on from here"
            ) from dead
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
    return _in_order(results)


def _in_order(results: dict[int, list[Finished]]) -> list[Finished]:
    """By series and then by method, as asked for; the assets of one file are series of their own."""
    found = [one for number in sorted(results) for one in results[number]]
    places = {name: place for place, name in enumerate(dict.fromkeys((one.set, one.name) for one in found))}
    return sorted(found, key=lambda one: places[one.set, one.name])


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
    wanted: Plan, path: Path, method: Method, on_progress: Callable[[float, str], None] = lambda _share, _text: None
) -> list[Finished]:
    try:
        found = _read(path, wanted.reading)
    except (BadRecording, NotFound) as problem:
        where = path.resolve().parent.name, stem(path)
        return [Finished(*where, method.name, error=str(problem), exit_code=problem.exit_code)]
    return [_one(wanted, series, method, on_progress) for series in found]


@lru_cache(maxsize=1)
def _read(path: Path, how: Reading) -> list[Series]:
    """A file is read once for all methods that follow each other in a process."""
    return read_series(path, how)


def _one(wanted: Plan, series: Series, method: Method, on_progress: Callable[[float, str], None]) -> Finished:
    kept = Kept(wanted.into) if wanted.into else None
    scored = kept.find(series, method, wanted.settings) if kept else None
    was_kept = scored is not None
    if scored is None:
        try:
            scored = score(method, series.data, wanted.settings, on_progress)
        except MonitorError as problem:  # not enough data, training that diverged
            words = f"{series.set}/{series.name}: {problem}"
            return Finished(series.set, series.name, method.name, series.data.train_rows, error=words,
                            exit_code=problem.exit_code)  # fmt: skip
        if kept:
            kept.keep(series, method, wanted.settings, scored)
    base = policy_of(AlertConfig())
    found, course = alarms(series, scored.score, base)
    return Finished(
        series.set,
        series.name,
        method.name,
        series.data.train_rows,
        figures(series, scored.score),
        found,
        tuple(alarms(series, scored.score, change.on(base))[0] for change in wanted.policies),
        course,
        scored.fit_s,
        scored.score_s,
        scored.model,
        was_kept,
        picture(series, scored.score) if wanted.with_pictures else None,
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
