"""`monitor init`: a first monitor.toml from a topic or a file."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from monitor.cli.params import file_options, take_file_options, written_file_options
from monitor.cli.terminal import Styled, echo, echo_prose
from monitor.errors import MonitorError, SourceRefused, SourceUnavailable
from monitor.wording import count

if TYPE_CHECKING:
    from monitor.recordings import FileOptions
    from monitor.service.starter import Starter

LOGIN = (
    "If the broker wants a login, set MONITOR_KAFKA__SECURITY_PROTOCOL=SASL_SSL, MONITOR_KAFKA__SASL_MECHANISM, "
    "MONITOR_KAFKA__USERNAME and MONITOR_KAFKA__PASSWORD, and MONITOR_KAFKA__CA_FILE for an authority of your own"
)


@click.command()
@click.argument("file", required=False, type=click.Path(path_type=Path))
@click.option("--bootstrap", default="localhost:9092", show_default=True, metavar="HOST:PORT", help="Kafka's brokers.")
@click.option("--topic", "topics", multiple=True, metavar="NAME", help="Topic to read. May be given several times.")
@click.option("--registry", metavar="URL", help="Schema registry of the records.")
@click.option(
    "--output", type=click.Path(path_type=Path, dir_okay=False), default=Path("monitor.toml"), show_default=True,
    help="File to write.",
)  # fmt: skip
@click.option("--force", is_flag=True, help="Replace an existing file.")
@file_options
def init(
    file: Path | None,
    bootstrap: str,
    topics: tuple[str, ...],
    registry: str | None,
    output: Path,
    force: bool,
    **reading: Any,
) -> None:
    """Write a monitor.toml for a topic, or for a FILE of readings.

    It reads a sample and chooses interval, window, lateness and sensors, with a comment for each. It joins no consumer
    group. A login is taken from the environment, as by the other commands.
    """
    if (file is None) == (not topics):
        raise click.UsageError("name a topic with --topic, or a FILE, not both")
    if output.exists() and not force:
        raise click.ClickException(f"{output} is there already; name another with --output, or replace it with --force")

    import logging

    from monitor.service import starter

    options = take_file_options(reading)
    logging.getLogger("aiokafka").addHandler(logging.NullHandler())
    if file is not None:
        made = starter.starter_for_file(file, options)
    else:
        settings: dict[str, Any] = {"registry_url": registry} if registry else {}
        try:
            made = starter.starter_for_topics(bootstrap, topics, settings)
        except (SourceRefused, SourceUnavailable) as error:
            raise _with_login(error) from error
    output.write_text(made.text, "utf-8")
    _show(made, output, file, options)


def _with_login(error: MonitorError) -> MonitorError:
    return type(error)(f"{error.detail}\n  {LOGIN}")


def _show(made: Starter, output: Path, file: Path | None, options: FileOptions) -> None:
    from monitor.cli.check import show_survey

    fleet = made.config.fleets[0]
    sampled = count(made.found.n_readings, "reading")
    echo(Styled("✓", "green"), " ", Styled(str(output), "bold"), f" is written, from a sample of {sampled}")
    echo()
    show_survey(fleet, made.found)
    for note in made.notes:
        echo_prose(note, "dim", "  ")
    config = "" if output == Path("monitor.toml") else f" -c {shlex.quote(str(output))}"
    reading = "".join(f" {shlex.quote(part)}" for part in written_file_options(options))
    first = (
        (
            f"monitor replay {shlex.quote(str(file))}{reading} --train-rows {max(1, made.n_rows // 2)}{config}",
            "learns its first half and finds anomalies in the rest",
        )
        if file is not None
        else (f"monitor check{config}", "reads a sample with these settings")
    )
    echo("\nNext:")
    steps = (first, (f"monitor run{config}", "trains a first model and watches"))
    width = max(len(command) for command, _ in steps)
    for command, purpose in steps:
        echo("  ", Styled(f"{command:<{width}}", "bold"), Styled(f"   {purpose}", "dim"))
    if file is not None:
        echo_prose("Before `monitor run`, correct [kafka] bootstrap and topics.", "dim", "  ")
