"""`monitor check`: the configuration in words, the state of broker and database, and how the topics would be read."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from monitor.cli.output import print_json, timestamp
from monitor.cli.params import config_option, json_option, load_config
from monitor.cli.terminal import Styled, echo, echo_facts, echo_prose, wrapped
from monitor.config.spacing import spoken
from monitor.config.values import format_duration
from monitor.wording import count, percent

if TYPE_CHECKING:
    from collections.abc import Iterable

    from monitor.config import Config, FleetConfig, NotifyConfig
    from monitor.service.advice import Proposal
    from monitor.service.preflight import Preflight
    from monitor.service.survey import FleetSurvey
    from monitor.types import Finding

SIGNS = {"ok": ("✓", "green"), "warning": ("!", "yellow"), "error": ("✗", "bold red")}
MAX_NAMES = 8
"""Assets or sensors named in one line."""
MAX_PLACES = 3
"""Places of an asset or a time that are shown."""
MAX_NOTICES = 5
"""Findings of the decoder that are shown."""
MAX_REASONS = 3
"""Reasons of refused records that are shown."""
OFTEN = 0.98
"""Share of the readings from which a sensor counts as always there."""


@click.command()
@config_option
@click.option("--offline", is_flag=True, help="Check only the file, without connecting.")
@click.option(
    "--sample", "n_records", type=click.IntRange(min=1, max=10_000), default=100, show_default=True, metavar="N",
    help="Records that are read at each end of each partition.",
)  # fmt: skip
@json_option
def check(offline: bool, n_records: int, as_json: bool) -> None:
    """Check the configuration, the broker and the database, and read a sample of the topics.

    The sample is decoded as the daemon would do it. The check says what it found, and which settings fit better. It
    joins no consumer group and writes nothing.

    Exit code 0: a daemon can start. Otherwise the code with which it would end: 2 configuration, 3 refused or
    unreadable, 4 schema, 1 a broker or database that does not answer.
    """
    config = load_config()
    done: Preflight | None = None
    if not offline:
        import logging

        from monitor.service.preflight import preflight

        # The findings report the errors. A level would also hide them from the search for the cause.
        logging.getLogger("aiokafka").addHandler(logging.NullHandler())
        done = preflight(config, n_records)
    for channel in config.notify:
        if channel.kind == "apprise":
            from monitor.notify.apprise_service import check_address

            check_address(channel)
    if as_json:
        print_json(_document(config, done))
    else:
        _show(config, done)
    if done is not None and done.exit_code:
        click.get_current_context().exit(done.exit_code)


def _document(config: Config, done: Preflight | None) -> dict[str, Any]:
    document: dict[str, Any] = {
        "config": str(config.path),
        "fleets": {fleet.name: describe(fleet) for fleet in config.fleets},
        "channels": {channel.name: describe_channel(channel) for channel in config.notify},
        "findings": [asdict(finding) for finding in done.findings] if done else [],
    }
    if done is not None:
        document["samples"] = {name: _sample(found) for name, found in done.surveys.items()}
        document["proposals"] = {name: [each._asdict() for each in found] for name, found in done.proposals.items()}
    return document


def _sample(found: FleetSurvey) -> dict[str, Any]:
    first, last = found.span_us or (None, None)
    return {
        "records": found.n_records,
        "used": found.n_used,
        "readings": found.n_readings,
        "refused": [each._asdict() for each in found.refused],
        "assets": found.assets,
        "sensors": [asdict(sensor) for sensor in found.sensors],
        "from": None if first is None else timestamp(first),
        "to": None if last is None else timestamp(last),
        "places": found.places and found.places._asdict(),
        "spacing": found.spacing and found.spacing._asdict(),
        "late_s": found.late_s,
        "ahead_s": found.ahead,
        "notices": [asdict(notice) | {"assets": sorted(notice.assets)} for notice in found.notices],
    }


# ---------------------------------------------------------------- the configuration


def describe(fleet: FleetConfig) -> str:
    """Describe the settings of a fleet in one sentence."""
    chosen = ", or of the length that each training chooses," if fleet.window is None else ""
    span, every = (format_duration(cells * fleet.interval) for cells in (fleet.length, fleet.stride))
    return (
        f"windows of {span} ({fleet.length} × {format_duration(fleet.interval)}){chosen} every {every}; "
        f"waits {format_duration(fleet.lateness)} for missing readings; {fleet.model.architecture} model, "
        f"retrained {fleet.retrain.schedule} on the last {format_duration(fleet.retrain.history)}; "
        f"an alert after {fleet.alerts.confirm} anomalous windows, {fleet.alerts.budget} false alarms per asset allowed"
    )


def describe_channel(channel: NotifyConfig) -> str:
    """Describe a notification channel in one sentence."""
    alerts = "critical alerts" if channel.min_severity == "critical" else "alerts"
    from monitor.config.notify import CLASSES

    classes = "" if channel.classes == CLASSES else f" of class {', '.join(channel.classes)}"
    fleets = "" if channel.fleets == ("*",) else f" of {', '.join(channel.fleets)}"
    times = f" of {', '.join(channel.schedule)}" if channel.schedule else ""
    group = ", one notification per incident" if channel.by_incident else ""
    quiet = f", quiet {', '.join(channel.quiet_hours)}" if channel.quiet_hours else ""
    kind = "" if channel.kind == "webhook" else f"{channel.kind} "
    return f"sends {alerts}{classes}{fleets}{times} to {kind}{channel.shown_url}{group}{quiet}"


# ---------------------------------------------------------------- output


def _show(config: Config, done: Preflight | None) -> None:
    findings = done.findings if done else []
    of_fleets = {f"fleet {fleet.name}" for fleet in config.fleets}
    echo(Styled("✓", "green"), " ", Styled(str(config.path), "bold"), " is valid")
    for finding in findings:
        if finding.subject not in of_fleets:
            _show_finding(finding, finding.subject)
    for fleet in config.fleets:
        sensors = count(len(fleet.sensors), "sensor") if fleet.sensors else "sensors found in the readings"
        where = f"assets {', '.join(fleet.assets)} on {', '.join(config.topics_of(fleet))}, {sensors}"
        echo("\n", Styled(fleet.name, "bold"), f": {where}")
        echo_prose(describe(fleet), indent="  ")
        if done and fleet.name in done.surveys and done.surveys[fleet.name].n_records:
            echo()
            show_survey(fleet, done.surveys[fleet.name])
        own = [finding for finding in findings if finding.subject == f"fleet {fleet.name}"]
        if own:
            echo()
        for finding in own:
            _show_finding(finding)
        if done and (better := done.proposals.get(fleet.name)):
            _show_proposals(fleet, better)
    for channel in config.notify:
        echo("\n", Styled(channel.name, "bold"), f": {describe_channel(channel)}")
        echo(f"  test it with: monitor notify test {channel.name}")
    if done is not None:
        _show_next(done)


def _show_next(done: Preflight) -> None:
    if done.exit_code:
        echo("\nNot ready: correct what is marked with ", Styled(*SIGNS["error"]), ".")
    elif done.can_read:
        echo("\nReady: start it with ", Styled("monitor run", "bold"), ".")
    else:
        echo("\nNothing to read yet: ", Styled("monitor run", "bold"), " waits for the first record.")


def _show_finding(finding: Finding, subject: str = "") -> None:
    sign = Styled(*SIGNS[finding.level])
    first, *rest = wrapped(f"{subject} {finding.text}".strip(), "  ")
    echo(sign, " ", Styled(subject, "bold"), first[2:].removeprefix(subject))
    for line in rest:
        echo(line)
    if finding.fix:
        echo_prose(f"→ {finding.fix}", "dim", indent="  ")


def show_survey(fleet: FleetConfig, found: FleetSurvey) -> None:
    """Print how the sample was read."""
    span = " to ".join(timestamp(us) for us in found.span_us) if found.span_us else None
    echo_facts(
        {
            "sample": _size(found),
            "assets": _names(sorted(found.assets)) if found.assets else None,
            "places": _places(found),
            "time": f"{span} UTC" if span else None,
            "sensors": _names(sensor.name for sensor in found.sensors) if found.sensors else None,
            "incomplete": _incomplete(found),
            "doubtful": "; ".join(f"{s.name} {s.remark}" for s in found.sensors if s.remark) or None,
            "interval": _interval(fleet, found),
            "order": _order(fleet, found),
            "noticed": _noticed(found),
            "refused": f"{percent(found.share_refused)} of the records" if found.refused else None,
        }
    )
    for refusal in found.refused[:MAX_REASONS]:
        echo_prose(f"{refusal.n} × {refusal.example} ({refusal.position})", indent=" " * 15)


def _places(found: FleetSurvey) -> str | None:
    """Name the places of asset and time, and the structure of the records."""
    places = found.places
    if places is None or not (places.asset or places.time):
        return None
    parts = []
    if places.asset:
        parts.append(f"asset in {' or '.join(places.asset[:MAX_PLACES])}")
    if places.time:
        unit = f" ({' or '.join(places.unit[:MAX_PLACES])})" if places.unit else ""
        parts.append(f"time in {' or '.join(places.time[:MAX_PLACES])}{unit}")
    return f"{', '.join(parts)}; {' or '.join(places.shape[:MAX_PLACES])}"


def _noticed(found: FleetSurvey) -> str | None:
    details = list(dict.fromkeys(notice.detail for notice in found.notices))
    more = f"; and {len(details) - MAX_NOTICES} more" if len(details) > MAX_NOTICES else ""
    return "; ".join(details[:MAX_NOTICES]) + more if details else None


def _size(found: FleetSurvey) -> str:
    records = count(found.n_records, "record")
    return records if found.n_readings in (0, found.n_used) else f"{records} with {count(found.n_readings, 'reading')}"


def _incomplete(found: FleetSurvey) -> str | None:
    rare = [sensor for sensor in found.sensors if sensor.share < OFTEN]
    if not rare:
        return None
    shown = ", ".join(f"{sensor.name} {percent(sensor.share)}" for sensor in rare[:MAX_NAMES])
    more = f" and {len(rare) - MAX_NAMES} more" if len(rare) > MAX_NAMES else ""
    return f"have a value in a part of the readings: {shown}{more}"


def _interval(fleet: FleetConfig, found: FleetSurvey) -> str | None:
    if found.spacing is None:
        return None
    from monitor.service.advice import proposals

    fits = not any(each.key == "interval" for each in proposals(found, fleet))
    verdict = "fits" if fits else "does not fit"
    return f'{found.spacing.words}; interval = "{format_duration(fleet.interval)}" {verdict}'


def _order(fleet: FleetConfig, found: FleetSurvey) -> str | None:
    if not found.assets:
        return None
    if not found.late_s:
        return "each asset's readings come in order"
    covers = "covers" if found.late_s <= fleet.lateness.total_seconds() else "does not cover"
    lateness = format_duration(fleet.lateness)
    return f"up to {spoken(found.late_s)} behind a newer reading of the asset; lateness = \"{lateness}\" {covers} it"


def _show_proposals(fleet: FleetConfig, better: list[Proposal]) -> None:
    echo("\n  Settings that fit the sample better:")
    for table in dict.fromkeys(each.table for each in better):
        header = f'[[fleet]]  # {fleet.name}' if table == "fleet" else f"[{table}]"
        echo(Styled(f"    {header}", "dim"))
        for each in better:
            if each.table == table:
                echo("    ", Styled(each.line, "bold"))
                echo_prose(each.reason, "dim", indent="    # ")


def _names(names: Iterable[str]) -> str:
    listed = list(names)
    shown = ", ".join(listed[:MAX_NAMES])
    return shown if len(listed) <= MAX_NAMES else f"{shown} and {len(listed) - MAX_NAMES} more"
