"""`monitor alerts`: what went wrong, when, where, and which sensors say so; and what went wrong with the data."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

import click

from monitor.cli import output, terminal
from monitor.cli.params import config_option, json_option, local_option, open_store, range_options
from monitor.cli.terminal import Styled, Table, echo

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
@click.option(
    "--class",
    "alert_class",
    type=click.Choice(["process", "data"]),
    help="process: of assets; data: of records that were lost or refused.",
)
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
            echo(Styled(f"\n{output.zone(local=local)}{more}", "dim"))
        else:
            click.echo(output.nothing("alerts", store, **only))


@alerts.command("show")
@config_option
@click.argument("alert_id", metavar="ID", type=int)
@local_option
@json_option
def show_alert(alert_id: int, local: bool, as_json: bool) -> None:
    """Show one alert: its course, its sensors, the scores around it; of the data: what happened, and what to do."""
    with open_store() as store:
        alert = store.alert(alert_id)
        if as_json:
            output.emit(alert)
            return
        if alert["class"] == "data":
            _show_data(alert, local=local)
            return
        opened, last = output.as_datetime(alert["opened_at"]), output.as_datetime(alert["updated_at"])
        around = max((last - opened) / 2, timedelta(hours=1))
        scores = list(store.scores(alert["asset"], alert["fleet"], since=opened - around, until=last + around))
        _show(alert, scores, local=local)


def _table(found: Sequence[Alert], *, local: bool) -> Table:
    where = ["asset", "fleet"] if len({alert["fleet"] for alert in found}) > 1 else ["asset"]
    columns = [f"{name}, or where" if name == "asset" and _has_data(found) else name for name in where]
    last = "sensors, or what" if _has_data(found) else "sensors"
    table = Table("id:right", "state", *columns, "opened", "lasted:right", "peak:right", f"{last}:rest")
    for alert in found:
        is_data = alert["class"] == "data"
        names = alert | {"asset": place(alert)} if is_data else alert
        peak = "–" if is_data else f"{alert['peak_score']:.2f}"
        most = 2 if terminal.columns() < terminal.WIDE else 4
        table.add(
            str(alert["id"]),
            output.state(alert["state"]),
            *(names[name] or "–" for name in where),
            output.moment(alert["opened_at"], local=local),
            lasted(alert),
            Styled(peak, "bold red" if alert["severity"] == "critical" else ""),
            f"{alert['kind']}, {records(alert)}" if is_data else output.contributions(alert["sensors"], most=most),
        )
    return table


def _has_data(found: Sequence[Alert]) -> bool:
    return any(alert["class"] == "data" for alert in found)


def _show_data(alert: Alert, *, local: bool) -> None:
    title = f"Alert {alert['id']} · {alert['kind']} in {place(alert)}"
    of_fleet = [Styled(f" of {alert['fleet']}", "dim")] if alert["fleet"] else []
    echo(Styled(title, "bold"), *of_fleet, "  ", output.state(alert["state"]))
    _facts(
        {
            **_times(alert, local=local),
            "severity": alert["severity"],
            "records": f"{records(alert)}, the first at offset {alert['from_offset']}",
            "acknowledged": alert["acknowledged_by"],
            "label": alert["label"],
        }
    )
    echo(f"\n{alert['message']}.")
    echo(Styled("\nCourse", "dim"))
    for step in alert["transitions"]:
        so_far = Styled(f"  {records(step)}", "dim")
        echo(f"  {output.moment(step['at'], local=local)}  ", output.state(step["state"]), so_far)
    hint = "" if alert["kind"] != "asset_limit" else f" More: monitor quarantine list --topic {alert['topic']}"
    echo(Styled(f"\n{output.zone(local=local)}{hint}", "dim"))


def _show(alert: Alert, scores: Sequence[Mapping[str, Any]], *, local: bool) -> None:
    title = f"Alert {alert['id']} · {alert['asset']}"
    echo(Styled(title, "bold"), Styled(f" of {alert['fleet']}  ", "dim"), output.state(alert["state"]))
    peak_at = output.moment(alert["peak_at"], local=local)
    _facts(
        {
            **_times(alert, local=local),
            "severity": alert["severity"],
            "peak": f"{output.number(alert['peak_score'])} × the threshold at {peak_at}",
            "windows": f"{alert['n_anomalous']} anomalous",
            "version": alert["version"],
            "acknowledged": alert["acknowledged_by"],
            "label": alert["label"],
        }
    )
    if scores:
        from monitor.cli.plot import plot

        echo()
        times = output.in_zone((output.as_datetime(score["end"]) for score in scores), local=local)
        for line in plot(times, [score["score"] for score in scores], width=terminal.columns(), rows=8):
            echo(*line)
    echo()
    table = Table("sensor", "share:right", "", "expected:right", "actual:right")
    for sensor in alert["sensors"]:
        bar = Styled("█" * round(sensor["share"] * 20), "red")
        values = (output.number(sensor["expected"]), output.number(sensor["actual"]))
        table.add(sensor["name"], output.percent(sensor["share"]), bar, *values)
    terminal.show(table)
    echo(Styled("\nCourse", "dim"))
    for step in alert["transitions"]:
        peak = Styled(f"  peak {output.number(step['peak_score'])}", "dim")
        echo(f"  {output.moment(step['at'], local=local)}  ", output.state(step["state"]), peak)
    echo(Styled(f"\n{output.zone(local=local)} More: monitor scores show {alert['asset']}", "dim"))


def _times(alert: Alert, *, local: bool) -> dict[str, str | None]:
    return {
        "opened": output.moment(alert["opened_at"], local=local),
        "closed": alert["closed_at"] and output.moment(alert["closed_at"], local=local),
        "lasted": lasted(alert) + ("" if alert["closed_at"] else " so far"),
    }


def _facts(facts: Mapping[str, str | None]) -> None:
    for name, value in facts.items():
        if value is not None:
            echo(Styled(f"  {name:<13}", "dim"), value)


def place(alert: Alert) -> str:
    """Name the partition of an alert about the data."""
    return f"{alert['topic']}/{alert['partition']}"


def records(step: Mapping[str, Any]) -> str:
    """Say how many records an alert, or a step of it, is about."""
    return f"{step['n_records']:,} record{'' if step['n_records'] == 1 else 's'}"


def lasted(alert: Alert) -> str:
    """Say how long an alert was open, in event time; an open one: so far."""
    opened, closed = alert["opened_at"], alert["closed_at"]
    duration = output.as_datetime(closed or alert["updated_at"]) - output.as_datetime(opened)
    return output.duration(duration)
