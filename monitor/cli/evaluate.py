"""`monitor evaluate`: what a method is worth on labelled recordings, and what other alert parameters would do."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from monitor.cli import output, terminal
from monitor.cli.params import (
    Parsed,
    column_options,
    config_option,
    config_path,
    json_option,
    load_config,
    open_store,
    range_options,
)
from monitor.cli.progress import progress
from monitor.cli.terminal import Styled, Table, echo

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from monitor.config.values import Rate
    from monitor.evaluation.plan import EvaluationPlan
    from monitor.evaluation.policy import PolicyChange, PolicyTrial
    from monitor.evaluation.results import MethodResult


def parse_seconds(text: str) -> float:
    """Read a duration above zero, "60s" or "10m", in seconds."""
    from monitor.config.values import parse_duration

    try:
        seconds = parse_duration(text).total_seconds()
    except ValueError as problem:
        raise ValueError(f'"{text}" {problem}') from None
    if seconds <= 0:
        raise ValueError(f'"{text}" leaves no time to learn; write 60s')
    return seconds


def parse_budget(text: str) -> Rate:
    """Read a rate: "1/week"."""
    from monitor.config.values import Rate

    try:
        return Rate.parse(text)
    except ValueError as problem:
        raise ValueError(f'"{text}" {problem}') from None


def parse_policy(text: str) -> PolicyChange:
    """Read alert parameters: "confirm=5 of 8, recover=12"."""
    from monitor.evaluation.policy import PolicyChange

    return PolicyChange.parse(text)


def parse_methods(text: str) -> tuple[str, ...]:
    """Read names of methods, separated by commas."""
    names = tuple(name.strip() for name in text.split(","))
    if not all(names):
        raise ValueError(f'"{text}" names no method between commas; write a,b')
    return names


@click.command()
@config_option
@click.argument("files", nargs=-1, type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--methods", type=Parsed("names", parse_methods), default="default", show_default=True, metavar="A,B,…",
              help="default, random, or ARCHITECTURE[+OBJECTIVE][+stacked], like conv+denoising: auto, conv, dense, "
              "forecast, lstm, pca; plain, sparse, denoising, variational, adversarial. pca and moving-deviation "
              "always run beside.")  # fmt: skip
@click.option("--train-rows", type=click.IntRange(1), metavar="N",
              help="Healthy leading rows of each asset to learn from [default: what meta.json beside the file says].")
@click.option("--window", type=click.IntRange(2), default=64, show_default=True, help="Rows in a window.")
@click.option("--budget", type=Parsed("rate", parse_budget), metavar="1/week",
              help="False alarms to calibrate to [default: 1/week].")  # fmt: skip
@click.option("--seed", type=click.IntRange(0, 2**31 - 1), default=0, show_default=True,
              help="Same seed, same figures.")  # fmt: skip
@click.option("--max-train", type=Parsed("duration", parse_seconds), metavar="60s",
              help="Each method stops learning here; auto's candidates share it.")  # fmt: skip
@click.option("--policy", "policies", type=Parsed("policy", parse_policy), multiple=True,
              metavar='"confirm=5 of 8, recover=12"',
              help="Decide by these alert parameters too, without scoring again; may be repeated.")  # fmt: skip
@range_options("stored scores (without FILES)")
@click.option("--into", type=click.Path(file_okay=False, path_type=Path), metavar="DIR",
              help="Keep finished scores here; a second run does only what is missing.")  # fmt: skip
@click.option("--report", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE.html",
              help="Write a page with plots: sensors, scores, events, alerts.")  # fmt: skip
@click.option("--processes", type=click.IntRange(1), metavar="N", help="Worker processes [default: one per core].")
@column_options
@json_option
def evaluate(
    files: tuple[Path, ...],
    methods: tuple[str, ...],
    train_rows: int | None,
    window: int,
    budget: Rate | None,
    seed: int,
    max_train: float | None,
    policies: tuple[PolicyChange, ...],
    since: datetime | None,
    until: datetime | None,
    into: Path | None,
    report: Path | None,
    processes: int | None,
    asset_column: str | None,
    time_column: str | None,
    label_column: str,
    as_json: bool,
) -> None:
    """Measure methods on labelled recordings: FILES (CSV, CSV.gz, Parquet) with a label column.

    Each file is learnt from its healthy head, and every row behind it (behind a long hole too, where the daemon would
    not) is scored and held against its label. A series that cannot be evaluated is a row with its error; the others go
    on. Fails only where a method that was asked for could evaluate nothing at all, or where monitor itself is to blame.

    Without FILES, --policy decides the scores stored in the database again: which alerts other parameters would have
    raised. Nothing is written.
    """
    if not files:
        if not policies:
            raise click.UsageError('Name FILES to evaluate, or a --policy for the stored scores ("confirm=5 of 8").')
        _refuse_idle(click.get_current_context())
        _what_if(policies, since, until, as_json=as_json)
        return
    if config_path() is not None:
        raise click.UsageError(
            "-c is for stored scores; files are evaluated with the defaults, and by --methods, --window and --budget."
        )
    if since or until:
        raise click.UsageError("--from and --to are for stored scores; files are evaluated whole (see --train-rows).")
    from dataclasses import replace

    from monitor import logs
    from monitor.evaluation.evaluate import evaluate as work
    from monitor.evaluation.methods import ScoreSettings
    from monitor.evaluation.plan import make_plan
    from monitor.evaluation.results import means, results_by_policy
    from monitor.evaluation.series import ReadOptions

    logs.configure("error")
    settings = ScoreSettings(window, seed, max_train)
    wanted = make_plan(
        files,
        methods,
        settings if budget is None else replace(settings, budget=budget),
        reading=ReadOptions(train_rows, asset_column, time_column, label_column),
        policies=policies,
        into=into,
        with_plots=report is not None,
    )
    _check_writable(files, report, into)
    with progress("evaluate") as show:
        finished = work(wanted, processes=processes, on_progress=show)
    rows = [one.row() for one in finished]
    mean = means(rows)
    if as_json:
        document = {"series": rows, "mean": mean}
        output.emit(document | {"policies": results_by_policy(wanted, finished)} if policies else document)
    else:
        _show(wanted, finished, rows, mean)
    _complain(finished)
    if report is not None:
        _write(report, wanted, finished, mean)
        if not as_json:
            echo(Styled(f"The plots are in {report}.", "dim"))
    click.get_current_context().exit(_exit_code(finished, methods))


def _complain(finished: Sequence[MethodResult]) -> None:
    """Say each warning and each error once, however many methods met it."""
    from monitor.cli import complain

    for warning in dict.fromkeys(warning for one in finished for warning in one.warnings):
        click.echo(f"{click.style('warning:', fg='yellow', bold=True)} {warning}", err=True)
    for error in dict.fromkeys(one.error for one in finished if one.error):
        complain(error)


def _exit_code(finished: Sequence[MethodResult], methods: Sequence[str]) -> int:
    """Return 1 for a defect of ours, the error's own code where a method that was asked for has no success, or 0."""
    if any(one.is_unexpected for one in finished):
        return 1
    by_method = {name: [one for one in finished if one.method == name] for name in methods}
    failed = [mine for mine in by_method.values() if all(one.error for one in mine)]
    return max((one.exit_code for mine in failed for one in mine), default=0)


