"""`monitor evaluate`: detection quality on labelled recordings, and stored scores under other alert parameters."""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from monitor import wording
from monitor.cli import output, print_error, terminal
from monitor.cli.params import (
    Parsed,
    config_option,
    config_path,
    file_options,
    json_option,
    load_config,
    open_store,
    parse_seconds,
    range_options,
    take_file_options,
)
from monitor.cli.progress import progress
from monitor.cli.terminal import Styled, Table, echo, echo_prose
from monitor.config.values import Rate

if TYPE_CHECKING:
    from collections.abc import Sequence

    from monitor.evaluation.differences import Difference, SetDifference
    from monitor.evaluation.plan import EvaluationPlan
    from monitor.evaluation.policy import PolicyChange, PolicyTrial
    from monitor.evaluation.results import MethodResult
    from monitor.recordings import FileOptions

    Means = dict[str, dict[str, Any]]
    """By method, see `results.means`."""

STORED_SCORE_OPTIONS = ("policies", "since", "until", "as_json", "config")
"""Options that have an effect without FILES."""
RANKING = {"VUS-PR": "vus_pr", "AUC-PR": "auc_pr", "AUC-ROC": "auc_roc", "range F1": "range_f1"}
ALARMS = ("found", "false", "false/week", "alarmed", "delay")
FULL_WIDTH = 108
"""Terminal width from which the tables have all columns."""


@dataclass(frozen=True, slots=True)
class EvaluateArguments:
    """Arguments of `monitor evaluate`, under the names that click passes."""

    files: tuple[Path, ...]
    methods: tuple[str, ...]
    train_rows: int | None
    window: int | None
    """Rows. None = chosen for each recording."""
    budget: Rate | None
    seed: int
    max_train: float | None
    """Seconds."""
    policies: tuple[PolicyChange, ...]
    since: datetime | None
    until: datetime | None
    into: Path | None
    report: Path | None
    processes: int | None
    reading: FileOptions
    join: bool
    as_json: bool


_NO_TRAINING = "leaves no time to train; write 60s"


def parse_rate(text: str) -> Rate:
    """Parse a rate like "1/week". Raises ValueError."""
    try:
        return Rate.parse(text)
    except ValueError as problem:
        raise ValueError(f'"{text}" {problem}') from None


def parse_window(text: str) -> int | None:
    """Parse a number of rows, or "auto", which gives None. Raises ValueError."""
    if text == "auto":
        return None
    try:
        rows = int(text)
    except ValueError:
        rows = 0
    if rows < 2:
        raise ValueError(f'"{text}" is no length of a window; write 2 or more, or auto')
    return rows


def parse_policy(text: str) -> PolicyChange:
    """Parse alert parameters like "confirm=5 of 8, recover=12". Raises ValueError."""
    from monitor.evaluation.policy import PolicyChange

    return PolicyChange.parse(text)


def parse_names(text: str) -> tuple[str, ...]:
    """Parse method names, separated by commas. Raises ValueError."""
    names = tuple(name.strip() for name in text.split(","))
    if not all(names):
        raise ValueError(f'"{text}" names no method between commas; write a,b')
    return names


@click.command()
@config_option
@click.argument("files", nargs=-1, type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--methods", type=Parsed("names", parse_names), default="default", show_default=True, metavar="A,B,…",
              help="Methods: default, random, or ARCHITECTURE[+OBJECTIVE][+stacked], like conv+denoising. "
              "Architectures: auto, conv, dense, forecast, lstm, pca. Objectives: plain, sparse, denoising, "
              "variational, adversarial. pca and the yardsticks are always added: "
              "moving-deviation, pca-window, pca-newest, linear-forecast, dense-window.")  # fmt: skip
@click.option("--train-rows", type=click.IntRange(1), metavar="N",
              help="Healthy leading rows of each asset for training [default: from meta.json].")  # fmt: skip
@click.option("--window", type=Parsed("rows", parse_window), default="64", show_default=True, metavar="ROWS|auto",
              help="Rows in a window. auto: one cycle of a recording's sensors where they repeat.")  # fmt: skip
