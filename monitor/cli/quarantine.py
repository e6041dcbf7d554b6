"""`monitor quarantine`: the records that could not be used, and why."""

from __future__ import annotations

from typing import Any

import click

from monitor.cli import output, terminal
from monitor.cli.params import config_option, json_option, local_option, open_store, range_options
from monitor.cli.terminal import Styled, Table, echo

SHOWN = 50
"""Records in a table when nobody says how many."""
SAMPLE = 60
"""Characters of each; --json has 1 KiB."""


@click.group()
@config_option
def quarantine() -> None:
    """Look at records that could not be used."""


@quarantine.command("list")
@config_option
@click.option("--topic", help="Only of this topic.")
@click.option("--reason", help="Only with this reason: not_json, wrong_type, unknown_sensor, late, …")
@range_options("records")
@click.option("--limit", type=click.IntRange(0), help=f"The newest N; 0: all [default: {SHOWN}; with --json: all].")
@local_option
@json_option
def list_quarantine(limit: int | None, local: bool, as_json: bool, **only: Any) -> None:
    """List records that could not be used, the newest first."""
    wanted = (0 if as_json else SHOWN) if limit is None else limit
    with open_store() as store:
        found = store.quarantine(**only, limit=wanted or None)
        if as_json:
            output.emit_list(found)
            return
        rows = list(found)
        if not rows:
            click.echo(output.nothing("records in quarantine", store, **only))
            return
    is_wide = terminal.columns() >= terminal.WIDE
    table = Table("at", "record", "reason:rest", *(["begins with:rest"] if is_wide else []))
    for row in rows:
        position = f"{row['topic']}/{row['partition']} @{row['offset']}"
        cells: list[str | Styled] = [output.moment(row["at"], local=local), position, Styled(row["reason"], "yellow")]
        if is_wide:
            sample = "".join(sign if sign.isprintable() else "·" for sign in row["sample"][:SAMPLE])
            cells.append(Styled(sample, "dim"))
        table.add(*cells)
    terminal.show(table)
    more = f" The newest {wanted}; --limit 0 shows all." if len(rows) == wanted else ""
    echo(Styled(f"\n{output.zone(local=local)}{more}", "dim"))