def _refuse_idle(ctx: click.Context) -> None:
    """Refuse options that would do nothing to stored scores."""
    about_scores = ("policies", "since", "until", "as_json", "config")
    for param in ctx.command.params:
        is_said = param.name and ctx.get_parameter_source(param.name) is ParameterSource.COMMANDLINE
        if isinstance(param, click.Option) and is_said and param.name not in about_scores:
            msg = f"{param.opts[0]} is for FILES; stored scores take --policy, --from, --to and --json."
            raise click.UsageError(msg)


# ---------------------------------------------------------------- files


def _check_writable(files: Sequence[Path], report: Path | None, into: Path | None) -> None:
    """Refuse now what would fail after an hour of training."""
    if report is not None:
        if report.resolve() in {file.resolve() for file in files}:
            raise click.UsageError(f"--report {report} is one of the recordings; write elsewhere.")
        if not report.parent.is_dir():
            raise click.UsageError(
                f"--report {report}: there is no folder {report.parent}; make it, or write elsewhere."
            )
        _probe("report", report, _beside(report))
    if into is not None:
        try:
            into.mkdir(parents=True, exist_ok=True)
        except OSError as problem:
            raise click.UsageError(f"--into {into}: {problem.strerror}; name a folder you may write to.") from problem
        _probe("into", into, into / f".{os.getpid()}.tmp")