@click.option("--budget", type=Parsed("rate", parse_rate), metavar="1/week",
              help="Allowed false alarms, to which thresholds are calibrated [default: 1/week].")  # fmt: skip
@click.option("--seed", type=click.IntRange(0, 2**31 - 1), default=0, show_default=True,
              help="Random seed; the same seed gives the same figures.")  # fmt: skip
@click.option("--max-train", type=Parsed("duration", partial(parse_seconds, if_none=_NO_TRAINING)), metavar="60s",
              help="Training time limit of each network.")  # fmt: skip
@click.option("--policy", "policies", type=Parsed("policy", parse_policy), multiple=True,
              metavar='"confirm=5 of 8, recover=12"',
              help="Alert parameters to apply to the same scores, besides the default; may be repeated.")  # fmt: skip
@range_options("stored scores (without FILES)")
@click.option("--into", type=click.Path(file_okay=False, path_type=Path), metavar="DIR",
              help="Keep finished scores here, so that a second run computes only the missing ones.")  # fmt: skip
@click.option("--report", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE.html",
              help="Write a page with plots of sensors, scores, events and alerts.")  # fmt: skip
@click.option("--processes", type=click.IntRange(1), metavar="N", help="Worker processes [default: one per core].")
@click.option("--join", is_flag=True, help="Read all FILES as one recording, in order of time.")
@file_options
@json_option
def evaluate(**arguments: Any) -> None:
    """Measure detection quality on labelled recordings.

    FILES are CSV, CSV.gz or Parquet with a label column. Each method trains on the healthy head of a file and scores
    all later rows, also those behind a long gap, where the daemon would not. Then the scores are compared with the
    labels. A series that cannot be evaluated becomes a row with its error, and the others go on. The command fails
    only if a method that you asked for could evaluate nothing, or if monitor itself has a defect.

    Without FILES, --policy applies other alert parameters to the scores in the database and counts the alerts that
    they would have raised. Nothing is written.
    """
    asked = EvaluateArguments(reading=take_file_options(arguments), **arguments)
    _check(asked)
    if asked.files:
        _evaluate_files(asked)
    else:
        _try_policies(asked)


def _check(asked: EvaluateArguments) -> None:
    """Raise UsageError for arguments that contradict each other or have no effect."""
    if not asked.files:
        if not asked.policies:
            raise click.UsageError('Name FILES to evaluate, or a --policy for the stored scores ("confirm=5 of 8").')
        _refuse_file_options(click.get_current_context())
    elif config_path() is not None:
        raise click.UsageError(
            "-c is for stored scores; files are evaluated with the defaults, and by --methods, --window and --budget."
        )
    elif asked.since or asked.until:
        raise click.UsageError("--from and --to are for stored scores; files are evaluated whole (see --train-rows).")


def _refuse_file_options(context: click.Context) -> None:
    for option in context.command.params:
        is_given = option.name and context.get_parameter_source(option.name) is ParameterSource.COMMANDLINE
        if isinstance(option, click.Option) and is_given and option.name not in STORED_SCORE_OPTIONS:
            raise click.UsageError(
                f"{option.opts[0]} is for FILES; stored scores take --policy, --from, --to and --json."
            )


# ---------------------------------------------------------------- recordings


def _evaluate_files(asked: EvaluateArguments) -> None:
    from monitor import logs

    logs.configure("error")
    _check_headers(asked)
    from monitor.evaluation.differences import differences
    from monitor.evaluation.evaluate import evaluate as run_plan
    from monitor.evaluation.results import means, results_by_policy

    plan = _plan(asked)
    _check_writable(asked)
    with progress("evaluate") as on_progress:
        results = run_plan(plan, processes=asked.processes, on_progress=on_progress)
    rows = [result.row() for result in results]
    mean, compared = means(rows), differences(rows)
    by_policy = results_by_policy(plan, results)
    if asked.as_json:
        document: dict[str, Any] = {"series": rows, "mean": mean, "comparison": [one.row() for one in compared]}
        output.print_json(document | {"policies": by_policy} if asked.policies else document)
    else:
        _print_results(results, rows, mean, compared, by_policy)
    _print_problems(results)
    if asked.report is not None:
        _write_report(asked.report, plan, results, mean)
        if not asked.as_json:
            echo(Styled(f"The plots are in {asked.report}.", "dim"))
    click.get_current_context().exit(_exit_code(results, asked.methods))


