"""`monitor check`: is the configuration right, and what would the daemon do?"""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from monitor.cli.output import emit
from monitor.cli.params import config_option, json_option, load_config
from monitor.cli.terminal import Styled, columns, echo, wrapped
from monitor.config.values import format_duration

if TYPE_CHECKING:
    from monitor.config import Config, FleetConfig, NotifyConfig
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
        from monitor.service.preflight import preflight

        findings = preflight(config)
    if as_json:
        fleets = {fleet.name: describe(fleet) for fleet in config.fleets}
        channels = {channel.name: describe_channel(channel) for channel in config.notify}
        found = [asdict(finding) for finding in findings]
        emit({"config": str(config.path), "fleets": fleets, "channels": channels, "findings": found})
    else:
        _show(config, findings)
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


def describe_channel(channel: NotifyConfig) -> str:
    """Say in one sentence who is told of what."""
    grave = "critical alerts" if channel.min_severity == "critical" else "alerts"
    fleets = "" if channel.fleets == ("*",) else f" of {', '.join(channel.fleets)}"
    return f"{channel.shown_url} is told of {grave}{fleets}"


def _show(config: Config, findings: list[Finding]) -> None:
    echo(Styled("✓", "green"), " ", Styled(str(config.path), "bold"), " is valid")
    for fleet in config.fleets:
        sensors = f"{len(fleet.sensors)} sensors" if fleet.sensors else "sensors learnt from the readings"
        where = f"assets {', '.join(fleet.assets)} on {', '.join(config.topics_of(fleet))}, {sensors}"
        echo("\n", Styled(fleet.name, "bold"), f": {where}")
        echo(wrapped(describe(fleet), columns(), "  "))
    for channel in config.notify:
        try_it = f"; try it: monitor notify test {channel.name}"
        echo("\n", Styled(channel.name, "bold"), f": {describe_channel(channel)}{try_it}")
    if findings:
        echo()
    for finding in findings:
        sign, look = SIGNS[finding.level]
        echo(Styled(sign, look), " ", Styled(finding.subject, "bold"), f" {finding.text}")
        if finding.fix:
            echo(Styled(f"  → {finding.fix}", "dim"))
    if findings and all(finding.level != "error" for finding in findings):
        echo("\nReady: start it with ", Styled("monitor run", "bold"), ".")
