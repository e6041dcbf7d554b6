"""`monitor replay`: the pipeline over recordings or old Kafka records."""

from __future__ import annotations

import os
import re
import shlex
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from monitor import wording
from monitor.cli import output
from monitor.cli.diff import parse_side, print_difference, sides_to_compare
from monitor.cli.params import (
    TIME,
    Parsed,
    config_option,
    config_path,
    file_options,
    json_option,
    load_config,
    range_options,
    take_file_options,
)
from monitor.cli.progress import progress
from monitor.cli.terminal import Styled, Table, echo, echo_prose
from monitor.clock import SystemClock, from_us, to_us

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from monitor.cli.progress import Progress
    from monitor.config import Config
    from monitor.evaluation.compare import LabelComparison
    from monitor.recordings import FileOptions, Recording
    from monitor.replay.diff import Side
    from monitor.replay.offsets import KafkaRange
    from monitor.replay.run import ReplayResult
    from monitor.types import AlertChange


@dataclass(frozen=True, slots=True)
class ReplayArguments:
    """Arguments of `monitor replay`, under the names that click passes."""

    files: tuple[Path, ...]
    since: datetime | None
    until: datetime | None
    topics: tuple[str, ...]
    offsets: str | None
    version: str | None
    diff: tuple[Side, ...]
    train_rows: int | None
    train_until: datetime | None
    speed: float | None
    is_publishing: bool
    form: str
    """json or block"""
    into: str | None
    reading: FileOptions
    join: bool | None
    as_json: bool