def _check_headers(asked: EvaluateArguments) -> None:
    """Raise the first problem if no file can be read, before torch is imported."""
    from monitor.errors import MonitorError
    from monitor.recordings import check_header

    problems = []
    for file in asked.files:
        try:
            check_header(file, asked.reading)
        except MonitorError as problem:
            problems.append(problem)
    if len(problems) == len(asked.files) and not asked.as_json:
        raise problems[0]


def _plan(asked: EvaluateArguments) -> EvaluationPlan:
    from monitor.evaluation.methods import ScoreSettings
    from monitor.evaluation.plan import make_plan
    from monitor.evaluation.series import ReadOptions

    settings = ScoreSettings(asked.window, asked.seed, asked.max_train)
    files = asked.files[:1] if asked.join else asked.files
    return make_plan(
        files,
        asked.methods,
        settings if asked.budget is None else replace(settings, budget=asked.budget),
        reading=ReadOptions(
            **asdict(asked.reading),
            train_rows=asked.train_rows,
            continued_in=asked.files[1:] if asked.join else (),
        ),
        policies=asked.policies,
        into=asked.into,
        with_plots=asked.report is not None,
    )


def _print_problems(results: Sequence[MethodResult]) -> None:
    """Print each note, warning and error once, however many methods met it."""
    series_of: dict[str, dict[str, None]] = {}
    for result in results:
        for note in result.notes:
            series_of.setdefault(note, {})[result.name] = None
    for note, names in series_of.items():
        place = next(iter(names)) if len(names) == 1 else f"{len(names)} series"
        echo(Styled(f"{place}: {note}", "dim"), err=True)
    for warning in dict.fromkeys(warning for result in results for warning in result.warnings):
        echo(Styled("warning:", "bold yellow"), f" {warning}", err=True)
    for error in dict.fromkeys(result.error for result in results if result.error):
        print_error(error)


def _exit_code(results: Sequence[MethodResult], methods: Sequence[str]) -> int:
    """Return 1 for a defect of monitor, the error's code if a requested method has no success, else 0."""
    if any(result.is_unexpected for result in results):
        return 1
    by_method = [[result for result in results if result.method == name] for name in methods]
    failed = [found for found in by_method if all(result.error for result in found)]
    return max((result.exit_code for found in failed for result in found), default=0)


# ---------------------------------------------------------------- written files


def _check_writable(asked: EvaluateArguments) -> None:
    """Raise UsageError now for a file that could not be written after an hour of training."""
    if (report := asked.report) is not None:
        if report.resolve() in {file.resolve() for file in asked.files}:
            raise click.UsageError(f"--report {report} is one of the recordings; name another file.")
        if not report.parent.is_dir():
            raise click.UsageError(
                f"--report {report}: there is no folder {report.parent}; create it, or name another file."
            )
        _try_folder("--report", report, report.resolve().parent)
    if asked.into is not None:
        _try_folder("--into", asked.into, asked.into)


def _try_folder(option: str, value: Path, folder: Path) -> None:
    from tempfile import TemporaryFile

    try:
        folder.mkdir(parents=True, exist_ok=True)
        TemporaryFile(dir=folder).close()
    except OSError as problem:
        raise click.UsageError(f"{option} {value}: {problem.strerror}; name a folder you may write to.") from problem


def _write_report(report: Path, plan: EvaluationPlan, results: Sequence[MethodResult], mean: Means) -> None:
    from monitor.evaluation.report.page import page

    text = page(plan, results, mean, datetime.now(UTC))
    file = report.resolve()
    temporary = file.with_name(f".{file.name}.{os.getpid()}.tmp")  # an interrupted write leaves no half page
    try:
        temporary.write_text(text, encoding="utf-8")
        temporary.replace(file)
    except OSError as problem:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise click.FileError(str(report), str(problem.strerror)) from problem


# ---------------------------------------------------------------- tables of results


