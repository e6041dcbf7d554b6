"""`monitor check`: the configuration in words, and the state of the broker and the database."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from monitor.cli.output import print_json
from monitor.cli.params import config_option, json_option, load_config
from monitor.cli.terminal import Styled, echo, echo_prose
from monitor.config.values import format_duration

if TYPE_CHECKING:
    from monitor.config import Config, FleetConfig, NotifyConfig
    from monitor.types import Finding

SIGNS = {"ok": ("✓", "green"), "warning": ("!", "yellow"), "error": ("✗", "bold red")}


@click.command()
@config_option
@click.option("--offline", is_flag=True, help="Check only the file, without connecting.")
@json_option
def check(offline: bool, as_json: bool) -> None:
    """Check the configuration, the broker and the database.

    Exit code 2: the configuration has errors, which are all listed. Exit code 1: the broker or the database has a
    problem.
    """
    config = load_config()
    findings: list[Finding] = []
    if not offline:
        import logging

        from monitor.service.preflight import preflight

        # The findings report the errors. A level would also hide them from the search for the cause.
        logging.getLogger("aiokafka").addHandler(logging.NullHandler())
        findings = preflight(config)
    if as_json:
        fleets = {fleet.name: describe(fleet) for fleet in config.fleets}
        channels = {channel.name: describe_channel(channel) for channel in config.notify}
        found = [asdict(finding) for finding in findings]
        print_json({"config": str(config.path), "fleets": fleets, "channels": channels, "findings": found})
    else:
        _show(config, findings)
    if any(finding.level == "error" for finding in findings):
        click.get_current_context().exit(1)


def describe(fleet: FleetConfig) -> str:
    """Describe the settings of a fleet in one sentence."""
    span, every = (format_duration(cells * fleet.interval) for cells in (fleet.window, fleet.stride))
    retrain = f"every {format_duration(fleet.retrain.every)}" if fleet.retrain.every else "only when asked"
    return (
        f"windows of {span} ({fleet.window} × {format_duration(fleet.interval)}) every {every}; "
        f"waits {format_duration(fleet.lateness)} for missing readings; {fleet.model.architecture} model, "
        f"retrained {retrain} on the last {format_duration(fleet.retrain.history)}; "
        f"an alert after {fleet.alerts.confirm} anomalous windows, {fleet.alerts.budget} false alarms per asset allowed"
    )


def describe_channel(channel: NotifyConfig) -> str:
    """Describe a notification channel in one sentence."""
    alerts = "critical alerts" if channel.min_severity == "critical" else "alerts"
    fleets = "" if channel.fleets == ("*",) else f" of {', '.join(channel.fleets)}"
    return f"sends {alerts}{fleets} to {channel.shown_url}"


def _show(config: Config, findings: list[Finding]) -> None:
    echo(Styled("✓", "green"), " ", Styled(str(config.path), "bold"), " is valid")
    for fleet in config.fleets:
        sensors = f"{len(fleet.sensors)} sensors" if fleet.sensors else "sensors found in the readings"
        where = f"assets {', '.join(fleet.assets)} on {', '.join(config.topics_of(fleet))}, {sensors}"
        echo("\n", Styled(fleet.name, "bold"), f": {where}")
        echo_prose(describe(fleet), indent="  ")
    for channel in config.notify:
        echo("\n", Styled(channel.name, "bold"), f": {describe_channel(channel)}")
        echo(f"  test it with: monitor notify test {channel.name}")
    if findings:
        echo()
    for finding in findings:
        echo(Styled(*SIGNS[finding.level]), " ", Styled(finding.subject, "bold"), f" {finding.text}")
        if finding.fix:
            echo_prose(f"→ {finding.fix}", "dim", indent="  ")
    if findings and all(finding.level != "error" for finding in findings):
        echo("\nReady: start it with ", Styled("monitor run", "bold"), ".")
