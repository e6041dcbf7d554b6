"""`monitor check`: is the configuration right, and what would the daemon do?"""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from monitor.cli.output import console, emit
from monitor.cli.params import config_option, json_option, load_config
from monitor.config.values import format_duration

if TYPE_CHECKING:
    from rich.console import Console

    from monitor.config import Config, FleetConfig
    from monitor.types import Finding

SIGNS = {"ok": ("✓", "green"), "warning": ("!", "yellow"), "error": ("✗", "bold red")}


@click.command()
@config_option
@click.option("--offline", is_flag=True, help="Read the file only; connect to nothing.")
@json_option
def check(offline: bool, as_json: bool) -> None:
    """Check the configuration, connect, say what would happen.

    Exit code 2: the configuration has errors, all of which are listed. 1: the broker or the database has a problem.
    """
    config = load_config()
    findings: list[Finding] = []
    if not offline:
        from monitor.daemon import preflight

        findings = preflight(config)
    if as_json:
        fleets = {fleet.name: describe(fleet) for fleet in config.fleets}
        emit({"config": str(config.path), "fleets": fleets, "findings": [asdict(finding) for finding in findings]})
    else:
        _print(console(), config, findings)
    if any(finding.level == "error" for finding in findings):
        click.get_current_context().exit(1)


def describe(fleet: FleetConfig) -> str:
    """Say in one sentence what a fleet's settings mean."""
    span, every = (format_duration(cells * fleet.interval) for cells in (fleet.window, fleet.stride))
    retrain = f"every {format_duration(fleet.retrain.every)}" if fleet.retrain.every else "only when asked"
    return (
        f"windows of {span} ({fleet.window} × {format_duration(fleet.interval)}) every {every}; "
        f"waits {format_duration(fleet.lateness)} for missing readings; {fleet.model.architecture} model, "
        f"retrained {retrain} on the last {format_duration(fleet.retrain.history)}; "
        f"an alert after {fleet.alerts.confirm} anomalous windows, {fleet.alerts.budget} false alarms per asset allowed"
    )


def _print(out: Console, config: Config, findings: list[Finding]) -> None:
    out.print(f"[green]✓[/] [bold]{config.path}[/] is valid")
    for fleet in config.fleets:
        sensors = f"{len(fleet.sensors)} sensors" if fleet.sensors else "sensors learnt from the readings"
        assets, topics = ", ".join(fleet.assets), ", ".join(config.topics_of(fleet))
        out.print(f"\n[bold]{fleet.name}[/]: assets {assets} on {topics}, {sensors}", markup=True)
        out.print(f"  {describe(fleet)}", markup=False)
    if findings:
        out.print()
    for finding in findings:
        sign, style = SIGNS[finding.level]
        out.print(f"[{style}]{sign}[/] [bold]{finding.subject}[/]", end=" ")
        out.print(finding.text, markup=False)
        if finding.fix:
            out.print(f"  → {finding.fix}", markup=False, style="dim")
    worst = {finding.level for finding in findings}
    if findings and "error" not in worst:
        out.print("\nReady: start it with [bold]monitor run[/].")