def _print_results(
    results: Sequence[MethodResult],
    rows: Sequence[dict[str, Any]],
    mean: Means,
    compared: Sequence[Difference],
    by_policy: Sequence[dict[str, Any]],
) -> None:
    columns = [*RANKING, *ALARMS, "fit"] if terminal.columns() >= FULL_WIDTH else ["VUS-PR", *ALARMS]
    _print_series(results, rows, columns)
    echo()
    _mean_table(mean, columns).print()
    if compared:
        _print_differences(compared)
    for policy in by_policy:
        echo()
        echo(Styled(policy["policy"], "bold"), " instead, by the same scores:")
        _policy_table(policy["mean"], mean).print()
    echo()
    n_cached = sum(result.from_cache for result in results)
    cached = f" {n_cached} of {len(results)} scores came from an earlier run." if n_cached else ""
    echo_prose(
        "Means are means of set means. Found and false: alerts at the calibrated threshold that met, or did not meet, "
        "a labelled event. False/week: in a mean, all false alarms of a set over all its normal time. Alarmed: share "
        "of the normal time with an open alert. An alert that is open in most of it is false, whatever it meets. "
        "Delay: median time until the first alert of an event fired. Difference: of the mean VUS-PR. Its "
        f"interval comes from series drawn again within their sets; a set of one series adds no width.{cached}",
        "dim",
    )
    measured = {method: row for method, row in mean.items() if row["top2_n"]}
    if measured:
        echo_prose(
            "Explanations, of faults injected into one or two sensors of quiet windows, in windows that alarm: a "
            "faulty sensor is among the first two blamed ones in "
            + "; ".join(
                f"{wording.percent(row['top2_hit_rate'])} by {method} ({row['top2_low']:.0%} to "
                f"{row['top2_high']:.0%}, {row['top2_n']:,} sensors)"
                for method, row in measured.items()
            )
            + ".",
            "dim",
        )
    if any(row["unlabelled_alerts"] is not None for row in mean.values()):
        echo_prose(
            "Recordings without labels are no part of found, false and false/week: "
            + "; ".join(
                f"{method} raised {row['unlabelled_alerts'] or 0:,} alerts in {row['unlabelled_weeks'] or 0:.1f} weeks "
                "of them"
                for method, row in mean.items()
            )
            + ".",
            "dim",
        )


def _print_series(results: Sequence[MethodResult], rows: Sequence[dict[str, Any]], columns: Sequence[str]) -> None:
    """Print the rows of each series below its name, since a column of long names would not fit."""
    from monitor.evaluation.results import titles

    table = Table("series", *(f"{name}:right" for name in columns))
    for row in rows:
        table.add(f"  {row['method']}", *_cells(row, columns))
    names = {key: (f"{folder} ", Styled(name, "bold")) for key, (folder, name) in titles(results).items()}
    table.print([names[result.key] for result in results])


def _mean_table(mean: Means, columns: Sequence[str]) -> Table:
    table = Table("mean", *(f"{name}:right" for name in columns), "series:right")
    # A mean over fewer series cannot be compared with a mean over all of them.
    best = max((row["vus_pr"] or 0 for row in mean.values() if not row["n_failed"]), default=0)
    for method, row in mean.items():
        is_best = row["vus_pr"] == best and not row["n_failed"]
        n = f"{row['n_series']}" + (f" of {row['n_series'] + row['n_failed']}" if row["n_failed"] else "")
        table.add(Styled(method, "bold" if is_best else ""), *_cells(row, columns), n)
    return table


def _print_differences(compared: Sequence[Difference]) -> None:
    """Print the base against each other method: all series together, then set by set, then what it does not beat."""
    from monitor.evaluation.differences import signed, verdict

    base = compared[0].base
    echo()
    table = Table(f"{base} against", "difference:right", "95 % interval:right", "better on:right", "worse on:right")
    for one in compared:
        low, high = ("–", "") if one.low is None or one.high is None else (signed(one.low), signed(one.high))
        interval = f"{low} to {high}" if high else low
        style = "" if one.is_beaten else "yellow"
        table.add(Styled(one.method, style), signed(one.difference), Styled(interval, style),
                  f"{one.better} of {one.n_series}", f"{one.worse} of {one.n_series}")  # fmt: skip
    table.print()
    names = list(dict.fromkeys(name for one in compared for name in one.per_set))
    for sets in _fitting(names, max(map(len, (*(one.method for one in compared), _BY_SET)))) if len(names) > 1 else ():
        echo()
        table = Table(_BY_SET, *(f"{name}:right" for name in sets))
        for one in compared:
            counts = [one.per_set.get(name) for name in sets]
            table.add(one.method, *("–" if each is None else _better_worse(each) for each in counts))
        table.print()
    if sentence := verdict(compared):
        echo()
        echo_prose(sentence, "" if all(one.is_beaten for one in compared) else "yellow")


