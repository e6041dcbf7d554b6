"""`monitor demo`: all of it, on real data, in one command."""

from __future__ import annotations

import os
import shutil
import signal
import sys
from pathlib import Path
from typing import Any

import click

from monitor.cli import output, terminal
from monitor.cli.alerts import lasted
from monitor.cli.terminal import Styled, echo

THE_STOP = "2015-07-27"
"""R80711 stood with its blades feathered, at 10 m/s of wind, all of this day."""


@click.command()
@click.option("--live", is_flag=True, help="Watch this machine's own metrics instead, until Ctrl-C.")
@click.option(
    "--folder", type=click.Path(file_okay=False, path_type=Path), default=Path("monitor-demo"), show_default=True,
    help="Where configuration, database and logs go.",
)  # fmt: skip
def demo(live: bool, folder: Path) -> None:
    """Watch wind turbines go by: broker, training, alerts.

    Fetches two years of four turbines from the package index (54 MB, once), trains on the first four months, streams
    the other twenty through an embedded Kafka broker, and shows the alerts as they open and close.
    """
    from monitor import demo as stage

    # What it started must end with it, whoever ends it: SIGTERM unwinds like Ctrl-C.
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupt)
    here = stage.Stage(folder, _tell, _show)
    if live:
        stage.live(here)
    else:
        _summary(stage.turbines(here))
    _further(folder)


def _interrupt(_number: int, _frame: object) -> None:
    raise KeyboardInterrupt


def _tell(line: str) -> None:
    sign, rest = (line[:1], line[1:]) if line.startswith("✓") else ("", line)
    echo(Styled(sign, "green"), rest)


def _show(alert: dict[str, Any]) -> None:
    is_closed = alert["closed_at"] is not None
    when = output.moment(alert["closed_at"] if is_closed else alert["opened_at"])
    what = f"closed after {lasted(alert)}" if is_closed else "alert"
    sign = Styled("○" if is_closed else "●", "dim" if is_closed else "bold red")
    peak = f"peak {alert['peak_score']:.2f}"
    sensors = Styled(output.contributions(alert["sensors"]), "dim")
    echo(sign, f" {when}  {alert['asset']:<13}{what:<25}{peak:<12}", sensors)


def _summary(facts: dict[str, Any]) -> None:
    alerts = facts["alerts"]
    per_asset: dict[str, int] = {}
    for alert in alerts:
        per_asset[alert["asset"]] = per_asset.get(alert["asset"], 0) + 1
    counted = ", ".join(f"{asset} {n}" for asset, n in sorted(per_asset.items()))
    echo()
    echo(
        Styled(f"{facts['readings']:,} readings in {facts['flow_s']:.0f} s", "bold"),
        f" ({facts['readings'] / facts['flow_s']:,.0f} a second, publishing included), ",
        f"{facts['quarantined']} quarantined",
    )
    echo(Styled(f"{len(alerts)} alerts", "bold"), f" in twenty months: {counted}")
    for alert in _of_the_stop(alerts):
        _explain(alert)
    echo(f"\nThe daemon drained in {facts['drained_s']:.1f} s; all of it took {facts['took_s']:.0f} s.")


def _of_the_stop(alerts: list[dict[str, Any]]) -> list[dict[str, Any]]:
    def covers(alert: dict[str, Any]) -> bool:
        opened, closed = str(alert["opened_at"]), str(alert["closed_at"] or "9")
        return alert["asset"] == "R80711" and opened[:10] <= THE_STOP <= closed[:10]

    return sorted(filter(covers, alerts), key=lambda alert: -alert["peak_score"])[:1]


def _explain(alert: dict[str, Any]) -> None:
    echo()
    echo(
        Styled(f"The stop of R80711 on {THE_STOP}", "bold"),
        f" (blades feathered, no power in 10 m/s of wind): alert {alert['id']},",
    )
    echo(f"{output.moment(alert['opened_at'])} to {output.moment(alert['closed_at'])}, at its peak:")
    table = terminal.Table("sensor", "share:right", "expected:right", "actual:right")
    for sensor in alert["sensors"]:
        table.add(
            sensor["name"],
            output.percent(sensor["share"]),
            output.number(sensor["expected"]),
            output.number(sensor["actual"]),
        )
    terminal.show(table)


def _further(folder: Path) -> None:
    # On a fresh machine the environment is not on the PATH: show what can be typed here.
    program = Path(sys.argv[0])
    monitor = "monitor" if shutil.which("monitor") == str(program) else os.path.relpath(program)
    echo(Styled("\nLook further:", "bold"), Styled(f"   (export MONITOR_CONFIG={folder}/monitor.toml)", "dim"))
    for command, why in (
        ("alerts list", "all alerts"),
        ("alerts show 1", "one alert: its course, its sensors, its scores"),
        ("scores show R80711 --from 2015-07-20 --to 2015-08-03", "the scores around the stop"),
        ("models list", "the model, and how sure its threshold is"),
    ):
        echo(f"  {monitor} {command}", Styled(f"   # {why}", "dim"))
    echo(Styled(f"  {folder}/monitor.toml is a complete configuration to start from.", "dim"))
