"""`monitor replay`: the same river over old records."""

from __future__ import annotations

import os
import re
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from monitor.cli import diff as differing
from monitor.cli import output, terminal
from monitor.cli.params import (
    TIME,
    Parsed,
    column_options,
    config_option,
    config_path,
    json_option,
    load_config,
    range_options,
)
from monitor.cli.progress import progress
from monitor.cli.terminal import Styled, Table, echo

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from monitor.cli.progress import Progress
    from monitor.config import Config
    from monitor.evaluation.compare import LabelComparison
    from monitor.replay.diff import Side
    from monitor.replay.from_files import Columns
    from monitor.replay.run import ReplayResult
    from monitor.types import AlertChange


def parse_speed(text: str) -> float:
    """Read "60x": event time against real time."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*x?", text)
    if match is None or float(match[1]) == 0:
        raise ValueError(f'"{text}" is no speed; write 60x for sixty times as fast as it happened')
    return float(match[1])


@click.command()
@config_option
@click.argument("files", nargs=-1, type=click.Path(exists=True, dir_okay=False, path_type=Path))
@range_options("windows that end")
@click.option("--topic", "topics", multiple=True, help="Only this topic; may be repeated [default: all of [kafka]].")
@click.option("--offsets", type=click.Choice(["live", "all"]),
              help="live: exactly the records the daemon has consumed, so that the results are the same; all: whatever "
              "lies in Kafka [default: all with --from or --to, else live].")  # fmt: skip
@click.option("--version", help="Let this version decide its fleet, instead of those that decided live.")
@click.option("--diff", "named", type=Parsed("side", differing.parse_side), multiple=True, metavar="SIDE",
              help='Which alerts would SIDE have gained, lost, moved? A version, "champion", alert parameters like '
              '"confirm=5 of 8, recover=12", or both; against what decided live, or a second --diff.')  # fmt: skip
@click.option("--train-rows", type=click.IntRange(1), help="Learn from the first N rows of each file, replay the rest.")
@click.option("--train-until", type=TIME, metavar="TIME", help="Learn from each file up to here, replay the rest.")
@click.option("--speed", type=Parsed("speed", parse_speed), metavar="60x",
              help="Event time against real time [default: full speed].")  # fmt: skip
@click.option("--publish", "is_publishing", is_flag=True, help="Send the files to the topic instead, for the daemon.")
@click.option("--as", "form", type=click.Choice(["json", "block"]), default="json", show_default=True,
              help="How: a JSON reading each, or MessagePack blocks.")  # fmt: skip
@click.option("--into", metavar="URL", help="Keep the results: sqlite:///replay.db (a new file).")
@column_options
@json_option
def replay(
    files: tuple[Path, ...],
    since: datetime | None,
    until: datetime | None,
    topics: tuple[str, ...],
    offsets: str | None,
    version: str | None,
    named: tuple[Side, ...],
    train_rows: int | None,
    train_until: datetime | None,
    speed: float | None,
    is_publishing: bool,
    form: str,
    into: str | None,
    asset_column: str | None,
    time_column: str | None,
    label_column: str,
    as_json: bool,
) -> None:
    """Run old records through the river: FILES (CSV, CSV.gz, Parquet), or what lies in Kafka.

    Live tables are never touched: results go to a database of their own. What lies in Kafka is decided by the versions
    that decided live; over the offsets that the daemon has consumed, the results are held against its own. Where the
    database has no version, a file gets a model of its own, learnt from its head (--train-rows, --train-until, or
    train_rows in a meta.json beside it).

    --diff decides twice, by the same scores where the version is the same: how often would this have fired?
    """
    if train_rows is not None and train_until is not None:
        raise click.UsageError("--train-rows and --train-until say the same thing; use one.")
    if files and (since or until):
        raise click.UsageError("--from and --to are for Kafka; files are replayed whole (see --train-until).")
    if not files and (train_rows or train_until or is_publishing):
        raise click.UsageError("--train-rows, --train-until and --publish are for FILES; name some.")
    if files and offsets:
        raise click.UsageError("--offsets is for Kafka; files are replayed whole (see --train-until).")
    if named and (version or is_publishing):
        raise click.UsageError("--diff says who decides, and publishes nothing; leave out --version and --publish.")
    sides = differing.sides_of(named)
    import asyncio

    from monitor import logs
    from monitor.clock import SystemClock, to_us
    from monitor.replay.flow import ReplayObserver
    from monitor.replay.from_files import Columns, RecordingFiles, TrainingHead, replay_files
    from monitor.replay.from_kafka import replay_kafka
    from monitor.replay.offsets import KafkaRange
    from monitor.replay.run import ReplayOptions
    from monitor.store.results import FIRST_US, LAST_US

    columns = Columns(asset_column, time_column, label_column)
    if is_publishing:
        _publish(files, load_config(), topics, columns, as_blocks=form == "block", speed=speed, as_json=as_json)
        return
    head = TrainingHead(train_rows, to_us(train_until) if train_until else None)
    options = ReplayOptions(version, into, speed, sides)
    config = load_config() if not files or _has_config() else None
    logs.configure("warning")
    with progress("replay") as show:
        clock = SystemClock()
        observer = ReplayObserver(show) if as_json or named else ReplayObserver(show, partial(_print_alert, show))
        if files or config is None:
            recordings = RecordingFiles(files, head, columns)
            work = replay_files(recordings, config, options=options, observer=observer, clock=clock)
        else:
            stretch = (to_us(since) if since else FIRST_US, to_us(until) if until else LAST_US)
            wanted = KafkaRange(topics or config.kafka.topics, *stretch, offsets)
            work = replay_kafka(config, wanted, options=options, observer=observer, clock=clock)
        found = asyncio.run(work)
    if as_json:
        output.emit(_document(found))
    else:
        _report(found, into)


def _has_config() -> bool:
    """Whether there is a configuration to read: files need none."""
    from monitor.config import DEFAULT_FILE, ENV_FILE

    return config_path() is not None or ENV_FILE in os.environ or Path(DEFAULT_FILE).exists()


def _publish(
    files: Sequence[Path],
    config: Config,
    topics: Sequence[str],
    columns: Columns,
    *,
    as_blocks: bool,
    speed: float | None,
    as_json: bool,
) -> None:
    import asyncio

    from monitor.clock import SystemClock, from_us
    from monitor.recordings import read_recording
    from monitor.replay import publish

    topic = topics[0] if topics else config.kafka.topics[0]
    recordings = [
        read_recording(file, asset=columns.asset, timestamp=columns.timestamp, label=columns.label) for file in files
    ]
    n_readings = sum(map(len, recordings))
    last_us = max(int(one.ts_us.max()) for one in recordings)
    first_us = min(int(one.ts_us.min()) for one in recordings)
    with progress(f"publish to {topic}") as show:
        n = asyncio.run(
            publish.publish(
                config.kafka,
                topic,
                publish.as_timed_records(recordings, as_blocks=as_blocks),
                speed=speed,
                clock=SystemClock(),
                on_sent=lambda n, ts_us: show(
                    (ts_us - first_us) / max(1, last_us - first_us), f"{n:,} records, {from_us(ts_us):%Y-%m-%d %H:%M}"
                ),
            )
        )
    if as_json:
        output.emit({"topic": topic, "records": n, "readings": n_readings})
    else:
        click.echo(f"{n:,} records with {n_readings:,} readings are in {topic}.")


# ---------------------------------------------------------------- words


def _print_alert(show: Progress, change: AlertChange, asset: str) -> None:
    from monitor.clock import from_us

    contributions = output.contributions([{"name": each.name, "share": each.share} for each in change.contributions])
    peak = f"peak {change.peak_score:.2f}"
    when = output.moment(from_us(change.at_us))
    show.clear()
    echo(f"{when:<20}", output.state(f"{change.state:<11}"), f" {asset:<16} {peak:<11} ", Styled(contributions, "dim"))


def _document(found: ReplayResult) -> dict[str, Any]:
    from monitor.evaluation.compare import combine

    labels = combine([file.compared for file in found.files])
    document = {
        "readings": found.readings,
        "windows": found.windows,
        "scored": found.scored,
        "alerts": len(found.alerts),
        "quarantined": found.quarantined,
        "digest": found.digest,
        "offsets": found.offsets,
        "missing_offsets": found.missing,
        "live": None if found.live is None else {"windows": found.live.windows, "is_equal": found.equals_live},
        "labels": asdict(labels) if labels.events is not None else None,
        "files": [asdict(file) for file in found.files],
        "alert_list": found.alerts,
        "readings_per_s": round(found.readings / found.wall_s) if found.wall_s else None,
    }
    return document | {"diff": found.diff.document()} if found.diff else document


def _report(found: ReplayResult, into: str | None) -> None:
    from monitor.evaluation.compare import combine

    if found.files:
        echo()
        terminal.show(_files(found))
    echo()
    rate = f" ({found.readings / found.wall_s:,.0f} a second)" if found.wall_s else ""
    echo(f"{found.readings:,} readings{rate}, {found.windows:,} windows, {found.scored:,} of them scored")
    labels = combine([file.compared for file in found.files])
    inside = f"; {_labels(labels)}" if labels.events is not None else ""
    echo(f"{len(found.alerts):,} alerts, {found.quarantined:,} records in quarantine{inside}")
    echo(Styled(f"digest {found.digest}", "dim"), *_as_live(found))
    if into:
        echo(Styled(f"kept in {into}; look with MONITOR_STORE__URL={into} monitor alerts list", "dim"))
    if found.diff is not None:
        differing.show(found.diff, "each file's own" if found.files else "as live")
        other = combine([file.other for file in found.files if file.other is not None])
        if other.events is not None:
            found_by = f"Labelled events found: {other.found} of {other.events}, before {labels.found}"
            echo(f"{found_by}; alerts outside them: {other.outside:,}, before {labels.outside:,}.")


def _as_live(found: ReplayResult) -> list[str | Styled]:
    """Say whether live gave the same over the same records, and if not, what may be the reason."""
    if found.live is None:
        return []
    if found.equals_live:
        return [Styled(f", as live: all of its {found.live.windows:,} windows and their alerts are the same", "green")]
    if found.missing:
        gone = f"{found.missing:,} offsets that live consumed are no longer in Kafka, so these are not its results"
        return [Styled(f"\n{gone}; --offsets live --from TIME compares what is still there", "yellow")]
    why = "the configuration or a checkpoint has changed since, or this is a defect"
    windows = f"{found.live.windows:,} windows"
    return [Styled(f"\nLive gave something else for these records ({windows}): {why}.", "bold red")]


def _labels(compared: LabelComparison) -> str:
    return f"{compared.found} of {compared.events} labelled events found, {compared.outside} alerts outside them"


def _files(found: ReplayResult) -> Table:
    has_labels = any(file.compared.events is not None for file in found.files)
    headings = ["set", "file", "version", "learnt from:right", "alerts:right"]
    table = Table(*headings, *(["events found:right", "outside:right", "delay:right"] if has_labels else []))
    for file in found.files:
        compared = file.compared
        row: list[str | Styled] = [file.set, file.name, file.version, f"{file.train_rows:,} rows", str(compared.alerts)]
        if has_labels:
            delay = "–" if compared.delay_s is None else f"{compared.delay_s:,.0f} s"
            row += [f"{compared.found} of {compared.events}", str(compared.outside), delay]
        table.add(*row)
    return table
