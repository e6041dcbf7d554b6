"""`monitor quarantine`: records that could not be used, and the reasons."""

from __future__ import annotations

from typing import Any

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

SAMPLE = 60
"""Characters shown of each record. `--json` has 1 KiB."""


@click.group()
@config_option
def quarantine() -> None:
    """List records that could not be used."""


@quarantine.command("list")
@config_option
@click.option("--topic", help="Only records of this topic.")
@click.option("--reason", help="Only records with this reason: not_json, wrong_type, unknown_sensor, late, …")
@range_options("records")
@limit_option
@local_option
@json_option
def list_quarantine(limit: int | None, local: bool, as_json: bool, **filters: Any) -> None:
    """List records that could not be used, the newest first."""
    n = row_limit(limit, as_json=as_json)
    with open_store() as store:
        found = store.quarantine(**filters, limit=n)
        if as_json:
            output.print_json_list(found)
            return
        rows = list(found)
        if not rows:
            echo_prose(output.nothing_found("records in quarantine", store, **filters))
            return
    table = Table("at", "record", "reason:rest", *["begins with:rest"] * is_wide())
    for row in rows:
        position = f"{row['topic']}/{row['partition']} @{row['offset']}"
        sample = row["sample"][:SAMPLE]
        at = output.timestamp(row["at"], local=local)
        table.add(at, position, Styled(row["reason"], "yellow"), *[Styled(sample, "dim")] * is_wide())
    table.print()
    echo(output.list_footer(len(rows), n, local=local))
