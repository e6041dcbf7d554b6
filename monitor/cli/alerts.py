"""`monitor alerts`: what went wrong, when, where, and which sensors say so."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

import click

from monitor.cli import output
from monitor.cli.params import config_option, json_option, local_option, open_store, range_options

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from rich.console import Console
    from rich.table import Table

SHOWN = 50
"""Alerts in a table when nobody says how many."""

WIDE = 100
"""Columns from which there is room for more than two sensors."""

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
            out = output.console()
            out.print(_table(found, width=out.width, local=local))
            more = f" The newest {wanted}; --limit 0 shows all." if len(found) == wanted else ""
            out.print(f"\n{output.zone(local=local)}{more}", style="dim")
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
        _print(output.console(), alert, scores, local=local)


def _table(found: Sequence[Alert], *, width: int, local: bool) -> Table:
    has_fleets = len({alert["fleet"] for alert in found}) > 1
    columns = ["id:right", "state", "asset", *(["fleet"] if has_fleets else []), "opened", "lasted:right", "peak:right"]
    table = output.table(*columns, "sensors:rest")
    for alert in found:
        is_critical = alert["severity"] == "critical"
        table.add_row(
            str(alert["id"]),
            output.state(alert["state"]),
            output.plain(alert["asset"]),
            *([output.plain(alert["fleet"])] if has_fleets else []),
            output.moment(alert["opened_at"], local=local),
            lasted(alert),
            output.plain(output.number(alert["peak_score"], 2), "bold red" if is_critical else ""),
            output.plain(output.blame(alert["sensors"], most=2 if width < WIDE else 4)),
        )
    return table


def _print(out: Console, alert: Alert, scores: Sequence[Mapping[str, Any]], *, local: bool) -> None:
    title = output.plain(f"Alert {alert['id']} · {alert['asset']}", "bold")
    out.print(title.append(f" of {alert['fleet']}  ", "dim").append_text(output.state(alert["state"])))
    peak_at = output.moment(alert["peak_at"], local=local)
    facts = {
        "opened": output.moment(alert["opened_at"], local=local),
        "closed": output.moment(alert["closed_at"], local=local),
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
            out.print(output.plain(f"  {name:<13}", "dim").append(str(value), ""))
    if scores:
        from monitor.cli.plot import plot

        out.print()
        times = [output.as_datetime(score["end"]) for score in scores]
        for line in plot(output.in_zone(times, local=local), [s["score"] for s in scores], width=out.width, rows=8):
            out.print(line)
    out.print()
    table = output.table("sensor", "share:right", "", "expected:right", "actual:right")
    for sensor in alert["sensors"]:
        bar = "█" * round(sensor["share"] * 20)
        values = (output.number(sensor["expected"]), output.number(sensor["actual"]))
        table.add_row(
            output.plain(sensor["name"]), output.percent(sensor["share"]), output.plain(f"{bar:<20}", "red"), *values
        )
    out.print(table)
    out.print("\nCourse", style="dim")
    for step in alert["transitions"]:
        line = output.plain(f"  {output.moment(step['at'], local=local)}  ").append_text(output.state(step["state"]))
        out.print(line.append(f"  peak {output.number(step['peak_score'])}", "dim"))
    out.print(f"\n{output.zone(local=local)} More: monitor scores show {alert['asset']}", style="dim", markup=False)


def lasted(alert: Alert) -> str:
    """Say how long an alert was open, in event time; an open one: so far."""
    opened, closed = alert["opened_at"], alert["closed_at"]
    duration = output.as_datetime(closed or alert["updated_at"]) - output.as_datetime(opened)
    return output.duration(duration)
