"""Results of an evaluation: one for each series and method, their means, and the same under other alert parameters.

Input: metrics of single series. Output: rows for `--json`, means by method, titles of series.
Invariant: the mean of a figure is the mean of set means, so a set with many series weighs no more than another one.
"""

from __future__ import annotations

import statistics
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from monitor.evaluation.assess import AlertMetrics, RankingMetrics
from monitor.evaluation.explained import ExplainedFaults
from monitor.recordings.recording import stem

if TYPE_CHECKING:
    from collections.abc import Sequence

    from monitor.evaluation.assess import Timeline
    from monitor.evaluation.plan import EvaluationPlan
    from monitor.evaluation.plots import SeriesPlot

    SeriesKey = tuple[str, str]
    """A series: its file as it was given, and its name. Folders and names alone may be equal."""

MEANS = ("vus_pr", "auc_pr", "auc_roc", "range_f1", "range_precision", "range_recall", "alarmed_share", "delay_s",
         "fit_s", "score_s")  # fmt: skip
"""Figures of which means are computed. False alarms are pooled within a set instead: most recordings are short."""


@dataclass(frozen=True, slots=True)
class MethodResult:
    """Result of one method on one series, or the error that prevented it."""

    path: str
    """The file, as it was given."""
    set: str
    name: str
    method: str
    train_rows: int | None = None
    ranking: RankingMetrics | None = None
    alerts: AlertMetrics | None = None
    """By the default policy."""
    by_policy: tuple[AlertMetrics, ...] = ()
    """By the policies of the plan, in their order."""
    timeline: Timeline | None = None
    explained: ExplainedFaults | None = None
    """Sensors blamed for injected faults."""
    fit_s: float | None = None
    score_s: float | None = None
    model: dict[str, Any] = field(default_factory=dict)
    from_cache: bool = False
    """True if the scores come from an earlier run."""
    plot: SeriesPlot | None = None
    error: str | None = None
    exit_code: int = 0
    """Exit code of the error."""
    is_unexpected: bool = False
    """The error is a defect of this program, or a process was killed. The run as a whole has then failed."""
    warnings: tuple[str, ...] = ()
    """Doubts about the file that affect the figures."""
    notes: tuple[str, ...] = ()
    """What was recognised, changed or left out while the file was read."""

    @property
    def key(self) -> SeriesKey:
        """Identity of the series, also among series of the same name."""
        return self.path, self.name

    def __str__(self) -> str:
        vus_pr = self.ranking and self.ranking.vus_pr
        return f"{self.set}/{self.name} {self.method}: {self.error or (vus_pr and f'VUS-PR {vus_pr:.3f}') or 'done'}"

    def row(self) -> dict[str, Any]:
        """Return it with the keys of `--json`."""
        empty = dict.fromkeys((*RankingMetrics.__dataclass_fields__, *AlertMetrics.__dataclass_fields__))
        known = {**(asdict(self.ranking) if self.ranking else {}), **(asdict(self.alerts) if self.alerts else {})}
        return {
            "path": self.path,
            "set": self.set,
            "name": self.name,
            "method": self.method,
            **{name: _rounded(value) for name, value in {**empty, **known}.items()},
            **(ExplainedFaults() if self.explained is None else self.explained).row(),
            "fit_s": self.fit_s,
            "score_s": self.score_s,
            "train_rows": self.train_rows,
            "model": self.model,
            "error": self.error,
            "warnings": list(self.warnings),
            "notes": list(self.notes),
        }


def titles(results: Sequence[MethodResult]) -> dict[SeriesKey, tuple[str, str]]:
    """Return set and name of each series for display. For equal names, the last parts of the path tell them apart."""
    by_name: dict[tuple[str, str], list[SeriesKey]] = {}
    for one in results:
        if one.key not in (keys := by_name.setdefault((one.set, one.name), [])):
            keys.append(one.key)
    found = {}
    for (folder, name), keys in by_name.items():
        parts = {key: Path(key[0]).parts for key in keys}
        depth = 1
        while len({each[-depth:] for each in parts.values()}) < len(keys):
            depth += 1
        for key in keys:
            file = "/".join(parts[key][-depth:])
            asset = name.removeprefix(stem(Path(key[0])))  # /ASSET where the file has several
            found[key] = folder, name if len(keys) == 1 else f"{file}{asset}"
    return {one.key: found[one.key] for one in results}


# ---------------------------------------------------------------- means


def means(rows: Sequence[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Return by method the mean of set means over the rows without an error. None = no series has the figure.

    The false alarms per week of a set are those of all its series over all their normal time. Its recall of events is
    the share of found events. `events`, `events_found`, `false_alarms` and `weeks` are sums. A recording without labels
    has alerts of which nobody knows whether they are false: its time is `unlabelled_weeks`, and no part of `weeks`.
    """
    found = {}
    for method in dict.fromkeys(row["method"] for row in rows):
        of_method = [row for row in rows if row["method"] == method]
        good = [row for row in of_method if row["error"] is None]
        sets = [[row for row in good if row["set"] == name] for name in dict.fromkeys(row["set"] for row in good)]
        found[method] = {
            **{name: _rounded(_mean([_mean([row[name] for row in rows]) for rows in sets])) for name in MEANS},
            "event_recall": _rounded(_mean([_ratio(rows, "events_found", "events") for rows in sets])),
            "false_alarms_per_week": _rounded(_mean([_ratio(rows, "false_alarms", "weeks") for rows in sets])),
            **{name: _sum(good, name) for name in ("events", "events_found", "false_alarms", "alerts", "always_open")},
            **ExplainedFaults.of_rows(good).row(),
            "weeks": _sum([row for row in good if row["false_alarms"] is not None], "weeks"),
            "unlabelled_weeks": _sum([row for row in good if row["false_alarms"] is None], "weeks"),
            "unlabelled_alerts": _sum([row for row in good if row["false_alarms"] is None], "alerts"),
            "n_series": len(good),
            "n_failed": len(of_method) - len(good),
        }
    return found


def results_by_policy(plan: EvaluationPlan, results: Sequence[MethodResult]) -> list[dict[str, Any]]:
    """Return rows and means of the same scores under each policy of the plan."""
    found = []
    for number, change in enumerate(plan.policies):
        rows = [
            (one if one.alerts is None else replace(one, alerts=one.by_policy[number])).row() for one in results
        ]
        found.append({"policy": str(change), "series": rows, "mean": means(rows)})
    return found


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return statistics.fmean(known) if known else None


def _ratio(rows: Sequence[dict[str, Any]], numerator: str, denominator: str) -> float | None:
    """Return the quotient of two sums over the rows that have both."""
    known = [(row[numerator], row[denominator]) for row in rows if row[numerator] is not None and row[denominator]]
    return sum(a for a, _ in known) / sum(b for _, b in known) if known else None


def _sum(rows: Sequence[dict[str, Any]], name: str) -> Any:
    known = [row[name] for row in rows if row.get(name) is not None]
    return _rounded(sum(known)) if known else None


def _rounded(value: Any) -> Any:
    return float(f"{value:.6g}") if isinstance(value, float) else value
