"""`monitor alerts`: what went wrong, when, where, and which sensors say so."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

import click

from monitor.cli import output, terminal
from monitor.cli.params import config_option, json_option, local_option, open_store, range_options
from monitor.cli.terminal import Ink, Table, say

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

SHOWN = 50
"""Alerts in a table when nobody says how many."""

Alert = dict[str, Any]


@click.group()
@config_option
def alerts() -> None:
    """Look at alerts, open and closed."""


@alerts.command("list")
@config_option
@click.option("--asset", help="Only of this asset.")
@click.option("--fleet", help="Only of this fleet.")
@click.option("--state", type=click.Choice(["open", "firing", "recovering", "closed"]), help="open: not yet closed.")
@range_options("alerts opened")
@click.option("--limit", type=click.IntRange(0), help=f"The newest N; 0: all [default: {SHOWN}; with --json: all].")
@local_option
@json_option
def list_alerts(limit: int | None, local: bool, as_json: bool, **only: Any) -> None:
    """List alerts, the newest first."""
    wanted = (0 if as_json else SHOWN) if limit is None else limit
    with open_store() as store:
        found = store.alerts(**only, limit=wanted or None)
        if as_json:
            output.emit_list(found)
        elif found:
            terminal.show(_table(found, local=local))
            more = f" The newest {wanted}; --limit 0 shows all." if len(found) == wanted else ""
            say(Ink(f"\n{output.zone(local=local)}{more}", "dim"))
        else:
            click.echo(output.nothing("alerts", store, **only))


@alerts.command("show")
@config_option
@click.argument("alert_id", metavar="ID", type=int)
@local_option
@json_option
def show_alert(alert_id: int, local: bool, as_json: bool) -> None:
    """Show one alert: its course, its sensors, the scores around it."""
    with open_store() as store:
        alert = store.alert(alert_id)
        if as_json:
            output.emit(alert)
            return
        opened, last = output.as_datetime(alert["opened_at"]), output.as_datetime(alert["updated_at"])
        around = max((last - opened) / 2, timedelta(hours=1))
        scores = list(store.scores(alert["asset"], alert["fleet"], since=opened - around, until=last + around))
        _show(alert, scores, local=local)


def _table(found: Sequence[Alert], *, local: bool) -> Table:
    where = ["asset", "fleet"] if len({alert["fleet"] for alert in found}) > 1 else ["asset"]
    table = Table("id:right", "state", *where, "opened", "lasted:right", "peak:right", "sensors:rest")
    for alert in found:
        table.add(
            str(alert["id"]),
            output.state(alert["state"]),
            *(alert[name] for name in where),
            output.moment(alert["opened_at"], local=local),
            lasted(alert),
            Ink(f"{alert['peak_score']:.2f}", "bold red" if alert["severity"] == "critical" else ""),
            output.blame(alert["sensors"], most=2 if terminal.columns() < terminal.WIDE else 4),
        )
    return table


def _show(alert: Alert, scores: Sequence[Mapping[str, Any]], *, local: bool) -> None:
    title = f"Alert {alert['id']} · {alert['asset']}"
    say(Ink(title, "bold"), Ink(f" of {alert['fleet']}  ", "dim"), output.state(alert["state"]))
    peak_at = output.moment(alert["peak_at"], local=local)
    facts = {
        "opened": output.moment(alert["opened_at"], local=local),
        "closed": alert["closed_at"] and output.moment(alert["closed_at"], local=local),
        "lasted": lasted(alert) + ("" if alert["closed_at"] else " so far"),
        "severity": alert["severity"],
        "peak": f"{output.number(alert['peak_score'])} × the threshold at {peak_at}",
        "windows": f"{alert['n_anomalous']} anomalous",
        "version": alert["version"],
        "acknowledged": alert["acknowledged_by"],
        "label": alert["label"],
    }
    for name, value in facts.items():
        if value is not None:
            say(Ink(f"  {name:<13}", "dim"), value)
    if scores:
        from monitor.cli.plot import plot

        say()
        times = output.in_zone((output.as_datetime(score["end"]) for score in scores), local=local)
        for line in plot(times, [score["score"] for score in scores], width=terminal.columns(), rows=8):
            say(*line)
    say()
    table = Table("sensor", "share:right", "", "expected:right", "actual:right")
    for sensor in alert["sensors"]:
        bar = Ink("█" * round(sensor["share"] * 20), "red")
        values = (output.number(sensor["expected"]), output.number(sensor["actual"]))
        table.add(sensor["name"], output.percent(sensor["share"]), bar, *values)
    terminal.show(table)
    say(Ink("\nCourse", "dim"))
    for step in alert["transitions"]:
        peak = Ink(f"  peak {output.number(step['peak_score'])}", "dim")
        say(f"  {output.moment(step['at'], local=local)}  ", output.state(step["state"]), peak)
    say(Ink(f"\n{output.zone(local=local)} More: monitor scores show {alert['asset']}", "dim"))


def lasted(alert: Alert) -> str:
    """Say how long an alert was open, in event time; an open one: so far."""
    opened, closed = alert["opened_at"], alert["closed_at"]
    duration = output.as_datetime(closed or alert["updated_at"]) - output.as_datetime(opened)
    return output.duration(duration)
