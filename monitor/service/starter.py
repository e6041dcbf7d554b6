"""A first monitor.toml, from what a topic or a file holds: `monitor init`.

Input: a broker and its topics, or a file. Output: a commented configuration, with the survey that it follows from.
Invariant: the text is a valid configuration, and the sample was read with it. Settings of the environment (a login)
are used and not written.
"""

from __future__ import annotations

import asyncio
import os
import re
import tomllib
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import numpy as np

from monitor.config import parse
from monitor.config.loading import reference_file
from monitor.config.spacing import interval_for, spoken
from monitor.config.tree import USUAL_WINDOW
from monitor.config.values import format_duration
from monitor.errors import NotFound, QuarantineLimit
from monitor.kafka.log_reader import log_bounds, partitions_of
from monitor.kafka.sample import sample_ends
from monitor.service.advice import as_toml, lateness_for, window_for
from monitor.service.places import places_of, suggest_fields
from monitor.service.preflight import scale_readings
from monitor.service.survey import survey
from monitor.training.period import LATEST_ROWS, suggested_length
from monitor.types import Partition

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from monitor.config import Config
    from monitor.recordings import FileOptions
    from monitor.recordings.recording import Recording
    from monitor.service.survey import FleetSurvey
    from monitor.types import RecordBatch

DEFAULT_BOOTSTRAP = "localhost:9092"
FILE_ROWS = 20_000
"""Readings of each end of a file that are surveyed."""
MAX_REASONS = 3
"""Reasons in the error about records that cannot be used."""
PROVISIONAL = {"interval": "1s"}
"""Settings of the fleet for the first look. Only times depend on them, and the survey has finer ones."""


@dataclass(frozen=True, slots=True)
class Starter:
    """A configuration to be written."""

    text: str
    """TOML."""
    config: Config
    found: FleetSurvey
    """The sample, read with this configuration."""
    notes: tuple[str, ...] = ()
    """What was recognised or left out while a file was read."""
    n_rows: int = 0
    """Rows of the file."""


def starter_for_topics(
    bootstrap: str, topics: Sequence[str], kafka: Mapping[str, Any] | None = None, *, n_records: int = 100
) -> Starter:
    """Sample topics and return a configuration for them. `kafka`: more settings of `[kafka]`.

    Raises NotFound (no such topic, or no record in it), QuarantineLimit (none can be read), ConfigError, SourceRefused,
    SourceUnavailable.
    """
    settings = {"bootstrap": bootstrap, "topics": list(topics), **(kafka or {})}
    name = fleet_name(topics[0])
    first = _config(settings, {"name": name, **PROVISIONAL})
    bounds, sampled = asyncio.run(_sample(first, n_records))

    def scale(found: FleetSurvey) -> None:
        scale_readings(found, topics, bounds)

    return _starter(settings, name, sampled, scale, f"{', '.join(topics)} on {bootstrap}")


async def _sample(config: Config, n_records: int) -> tuple[Any, list[RecordBatch]]:
    partitions = await partitions_of(config.kafka, config.topics)
    there = {partition.topic for partition in partitions}
    if missing := [topic for topic in config.topics if topic not in there]:
        raise NotFound(f"topic {', '.join(missing)}: the broker at {config.kafka.bootstrap} does not have it")
    bounds = await log_bounds(config.kafka, partitions)
    if all(first == end for first, end in bounds.values()):
        raise NotFound(f"a record in {', '.join(config.topics)}; start the producer, then try again")
    return bounds, await sample_ends(config.kafka, bounds, n_records)


def starter_for_file(path: Path, options: FileOptions | None = None) -> Starter:
    """Read a file and return a configuration for its readings. Raises BadRecording, NotFound."""
    from monitor.recordings import as_records, read_recording

    recording = read_recording(path, options)
    n = len(recording)
    ends = recording.rows(np.flatnonzero((np.arange(n) < FILE_ROWS) | (np.arange(n) >= n - FILE_ROWS)))
    name = fleet_name(recording.name)
    settings = {"bootstrap": DEFAULT_BOOTSTRAP, "topics": [name]}
    batches = list(as_records(ends, partition=Partition(name, 0)))

    def scale(found: FleetSurvey) -> None:
        found.readings_per_asset = n // max(1, len(recording.assets))
        found.cycle = _cycle_of(recording, found)

    made = _starter(settings, name, batches, scale, str(path))
    return replace(made, notes=(*recording.notes, *recording.losses), n_rows=n)


def _cycle_of(recording: Recording, found: FleetSurvey) -> str:
    """Describe the cycle of the sensors that would need longer windows than the usual ones. Empty = there is none."""
    if found.spacing is None:
        return ""
    interval = interval_for(found.spacing)
    one = recording.per_asset()[0]
    cell = one.ts_us // (interval // timedelta(microseconds=1))
    rows = np.flatnonzero(cell > cell.max() - LATEST_ROWS)
    series = np.full((int(np.ptp(cell[rows])) + 1, len(one.sensors)), np.nan, dtype=np.float32)
    series[cell[rows] - cell[rows].min()] = one.values[rows]
    chosen = suggested_length(series, interval.total_seconds())
    return chosen.reason if chosen.cells > USUAL_WINDOW else ""


