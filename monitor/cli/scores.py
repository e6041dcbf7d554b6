"""`monitor scores`: anomaly scores of the windows of an asset, and of its hours."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import click

from monitor import wording
from monitor.cli import output
from monitor.cli.export import export_scores
from monitor.cli.params import config_option, json_option, local_option, open_store, range_options
from monitor.cli.plot import echo_plot
from monitor.cli.terminal import Styled, Table, echo, echo_prose
from monitor.errors import NotFound
from monitor.printable import normal_name

if TYPE_CHECKING:
    from collections.abc import Sequence

STYLES = {"normal": "green", "anomalous": "bold red", "unscored": "dim"}
MAX_PLOTTED = 5_000
"""Windows that a plot is drawn from, some at each dot. Reading them takes 0.1 s."""
MAX_NAMES = 8
"""Assets that the error for an unknown name lists."""


@click.group()
@config_option
def scores() -> None:
    """Show anomaly scores."""


scores.add_command(export_scores)


@scores.command("show")
@config_option
@click.argument("asset")
@click.option("--fleet", help="Only scores of this fleet, where several have an asset of this name.")
@range_options("windows ending")
@click.option("--limit", type=click.IntRange(0), default=10, show_default=True, help="Rows below the plot, 0 for all.")
@click.option("--hourly", is_flag=True,
              help=f"Hours and their highest scores, as in the plot of over {MAX_PLOTTED:,} windows.")  # fmt: skip
@click.option("--plot/--no-plot", "has_plot", default=True, help="Plot the scores over time.")
@local_option
@json_option
def show_scores(
    asset: str, limit: int, hourly: bool, has_plot: bool, local: bool, as_json: bool, **filters: Any
) -> None:
    """Show the scores of ASSET: a plot and the newest windows."""
    asset = normal_name(asset)
    with open_store() as store:
        if asset not in (names := [row["asset"] for row in store.assets(fleet=filters["fleet"])]):
            raise NotFound(_unknown_asset(asset, names, filters["fleet"]))
        if as_json:
            output.print_json_list(store.score_hours(asset, **filters) if hourly else store.scores(asset, **filters))
            return
        hours = list(store.score_hours(asset, **filters))
        n_windows = sum(hour["n_windows"] for hour in hours)
        is_hourly = hourly or n_windows > MAX_PLOTTED
        n_rows = limit or None if is_hourly else None
        windows = [] if hourly else list(store.scores(asset, **filters, limit=n_rows))
        if not windows and not hours:
            echo_prose(output.nothing_found("scores", store, asset=asset, **filters))
            return
    points = hours if is_hourly or not windows else windows  # retention deletes scores, and keeps their hours
    _echo_counts(asset, points)
    if has_plot and any(point["score"] is not None for point in points):
        echo()
        echo_plot(points, local=local)
    echo()
    if windows:
        _table(windows[-limit:], local=local).print()
    else:
        _hour_table(hours[-limit:], local=local).print()
    peaks = " The plot has the highest of each hour." if points is hours and has_plot else ""
    echo(Styled(f"\n{output.time_zone(local=local)} The threshold is 1.0.{peaks}", "dim"))


def _echo_counts(asset: str, points: Sequence[dict[str, Any]]) -> None:
    """Print the number of windows by verdict. `points`: windows, or hours of windows."""
    verdicts: Counter[str] = Counter()
    for point in points:
        if "verdict" in point:
            verdicts[point["verdict"]] += 1
        else:
            odd = {name: point[f"n_{name}"] for name in ("anomalous", "unscored")}
            verdicts.update({"normal": point["n_windows"] - sum(odd.values())} | odd)
    counts = ", ".join(f"{n:,} {verdict}" for verdict, n in verdicts.most_common() if n)
    echo(Styled(asset, "bold"), f"  {wording.count(verdicts.total(), 'window')}: {counts}")


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
            Styled(wording.number(window["score"]), style),
            Styled(window["verdict"], style),
            window["version"] or "–",
        )
    return table


def _hour_table(hours: Sequence[dict[str, Any]], *, local: bool) -> Table:
    table = Table("hour", "highest score:right", "windows:right", "anomalous:right", "unscored:right")
    for hour in reversed(hours):
        style = STYLES["anomalous" if hour["n_anomalous"] else "normal" if hour["score"] is not None else "unscored"]
        table.add(
            output.timestamp(hour["start"], local=local),
            Styled(wording.number(hour["score"]), style),
            *(f"{hour[name]:,}" for name in ("n_windows", "n_anomalous", "n_unscored")),
        )
    return table
