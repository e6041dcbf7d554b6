"""`monitor scores`: anomaly scores of the windows of an asset."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import click

from monitor.cli import output
from monitor.cli.params import config_option, json_option, local_option, open_store, range_options
from monitor.cli.plot import echo_plot
from monitor.cli.terminal import Styled, Table, echo, echo_prose
from monitor.errors import NotFound
from monitor.printable import normal_name

if TYPE_CHECKING:
    from collections.abc import Sequence

STYLES = {"normal": "green", "anomalous": "bold red", "unscored": "dim"}
MAX_NAMES = 8
"""Assets that the error for an unknown name lists."""


@click.group()
@config_option
def scores() -> None:
    """Show anomaly scores."""


@scores.command("show")
@config_option
@click.argument("asset")
@click.option("--fleet", help="Only scores of this fleet, where several have an asset of this name.")
@range_options("windows ending")
@click.option("--limit", type=click.IntRange(0), default=10, show_default=True, help="Rows below the plot, 0 for all.")
@click.option("--plot/--no-plot", "has_plot", default=True, help="Plot the scores over time.")
@local_option
@json_option
def show_scores(asset: str, limit: int, has_plot: bool, local: bool, as_json: bool, **filters: Any) -> None:
    """Show the scores of ASSET: a plot and the newest windows."""
    asset = normal_name(asset)
    with open_store() as store:
        if asset not in (names := [row["asset"] for row in store.assets(fleet=filters["fleet"])]):
            raise NotFound(_unknown_asset(asset, names, filters["fleet"]))
        found = store.scores(asset, **filters)
        if as_json:
            output.print_json_list(found)
            return
        windows = list(found)
        if not windows:
            echo_prose(output.nothing_found("scores", store, asset=asset, **filters))
            return
    verdicts = Counter(window["verdict"] for window in windows).most_common()
    counts = ", ".join(f"{n:,} {verdict}" for verdict, n in verdicts)
    echo(Styled(asset, "bold"), f"  {output.count(len(windows), 'window')}: {counts}")
    if has_plot and any(window["score"] is not None for window in windows):
        echo()
        echo_plot(windows, local=local)
    echo()
    _table(windows[-limit:], local=local).print()
    echo(Styled(f"\n{output.time_zone(local=local)} The threshold is 1.0.", "dim"))


def _unknown_asset(asset: str, names: Sequence[str], fleet: str | None) -> str:
    from difflib import get_close_matches

    wanted = f"asset {asset}{f' in fleet {fleet}' if fleet else ''}"
    if nearest := get_close_matches(asset, names, n=1):
        return f"{wanted}; did you mean {nearest[0]}?"
    known = ", ".join(names[:MAX_NAMES]) + (", …" if len(names) > MAX_NAMES else "")
    return f"{wanted}; there are {len(names)}{f': {known}' if names else ''}"


def _table(windows: Sequence[dict[str, Any]], *, local: bool) -> Table:
    table = Table("start", "end", "score:right", "verdict", "version:rest")
    for window in reversed(windows):
        style = STYLES.get(window["verdict"], "")
        table.add(
            output.timestamp(window["start"], local=local),
            output.timestamp(window["end"], local=local),
            Styled(output.number(window["score"]), style),
            Styled(window["verdict"], style),
            window["version"] or "–",
        )
    return table
