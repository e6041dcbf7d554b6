"""`monitor evaluate`: what a method is worth on labelled recordings, and what other alert parameters would do."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from monitor.cli import output, terminal
from monitor.cli.params import config_option, json_option, load_config, open_store, range_options
from monitor.cli.progress import progress
from monitor.cli.terminal import Ink, Table, say

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from monitor.config.values import Rate
    from monitor.evaluation.evaluate import Finished, Plan
    from monitor.evaluation.policy import PolicyChange, WhatIf


class Seconds(click.ParamType[float]):
    """A duration above zero: 60s, 10m."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Read one."""
        from monitor.config.values import parse_duration

        try:
            seconds = parse_duration(str(value)).total_seconds()
        except ValueError as problem:
            self.fail(f'"{value}" {problem}', param, ctx)
        return seconds if seconds > 0 else self.fail(f'"{value}" leaves no time to learn; write 60s', param, ctx)


class Budget(click.ParamType["Rate"]):
    """A rate: 1/week."""

    name = "rate"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Rate:
        """Read one."""
        from monitor.config.values import Rate

        try:
            return Rate.parse(value)
        except ValueError as problem:
            self.fail(f'"{value}" {problem}', param, ctx)


class Policy(click.ParamType["PolicyChange"]):
    """Alert parameters: "confirm=5 of 8, recover=12"."""

    name = "policy"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> PolicyChange:
        """Read one."""
        from monitor.evaluation.policy import PolicyChange

        try:
            return PolicyChange.parse(str(value))
        except ValueError as problem:
            self.fail(str(problem), param, ctx)


class Names(click.ParamType[tuple[str, ...]]):
    """Names separated by commas."""

    name = "names"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, ...]:
        """Read them."""
        names = value if isinstance(value, tuple) else tuple(name.strip() for name in str(value).split(","))
        return names if all(names) else self.fail(f'"{value}" names no method between commas; write a,b', param, ctx)


@click.command()
@config_option
@click.argument("files", nargs=-1, type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--methods", type=Names(), default="default", show_default=True, metavar="A,B,…",
              help="default, ARCHITECTURE[+OBJECTIVE][+stacked] (pca, conv+denoising), random. pca and "
              "moving-deviation always run beside.")  # fmt: skip
@click.option("--train-rows", type=click.IntRange(1), metavar="N",
              help="Healthy leading rows to learn from [default: what meta.json beside the file says].")
@click.option("--window", type=click.IntRange(2), default=64, show_default=True, help="Rows in a window.")
@click.option("--budget", type=Budget(), metavar="1/week", help="False alarms to calibrate to [default: 1/week].")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Same seed, same figures.")
@click.option("--max-train", type=Seconds(), metavar="60s", help="Each network stops learning here.")
@click.option("--policy", "policies", type=Policy(), multiple=True, metavar='"confirm=5 of 8, recover=12"',
              help="Decide by these alert parameters too, without scoring again; may be repeated.")  # fmt: skip
@range_options("stored scores (without FILES)")
@click.option("--into", type=click.Path(file_okay=False, path_type=Path), metavar="DIR",
              help="Keep finished scores here; a second run does only what is missing.")  # fmt: skip
@click.option("--report", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE.html",
              help="Write a page with plots: sensors, scores, events, alerts.")  # fmt: skip