def parse_speed(text: str) -> float:
    """Parse event time per clock time, like "60x". Raises ValueError."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*x?", text)
    if match is None or float(match[1]) == 0:
        raise ValueError(f'"{text}" is no speed; write 60x for sixty times as fast as it happened')
    return float(match[1])


@click.command()
@config_option
@click.argument("files", nargs=-1, type=click.Path(exists=True, dir_okay=False, path_type=Path))
@range_options("windows ending")
@click.option("--topic", "topics", multiple=True, help="Only this topic; may be repeated [default: all of [kafka]].")
@click.option("--offsets", type=click.Choice(["live", "all"]),
              help="Only the Kafka records that the daemon has consumed, so that the results are the same (live), or "
              "all that Kafka holds [default: all with --from or --to, else live].")  # fmt: skip
@click.option("--version", help="Let this version decide its fleet, instead of the versions that decided live.")
@click.option("--diff", type=Parsed("side", parse_side), multiple=True, metavar="SIDE",
              help='Compare the alerts of SIDE with the live ones, or with those of a second --diff. A side is a '
              'version, "champion", alert parameters like "confirm=5 of 8, recover=12", or both.')  # fmt: skip
@click.option("--train-rows", type=click.IntRange(1), help="Train on the first N rows of each file, replay the rest.")
@click.option("--train-until", type=TIME, metavar="TIME", help="Train on each file up to this time, replay the rest.")
@click.option("--speed", type=Parsed("speed", parse_speed), metavar="60x",
              help="Event time per clock time [default: full speed].")  # fmt: skip
@click.option("--publish", "is_publishing", is_flag=True, help="Send the files to the topic for the daemon, instead.")
@click.option("--as", "form", type=click.Choice(["json", "block"]), default="json", show_default=True,
              help="Format for --publish: a JSON record for each reading, or MessagePack blocks.")  # fmt: skip
@click.option("--into", metavar="URL", help="Keep the results in a new file: sqlite:///replay.db.")
@click.option("--join/--no-join", default=None, help="Read all FILES as one recording, or each as one of its own "
              "[default: as one where the next has the same columns and begins where the last one ends].")  # fmt: skip
@file_options
@json_option
def replay(**arguments: Any) -> None:
    """Replay recordings or old Kafka records.

    FILES are CSV or other text tables (.gz too) or Parquet, wide or long. Their delimiter, header, times and numbers
    are recognised, and what was recognised is printed. The options below say what a file cannot say itself. Without
    FILES the records come from Kafka. The results go to a database of their own: the live tables never change.

    The versions that decided live decide Kafka records again. Over the offsets that the daemon has consumed, the
    results are compared with the live ones. If the database has no version, each file trains its own model on its head
    (--train-rows, --train-until, or train_rows in a meta.json beside it).

    --diff shows which alerts another version or other alert parameters would have gained, lost and moved. Windows are
    scored once for each version.
    """
    asked = ReplayArguments(reading=take_file_options(arguments), **arguments)
    _check(asked)
    if asked.is_publishing:
        _publish(asked)
    else:
        _replay(asked)


def _check(asked: ReplayArguments) -> None:
    """Raise UsageError for arguments that contradict each other or have no effect."""
    if asked.train_rows is not None and asked.train_until is not None:
        raise click.UsageError("--train-rows and --train-until exclude each other; use one.")
    if asked.files and (asked.since or asked.until):
        raise click.UsageError("--from and --to are for Kafka; files are replayed whole (see --train-until).")
    if not asked.files and (asked.train_rows or asked.train_until or asked.is_publishing):
        raise click.UsageError("--train-rows, --train-until and --publish are for FILES; name some.")
    if asked.files and asked.offsets:
        raise click.UsageError("--offsets is for Kafka; files are replayed whole (see --train-until).")
    if asked.diff and (asked.version or asked.is_publishing):
        raise click.UsageError("--diff names the versions, and publishes nothing; leave out --version and --publish.")


def _replay(asked: ReplayArguments) -> None:
    sides = sides_to_compare(asked.diff)
    # Reading comes first: a file that cannot be read costs no import of torch.
    files = _read_files(asked) if asked.files else []
    import asyncio

    from monitor import logs
    from monitor.replay.flow import ReplayObserver
    from monitor.replay.from_files import RecordingFiles, TrainingHead, replay_files
    from monitor.replay.from_kafka import replay_kafka
    from monitor.replay.run import ReplayOptions

    config = load_config() if not asked.files or _has_config() else None
    options = ReplayOptions(asked.version, asked.into, asked.speed, sides)
    clock = SystemClock()
    logs.configure("warning")
    with progress("replay") as on_progress:
        observer = ReplayObserver(on_progress)
        if not (asked.as_json or asked.diff):
            observer = ReplayObserver(
                on_progress, partial(_print_alert, on_progress), partial(_print_notes, on_progress)
            )
        if asked.files or config is None:
            head = TrainingHead(asked.train_rows, to_us(asked.train_until) if asked.train_until else None)
            recordings = RecordingFiles(files, head, asked.reading)
            work = replay_files(recordings, config, options=options, observer=observer, clock=clock)
        else:
            work = replay_kafka(config, _kafka_range(asked, config), options=options, observer=observer, clock=clock)
        result = asyncio.run(work)
    if asked.as_json:
        output.print_json(_document(result))
    else:
        _print(result, asked.into)


def _has_config() -> bool:
    """Return whether there is a configuration file. Recordings need none."""
    from monitor.config.loading import DEFAULT_FILE, ENV_FILE

    return config_path() is not None or ENV_FILE in os.environ or Path(DEFAULT_FILE).exists()


def _read_files(asked: ReplayArguments) -> list[tuple[Path, Recording]]:
    from monitor.recordings import read_files

    return read_files(asked.files, asked.reading, join=asked.join)


def _kafka_range(asked: ReplayArguments, config: Config) -> KafkaRange:
    from monitor.replay.offsets import KafkaRange
    from monitor.store.results import FIRST_US, LAST_US

    from_us = to_us(asked.since) if asked.since else FIRST_US
    until_us = to_us(asked.until) if asked.until else LAST_US
    return KafkaRange(asked.topics or config.kafka.topics, from_us, until_us, asked.offsets)


def _publish(asked: ReplayArguments) -> None:
    import asyncio

    from monitor.replay.publish import as_timed_records, publish

    config = load_config()
    topic = (asked.topics or config.kafka.topics)[0]
    recordings = [recording for _, recording in _read_files(asked)]
    if not asked.as_json:
        for recording in recordings:
            _print_notes(None, recording.name, (*recording.notes, *recording.losses))
    first_us = min(int(recording.ts_us.min()) for recording in recordings)
    last_us = max(int(recording.ts_us.max()) for recording in recordings)
    records = as_timed_records(recordings, as_blocks=asked.form == "block")
    with progress(f"publish to {topic}") as on_progress:

        def on_sent(n: int, ts_us: int) -> None:
            share = (ts_us - first_us) / max(1, last_us - first_us)
            on_progress(share, f"{n:,} records, {from_us(ts_us):%Y-%m-%d %H:%M}")

        n = asyncio.run(publish(config.kafka, topic, records, speed=asked.speed, clock=SystemClock(), on_sent=on_sent))
    n_readings = sum(map(len, recordings))
    if asked.as_json:
        output.print_json({"topic": topic, "records": n, "readings": n_readings})
    else:
        echo(f"{n:,} records with {n_readings:,} readings are in {topic}.")


# ---------------------------------------------------------------- results


def _document(result: ReplayResult) -> dict[str, Any]:
    labels = _compared_with_labels(result)
    document = {
        "readings": result.readings,
        "windows": result.windows,
        "scored": result.scored,
        "alerts": len(result.alerts),
        "quarantined": result.quarantined,
        "digest": result.digest,
        "offsets": result.offsets,
        "missing_offsets": result.missing,
        "live": _live_json(result),
        "labels": asdict(labels) if labels.events is not None else None,
        "files": [asdict(file) for file in result.files],
        "alert_list": result.alerts,
        "weeks": round(result.weeks, 4) if result.weeks else None,
        "allowed": round(result.allowed, 4) if result.weeks else None,
        "readings_per_s": round(result.readings / result.wall_s) if result.wall_s else None,
    }
    return document | {"diff": result.diff.document()} if result.diff else document


def _compared_with_labels(result: ReplayResult) -> LabelComparison:
    from monitor.evaluation.compare import combine

    return combine([file.compared for file in result.files])


def _print_notes(on_progress: Progress | None, name: str, notes: Sequence[str]) -> None:
    if on_progress is not None:
        on_progress.clear()
    for note in notes:
        echo_prose(f"{name}: {note}", "dim")


def _print_alert(on_progress: Progress, change: AlertChange, asset: str) -> None:
    contributions = output.contributions(map(asdict, change.contributions))
    peak = f"peak {change.peak_score:.2f}"
    on_progress.clear()
    echo(
        f"{output.timestamp(change.at_us):<20}",
        output.state(change.state, width=11),
        f" {asset:<16} {peak:<11} ",
        Styled(contributions, "dim"),
    )


def _print(result: ReplayResult, into: str | None) -> None:
    if result.files:
        echo()
        _file_table(result).print()
    echo()
    rate = f" ({result.readings / result.wall_s:,.0f} a second)" if result.wall_s else ""
    echo(f"{result.readings:,} readings{rate}, {result.windows:,} windows, {result.scored:,} of them scored")
    labels, events = _compared_with_labels(result), ""
    if labels.events is not None:
        events = f"; {labels.found} of {labels.events} labelled events found, {labels.outside} alerts outside them"
    n_alerts = len(result.alerts)
    alerts = f"{n_alerts:,} {'alert' if n_alerts == 1 else 'alerts'}{_against_budget(result)}"
    echo(f"{alerts}, {result.quarantined:,} records in quarantine{events}")
    n_always = sum(file.compared.always_open or 0 for file in result.files)
    if n_always:
        echo_prose(f"{n_always:,} of the alerts were open most of the normal time: they find no event.", "yellow")
    echo(Styled(f"digest {result.digest}", "dim"))
    _print_live_comparison(result)
    if into:
        see = f"MONITOR_STORE__URL={shlex.quote(into)} monitor alerts list"
        echo(Styled(f"The results are in {into}. See: {see}", "dim"))
    if result.diff is not None:
        print_difference(result.diff, "each file's own" if result.files else "as live")
        _print_other_side(result, labels)


def _against_budget(result: ReplayResult) -> str:
    """Return the replayed time and the false alarms that it may have. Empty for Kafka's records."""
    if not result.weeks:
        return ""
    units = (("weeks", 1.0), ("days", 7.0), ("hours", 7 * 24.0))
    time = next((f"{result.weeks * n:,.1f} {unit}" for unit, n in units if result.weeks * n >= 1), "less than an hour")
    return f" in {time}, {result.allowed:{',.0f' if result.allowed >= 10 else '.2g'}} false ones allowed"