def _probe(option: str, named: Path, probe: Path) -> None:
    try:
        probe.write_bytes(b"")
        probe.unlink()
    except OSError as problem:
        msg = f"--{option} {named}: {problem.strerror}; name a folder you may write to."
        raise click.UsageError(msg) from problem


def _beside(report: Path) -> Path:
    """Return where the page is written before it takes its name: an interrupted one never does."""
    report = report.resolve()
    return report.with_name(f".{report.name}.{os.getpid()}.tmp")


def _write(
    report: Path, wanted: EvaluationPlan, finished: Sequence[MethodResult], mean: dict[str, dict[str, Any]]
) -> None:
    from datetime import UTC, datetime

    from monitor.evaluation.report.page import page

    text, mine = page(wanted, finished, mean, datetime.now(UTC)), _beside(report)
    try:
        mine.write_text(text, encoding="utf-8")
        mine.replace(report.resolve())
    except OSError as problem:
        with suppress(OSError):
            mine.unlink(missing_ok=True)
        raise click.FileError(str(report), str(problem.strerror)) from problem


def _show(
    wanted: EvaluationPlan,
    finished: Sequence[MethodResult],
    rows: Sequence[dict[str, Any]],
    mean: dict[str, dict[str, Any]],
) -> None:
    from monitor.evaluation.results import results_by_policy

    _show_series(finished, rows)
    echo()
    terminal.show(_means(mean))
    for tried in results_by_policy(wanted, finished):
        echo()
        echo(Styled(tried["policy"], "bold"), " instead, by the same scores:")
        terminal.show(_alarms(tried["mean"], mean))
    echo()
    kept = sum(one.from_cache for one in finished)
    from_before = f" {kept} of {len(finished)} scores were there from before." if kept else ""
    echo(
        Styled(
            "Means of set means. Found and false: alerts at the calibrated threshold that met, or did not meet, a "
            "labelled event; false/week, in a mean: all of a set's over all its normal time; alarmed: the normal time "
            "during which an alert was open; delay: the median until an event's first alert fired."
            f"{from_before}",
            "dim",
        )
    )


_RANKING = ("vus_pr", "auc_pr", "auc_roc", "range_f1")
_HEADINGS = ("VUS-PR:right", "AUC-PR:right", "AUC-ROC:right", "range F1:right", "found:right", "false:right",
             "false/week:right", "alarmed:right", "delay:right", "fit:right")  # fmt: skip


def _show_series(finished: Sequence[MethodResult], rows: Sequence[dict[str, Any]]) -> None:
    """Print a line for each method under the name of its series: names are long, and would push the figures out."""
    from monitor.evaluation.results import titles

    table = Table("series", *_HEADINGS)
    for row in rows:
        table.add(f"  {row['method']}", *_cells(row))
    headings, *lines = table.lines(terminal.columns())
    echo(headings)
    shown = titles(finished)
    last = None
    for one, line in zip(finished, lines, strict=True):
        if last != (last := one.key):
            folder, name = shown[one.key]
            echo(Styled(f"{folder} "), Styled(name, "bold"))
        echo(line)


