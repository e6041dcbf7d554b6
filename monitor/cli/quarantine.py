"""`monitor quarantine`: records that could not be used, and the reasons."""

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
    from collections.abc import Mapping, Sequence

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
@click.option("--counts", "has_counts", is_flag=True, help="Only the number of records by reason.")
@range_options("records")
@limit_option
@local_option
@json_option
def list_quarantine(limit: int | None, has_counts: bool, local: bool, as_json: bool, **filters: Any) -> None:
    """List records that could not be used, the newest first, and count them by reason.

    Of each partition and reason the first 10,000 records are stored, then every hundredth.
    """
    n = row_limit(limit, as_json=as_json)
    with open_store() as store:
        counts = store.quarantine_counts(**filters) if has_counts or not as_json else []
        rows = [] if has_counts else store.quarantine(**filters, limit=n)
        if as_json:
            output.print_json_list(counts if has_counts else rows)
            return
        if not counts:
            echo_prose(output.nothing_found("records in quarantine", store, **filters))
            return
    if has_counts:
        _count_table(counts, local=local).print()
        echo(Styled(f"\n{output.time_zone(local=local)}", "dim"))
        return
    table = Table("at", "record", "reason:rest", *["begins with:rest"] * is_wide())
    for row in rows:
        position = f"{row['topic']}/{row['partition']} @{row['offset']}"
        sample = row["sample"][:SAMPLE]
        at = output.timestamp(row["at"], local=local)
        table.add(at, position, Styled(row["reason"], "yellow"), *[Styled(sample, "dim")] * is_wide())
    table.print()
    echo()
    by_reason = ", ".join(f"{row['reason']}\xa0{row['records']:,}" for row in counts)
    echo_prose(f"Stored in all: {by_reason}.")
    echo(output.list_footer(len(rows), n, local=local))


def _count_table(counts: Sequence[Mapping[str, Any]], *, local: bool) -> Table:
    table = Table("reason:rest", "records:right", "oldest", "newest")
    for row in counts:
        times = (output.timestamp(row[name], local=local) for name in ("oldest_at", "newest_at"))
        table.add(Styled(row["reason"], "yellow"), f"{row['records']:,}", *times)
    return table
