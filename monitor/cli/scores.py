"""`monitor scores`: how anomalous each window of an asset was."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import click

from monitor.cli import output, terminal
from monitor.cli.params import config_option, json_option, local_option, open_store, range_options
from monitor.cli.terminal import Styled, Table, echo
from monitor.errors import NotFound

if TYPE_CHECKING:
    from collections.abc import Sequence

STYLES = {"normal": "green", "anomalous": "bold red", "unscored": "dim"}


@click.group()
@config_option
def scores() -> None:
    """Look at anomaly scores; 1.0 is the threshold."""


@scores.command("show")
@config_option
@click.argument("asset")
@click.option("--fleet", help="When several fleets have an asset of this name.")
@range_options("windows that end")
@click.option("--limit", type=click.IntRange(0), default=10, show_default=True, help="Rows below the plot; 0: all.")
@click.option("--plot/--no-plot", "is_plotted", default=True, help="Draw the scores over time.")
@local_option
@json_option
def show_scores(asset: str, limit: int, is_plotted: bool, local: bool, as_json: bool, **only: Any) -> None:
    """Show the scores of ASSET: a plot, then the newest windows."""
    with open_store() as store:
        if asset not in (names := [row["asset"] for row in store.assets(fleet=only["fleet"])]):
            raise NotFound(_unknown(asset, names, only["fleet"]))
        found = store.scores(asset, **only)
        if as_json:
            output.emit_list(found)
            return
        rows = list(found)
        if not rows:
            click.echo(output.nothing("scores", store, asset=asset, **only))
            return
    verdicts = Counter(row["verdict"] for row in rows)
    counts = ", ".join(f"{n:,} {verdict}" for verdict, n in verdicts.most_common())
    echo(Styled(asset, "bold"), f"  {len(rows):,} windows: {counts}")
    if is_plotted and any(row["score"] is not None for row in rows):
        from monitor.cli.plot import plot

        echo()
        times = output.in_zone((output.as_datetime(row["end"]) for row in rows), local=local)
        for line in plot(times, [row["score"] for row in rows], width=terminal.columns()):
            echo(*line)
    echo()
    terminal.show(_table(rows[-limit:], local=local))
    echo(Styled(f"\n{output.zone(local=local)} 1.0 is the threshold.", "dim"))


def _unknown(asset: str, names: Sequence[str], fleet: str | None) -> str:
    from difflib import get_close_matches

    where = f"asset {asset}{f' in fleet {fleet}' if fleet else ''}"
    if meant := get_close_matches(asset, names, n=1):
        return f"{where}; did you mean {meant[0]}?"
    return (
        f"{where}; there are {len(names)}{': ' if names else ''}{', '.join(names[:8])}{', …' if len(names) > 8 else ''}"
    )


def _table(rows: Sequence[dict[str, Any]], *, local: bool) -> Table:
    table = Table("start", "end", "score:right", "verdict", "version:rest")
    for row in reversed(rows):
        look = STYLES.get(row["verdict"], "")
        table.add(
            output.moment(row["start"], local=local),
            output.moment(row["end"], local=local),
            Styled(output.number(row["score"]), look),
            Styled(row["verdict"], look),
            row["version"] or "–",
        )
    return table