def _means(mean: dict[str, dict[str, Any]]) -> Table:
    table = Table("mean", *_HEADINGS, "series:right")
    # A mean of the series that are left is not compared with one of all of them.
    best = max((each["vus_pr"] or 0 for each in mean.values() if not each["n_failed"]), default=0)
    for method, each in mean.items():
        is_best = each["vus_pr"] == best and not each["n_failed"]
        n = f"{each['n_series']}" + (f" of {each['n_series'] + each['n_failed']}" if each["n_failed"] else "")
        table.add(Styled(method, "bold" if is_best else ""), *_cells(each), n)
    return table


def _alarms(tried: dict[str, dict[str, Any]], mean: dict[str, dict[str, Any]]) -> Table:
    table = Table("mean", *_HEADINGS[len(_RANKING) : -1], "by default:right")
    for method, each in tried.items():
        alarms = _cells(each)[len(_RANKING) : -1]
        base = mean[method]
        before = f"{base['events_found'] or 0} found, {base['false_alarms'] or 0} false"
        table.add(method, *alarms, Styled(before, "dim"))
    return table


def _cells(row: dict[str, Any]) -> list[str | Styled]:
    if row.get("error"):
        return [Styled("failed", "red"), *[""] * (len(_HEADINGS) - 1)]
    found = f"{row['events_found']} of {row['events']}" if row["events"] else "–"
    delay = "–" if row["delay_s"] is None else _span(row["delay_s"])
    return [
        *("–" if row[name] is None else f"{row[name]:.3f}" for name in _RANKING),
        found,
        "–" if row["false_alarms"] is None else str(row["false_alarms"]),
        output.number(row["false_alarms_per_week"], 2),
        "–" if row["alarmed_share"] is None else output.percent(row["alarmed_share"]),
        delay,
        "–" if row["fit_s"] is None else f"{row['fit_s']:.1f} s",
    ]


def _span(seconds: float) -> str:
    from datetime import timedelta

    return output.duration(timedelta(seconds=seconds))


# ---------------------------------------------------------------- stored scores


def _what_if(
    policies: Sequence[PolicyChange], since: datetime | None, until: datetime | None, *, as_json: bool
) -> None:
    from dataclasses import asdict

    from monitor.evaluation.policy import try_policies

    fleets = load_config().fleets
    with open_store() as store, progress("evaluate") as show:
        found = try_policies(store, fleets, policies, since=since, until=until, on_progress=show)
        is_empty = not any(one.windows for one in found)
        hint = output.nothing("stored scores", store, since=since, until=until) if is_empty else ""
    if as_json:
        output.emit({"policies": [asdict(one) for one in found]})
        return
    if hint:
        echo(hint)
        return
    terminal.show(_stored(found))
    echo()
    echo(
        Styled(
            "Stored scores decided again from the first on, nothing was written. Gained and lost: against the "
            "configured parameters; per week: of one asset.",
            "dim",
        )
    )


def _stored(found: Sequence[PolicyTrial]) -> Table:
    table = Table("fleet", "confirm", "recover:right", "alerts:right", "per week:right", "gained:right", "lost:right",
                  "assets:right", "windows:right")  # fmt: skip
    for one in found:
        is_own = one.policy == "configured"
        table.add(
            one.fleet if is_own else "",
            Styled(f"{one.confirm}{' (configured)' if is_own else ''}", "dim" if is_own else ""),
            str(one.recover),
            f"{one.alerts:,}",
            output.number(one.per_week, 2),
            "" if is_own else f"{one.gained:,}",
            "" if is_own else f"{one.lost:,}",
            f"{one.assets:,}",
            f"{one.windows:,}",
        )
    return table
