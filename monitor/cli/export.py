"""`monitor alerts export` and `monitor scores export`: rows into a CSV or Parquet file, or as CSV on stdout."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from monitor import wording
from monitor.cli.params import alert_filters, config_option, open_store, range_options
from monitor.cli.terminal import Styled, echo
from monitor.errors import MonitorError, NotFound

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from monitor.recordings.tables import Kind

SCORES: dict[str, Kind] = {
    "asset": "text",
    "fleet": "text",
    "start": "time",
    "end": "time",
    "score": "number",
    "verdict": "text",
    "version": "text",
    "n_present": "integer",
}
HOURS: dict[str, Kind] = {
    "asset": "text",
    "fleet": "text",
    "start": "time",
    "end": "time",
    "score": "number",
    "n_windows": "integer",
    "n_anomalous": "integer",
    "n_unscored": "integer",
}
ALERTS: dict[str, Kind] = {
    "id": "integer",
    "class": "text",
    "asset": "text",
    "fleet": "text",
    "sensor": "text",
    "state": "text",
    "severity": "text",
    "opened_at": "time",
    "closed_at": "time",
    "peak_at": "time",
    "peak_score": "number",
    "n_anomalous": "integer",
    "sensors": "json",
    "clearing": "json",
    "version": "text",
    "incident_id": "integer",
    "acknowledged_by": "text",
    "acknowledged_at": "time",
    "label": "text",
    "label_note": "text",
    "suppressed_by": "text",
    "is_flapping": "flag",
    "kind": "text",
    "topic": "text",
    "partition": "integer",
    "from_offset": "integer",
    "n_records": "integer",
    "message": "text",
}
"""Column → kind. Parquet has these types. Lists are JSON."""


def file_options(command: Callable[..., None]) -> Callable[..., None]:
    """Add `-o FILE` and `--force`."""
    for option in (
        click.option("--force", is_flag=True, help="Replace an existing file."),
        click.option(
            "-o",
            "--output",
            "target",
            type=click.Path(dir_okay=False, path_type=Path),
            default="-",
            help="FILE.csv or FILE.parquet; - prints CSV [default: -].",
        ),
    ):
        command = option(command)
    return command


@click.command("export")
@config_option
@click.argument("asset", required=False)
@click.option("--fleet", help="All assets of this fleet, or the fleet of ASSET.")
@click.option("--verdict", type=click.Choice(["normal", "anomalous", "unscored"]), help="Only such windows.")
@click.option("--hourly", is_flag=True, help="Only the highest score of each hour, of ASSET. Kept for two years.")
@range_options("windows ending")
@file_options
def export_scores(
    asset: str | None, hourly: bool, verdict: str | None, target: Path, force: bool, **filters: Any
) -> None:
    """Write the scores of ASSET, or of a fleet, as CSV or Parquet."""
    if asset is None and filters["fleet"] is None:
        raise click.UsageError("name an ASSET, or a fleet with --fleet")
    if hourly and (asset is None or verdict is not None):
        raise click.UsageError("--hourly needs an ASSET, and goes without --verdict")
    with open_store() as store:
        if asset is not None and store.asset_named(asset, filters["fleet"]) is None:
            raise NotFound(f"asset {asset}; `monitor scores show {asset}` suggests a name")
        if asset is not None and hourly:
            _write(store.score_hours(asset, **filters), HOURS, target, force=force, noun="hour")
        else:
            found = store.export_scores(asset, verdict=verdict, **filters)
            _write(found, SCORES, target, force=force, noun="score")


@click.command("export")
@config_option
@alert_filters
@file_options
def export_alerts(target: Path, force: bool, **filters: Any) -> None:
    """Write alerts as CSV or Parquet, the newest first. Those in maintenance are among them."""
    with open_store() as store:
        blank: dict[str, Any] = dict.fromkeys(ALERTS)
        rows = (blank | alert for alert in store.export_alerts(**filters, show_suppressed=True))
        _write(rows, ALERTS, target, force=force, noun="alert")


def _write(
    rows: Iterable[Mapping[str, Any]], columns: Mapping[str, Kind], target: Path, *, force: bool, noun: str
) -> None:
    from monitor.recordings.tables import write_csv, write_table

    if str(target) == "-":
        write_csv(rows, columns, sys.stdout)
        return
    if target.exists() and not force:
        raise MonitorError(f"{target} is there already; name another with -o, or replace it with --force")
    try:
        n = write_table(rows, columns, target)
    except OSError as error:
        raise MonitorError(f"{target}: {error.strerror}") from error
    echo(Styled("✓", "green"), " ", Styled(str(target), "bold"), f"  {wording.count(n, noun)}", err=True)
