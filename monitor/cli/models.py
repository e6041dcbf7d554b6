"""`monitor models`: which versions there are, and which one decides."""

from __future__ import annotations

import click

from monitor.cli import output, terminal
from monitor.cli.params import config_option, json_option, local_option, open_store
from monitor.cli.terminal import Ink, Table, say

STATES = {"champion": ("★", "bold green"), "candidate": ("◌", "cyan"), "retired": ("○", "dim")}


@click.group()
@config_option
def models() -> None:
    """Look at model versions."""


@models.command("list")
@config_option
@click.option("--fleet", help="Only of this fleet.")
@local_option
@json_option
def list_models(fleet: str | None, local: bool, as_json: bool) -> None:
    """List model versions, the newest first; the champion decides."""
    with open_store() as store:
        found = list(store.models(fleet=fleet))
        if as_json:
            output.emit_list(found)
            return
        if not found:
            click.echo(output.nothing("models", store, fleet=fleet))
            return
    table = Table("state", "fleet", "version", "trained", "metrics:rest")
    for row in found:
        sign, look = STATES.get(row["state"], ("·", ""))
        metrics = ", ".join(f"{name}\xa0{output.number(value)}" for name, value in row["metrics"].items())
        trained = output.moment(row["trained_at"], local=local)
        table.add(Ink(f"{sign} {row['state']}", look), row["fleet"], row["version"], trained, Ink(metrics, "dim"))
    terminal.show(table)
    say(Ink(f"\n{output.zone(local=local)}", "dim"))
