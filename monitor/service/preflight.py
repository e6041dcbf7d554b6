"""The checks of `monitor check`: the state that the daemon would find at its start, and how it would read the topics.

Input: a configuration. Output: findings about the device, the database, the broker and each fleet, and a survey of
sampled records. Invariant: the check connects and reads, and changes nothing. It joins no consumer group and commits
no offset. An error has the exit code with which a daemon would end.
"""

from __future__ import annotations

import asyncio
import socket
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from monitor.clock import SystemClock
from monitor.config.spacing import spoken
from monitor.errors import ConfigError, MonitorError, NotFound, QuarantineLimit, SourceRefused
from monitor.kafka.group_members import foreign_members, members_of
from monitor.kafka.log_reader import LogBounds, log_bounds, partitions_of
from monitor.kafka.record_format import check_format
from monitor.kafka.sample import sample_ends
from monitor.service.advice import AHEAD_S, Proposal, as_toml, proposals
from monitor.service.places import places_of, suggest_fields
from monitor.service.source_watch import foreign_sentence
from monitor.service.survey import FleetSurvey, survey
from monitor.service.terms import terms_findings
from monitor.store import assets, daemons, identity, partitions, versions
from monitor.store.engine import AsyncStore
from monitor.stream.outcome import REASONS_NOT_COUNTED
from monitor.types import Finding

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from monitor.config import Config, FleetConfig
    from monitor.store.identity import Identity
    from monitor.types import Partition

Bounds = dict["Partition", LogBounds]

CUDA_FILES = ("/dev/nvidiactl", "/dev/nvidia0", "/dev/dxg", "/proc/driver/nvidia/version")
"""Any of these exists where an NVIDIA driver runs. PyTorch, which knows exactly, takes seconds to import."""
MAX_NAMES = 5
"""Names in one sentence."""


@dataclass(slots=True)
class Preflight:
    """The result of a check."""

    findings: list[Finding] = field(default_factory=list)
    surveys: dict[str, FleetSurvey] = field(default_factory=dict)
    """By fleet. Empty where no record could be sampled."""
    proposals: dict[str, list[Proposal]] = field(default_factory=dict)
    """By fleet, settings that fit the sample better."""

    @property
    def can_read(self) -> bool:
        """Whether at least one record can be used."""
        return any(each.n_used for each in self.surveys.values())

    @property
    def exit_code(self) -> int:
        """That of the first error. 0 = none."""
        return next((each.exit_code for each in self.findings if each.level == "error"), 0)


@dataclass(frozen=True, slots=True)
class _Stored:
    """The facts that the database has."""

    identity: Identity | None = None
    """None = there is no database yet."""
    sensors: Mapping[str, tuple[str, ...] | None] = field(default_factory=dict)
    """By fleet."""
    champions: Mapping[str, tuple[str, tuple[str, ...]]] = field(default_factory=dict)
    """By fleet, the version and its sensors."""
    cards: Mapping[str, tuple[str, Mapping[str, Any]]] = field(default_factory=dict)
    """By fleet, the version and the part of its card in the database."""
    positions: Mapping[tuple[str, Partition], int] = field(default_factory=dict)
    """By group and partition, the next offset."""
    n_daemons: int = 0


def preflight(config: Config, n_records: int = 100) -> Preflight:
    """Check everything. `n_records`: records sampled at each end of each partition."""
    return asyncio.run(_check(config, n_records))


async def _check(config: Config, n_records: int) -> Preflight:
    done = Preflight([_device(config)])
    stored, found = await _database(config)
    done.findings.append(found)
    if stored.identity is not None:
        config = config.with_default_group(stored.identity.default_group)
    if not stored.n_daemons:
        done.findings += _pages(config)
    bounds, found_at_broker = await _broker(config)
    done.findings += found_at_broker
    if bounds is None:
        return done
    done.findings += await check_format(config.kafka)
    done.findings += await _group(config, stored)
    done.findings += _positions(config, stored, bounds)
    try:
        sampled = await sample_ends(config.kafka, bounds, n_records)
    except MonitorError as error:
        done.findings.append(_error("sample", error))
        return done
    done.surveys = survey(config, sampled, stored.sensors)
    for fleet in config.fleets:
        found_here = done.surveys[fleet.name]
        scale_readings(found_here, config.topics_of(fleet), bounds)
        found_here.places = places_of(config, sampled, fleet)
        done.proposals[fleet.name] = [
            *(Proposal("kafka.fields", key, as_toml(value), "reads the records of the sample")
              for key, value in suggest_fields(config, sampled, fleet.name).items()),
            *proposals(found_here, fleet),
        ]  # fmt: skip
        done.findings += _fleet(config, fleet, stored, found_here)
    return done


def scale_readings(found: FleetSurvey, topics: Sequence[str], bounds: Mapping[Partition, LogBounds]) -> None:
    """Estimate how many readings the topics hold of a usual asset, by its share of the sample."""
    n_kept = sum(end - first for partition, (first, end) in bounds.items() if partition.topic in topics)
    if found.n_records and found.assets:
        share = found.n_used / found.n_records
        found.readings_per_asset = round(n_kept * share / len(found.assets))