_BY_SET = "better–worse"


def _better_worse(each: SetDifference) -> Styled:
    style = "green" if each.difference > 0 else "red" if each.difference < 0 else ""
    return Styled(f"{each.better}–{each.worse}", style)


def _fitting(names: Sequence[str], first: int) -> list[list[str]]:
    """Divide the columns of a table into as many tables as fit the terminal. `first`: width of the first column."""
    parts: list[list[str]] = []
    left = 0
    for name in names:
        width = len(terminal.GAP) + max(len(name), len("12–12"))
        if width > left:
            parts.append([])
            left = terminal.columns() - first
        parts[-1].append(name)
        left -= width
    return parts


def _policy_table(tried: Means, mean: Means) -> Table:
    table = Table("mean", *(f"{name}:right" for name in ALARMS), "by default:right")
    for method, row in tried.items():
        default = f"{mean[method]['events_found'] or 0} found, {mean[method]['false_alarms'] or 0} false"
        table.add(method, *_cells(row, ALARMS), Styled(default, "dim"))
    return table


def _cells(row: dict[str, Any], columns: Sequence[str]) -> list[str | Styled]:
    if row.get("error"):
        return [Styled("failed", "red"), *[""] * (len(columns) - 1)]
    cells = {heading: "–" if row[name] is None else f"{row[name]:.3f}" for heading, name in RANKING.items()}
    cells |= {
        "found": f"{row['events_found']} of {row['events']}" if row["events"] else "–",
        "false": "–" if row["false_alarms"] is None else str(row["false_alarms"]),
        "false/week": wording.number(row["false_alarms_per_week"], 2),
        "alarmed": wording.percent(row["alarmed_share"]),
        "delay": "–" if row["delay_s"] is None else wording.duration(row["delay_s"]),
        "fit": "–" if row["fit_s"] is None else f"{row['fit_s']:.1f} s",
    }
    return [cells[name] for name in columns]


# ---------------------------------------------------------------- stored scores


def _try_policies(asked: EvaluateArguments) -> None:
    from monitor.evaluation.policy import try_policies

    fleets = load_config().fleets
    with open_store() as store:
        with progress("evaluate") as on_progress:
            trials = try_policies(
                store, fleets, asked.policies, since=asked.since, until=asked.until, on_progress=on_progress
            )
        if asked.as_json:
            output.print_json({"policies": [asdict(trial) for trial in trials]})
        elif any(trial.windows for trial in trials):
            _print_trials(trials)
        else:
            echo_prose(output.nothing_found("stored scores", store, since=asked.since, until=asked.until))


def _print_trials(trials: Sequence[PolicyTrial]) -> None:
    figures = ("alerts", "per week", "gained", "lost", "assets", "windows")
    table = Table("fleet", "confirm", "recover:right", *(f"{name}:right" for name in figures))
    for trial in trials:
        is_configured = trial.policy == "configured"
        table.add(
            trial.fleet if is_configured else "",
            Styled(f"{trial.confirm} (configured)", "dim") if is_configured else trial.confirm,
            str(trial.recover),
            f"{trial.alerts:,}",
            wording.number(trial.per_week, 2),
            "" if is_configured else f"{trial.gained:,}",
            "" if is_configured else f"{trial.lost:,}",
            f"{trial.assets:,}",
            f"{trial.windows:,}",
        )
    table.print()
    echo()
    echo_prose(
        "The stored scores were decided again from the first one on, and nothing was written. Gained and lost: "
        "compared with the configured parameters. Per week: for one asset.",
        "dim",
    )
