"""`monitor alerts`: alerts of assets, and alerts about lost or refused records."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

import click

from monitor.cli import output
from monitor.cli.alert_health import health
from monitor.cli.export import export_alerts
from monitor.cli.params import (
    config_option,
    json_option,
    limit_option,
    local_option,
    open_store,
    range_options,
    row_limit,
)
from monitor.cli.plot import echo_plot
from monitor.cli.terminal import Styled, Table, echo, echo_facts, echo_prose, is_wide

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    Alert = dict[str, Any]


SORTS = ("opened", "peak", "lasted", "severity", "asset")


@click.group()
@config_option
def alerts() -> None:
    """List and show alerts."""


alerts.add_command(export_alerts)
alerts.add_command(health)


@alerts.command("list")
@config_option
@click.option("--class", "alert_class", type=click.Choice(["process", "sensor", "data"]),
              help="Only alerts of assets (process), their sensors, or lost and refused records (data).")  # fmt: skip
@click.option("--asset", help="Only alerts of this asset.")
@click.option("--fleet", help="Only alerts of this fleet.")
@click.option("--state", type=click.Choice(["open", "firing", "recovering", "closed"]),
              help="Only alerts in this state; open: not closed yet.")  # fmt: skip
@click.option("--sort", type=click.Choice(SORTS), default="opened", show_default=True,
              help="First the newest, the highest peak, the longest, the critical ones, or by name.")  # fmt: skip
@range_options("alerts opened")
@limit_option
@local_option
@json_option
def list_alerts(limit: int | None, sort: str, local: bool, as_json: bool, **filters: Any) -> None:
    """List alerts, the newest first."""
    n = row_limit(limit, as_json=as_json)
    with open_store() as store:
        found = store.alerts(**filters, limit=n, sort=sort)
        if as_json:
            output.print_json_list(found)
        elif found:
            _table(found, local=local).print()
            order = "newest" if sort == "opened" else "first"
            echo(output.list_footer(len(found), n, local=local, order=order))
        else:
            echo_prose(output.nothing_found("alerts", store, **filters))


@alerts.command("show")
@config_option
@click.argument("alert_id", metavar="ID", type=int)
@local_option
@json_option
def show_alert(alert_id: int, local: bool, as_json: bool) -> None:
    """Show an alert: its history, its sensors and its scores."""
    with open_store() as store:
        alert = store.alert(alert_id)
        if as_json:
            output.print_json(alert)
        elif alert["class"] == "data":
            _show_data_alert(alert, local=local)
        elif alert["class"] == "sensor":
            _show_sensor_alert(alert, local=local)
        else:
            opened, last = output.as_datetime(alert["opened_at"]), output.as_datetime(alert["updated_at"])
            around = max((last - opened) / 2, timedelta(hours=1))
            windows = store.scores(alert["asset"], alert["fleet"], since=opened - around, until=last + around)
            _show_process_alert(alert, list(windows), local=local)


def _table(found: Sequence[Alert], *, local: bool) -> Table:
    has_data = any(alert["class"] == "data" for alert in found)
    fleets = {alert["fleet"] for alert in found}
    if not is_wide():
        fleets.discard(None)  # data alerts may have no fleet
    has_fleets = len(fleets) > 1
    subject, details = ("where", "details") if has_data else ("asset", "sensors")
    fleet = ["fleet"] * has_fleets
    lasted = ["lasted:right"] * is_wide()
    width = "" if is_wide() else ":rest"  # a long name wraps instead of breaking every line
    headings = ("id:right", "severity", "state", f"{subject}{width}", *fleet, "opened", *lasted, "peak:right")
    table = Table(*headings, f"{details}:rest")
    for alert in found:
        is_data, is_sensor = alert["class"] == "data", alert["class"] == "sensor"
        peak = "–" if is_data or is_sensor else f"{alert['peak_score']:.2f}"
        sensors = output.contributions(alert["sensors"], limit=4 if is_wide() else 2)
        table.add(
            str(alert["id"]),
            output.severity(alert["severity"]),
            output.state(alert["state"]),
            _partition(alert) if is_data else alert["asset"] or "further assets",
            *[alert["fleet"] or "–"] * has_fleets,
            output.timestamp(alert["opened_at"], local=local),
            *[duration(alert)] * is_wide(),
            Styled(peak, "bold red" if alert["severity"] == "critical" else ""),
            f"{alert['kind']}, {output.count(alert['n_records'], 'record')}" if is_data
            else f"{alert['sensor'] or 'further sensors'} {alert['kind'].replace('_', ' ')}" if is_sensor else sensors,
        )
    return table


def _show_data_alert(alert: Alert, *, local: bool) -> None:
    _show_title(alert, f"{alert['kind']} in {_partition(alert)}")
    records = f"{output.count(alert['n_records'], 'record')}, the first at offset {alert['from_offset']}"
    _show_facts(alert, {"records": records}, local=local)
    echo()
    echo_prose(f"{alert['message']}.")
    _show_history(alert, [output.count(step["n_records"], "record") for step in alert["transitions"]], local=local)
    hint = "" if alert["kind"] != "asset_limit" else f" More: monitor quarantine list --topic {alert['topic']}"
    echo(Styled(f"\n{output.time_zone(local=local)}{hint}", "dim"))


def _show_sensor_alert(alert: Alert, *, local: bool) -> None:
    _show_title(alert, f"{_sensor(alert)} {alert['kind'].replace('_', ' ')}")
    _show_facts(alert, {"windows": output.count(alert["n_records"], "window")}, local=local)
    echo()
    echo_prose(f"{alert['message']}.")
    _show_history(alert, [output.count(step["n_records"], "window") for step in alert["transitions"]], local=local)
    echo(Styled(f"\n{output.time_zone(local=local)}", "dim"))


def _show_process_alert(alert: Alert, windows: Sequence[Mapping[str, Any]], *, local: bool) -> None:
    _show_title(alert, alert["asset"])
    peak_at = output.timestamp(alert["peak_at"], local=local)
    facts = {
        "peak": f"{output.number(alert['peak_score'])} × the threshold at {peak_at}",
        "windows": f"{alert['n_anomalous']} anomalous",
        "version": alert["version"],
    }
    _show_facts(alert, facts, local=local)
    if windows:
        echo()
        echo_plot(windows, local=local, rows=8)
    echo()
    _echo_sensors(alert)
    _show_history(alert, [f"peak {output.number(step['peak_score'])}" for step in alert["transitions"]], local=local)
    more = f"More: monitor scores show {output.argument(alert['asset'])}"
    echo(Styled(f"\n{output.time_zone(local=local)} {more}", "dim"))


def _show_title(alert: Alert, subject: str) -> None:
    fleet = f" of {alert['fleet']}" if alert["fleet"] else ""
    echo(Styled(f"Alert {alert['id']} · {subject}", "bold"), Styled(f"{fleet}  ", "dim"), output.state(alert["state"]))


def _show_facts(alert: Alert, own: Mapping[str, str], *, local: bool) -> None:
    """Print the facts that all alerts have, and those of its class."""
    times = {
        "opened": output.timestamp(alert["opened_at"], local=local),
        "closed": alert["closed_at"] and output.timestamp(alert["closed_at"], local=local),
        "lasted": duration(alert) + ("" if alert["closed_at"] else " so far"),
    }
    answer = {"acknowledged": alert["acknowledged_by"], "label": alert["label"]}
    echo_facts({**times, "severity": alert["severity"], **own, **answer})


def _show_history(alert: Alert, remarks: Sequence[str], *, local: bool) -> None:
    echo(Styled("\nHistory", "dim"))
    for step, remark in zip(alert["transitions"], remarks, strict=True):
        at = output.timestamp(step["at"], local=local)
        echo(f"  {at}  ", output.state(step["state"]), Styled(f"  {remark}", "dim"))


def _partition(alert: Alert) -> str:
    return f"{alert['topic']}/{alert['partition']}"


def _sensor(alert: Alert) -> str:
    return f"{alert['asset']} {alert['sensor']}" if alert["sensor"] else "Further sensors"


def _echo_sensors(alert: Alert) -> None:
    """Print the sensors at the peak, and those at the onset if these are others: they are nearest to the cause."""
    with_onset = [sensor for sensor in alert["sensors"] if sensor.get("onset")]
    if all(sensor["onset"]["share"] == sensor["share"] for sensor in with_onset):
        sensor_table(alert["sensors"]).print()
        return
    at_onset = [sensor | sensor["onset"] for sensor in with_onset]
    sensor_table(sorted(at_onset, key=lambda sensor: -sensor["share"]), "sensor at onset").print()
    echo()
    sensor_table(alert["sensors"], "at the peak").print()


def sensor_table(sensors: Iterable[Mapping[str, Any]], title: str = "sensor") -> Table:
    """Return the contributions, the expected and the actual value of each sensor of an alert."""
    table = Table(title, "share:right", "", "expected:right", "actual:right")
    for sensor in sensors:
        bar = Styled("█" * round(sensor["share"] * 20), "red")
        values = (output.number(sensor["expected"]), output.number(sensor["actual"]))
        name = sensor["name"] if sensor.get("quantity", "value") == "value" else f"{sensor['name']} (change)"
        table.add(name, output.percent(sensor["share"]), bar, *values)
    return table


def duration(alert: Alert) -> str:
    """Format the event time that an alert was open. An open alert counts until its last update."""
    opened, closed = (output.as_datetime(alert[name] or alert["updated_at"]) for name in ("opened_at", "closed_at"))
    return output.duration((closed - opened).total_seconds())
