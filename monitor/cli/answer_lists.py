"""`monitor alerts shelves`, `incidents`, `labels` and `history`: answers of operators, and alerts that overlap."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from monitor.cli import output
from monitor.cli.params import (
    config_option,
    json_option,
    limit_option,
    local_option,
    open_store,
    range_options,
    row_limit,
)
from monitor.cli.terminal import Styled, Table, echo, echo_prose, is_wide

if TYPE_CHECKING:
    from collections.abc import Mapping

MAX_NAMES = 3
"""Assets of an incident that a table names."""


@click.command("shelves")
@config_option
@click.option("--all", "is_all", is_flag=True, help="Also shelves that have ended.")
@local_option
@json_option
def shelves(is_all: bool, local: bool, as_json: bool) -> None:
    """List the shelves, each with its operator, reason and end."""
    with open_store() as store:
        found = store.shelves(is_active=None if is_all else True)
    if as_json:
        output.print_json_list(found)
        return
    if not found:
        echo_prose("Nothing is shelved. Shelve with: monitor alerts shelve --asset GLOB --until 7d --reason TEXT")
        return
    table = Table("id:right", "what:rest", "until", "at the latest", "by", "reason:rest")
    for row in found:
        over = None if row["ended_at"] is None else f"ended: {row['ended_why']}"
        table.add(
            str(row["id"]),
            subject_of_shelf(row),
            Styled(over, "dim") if over else row["until"],
            output.timestamp(row["ended_at"] or row["until_at"], local=local),
            row["actor"],
            row["reason"],
        )
    table.print()
    echo(Styled(f"\n{output.time_zone(local=local)}", "dim"))


def subject_of_shelf(row: Mapping[str, Any]) -> str:
    """Name the alert, or the assets, of a shelf."""
    if row["alert_id"] is not None:
        return f"alert {row['alert_id']}"
    return ", ".join(f"{name} {row[name]}" for name in ("asset", "fleet", "sensor") if row[name] is not None)


@click.command("incidents")
@config_option
@click.option("--fleet", help="Only incidents of this fleet.")
@click.option("--state", type=click.Choice(["open", "closed"]), help="Only open or closed ones.")
@range_options("incidents opened")
@limit_option
@local_option
@json_option
def incidents(limit: int | None, local: bool, as_json: bool, **filters: Any) -> None:
    """List incidents: alerts of a fleet that overlap in time, the newest first."""
    n = row_limit(limit, as_json=as_json)
    with open_store() as store:
        found = store.incidents(**filters, limit=n)
        if as_json:
            output.print_json_list(found)
            return
        if not found:
            echo_prose(output.nothing_found("incidents", store, **filters))
            return
    fleets = {row["fleet"] for row in found} if is_wide() else set()
    table = Table("id:right", "severity", "state", *["fleet"] * (len(fleets) > 1), "opened", "alerts:right",
                  "assets:rest")  # fmt: skip
    for row in found:
        names, more = row["assets"][:MAX_NAMES], len(row["assets"]) - MAX_NAMES
        table.add(
            str(row["id"]),
            output.severity(row["severity"]),
            output.state("closed" if row["closed_at"] else "open"),
            *[row["fleet"] or "–"] * (len(fleets) > 1),
            output.timestamp(row["opened_at"], local=local),
            str(row["n_alerts"]),
            ", ".join(names) + (f" and {more} more" if more > 0 else "") or "–",
        )
    table.print()
    echo(output.list_footer(len(found), n, local=local))
    echo(Styled("More: monitor alerts list --incident ID", "dim"))


@click.command("labels")
@config_option
@click.option("--asset", help="Only labels of this asset.")
@click.option("--fleet", help="Only labels of this fleet.")
@range_options("labels of times")
@local_option
@json_option
def labels(local: bool, as_json: bool, **filters: Any) -> None:
    """List the labels on times of assets."""
    with open_store() as store:
        found = store.interval_labels(**filters)
    if as_json:
        output.print_json_list(found)
        return
    if not found:
        echo_prose("No time of an asset is labelled. Label with: monitor alerts label ASSET FROM TO fault")
        return
    table = Table("id:right", "asset:rest", "from", "to", "label", "by", "note:rest")
    for row in found:
        times = (output.timestamp(row[name], local=local) for name in ("from", "to"))
        table.add(str(row["id"]), row["asset"], *times, row["label"], row["actor"], row["note"])
    table.print()
    echo(Styled(f"\n{output.time_zone(local=local)}", "dim"))


@click.command("history")
@config_option
@click.option("--asset", help="Only what was done about this asset.")
@click.option("--fleet", help="Only what was done about this fleet.")
@click.option("--by", help="Only what this person did; monitor: what ended by itself.")
@range_options("answers given")
@limit_option
@local_option
@json_option
def history(limit: int | None, local: bool, as_json: bool, **filters: Any) -> None:
    """List the acts of operators on alerts, with name, time and origin, the newest first."""
    n = row_limit(limit, as_json=as_json)
    with open_store() as store:
        found = store.history(**filters, limit=n)
        if as_json:
            output.print_json_list(found)
            return
        if not found:
            echo_prose(output.nothing_found("answers", store, **filters))
            return
    table = Table("at", "by:rest", "act:rest", "about:rest", "note:rest")
    for row in found:
        alert = f"alert {row['alert_id']}" if row["alert_id"] is not None else ""
        about = ", ".join(filter(None, (alert, row["asset"] or row["fleet"] or "")))
        table.add(output.timestamp(row["at"], local=local), who(row), act(row), about or "–", row["note"])
    table.print()
    echo(output.list_footer(len(found), n, local=local))


def who(row: Mapping[str, Any]) -> str:
    """Name the operator and the origin of an act."""
    return row["by"] if row["via"] == "daemon" else f"{row['by']} ({row['via']})"


def act(row: Mapping[str, Any]) -> str:
    """Name an act in words."""
    detail = row["detail"] or {}
    words: str = row["act"].replace("_", " ")
    if row["act"] == "label":
        return f"{words} {detail.get('label') or 'none'}"
    return f"{words} until {detail['until']}" if row["act"] == "shelve" and "until" in detail else words


COMMANDS = (shelves, incidents, labels, history)
