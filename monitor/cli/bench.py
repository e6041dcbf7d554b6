"""`monitor bench`: how fast, and against what."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from monitor.cli import output, terminal
from monitor.cli.params import json_option
from monitor.cli.progress import progress
from monitor.cli.terminal import Styled, Table, echo

if TYPE_CHECKING:
    from monitor.benchmark.bench import BenchReport, CaseSummary


@click.command()
@click.option("--bootstrap", metavar="HOST:PORT", help="A broker to use [default: the embedded one].")
@click.option("--case", "cases", multiple=True, metavar="NAME", help="Only this case; may be repeated.")
@click.option("--quick", is_flag=True, help="Half a minute: one repeat, rough figures.")
@json_option
def bench(bootstrap: str | None, cases: tuple[str, ...], quick: bool, as_json: bool) -> None:
    """Measure speed against the usual script, on this machine.

    The same records, the same weights, every product feature on; each case in its own process, repeats interleaved,
    medians. It uses topics of its own and deletes them. CPU time is the figure to trust: wall rates wander.
    """
    import asyncio

    from monitor import logs
    from monitor.benchmark import bench as work

    logs.configure("error")
    plan = work.make_plan(cases, quick=quick, bootstrap=bootstrap)
    with progress("bench") as show:
        report = asyncio.run(work.run(plan, show))
    if as_json:
        output.emit(
            {
                "cases": [asdict(case) for case in report.cases],
                "source": report.source,
                "repeats": report.repeats,
                "record_bytes": report.record_bytes,
                "took_s": report.took_s,
            }
        )
    else:
        _report(report)


def _report(report: BenchReport) -> None:
    table = Table(
        "case",
        "device",
        "readings/s:right",
        "windows/s:right",
        "CPU-s per million:right",
        "less CPU:right",
        "RSS:right",
        "p50:right",
        "p99:right",
    )
    for case in report.cases:
        table.add(*_row(case))
    terminal.show(table)
    echo()
    times = "once" if report.repeats == 1 else f"{report.repeats} times, interleaved, medians"
    echo(
        Styled(
            f"{report.record_bytes}-byte JSON readings of 8 sensors, 100 assets, windows of 64, from {report.source}; "
            f"{times}; {report.took_s:.0f} s. Less CPU: against the usual script in this run. "
            "p50, p99: from send to commit, at 1,000 readings a second.",
            "dim",
        )
    )


def _row(case: CaseSummary) -> list[str | Styled]:
    def ms(value: float | None) -> str:
        return "–" if value is None else f"{value:.0f} ms"

    ratio = "–" if case.cpu_ratio is None else f"{case.cpu_ratio:.1f}×"
    return [
        case.name,
        case.device,
        f"{case.readings_per_s:,.0f}",
        f"{case.windows_per_s:,.0f}",
        f"{case.cpu_s_per_million:,.1f}",
        Styled(ratio, "bold"),
        f"{case.rss_mb:,.0f} MB",
        ms(case.p50_ms),
        ms(case.p99_ms),
    ]
