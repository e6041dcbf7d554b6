"""`monitor maintenance`: times in which assets are scored without notifications."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

import click

from monitor.cli import output
from monitor.cli.acting import by_option, once, perform, reason_option, report
from monitor.cli.params import TIME, Parsed, config_option, json_option, local_option, open_store, parse_seconds
from monitor.cli.terminal import Styled, Table, echo, echo_prose, is_wide

if TYPE_CHECKING:
    from datetime import datetime

    from monitor.clock import Clock
    from monitor.control import Actor
    from monitor.store.engine import AsyncStore

STYLES = {"active": "yellow", "planned": "cyan", "over": "dim"}


@click.group()
@config_option
def maintenance() -> None:
    """Plan maintenance: assets are scored without notifications."""


@maintenance.command("plan")
@config_option
@click.option("--asset", metavar="GLOB", help="Assets [default: all of --fleet].")
@click.option("--fleet", metavar="GLOB", help="Fleets [default: all].")
@click.option("--from", "since", type=TIME, metavar="TIME", help="Beginning [default: now].")
@click.option("--to", "until", type=TIME, metavar="TIME", help="End; with --cron, when it ceases to recur.")
@click.option("--for", "duration_s", type=Parsed("duration", parse_seconds), metavar="2h",
              help="Duration, instead of --to; with --cron, of each occurrence.")  # fmt: skip
@click.option("--cron", metavar="EXPRESSION", help='Recurs: "0 6 * * mon" begins on Mondays at six.')
@click.option("--timezone", default="UTC", show_default=True, metavar="ZONE", help="Of --cron, as Europe/Berlin.")
@reason_option
@by_option
@json_option
def plan(
    asset: str | None,
    fleet: str | None,
    since: datetime | None,
    until: datetime | None,
    duration_s: float | None,
    cron: str | None,
    timezone: str,
    reason: str,
    by: str | None,
    as_json: bool,
) -> None:
    """Plan a maintenance window, once or recurring.

    Event time counts: alerts that fire in it are kept apart and not notified, and training and budget leave the time
    out. What still fires at its end is notified.
    """
    if asset is None and fleet is None:
        raise click.UsageError("Name --asset or --fleet; --fleet '*' means everything.")
    if cron is None and (until is None) == (duration_s is None):
        raise click.UsageError("Give the end with --to or --for; or --cron and --for, if it recurs.")
    if cron is not None and duration_s is None:
        raise click.UsageError("Give the duration of each occurrence with --for.")

    async def act(store: AsyncStore, clock: Clock, actor: Actor) -> int:
        from monitor import control
        from monitor.clock import from_us, to_us

        start = since or from_us(clock.now_us()).replace(second=0, microsecond=0)
        lasts = None if duration_s is None else timedelta(seconds=duration_s)
        end = start + lasts if cron is None and lasts is not None else until
        window = control.Maintenance(
            fleet or "*",
            asset or "*",
            to_us(start),
            None if end is None else to_us(end),
            reason,
            cron,
            None if cron is None or lasts is None else lasts // timedelta(microseconds=1),
            timezone,
        )
        return await control.plan_maintenance(store, clock, window, actor=actor)

    number = once(act, by)
    line = f"Maintenance {number} is planned. See: monitor maintenance list. End it: monitor maintenance end {number}"
    report([{"maintenance": number}], [line], [], as_json=as_json)


@maintenance.command("list")
@config_option
@click.option("--all", "is_all", is_flag=True, help="Also those that are over.")
@local_option
@json_option
def list_maintenance(is_all: bool, local: bool, as_json: bool) -> None:
    """List maintenance windows: planned ones, and those under way."""
    with open_store() as store:
        found = store.maintenance(is_active=None if is_all else True)
    if as_json:
        output.print_json_list(found)
        return
    if not found:
        echo_prose("No maintenance is planned. Plan with: monitor maintenance plan --asset GLOB --for 2h --reason TEXT")
        return
    recurs, by = any(row["cron"] for row in found), is_wide()
    table = Table("id:right", "state", "what:rest", "from", "to", *["recurs:rest"] * recurs, *["by"] * by,
                  "reason:rest")  # fmt: skip
    for row in found:
        first, last = row["next_from"] or row["from"], row["next_to"] or row["to"]
        table.add(
            str(row["id"]),
            Styled(row["state"], STYLES[row["state"]]),
            _what(row),
            output.timestamp(first, local=local),
            output.timestamp(last, local=local),
            *["–" if row["cron"] is None else f"{row['cron']} {row['timezone']}"] * recurs,
            *[row["actor"]] * by,
            row["reason"],
        )
    table.print()
    echo(Styled(f"\n{output.time_zone(local=local)}", "dim"))


def _what(row: dict[str, Any]) -> str:
    if row["asset"] == "*":
        return f"fleet {row['fleet']}"
    return row["asset"] if row["fleet"] == "*" else f"{row['asset']} of {row['fleet']}"


@maintenance.command("end")
@config_option
@click.argument("ids", metavar="ID…", type=int, nargs=-1, required=True)
@by_option
@json_option
def end_maintenance(ids: tuple[int, ...], by: str | None, as_json: bool) -> None:
    """Cancel maintenance windows, or end them now. Alerts that still fire are notified."""

    async def act(store: AsyncStore, clock: Clock, actor: Actor, number: int) -> None:
        from monitor import control

        await control.end_maintenance(store, clock, number, actor=actor)

    done, errors = perform(tuple(dict.fromkeys(ids)), act, by)
    rows = [{"maintenance": number, "done": "ended"} for number, _ in done]
    report(rows, [f"Maintenance {number} has ended." for number, _ in done], errors, as_json=as_json)
