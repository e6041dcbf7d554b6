"""The checks of `monitor check`: the state that the daemon would find at its start.

Input: a configuration. Output: findings about the device, the database, the broker and each fleet. Invariant: the check
connects and reads, and changes nothing.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from monitor.errors import MonitorError, NotFound
from monitor.kafka.error_mapping import map_kafka_errors
from monitor.kafka.log_reader import LogBounds, log_bounds, partitions_of
from monitor.models.device import pick_device
from monitor.store import assets, versions
from monitor.store.engine import AsyncStore
from monitor.types import Finding, Partition

if TYPE_CHECKING:
    from monitor.config import Config, FleetConfig

Bounds = dict[Partition, LogBounds]


def preflight(config: Config) -> list[Finding]:
    """Check the device, the database, the broker and each fleet, in this order."""
    return asyncio.run(_check(config))


async def _check(config: Config) -> list[Finding]:
    findings = [_device(config)]
    champions, found = await _database(config)
    findings.append(found)
    bounds, found_at_broker = await _broker(config)
    findings += found_at_broker
    if bounds is not None:
        findings += [_fleet(config, fleet, champions.get(fleet.name), bounds) for fleet in config.fleets]
    return findings


def _device(config: Config) -> Finding:
    try:
        return Finding("ok", "device", f"models run on {pick_device(config.device)}")
    except MonitorError as error:
        return Finding("error", "device", error.detail, 'set device = "auto" to take what is there')


async def _database(config: Config) -> tuple[dict[str, str], Finding]:
    where = config.store.shown_url
    try:
        async with AsyncStore(config.store.url) as store:
            known = await store.read(assets.fleets)
            champions = {}
            for fleet in config.fleets:
                champion = await store.read(versions.champion, fleet.name)
                if champion is not None:
                    champions[fleet.name] = champion.version
    except NotFound:
        return {}, Finding("ok", "database", f"{where} will be created at the first start")
    except MonitorError as error:
        return {}, Finding("error", "database", str(error), "correct store.url, or start the database")
    return champions, Finding("ok", "database", f"{where}, {len(known)} fleet{'s' * (len(known) != 1)} known")


async def _broker(config: Config) -> tuple[Bounds | None, list[Finding]]:
    topics = sorted({topic for fleet in config.fleets for topic in config.topics_of(fleet)})
    try:
        with map_kafka_errors(config.kafka.bootstrap):
            found = await partitions_of(config.kafka, topics)
            bounds = await log_bounds(config.kafka, found)
    except MonitorError as error:
        # The message of a refusal names its own fix.
        fix = "start the broker, or correct kafka.bootstrap" if error.retriable else ""
        return None, [_security(config), Finding("error", "broker", str(error), fix)]
    findings = [_security(config), Finding("ok", "broker", f"{config.kafka.bootstrap} answers")]
    for topic in topics:
        own = {partition: ends for partition, ends in bounds.items() if partition.topic == topic}
        if own:
            n_records = sum(end - first for first, end in own.values())
            text = f"{len(own)} partition{'s' * (len(own) != 1)}, {n_records:,} records kept"
            findings.append(Finding("ok", f"topic {topic}", text))
        else:
            findings.append(
                Finding("warning", f"topic {topic}", "is not there yet", "create it, or correct kafka.topics")
            )
    return bounds, findings


def _security(config: Config) -> Finding:
    if config.kafka.allow_plaintext_password:
        fix = 'use "SASL_SSL" wherever others can listen'
        return Finding("warning", "security", config.kafka.shown_security, fix)
    return Finding("ok", "security", config.kafka.shown_security)


def _fleet(config: Config, fleet: FleetConfig, champion: str | None, bounds: Bounds) -> Finding:
    subject = f"fleet {fleet.name}"
    if champion is not None:
        return Finding("ok", subject, f"{champion} scores its windows")
    topics = config.topics_of(fleet)
    n_records = sum(end - first for partition, (first, end) in bounds.items() if partition.topic in topics)
    if n_records == 0:
        needed = f"windows stay unscored until {fleet.retrain.min_windows} are there"
        return Finding("warning", subject, f"no model yet, and no history to train one on: {needed}")
    return Finding("ok", subject, f"no model yet: the daemon trains one first, on the history in {', '.join(topics)}")