def _starter(
    settings: dict[str, Any],
    name: str,
    sampled: Sequence[RecordBatch],
    scale: Callable[[FleetSurvey], None],
    source: str,
) -> Starter:
    """Return the configuration that the sample suggests, and the sample as it is read with it."""

    def look(config: Config) -> FleetSurvey:
        found = survey(config, sampled)[name]
        found.places = places_of(config, sampled, config.fleets[0])
        scale(found)
        return found

    provisional = {"name": name, **PROVISIONAL}
    fields = suggest_fields(_config(settings, provisional), sampled, name)
    if fields:
        settings = settings | {"fields": {key: _plain(value) for key, value in fields.items()}}
    first = look(_config(settings, provisional))
    if not first.n_used:
        reasons = "".join(f"\n  {each.n} records: {each.example}" for each in first.refused[:MAX_REASONS])
        raise QuarantineLimit(f"none of {first.n_records} sampled records of {source}{reasons}")
    text = render(first, settings, name, source)
    tree = tomllib.loads(text)
    config = _config(tree["kafka"], tree["fleet"][0])
    return Starter(text, config, look(config))


def _plain(value: str | tuple[str, ...]) -> str | list[str]:
    """Return a setting without a list around a single place."""
    return value if isinstance(value, str) else value[0] if len(value) == 1 else list(value)


def _config(kafka: Mapping[str, Any], fleet: Mapping[str, Any]) -> Config:
    return parse({"kafka": dict(kafka), "fleet": [dict(fleet)]}, environ=os.environ)


def fleet_name(source: str) -> str:
    """Return a fleet's name for a topic or a file: "plant.readings" gives "plant-readings"."""
    return re.sub(r"[^a-z0-9_]+", "-", source.lower()).strip("-")[:64] or "fleet"


# ---------------------------------------------------------------- the text


def render(found: FleetSurvey, kafka: Mapping[str, Any], name: str, source: str) -> str:
    """Return the configuration as TOML, with a reason for each setting."""
    interval = interval_for(found.spacing) if found.spacing else None
    shown_interval = format_duration(interval) if interval else "1m"
    lines = [
        f"# Made by `monitor init` from {found.n_readings} readings of {source}.",
        "# `monitor check` reads a sample with it and says what fits. Every setting:",
        f"# {reference_file()}",
        "",
        "[kafka]",
        *(f"{key} = {as_toml(value)}" for key, value in kafka.items() if key != "fields"),
        "# A login comes from the environment: MONITOR_KAFKA__SECURITY_PROTOCOL, …__SASL_MECHANISM, …__USERNAME,",
        "# …__PASSWORD_FILE. Without `group` the consumer group is this database's own, so a trial disturbs nobody.",
        *_field_lines(found, kafka.get("fields", {})),
        "",
        "[[fleet]]",
        f"name = {as_toml(name)}",
    ]
    why = found.spacing.words if found.spacing else "too few readings to tell: correct it"
    lines.append(f'interval = "{shown_interval}"'.ljust(28) + f"# the grid: {why}")
    if interval is not None:
        window = window_for(interval, found.readings_per_asset, min_windows=200)
        if found.cycle:
            lines.append('window = "auto"'.ljust(28) + f"# {found.cycle}. Each training looks for it")
        else:
            lines.append(f"window = {window.cells}".ljust(28) + f"# cells: {window.reason}")
        lateness = lateness_for(found, interval)
        late = f"came up to {spoken(found.late_s)} late" if found.late_s else "came in order"
        lines.append(f'lateness = "{format_duration(lateness)}"'.ljust(28) + f"# readings {late}")
    lines += _sensor_lines(found)
    return "\n".join(lines) + "\n"


def _field_lines(found: FleetSurvey, fields: Mapping[str, Any]) -> list[str]:
    """Describe the places of asset and time, and set those that are not found without it."""
    places = found.places
    if fields:
        return ["", "[kafka.fields]              # without it the records cannot be read"] + [
            f"{key} = {as_toml(value)}" for key, value in fields.items()
        ]
    if places is None or not places.time:
        return []
    asset = places.asset[0] if places.asset else "the record's structure"
    unit = f" ({places.unit[0]})" if places.unit else ""
    return ["", f"# Found without [kafka.fields]: the asset in {asset}, the time in {places.time[0]}{unit}."]


def _sensor_lines(found: FleetSurvey) -> list[str]:
    """List the sensors that measure something, and the others as a comment."""
    kept = [sensor for sensor in found.sensors if not _is_left_out(sensor.remark)]
    left_out = [sensor for sensor in found.sensors if _is_left_out(sensor.remark)]
    if not kept:
        kept, left_out = list(found.sensors), []
    one_line = f"sensors = {as_toml([sensor.name for sensor in kept])}"
    lines = [one_line] if len(one_line) <= 100 else ["sensors = [", *(f"    {as_toml(s.name)}," for s in kept), "]"]
    lines += [f"# left out: {as_toml(sensor.name)} {sensor.remark}" for sensor in left_out]
    lines += [f"# note: {as_toml(sensor.name)} {sensor.remark}" for sensor in kept if sensor.remark]
    return lines


def _is_left_out(remark: str) -> bool:
    """Return whether a sensor with this remark measures nothing."""
    return remark.startswith("counts")
