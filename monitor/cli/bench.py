"""`monitor bench`: speed against a baseline script."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from monitor.cli import output
from monitor.cli.params import json_option
from monitor.cli.progress import progress
from monitor.cli.terminal import Styled, Table, echo, echo_prose, is_wide

if TYPE_CHECKING:
    from monitor.benchmark.bench import BenchReport, CaseSummary


@click.command()
@click.option("--bootstrap", metavar="HOST:PORT", help="Broker to use [default: the embedded one].")
@click.option("--case", "cases", multiple=True, metavar="NAME", help="Only this case; may be repeated.")
@click.option("--quick", is_flag=True, help="Measure once, for half a minute: rough figures.")
@json_option
def bench(bootstrap: str | None, cases: tuple[str, ...], quick: bool, as_json: bool) -> None:
    """Measure speed against a baseline script.

    Both read the same records with the same weights, and monitor has every feature on. Each case runs in a process of
    its own. The repeats of the cases are interleaved, and the figures are medians. The benchmark uses its own topics
    and deletes them. Trust the CPU time: rates by wall clock vary with the load of the machine.
    """
    import asyncio

    from monitor import logs
    from monitor.benchmark import bench as benchmark

    logs.configure("error")
    plan = benchmark.make_plan(cases, quick=quick, bootstrap=bootstrap)
    with progress("bench") as on_progress:
        report = asyncio.run(benchmark.run(plan, on_progress))
    if as_json:
        output.print_json(asdict(report))
    else:
        _print(report)


def _print(report: BenchReport) -> None:
    figures = ["CPU s/M", "less CPU", "RSS", "p50", "p99"]
    rates = ["device", "readings/s:right", "windows/s:right"] if is_wide() else ["readings/s:right"]
    table = Table("case", *rates, *(f"{name}:right" for name in figures))
    for case in report.cases:
        table.add(*_row(case))
    table.print()
    echo()
    times = "once" if report.repeats == 1 else f"{report.repeats} times, interleaved, medians"
    echo_prose(
        f"{report.record_bytes}-byte JSON readings of 8 sensors, 100 assets, windows of 64, from {report.source}; "
        f"{times}; {report.took_s:.0f} s. CPU s/M: CPU seconds per million readings. Less CPU: than the baseline "
        "script in this run. p50, p99: from send to commit, at 1,000 readings a second.",
        "dim",
    )


def _row(case: CaseSummary) -> list[str | Styled]:
    readings, windows = f"{case.readings_per_s:,.0f}", f"{case.windows_per_s:,.0f}"
    return [
        case.name,
        *([case.device, readings, windows] if is_wide() else [readings]),
        f"{case.cpu_s_per_million:,.1f}",
        Styled("–" if case.cpu_ratio is None else f"{case.cpu_ratio:.1f}×", "bold"),
        f"{case.rss_mb:,.0f} MB",
        *("–" if value is None else f"{value:.0f} ms" for value in (case.p50_ms, case.p99_ms)),
    ]