def _error(subject: str, error: MonitorError, fix: str = "") -> Finding:
    return Finding("error", subject, str(error), fix, type(error).exit_code)


# ---------------------------------------------------------------- the machine


def _device(config: Config) -> Finding:
    """Check the device without PyTorch."""
    is_missing = (config.device.startswith("cuda") and not any(Path(file).exists() for file in CUDA_FILES)) or (
        config.device == "mps" and sys.platform != "darwin"
    )
    if is_missing:
        text = f"{config.device}: this machine has no such device"
        fix = 'set device = "auto" to take what is there'
        return Finding("error", "device", text, fix, ConfigError.exit_code)
    where = {"auto": "models run on the GPU if there is one, else on the CPU"}
    return Finding("ok", "device", where.get(config.device, f"models run on {config.device}"))


def _pages(config: Config) -> list[Finding]:
    if config.http.address is None:
        return []
    host, port = config.http.address
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        with socket.socket(family) as listening:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listening.bind((host, port))
    except OSError as error:
        text = f"{config.http.listen} cannot be used: {error.strerror}"
        return [Finding("error", "http", text, "choose another http.listen", ConfigError.exit_code)]
    return [Finding("ok", "http", f"{config.http.listen} is free for /live, /ready and /metrics")]


async def _database(config: Config) -> tuple[_Stored, Finding]:
    where = config.store.shown_url
    fleets = [fleet.name for fleet in config.fleets]
    try:
        async with AsyncStore(config.store.url) as store:
            sensors = await store.read(assets.fleets)
            champions = await store.read(versions.champion_sensors, fleets)
            cards = await store.read(versions.champion_cards, fleets)
            stored = _Stored(
                await store.read(identity.read),
                sensors,
                champions,
                cards,
                await store.read(partitions.positions),
                await store.read(daemons.count_alive, SystemClock().now_us()),
            )
    except NotFound:
        return _Stored(), Finding("ok", "database", f"{where} will be created at the first start")
    except MonitorError as error:
        fix = "correct store.url, or start the database" if error.retriable else ""
        return _Stored(), _error("database", error, fix)
    n_known = len(stored.sensors)
    running = f", {stored.n_daemons} daemon{'s' * (stored.n_daemons != 1)} running" if stored.n_daemons else ""
    return stored, Finding("ok", "database", f"{where}, {n_known} fleet{'s' * (n_known != 1)} known{running}")


# ---------------------------------------------------------------- the broker


async def _broker(config: Config) -> tuple[Bounds | None, list[Finding]]:
    try:
        found = await partitions_of(config.kafka, config.topics)
        bounds = await log_bounds(config.kafka, found)
    except MonitorError as error:
        # The message of a refusal names its own fix.
        fix = "start the broker, or correct kafka.bootstrap" if error.retriable else ""
        return None, [_security(config), _error("broker", error, fix)]
    findings = [_security(config), Finding("ok", "broker", f"{config.kafka.bootstrap} answers")]
    for topic in config.topics:
        own = {partition: ends for partition, ends in bounds.items() if partition.topic == topic}
        n_records = sum(end - first for first, end in own.values())
        if not own:
            text = "is not there yet: a daemon takes it within half a minute once it is"
            findings.append(Finding("warning", f"topic {topic}", text, "create it, or correct kafka.topics"))
        else:
            text = f"{len(own)} partition{'s' * (len(own) != 1)}, {n_records:,} records kept"
            findings.append(Finding("ok", f"topic {topic}", text))
    return bounds, findings


def _security(config: Config) -> Finding:
    if config.kafka.allow_plaintext_password:
        fix = 'use "SASL_SSL" wherever others can listen'
        return Finding("warning", "security", config.kafka.shown_security, fix)
    return Finding("ok", "security", config.kafka.shown_security)


async def _group(config: Config, stored: _Stored) -> list[Finding]:
    """Name the members of the consumer group that are no daemons of this database."""
    if not config.kafka.group:
        return [Finding("ok", "group", "a new one, derived from the database at the first start")]
    try:
        members = await members_of(config.kafka)
    except MonitorError:
        return []  # without the right to look nothing is known
    subject = f"group {config.kafka.group}"
    if foreign := foreign_members(members, stored.identity.client_id if stored.identity else "(no database yet)"):
        text = foreign_sentence(config.kafka.group, foreign)
        return [Finding("error", subject, text, exit_code=SourceRefused.exit_code)]
    n = len(members)
    return [Finding("ok", subject, f"{n} member{'s' * (n != 1)}, all of this database" if n else "has no other member")]


