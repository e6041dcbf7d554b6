"""`monitor alerts list` and `show`: alerts of assets, of their sensors, and about lost or refused records.

The answers of operators are commands of `answers.py` and `answer_lists.py`.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

import click

from monitor import wording
from monitor.cli import answer_lists, answers, explanation, output
from monitor.cli.alert_health import health
from monitor.cli.export import export_alerts
from monitor.cli.params import (
    alert_filters,
    config_option,
    json_option,
    limit_option,
    local_option,
    open_store,
    row_limit,
)
from monitor.cli.plot import echo_plot
from monitor.cli.terminal import Styled, Table, echo, echo_facts, echo_prose, is_wide

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from monitor.store.reader import Reader

    Alert = dict[str, Any]


SUPPRESSED = {"shelf": "shelved", "maintenance": "maint.", "flapping": "flaps"}
"""Cause of suppression → word in a table."""
STRIP_WIDTH = 60
STRIP = {"firing": "█", "recovering": "▒", "closed": "·"}
SORTS = ("opened", "peak", "lasted", "severity", "asset")


@click.group()
@config_option
def alerts() -> None:
    """List and show alerts, and answer them."""


for _command in (*answers.COMMANDS, *answer_lists.COMMANDS, export_alerts, health):
    alerts.add_command(_command)


@alerts.command("list")
@config_option
@alert_filters
@click.option("--all", "show_suppressed", is_flag=True, help="Also alerts in maintenance.")
@click.option("--sort", type=click.Choice(SORTS), default="opened", show_default=True,
              help="First the newest, the highest peak, the longest, the critical ones, or by name.")  # fmt: skip
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
            given = {name: value for name, value in filters.items() if value is not False}
            echo_prose(output.nothing_found("alerts", store, **given))


@alerts.command("show")
@config_option
@click.argument("alert_id", metavar="ID", type=int)
@click.option("--evidence", "with_evidence", is_flag=True,
              help="With --json: its readings and expected values, too.")  # fmt: skip
@local_option
@json_option
def show_alert(alert_id: int, with_evidence: bool, local: bool, as_json: bool) -> None:
    """Show an alert: its explanation, its history, its sensors and its scores."""
    with open_store() as store:
        alert = store.alert(alert_id)
        if as_json:
            output.print_json(alert | explanation.document(store, alert, with_arrays=with_evidence))
        elif alert["class"] == "data":
            _show_data_alert(alert, local=local)
        elif alert["class"] == "sensor":
            _show_sensor_alert(alert, local=local)
        else:
            opened, last = output.as_datetime(alert["opened_at"]), output.as_datetime(alert["updated_at"])
            around = max((last - opened) / 2, timedelta(hours=1))
            windows = store.scores(alert["asset"], alert["fleet"], since=opened - around, until=last + around)
            _show_process_alert(alert, list(windows), store, local=local)


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
        table.add(
            str(alert["id"]),
            output.severity(alert["severity"]),
            _state(alert),
            _partition(alert) if is_data else alert["asset"] or "further assets",
            *[alert["fleet"] or "–"] * has_fleets,
            output.timestamp(alert["opened_at"], local=local),
            *[duration(alert)] * is_wide(),
            Styled(peak, "bold red" if alert["severity"] == "critical" else ""),
            _details(alert),
        )
    return table


def _details(alert: Alert) -> str:
    if alert["class"] == "data":
        about = wording.count(alert["n_records"], "record") if alert["n_records"] else alert["subject"] or "–"
        return f"{alert['kind']}, {about}"
    if alert["class"] == "sensor":
        return f"{alert['sensor'] or 'further sensors'} {alert['kind'].replace('_', ' ')}"
    sensors = output.contributions(alert["sensors"], limit=4 if is_wide() else 2)
    marks = [alert["label"] or "", "↺ rolled back" if alert["rolled_back_at"] else ""]
    mark = ", ".join(each for each in marks if each)
    return f"{mark}: {sensors}" if mark else sensors


def _state(alert: Alert) -> Styled:
    """Format the state of an alert, and the answer that counts most."""
    state = output.state(alert["state"])
    mark = ""
    if alert["suppressed_by"] is not None:
        mark = f" {SUPPRESSED[alert['suppressed_by']]}"
    elif alert["acknowledged_by"] is not None:
        mark = " ack"
    return Styled(state.text.rstrip() + mark, "dim" if mark else state.style)


def _show_data_alert(alert: Alert, *, local: bool) -> None:
    place = f"in {_partition(alert)}" if alert["n_records"] else f"of {alert['subject']}"
    _show_title(alert, f"{alert['kind']} {place}")
    records = f"{wording.count(alert['n_records'], 'record')}, the first at offset {alert['from_offset']}"
    has_records = bool(alert["n_records"])  # a drill is about a version
    _show_facts(alert, {"records": records} if has_records else {}, local=local)
    echo()
    echo_prose(f"{alert['message']}.")
    remarks = [wording.count(step["n_records"], "record") if has_records else "" for step in alert["transitions"]]
    _show_history(alert, remarks, local=local)
    hint = "" if alert["kind"] != "asset_limit" else f" More: monitor quarantine list --topic {alert['topic']}"
    echo(Styled(f"\n{output.time_zone(local=local)}{hint}", "dim"))


def _show_sensor_alert(alert: Alert, *, local: bool) -> None:
    _show_title(alert, f"{_sensor(alert)} {alert['kind'].replace('_', ' ')}")
    _show_facts(alert, {"windows": wording.count(alert["n_records"], "window")}, local=local)
    echo()
    echo_prose(f"{alert['message']}.")
    _show_history(alert, [wording.count(step["n_records"], "window") for step in alert["transitions"]], local=local)
    echo(Styled(f"\n{output.time_zone(local=local)}", "dim"))


def _show_process_alert(
    alert: Alert, windows: Sequence[Mapping[str, Any]], store: Reader, *, local: bool
) -> None:
    _show_title(alert, alert["asset"])
    peak_at = output.timestamp(alert["peak_at"], local=local)
    facts = {
        "peak": f"{wording.number(alert['peak_score'])} × the threshold at {peak_at}",
        "windows": f"{alert['n_anomalous']} anomalous",
        "version": _version(alert, local=local),
    }
    _show_facts(alert, facts, local=local)
    explanation.echo_explanation(store, alert, local=local)
    if windows:
        echo()
        echo_plot(windows, local=local, rows=8)
    echo()
    _echo_sensors(alert)
    _show_history(alert, [f"peak {wording.number(step['peak_score'])}" for step in alert["transitions"]], local=local)
    more = f"More: monitor scores show {output.argument(alert['asset'])}"
    echo(Styled(f"\n{output.time_zone(local=local)} {more}", "dim"))


def _version(alert: Alert, *, local: bool) -> str:
    """Name the version that raised an alert, and say so if it was rolled back since."""
    if not alert["rolled_back_at"]:
        return str(alert["version"])
    at = output.timestamp(alert["rolled_back_at"], local=local)
    return f"{alert['version']}, rolled back on {at}: monitor models show {alert['version']} says why"


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
    at = alert["acknowledged_at"] and output.timestamp(alert["acknowledged_at"], local=local)
    note = f": {alert['label_note']}" if alert["label_note"] else ""
    answer = {
        "acknowledged": alert["acknowledged_by"] and f"by {alert['acknowledged_by']} at {at}",
        "label": alert["label"] and f"{alert['label']}{note}",
        "incident": _incident(alert),
        "flapping": "alerts of this asset come and go" if alert["is_flapping"] else None,
        "suppressed": alert["suppressed_by"] and f"nobody is notified: {WHY[alert['suppressed_by']]}",
        "shelved": "; ".join(map(_shelf, (each for each in alert["shelves"] if not each["ended_at"]))) or None,
    }
    echo_facts({**times, "severity": alert["severity"], **own, **answer})


WHY = {
    "shelf": "it is shelved",
    "maintenance": "it fired in maintenance",
    "flapping": "it is one of many in a short time",
}
"""Cause of suppression → sentence."""


def _incident(alert: Alert) -> str | None:
    incident = alert["incident"]
    if incident is None or incident["n_alerts"] == 1:
        return None
    return f"{incident['id']}, with {wording.count(incident['n_alerts'] - 1, 'other alert')}"


def _shelf(shelf: Mapping[str, Any]) -> str:
    until = f"until {shelf['until']}, by {shelf['actor']}: {shelf['reason']}"
    return f"{until} (shelf {shelf['id']}: {answer_lists.subject_of_shelf(shelf)})"


def _show_history(alert: Alert, remarks: Sequence[str], *, local: bool) -> None:
    echo(Styled("\nHistory", "dim"))
    if len(alert["transitions"]) > 1:
        echo("  ", _strip(alert))
    for step, remark in zip(alert["transitions"], remarks, strict=True):
        at = output.timestamp(step["at"], local=local)
        echo(f"  {at}  ", output.state(step["state"]), Styled(f"  {remark}", "dim"))
    if alert["acts"]:
        echo(Styled("\nAnswers", "dim"))
    for row in alert["acts"]:
        at = output.timestamp(row["at"], local=local)
        head = f"  {at}  {answer_lists.who(row)}: {answer_lists.act(row)}"
        echo(head, Styled(f"  {row['note']}" if row["note"] else "", "dim"))


def _strip(alert: Alert) -> Styled:
    """Draw the states of an alert over event time, each as long as its share."""
    steps = [(output.as_datetime(step["at"]), step["state"]) for step in alert["transitions"]]
    opened, end = output.as_datetime(alert["opened_at"]), output.as_datetime(alert["updated_at"])
    whole = max((max(end, steps[-1][0]) - opened).total_seconds(), 1.0)
    signs = ""
    for place in range(STRIP_WIDTH):
        at = opened + timedelta(seconds=whole * (place + 0.5) / STRIP_WIDTH)
        state = next((name for begin, name in reversed(steps) if begin <= at), "firing")
        signs += STRIP.get(state, "·")
    return Styled(signs, "red" if alert["state"] != "closed" else "dim")


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
        values = (wording.number(sensor["expected"]), wording.number(sensor["actual"]))
        name = sensor["name"] if sensor.get("quantity", "value") == "value" else f"{sensor['name']} (change)"
        table.add(name, wording.percent(sensor["share"]), bar, *values)
    return table


def duration(alert: Alert) -> str:
    """Format the event time that an alert was open. An open alert counts until its last update."""
    opened, closed = (output.as_datetime(alert[name] or alert["updated_at"]) for name in ("opened_at", "closed_at"))
    return wording.duration((closed - opened).total_seconds())