@click.option("--processes", type=click.IntRange(1), metavar="N", help="Worker processes [default: one per core].")
@click.option("--asset-column", help="The column that names the asset.")
@click.option("--time-column", help="The column of times.")
@click.option("--label-column", default="label", show_default=True, help="The column of labels; never learnt from.")
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

    Each file is learnt from its healthy head, and every row behind it is scored and held against its label. A series
    that cannot be evaluated is a row with its error; the others go on.

    Without FILES, --policy decides the scores stored in the database again: which alerts other parameters would have
    raised. Nothing is written.
    """
    if not files:
        if not policies:
            raise click.UsageError('Name FILES to evaluate, or a --policy for the stored scores ("confirm=5 of 8").')
        _what_if(policies, since, until, as_json=as_json)
        return
    if since or until:
        raise click.UsageError("--from and --to are for stored scores; files are evaluated whole (see --train-rows).")
    from dataclasses import replace

    from monitor import logs
    from monitor.cli import complain
    from monitor.evaluation.evaluate import by_policy, means, plan
    from monitor.evaluation.evaluate import evaluate as work
    from monitor.evaluation.methods import Settings
    from monitor.evaluation.series import Reading

    logs.configure("error")
    settings = Settings(window, seed, max_train)
    wanted = plan(
        files,
        methods,
        settings if budget is None else replace(settings, budget=budget),
        reading=Reading(train_rows, asset_column, time_column, label_column),
        policies=policies,
        into=into,
        with_pictures=report is not None,
    )
    _check_writable(report, into)
    with progress("evaluate") as show:
        finished = work(wanted, processes=processes, on_progress=show)
    rows = [one.row() for one in finished]
    mean = means(rows)
    if report is not None:
        _write(report, wanted, finished, mean)
    if as_json:
        document = {"series": rows, "mean": mean}
        output.emit(document | {"policies": by_policy(wanted, finished)} if policies else document)
    else:
        _show(wanted, finished, rows, mean, report)
    errors = {one.error: one.exit_code for one in finished if one.error}
    for error in errors:
        complain(error)
    if all(one.error for one in finished):
        click.get_current_context().exit(max(errors.values()))


# ---------------------------------------------------------------- files


def _check_writable(report: Path | None, into: Path | None) -> None:
    """Refuse now what would fail after an hour of training."""
    if report is not None and not report.parent.is_dir():
        raise click.UsageError(f"--report {report}: there is no folder {report.parent}; make it, or write elsewhere.")
    if into is not None:
        try:
            into.mkdir(parents=True, exist_ok=True)
        except OSError as problem:
            raise click.UsageError(f"--into {into}: {problem.strerror}; name a folder you may write to.") from problem


def _write(report: Path, wanted: Plan, finished: Sequence[Finished], mean: dict[str, dict[str, Any]]) -> None:
    from datetime import UTC, datetime

    from monitor.evaluation.report.page import page

    try:
        report.write_text(page(wanted, finished, mean, datetime.now(UTC)), encoding="utf-8")
    except OSError as problem:
        raise click.FileError(str(report), str(problem.strerror)) from problem


def _show(
    wanted: Plan,
    finished: Sequence[Finished],
    rows: Sequence[dict[str, Any]],
    mean: dict[str, dict[str, Any]],
    report: Path | None,
) -> None:
    from monitor.evaluation.evaluate import by_policy

    _show_series(rows)
    say()
    terminal.show(_means(mean))
    for tried in by_policy(wanted, finished):
        say()
        say(Ink(tried["policy"], "bold"), " instead, by the same scores:")
        terminal.show(_alarms(tried["mean"], mean))
    say()
    kept = sum(one.was_kept for one in finished)
    from_before = f" {kept} of {len(finished)} scores were there from before." if kept else ""
    where = f" The plots are in {report}." if report else ""
    say(
        Ink(
            "Means of set means. Found and false: alerts at the calibrated threshold that met, or did not meet, a "
            "labelled event; alarmed: the normal time during which an alert was open; delay until an event's first "
            f"alert fired.{from_before}{where}",
            "dim",
        )
    )


_RANKING = ("vus_pr", "auc_pr", "auc_roc", "range_f1")
_HEADINGS = ("VUS-PR:right", "AUC-PR:right", "AUC-ROC:right", "range F1:right", "found:right", "false:right",
             "false/week:right", "alarmed:right", "delay:right", "fit:right")  # fmt: skip


def _show_series(rows: Sequence[dict[str, Any]]) -> None:
    """Print a line for each method under the name of its series: names are long, and would push the figures out."""
    table = Table("series", *_HEADINGS)
    for row in rows:
        table.add(f"  {row['method']}", *_cells(row))
    headings, *lines = table.lines(terminal.columns())
    say(headings)
    last = None
    for row, line in zip(rows, lines, strict=True):
        if last != (last := (row["set"], row["name"])):
            say(Ink(f"{row['set']} "), Ink(row["name"], "bold"))
        say(line)


def _means(mean: dict[str, dict[str, Any]]) -> Table:
    table = Table("mean", *_HEADINGS, "series:right")
    best = max((each["vus_pr"] or 0 for each in mean.values()), default=0)
    for method, each in mean.items():
        n = f"{each['n_series']}" + (f" of {each['n_series'] + each['n_failed']}" if each["n_failed"] else "")
        table.add(Ink(method, "bold" if each["vus_pr"] == best else ""), *_cells(each), n)
    return table


def _alarms(tried: dict[str, dict[str, Any]], mean: dict[str, dict[str, Any]]) -> Table:
    table = Table("mean", *_HEADINGS[len(_RANKING) : -1], "by default:right")
    for method, each in tried.items():
        alarms = _cells(each)[len(_RANKING) : -1]
        base = mean[method]
        before = f"{base['events_found'] or 0} found, {base['false_alarms'] or 0} false"
        table.add(method, *alarms, Ink(before, "dim"))
    return table


def _cells(row: dict[str, Any]) -> list[str | Ink]:
    if row.get("error"):
        return [Ink("failed", "red"), *[""] * (len(_HEADINGS) - 1)]
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

    from monitor.evaluation.policy import what_if

    fleets = load_config().fleets
    with open_store() as store, progress("evaluate") as show:
        found = what_if(store, fleets, policies, since=since, until=until, on_progress=show)
        is_empty = not any(one.windows for one in found)
        hint = output.nothing("stored scores", store, since=since, until=until) if is_empty else ""
    if as_json:
        output.emit({"policies": [asdict(one) for one in found]})
        return
    if hint:
        say(hint)
        return
    terminal.show(_stored(found))
    say()
    say(
        Ink(
            "Stored scores decided again from the first on, nothing was written. Gained and lost: against the "
            "configured parameters; per week: of one asset.",
            "dim",
        )
    )


def _stored(found: Sequence[WhatIf]) -> Table:
    table = Table("fleet", "confirm", "recover:right", "alerts:right", "per week:right", "gained:right", "lost:right",
                  "assets:right", "windows:right")  # fmt: skip
    for one in found:
        is_own = one.policy == "configured"
        table.add(
            one.fleet if is_own else "",
            Ink(f"{one.confirm}{' (configured)' if is_own else ''}", "dim" if is_own else ""),
            str(one.recover),
            f"{one.alerts:,}",
            output.number(one.per_week, 2),
            "" if is_own else f"{one.gained:,}",
            "" if is_own else f"{one.lost:,}",
            f"{one.assets:,}",
            f"{one.windows:,}",
        )
    return table