def _live_json(result: ReplayResult) -> dict[str, Any] | None:
    if result.live is None:
        return None
    return {
        "windows": result.live.windows,
        "is_equal": result.equals_live,
        "not_comparable": result.live.n_skipped,
        "unreadable": [{name: each[name] for name in ("fleet", "version", "reason")} for each in result.unreadable],
    }


def _print_live_comparison(result: ReplayResult) -> None:
    """Print whether the live results over the same records are the same, and the possible reasons if not."""
    if result.live is None:
        return
    for each in result.unreadable:
        echo_prose(f"{each['version']} of {each['fleet']} cannot be loaded: {each['reason']}", "yellow")
    if result.live.n_skipped:
        echo_prose(f"Not comparable: {result.live.n_skipped:,} windows that these versions decided live", "yellow")
    if result.equals_live:
        n = result.live.windows - result.live.n_skipped
        echo_prose(f"The results are as live: all of its {n:,} windows and their alerts are the same", "green")
    elif result.missing:
        echo_prose(
            f"{result.missing:,} offsets that live consumed are no longer in Kafka, so these are not its results; "
            "--offsets live --from TIME compares the rest",
            "yellow",
        )
    else:
        echo_prose(
            f"Live gave something else for these records ({result.live.windows:,} windows): the configuration or a "
            "checkpoint has changed since, or this is a defect.",
            "bold red",
        )


def _print_other_side(result: ReplayResult, labels: LabelComparison) -> None:
    """Print the second side's alerts against the labels."""
    from monitor.evaluation.compare import combine

    other = combine([file.other for file in result.files if file.other is not None])
    if other.events is not None:
        echo_prose(
            f"Labelled events found: {other.found} of {other.events}, before {labels.found}; "
            f"alerts outside them: {other.outside:,}, before {labels.outside:,}."
        )


def _file_table(result: ReplayResult) -> Table:
    has_labels = any(file.compared.events is not None for file in result.files)
    headings = ["set", "file", "version", "trained on:right", "alerts:right"]
    labelled = ["events found:right", "outside:right", "alarmed:right", "delay:right"]
    table = Table(*headings, *(labelled if has_labels else []))
    for file in result.files:
        compared = file.compared
        row: list[str | Styled] = [file.set, file.name, file.version, f"{file.train_rows:,} rows", str(compared.alerts)]
        if has_labels:
            delay = "–" if compared.delay_s is None else f"{compared.delay_s:,.0f} s"
            found = f"{compared.found} of {compared.events}"
            row += [found, str(compared.outside), wording.percent(compared.alarmed_share), delay]
        table.add(*row)
    return table