def _positions(config: Config, stored: _Stored, bounds: Bounds) -> list[Finding]:
    """Compare the offsets in the database with the logs."""
    findings = []
    for topic in config.topics:
        others = sorted({group for group, p in stored.positions if p.topic == topic and group != config.kafka.group})
        ours = {p: at for (group, p), at in stored.positions.items() if p.topic == topic and group not in others}
        if others and not ours:
            text = f'this database holds what group "{others[0]}" found in {topic}'
            fix = f'set kafka.group = "{others[0]}", or take an empty database (store.url)'
            findings.append(Finding("error", f"topic {topic}", text, fix, ConfigError.exit_code))
        shorter = [p for p, at in ours.items() if p in bounds and at > bounds[p].end]
        if shorter:
            text = f"{shorter[0]} is shorter than what was read: the topic was probably deleted and created again"
            fix = "read it from its start with an empty database (store.url)"
            findings.append(Finding("error", f"topic {topic}", text, fix, SourceRefused.exit_code))
        n_lost = sum(max(0, bounds[p].first - at) for p, at in ours.items() if p in bounds)
        if n_lost:
            text = f"retention has deleted {n_lost:,} records that were not read yet"
            findings.append(Finding("warning", f"topic {topic}", text, "longer retention; the daemon goes on behind"))
    return findings


# ---------------------------------------------------------------- a fleet


def _fleet(config: Config, fleet: FleetConfig, stored: _Stored, found: FleetSurvey) -> list[Finding]:
    return [
        *_readable(config, fleet, found),
        *_clocks(fleet, found),
        *_sparse(fleet, found),
        *_model(config, fleet, stored, found),
        *terms_findings(
            fleet,
            stored.cards.get(fleet.name),
            fleet.sensors or stored.sensors.get(fleet.name) or tuple(each.name for each in found.sensors),
        ),
    ]


def _readable(config: Config, fleet: FleetConfig, found: FleetSurvey) -> list[Finding]:
    subject, topics = f"fleet {fleet.name}", ", ".join(config.topics_of(fleet))
    if not found.n_records:
        text = f"no record in {topics} yet: a daemon waits for them"
        return [Finding("warning", subject, text, "start the producer, then check again how its records are read")]
    counted = [each for each in found.refused if not f"{each.word}:".startswith(REASONS_NOT_COUNTED)]
    n_counted = sum(each.n for each in counted)
    if not found.n_used:
        why = f": {found.refused[0].example}" if found.refused else "; other fleets use them"
        text = f"none of {found.n_records} sampled records of {topics} can be used{why}"
        return [Finding("error", subject, text, exit_code=QuarantineLimit.exit_code)]
    if n_counted > config.kafka.max_quarantine_share * found.n_records:
        text = f"{n_counted} of {found.n_records} sampled records cannot be used: {counted[0].example}"
        fix = "correct [kafka.fields] or kafka.format, or raise kafka.max_quarantine_share"
        return [Finding("error", subject, text, fix, QuarantineLimit.exit_code)]
    read = f"{found.n_used} of {found.n_records} sampled records are used"
    if found.refused:
        return [Finding("warning", subject, f"{read}, {found.n_refused} are refused", "")]
    return [Finding("ok", subject, read)]


def _clocks(fleet: FleetConfig, found: FleetSurvey) -> list[Finding]:
    ahead = {name: seconds for name, seconds in found.ahead.items() if seconds > AHEAD_S}
    if not ahead:
        return []
    most = max(ahead.values())
    text = f"clocks run ahead of Kafka's by up to {spoken(most)}: {_named(list(ahead))}"
    fix = "correct them, or their zone: [kafka.fields] timezone"
    return [Finding("warning", f"fleet {fleet.name}", text, fix)]


def _sparse(fleet: FleetConfig, found: FleetSurvey) -> list[Finding]:
    wanted = next((each for each in proposals(found, fleet) if each.key == "interval" and each.is_needed), None)
    if wanted is None or found.spacing is None:
        return []
    text = f"{found.spacing.words}, more than an interval: windows have holes and are not scored"
    return [Finding("warning", f"fleet {fleet.name}", text, wanted.line)]


def _model(config: Config, fleet: FleetConfig, stored: _Stored, found: FleetSurvey) -> list[Finding]:
    subject = f"fleet {fleet.name}"
    if fleet.name in stored.champions:
        version, knows = stored.champions[fleet.name]
        reads = fleet.sensors or stored.sensors.get(fleet.name) or tuple(each.name for each in found.sensors)
        added, gone = [n for n in reads if n not in knows], [n for n in knows if n not in reads]
        if knows and reads and (added or gone):
            parts = [f"does not know {_named(added)}"] * bool(added) + [f"expects {_named(gone)}"] * bool(gone)
            text, fix = f"{version} {' and '.join(parts)}", f"monitor retrain {fleet.name}"
            return [Finding("warning", subject, f"{text}: other sensors than those that are read", fix)]
        return [Finding("ok", subject, f"{version} scores its windows")]
    if not found.n_used:
        if found.n_records:
            return []
        needed = f"windows stay unscored until {fleet.retrain.min_windows} are there"
        return [Finding("warning", subject, f"no model yet, and no history to train one on: {needed}")]
    topics = ", ".join(config.topics_of(fleet))
    return [Finding("ok", subject, f"no model yet: the daemon trains one first, on the history in {topics}")]


def _named(names: Sequence[str]) -> str:
    shown = ", ".join(names[:MAX_NAMES])
    return shown if len(names) <= MAX_NAMES else f"{shown} and {len(names) - MAX_NAMES} more"
